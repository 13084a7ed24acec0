package apiserver

import (
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestNamespace makes one, fills it, and removes it with all that is in it and nothing that is not.
func TestNamespace(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	if _, err := s.CoreV1().ConfigMaps("shop").Create(ctx, configMap("one", nil), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("made in a namespace that is not there: %v", err)
	}
	made := must(s.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"a": "b"}}}, metav1.CreateOptions{}))(t)
	if made.Status.Phase != corev1.NamespaceActive || made.Labels["a"] != "b" || made.Labels[corev1.LabelMetadataName] != "shop" {
		t.Errorf("made %v", made)
	}
	if _, err := s.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("made twice: %v", err)
	}
	long := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("n", namespaceLimit+1)}}
	if _, err := s.CoreV1().Namespaces().Create(ctx, long, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a name that leaves no room: %v", err)
	}
	must(s.CoreV1().ConfigMaps("default").Create(ctx, configMap("other", nil), metav1.CreateOptions{}))(t)
	must(s.CoreV1().ConfigMaps("shop").Create(ctx, configMap("files", map[string]string{"index.html": "hello"}), metav1.CreateOptions{}))(t)
	must(s.CoreV1().Secrets("shop").Create(ctx, secret("word"), metav1.CreateOptions{}))(t)
	must(s.CoreV1().Services("shop").Create(ctx, service("web"), metav1.CreateOptions{}))(t)
	must(s.CoreV1().PersistentVolumeClaims("shop").Create(ctx, claim("data"), metav1.CreateOptions{}))(t)
	must(s.CoreV1().Pods("shop").Create(ctx, pod("alone"), metav1.CreateOptions{}))(t)
	must(s.AppsV1().Deployments("shop").Create(ctx, mounting(deployment("web", 2), "files", "word"), metav1.CreateOptions{}))(t)
	if err := s.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("still there: %v, %v", n, err)
	}
	if state := s.state(); strings.Contains(state, "shop") {
		t.Errorf("left of it: %s", state)
	}
	if _, err := s.CoreV1().ConfigMaps("default").Get(ctx, "other", metav1.GetOptions{}); err != nil {
		t.Errorf("another namespace's: %v", err)
	}
	if err := s.CoreV1().Namespaces().Delete(ctx, "default", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the default one was removed: %v", err)
	}
	// A stack is a namespace as long as it has something.
	s.fake.mu.Lock()
	s.fake.workloads = append(s.fake.workloads, foreignService())
	s.fake.schedule(&s.fake.workloads[0])
	s.fake.mu.Unlock()
	labelled := must(s.CoreV1().Namespaces().Get(ctx, "stack", metav1.GetOptions{}))(t)
	labelled.Labels["kept"] = "yes"
	labelled = must(s.CoreV1().Namespaces().Update(ctx, labelled, metav1.UpdateOptions{}))(t)
	if labelled.Labels["kept"] != "yes" {
		t.Errorf("labels of a stack: %v", labelled.Labels)
	}
	if err := s.CoreV1().Namespaces().Delete(ctx, "stack", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if state := s.state(); strings.Contains(state, "stack") {
		t.Errorf("left of the stack: %s", state)
	}
}

// foreignService is one that docker stack deploy made.
func foreignService() neutral.Workload {
	return neutral.Workload{ID: "s0000000000000000000000001", Name: "api", Namespace: "stack", Mode: neutral.ModeReplicated, Replicas: 2, Version: "7", Placement: []string{"node.role==worker"},
		Labels: map[string]string{"com.docker.stack.image": "nginx:1"},
		Template: neutral.Container{Image: "nginx:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			Networks: []neutral.NetworkAttachment{{Name: "front"}},
			Labels:   map[string]string{"team": "red"}, Env: []string{"A=1"},
			Ports: []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp"}}}}
}

// mounting has a Deployment's container mount all of a ConfigMap and of a Secret.
func mounting(d *appsv1.Deployment, files, secret string) *appsv1.Deployment {
	spec := &d.Spec.Template.Spec
	spec.Volumes = []corev1.Volume{
		{Name: "files", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: files}}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}},
	}
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "files", MountPath: "/files"}, {Name: "secret", MountPath: "/secret"}}
	return d
}

// TestForeign reads, changes and removes what docker made itself.
func TestForeign(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	s.fake.mu.Lock()
	s.fake.workloads = append(s.fake.workloads, foreignService())
	s.fake.schedule(&s.fake.workloads[0])
	s.fake.files[neutral.KindConfig] = []neutral.StoredFile{{ID: "f1", Name: "settings", Namespace: "stack", Data: []byte("a=1"), Version: "3"}}
	s.fake.files[neutral.KindSecret] = []neutral.StoredFile{{ID: "f2", Name: "password", Namespace: "stack", Version: "4"}}
	s.fake.containers = []neutral.Container{{ID: "c1", Name: "Tool_1", Namespace: "default", Image: "busybox", State: neutral.State{Status: neutral.StatusRunning}},
		{ID: "c2", Name: "tool", Namespace: "stack", Image: "busybox", State: neutral.State{Status: neutral.StatusPaused}}}
	s.fake.mu.Unlock()
	d := must(s.AppsV1().Deployments("stack").Get(ctx, "api", metav1.GetOptions{}))(t)
	if *d.Spec.Replicas != 2 || d.Status.ReadyReplicas != 2 || d.Spec.Template.Spec.Containers[0].Image != s.fake.workloads[0].Template.Image {
		t.Errorf("%+v", d)
	}
	pods := must(s.CoreV1().Pods("stack").List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)}))(t)
	sets := must(s.AppsV1().ReplicaSets("stack").List(ctx, metav1.ListOptions{}))(t)
	if len(pods.Items) != 2 || len(sets.Items) != 1 || pods.Items[0].OwnerReferences[0].UID != sets.Items[0].UID || sets.Items[0].OwnerReferences[0].UID != d.UID {
		t.Errorf("%v of %v", pods.Items, sets.Items)
	}
	if svc := must(s.CoreV1().Services("stack").Get(ctx, "api", metav1.GetOptions{}))(t); svc.Spec.Ports[0].NodePort != 8080 {
		t.Errorf("%v", svc.Spec)
	}
	if slice := must(s.DiscoveryV1().EndpointSlices("stack").List(ctx, metav1.ListOptions{}))(t); len(slice.Items) != 1 || len(slice.Items[0].Endpoints) != 2 {
		t.Errorf("%v", slice.Items)
	}
	if m := must(s.CoreV1().ConfigMaps("stack").Get(ctx, "settings", metav1.GetOptions{}))(t); m.Data["settings"] != "a=1" {
		t.Errorf("%v", m)
	}
	if m := must(s.CoreV1().Secrets("stack").Get(ctx, "password", metav1.GetOptions{}))(t); len(m.Data) != 0 {
		t.Errorf("%v", m)
	}
	if _, err := s.CoreV1().Pods("default").Get(ctx, "Tool_1", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	// Written through the API it keeps what docker gave it, and its tasks run on.
	first := s.fake.tasks[0].ID
	for range 2 {
		code, body := s.ask(t, "PATCH", "/apis/apps/v1/namespaces/stack/deployments/api/scale", "application/merge-patch+json", `{"spec":{"replicas":4}}`)
		if code != http.StatusOK {
			t.Error(code, body)
		}
		code, body = s.ask(t, "PATCH", "/apis/apps/v1/namespaces/stack/deployments/api/scale", "application/merge-patch+json", `{"spec":{"replicas":2}}`)
		if code != http.StatusOK {
			t.Error(code, body)
		}
	}
	d = must(s.AppsV1().Deployments("stack").Get(ctx, "api", metav1.GetOptions{}))(t)
	seven := int32(3)
	d.Spec.Replicas = &seven
	d.Annotations["note"] = "x"
	next := must(s.AppsV1().Deployments("stack").Update(ctx, d, metav1.UpdateOptions{}))(t)
	if next.Annotations["note"] != "x" || next.Status.Replicas != 3 || next.UID != d.UID {
		t.Errorf("changed %+v", next)
	}
	s.fake.mu.Lock()
	if w := s.fake.workloads[0]; w.Replicas != 3 || w.Template.Ports[0].Published != 8080 || w.Template.Networks[0].Name != "front" ||
		w.Placement[0] != "node.role==worker" || s.fake.tasks[0].ID != first || w.Template.Image != foreignService().Template.Image || len(w.Template.Env) != 1 || w.Template.Labels["team"] != "red" || w.Labels["com.docker.stack.image"] == "" {
		t.Errorf("the service is now %+v", w)
	}
	s.fake.mu.Unlock()
	again := must(s.AppsV1().ReplicaSets("stack").List(ctx, metav1.ListOptions{}))(t)
	if len(again.Items) != 1 || again.Items[0].Status.Replicas != 3 || again.Items[0].Name != sets.Items[0].Name {
		t.Errorf("its ReplicaSets are %v", again.Items)
	}
	if _, err := s.CoreV1().Services("stack").Get(ctx, "api", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	other := must(s.AppsV1().Deployments("stack").Patch(ctx, "api", types.StrategicMergePatchType,
		[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"api","image":"nginx:2"}]}}}}`), metav1.PatchOptions{}))(t)
	s.fake.mu.Lock()
	if w := s.fake.workloads[0]; w.Template.Image != "nginx:2" || w.Template.Ports[0].Published != 8080 || w.Template.Networks[0].Name != "front" ||
		w.Placement[0] != "node.role==worker" || other.Annotations[annotationRevision] != "2" || other.Status.UpdatedReplicas != 3 {
		t.Errorf("with another image it is %+v, %+v", w, other)
	}
	s.fake.mu.Unlock()
	for what, err := range map[string]error{
		"a config": func() error {
			m := configMap("settings", map[string]string{"a": "2"})
			_, err := s.CoreV1().ConfigMaps("stack").Update(ctx, m, metav1.UpdateOptions{})
			return err
		}(),
		"a secret": func() error {
			_, err := s.CoreV1().Secrets("stack").Update(ctx, secret("password"), metav1.UpdateOptions{})
			return err
		}(),
	} {
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s was changed: %v", what, err)
		}
	}
	pods = must(s.CoreV1().Pods("stack").List(ctx, metav1.ListOptions{LabelSelector: "team=red"}))(t)
	if err := s.CoreV1().Pods("stack").Delete(ctx, pods.Items[0].Name, metav1.DeleteOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a task was removed: %v", err)
	}
	if err := s.CoreV1().Pods("default").Delete(ctx, "Tool_1", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if err := s.AppsV1().Deployments("stack").Delete(ctx, "api", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// TestWaiting has a Deployment that refers to what comes after it.
func TestWaiting(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	warnings := &heard{}
	config := rest.CopyConfig(s.config)
	config.WarningHandler = warnings
	deployments := client(t, config).AppsV1().Deployments("default")
	d := must(deployments.Create(ctx, mounting(deployment("web", 2), "files", "word"), metav1.CreateOptions{}))(t)
	if d.Status.Replicas != 0 || *d.Spec.Replicas != 2 || !strings.Contains(d.Status.Conditions[0].Message, "files") || len(warnings.texts) == 0 {
		t.Errorf("waits as %+v, warned %q", d.Status, warnings.texts)
	}
	must(s.CoreV1().ConfigMaps("default").Create(ctx, configMap("files", map[string]string{"a": "1"}), metav1.CreateOptions{}))(t)
	d = must(deployments.Get(ctx, "web", metav1.GetOptions{}))(t)
	if d.Status.Replicas != 0 || strings.Contains(d.Status.Conditions[0].Message, "files") {
		t.Errorf("waits for the other as %+v", d.Status)
	}
	must(s.CoreV1().Secrets("default").Create(ctx, secret("word"), metav1.CreateOptions{}))(t)
	d = must(deployments.Get(ctx, "web", metav1.GetOptions{}))(t)
	if d.Status.ReadyReplicas != 2 || *d.Spec.Replicas != 2 {
		t.Errorf("runs as %+v", d.Status)
	}
	if sets := must(s.AppsV1().ReplicaSets("default").List(ctx, metav1.ListOptions{}))(t); len(sets.Items) != 1 {
		t.Errorf("it has %d ReplicaSets", len(sets.Items))
	}
}

// TestAwakenedLeft has a gateway killed between making what a Deployment waits for and starting it.
func TestAwakenedLeft(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	must(s.AppsV1().Deployments("default").Create(ctx, mounting(deployment("web", 2), "files", "word"), metav1.CreateOptions{}))(t)
	s.fake.mu.Lock()
	waits := s.fake.workloads[0]
	s.fake.mu.Unlock()
	must(s.CoreV1().Secrets("default").Create(ctx, secret("word"), metav1.CreateOptions{}))(t)
	replicas := func() int {
		s.fake.mu.Lock()
		defer s.fake.mu.Unlock()
		return s.fake.workloads[0].Replicas
	}
	sealed := s.api.kinds[secretResource].(secretKind)
	// next is the gateway that comes after one that was killed.
	next := func(w neutral.Workload) *Server {
		s.fake.mu.Lock()
		w.Version = s.fake.workloads[0].Version
		s.fake.workloads[0] = w
		s.fake.mu.Unlock()
		server := New(Config{Cluster: "west", Orchestrator: s.fake, Seal: sealed.seal, Unseal: sealed.unseal})
		server.Resume()
		t.Cleanup(server.Close)
		return server
	}
	version := func() string {
		s.fake.mu.Lock()
		defer s.fake.mu.Unlock()
		return s.fake.workloads[0].Version
	}
	before := version()
	next(waits).starting.ended.Wait()
	if replicas() != 0 || version() != before {
		t.Errorf("it was begun before all was there: %d, %s", replicas(), version())
	}
	must(s.CoreV1().ConfigMaps("default").Create(ctx, configMap("files", map[string]string{"a": "1"}), metav1.CreateOptions{}))(t)
	forged := waits
	forged.Origin = &neutral.Origin{Dialect: waits.Origin.Dialect, Peer: "another", Spec: waits.Origin.Spec}
	next(forged).starting.ended.Wait()
	if replicas() != 0 {
		t.Error("a Deployment was begun that nobody vouches for")
	}
	next(waits)
	eventually(t, "it runs", func() bool { return replicas() == 2 })
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	if left := s.fake.workloads[0].Labels[labelWaiting]; left != "" {
		t.Errorf("it waits for %s", left)
	}
}
