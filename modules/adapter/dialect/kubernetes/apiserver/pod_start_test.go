package apiserver

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// trio is a Pod of an init container, a sidecar and two that last.
func trio() *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "trio", Labels: map[string]string{"app": "trio"}}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "first", Image: "a:1"}, {Name: "side", Image: "a:1", RestartPolicy: &always}},
		Containers:     []corev1.Container{{Name: "web", Image: "a:1"}, {Name: "log", Image: "b:1", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}},
		Volumes:        []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}}
}

func (f *fakeOrchestrator) trioStates() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := ""
	for _, c := range f.containers {
		text += c.Name + ":" + string(c.State.Status)
		for _, m := range c.Members {
			text += " " + m.Name + ":" + string(m.State.Status)
		}
	}
	return text
}

const trioRuns = "trio:running first:exited side:running web:running log:running"

// within waits until the fake is in a state.
func (f *fakeOrchestrator) within(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); f.trioStates() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it is %q, want %q", f.trioStates(), want)
		}
	}
}

// A Pod of several containers begins in its order, and each of its containers is reached by its name.
func TestSeveralContainers(t *testing.T) {
	t.Parallel()
	s := stands(t)
	s.fake.ends = make(chan struct{})
	pods := s.CoreV1().Pods("default")
	made, err := pods.Create(t.Context(), trio(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c := made.Status.ContainerStatuses; len(c) != 2 || c[0].State.Waiting == nil || made.Status.Phase != corev1.PodPending || len(made.Status.InitContainerStatuses) != 2 {
		t.Errorf("%+v", made.Status)
	}
	for request, want := range map[string]string{
		"/log":                "a container name must be specified for pod trio, choose one of: [web log] or one of the init containers: [first side]",
		"/log?container=nope": "container nope is not valid for pod trio",
		"/log?container=web":  "container web in pod trio is waiting to start: PodInitializing",
		"/exec?container=web&command=ls&stdout=true": "container web in pod trio is not running",
	} {
		_, body := s.ask(t, "GET", "/api/v1/namespaces/default/pods/trio"+request, "", "")
		if !strings.Contains(body, want) {
			t.Errorf("%s: %s", request, body)
		}
	}
	if code, body := s.ask(t, "GET", "/api/v1/namespaces/default/pods/trio/log?container=first", "", ""); code != 200 || body != "one\ntwo\n" {
		t.Errorf("log %d %s", code, body)
	}
	if _, err := pods.Create(t.Context(), trio(), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("once more: %v", err)
	}
	s.fake.within(t, "trio:running first:running side:created web:created log:created")
	close(s.fake.ends)
	s.fake.within(t, trioRuns)
	list, err := pods.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Status.Phase != corev1.PodRunning {
		t.Fatalf("%+v, %v", list, err)
	}
	events, err := s.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if !strings.Contains(e.InvolvedObject.FieldPath, "ontainers{") || strings.Contains(e.Message, "trio") {
			t.Errorf("event %s of %s", e.Message, e.InvolvedObject.FieldPath)
		}
	}
	if err := pods.Delete(t.Context(), "trio", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := s.fake.trioStates(); left != "" {
		t.Errorf("%s is left", left)
	}
}

// TestPodIsBegunAgain kills the gateway after each of its writes. Another one ends in a Pod that runs, or there is none.
func TestPodIsBegunAgain(t *testing.T) {
	t.Parallel()
	for kill := 1; ; kill++ {
		fake := newFakeOrchestrator()
		fake.kill = kill
		first := New(Config{Cluster: "west", Orchestrator: fake})
		o := trio()
		o.Namespace = "default"
		k := podKind{first}
		k.complete(o, nil)
		_, err := k.create(t.Context(), deed{next: o})
		if err == nil {
			fake.waitOrBroken(t)
		}
		first.Close()
		fake.mu.Lock()
		killed := fake.broken != nil
		fake.kill, fake.broken = 0, nil
		fake.mu.Unlock()
		second := New(Config{Cluster: "west", Orchestrator: fake, Log: slog.New(slog.DiscardHandler)})
		second.Resume()
		if kill == 1 { // nothing was made
			if err := second.refresh(t.Context()); err != nil || fake.trioStates() != "" {
				t.Errorf("killed before anything: %s, %v", fake.trioStates(), err)
			}
		} else {
			fake.within(t, trioRuns)
		}
		second.Close()
		if !killed {
			break
		}
	}
}

// A document that others wrote into a container's labels makes and starts nothing.
func TestForgedPodIsNotBegun(t *testing.T) {
	t.Parallel()
	fake := newFakeOrchestrator()
	o := trio()
	o.Namespace = "default"
	podKind{}.complete(o, nil)
	honest := New(Config{Cluster: "west", Orchestrator: newFakeOrchestrator(), Key: []byte("key")})
	defer honest.Close()
	for _, vouched := range []bool{false, true} {
		origin, err := originOf(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		if vouched { // for a Pod of another name
			if err := honest.vouch(vouchedPod, origin, "default", "other"); err != nil {
				t.Fatal(err)
			}
		}
		fake.containers = []neutral.Container{{ID: "h1", Name: "trio", Namespace: "default", Origin: origin, State: neutral.State{Status: neutral.StatusRunning}}}
		s := New(Config{Cluster: "west", Orchestrator: fake, Key: []byte("key")})
		if err := s.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.starting.mu.Lock()
		busy := len(s.starting.busy)
		s.starting.mu.Unlock()
		s.Close()
		if busy > 0 || fake.trioStates() != "trio:running" {
			t.Errorf("vouched for another %v: %s", vouched, fake.trioStates())
		}
	}
}

// waitOrBroken waits until the Pod runs or the fake is broken.
func (f *fakeOrchestrator) waitOrBroken(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		broken := f.broken != nil
		f.mu.Unlock()
		if broken || f.trioStates() == trioRuns {
			return
		}
	}
	t.Fatal("nothing happens")
}

// What its users stopped, and what is being removed, is not begun anew.
func TestStoppedStays(t *testing.T) {
	t.Parallel()
	spec := trio().Spec
	for name, c := range map[string]neutral.Container{
		"its holder ended":   {State: neutral.State{Status: neutral.StatusExited}},
		"its holder is gone": {State: neutral.State{Status: neutral.StatusDead}},
		"all have ended": {State: neutral.State{Status: neutral.StatusRunning}, Members: func() []neutral.Container {
			var all []neutral.Container
			for _, of := range slices.Concat(spec.InitContainers, spec.Containers) {
				all = append(all, neutral.Container{Name: of.Name, State: neutral.State{Status: neutral.StatusExited}})
			}
			return all
		}()},
	} {
		if unfinished(&c, &spec) {
			t.Errorf("%s: it is begun anew", name)
		}
	}
}

// A Pod of one container that was made and never started is started by the next gateway; one that docker made is not.
func TestLonePodIsBegunAgain(t *testing.T) {
	t.Parallel()
	fake := newFakeOrchestrator()
	fake.kill = 1 // when it is to be started
	first := New(Config{Cluster: "west", Orchestrator: fake})
	o := pod("alone")
	o.Namespace = "default"
	k := podKind{first}
	k.complete(o, nil)
	if losses, err := k.create(t.Context(), deed{next: o}); err == nil {
		t.Errorf("it was not killed: %v", losses)
	}
	first.Close()
	fake.mu.Lock()
	fake.kill, fake.broken = 0, nil
	if len(fake.containers) != 1 || fake.containers[0].State.Status != neutral.StatusCreated {
		t.Fatalf("killed elsewhere: %+v", fake.containers)
	}
	fake.containers = append(fake.containers, neutral.Container{ID: "d", Name: "dockers", Namespace: "default", State: neutral.State{Status: neutral.StatusCreated}})
	fake.mu.Unlock()
	second := New(Config{Cluster: "west", Orchestrator: fake})
	defer second.Close()
	second.Resume()
	eventually(t, "the Pod runs", func() bool {
		fake.mu.Lock()
		defer fake.mu.Unlock()
		return fake.containers[0].State.Status == neutral.StatusRunning && fake.containers[1].State.Status == neutral.StatusCreated
	})
}

// What was removed from a Pod that runs is not made again, and what goes before the others does not run twice.
func TestRemovedStaysRemoved(t *testing.T) {
	t.Parallel()
	spec := trio().Spec
	holder := neutral.Container{State: neutral.State{Status: neutral.StatusRunning}}
	for _, name := range []string{"side", "web", "log"} {
		holder.Members = append(holder.Members, neutral.Container{Name: name, State: neutral.State{Status: neutral.StatusRunning}})
	}
	if unfinished(&holder, &spec) {
		t.Error("an init container that was removed is made again")
	}
	holder.State.Status = neutral.StatusCreated
	if !unfinished(&holder, &spec) {
		t.Error("a Pod whose holder has not begun is not finished")
	}
}

// A Pod that somebody else has started meanwhile is not removed for that.
func TestSomebodyElseStarts(t *testing.T) {
	t.Parallel()
	for _, o := range []*corev1.Pod{pod("alone"), trio()} {
		s := stands(t)
		s.fake.faster = true
		if _, err := s.CoreV1().Pods("default").Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Errorf("%s: %v", o.Name, err)
		}
		eventually(t, o.Name+" runs", func() bool {
			states := s.fake.trioStates()
			return states == trioRuns || states == "alone:running"
		})
	}
}

// A document that this gateway wrote for one peer is none of another's, and none of a container that is not what it says.
func TestVouchedForOthersIsNotBegun(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*neutral.Container){
		"":                func(*neutral.Container) {},
		"another peer":    func(c *neutral.Container) { c.Origin.Peer = "north" },
		"another name":    func(c *neutral.Container) { c.Name = "other" },
		"more privileges": func(c *neutral.Container) { c.Security.Privileged = true },
	} {
		for _, o := range []*corev1.Pod{pod("trio"), trio()} {
			fake := newFakeOrchestrator()
			s := New(Config{Cluster: "west", Orchestrator: fake, Key: []byte("key")})
			o.Namespace = "default"
			k := podKind{s}
			k.complete(o, nil)
			made, _, err := k.translated(o)
			if err != nil {
				t.Fatal(err)
			}
			made.Origin = must(originOf(o, nil))(t)
			made.Origin.Peer = "south"
			if err := s.vouch(vouchedPod, made.Origin, "default", "trio"); err != nil {
				t.Fatal(err)
			}
			made.ID, made.State, made.Members = "h1", neutral.State{Status: neutral.StatusCreated}, nil
			change(made)
			fake.containers = []neutral.Container{*made}
			if err := s.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.starting.mu.Lock()
			busy := len(s.starting.busy) > 0
			s.starting.mu.Unlock()
			begins := busy || fake.trioStates() != made.Name+":created"
			s.Close()
			if begins != (name == "") {
				t.Errorf("%s: %d containers, it begins: %v", name, len(o.Spec.Containers), begins)
			}
		}
	}
}

// A Pod that could not go on is tried again after a while, also when nobody asks.
func TestPodIsTriedAgain(t *testing.T) {
	t.Parallel()
	fake := newFakeOrchestrator()
	fake.kill = 3
	first := New(Config{Cluster: "west", Orchestrator: fake})
	o := trio()
	o.Namespace = "default"
	k := podKind{first}
	k.complete(o, nil)
	if losses, err := k.create(t.Context(), deed{next: o}); err == nil {
		t.Errorf("it was not killed: %v", losses)
	}
	first.Close()
	fake.mu.Lock()
	fake.kill, fake.broken = 1, nil // the next write fails as well
	fake.mu.Unlock()
	second := New(Config{Cluster: "west", Orchestrator: fake})
	second.starting.again = 10 * time.Millisecond
	defer second.Close()
	second.Resume()
	eventually(t, "it fails once more", func() bool {
		fake.mu.Lock()
		defer fake.mu.Unlock()
		return fake.broken != nil
	})
	fake.mu.Lock()
	fake.broken = nil
	fake.mu.Unlock()
	fake.within(t, trioRuns)
}

// The deletion of a Pod whose init container runs starts nothing more of it.
func TestDeletedWhileItBegins(t *testing.T) {
	t.Parallel()
	s := stands(t)
	s.fake.ends = make(chan struct{})
	s.fake.held = make(chan struct{})
	letGo := sync.OnceFunc(func() { close(s.fake.held) })
	t.Cleanup(letGo)
	if _, err := s.CoreV1().Pods("default").Create(t.Context(), trio(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.fake.within(t, "trio:running first:running side:created web:created log:created")
	eventually(t, "it waits for the init container", func() bool { return s.fake.waiting.Load() == 1 })
	deleted := make(chan error, 1)
	go func() { deleted <- s.CoreV1().Pods("default").Delete(t.Context(), "trio", metav1.DeleteOptions{}) }()
	eventually(t, "nobody waits for it any more", func() bool { return s.fake.waiting.Load() == 0 })
	close(s.fake.ends)
	if err := s.api.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if states := s.fake.trioStates(); !strings.HasSuffix(states, " side:created web:created log:created") {
		t.Error(states)
	}
	letGo()
	if err := <-deleted; err != nil || s.fake.trioStates() != "" {
		t.Errorf("%v, %s is left", err, s.fake.trioStates())
	}
}
