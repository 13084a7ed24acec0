package podstatus

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	reasonInitializing   = "PodInitializing"
	reasonNotInitialized = "ContainersNotInitialized"
)

// Sidecar tells whether an init container goes on beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Several is the status of a Pod of several containers, whose members are known by their names in the Pod. spec is the
// Pod's, with its defaults.
func Several(holder *neutral.Container, spec *corev1.PodSpec) corev1.PodStatus {
	members := map[string]*neutral.Container{}
	for i := range holder.Members {
		members[holder.Members[i].Name] = &holder.Members[i]
	}
	status := corev1.PodStatus{QOSClass: QOSClass(spec)}
	start := metav1.NewTime(holder.CreatedAt)
	status.StartTime = &start
	over := &subject{spec: spec, container: holder, created: holder.CreatedAt, since: holder.CreatedAt}
	tally := tally{spec: spec}
	waits := ""
	if len(spec.InitContainers) > 0 { // as a kubelet has it, also of the first of them
		waits = reasonInitializing
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		m := members[c.Name]
		if m == nil && !Sidecar(c) && begun(holder, spec) { // it was removed since
			m = &neutral.Container{Image: c.Image, State: neutral.State{Status: neutral.StatusExited, StartedAt: holder.CreatedAt, FinishedAt: holder.CreatedAt}}
		}
		s := over.part(c, m, waits)
		tally.initial(c, &s)
		status.InitContainerStatuses = append(status.InitContainerStatuses, s)
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		s := over.part(c, members[c.Name], waits)
		status.ContainerStatuses = append(status.ContainerStatuses, s)
		tally.add(&s)
	}
	status.Phase = tally.phase()
	initialized := over.condition(corev1.PodInitialized, tally.initialized(), holder.CreatedAt)
	if !tally.initialized() {
		initialized.Reason, initialized.Message = reasonNotInitialized, fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(tally.incomplete, " "))
	}
	going := status.Phase != corev1.PodSucceeded && status.Phase != corev1.PodFailed
	ready := over.condition(corev1.PodReady, len(tally.unready) == 0 && tally.initialized() && going, over.since)
	switch {
	case status.Phase == corev1.PodSucceeded:
		initialized.Reason, ready.Reason = reasonPodCompleted, reasonPodCompleted
	case status.Phase == corev1.PodFailed:
		ready.Reason = reasonPodFailed
	case ready.Status != corev1.ConditionTrue:
		ready.Reason, ready.Message = reasonNotReady, fmt.Sprintf("containers with unready status: [%s]", strings.Join(tally.unready, " "))
	}
	containers := ready
	containers.Type = corev1.ContainersReady
	status.Conditions = []corev1.PodCondition{initialized, ready, containers, over.condition(corev1.PodScheduled, true, holder.CreatedAt)}
	return status
}

// part is the status of one container. c is nil while it is not made; waits is why it has not begun.
func (s *subject) part(of *corev1.Container, c *neutral.Container, waits string) corev1.ContainerStatus {
	if c == nil {
		c = &neutral.Container{Image: of.Image}
	}
	alone := s.spec.DeepCopy()
	alone.InitContainers, alone.Containers = nil, []corev1.Container{*of}
	if c.State.Status == "" || c.State.Status == neutral.StatusCreated {
		state := c.State
		if waits != "" && state.Error == "" {
			state.Reason = waits
		}
		waiting := *c
		waiting.State = state
		c = &waiting
	}
	whole := Container(c, alone)
	for _, condition := range whole.Conditions { // the Pod is as it is since the last change of any of them
		if condition.Type == corev1.PodReady && condition.LastTransitionTime.After(s.since) {
			s.since = condition.LastTransitionTime.Time
		}
	}
	return whole.ContainerStatuses[0]
}

// tally counts containers as a kubelet does for the phase of their Pod.
type tally struct {
	spec                                 *corev1.PodSpec
	initFailed                           bool
	waiting, running, succeeded, stopped int
	incomplete, unready                  []string
}

func (t *tally) initial(c *corev1.Container, s *corev1.ContainerStatus) {
	if Sidecar(c) {
		if s.State.Running == nil {
			t.incomplete = append(t.incomplete, s.Name)
		}
		if !s.Ready {
			t.unready = append(t.unready, s.Name)
		}
		return
	}
	switch end := s.State.Terminated; {
	case end == nil:
		t.incomplete = append(t.incomplete, s.Name)
	case end.ExitCode != 0:
		t.incomplete = append(t.incomplete, s.Name)
		t.initFailed = true
	}
	s.Ready = s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
}

func (t *tally) initialized() bool { return len(t.incomplete) == 0 }

func (t *tally) add(s *corev1.ContainerStatus) {
	if !s.Ready {
		t.unready = append(t.unready, s.Name)
	}
	switch {
	case s.State.Running != nil:
		t.running++
	case s.State.Terminated != nil:
		t.stopped++
		if s.State.Terminated.ExitCode == 0 {
			t.succeeded++
		}
	case s.LastTerminationState.Terminated != nil: // it is about to start again
		t.running++
	default:
		t.waiting++
	}
}

func (t *tally) phase() corev1.PodPhase {
	switch {
	case t.initFailed:
		return corev1.PodFailed
	case !t.initialized() && t.running+t.stopped == 0, t.waiting > 0:
		return corev1.PodPending
	case t.running > 0:
		return corev1.PodRunning
	case t.succeeded == t.stopped:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// Next says what is to be started of a Pod of several containers, by its members' ids, and for which one to wait first.
// Nothing at all says that nothing is left to do: all has begun, or never will.
//
// What has begun once is the engine's to start again, and what its users stopped stays so: what has never run is started, in
// the order of the Pod, each init container once the one before has ended well. An engine that begins itself starts
// containers in any order, and gives those up whose holder does not run yet; they are started too. Once one of the Pod's
// own containers has begun, what had to end before has had its turn, also where it was removed since.
func Next(holder *neutral.Container, spec *corev1.PodSpec) (start []string, wait string) {
	find := func(name string) *neutral.Container {
		i := slices.IndexFunc(holder.Members, func(m neutral.Container) bool { return m.Name == name })
		if i < 0 {
			return nil
		}
		return &holder.Members[i]
	}
	begun := begun(holder, spec)
	for i := range spec.InitContainers {
		m := find(spec.InitContainers[i].Name)
		switch {
		case begun && (m == nil || !Sidecar(&spec.InitContainers[i])):
		case m == nil:
			return nil, ""
		case m.State.Status == neutral.StatusCreated && m.State.Error == "":
			return []string{m.ID}, ""
		case givenUp(m):
			return []string{m.ID}, ""
		case Sidecar(&spec.InitContainers[i]):
			if m.State.Status == neutral.StatusCreated {
				return nil, ""
			}
		case m.State.Status == neutral.StatusExited && m.State.ExitCode == 0:
		case m.State.Status == neutral.StatusRunning, m.State.Status == neutral.StatusRestarting, m.State.Status == neutral.StatusPaused:
			return nil, m.ID
		default:
			return nil, ""
		}
	}
	for i := range spec.Containers {
		if m := find(spec.Containers[i].Name); m != nil && (m.State.Status == neutral.StatusCreated && m.State.Error == "" || givenUp(m)) {
			start = append(start, m.ID)
		}
	}
	return start, ""
}

// begun tells whether any of a Pod's own containers has ever begun, so that all before them had ended well.
func begun(holder *neutral.Container, spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(holder.Members, func(m neutral.Container) bool {
		return m.State.Status != "" && m.State.Status != neutral.StatusCreated &&
			slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == m.Name })
	})
}

// givenUp tells whether an engine tried to start a container again, as it is to, and could not.
func givenUp(m *neutral.Container) bool {
	return m.State.Status == neutral.StatusExited && m.State.Error != "" && m.Restart.Mode != "" && m.Restart.Mode != neutral.RestartNo
}
