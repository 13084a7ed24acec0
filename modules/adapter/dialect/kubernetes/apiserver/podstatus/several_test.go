package podstatus

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	resources "github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/table"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// severalSpec is of two init containers, a sidecar between them, and two that last.
func severalSpec() *corev1.PodSpec {
	always := corev1.ContainerRestartPolicyAlways
	return &corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i1", Image: "a"}, {Name: "side", Image: "a", RestartPolicy: &always}, {Name: "i2", Image: "a"}},
		Containers:     []corev1.Container{{Name: "a", Image: "a"}, {Name: "b", Image: "a"}},
	}
}

// states are those that the words of the tests stand for.
func states() map[string]neutral.State {
	begun, ended := now.Add(-9*time.Minute), now.Add(-5*time.Minute)
	return map[string]neutral.State{
		"new":    {Status: neutral.StatusCreated},
		"broken": {Status: neutral.StatusCreated, Error: "no such program"},
		"runs":   {Status: neutral.StatusRunning, StartedAt: begun},
		"ill":    {Status: neutral.StatusRunning, StartedAt: begun, Health: "unhealthy"},
		"paused": {Status: neutral.StatusPaused, StartedAt: begun},
		"again":  {Status: neutral.StatusRestarting, StartedAt: begun, FinishedAt: ended, ExitCode: 1, RestartCount: 3},
		"done":   {Status: neutral.StatusExited, StartedAt: begun, FinishedAt: ended},
		"given":  {Status: neutral.StatusExited, StartedAt: begun, FinishedAt: ended, ExitCode: 128, Error: "cannot join network of a non running container"},
		"failed": {Status: neutral.StatusExited, StartedAt: begun, FinishedAt: ended, ExitCode: 2},
	}
}

// podOf has members in states by their order; "-" is one that is not made.
func podOf(words string) *neutral.Container {
	holder := &neutral.Container{ID: "h", Name: "web", CreatedAt: created, State: neutral.State{Status: neutral.StatusRunning, StartedAt: created}}
	for i, word := range strings.Fields(words) {
		if word != "-" {
			name := []string{"i1", "side", "i2", "a", "b"}[i]
			holder.Members = append(holder.Members, neutral.Container{ID: name, Name: name, Image: "a", CreatedAt: created, State: states()[word],
				Restart: neutral.RestartPolicy{Mode: neutral.RestartAlways}})
		}
	}
	return holder
}

func TestSeveral(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]struct {
		shown string // READY STATUS RESTARTS
		phase corev1.PodPhase
		start string // then a colon, and who is waited for
	}{
		"- - - - -":                  {"0/3 Init:0/3 0", corev1.PodPending, ":"},
		"new new new new new":        {"0/3 Init:0/3 0", corev1.PodPending, "i1:"},
		"runs new new new new":       {"0/3 Init:0/3 0", corev1.PodPending, ":i1"},
		"again new new new new":      {"0/3 Init:CrashLoopBackOff 3 (5m ago)", corev1.PodPending, ":i1"},
		"failed new new new new":     {"0/3 Init:Error 0", corev1.PodFailed, ":"},
		"broken new new new new":     {"0/3 Init:RunContainerError 0", corev1.PodPending, ":"},
		"done new new new new":       {"0/3 Init:1/3 0", corev1.PodPending, "side:"},
		"done broken new new new":    {"0/3 Init:RunContainerError 0", corev1.PodPending, ":"},
		"done runs new new new":      {"1/3 Init:2/3 0", corev1.PodPending, "i2:"},
		"done runs runs new new":     {"1/3 Init:2/3 0", corev1.PodPending, ":i2"},
		"done runs done new new":     {"1/3 PodInitializing 0", corev1.PodPending, "a b:"},
		"done runs done runs new":    {"2/3 PodInitializing 0", corev1.PodPending, "b:"},
		"done runs done runs broken": {"2/3 RunContainerError 0", corev1.PodPending, ":"},
		"done runs done runs runs":   {"3/3 Running 0", corev1.PodRunning, ":"},
		"done runs done runs ill":    {"2/3 Running 0", corev1.PodRunning, ":"},
		"done runs done runs again":  {"2/3 CrashLoopBackOff 3 (5m ago)", corev1.PodRunning, ":"},
		"done runs done runs done":   {"2/3 NotReady 0", corev1.PodRunning, ":"},
		"done runs done runs failed": {"2/3 Error 0", corev1.PodRunning, ":"},
		"done runs done done done":   {"1/3 Completed 0", corev1.PodSucceeded, ":"},
		"done runs done done failed": {"1/3 Completed 0", corev1.PodFailed, ":"},
		"done runs done given given": {"1/3 Error 0", corev1.PodFailed, "a b:"},
		"done given done runs runs":  {"0/3 Init:Error 0", corev1.PodRunning, "side:"},
		"done runs done runs paused": {"2/3 Running 0", corev1.PodRunning, ":"},
		"done runs done runs -":      {"2/3 PodInitializing 0", corev1.PodPending, ":"},
		"- runs - runs runs":         {"3/3 Running 0", corev1.PodRunning, ":"},
		"new runs new runs runs":     {"0/3 Init:0/3 0", corev1.PodRunning, ":"},
		"- given - given runs":       {"0/3 Init:Error 0", corev1.PodRunning, "side:"},
		"- runs - given runs":        {"2/3 Error 0", corev1.PodRunning, "a:"},
	} {
		spec, holder := severalSpec(), podOf(words)
		status := Several(holder, spec)
		if got := shown(t, spec, status); got != want.shown || status.Phase != want.phase {
			t.Errorf("%s: %s, %s, want %s, %s", words, got, status.Phase, want.shown, want.phase)
		}
		start, wait := Next(holder, spec)
		if got := strings.Join(start, " ") + ":" + wait; got != want.start {
			t.Errorf("%s: next is %s, want %s", words, got, want.start)
		}
		checkSeveral(t, words, spec, &status)
	}
}

func shown(t *testing.T, spec *corev1.PodSpec, status corev1.PodStatus) string {
	t.Helper()
	of, _ := resources.Find("", "v1", "pods")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", CreationTimestamp: metav1.NewTime(created)}, Spec: *spec, Status: status}
	made, err := table.Of(of, []runtime.Object{pod}, metav1.ListMeta{}, metav1.TableOptions{}, now)
	if err != nil {
		t.Fatal(err)
	}
	var cells []string
	for _, cell := range made.Rows[0].Cells[1:4] {
		if text, ok := cell.(string); ok {
			cells = append(cells, text)
		} else {
			cells = append(cells, "0")
		}
	}
	return strings.Join(cells, " ")
}

// checkSeveral holds what every status of several containers has.
func checkSeveral(t *testing.T, name string, spec *corev1.PodSpec, status *corev1.PodStatus) {
	t.Helper()
	if status.PodIP != "" || len(status.ContainerStatuses) != len(spec.Containers) || len(status.InitContainerStatuses) != len(spec.InitContainers) {
		t.Errorf("%s: %+v", name, status)
	}
	ready := map[corev1.PodConditionType]bool{}
	for _, c := range status.Conditions {
		ready[c.Type] = c.Status == corev1.ConditionTrue
		if c.LastTransitionTime.IsZero() {
			t.Errorf("%s: %s has no time", name, c.Type)
		}
	}
	all := ready[corev1.PodInitialized]
	for _, s := range status.ContainerStatuses {
		all = all && s.Ready
		if (s.State.Running != nil) == (s.State.Waiting != nil) && s.State.Terminated == nil {
			t.Errorf("%s: %s is in no state, or two", name, s.Name)
		}
	}
	if ready[corev1.PodReady] && (!all || status.Phase != corev1.PodRunning) || ready[corev1.PodReady] != ready[corev1.ContainersReady] {
		t.Errorf("%s: ready %v, containers %v, phase %s", name, ready[corev1.PodReady], all, status.Phase)
	}
}

// TestNextEnds holds that a Pod begins in its order and comes to an end of beginning, in every way that its containers may
// go, and that nothing is started twice.
func TestNextEnds(t *testing.T) {
	t.Parallel()
	spec := severalSpec()
	order := []string{"i1", "side", "i2", "a", "b"}
	for ways := range 64 {
		holder := podOf("new new new new new")
		started := []string{}
		for step := 0; ; step++ {
			if step > 20 {
				t.Fatalf("way %d does not end: %v", ways, started)
			}
			start, wait := Next(holder, spec)
			if len(start) == 0 && wait == "" {
				break
			}
			for i := range holder.Members {
				m := &holder.Members[i]
				switch {
				case slices.Contains(start, m.ID):
					started = append(started, m.ID)
					m.State = states()[[]string{"runs", "broken"}[ways>>i&1]]
				case m.ID == wait:
					m.State = states()[[]string{"done", "failed"}[ways>>5&1]]
				}
			}
		}
		if !slices.Equal(started, order[:len(started)]) {
			t.Errorf("way %d began %v", ways, started)
		}
	}
}
