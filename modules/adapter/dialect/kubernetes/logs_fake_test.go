package kubernetes

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeAPI is an API server with one Pod and its log, on a real connection that can break.
type fakeAPI struct {
	mu     sync.Mutex
	pod    *corev1.Pod
	deaf   bool // lists fail
	log    func(w http.ResponseWriter, r *http.Request)
	change chan struct{} // closed at the next change
}

func (f *fakeAPI) set(pod *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pod = pod
	close(f.change)
	f.change = make(chan struct{})
}

func (f *fakeAPI) now() (*corev1.Pod, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pod, f.change
}

func (f *fakeAPI) isDeaf() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deaf
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const pods = "/api/v1/namespaces/default/pods"
	w.Header().Set("Content-Type", mediaJSON)
	pod, changed := f.now()
	switch {
	case r.URL.Path == pods+"/web/log":
		w.Header().Set("Content-Type", "text/plain")
		f.log(w, r)
	case r.URL.Path == pods+"/web":
		_ = json.NewEncoder(w).Encode(pod)
	case r.URL.Path == pods && r.URL.Query().Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
			pod, _ = f.now()
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": pod})
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case <-r.Context().Done():
		}
	case r.URL.Path == pods && f.isDeaf():
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == pods:
		_ = json.NewEncoder(w).Encode(&corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{*pod}})
	default:
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(&metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
	}
}

// serve starts a fake API with a Pod in a state.
func (f *fakeAPI) serve(t *testing.T, state *corev1.ContainerState) *Cluster {
	t.Helper()
	f.change = make(chan struct{})
	f.pod = f.webPod(t, state)
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return connect(t, writeKubeconfig(t, clientcmdapi.Cluster{Server: server.URL}, clientcmdapi.AuthInfo{}))
}

func (f *fakeAPI) webPod(t *testing.T, state *corev1.ContainerState) *corev1.Pod {
	p := madePod(t, neutral.Container{Name: "web", Image: "busybox"}, 0, state)
	p.Namespace, p.TypeMeta = "default", metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return &p
}

func followLog(t *testing.T, c *Cluster, action neutral.Action) (*recorder, error) {
	t.Helper()
	op := neutral.Operation{Action: action, Ref: "web", Logs: &neutral.LogOptions{Follow: true, Stdout: true, Stderr: true, Tail: -1},
		Attach: &neutral.AttachOptions{Stdout: true, Stderr: true, Stream: true, Logs: true}}
	plan, err := c.Plan(op, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := &recorder{}
	_, err = plan.Stream(ctx, r)
	return r, err
}

// TestLogEnds holds that a log that is followed ends well when the container has ended, which the API says later.
func TestLogEnds(t *testing.T) {
	t.Parallel()
	for _, action := range []neutral.Action{neutral.ContainerLogs, neutral.ContainerAttach} {
		f := &fakeAPI{}
		c := f.serve(t, running())
		f.log = func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(logText("one", "two")))
			time.AfterFunc(100*time.Millisecond, func() {
				ended := exited(0)
				ended.Terminated.ContainerID = "containerd://web"
				f.set(f.webPod(t, ended))
			})
		}
		r, err := followLog(t, c, action)
		if err != nil || r.text() != "one\ntwo\n" || r.accepted == 0 {
			t.Errorf("%s: %q, %v", action, r.text(), err)
		}
		if withTime := !r.chunks[0].Time.IsZero(); withTime != (action == neutral.ContainerLogs) {
			t.Errorf("%s: the lines' times: %v", action, withTime)
		}
	}
}

// TestLogBreaks holds that a log that breaks while its container runs never ends silently.
func TestLogBreaks(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{}
	c := f.serve(t, running())
	c.endDelay = 2 * time.Second
	f.log = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(logText("one")))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	r, err := followLog(t, c, neutral.ContainerLogs)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Of(err).Message, "broke while the container runs") || r.text() != "one\n" {
		t.Errorf("%q, %v", r.text(), err)
	}
}

// TestLogEndsLate holds that an end which a watch does not tell of in time is looked for before a log counts as broken,
// and that an API which does not answer meanwhile says nothing of the container.
func TestLogEndsLate(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{}
	c := f.serve(t, running())
	c.endDelay = 3 * time.Second
	f.log = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(logText("one")))
		ended := exited(0)
		ended.Terminated.ContainerID = "containerd://web"
		f.mu.Lock()
		f.pod, f.deaf = f.webPod(t, ended), true
		f.mu.Unlock()
	}
	r, err := followLog(t, c, neutral.ContainerLogs)
	if err != nil || r.text() != "one\n" {
		t.Errorf("%q, %v", r.text(), err)
	}
}

// TestLogWaits holds that what follows the log of a container that is not started waits for its start.
func TestLogWaits(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{}
	c := f.serve(t, nil)
	f.log = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(logText("late"))) }
	time.AfterFunc(200*time.Millisecond, func() { f.set(f.webPod(t, exited(0))) })
	if r, err := followLog(t, c, neutral.ContainerLogs); err != nil || r.text() != "late\n" {
		t.Errorf("%q, %v", r.text(), err)
	}
	f.set(f.webPod(t, nil))
	plan, err := c.Plan(neutral.Operation{Action: neutral.ContainerLogs, Ref: "web"}, allowAll)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	if _, err := plan.Stream(t.Context(), r); err != nil || r.accepted == 0 || len(r.chunks) != 0 {
		t.Errorf("the log of a container that is not started: %q, %v", r.text(), err)
	}
}
