package kubernetes

import (
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestPodEvents(t *testing.T) {
	t.Parallel()
	a := &action{Cluster: plainCluster(), namespace: "team", guard: allowAll}
	container := neutral.Container{Name: "web", Image: "busybox", Labels: map[string]string{"app": "web"}}
	pod := func(state, last *corev1.ContainerState, annotation string) *corev1.Pod {
		p := madePod(t, container, 0, state)
		if last != nil {
			p.Status.ContainerStatuses[0].LastTerminationState = *last
		}
		if annotation != "" {
			p.Annotations[annotation] = "now"
		}
		return &p
	}
	again := exited(2)
	again.Terminated.ContainerID = "containerd://web"
	next := func(p *corev1.Pod) *corev1.Pod {
		p.Status.ContainerStatuses[0].ContainerID = "containerd://next"
		return p
	}
	freeze := func(p *corev1.Pod) *corev1.Pod {
		status := p.Status.ContainerStatuses[0]
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: freezer.Condition, Message: freezer.Report{
			status.Name: {Wish: "w", Instance: status.ContainerID, State: freezer.Frozen}}.String()})
		return p
	}
	startError := exited(128)
	startError.Terminated.Reason = reasonStartError
	missing := pod(&corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: reasonUnknownEnd}}, nil, "")
	missing.Status.ContainerStatuses[0].ContainerID = ""
	lost := pod(&corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: reasonUnknownEnd}}, nil, "")
	for name, c := range map[string]struct {
		before, after *corev1.Pod
		want          string
	}{
		"no image":           {pod(nil, nil, ""), missing, ""},
		"lost sight of":      {pod(running(), nil, ""), lost, "die:137"},
		"created":            {nil, pod(nil, nil, ""), "create"},
		"nothing":            {pod(nil, nil, ""), pod(nil, nil, ""), ""},
		"started":            {pod(nil, nil, ""), pod(running(), nil, ""), "start"},
		"seen late":          {nil, pod(running(), nil, ""), "create start"},
		"died":               {pod(running(), nil, ""), pod(again, nil, ""), "die:2"},
		"stopped":            {pod(running(), nil, ""), pod(again, nil, annotationStopped), "die:2 stop"},
		"paused":             {pod(running(), nil, ""), pod(again, nil, annotationPaused), "pause"},
		"paused, stopped":    {pod(again, nil, annotationPaused), pod(again, nil, annotationStopped), "die:2 stop"},
		"paused, removed":    {pod(again, nil, annotationPaused), nil, "die:137 destroy"},
		"unpaused":           {pod(nil, nil, annotationUnpaused), pod(running(), nil, annotationUnpaused), "unpause"},
		"unpaused, died":     {pod(running(), nil, annotationUnpaused), pod(again, nil, annotationUnpaused), "die:2"},
		"a life unseen":      {pod(nil, nil, ""), pod(exited(4), nil, ""), "start die:4"},
		"restarted":          {pod(running(), nil, ""), next(pod(running(), again, "")), "die:2 start"},
		"restarted, seen":    {pod(again, nil, ""), next(pod(running(), again, "")), "start"},
		"never began":        {pod(nil, nil, ""), pod(startError, nil, ""), ""},
		"frozen":             {pod(running(), nil, ""), freeze(pod(running(), nil, "")), "pause"},
		"thawed":             {freeze(pod(running(), nil, "")), pod(running(), nil, ""), "unpause"},
		"frozen all along":   {freeze(pod(running(), nil, "")), freeze(pod(running(), nil, "")), ""},
		"another was frozen": {pod(running(), nil, ""), next(freeze(pod(running(), nil, ""))), "start"},
		"frozen, died":       {freeze(pod(running(), nil, "")), freeze(pod(again, nil, "")), "die:2"},
		"gone":               {pod(running(), nil, ""), nil, "destroy"},
		"come again":         {nil, pod(nil, nil, annotationCreated), ""},
		"gone to come again": {pod(exited(1), nil, annotationReplacing), nil, ""},
	} {
		var got []string
		for _, event := range a.podEvents(c.before, c.after, goldenNow) {
			word := event.Action
			if code := event.Attributes["exitCode"]; code != "" {
				word += ":" + code
			}
			if event.Attributes["name"] != "web" || event.Attributes["image"] != "busybox" || event.Attributes["app"] != "web" || event.Time.IsZero() || len(event.ID) != 64 {
				t.Errorf("%s: %+v", name, event.Event)
			}
			got = append(got, word)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}

// recorder is a session that keeps what it is told.
type recorder struct {
	accepted int
	events   []neutral.Event
	chunks   []neutral.Chunk
	lines    []string
}

func (r *recorder) Accept() error                 { r.accepted++; return nil }
func (r *recorder) Event(e neutral.Event) error   { r.events = append(r.events, e); return nil }
func (r *recorder) Progress(_, line string) error { r.lines = append(r.lines, line); return nil }
func (r *recorder) Stdin() io.Reader              { return nil }
func (r *recorder) Resizes() <-chan neutral.Size  { return nil }
func (r *recorder) Output(chunk neutral.Chunk) error {
	chunk.Data = append([]byte(nil), chunk.Data...)
	r.chunks = append(r.chunks, chunk)
	return nil
}

func (r *recorder) text() string {
	var b strings.Builder
	for _, chunk := range r.chunks {
		b.Write(chunk.Data)
	}
	return b.String()
}

func TestEventsOfThePast(t *testing.T) {
	t.Parallel()
	old := madePod(t, neutral.Container{Name: "old", Image: "busybox"}, -time.Hour, exited(3))
	old.Status.ContainerStatuses[0].State.Terminated.StartedAt = metav1.NewTime(logStart.Add(-time.Hour))
	fresh := madePod(t, neutral.Container{Name: "fresh", Image: "nginx"}, time.Minute, nil)
	for name, c := range map[string]struct {
		op   neutral.Operation
		want string
	}{
		"since":      {neutral.Operation{Since: logStart}, "old:die fresh:create"},
		"all":        {neutral.Operation{Since: logStart.Add(-2 * time.Hour)}, "old:create old:start old:die fresh:create"},
		"by name":    {neutral.Operation{Since: logStart, Filter: neutral.Filter{Containers: []string{"fresh"}}}, "fresh:create"},
		"by word":    {neutral.Operation{Since: logStart, Filter: neutral.Filter{Actions: []string{"die"}}}, "old:die"},
		"by image":   {neutral.Operation{Since: logStart, Filter: neutral.Filter{Ancestors: []string{"nginx"}}}, "fresh:create"},
		"other kind": {neutral.Operation{Since: logStart, Filter: neutral.Filter{Kinds: []neutral.Kind{neutral.KindVolume}}}, ""},
		"not asked":  {neutral.Operation{}, ""},
	} {
		a := &action{Cluster: plainCluster(), namespace: "team", guard: allowAll, op: c.op}
		filter, err := newContainerFilter(neutral.Filter{All: true, Ancestors: c.op.Filter.Ancestors})
		if err != nil {
			t.Fatal(err)
		}
		r := &recorder{}
		if err := a.tellPast([]corev1.Pod{fresh, old}, filter, r); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, event := range r.events {
			got = append(got, event.Attributes["name"]+":"+event.Action)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}
