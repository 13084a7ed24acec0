package kubernetes

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// rolled notes the Deployment's template in a ReplicaSet, as its controller does.
func (f *fakeCluster) rolled(t *testing.T, name, revision string) {
	t.Helper()
	d, err := f.client.AppsV1().Deployments("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name + "-" + revision, Namespace: "default",
		Annotations:     map[string]string{annotationRevision: revision},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Deployment", Name: name, UID: d.UID, Controller: &yes}}},
		Spec: appsv1.ReplicaSetSpec{Template: *d.Spec.Template.DeepCopy()}}
	set.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "r" + revision
	if _, err := f.client.AppsV1().ReplicaSets("default").Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	spec := neutral.Workload{Name: "web", Mode: neutral.ModeReplicated, Replicas: 2, Template: neutral.Container{Image: "web:1", Env: []string{"A=b"}}}
	must := func(op neutral.Operation) neutral.Result {
		t.Helper()
		result, err := f.run(t, op)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	must(neutral.Operation{Action: neutral.WorkloadCreate, Workload: &spec})
	back := neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Version: "1", Rollback: true, Workload: &neutral.Workload{Name: "web"}}
	refused := func(kind fault.Kind, words string) {
		t.Helper()
		if _, err := f.run(t, back); !fault.Is(err, kind) || !strings.Contains(fault.Of(err).Message, words) {
			t.Errorf("rollback: %v, want %s", err, words)
		}
	}
	runs := func() string {
		t.Helper()
		d, err := f.client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != "" || d.Spec.Template.Labels[labelWorkload] != "web" {
			t.Errorf("labels of the template: %v", d.Spec.Template.Labels)
		}
		env := []string{}
		for _, v := range d.Spec.Template.Spec.Containers[0].Env {
			env = append(env, v.Name+"="+v.Value)
		}
		slices.Sort(env)
		return strings.Join(append(env, d.Spec.Template.Spec.Containers[0].Image), " ")
	}
	f.rolled(t, "web", "9")
	refused(fault.Conflict, "service web does not have a previous spec")

	changed := spec
	changed.Template.Env = []string{"A=b", "COLOUR=blue"}
	must(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &changed})
	back.Version = "7"
	refused(fault.Conflict, "update out of sequence")
	back.Version = "1"
	if result := must(back); len(result.Losses) != 0 || runs() != "A=b web:1" {
		t.Errorf("before the controller noted the change: %v, %s", result.Losses, runs())
	}

	// Of what it does beside, nothing is remembered.
	changed.Replicas = 3
	must(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &changed})
	f.rolled(t, "web", "10")
	if result := must(back); len(result.Losses) != 1 || runs() != "A=b web:1" {
		t.Errorf("a change of both: %+v, %s", result.Losses, runs())
	}
	if result := must(back); len(result.Losses) != 0 || runs() != "A=b COLOUR=blue web:1" {
		t.Errorf("and forth: %+v, %s", result.Losses, runs())
	}
	changed.Replicas = 1
	must(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &changed})
	refused(fault.Unsupported, "the last change was not of the service's containers")

	// Policy is asked about what would run.
	changed.Template.Image = "web:2"
	must(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &changed})
	f.rolled(t, "web", "11")
	plan, err := f.Plan(back, func(o neutral.Object) (dialect.Terms, error) {
		if o.Container != nil && o.Container.Image == "web:1" {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission: web:1 is too old")
		}
		return dialect.Terms{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Program(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("rollback to what policy denies: %v", err)
	}
	if got := runs(); !strings.HasSuffix(got, "web:2") {
		t.Errorf("a rollback that is denied: %s", got)
	}
}

// TestRollbackOfOthers refuses to go back where Kubernetes keeps its templates elsewhere.
func TestRollbackOfOthers(t *testing.T) {
	t.Parallel()
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}}
	f := newIdleCluster(t, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "default"}, Spec: appsv1.DaemonSetSpec{Template: template}})
	_, err := f.run(t, neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "agent", Rollback: true})
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "DaemonSet") {
		t.Error(err)
	}
}
