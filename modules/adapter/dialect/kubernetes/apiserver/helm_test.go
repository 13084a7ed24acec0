package apiserver

import (
	"os"
	"path/filepath"
	"testing"
)

// chart is what helm create makes, without what no Swarm has.
var chart = map[string]string{
	"Chart.yaml":  "apiVersion: v2\nname: web\nversion: 0.1.0\nappVersion: \"1\"\n",
	"values.yaml": "replicas: 1\nimage: nginx:1\ngreeting: hello\n",
	"templates/all.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-page"}
data: {index.html: "{{ .Values.greeting }}"}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{{ .Release.Name }}"
  labels: {app.kubernetes.io/instance: "{{ .Release.Name }}", app.kubernetes.io/managed-by: "{{ .Release.Service }}"}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app.kubernetes.io/instance: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {app.kubernetes.io/instance: "{{ .Release.Name }}"}}
    spec:
      containers:
      - {name: web, image: "{{ .Values.image }}", volumeMounts: [{name: page, mountPath: /page}]}
      volumes: [{name: page, configMap: {name: "{{ .Release.Name }}-page"}}]
---
apiVersion: v1
kind: Service
metadata: {name: "{{ .Release.Name }}"}
spec: {clusterIP: None, selector: {app.kubernetes.io/instance: "{{ .Release.Name }}"}, ports: [{port: 80}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: "{{ .Release.Name }}-hook", annotations: {helm.sh/hook: post-install, helm.sh/hook-delete-policy: hook-succeeded}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: hook, image: busybox}]}}}
`,
}

// TestHelm installs a chart, upgrades it, takes that back and removes it.
func TestHelm(t *testing.T) {
	sh := shells(t, "helm")
	dir := filepath.Join(sh.home, "web")
	for name, text := range chart {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sh.run("helm install shop "+dir+" --wait --timeout 30s", "", "STATUS: deployed")
	sh.fails("helm install shop "+dir, "", "cannot re-use a name")
	sh.run("helm upgrade shop "+dir+" --set replicas=3,image=nginx:2,greeting=bye --wait --timeout 30s", "", "REVISION: 2")
	sh.run("helm status shop", "", "STATUS: deployed")
	sh.run("helm get manifest shop", "", "nginx:2")
	sh.run("helm history shop", "", "superseded", "deployed")
	sh.run("helm rollback shop 1 --wait --timeout 30s", "", "Rollback was a success")
	sh.run("helm list", "", "shop", "deployed")
	sh.run("helm upgrade --install second "+dir+" --namespace other --create-namespace --wait --timeout 30s", "", "STATUS: deployed")
	s := sh.stand
	s.fake.mu.Lock()
	if w := s.fake.workloads[0]; w.Replicas != 1 || w.Template.Image != "nginx:1" {
		t.Errorf("rolled back to %+v", w)
	}
	s.fake.mu.Unlock()
	sh.run("helm uninstall shop --wait --timeout 30s", "", "uninstalled")
	sh.run("helm uninstall second --namespace other --wait --timeout 30s", "", "uninstalled")
	s.fake.mu.Lock()
	if len(s.fake.workloads) != 0 {
		t.Errorf("left: %+v", s.fake.workloads)
	}
	s.fake.mu.Unlock()
}
