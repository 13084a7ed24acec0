package kubernetes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func allowAll(neutral.Object) (dialect.Terms, error) { return dialect.Terms{}, nil }

// plainCluster has a name and a namespace and no API, for what is pure.
func plainCluster() *Cluster { return &Cluster{cluster: "east", namespace: "team"} }

// madePod is a Pod that isthmus made, started at a time after the epoch of the tests.
func madePod(t *testing.T, c neutral.Container, created time.Duration, state *corev1.ContainerState) corev1.Pod {
	t.Helper()
	pod, _, err := podFromContainer(&c, "team", "nonce-of-"+c.Name)
	if err != nil {
		t.Fatal(err)
	}
	pod.CreationTimestamp = metav1.NewTime(logStart.Add(created))
	pod.UID = "uid-of-0"
	if state != nil {
		pod.Spec.SchedulingGates, pod.Spec.NodeName = nil, "node-a"
		pod.Status.Phase = corev1.PodRunning
		if state.Terminated != nil {
			pod.Status.Phase = corev1.PodFailed
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: containerName, State: *state, ContainerID: "containerd://" + c.Name,
			ImageID: "repo@sha256:feedfacefeedface", Ready: state.Running != nil}}
	}
	return *pod
}

func running() *corev1.ContainerState {
	return &corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(logStart)}}
}

func exited(code int32) *corev1.ContainerState {
	return &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, StartedAt: metav1.NewTime(logStart),
		FinishedAt: metav1.NewTime(logStart.Add(time.Second)), ContainerID: "containerd://ended"}}
}

func listedPods(t *testing.T) *corev1.PodList {
	return &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{
		madePod(t, neutral.Container{Name: "web", Image: "nginx", Labels: map[string]string{"app": "web", "bad key": "v"},
			Ports:  []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp"}, {Container: 53, Protocol: "udp"}},
			Mounts: []neutral.Mount{{Type: "tmpfs", Target: "/cache"}}, Health: &neutral.HealthCheck{Test: []string{"CMD", "ok"}}}, 1*time.Minute, running()),
		madePod(t, neutral.Container{Name: "Job_1", Image: "busybox:1.36"}, 2*time.Minute, exited(7)),
		madePod(t, neutral.Container{Name: "fresh", Image: "docker.io/library/busybox:1.36", Network: neutral.NetworkHost}, 3*time.Minute, nil),
	}}
}

func encoded(t *testing.T, object runtime.Object, media string) dialect.Response {
	t.Helper()
	var b bytes.Buffer
	if media == mediaProtobuf {
		if err := protobufCodec.Encode(object, &b); err != nil {
			t.Fatal(err)
		}
	} else if err := json.NewEncoder(&b).Encode(object); err != nil {
		t.Fatal(err)
	}
	return dialect.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {media}}, Body: b.Bytes()}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	id := containersFromPods("east", listedPods(t).Items[:1], goldenNow)[0].ID
	for name, c := range map[string]struct {
		filter neutral.Filter
		want   []string
	}{
		"running only":      {neutral.Filter{}, []string{"web"}},
		"all, newest first": {neutral.Filter{All: true}, []string{"fresh", "Job_1", "web"}},
		"limit":             {neutral.Filter{Limit: 2}, []string{"fresh", "Job_1"}},
		"name":              {neutral.Filter{All: true, Names: []string{"job", "^/?Job"}}, []string{"Job_1"}},
		"name contains":     {neutral.Filter{All: true, Names: []string{"es"}}, []string{"fresh"}},
		"id":                {neutral.Filter{All: true, IDs: []string{id[:5]}}, []string{"web"}},
		"label":             {neutral.Filter{All: true, Labels: []string{"app=web", "bad key"}}, []string{"web"}},
		"label value":       {neutral.Filter{All: true, Labels: []string{"app=x"}}, nil},
		"status":            {neutral.Filter{Status: []neutral.Status{neutral.StatusExited, neutral.StatusCreated}}, []string{"fresh", "Job_1"}},
		"ancestor":          {neutral.Filter{All: true, Ancestors: []string{"busybox:1.36"}}, []string{"fresh", "Job_1"}},
		"ancestor latest":   {neutral.Filter{All: true, Ancestors: []string{"nginx:latest"}}, []string{"web"}},
		"ancestor id":       {neutral.Filter{Ancestors: []string{"sha256:feedfacefeed"}}, []string{"web"}},
		"exit code":         {neutral.Filter{ExitCodes: []int{7}}, []string{"Job_1"}},
		"exit code 0":       {neutral.Filter{ExitCodes: []int{0}}, nil},
		"before":            {neutral.Filter{Before: "Job_1"}, []string{"web"}},
		"since":             {neutral.Filter{Since: "Job_1"}, []string{"fresh"}},
		"health":            {neutral.Filter{Health: []string{"healthy"}}, []string{"web"}},
		"no health":         {neutral.Filter{All: true, Health: []string{"none"}}, []string{"fresh", "Job_1"}},
		"host network":      {neutral.Filter{All: true, Networks: []string{"host"}}, []string{"fresh"}},
		"bridge":            {neutral.Filter{All: true, Networks: []string{"bridge"}}, []string{"Job_1", "web"}},
		"volume":            {neutral.Filter{All: true, Volumes: []string{"/cache"}}, []string{"web"}},
		"publish":           {neutral.Filter{All: true, Publish: []string{"8000-8090"}}, []string{"web"}},
		"publish udp":       {neutral.Filter{All: true, Publish: []string{"8080/udp"}}, nil},
		"expose":            {neutral.Filter{All: true, Expose: []string{"53/udp"}}, []string{"web"}},
	} {
		for _, media := range []string{mediaProtobuf, mediaJSON} {
			plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerList, Filter: c.filter}, allowAll)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Call.Request.Path != "/api/v1/namespaces/team/pods" || plan.Call.Request.Method != http.MethodGet {
				t.Errorf("%s asks %+v", name, plan.Call.Request)
			}
			result, err := plan.Call.Decode(encoded(t, listedPods(t), media))
			var got []string
			for _, container := range result.Containers {
				got = append(got, container.Name)
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s as %s: %v, %v; want %v", name, media, got, err, c.want)
			}
		}
	}
}

func TestListRefusals(t *testing.T) {
	t.Parallel()
	for _, filter := range []neutral.Filter{{Names: []string{"("}}, {Publish: []string{"x"}}, {Expose: []string{"1-y"}}, {Publish: []string{"70000"}}} {
		if _, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerList, Filter: filter}, allowAll); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", filter, err)
		}
	}
	plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{Before: "nobody", Size: true}}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Call.Decode(encoded(t, listedPods(t), mediaJSON)); !fault.Is(err, fault.NotFound) {
		t.Errorf("before nobody: %v", err)
	}
}

// TestGuard holds that nothing is told that policy does not allow, and that policy is shown the caller's labels.
func TestGuard(t *testing.T) {
	t.Parallel()
	guard := func(object neutral.Object) (dialect.Terms, error) {
		if object.Labels["bad key"] == "v" && object.Container != nil && object.Namespace == "team" {
			return dialect.Terms{}, nil
		}
		return dialect.Terms{}, fault.New(fault.Denied, "no permission")
	}
	list, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true}}, guard)
	if err != nil {
		t.Fatal(err)
	}
	if result, err := list.Call.Decode(encoded(t, listedPods(t), mediaJSON)); err != nil || len(result.Containers) != 1 {
		t.Errorf("%d containers are listed: %v", len(result.Containers), err)
	}
	for ref, kind := range map[string]fault.Kind{"web": 0, "fresh": fault.Denied, "nobody": fault.NotFound} {
		plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerInspect, Ref: ref}, guard)
		if err != nil {
			t.Fatal(err)
		}
		result, err := plan.Call.Decode(encoded(t, listedPods(t), mediaProtobuf))
		if kind == 0 && (err != nil || result.Container.Name != ref) || kind != 0 && (!fault.Is(err, kind) || result.Container != nil) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	_, err = plainCluster().Plan(neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Image: "x"}}, guard)
	if !fault.Is(err, fault.Denied) {
		t.Errorf("create without the label: %v", err)
	}
	_, err = plainCluster().Plan(neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Image: "x"}}, nil)
	if !fault.Is(err, fault.Denied) {
		t.Errorf("create without a policy: %v", err)
	}
}

func TestCreateAnswers(t *testing.T) {
	t.Parallel()
	plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerCreate,
		Container: &neutral.Container{Name: "web", Image: "busybox", Restart: neutral.RestartPolicy{Mode: neutral.RestartOnFailure, Max: 3}}}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	var sent corev1.Pod
	if err := json.Unmarshal(plan.Call.Request.Body, &sent); err != nil || plan.Call.Request.Method != http.MethodPost || !gated(&sent) {
		t.Fatalf("%v: %s", err, plan.Call.Request.Body)
	}
	result, err := plan.Call.Decode(encoded(t, &sent, mediaJSON))
	if err != nil || len(result.ID) != 64 || result.Container.State.Status != neutral.StatusCreated || len(result.Losses) != 1 {
		t.Errorf("created: %+v, %v", result, err)
	}
	again, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Name: "web", Image: "busybox"}}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := again.Call.Decode(encoded(t, mustPod(t, again.Call.Request.Body), mediaJSON)); err != nil || other.ID == result.ID {
		t.Errorf("two containers of one name share an id: %v", err)
	}
	pods := schema.GroupResource{Resource: "pods"}
	for name, c := range map[string]struct {
		err  *apierrors.StatusError
		kind fault.Kind
		text string
	}{
		"taken":     {apierrors.NewAlreadyExists(pods, "web"), fault.Conflict, `Conflict. The container name "/web" is already in use`},
		"quota":     {apierrors.NewForbidden(pods, "web", textError("exceeded quota: small")), fault.Denied, "exceeded quota: small"},
		"no access": {apierrors.NewUnauthorized("Unauthorized"), fault.Unavailable, "does not accept the gateway's credential"},
		"broken":    {apierrors.NewInternalError(textError("dial tcp 10.0.0.7:2379: refused")), fault.Internal, "the orchestrator refused the request (InternalError)"},
	} {
		status := c.err.Status()
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		response := encoded(t, &status, mediaProtobuf)
		response.Status = int(status.Code)
		_, err := plan.Call.Decode(response)
		if !fault.Is(err, c.kind) || !strings.Contains(fault.Of(err).Message, c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(fault.Of(err).Message, "10.0.0.7") {
			t.Errorf("%s tells an address", name)
		}
	}
	for _, garbage := range []string{"", "<html>", "k8s\x00garbage", "{"} {
		if _, err := plan.Call.Decode(dialect.Response{Status: 200, Body: []byte(garbage)}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("answer %q: %v", garbage, err)
		}
		if _, err := plan.Call.Decode(dialect.Response{Status: 502, Body: []byte(garbage)}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("error answer %q: %v", garbage, err)
		}
	}
}

type textError string

func (e textError) Error() string { return string(e) }

func mustPod(t *testing.T, body []byte) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal(body, &pod); err != nil {
		t.Fatal(err)
	}
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return &pod
}

// TestEveryAction holds that no action is forgotten: it is planned, or refused with a reason.
func TestEveryAction(t *testing.T) {
	t.Parallel()
	for _, action := range neutral.Actions() {
		_, planned := plans[action]
		_, isRefused := refused[action]
		switch {
		case planned && isRefused:
			t.Errorf("%s is both planned and refused", action)
		case planned, len(refusal(action)) > 20:
		default:
			_, err := plainCluster().Plan(neutral.Operation{Action: action, Ref: "x"}, allowAll)
			known := action == neutral.SecretList || action == neutral.ConfigList ||
				fault.Is(err, fault.NotFound) && (action == neutral.SecretGet || action == neutral.ConfigGet)
			if !known && action != neutral.ObjectRaw && action != neutral.SwarmInspect && action != neutral.ExecInspect &&
				action != neutral.ExecResize && action != neutral.ContainerResize {
				t.Errorf("%s is neither planned nor refused with a reason: %v", action, err)
			}
			if err != nil && !fault.Is(err, fault.Unsupported) && !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: %v", action, err)
			}
		}
	}
}

// BenchmarkContainerList is the reading of a hundred Pods, as `docker ps` of a cluster costs it.
func BenchmarkContainerList(b *testing.B) {
	list := corev1.PodList{}
	for i := range 100 {
		pod, _, err := podFromContainer(&neutral.Container{Name: fmt.Sprintf("web-%d", i), Image: "nginx:1", Env: []string{"A=1", "B=$(A)"},
			Labels: map[string]string{"app": "web"}, Ports: []neutral.Port{{Container: 80, Protocol: "tcp"}},
			Origin: &neutral.Origin{Dialect: neutral.Docker, Spec: bytes.Repeat([]byte(`{"Image":"nginx:1"}`), 100)}}, "team", fmt.Sprint(i))
		if err != nil {
			b.Fatal(err)
		}
		pod.Spec.SchedulingGates = nil
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: containerName, State: *running(), Ready: true}}}
		list.Items = append(list.Items, *pod)
	}
	var body bytes.Buffer
	if err := protobufCodec.Encode(&list, &body); err != nil {
		b.Fatal(err)
	}
	plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerList}, allowAll)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if result, err := plan.Call.Decode(dialect.Response{Status: http.StatusOK, Body: body.Bytes()}); err != nil || len(result.Containers) != 100 {
			b.Fatal(err)
		}
	}
}

func FuzzDecodePods(f *testing.F) {
	pods := &corev1.PodList{Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{annotationHealth: "{}"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}}}}
	var b bytes.Buffer
	if err := protobufCodec.Encode(pods, &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"items":[{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","command":["$(X)"]}]}}]}`))
	f.Add([]byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		plan, err := plainCluster().Plan(neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true}}, allowAll)
		if err != nil {
			t.Fatal(err)
		}
		result, err := plan.Call.Decode(dialect.Response{Status: http.StatusOK, Body: body})
		if err != nil && len(result.Containers) > 0 {
			t.Errorf("containers beside an error: %v", err)
		}
		for _, c := range result.Containers {
			if len(c.ID) != 64 || c.State.Status == "" {
				t.Errorf("a container without id or state: %+v", c)
			}
		}
	})
}

// A list loads the callers' own documents only where a command may have something to hide from others than its writer.
func TestListLoadsFewOrigins(t *testing.T) {
	t.Parallel()
	of := func(name string, command ...string) corev1.Pod {
		p := newPod(name, "10.0.0.1")
		p.Annotations = map[string]string{annotationOrigin: `docker:plain:{"Image":"i"}`, annotationPeer: "west"}
		p.Spec.Containers[0].Args = command
		return *p
	}
	listed := containersFromPods("east", []corev1.Pod{of("a", "sleep", "600"), of("b", "wget", "http://10.1.2.3/"), of("c", "ping", "10.1.2.3")}, time.Now())
	if len(listed) != 3 || listed[0].Origin != nil || listed[1].Origin == nil || listed[1].Origin.Peer != "west" || listed[2].Origin == nil {
		t.Errorf("%+v", listed)
	}
}
