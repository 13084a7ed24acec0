package apiserver

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	v1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

// TestPatches changes one object in each of the ways there are.
func TestPatches(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	must(s.AppsV1().Deployments("default").Create(ctx, deployment("web", 1), metav1.CreateOptions{}))(t)
	for _, c := range []struct {
		kind  types.PatchType
		patch string
		key   string
	}{
		{types.JSONPatchType, `[{"op":"test","path":"/metadata/name","value":"web"},{"op":"add","path":"/metadata/labels/json","value":"yes"}]`, "json"},
		{types.MergePatchType, `{"metadata":{"labels":{"merge":"yes"}}}`, "merge"},
		{types.StrategicMergePatchType, `{"metadata":{"labels":{"strategic":"yes"}},"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}`, "strategic"},
		{types.ApplyYAMLPatchType, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {applied: \"yes\"}}\n", "applied"},
	} {
		d, err := s.AppsV1().Deployments("default").Patch(ctx, "web", c.kind, []byte(c.patch), metav1.PatchOptions{FieldManager: "test"})
		if err != nil || d.Labels[c.key] != "yes" || d.Labels["app"] != "web" || d.Spec.Template.Spec.Containers[0].Image != "nginx:1" {
			t.Errorf("%s: %v, %v", c.kind, d, err)
		}
	}
	d := must(s.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{}))(t)
	if env := d.Spec.Template.Spec.Containers[0].Env; len(env) != 1 || env[0].Value != "1" {
		t.Errorf("a strategic patch was lost: %v", env)
	}
	for _, c := range []struct {
		kind  types.PatchType
		patch string
		code  int32
	}{
		{types.JSONPatchType, `[{"op":"test","path":"/metadata/name","value":"other"}]`, 422},
		{types.JSONPatchType, `{"op":"add"}`, 400},
		{types.JSONPatchType, `[{"op":"remove","path":"/not/there"}]`, 422},
		{types.JSONPatchType, `[{"op":"replace","path":"/metadata/name","value":"other"}]`, 400},
		{types.MergePatchType, `[]`, 422},
		{types.MergePatchType, `{"metadata":{"name":"other"}}`, 400},
		{types.MergePatchType, `{"metadata":{"resourceVersion":"1"}}`, 409},
		{types.MergePatchType, `{"spec":{"replicas":"many"}}`, 422},
		{types.MergePatchType, `{"spec":{"replicas":-1}}`, 422},
		{types.MergePatchType, `{"spec":null}`, 422},
		{types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"image":"nameless"}]}}}}`, 400},
		{types.ApplyYAMLPatchType, "kind: Deployment\nmetadata: {name: web}\n", 400},
		{types.ApplyYAMLPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n", 400},
		{types.ApplyYAMLPatchType, "- no\n", 400},
		{"text/plain", "x", 415},
	} {
		_, err := s.AppsV1().Deployments("default").Patch(ctx, "web", c.kind, []byte(c.patch), metav1.PatchOptions{FieldManager: "test"})
		if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != c.code {
			t.Errorf("%s %s: %v, want %d", c.kind, c.patch, err, c.code)
		}
	}
	after := must(s.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{}))(t)
	if after.ResourceVersion != d.ResourceVersion {
		t.Errorf("refused patches changed it: %v", after)
	}
}

// TestApplyOwnership has two managers that want the same field.
func TestApplyOwnership(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	of := func(value string) *v1.ConfigMapApplyConfiguration {
		return v1.ConfigMap("shared", "default").WithData(map[string]string{"a": value})
	}
	must(maps.Apply(ctx, of("1"), metav1.ApplyOptions{FieldManager: "one"}))(t)
	if _, err := maps.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "one") {
		t.Errorf("taken without force: %v", err)
	}
	same := must(maps.Apply(ctx, of("1"), metav1.ApplyOptions{FieldManager: "two"}))(t)
	if len(same.ManagedFields) != 2 {
		t.Errorf("a field that two agree on is of %d", len(same.ManagedFields))
	}
	taken := must(maps.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two", Force: true}))(t)
	if taken.Data["a"] != "2" || len(taken.ManagedFields) != 1 || taken.ManagedFields[0].Manager != "two" {
		t.Errorf("taken by force: %v", taken)
	}
	again := must(maps.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two", Force: true}))(t)
	if again.ResourceVersion != taken.ResourceVersion {
		t.Error("applied twice, it changed")
	}
	// What a manager no longer names and nobody else owns is gone.
	less := must(maps.Apply(ctx, v1.ConfigMap("shared", "default").WithData(map[string]string{"b": "3"}), metav1.ApplyOptions{FieldManager: "two"}))(t)
	if _, there := less.Data["a"]; there || less.Data["b"] != "3" {
		t.Errorf("applied without a field: %v", less.Data)
	}
	// An update takes what it changes, and applies conflict with it then.
	less.Data["b"] = "4"
	must(maps.Update(ctx, less, metav1.UpdateOptions{FieldManager: "three"}))(t)
	if _, err := maps.Apply(ctx, v1.ConfigMap("shared", "default").WithData(map[string]string{"b": "5"}), metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
		t.Errorf("applied over an update: %v", err)
	}
	if _, err := maps.Patch(ctx, "shared", types.ApplyYAMLPatchType, []byte("apiVersion: v1\nkind: ConfigMap\n"), metav1.PatchOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("applied by nobody: %v", err)
	}
}

// TestDryRun changes nothing, whatever is asked for.
func TestDryRun(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	all := []string{metav1.DryRunAll}
	must(s.AppsV1().Deployments("default").Create(ctx, deployment("web", 2), metav1.CreateOptions{}))(t)
	must(s.CoreV1().ConfigMaps("default").Create(ctx, configMap("kept", map[string]string{"a": "1"}), metav1.CreateOptions{}))(t)
	before := s.state()
	if _, err := s.AppsV1().Deployments("default").Create(ctx, deployment("other", 2), metav1.CreateOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if _, err := s.AppsV1().Deployments("default").Create(ctx, deployment("web", 2), metav1.CreateOptions{DryRun: all}); !apierrors.IsAlreadyExists(err) {
		t.Error(err)
	}
	made, err := s.CoreV1().ConfigMaps("default").Create(ctx, configMap("dry", nil), metav1.CreateOptions{DryRun: all})
	if err != nil || made.UID == "" || made.CreationTimestamp.IsZero() {
		t.Error(made, err)
	}
	if _, err := s.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "dry"}}, metav1.CreateOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if _, err := s.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dry"}}, metav1.CreateOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if _, err := s.CoreV1().Pods("default").Create(ctx, pod("dry"), metav1.CreateOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if _, err := s.CoreV1().Services("default").Create(ctx, service("web"), metav1.CreateOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if _, err := s.CoreV1().PersistentVolumeClaims("default").Create(ctx, claim("dry"), metav1.CreateOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	code, scaled := s.ask(t, "PATCH", "/apis/apps/v1/namespaces/default/deployments/web/scale?dryRun=All", string(types.MergePatchType), `{"spec":{"replicas":7}}`)
	if code != 200 || !strings.Contains(scaled, `"replicas":7`) {
		t.Error(code, scaled)
	}
	if _, err := s.CoreV1().ConfigMaps("default").Apply(ctx, v1.ConfigMap("kept", "default").WithData(map[string]string{"b": "2"}),
		metav1.ApplyOptions{FieldManager: "test", DryRun: all}); err != nil {
		t.Error(err)
	}
	if err := s.CoreV1().ConfigMaps("default").Delete(ctx, "kept", metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if err := s.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if err := s.AppsV1().Deployments("default").DeleteCollection(ctx, metav1.DeleteOptions{DryRun: all}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if after := s.state(); after != before {
		t.Errorf("dry runs changed\n%s\nto\n%s", before, after)
	}
	if _, err := s.CoreV1().ConfigMaps("default").Create(ctx, configMap("dry", nil), metav1.CreateOptions{DryRun: []string{"Some"}}); !apierrors.IsBadRequest(err) {
		t.Errorf("a dry run of some: %v", err)
	}
}

// state is all that the fake orchestrator has, as text.
func (s *stand) state() string {
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	return fmt.Sprintf("%d %+v\n%+v\n%+v\n%+v\n%+v", s.fake.next, s.fake.workloads, s.fake.tasks, s.fake.containers, s.fake.files, s.fake.volumes)
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}}}
}

func service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name},
		Ports: []corev1.ServicePort{{Port: 80}}}}
}

// heard are the warnings that a client was given.
type heard struct{ texts []string }

func (h *heard) HandleWarningHeader(_ int, _, text string) { h.texts = append(h.texts, text) }

// TestFieldValidation writes fields that there are not, in each way to treat them.
func TestFieldValidation(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	warnings := &heard{}
	config := rest.CopyConfig(s.config)
	config.WarningHandler = warnings
	maps := client(t, config).CoreV1().ConfigMaps("default")
	must(maps.Create(ctx, configMap("one", nil), metav1.CreateOptions{}))(t)
	for _, c := range []struct {
		mode  string
		fails bool
		told  int
	}{{"Strict", true, 0}, {"Warn", false, 1}, {"", false, 1}, {"Ignore", false, 0}, {"Otherwise", true, 0}} {
		warnings.texts = nil
		_, err := maps.Patch(ctx, "one", types.MergePatchType, []byte(`{"dota":{"a":"b"}}`), metav1.PatchOptions{FieldValidation: c.mode})
		if (err != nil) != c.fails || c.fails && !apierrors.IsBadRequest(err) || len(warnings.texts) != c.told {
			t.Errorf("patched, %q: %v, %q", c.mode, err, warnings.texts)
		}
		query := ""
		if c.mode != "" {
			query = "?fieldValidation=" + c.mode
		}
		body := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"new` + strings.ToLower(c.mode) + `","name":"new` + strings.ToLower(c.mode) + `"}}`
		response := s.response(t, "POST", "/api/v1/namespaces/default/configmaps"+query, nil, body)
		_ = response.Body.Close()
		if (response.StatusCode != http.StatusCreated) != c.fails || len(response.Header["Warning"]) != c.told {
			t.Errorf("made, %q: %d, %q", c.mode, response.StatusCode, response.Header["Warning"])
		}
	}
}

// TestPreconditions has writes and removals that are about another object than the one there is.
func TestPreconditions(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	one := must(maps.Create(ctx, configMap("one", map[string]string{"a": "1"}), metav1.CreateOptions{}))(t)
	two := one.DeepCopy()
	two.Data["a"] = "2"
	two = must(maps.Update(ctx, two, metav1.UpdateOptions{}))(t)
	if _, err := maps.Update(ctx, one, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("updated by an old version: %v", err)
	}
	other := two.DeepCopy()
	other.UID = "another"
	if _, err := maps.Update(ctx, other, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("updated by another's UID: %v", err)
	}
	uid, version := types.UID("another"), one.ResourceVersion
	for _, p := range []metav1.Preconditions{{UID: &uid}, {ResourceVersion: &version}} {
		if err := maps.Delete(ctx, "one", metav1.DeleteOptions{Preconditions: &p}); !apierrors.IsConflict(err) {
			t.Errorf("removed by wrong preconditions: %v", err)
		}
		if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{Preconditions: &p}, metav1.ListOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("removed with others by wrong preconditions: %v", err)
		}
	}
	if err := maps.Delete(ctx, "one", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &two.UID, ResourceVersion: &two.ResourceVersion}}); err != nil {
		t.Error(err)
	}
	orphan := metav1.DeletePropagationOrphan
	must(s.AppsV1().Deployments("default").Create(ctx, deployment("web", 1), metav1.CreateOptions{}))(t)
	if err := s.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &orphan}); !apierrors.IsBadRequest(err) {
		t.Errorf("orphaned: %v", err)
	}
}

// TestGenerateName makes objects that are named by the API.
func TestGenerateName(t *testing.T) {
	s := stands(t)
	seen := map[string]bool{}
	for _, base := range []string{"made-", strings.Repeat("long-", 12)} {
		for range 3 {
			o := must(s.CoreV1().ConfigMaps("default").Create(t.Context(),
				&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: base}}, metav1.CreateOptions{}))(t)
			if !strings.HasPrefix(o.Name, base[:min(len(base), 58)]) || seen[o.Name] || o.GenerateName != base || len(o.Name) > 63 {
				t.Errorf("named %q of %q", o.Name, base)
			}
			seen[o.Name] = true
		}
	}
	if _, err := s.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{}, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("made without a name: %v", err)
	}
}

// TestImmutable is of ConfigMaps and Secrets that nobody may change, and of Secrets as they are kept.
func TestImmutable(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	yes, no := true, false
	m := configMap("fixed", map[string]string{"a": "1"})
	m.Immutable = &yes
	m = must(s.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{}))(t)
	for what, change := range map[string]func(*corev1.ConfigMap){
		"data":        func(m *corev1.ConfigMap) { m.Data["a"] = "2" },
		"binary data": func(m *corev1.ConfigMap) { m.BinaryData = map[string][]byte{"b": {1}} },
		"no longer":   func(m *corev1.ConfigMap) { m.Immutable = &no },
		"unset":       func(m *corev1.ConfigMap) { m.Immutable = nil },
	} {
		next := m.DeepCopy()
		change(next)
		if _, err := s.CoreV1().ConfigMaps("default").Update(ctx, next, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("an immutable ConfigMap was changed, %s: %v", what, err)
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "word"}, Immutable: &yes, StringData: map[string]string{"word": "open-sesame"}}
	secret = must(s.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}))(t)
	if string(secret.Data["word"]) != "open-sesame" || secret.StringData != nil {
		t.Errorf("made %v", secret)
	}
	for what, change := range map[string]func(*corev1.Secret){
		"data":  func(m *corev1.Secret) { m.Data["word"] = []byte("2") },
		"unset": func(m *corev1.Secret) { m.Immutable = nil },
		"type":  func(m *corev1.Secret) { m.Type = "other" },
	} {
		next := secret.DeepCopy()
		change(next)
		if _, err := s.CoreV1().Secrets("default").Update(ctx, next, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("an immutable Secret was changed, %s: %v", what, err)
		}
	}
	labelled := secret.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	must(s.CoreV1().Secrets("default").Update(ctx, labelled, metav1.UpdateOptions{}))(t)
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	for _, f := range s.fake.files[neutral.KindSecret] {
		kept := fmt.Sprintf("%+v %s", f, f.Origin.Spec)
		for _, open := range []string{"open-sesame", "b3Blbi1zZXNhbWU"} { // as it is, and in base64
			if strings.Contains(kept, open) {
				t.Errorf("a secret lies open: %s", kept)
			}
		}
	}
}

func claim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
}
