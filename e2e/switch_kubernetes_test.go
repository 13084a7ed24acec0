package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const switchPeer = "switcher"

// switchRights is what a peer needs for switches, as docs/network-switch.md has it.
var switchRights = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch", "create", "patch", "delete"}},
	{APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Verbs: []string{"create"}},
	{APIGroups: []string{"apps"}, Resources: []string{"replicasets"}, Verbs: []string{"get", "list"}},
	{APIGroups: []string{"apps"}, Resources: []string{"deployments", "daemonsets", "statefulsets"}, Verbs: []string{"get", "watch", "patch"}},
}

// switchSite is a namespace of east in which a peer may switch network modes, and no more.
type switchSite struct {
	kubeconfig, namespace string
	client                *clientset.Clientset
	port                  int32 // of the node that nobody else takes
}

var switchPorts atomic.Int32

func newSwitchSite(t *testing.T, kubeconfig, name string, rights []rbacv1.PolicyRule) *switchSite {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	s := &switchSite{kubeconfig: kubeconfig, namespace: "switch-" + name, client: clientset.NewForConfigOrDie(config), port: 21000 + switchPorts.Add(1)}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	if _, err := s.client.CoreV1().Namespaces().Create(t.Context(), space, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), s.namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "switches"}, Rules: rights}
	if _, err := s.client.RbacV1().Roles(s.namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "switches"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "switches"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "isthmus:peer:" + switchPeer}}}
	if _, err := s.client.RbacV1().RoleBindings(s.namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// open is a gateway's view of the cluster; each call is one that has just been started.
func (s *switchSite) open(t *testing.T) dialect.Cluster {
	t.Helper()
	cluster, err := kubernetes.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "east", Kubeconfig: s.kubeconfig, Namespace: s.namespace,
		Impersonate: true, Seal: []byte("a key of the test")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// spec is a server whose Pod is ready; extra changes it.
func (s *switchSite) spec(extra func(*corev1.PodSpec)) corev1.PodSpec {
	grace := int64(1)
	spec := corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "main", Image: demo.Image, ImagePullPolicy: corev1.PullNever,
		Command: []string{"sh", "-c", fmt.Sprintf("mkdir -p /tmp/www; trap exit TERM; httpd -f -p %d -h /tmp/www & wait", s.port)},
		Ports:   []corev1.ContainerPort{{Name: "web", ContainerPort: s.port}},
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(s.port)}}},
	}}}
	if extra != nil {
		extra(&spec)
	}
	return spec
}

var switchLabels = map[string]string{"app": "web"}

func (s *switchSite) template(extra func(*corev1.PodSpec)) (corev1.PodTemplateSpec, *metav1.LabelSelector) {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: switchLabels}, Spec: s.spec(extra)}, &metav1.LabelSelector{MatchLabels: switchLabels}
}

// make makes something that is switched, and gives the name of its Pod.
func (s *switchSite) make(t *testing.T, kind string, extra func(*corev1.PodSpec)) string {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "web", Labels: switchLabels, Annotations: map[string]string{"example.com/of": "an operator"}}
	template, selector := s.template(extra)
	var err error
	switch kind {
	case "Deployment":
		_, err = s.client.AppsV1().Deployments(s.namespace).Create(t.Context(), &appsv1.Deployment{ObjectMeta: meta,
			Spec: appsv1.DeploymentSpec{Template: template, Selector: selector}}, metav1.CreateOptions{})
	case "DaemonSet":
		_, err = s.client.AppsV1().DaemonSets(s.namespace).Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: meta,
			Spec: appsv1.DaemonSetSpec{Template: template, Selector: selector}}, metav1.CreateOptions{})
	case "StatefulSet":
		main := &template.Spec.Containers[0]
		main.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		main.Command[2] = "echo begun >> /data/runs; cat /data/runs; " + main.Command[2]
		claim := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}}}}
		_, err = s.client.AppsV1().StatefulSets(s.namespace).Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
			Template: template, Selector: selector, ServiceName: "web", VolumeClaimTemplates: []corev1.PersistentVolumeClaim{claim}}}, metav1.CreateOptions{})
	case "Pod":
		_, err = s.client.CoreV1().Pods(s.namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: meta, Spec: template.Spec}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.await(t, "ready", func(pod *corev1.Pod) bool {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return s.settled(t, kind)
			}
		}
		return false
	}).Name
}

// settled tells whether the controller has said that its rollout is done.
func (s *switchSite) settled(t *testing.T, kind string) bool {
	switch kind {
	case "Deployment":
		d, err := s.client.AppsV1().Deployments(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && d.Status.ReadyReplicas == *d.Spec.Replicas && d.Status.UpdatedReplicas == *d.Spec.Replicas
	case "StatefulSet":
		d, err := s.client.AppsV1().StatefulSets(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && d.Status.ReadyReplicas == 1
	case "DaemonSet":
		d, err := s.client.AppsV1().DaemonSets(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && d.Status.NumberReady == 1 && d.Status.DesiredNumberScheduled == 1
	}
	return true
}

// await waits for a Pod that is not on its way out.
func (s *switchSite) await(t *testing.T, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		list, err := s.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			if list.Items[i].DeletionTimestamp == nil && ok(&list.Items[i]) {
				return &list.Items[i]
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no Pod is %s: %+v", what, list.Items)
		}
	}
}

// described is what an operator wrote, and no more: without what the API, its controllers and nodes say of one object.
func (s *switchSite) described(t *testing.T, kind string) string {
	t.Helper()
	var object metav1.Object
	var err error
	switch kind {
	case "Deployment":
		object, err = s.client.AppsV1().Deployments(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	case "DaemonSet":
		object, err = s.client.AppsV1().DaemonSets(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	case "StatefulSet":
		object, err = s.client.AppsV1().StatefulSets(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	case "Pod":
		object, err = s.client.CoreV1().Pods(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	object.SetManagedFields(nil)
	object.SetResourceVersion("")
	object.SetGeneration(0)
	object.SetCreationTimestamp(metav1.Time{})
	if kind == "Pod" {
		object.SetUID("")
	}
	annotations := object.GetAnnotations()
	delete(annotations, "deployment.kubernetes.io/revision")
	delete(annotations, "deprecated.daemonset.template.generation")
	raw, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "status")
	raw, err = json.MarshalIndent(fields, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

var errCrash = errors.New("the gateway has crashed")

// switchJournal is a journal in memory; at the step stop, its gateway crashes: before the touch, or in the middle of it.
type switchJournal struct {
	steps  []string
	stop   int // the first is 1
	middle func()
}

func (j *switchJournal) open(s *neutral.Switching) {
	s.Step = func(_ context.Context, step string, native json.RawMessage) error {
		j.steps = append(j.steps, step)
		if native != nil {
			s.Plan.Native = native
		}
		if len(j.steps) == j.stop {
			if j.middle == nil {
				return errCrash
			}
			j.middle()
		}
		return nil
	}
}

func (s *switchSite) plan(t *testing.T, cluster dialect.Cluster, pod string, need neutral.NetworkNeed) neutral.SwitchPlan {
	t.Helper()
	plan, err := cluster.(dialect.Switcher).PlanSwitch(t.Context(), switchPeer, neutral.TargetRef{Namespace: s.namespace, Pod: pod, Port: uint16(s.port)}, need)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func (s *switchSite) begin(t *testing.T, cluster dialect.Cluster, pod string) *neutral.Switching {
	t.Helper()
	need := neutral.NetworkNeed{Mode: neutral.NetworkHost, Port: uint16(s.port), Layer: neutral.LayerDiscard}
	plan := s.plan(t, cluster, pod, need)
	if len(plan.Refusals) > 0 {
		t.Fatalf("refused: %q", plan.Refusals)
	}
	return &neutral.Switching{ID: "l1", Peer: switchPeer, Need: need, Plan: plan,
		Ref: neutral.TargetRef{Namespace: s.namespace, Pod: pod, Port: uint16(s.port)}}
}

// restored restores until it is done, as one does who comes after a crash.
func (s *switchSite) restored(t *testing.T, switching *neutral.Switching) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if err := s.open(t).(dialect.Switcher).Restore(ctx, switching); err != nil {
		t.Fatalf("restore: %v", err)
	}
}

func (s *switchSite) mode(t *testing.T, cluster dialect.Cluster, ref neutral.TargetRef) neutral.NetworkMode {
	t.Helper()
	target, err := cluster.Locate(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if !target.Running || !target.Address.IsValid() {
		t.Errorf("the target does not run: %+v", target)
	}
	return target.Network
}

// switchKinds are what is switched, each with the steps of its way there.
var switchKinds = map[string]int{"Deployment": 1, "StatefulSet": 1, "DaemonSet": 1, "Pod": 3}

// TestSwitchKubernetes switches the network mode of what runs on a Kubernetes, and back.
func TestSwitchKubernetes(t *testing.T) {
	scripting(t)
	switchKubernetes(t, running.Bed.Kubernetes("east").HostKubeconfig)
}

func switchKubernetes(t *testing.T, kubeconfig string) {
	for kind, steps := range switchKinds {
		name := strings.ToLower(kind)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer turn("switch")()
			switchThereAndBack(t, newSwitchSite(t, kubeconfig, name, switchRights), kind)
		})
		for touch := range steps {
			for how, middle := range map[string]bool{"before": false, "amid": true} {
				name := fmt.Sprintf("%s-crash-%s-%d", strings.ToLower(kind), how, touch+1)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					defer turn("switch")()
					switchCrash(t, newSwitchSite(t, kubeconfig, name, switchRights), kind, touch+1, middle)
				})
			}
		}
	}
	for name, test := range map[string]func(*testing.T, *switchSite){
		"fails-deployment": func(t *testing.T, s *switchSite) { switchFails(t, s, "Deployment") }, "fails-statefulset": func(t *testing.T, s *switchSite) { switchFails(t, s, "StatefulSet") },
		"fails-pod": func(t *testing.T, s *switchSite) { switchFails(t, s, "Pod") }, "operator": switchOperator, "refused": switchRefused,
		"operator-pod": switchOperatorPod, "kept": switchKept,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer turn("switch")()
			test(t, newSwitchSite(t, kubeconfig, name, switchRights))
		})
	}
	t.Run("without-rights", func(t *testing.T) {
		t.Parallel()
		defer turn("switch")()
		s := newSwitchSite(t, kubeconfig, "without-rights", []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{"apps"}, Resources: []string{"replicasets", "deployments"}, Verbs: []string{"get", "list"}}})
		plan := s.plan(t, s.open(t), s.make(t, "Deployment", nil), neutral.NetworkNeed{Mode: neutral.NetworkHost})
		if text := strings.Join(plan.Refusals, "\n"); !strings.Contains(text, "cannot patch resource") {
			t.Errorf("refusals %q", plan.Refusals)
		}
	})
}

// switchThereAndBack holds that nothing is left of a switch, and that the target is where Switch says.
func switchThereAndBack(t *testing.T, s *switchSite, kind string) {
	cluster := s.open(t)
	pod := s.make(t, kind, nil)
	before := s.described(t, kind)
	switching := s.begin(t, cluster, pod)
	if switching.Plan.From != neutral.NetworkPod || switching.Plan.To != neutral.NetworkHost || switching.Plan.Object.Name != "web" ||
		len(switching.Plan.Recreated) != 1 || switching.Plan.Recreated[0] != pod {
		t.Errorf("plan %+v", switching.Plan)
	}
	journal := &switchJournal{}
	journal.open(switching)
	began := time.Now()
	ref, err := cluster.(dialect.Switcher).Switch(t.Context(), switching)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is in the host's network after %s: %q; lost: %q", kind, time.Since(began).Round(100*time.Millisecond), journal.steps, switching.Plan.Lost)
	if mode := s.mode(t, cluster, ref); mode != neutral.NetworkHost {
		t.Errorf("the target is in the network mode %s", mode)
	}
	events, err := s.client.CoreV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=NetworkModeSwitched"})
	if err != nil || len(events.Items) != 1 || events.Items[0].InvolvedObject.Kind != kind {
		t.Errorf("events %+v, %v", events.Items, err)
	}
	if _, err := cluster.(dialect.Switcher).Switch(t.Context(), switching); err != nil {
		t.Errorf("a switch that is done is done once more: %v", err)
	}
	began = time.Now()
	if err := cluster.(dialect.Switcher).Restore(t.Context(), switching); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is back after %s: %q", kind, time.Since(began).Round(100*time.Millisecond), journal.steps)
	s.isAsBefore(t, kind, before)
	if err := s.open(t).(dialect.Switcher).Restore(t.Context(), switching); err != nil {
		t.Errorf("a restoration that is done is done once more: %v", err)
	}
	if kind != "StatefulSet" {
		return
	}
	logs, err := s.client.CoreV1().Pods(s.namespace).GetLogs("web-0", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil || strings.Count(string(logs), "begun") != 3 {
		t.Errorf("the volume has not all that was written: %q, %v", logs, err)
	}
}

// isAsBefore holds that an object is as it was, and that its Pod runs in the pod network.
func (s *switchSite) isAsBefore(t *testing.T, kind, before string) {
	t.Helper()
	if diff := cmp.Diff(before, s.described(t, kind)); diff != "" {
		t.Errorf("it is not as before: %s", diff)
	}
	pod := s.await(t, "there", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
	if pod.Spec.HostNetwork {
		t.Errorf("pod %s is in the host's network", pod.Name)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // one that its controller gave up may be on its way out
		list, err := s.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d Pods are left", len(list.Items))
		}
	}
}

// switchCrash ends a gateway at a touch, there or on the way back, and holds that another one restores.
func switchCrash(t *testing.T, s *switchSite, kind string, touch int, middle bool) {
	cluster := s.open(t)
	pod := s.make(t, kind, nil)
	before := s.described(t, kind)
	for _, back := range []bool{false, true} {
		switching := s.begin(t, cluster, pod)
		journal := &switchJournal{}
		journal.open(switching)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if back {
			if _, err := cluster.(dialect.Switcher).Switch(ctx, switching); err != nil {
				t.Fatal(err)
			}
			journal.steps = nil
		}
		journal.stop = touch
		if middle {
			journal.middle = func() { time.AfterFunc(100*time.Millisecond, cancel) }
		}
		var err error
		if back {
			err = cluster.(dialect.Switcher).Restore(ctx, switching)
		} else {
			_, err = cluster.(dialect.Switcher).Switch(ctx, switching)
		}
		switch {
		case len(journal.steps) < touch && back: // which is shorter
			if err != nil {
				t.Fatal(err)
			}
		case !middle && !errors.Is(err, errCrash):
			t.Fatalf("error %v", err)
		}
		t.Logf("crashed with %q", journal.steps)
		next := *switching
		after := &switchJournal{}
		after.open(&next)
		s.restored(t, &next)
		t.Logf("restored with %q", after.steps)
		s.isAsBefore(t, kind, before)
		pod = s.await(t, "ready", func(*corev1.Pod) bool { return s.settled(t, kind) }).Name
	}
}

// switchFails holds that what cannot run in the host's network is found out, said, and taken back.
func switchFails(t *testing.T, s *switchSite, kind string) {
	cluster := s.open(t)
	pod := s.make(t, kind, func(spec *corev1.PodSpec) {
		main := &spec.Containers[0]
		main.Env = []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
		main.Command[2] = `[ "$(hostname)" = "$POD" ] || exit 1; ` + main.Command[2]
	})
	before := s.described(t, kind)
	switching := s.begin(t, cluster, pod)
	journal := &switchJournal{}
	journal.open(switching)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	began := time.Now()
	_, err := cluster.(dialect.Switcher).Switch(ctx, switching)
	if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Timeout) {
		t.Fatalf("error %v", err)
	}
	t.Logf("after %s: %v", time.Since(began).Round(100*time.Millisecond), err)
	if message := fault.Of(err).Message; kind != "Pod" && !strings.Contains(message, "container main of pod web-") {
		t.Errorf("the message does not say what hinders it: %s", message)
	}
	began = time.Now()
	s.restored(t, switching)
	t.Logf("back after %s: %q", time.Since(began).Round(100*time.Millisecond), journal.steps)
	s.isAsBefore(t, kind, before)
}

// switchOperator holds that what an operator changed meanwhile is left as it is, but for the annotation.
func switchOperator(t *testing.T, s *switchSite) {
	cluster := s.open(t)
	switching := s.begin(t, cluster, s.make(t, "Deployment", nil))
	(&switchJournal{}).open(switching)
	if _, err := cluster.(dialect.Switcher).Switch(t.Context(), switching); err != nil {
		t.Fatal(err)
	}
	patch := `{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"BY","value":"operator"}]}]}}}}`
	deployments := s.client.AppsV1().Deployments(s.namespace)
	changed, err := deployments.Patch(t.Context(), "web", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.open(t).(dialect.Switcher).Restore(t.Context(), switching); !fault.Is(err, fault.Conflict) {
			t.Errorf("error %v", err)
		}
	}
	live, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changed.Spec, live.Spec); diff != "" || live.Annotations["isthmus.io/switch"] != "" {
		t.Errorf("annotations %v: %s", live.Annotations, diff)
	}
}

// switchOperatorPod holds the same of a Pod that nothing keeps: a label that an operator gave it is kept, and a Pod that
// the operator put in its place is left alone.
func switchOperatorPod(t *testing.T, s *switchSite) {
	cluster, pods := s.open(t), s.client.CoreV1().Pods(s.namespace)
	for _, replaced := range []bool{false, true} {
		if !replaced {
			s.make(t, "Pod", nil)
		}
		switching := s.begin(t, cluster, "web")
		(&switchJournal{}).open(switching)
		if _, err := cluster.(dialect.Switcher).Switch(t.Context(), switching); err != nil {
			t.Fatal(err)
		}
		if !replaced {
			if _, err := pods.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"seen":"yes"}}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			s.restored(t, switching)
			if pod, err := pods.Get(t.Context(), "web", metav1.GetOptions{}); err != nil || pod.Labels["seen"] != "yes" || pod.Spec.HostNetwork {
				t.Errorf("%+v, %v", pod, err)
			}
			continue
		}
		grace := int64(0)
		if err := pods.Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
			t.Fatal(err)
		}
		other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: s.spec(func(spec *corev1.PodSpec) { spec.Containers[0].Name = "other" })}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			_, err := pods.Create(t.Context(), other, metav1.CreateOptions{})
			if err == nil {
				break
			}
			if !apierrors.IsAlreadyExists(err) || time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		if err := s.open(t).(dialect.Switcher).Restore(t.Context(), switching); !fault.Is(err, fault.Conflict) {
			t.Errorf("error %v", err)
		}
		if pod, err := pods.Get(t.Context(), "web", metav1.GetOptions{}); err != nil || pod.Spec.Containers[0].Name != "other" || pod.DeletionTimestamp != nil {
			t.Errorf("%+v, %v", pod, err)
		}
	}
}

// switchKept holds that a mode that is kept is the target's own, and that it can be switched from there and back to it.
func switchKept(t *testing.T, s *switchSite) {
	cluster := s.open(t)
	switching := s.begin(t, cluster, s.make(t, "Deployment", nil))
	(&switchJournal{}).open(switching)
	ref, err := cluster.(dialect.Switcher).Switch(t.Context(), switching)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.(dialect.Switcher).Keep(t.Context(), switching); err != nil {
		t.Fatal(err)
	}
	kept := s.described(t, "Deployment")
	if strings.Contains(kept, "isthmus.io/switch") || !strings.Contains(kept, `"hostNetwork": true`) {
		t.Errorf("kept: %s", kept)
	}
	need := neutral.NetworkNeed{Mode: neutral.NetworkBridge, Port: uint16(s.port)}
	back := &neutral.Switching{ID: "l2", Peer: switchPeer, Ref: ref, Need: need, Plan: s.plan(t, cluster, ref.Pod, need)}
	if len(back.Plan.Refusals) > 0 || back.Plan.To != neutral.NetworkPod {
		t.Fatalf("plan %+v", back.Plan)
	}
	(&switchJournal{}).open(back)
	if ref, err = cluster.(dialect.Switcher).Switch(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if mode := s.mode(t, cluster, ref); mode != neutral.NetworkPod {
		t.Errorf("the target is in the network mode %s", mode)
	}
	s.restored(t, back)
	if diff := cmp.Diff(kept, s.described(t, "Deployment")); diff != "" {
		t.Errorf("it is not as it was kept: %s", diff)
	}
}

// switchRefused holds that the cluster's own reasons are told before anything is touched.
func switchRefused(t *testing.T, s *switchSite) {
	cluster := s.open(t)
	deployed := s.make(t, "Deployment", nil)
	before := s.described(t, "Deployment")
	taker := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "taker"}, Spec: s.spec(func(spec *corev1.PodSpec) { spec.HostNetwork = true })}
	if _, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), taker, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare"}, Spec: s.spec(func(spec *corev1.PodSpec) {
		spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	})}
	if _, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), bare, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"taker", "bare"} {
		s.await(t, name, func(pod *corev1.Pod) bool { return pod.Name == name && pod.Status.Phase == corev1.PodRunning })
	}
	label := `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`
	if _, err := s.client.CoreV1().Namespaces().Patch(t.Context(), s.namespace, types.MergePatchType, []byte(label), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for pod, wanted := range map[string][]string{
		deployed: {"violates PodSecurity"},
		"bare": {"violates PodSecurity", fmt.Sprintf("taken: %d/tcp", s.port), "volume scratch lives as long as its Pod",
			"container main may have changed files"},
	} {
		var text string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) { // admission sees the label by and by
			plan := s.plan(t, cluster, pod, neutral.NetworkNeed{Mode: neutral.NetworkHost, Port: uint16(s.port)})
			if text = strings.Join(plan.Refusals, "\n"); strings.Contains(text, wanted[0]) {
				break
			}
		}
		t.Logf("%s is refused:\n%s", pod, text)
		for _, reason := range wanted {
			if !strings.Contains(text, reason) {
				t.Errorf("pod %s: %q is not among\n%s", pod, reason, text)
			}
		}
	}
	if diff := cmp.Diff(before, s.described(t, "Deployment")); diff != "" {
		t.Errorf("a dry run has changed it: %s", diff)
	}
}
