{{- define "isthmus.gateway" -}}
apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: {{ .Values.gateway.name | quote }}}
spec:
  suffix: {{ .Values.gateway.suffix | quote }}
  {{- with .Values.gateway.trustDomain }}
  trustDomain: {{ . | quote }}
  {{- end }}
  runDir: /run/isthmus/gateway
  stateDir: /var/lib/isthmus/gateway
  orchestrator:
    type: kubernetes
    kubernetes: {namespace: {{ .Values.gateway.namespace | quote }}}
  listeners:
    peer: 0.0.0.0:15443
    http: {{ .Values.service.edge.enabled | ternary "0.0.0.0" "127.0.0.1" }}:15080
    admin: 127.0.0.1:15000
    health: 0.0.0.0:15021
  {{- with .Values.gateway.callers }}
  callers: {{- toYaml . | nindent 4 }}
  {{- end }}
  envoy: {concurrency: {{ .Values.gateway.concurrency }}}
  {{- with .Values.gateway.leases }}
  leases: {{- toYaml . | nindent 4 }}
  {{- end }}
  audit: {path: stdout}
  state:
    home: kubernetes
    kubernetes: {namespace: {{ .Release.Namespace | quote }}}
  {{- with .Values.gateway.otlp }}
  tracing: {otlp: {{ . | quote }}}
  {{- end }}
{{- end -}}

{{- define "isthmus.peers" -}}
{{- range .Values.peers }}
---
apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: {{ .name | quote }}}
spec: {{- toYaml .spec | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "isthmus.policies" -}}
{{- range .Values.policies }}
---
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: {{ .name | quote }}}
spec: {{- toYaml .spec | nindent 2 }}
{{- end }}
{{- end -}}
