package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeKubelet does to the Pods of a fake API what a node would: it runs what has no gate, and ends what has passed its
// deadline. What it shows, the real kubelet was seen to do; the tests against a real one are elsewhere.
type fakeKubelet struct {
	t        *testing.T
	f        *fakeCluster
	exitCode int32
	refuse   string // a reason to wait for in place of running
}

func (f *fakeCluster) node(t *testing.T, kubelet fakeKubelet) {
	t.Helper()
	kubelet.t, kubelet.f = t, f
	// A fake client runs one action at a time. The node's work is one as well, so that nothing that a caller wrote in
	// between is undone by what the node read before.
	f.react(verbSync, "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		kubelet.sync()
		return true, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, err := f.client.Invokes(clienttesting.GenericActionImpl{ActionImpl: clienttesting.ActionImpl{
				Verb: verbSync, Resource: podResource, Namespace: "default"}}, nil); err != nil {
				t.Error(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// verbSync is the action of a fake node that looks at its Pods.
const verbSync = "sync"

var (
	podResource = corev1.SchemeGroupVersion.WithResource("pods")
	podKind     = corev1.SchemeGroupVersion.WithKind("Pod")
)

func (k *fakeKubelet) sync() {
	tracker := k.f.client.Tracker()
	found, err := tracker.List(podResource, podKind, "default")
	if err != nil {
		k.t.Error(err)
		return
	}
	list, ok := found.(*corev1.PodList)
	if !ok {
		k.t.Errorf("a list of Pods is %T", found)
		return
	}
	for i := range list.Items {
		pod := list.Items[i].DeepCopy()
		now := metav1.Now()
		// A fake watch does not begin where its list ended, so every Pod changes all the time and no change is missed.
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations["seen"] = now.Format(time.RFC3339Nano)
		switch {
		case gated(pod) || terminal(pod):
		case pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds == 1:
			pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "DeadlineExceeded"
			if len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Running != nil {
				pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ExitCode: k.exitCode, Reason: "Error", StartedAt: now, FinishedAt: now, ContainerID: "containerd://run"}}
			}
		case len(pod.Status.ContainerStatuses) > 0:
		case k.refuse != "":
			pod.Spec.NodeName, pod.Status.Phase = "node-a", corev1.PodPending
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: containerName, State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: k.refuse, Message: "not found"}}}}
		default:
			pod.Spec.NodeName, pod.Status.Phase = "node-a", corev1.PodRunning
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: containerName, ContainerID: "containerd://run", Ready: true,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
		}
		if err := tracker.Update(podResource, pod, pod.Namespace); err != nil {
			k.t.Error(err)
		}
	}
}

// newIdleCluster is a fake cluster that follows nothing by itself. What is made gets a uid, as an API server gives it;
// ours tell owners and successors apart by it.
func newIdleCluster(t *testing.T, objects ...runtime.Object) *fakeCluster {
	t.Helper()
	client := fake.NewClientset(objects...)
	client.PrependReactor("create", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if object, ok := action.(clienttesting.CreateAction).GetObject().(metav1.Object); ok && object.GetUID() == "" {
			object.SetUID(uuid.NewUUID())
			object.SetGeneration(1)
			object.SetCreationTimestamp(metav1.Now())
		}
		return false, nil, nil
	})
	dynamic := fakedynamic.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		exportVersions[0]: "ServiceExportList", exportVersions[1]: "ServiceExportList"})
	f := &fakeCluster{client: client, log: &syncLog{}}
	f.held(t, &client.Fake)
	f.held(t, &dynamic.Fake)
	f.Cluster = newCluster(client, dynamic, nil, dialect.Config{Cluster: "east"}, slog.New(slog.NewTextHandler(f.log, nil)))
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// create makes a container as Envoy would, by the one call of its plan.
func (f *fakeCluster) create(t *testing.T, c neutral.Container) string {
	t.Helper()
	plan, err := f.Plan(neutral.Operation{Action: neutral.ContainerCreate, Container: &c}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	pod := mustPod(t, plan.Call.Request.Body)
	made, err := f.client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.TypeMeta = pod.TypeMeta
	result, err := plan.Call.Decode(encoded(t, made, mediaJSON))
	if err != nil {
		t.Fatal(err)
	}
	return result.ID
}

func (f *fakeCluster) run(t *testing.T, op neutral.Operation) (neutral.Result, error) {
	t.Helper()
	plan, err := f.Plan(op, allowAll)
	if err != nil {
		return neutral.Result{}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	defer f.doing(op.Action)()
	return plan.Program(ctx)
}

func (f *fakeCluster) see(t *testing.T, ref string) *located {
	t.Helper()
	a := &action{Cluster: f.Cluster, namespace: "default", guard: allowAll}
	found, err := a.lookFor(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (f *fakeCluster) journals(t *testing.T) int {
	t.Helper()
	list, err := f.client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{LabelSelector: labelJournal})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// TestLife is a container's life: each verb, once where it fits and once where it does not.
func TestLife(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	f.node(t, fakeKubelet{exitCode: 7})
	id := f.create(t, neutral.Container{Name: "Web_1", Image: "busybox", Env: []string{"A=1"}, Labels: map[string]string{"a": "b"}})
	op := func(action neutral.Action) neutral.Operation { return neutral.Operation{Action: action, Ref: "Web_1"} }
	wrong := func(what string, o neutral.Operation, kind fault.Kind) {
		t.Helper()
		if _, err := f.run(t, o); !fault.Is(err, kind) {
			t.Errorf("%s: %v, want %v", what, err, kind)
		}
	}
	wrong("stop before start", op(neutral.ContainerStop), fault.NotModified)
	wrong("kill before start", op(neutral.ContainerKill), fault.Conflict)
	if _, err := f.run(t, op(neutral.ContainerStart)); err != nil {
		t.Fatal(err)
	}
	first := f.see(t, id[:12])
	if first.State.Status != neutral.StatusRunning || gated(first.pod) || first.Name != "Web_1" || first.ID != id {
		t.Fatalf("after the start: %+v", first.Container)
	}
	wrong("start twice", op(neutral.ContainerStart), fault.NotModified)
	wrong("remove while it runs", op(neutral.ContainerRemove), fault.Conflict)
	stop := op(neutral.ContainerStop)
	stop.Stop = &neutral.StopOptions{Timeout: ref(3)}
	result, err := f.run(t, stop)
	if err != nil || len(result.Losses) != 1 || !strings.Contains(result.Losses[0].Change, "10 s") {
		t.Fatalf("stop -t 3: %v, %v", result.Losses, err)
	}
	if s := f.see(t, id).State; s.Status != neutral.StatusExited || s.ExitCode != 7 {
		t.Errorf("after the stop: %+v", s)
	}
	wrong("stop twice", op(neutral.ContainerStop), fault.NotModified)
	result, err = f.run(t, op(neutral.ContainerStart))
	if err != nil || len(result.Losses) != 1 {
		t.Fatalf("start again: %v, %v", result.Losses, err)
	}
	second := f.see(t, "Web_1")
	if second.ID != id || second.pod.UID == first.pod.UID || second.State.Status != neutral.StatusRunning || f.journals(t) != 0 {
		t.Errorf("after the second start: %+v, %d journals", second.Container, f.journals(t))
	}
	if second.pod.Spec.ActiveDeadlineSeconds != nil || second.pod.Annotations[annotationStopped] != "" || second.Labels["a"] != "b" || second.Env[0] != "A=1" {
		t.Errorf("the successor is not as the first was: %+v", second.pod)
	}
	if !second.CreatedAt.Equal(first.CreatedAt.Truncate(time.Second)) {
		t.Errorf("created at %v, then at %v", first.CreatedAt, second.CreatedAt)
	}
	restart := op(neutral.ContainerRestart)
	restart.Stop = &neutral.StopOptions{Timeout: ref(1)}
	if _, err := f.run(t, restart); err != nil {
		t.Fatal(err)
	}
	if third := f.see(t, "Web_1"); third.ID != id || third.pod.UID == second.pod.UID || third.State.Status != neutral.StatusRunning {
		t.Errorf("after the restart: %+v", third.Container)
	}
	kill := op(neutral.ContainerKill)
	if result, err := f.run(t, kill); err != nil || len(result.Losses) != 1 {
		t.Errorf("kill: %v, %v", result.Losses, err)
	}
	kill.Stop = &neutral.StopOptions{Signal: "NOSUCH"}
	wrong("kill -s NOSUCH", kill, fault.Invalid)
	if _, err := f.run(t, op(neutral.ContainerRemove)); err != nil {
		t.Fatal(err)
	}
	wrong("remove twice", op(neutral.ContainerRemove), fault.NotFound)
}

func TestRemoveForce(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	f.node(t, fakeKubelet{})
	f.create(t, neutral.Container{Name: "web", Image: "busybox"})
	if _, err := f.run(t, neutral.Operation{Action: neutral.ContainerStart, Ref: "web"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.ContainerRemove, Ref: "web", Remove: &neutral.RemoveOptions{Link: true}}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("remove a link: %v", err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.ContainerRemove, Ref: "web", Remove: &neutral.RemoveOptions{Force: true}}); err != nil {
		t.Error(err)
	}
}

// TestStartUndone holds that a container does not come to life after its caller was told that it could not.
func TestStartUndone(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	f.node(t, fakeKubelet{refuse: "ErrImagePull"})
	f.create(t, neutral.Container{Name: "web", Image: "nosuch:1"})
	_, err := f.run(t, neutral.Operation{Action: neutral.ContainerStart, Ref: "web"})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "No such image: nosuch:1") {
		t.Errorf("start: %v", err)
	}
	found := f.see(t, "web")
	if d := found.pod.Spec.ActiveDeadlineSeconds; d == nil || *d != 1 || !strings.Contains(found.State.Error, "No such image") || found.State.Status != neutral.StatusCreated {
		t.Errorf("after the start that failed: %+v", found.Container)
	}
	f.create(t, neutral.Container{Name: "brief", Image: "nosuch:1", AutoRemove: true})
	if _, err := f.run(t, neutral.Operation{Action: neutral.ContainerStart, Ref: "brief"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("start: %v", err)
	}
	if _, err := f.client.CoreV1().Pods("default").Get(t.Context(), "brief", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a container that removes itself stays after a start that failed: %v", err)
	}
}

func TestOthersPods(t *testing.T) {
	t.Parallel()
	yes := true
	owned := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "shop-6d5f-x", Namespace: "default", UID: "1", Labels: map[string]string{"pod-template-hash": "6d5f"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "shop-6d5f", Controller: &yes}}}}
	several := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "duo", Namespace: "default", UID: "2"}}
	for _, pod := range []*corev1.Pod{owned, several} {
		pod.Spec.Containers = []corev1.Container{{Name: containerName}}
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: containerName, State: *running()}}}
	}
	several.Spec.Containers = append(several.Spec.Containers, corev1.Container{Name: "side"})
	f := newIdleCluster(t, owned, several)
	for _, verb := range []neutral.Action{neutral.ContainerStop, neutral.ContainerKill, neutral.ContainerRestart, neutral.ContainerRemove} {
		op := neutral.Operation{Action: verb, Ref: "shop-6d5f-x", Remove: &neutral.RemoveOptions{Force: true}}
		if _, err := f.run(t, op); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "belongs to Deployment default/shop; scale or stop the service") {
			t.Errorf("%s of a Deployment's Pod: %v", verb, err)
		}
		op = neutral.Operation{Action: verb, Ref: "duo.main"}
		if _, err := f.run(t, op); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "shares the Pod duo with 1 more") {
			t.Errorf("%s of one of two: %v", verb, err)
		}
	}
	result, err := f.run(t, neutral.Operation{Action: neutral.ContainerRemove, Ref: "duo.side", Remove: &neutral.RemoveOptions{Force: true}})
	if err != nil || len(result.Losses) != 1 {
		t.Errorf("force: %v, %v", result, err)
	}
}

// sealKey is the gateway's in tests of journals.
var sealKey = []byte("a key of this gateway")

func TestRecoverJournal(t *testing.T) {
	t.Parallel()
	lost := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "lost", Annotations: map[string]string{annotationNonce: "n"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: containerName, Image: "busybox"}}}}
	there := lost.DeepCopy()
	there.Name = "there"
	secret := func(pod *corev1.Pod, age time.Duration) *corev1.Secret {
		body, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: journalName(pod.Name), Namespace: "default",
			CreationTimestamp: metav1.NewTime(time.Now().Add(-age)), Labels: map[string]string{labelJournal: journalReplace}},
			Data: map[string][]byte{journalKey: body, journalSeal: (&Cluster{seal: sealKey}).sealOf("default", body)}}
	}
	young := lost.DeepCopy()
	young.Name = "young"
	alive := there.DeepCopy()
	alive.Namespace = "default"
	wanted := lost.DeepCopy()
	wanted.Name = "wanted"
	forged := secret(wanted, time.Hour)
	forged.Data[journalSeal] = (&Cluster{}).sealOf("default", forged.Data[journalKey])
	f := newIdleCluster(t, forged, secret(lost, time.Hour), secret(there, time.Hour), secret(young, time.Second), alive)
	f.seal = sealKey
	if err := f.recoverJournals(t.Context()); err == nil || !strings.Contains(err.Error(), "did not write it") {
		t.Errorf("a journal that others wrote: %v", err)
	}
	if _, err := f.client.CoreV1().Pods("default").Get(t.Context(), "wanted", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a Pod came of a journal that others wrote: %v", err)
	}
	if pod, err := f.client.CoreV1().Pods("default").Get(t.Context(), "lost", metav1.GetOptions{}); err != nil || pod.Annotations[annotationNonce] != "n" {
		t.Errorf("the container whose replacement was cut short: %v", err)
	}
	if _, err := f.client.CoreV1().Pods("default").Get(t.Context(), "young", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a replacement that is under way is taken over: %v", err)
	}
	if n := f.journals(t); n != 2 {
		t.Errorf("%d journals are left", n)
	}
}

func TestReap(t *testing.T) {
	t.Parallel()
	pod := func(name string, ended time.Duration, remove bool) *corev1.Pod {
		p := madePod(t, neutral.Container{Name: name, Image: "busybox", AutoRemove: remove}, 0, exited(0))
		p.Namespace, p.UID = "default", types.UID(name)
		p.Status.ContainerStatuses[0].State.Terminated.FinishedAt = metav1.NewTime(time.Now().Add(-ended))
		return &p
	}
	busy := madePod(t, neutral.Container{Name: "busy", Image: "busybox", AutoRemove: true}, 0, running())
	busy.Namespace = "default"
	// What others wrote as a journal holds nothing up.
	broken := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "default", Labels: map[string]string{labelJournal: journalReplace}}}
	f := newIdleCluster(t, broken, pod("old", time.Hour, true), pod("fresh", time.Second, true), pod("kept", time.Hour, false), &busy)
	if err := f.reapOnce(t.Context(), nil); err == nil {
		t.Error("nothing is said of a journal that others wrote")
	}
	list, err := f.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "busy fresh kept" {
		t.Errorf("left after the reaper: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Reap(ctx, func() []string { return nil }) }()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the reaper ends with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the reaper does not end")
	}
}

// TestWaitRemoves holds that the wait of `docker run --rm` takes the container away, and gives its exit code.
func TestWaitRemoves(t *testing.T) {
	t.Parallel()
	p := madePod(t, neutral.Container{Name: "brief", Image: "busybox", AutoRemove: true}, 0, exited(5))
	p.Namespace = "default"
	f := newIdleCluster(t, &p)
	plan, err := f.Plan(neutral.Operation{Action: neutral.ContainerWait, Ref: "brief", Wait: neutral.WaitRemoved}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	leave := f.audience.enter(f.see(t, "brief").ID)
	timer := time.AfterFunc(50*time.Millisecond, leave)
	defer timer.Stop()
	r := &recorder{}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	result, err := plan.Stream(ctx, r)
	if err != nil || result.ExitCode != 5 || r.accepted != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	if time.Since(began) < 40*time.Millisecond {
		t.Error("the container was taken from under its reader")
	}
}

func TestAudience(t *testing.T) {
	t.Parallel()
	var a audience
	a.wait(t.Context(), "x", time.Hour) // nobody reads
	one, two := a.enter("x"), a.enter("x")
	one()
	one() // leaving twice is leaving once
	began := time.Now()
	a.wait(t.Context(), "x", 20*time.Millisecond)
	if time.Since(began) < 15*time.Millisecond {
		t.Error("a reader was not waited for")
	}
	two()
	a.wait(t.Context(), "x", time.Hour)
}
