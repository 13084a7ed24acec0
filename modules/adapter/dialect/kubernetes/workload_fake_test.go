package kubernetes

import (
	"errors"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestWorkloadLife(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	spec := neutral.Workload{Name: "web", Mode: neutral.ModeReplicated, Replicas: 2, Labels: map[string]string{labelExport: "true"},
		Template: neutral.Container{Image: "web:1", Ports: []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp"}}}}
	result, err := f.run(t, neutral.Operation{Action: neutral.WorkloadCreate, Workload: &spec})
	if err != nil || len(result.ID) != 25 || len(result.Losses) != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	service, err := f.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || service.Labels[labelExport] != "true" || service.Spec.Selector[labelWorkload] != "web" || service.OwnerReferences[0].Kind != "Deployment" {
		t.Errorf("the Service: %+v, %v", service, err)
	}
	export, err := f.dynamic.Resource(exportVersions[0]).Namespace("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || export.GetOwnerReferences()[0].UID != service.OwnerReferences[0].UID {
		t.Errorf("the ServiceExport: %v, %v", export, err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.WorkloadCreate, Workload: &spec}); !fault.Is(err, fault.Conflict) ||
		!strings.Contains(err.Error(), "name conflicts with an existing object: service web already exists") {
		t.Errorf("the same name again: %v", err)
	}
	for ref, kind := range map[string]fault.Kind{"web": 0, result.ID: 0, result.ID[:6]: 0, "nobody": fault.NotFound} {
		got, err := f.run(t, neutral.Operation{Action: neutral.WorkloadInspect, Ref: ref})
		if kind == 0 && (err != nil || got.Workload.Name != "web" || got.Workload.Desired != 2 || !got.Workload.Exported) || kind != 0 && !fault.Is(err, kind) {
			t.Errorf("inspect %s: %+v, %v", ref, got.Workload, err)
		}
	}
	changed := spec
	changed.Replicas, changed.Labels, changed.Template.Ports = 3, nil, nil
	update := neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &changed, Version: "7"}
	if _, err := f.run(t, update); !fault.Is(err, fault.Conflict) || fault.Of(err).Message != "update out of sequence" {
		t.Errorf("an update of another version: %v", err)
	}
	update.Version = "1"
	conflicts := 2
	f.react("update", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		if conflicts--; conflicts >= 0 { // the cluster notes something on the object in between
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "deployments"}, "web", errors.New("modified"))
		}
		return false, nil, nil
	})
	if _, err := f.run(t, update); err != nil {
		t.Fatal(err)
	}
	d, err := f.client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || *d.Spec.Replicas != 3 || d.Labels[labelExport] != "" {
		t.Errorf("after the update: %+v, %v", d, err)
	}
	if _, err := f.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Service of ports that are published no more: %v", err)
	}
	if _, err := f.dynamic.Resource(exportVersions[0]).Namespace("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the export of a service that is exported no more: %v", err)
	}
	renamed := changed
	renamed.Name = "other"
	for _, refusedUpdate := range []neutral.Workload{renamed, {Name: "web", Mode: neutral.ModeGlobal}} {
		if _, err := f.run(t, neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &refusedUpdate}); !fault.Is(err, fault.Unsupported) {
			t.Errorf("update to %+v: %v", refusedUpdate.Name, err)
		}
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.WorkloadRemove, Ref: "web"}); err != nil {
		t.Error(err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.WorkloadRemove, Ref: "web"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("remove twice: %v", err)
	}
}

// TestWorkloadCompensated holds that half of a service does not stay.
func TestWorkloadCompensated(t *testing.T) {
	t.Parallel()
	foreign := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}}
	f := newIdleCluster(t, foreign)
	spec := neutral.Workload{Name: "web", Replicas: 1, Template: neutral.Container{Image: "web:1",
		Ports: []neutral.Port{{Container: 80, Publish: true, Protocol: "tcp"}}}}
	_, err := f.run(t, neutral.Operation{Action: neutral.WorkloadCreate, Workload: &spec})
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "a Service web of its own") {
		t.Errorf("create: %v", err)
	}
	if _, err := f.client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Deployment stays: %v", err)
	}
	if service, err := f.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{}); err != nil || len(service.Spec.Ports) != 0 {
		t.Errorf("the cluster's own Service was touched: %v", err)
	}
}

func TestWorkloadLists(t *testing.T) {
	t.Parallel()
	yes := true
	meta := func(name, uid string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(uid), Labels: map[string]string{"app": name}}
	}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}}
	shop := &appsv1.Deployment{ObjectMeta: meta("shop", "1"), Spec: appsv1.DeploymentSpec{Replicas: ref(int32(2)), Template: template},
		Status: appsv1.DeploymentStatus{ReadyReplicas: 1}}
	owned := batchv1.Job{ObjectMeta: meta("cron-1", "5"), Spec: batchv1.JobSpec{Template: template}}
	owned.OwnerReferences = []metav1.OwnerReference{{Kind: "CronJob", Name: "cron", Controller: &yes}}
	sets := []runtime.Object{shop,
		&appsv1.DaemonSet{ObjectMeta: meta("agent", "2"), Spec: appsv1.DaemonSetSpec{Template: template}, Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 4, NumberReady: 3}},
		&appsv1.StatefulSet{ObjectMeta: meta("db", "3"), Spec: appsv1.StatefulSetSpec{Template: template}},
		&batchv1.Job{ObjectMeta: meta("batch", "4"), Spec: batchv1.JobSpec{Template: template, Completions: ref(int32(3))}, Status: batchv1.JobStatus{Succeeded: 2, Active: 1}},
		&owned,
	}
	newTemplate := template.DeepCopy()
	newTemplate.Labels = map[string]string{"pod-template-hash": "new"}
	for _, hash := range []string{"old", "new"} {
		set := &appsv1.ReplicaSet{ObjectMeta: meta("shop-"+hash, "rs-"+hash)}
		set.OwnerReferences = []metav1.OwnerReference{{Kind: "Deployment", Name: "shop", UID: "1", Controller: &yes}}
		set.Labels = map[string]string{"pod-template-hash": hash}
		set.Spec.Template = *newTemplate
		if hash == "old" {
			set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "i:0"}}
		}
		sets = append(sets, set)
		pod := &corev1.Pod{ObjectMeta: meta("shop-"+hash+"-x", "pod-"+hash), Spec: *template.Spec.DeepCopy(),
			Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: *running()}}}}
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "shop-" + hash, Controller: &yes}}
		pod.Labels = map[string]string{"pod-template-hash": hash}
		pod.Spec.NodeName = "node-a"
		sets = append(sets, pod)
	}
	f := newIdleCluster(t, sets...)
	result, err := f.run(t, neutral.Operation{Action: neutral.WorkloadList})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range result.Workloads {
		got = append(got, w.Name+" "+w.Native+" "+string(w.Mode))
	}
	if want := []string{"agent DaemonSet global", "batch Job replicated-job", "db StatefulSet replicated", "shop Deployment replicated"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, filter := range []neutral.Filter{{Names: []string{"sho"}}, {Labels: []string{"app=shop"}}, {IDs: []string{shortID("workload", "east", "1")[:8]}}} {
		result, err := f.run(t, neutral.Operation{Action: neutral.WorkloadList, Filter: filter})
		if err != nil || len(result.Workloads) != 1 || result.Workloads[0].Name != "shop" || result.Workloads[0].Running != 1 {
			t.Errorf("%+v: %+v, %v", filter, result.Workloads, err)
		}
	}
	tasks := func(filter neutral.Filter) []string {
		t.Helper()
		result, err := f.run(t, neutral.Operation{Action: neutral.TaskList, Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, task := range result.Tasks {
			names = append(names, task.Name+" "+task.Container.Pod+" "+task.State)
		}
		return names
	}
	if got := tasks(neutral.Filter{Workloads: []string{"shop"}}); !slices.Equal(got, []string{"shop.1 shop-new-x running", "shop.2 shop-old-x running"}) {
		t.Errorf("tasks: %q", got)
	}
	if got := tasks(neutral.Filter{Current: true}); !slices.Equal(got, []string{"shop.1 shop-new-x running"}) {
		t.Errorf("tasks of the newest template: %q", got)
	}
	if got := tasks(neutral.Filter{Nodes: []string{"node-b"}}); len(got) != 0 {
		t.Errorf("tasks of another node: %q", got)
	}
	scaled := neutral.Workload{Name: "agent", Mode: neutral.ModeGlobal, Replicas: 9}
	if _, err := f.run(t, neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "agent", Workload: &scaled}); !fault.Is(err, fault.Invalid) {
		t.Errorf("scale a DaemonSet: %v", err)
	}
}

func TestTaskState(t *testing.T) {
	t.Parallel()
	w := &neutral.Workload{ID: "w", Name: "web", Mode: neutral.ModeReplicated}
	deleted := metav1.Now()
	for name, c := range map[string]struct {
		change         func(*corev1.Pod)
		state, desired string
	}{
		"pending":   {func(p *corev1.Pod) { p.Spec.NodeName = "" }, "pending", "running"},
		"preparing": {func(*corev1.Pod) {}, "preparing", "running"},
		"running":   {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = *running() }, "running", "running"},
		"complete":  {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, "complete", "complete"},
		"failed":    {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "failed", "shutdown"},
		"going":     {func(p *corev1.Pod) { p.DeletionTimestamp = &deleted }, "shutdown", "shutdown"},
		"crashing": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: reasonCrashLoop}
			p.Status.ContainerStatuses[0].LastTerminationState = *exited(4)
		}, "failed", "running"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}},
			Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "c"}}}}
		c.change(pod)
		task := taskFromPod("east", w, pod, 1, goldenNow)
		if task.State != c.state || task.Desired != c.desired || task.Name != "web.1" || (task.State == "failed") != (task.Err != "") {
			t.Errorf("%s: %+v", name, task)
		}
	}
}

func TestNodesAndImages(t *testing.T) {
	t.Parallel()
	nodes := []corev1.Node{
		{ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{"zone": "z", "ip": "10.0.0.1"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				Images:     []corev1.ContainerImage{{Names: []string{"docker.io/library/nginx@sha256:aaaa", "docker.io/library/nginx:1"}, SizeBytes: 5}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "10.0.0.2"}, Spec: corev1.NodeSpec{Unschedulable: true},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.2"}},
				Images: []corev1.ContainerImage{{Names: []string{"docker.io/library/nginx@sha256:aaaa", "nginx:stable"}}, {Names: []string{"local:1"}}}}},
	}
	read := nodesFromNative("east", nodes)
	if !read[0].Ready || !read[0].Leader || read[0].Labels["zone"] != "z" || read[1].Availability != "drain" || read[1].Ready {
		t.Errorf("%+v", read)
	}
	for _, node := range read {
		if strings.Contains(node.Name+node.Hostname, "10.0.0.") || node.Labels["ip"] != "" {
			t.Errorf("an address is told: %+v", node)
		}
	}
	images := imagesFromNodes(nodes)
	if len(images) != 2 {
		t.Fatalf("%+v", images)
	}
	for ref, want := range map[string]int{"nginx:1": 1, "nginx:stable": 1, "docker.io/library/nginx:1": 1, "nginx": 0, "sha256:aaaa": 1, "aaaa": 1,
		"nginx@sha256:aaaa": 1, "local:1": 1, "": 0, "other": 0} {
		n := 0
		for i := range images {
			if isImage(&images[i], ref) {
				n++
			}
		}
		if n != want {
			t.Errorf("%q names %d images, want %d", ref, n, want)
		}
	}
	list := &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: nodes}
	for ref, kind := range map[string]fault.Kind{"nginx:1": 0, "nosuch:1": fault.NotFound} {
		plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ImageInspect, Image: ref}, allowAll)
		if err != nil {
			t.Fatal(err)
		}
		result, err := plan.Call.Decode(encoded(t, list, mediaProtobuf))
		if kind == 0 && (err != nil || result.Image == nil) || kind != 0 && (!fault.Is(err, kind) || !strings.Contains(err.Error(), "No such image: nosuch:1")) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for ref, want := range map[string]string{"node-a": "node-a", "self": "node-a", read[1].ID[:6]: read[1].Name} {
		plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.NodeInspect, Ref: ref}, allowAll)
		if err != nil {
			t.Fatal(err)
		}
		if result, err := plan.Call.Decode(encoded(t, list, mediaJSON)); err != nil || result.Node.Name != want {
			t.Errorf("%s: %+v, %v", ref, result.Node, err)
		}
	}
}

func TestPullSaysSo(t *testing.T) {
	t.Parallel()
	plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ImagePull, Image: "nginx"}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	if _, err := plan.Stream(t.Context(), r); err != nil || !strings.Contains(strings.Join(r.lines, "\n"), "nginx:latest is pulled by the Kubernetes node") {
		t.Errorf("%q, %v", r.lines, err)
	}
	denied, err := plainCluster().Plan(neutral.Operation{Action: neutral.ImagePull, Image: "nginx"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := denied.Stream(t.Context(), &recorder{}); !fault.Is(err, fault.Denied) {
		t.Errorf("without permission: %v", err)
	}
}
