package app

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// answer is what a client is told so that it goes on to the request that it is for; nil where it ends. preliminary
// requests are those that every client sends first.
func (s *capture) answer(c captured, e Explained) (answer *modules.Answer, preliminary bool) {
	switch s.client.of {
	case neutral.Docker:
		return s.answerDocker(c, e)
	case neutral.Kubernetes:
		return s.answerKubernetes(c, e)
	}
	return nil, false
}

// goesOn tells whether the client would get an answer to go on with.
func goesOn(e Explained) bool { return e.Decision == decisionAllow || e.Decision == decisionDepends }

func (s *capture) answerDocker(c captured, e Explained) (*modules.Answer, bool) {
	i := slices.IndexFunc(adapter.Dialects, func(d dialect.Dialect) bool { return d.Orchestrator() == neutral.Docker })
	inbound, ok := adapter.Dialects[i].(dialect.Inbound)
	if !ok {
		return nil, false
	}
	head := dialect.Request{Method: c.Method, Path: c.Path, Header: c.Header}
	op, err := inbound.Classify(head)
	if err != nil {
		return nil, false
	}
	if op.Action == neutral.SystemPing {
		if response, ok := inbound.Local(op, head, dialect.Target{Cluster: s.explainer.cluster()}); ok {
			return &modules.Answer{Status: response.Status, Header: response.Header, Body: response.Body}, true
		}
	}
	if !goesOn(e) {
		return e.refusal, false // clients go on from some refusals
	}
	var result neutral.Result
	switch {
	case (op.Action == neutral.SystemInfo || op.Action == neutral.SystemVersion) && s.command != "info" && s.command != "version" && s.command != "system":
		result.System = &neutral.System{Name: s.explainer.cluster(), OS: "linux", Architecture: "amd64", Now: time.Now(), Nodes: 1}
	case op.Action == neutral.ContainerInspect && s.command != "inspect" && s.command != "container":
		id := sha256.Sum256([]byte(op.Ref))
		result.Container = &neutral.Container{ID: hex.EncodeToString(id[:]), Name: op.Ref, Network: neutral.NetworkBridge,
			State: neutral.State{Status: neutral.StatusRunning, StartedAt: time.Now()}, CreatedAt: time.Now()}
		s.suppose(op.Ref)
	case op.Action == neutral.ContainerCreate:
		id := sha256.Sum256(c.Body)
		result.ID = hex.EncodeToString(id[:])
		s.made[result.ID] = result.ID
		if name := e.operation.Object.Name; name != "" {
			s.made[result.ID] = name
		}
		s.result.Notes = appendNew(s.result.Notes, "the client was told that its container is made, so that it goes on; nothing was")
	case op.Action == neutral.ContainerAttach && s.makes(c.Path): // before the start that it is for
		return &modules.Answer{Status: http.StatusSwitchingProtocols}, false
	case op.Action == neutral.ContainerWait && s.makes(c.Path):
		return &modules.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}}, false
	default:
		return nil, false
	}
	response, err := inbound.Encode(op, head, result)
	if err != nil {
		return nil, false
	}
	return &modules.Answer{Status: response.Status, Header: response.Header, Body: response.Body}, false
}

// makes tells whether a path is of a container that the client was told it made.
func (s *capture) makes(path string) bool {
	for _, name := range s.made {
		if strings.Contains(path, "/containers/"+url.PathEscape(name)+"/") {
			return true
		}
	}
	return false
}

func (s *capture) suppose(name string) {
	s.result.Notes = appendNew(s.result.Notes, "the client was told that "+name+" is there and runs, so that it goes on")
}

func (s *capture) answerKubernetes(c captured, e Explained) (*modules.Answer, bool) {
	path, _, _ := strings.Cut(c.Path, "?")
	switch {
	case c.Method == http.MethodGet && (path == "/api" || path == "/apis"):
		return discovery(path), true
	case c.Method == http.MethodGet && path == "/version" && s.command != "version":
		return jsonAnswer(http.StatusOK, "", map[string]any{"major": "1", "minor": "34", "gitVersion": "v1.34.0"}), true
	case c.Method == http.MethodGet && strings.HasPrefix(path, "/openapi/"):
		return missing(path), true
	}
	if !goesOn(e) {
		return e.refusal, false
	}
	name := e.operation.Object.Name
	if c.Method != http.MethodGet || name == "" || e.operation.Verb != neutral.Get {
		return nil, false
	}
	if slices.Contains([]string{"apply", "create"}, s.command) {
		s.result.Notes = appendNew(s.result.Notes, "the client was told that "+name+" is not there yet, so that it goes on to make it")
		return missing(name), false
	}
	switch {
	case e.operation.Object.Kind == neutral.KindContainer && slices.Contains([]string{"attach", "cp", "exec", "logs", "port-forward"}, s.command):
	case slices.Contains([]string{"annotate", "delete", "label", "patch", "rollout", "scale"}, s.command):
	default:
		return nil, false
	}
	group, version, kind := builtinKind(path)
	if kind == "" {
		return nil, false
	}
	s.suppose(name)
	return jsonAnswer(http.StatusOK, "", supposedObject(strings.TrimPrefix(group+"/"+version, "/"), kind, name, e.operation.Object.Namespace,
		s.explainer.labels)), false
}

// supposedObject has what clients look at before they go on: a Pod's containers, a controller's selector and scale.
func supposedObject(version, kind, name, namespace string, labels map[string]string) map[string]any {
	spec := map[string]any{"containers": []any{map[string]any{"name": "main", "image": "supposed",
		"ports": []any{map[string]any{"containerPort": 80}}}}}
	status := map[string]any{"phase": "Running"}
	if kind != "Pod" {
		spec = map[string]any{"replicas": 1, "selector": map[string]any{"matchLabels": labels},
			"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": spec}}
		status = map[string]any{}
	}
	return map[string]any{"apiVersion": version, "kind": kind, "spec": spec, "status": status,
		"metadata": map[string]any{"name": name, "namespace": namespace, "labels": labels, "resourceVersion": "1"}}
}

// builtinKind finds the kind of a path's resource among those that every API has.
func builtinKind(path string) (group, version, kind string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case len(parts) > 3 && parts[0] == "api":
		version, parts = parts[1], parts[2:]
	case len(parts) > 4 && parts[0] == "apis":
		group, version, parts = parts[1], parts[2], parts[3:]
	default:
		return "", "", ""
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	for word := range strings.FieldsSeq(builtin[group+"/"+version]) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(word, "/"), "=")
		if name == parts[0] {
			kind, _, _ = strings.Cut(rest, ":")
			return group, version, kind
		}
	}
	return "", "", ""
}

func missing(what string) *modules.Answer {
	return jsonAnswer(http.StatusNotFound, "", map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure",
		"reason": "NotFound", "code": http.StatusNotFound, "message": what + " not found"})
}

func jsonAnswer(status int, mediaType string, body any) *modules.Answer {
	if mediaType == "" {
		mediaType = "application/json"
	}
	data, err := json.Marshal(body)
	if err != nil { // maps of strings and numbers always marshal
		return &modules.Answer{Status: http.StatusInternalServerError}
	}
	return &modules.Answer{Status: status, Header: http.Header{"Content-Type": {mediaType}}, Body: data}
}

// builtin are the resources that every Kubernetes API has: group/version, then name, kind, short names. Those in no
// namespace begin with a slash. Custom resources are live state.
var builtin = map[string]string{
	"/v1": "bindings=Binding configmaps=ConfigMap:cm endpoints=Endpoints:ep events=Event:ev limitranges=LimitRange:limits " +
		"/namespaces=Namespace:ns /nodes=Node:no persistentvolumeclaims=PersistentVolumeClaim:pvc /persistentvolumes=PersistentVolume:pv " +
		"pods=Pod:po podtemplates=PodTemplate replicationcontrollers=ReplicationController:rc resourcequotas=ResourceQuota:quota " +
		"secrets=Secret serviceaccounts=ServiceAccount:sa services=Service:svc",
	"apps/v1": "controllerrevisions=ControllerRevision daemonsets=DaemonSet:ds deployments=Deployment:deploy " +
		"replicasets=ReplicaSet:rs statefulsets=StatefulSet:sts",
	"autoscaling/v2":               "horizontalpodautoscalers=HorizontalPodAutoscaler:hpa",
	"batch/v1":                     "cronjobs=CronJob:cj jobs=Job",
	"events.k8s.io/v1":             "events=Event:ev",
	"discovery.k8s.io/v1":          "endpointslices=EndpointSlice",
	"networking.k8s.io/v1":         "/ingressclasses=IngressClass ingresses=Ingress:ing networkpolicies=NetworkPolicy:netpol",
	"policy/v1":                    "poddisruptionbudgets=PodDisruptionBudget:pdb",
	"rbac.authorization.k8s.io/v1": "/clusterrolebindings=ClusterRoleBinding /clusterroles=ClusterRole rolebindings=RoleBinding roles=Role",
	"scheduling.k8s.io/v1":         "/priorityclasses=PriorityClass:pc",
	"storage.k8s.io/v1": "/csidrivers=CSIDriver /csinodes=CSINode csistoragecapacities=CSIStorageCapacity /storageclasses=StorageClass:sc " +
		"/volumeattachments=VolumeAttachment",
	"apiextensions.k8s.io/v1":  "/customresourcedefinitions=CustomResourceDefinition:crd",
	"coordination.k8s.io/v1":   "leases=Lease",
	"certificates.k8s.io/v1":   "/certificatesigningrequests=CertificateSigningRequest:csr",
	"authorization.k8s.io/v1":  "localsubjectaccessreviews=LocalSubjectAccessReview /selfsubjectaccessreviews=SelfSubjectAccessReview /selfsubjectrulesreviews=SelfSubjectRulesReview /subjectaccessreviews=SubjectAccessReview",
	"authentication.k8s.io/v1": "/selfsubjectreviews=SelfSubjectReview /tokenreviews=TokenReview",
}

// discovery is the aggregated discovery of the built-in resources.
// https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
func discovery(path string) *modules.Answer {
	groups := make([]string, 0, len(builtin))
	for g := range builtin {
		groups = append(groups, g)
	}
	slices.Sort(groups)
	items := []any{}
	for _, g := range groups {
		group, version, _ := strings.Cut(g, "/")
		if (group == "") != (path == "/api") {
			continue
		}
		resources := []any{}
		for word := range strings.FieldsSeq(builtin[g]) {
			resources = append(resources, builtinResource(group, version, word))
		}
		items = append(items, map[string]any{"metadata": map[string]any{"name": group}, "versions": []any{
			map[string]any{"version": version, "freshness": "Current", "resources": resources}}})
	}
	return jsonAnswer(http.StatusOK, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", map[string]any{
		"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": map[string]any{}, "items": items})
}

// builtinResource is one entry of discovery.
func builtinResource(group, version, word string) map[string]any {
	name, rest, _ := strings.Cut(word, "=")
	kind, short, _ := strings.Cut(rest, ":")
	scope := "Namespaced"
	if after, ok := strings.CutPrefix(name, "/"); ok {
		name, scope = after, "Cluster"
	}
	responseKind := map[string]any{"group": group, "version": version, "kind": kind}
	r := map[string]any{"resource": name, "responseKind": responseKind, "scope": scope, "singularResource": strings.ToLower(kind),
		"verbs": []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}}
	if short != "" {
		r["shortNames"] = []string{short}
	}
	if slices.Contains([]string{"deployments", "replicasets", "statefulsets", "replicationcontrollers"}, name) {
		r["subresources"] = []any{map[string]any{"subresource": "scale", "verbs": []string{"get", "patch", "update"},
			"responseKind": map[string]any{"group": "autoscaling", "version": "v1", "kind": "Scale"}}}
	}
	if name == "pods" {
		r["categories"] = []string{"all"}
		sub := []any{}
		for _, s := range []string{"attach", "exec", "log", "portforward", "eviction", "ephemeralcontainers"} {
			sub = append(sub, map[string]any{"subresource": s, "verbs": []string{"create", "get", "patch"},
				"responseKind": responseKind})
		}
		r["subresources"] = sub
	}
	return r
}
