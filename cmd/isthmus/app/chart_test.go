package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/e2e/page"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/state/kubernetes"
)

const (
	chart     = "../../../charts/isthmus"
	chartPage = "../../../docs/helm.md"
)

// helm runs helm, and gives what it printed.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	installed(t, "helm")
	var stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), "helm", args...)
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), err
}

// render gives the objects of the chart by kind and name. Each is decoded strictly, if Kubernetes itself has its kind.
func render(t *testing.T, values string) map[string]runtime.Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := helm(t, "template", "gate", chart, "--namespace", "isthmus", "--values", file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := map[string]runtime.Object{}
	for text := range strings.SplitSeq(out, "\n---\n") {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(text), &head); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		name := head.Kind + " " + head.Metadata.Name
		if head.Kind == "" {
			continue
		}
		if objects[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		objects[name] = nil
		if head.Kind == "ServiceMonitor" {
			continue
		}
		object, _, err := decoder.Decode([]byte(text), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		objects[name] = object
	}
	return objects
}

// object is an object of a rendered chart.
func object[T runtime.Object](t *testing.T, objects map[string]runtime.Object, name string) T {
	t.Helper()
	o, ok := objects[name].(T)
	if !ok {
		t.Fatalf("the chart has no %s", name)
	}
	return o
}

const manyValues = `
gateway:
  name: inner
  trustDomain: inner.example
  namespace: team-a
  callers: {tokenReview: {audiences: [isthmus]}, unauthenticated: [services]}
  leases: {linger: 20s}
  otlp: collector.tracing:4317
peers:
- {name: west, spec: {addresses: ["192.0.2.1:15443"], limits: {requestsPerSecond: 5}}}
- {name: south, spec: {reverseTunnel: {role: accept}}}
policies:
- name: west
  spec: {from: [{peer: west}], allow: [{verbs: [query], objects: [{kind: service}], when: "object.labels['a'] == 'b'"}]}
- name: south
  spec: {from: [{peer: south}], allow: [{verbs: [list], objects: [{}]}]}
rights:
  peers: [{name: west, docker: true}, {name: north}]
service:
  peer: {type: NodePort, nodePort: 31443, annotations: {a: b}}
image: {repository: registry.example/isthmus, tag: "1", pullSecrets: [registry]}
nodeSelector: {a: b}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: system-cluster-critical
podAnnotations: {a: b}
podDisruptionBudget: {enabled: true}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
`

// TestChart renders the chart for some values, and holds what comes out against what the gateway and Kubernetes want.
func TestChart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values        string
		objects       []string
		peers, allows int
	}{
		"least": {values: "gateway: {name: inner}", objects: []string{"Service gate-isthmus-peer", "Service gate-isthmus-edge", "NetworkPolicy gate-isthmus"}},
		"many": {values: manyValues, peers: 2, allows: 2, objects: []string{
			"PodDisruptionBudget gate-isthmus", "ServiceMonitor gate-isthmus", "Role isthmus:gate-isthmus:peer:west",
			"ClusterRole isthmus:gate-isthmus:act-as:west", "ClusterRole isthmus:gate-isthmus:act-as:south", "ClusterRole isthmus:gate-isthmus:act-as:north",
		}},
		"dials out": {values: "gateway: {name: inner}\nservice: {peer: {enabled: false}, edge: {enabled: false}}\n" +
			"networkPolicy: {enabled: false}\nstate: {removeOnUninstall: false}\nfullnameOverride: gate-isthmus\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := render(t, c.values)
			for _, name := range c.objects {
				if _, ok := objects[name]; !ok {
					t.Errorf("there is no %s", name)
				}
			}
			if _, ok := objects["Service gate-isthmus-peer"]; ok == (name == "dials out") {
				t.Errorf("a Service for peers: %t", ok)
			}
			if _, ok := objects["Job gate-isthmus-removal"]; ok == (name == "dials out") {
				t.Errorf("a Job that removes the state: %t", ok)
			}
			set := chartDocuments(t, object[*corev1.ConfigMap](t, objects, "ConfigMap gate-isthmus"))
			if len(set.Peers) != c.peers || len(set.Policies) != c.allows || set.Gateway.Metadata.Name != "inner" {
				t.Errorf("the documents are of %s, %d peers and %d policies", set.Gateway.Metadata.Name, len(set.Peers), len(set.Policies))
			}
			pods(t, objects)
			services(t, objects, set)
		})
	}
}

// chartDocuments has the gateway check its documents, as the chart mounts them.
func chartDocuments(t *testing.T, m *corev1.ConfigMap) *manifest.Set {
	t.Helper()
	dir := t.TempDir()
	for name, text := range m.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := manifest.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Warnings) > 0 {
		t.Errorf("warnings: %v", set.Warnings)
	}
	// Without its cluster the gateway has no state; what it would serve can be said all the same.
	set.Gateway.Spec.State.Home = manifest.StateFile
	set.Gateway.Spec.StateDir = filepath.Join(dir, "state")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody is to be asked
	if err := check(ctx, &bytes.Buffer{}, set); err != nil {
		t.Errorf("isthmus gateway --check: %v", err)
	}
	return set
}

// pods wants of every Pod that it has no more rights than it needs, and command lines that isthmus understands.
func pods(t *testing.T, objects map[string]runtime.Object) {
	t.Helper()
	found := 0
	for name, o := range objects {
		var spec corev1.PodSpec
		switch o := o.(type) {
		case *appsv1.Deployment:
			spec = o.Spec.Template.Spec
		case *batchv1.Job:
			spec = o.Spec.Template.Spec
		case *corev1.Pod:
			spec = o.Spec
		default:
			continue
		}
		found++
		pod := spec.SecurityContext
		if !*pod.RunAsNonRoot || *pod.RunAsUser == 0 || pod.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: %v", name, pod)
		}
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			own := c.SecurityContext
			if *own.AllowPrivilegeEscalation || !*own.ReadOnlyRootFilesystem || !slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s, container %s: %v", name, c.Name, own)
			}
			isthmus(t, append(slices.Clone(c.Args), "--help")...)
		}
	}
	if found < 2 {
		t.Errorf("the chart has %d Pods", found)
	}
}

// services wants Services that lead to the Pod, at ports on which the gateway listens, and probes as well.
func services(t *testing.T, objects map[string]runtime.Object, set *manifest.Set) {
	t.Helper()
	template := object[*appsv1.Deployment](t, objects, "Deployment gate-isthmus").Spec.Template
	container := template.Spec.Containers[0]
	listens := map[string]uint16{
		"peer": set.Gateway.Spec.Listeners.Peer.Port(), "edge": set.Gateway.Spec.Listeners.HTTP.Port(),
		"health": set.Gateway.Spec.Listeners.Health.Port(),
	}
	for _, p := range container.Ports {
		if listens[p.Name] != uint16(p.ContainerPort) {
			t.Errorf("port %s is %d, the gateway listens at %d", p.Name, p.ContainerPort, listens[p.Name])
		}
	}
	for what, probe := range map[string]*corev1.Probe{
		"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe,
	} {
		if probe.HTTPGet.Path != what || probe.HTTPGet.Port.String() != "health" {
			t.Errorf("the probe of %s asks %v", what, probe.HTTPGet)
		}
	}
	for name, o := range objects {
		service, ok := o.(*corev1.Service)
		if !ok {
			continue
		}
		for label, value := range service.Spec.Selector {
			if template.Labels[label] != value {
				t.Errorf("%s selects %s=%s", name, label, value)
			}
		}
		for _, p := range service.Spec.Ports {
			if listens[p.TargetPort.String()] == 0 {
				t.Errorf("%s leads to port %s", name, p.TargetPort.String())
			}
		}
	}
	// What is about to be removed selects nothing of what runs.
	for _, name := range []string{"Job gate-isthmus-removal", "Pod gate-isthmus-test"} {
		var labels map[string]string
		switch o := objects[name].(type) {
		case *batchv1.Job:
			labels = o.Spec.Template.Labels
		case *corev1.Pod:
			labels = o.Labels
		}
		if labels["app.kubernetes.io/component"] == "gateway" {
			t.Errorf("%s looks like the gateway", name)
		}
	}
}

// TestChartRights wants the rights of docs/examples, with which the gateway is tested, and no others.
func TestChartRights(t *testing.T) {
	t.Parallel()
	objects := render(t, manyValues)
	state, err := yamlObjects(kubernetes.Role)
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(examples, "kubernetes")
	for name, want := range map[string][]rbacv1.PolicyRule{
		"Role gate-isthmus":                            rulesOf(t, state, "Role isthmus-state"),
		"ClusterRole isthmus:gate-isthmus":             exampleRules(t, filepath.Join(examples, "rbac.yaml"), "ClusterRole isthmus"),
		"ClusterRole isthmus:gate-isthmus:act-as:west": exampleRules(t, filepath.Join(examples, "peer-west.yaml"), "ClusterRole isthmus:act-as:west"),
		"Role isthmus:gate-isthmus:peer:west":          exampleRules(t, filepath.Join(examples, "peer-west.yaml"), "Role isthmus:peer:west"),
		"ClusterRole isthmus:gate-isthmus:peer:west":   exampleRules(t, filepath.Join(examples, "peer-west.yaml"), "ClusterRole isthmus:peer:west"),
	} {
		if got := rulesOf(t, objects, name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has the rules\n%v\nthe examples\n%v", name, got, want)
		}
	}
	least := rulesOf(t, render(t, "gateway: {name: inner}"), "ClusterRole isthmus:gate-isthmus")
	for _, r := range least {
		if slices.Contains(r.Resources, "tokenreviews") {
			t.Error("a gateway that reviews no tokens may")
		}
	}
	definition, err := os.ReadFile(filepath.Join(chart, "crds", "staterecord.yaml"))
	if err != nil || string(definition) != kubernetes.CRD {
		t.Errorf("the definition of StateRecord is not that of isthmus state manifest: %v", err)
	}
}

func exampleRules(t *testing.T, file, name string) []rbacv1.PolicyRule {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := yamlObjects(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return rulesOf(t, objects, name)
}

func rulesOf(t *testing.T, objects map[string]runtime.Object, name string) []rbacv1.PolicyRule {
	t.Helper()
	switch o := objects[name].(type) {
	case *rbacv1.Role:
		return o.Rules
	case *rbacv1.ClusterRole:
		return o.Rules
	}
	t.Fatalf("there is no %s", name)
	return nil
}

// yamlObjects reads roles and what stands beside them.
func yamlObjects(text string) (map[string]runtime.Object, error) {
	decoder := scheme.Codecs.UniversalDeserializer()
	objects := map[string]runtime.Object{}
	for part := range strings.SplitSeq(text, "\n---\n") {
		o, kind, err := decoder.Decode([]byte(part), nil, nil)
		if err != nil {
			return nil, err
		}
		named, ok := o.(interface{ GetName() string })
		if !ok {
			return nil, fmt.Errorf("%s has no name", kind)
		}
		objects[kind.Kind+" "+named.GetName()] = o
	}
	return objects, nil
}

// TestChartSchema wants every wrong value refused before anything is installed.
func TestChartSchema(t *testing.T) {
	t.Parallel()
	for _, set := range []string{
		"gateway.nam=a", "gateway.name=", "gateway.name=A_b", "peers[0].name=west", "unknown=1", "service.peer.type=Ingress", "service.peer.port=0",
		"service.peer.nodeport=1", "rights.peers[0].docker=true", "gateway.callers.tokens=x", "gateway.callers.unauthenticated[0]=api",
		"networkPolicy.edgeFrom[0].pods=x", "image.pullPolicy=Sometimes", "state.remove=true", "resources.limit=1", "serviceMonitor.interval=often",
		"peers[0].name=west,peers[0].spec.x=1,peers[0].labels=y", "gateway.logLevel=loud", "gateway.concurrency=0",
	} {
		_, err := helm(t, "template", "gate", chart, "--set", "gateway.name=inner", "--set", set)
		if err == nil || !strings.Contains(err.Error(), "don't meet the specifications of the schema") {
			t.Errorf("%s: %v", set, err)
		}
	}
	if _, err := helm(t, "template", "gate", chart); err == nil || !strings.Contains(err.Error(), "/gateway/name") {
		t.Errorf("without a name: %v", err)
	}
}

// TestChartPage holds the table of docs/helm.md against values.yaml; -update writes it.
func TestChartPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values yaml.Node
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| value | default | meaning |\n|---|---|---|\n")
	valueRows(t, &table, "", values.Content[0])
	if *update {
		if err := page.Write(chartPage, "values", table.String()); err != nil {
			t.Fatal(err)
		}
		return
	}
	said, err := page.Section(chartPage, "values")
	if err != nil {
		t.Fatal(err)
	}
	if said != table.String() {
		t.Error("docs/helm.md does not have the values of values.yaml; -update writes them")
	}
}

// valueRows writes a row for each value below a mapping, whose comment it needs.
func valueRows(t *testing.T, table *strings.Builder, path string, node *yaml.Node) {
	t.Helper()
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		comment := strings.ReplaceAll(strings.ReplaceAll(key.HeadComment, "\n# ", " "), "# ", "")
		name := path + key.Value
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 && value.Style&yaml.FlowStyle == 0 && name != "resources" {
			valueRows(t, table, name+".", value)
			continue
		}
		if comment == "" {
			t.Errorf("value %s has no comment", name)
		}
		var plain any
		if err := value.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		shown, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(table, "| `%s` | `%s` | %s |\n", name, shown, comment)
	}
}
