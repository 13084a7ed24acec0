package kubernetes

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Events are made from how Pods change: what docker calls create, start, die, stop and destroy can be read from two
// states of a Pod that follow each other. What happened before a caller listened is read from the times that Pods
// carry, as far as the Pods are still there.

func (a *action) planEvents() (dialect.Plan, error) {
	filter, err := newContainerFilter(neutral.Filter{All: true, Labels: a.op.Filter.Labels, Ancestors: a.op.Filter.Ancestors})
	if err != nil {
		return dialect.Plan{}, err
	}
	return dialect.Plan{Stream: func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
		return neutral.Result{}, a.watchEvents(ctx, filter, session)
	}}, nil
}

var errUntil = errors.New("the wanted time is over")

func (a *action) watchEvents(ctx context.Context, filter *containerFilter, session neutral.Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	seen := map[string]*corev1.Pod{}
	first := true
	tell := func(before, after *corev1.Pod, now time.Time) error {
		for _, event := range a.podEvents(before, after, now) {
			if err := a.tell(event, filter, session); err != nil {
				return err
			}
		}
		return nil
	}
	err := a.followPods(ctx, a.namespace, metav1.ListOptions{}, podVisitor{
		list: func(pods []corev1.Pod) (bool, error) {
			there := map[string]*corev1.Pod{}
			for i := range pods {
				there[string(pods[i].UID)] = &pods[i]
			}
			if first {
				first, seen = false, there
				// Who is told to listen now may count on it that what is done from now on is told.
				if err := session.Accept(); err != nil {
					return true, err
				}
				if err := a.tellPast(pods, filter, session); err != nil || a.op.Until.IsZero() {
					return false, err
				}
				// What is past is told however long ago the wanted time was over; only what is to come ends with it.
				left := time.Until(a.op.Until)
				if left <= 0 {
					return true, nil
				}
				timer := time.AfterFunc(left, func() { cancel(errUntil) })
				context.AfterFunc(ctx, func() { timer.Stop() })
				return false, nil
			}
			// A gap: what changed meanwhile is told now.
			for uid, before := range seen {
				if there[uid] == nil {
					if err := tell(before, nil, time.Now()); err != nil {
						return true, err
					}
				}
			}
			for uid, after := range there {
				if err := tell(seen[uid], after, time.Now()); err != nil {
					return true, err
				}
			}
			seen = there
			return false, nil
		},
		change: func(kind watch.EventType, pod *corev1.Pod) (bool, error) {
			uid := string(pod.UID)
			before := seen[uid]
			if kind == watch.Deleted {
				delete(seen, uid)
				if before != nil {
					if err := tell(before, pod, time.Now()); err != nil {
						return true, err
					}
				}
				return false, tell(pod, nil, time.Now())
			}
			seen[uid] = pod
			return false, tell(before, pod, time.Now())
		},
	})
	if errors.Is(context.Cause(ctx), errUntil) {
		return nil
	}
	return err
}

// tellPast tells what the Pods remember of the time since the caller's beginning.
func (a *action) tellPast(pods []corev1.Pod, filter *containerFilter, session neutral.Session) error {
	if a.op.Since.IsZero() {
		return nil
	}
	var past []podEvent
	for i := range pods {
		past = append(past, a.podEvents(nil, &pods[i], pods[i].CreationTimestamp.Time)...)
	}
	slices.SortStableFunc(past, func(x, y podEvent) int { return x.Time.Compare(y.Time) })
	for _, event := range past {
		if event.Time.Before(a.op.Since) || !a.op.Until.IsZero() && event.Time.After(a.op.Until) {
			continue
		}
		if err := a.tell(event, filter, session); err != nil {
			return err
		}
	}
	return nil
}

// podEvent is an event with the container that it is about.
type podEvent struct {
	neutral.Event
	container neutral.Container
}

// podEvents reads what happened between two states of a Pod. before is nil for a new Pod, after for one that is gone.
func (a *action) podEvents(before, after *corev1.Pod, now time.Time) []podEvent {
	pod := after
	if pod == nil {
		pod = before
	}
	var events []podEvent
	for index := range pod.Spec.Containers {
		c := containerFromPod(a.cluster, pod, index, now)
		name := pod.Spec.Containers[index].Name
		add := func(at time.Time, word string, more map[string]string) {
			if at.IsZero() {
				at = now
			}
			events = append(events, podEvent{container: c, Event: neutral.Event{Time: at, Kind: neutral.KindContainer, Action: word,
				ID: c.ID, Attributes: eventAttributes(&c, more)}})
		}
		if after == nil {
			if pod.Annotations[annotationReplacing] == "" {
				if pod.Annotations[annotationPaused] != "" {
					add(now, "die", map[string]string{"exitCode": strconv.Itoa(exitKilled)})
				}
				add(now, "destroy", nil)
			}
			continue
		}
		if before == nil && pod.Annotations[annotationCreated] == "" { // a successor is the container that was there before
			add(pod.CreationTimestamp.Time, "create", nil)
		}
		known := map[string]containerRun{}
		for _, run := range runsOf(before, name) {
			known[run.id] = run
		}
		for _, run := range runsOf(after, name) {
			was, seen := known[run.id]
			switch {
			case seen:
			case pod.Annotations[annotationUnpaused] != "" && restartCount(pod, name) == 0:
				add(run.start, "unpause", nil)
			default:
				add(run.start, "start", nil)
			}
			if seen && !run.ended {
				switch was, is := frozen(before, name), frozen(after, name); {
				case is && !was:
					add(now, "pause", nil)
				case was && !is:
					add(now, "unpause", nil)
				}
			}
			if seen && run.ended && was.ended && before.Annotations[annotationPaused] != "" && pod.Annotations[annotationPaused] == "" {
				add(now, "die", map[string]string{"exitCode": strconv.Itoa(run.code)})
				add(now, "stop", nil)
			}
			if run.ended && !was.ended && pod.Annotations[annotationPaused] != "" {
				add(run.end, "pause", nil)
			} else if run.ended && !was.ended {
				add(run.end, "die", map[string]string{"exitCode": strconv.Itoa(run.code)})
				if pod.Annotations[annotationStopped] != "" {
					add(run.end, "stop", nil)
				}
			}
		}
	}
	return events
}

func restartCount(pod *corev1.Pod, name string) int32 {
	if status := containerStatus(pod, name); status != nil {
		return status.RestartCount
	}
	return 0
}

// containerRun is one life of a container.
type containerRun struct {
	id         string
	start, end time.Time
	ended      bool
	code       int
}

// runsOf gives the lives that the kubelet still tells of, the last two, in their order. One that never began is
// none.
func runsOf(pod *corev1.Pod, name string) []containerRun {
	if pod == nil {
		return nil
	}
	status := containerStatus(pod, name)
	if status == nil {
		return nil
	}
	var runs []containerRun
	for i, state := range []corev1.ContainerState{status.LastTerminationState, status.State} {
		switch t, r := state.Terminated, state.Running; {
		case t != nil && t.Reason != reasonStartError && t.Reason != reasonCannotRun:
			id := t.ContainerID
			if id == "" && i == 1 {
				id = status.ContainerID // the kubelet lost sight of it
			}
			if id == "" {
				continue // nothing ever ran: the image is missing, and the Pod was ended
			}
			runs = append(runs, containerRun{id: id, start: t.StartedAt.Time, end: t.FinishedAt.Time, ended: true,
				code: int(t.ExitCode)})
		case r != nil:
			runs = append(runs, containerRun{id: status.ContainerID, start: r.StartedAt.Time})
		}
	}
	return runs
}

func eventAttributes(c *neutral.Container, more map[string]string) map[string]string {
	attributes := map[string]string{}
	for key, value := range c.Labels {
		attributes[key] = value
	}
	attributes["image"], attributes["name"] = c.Image, c.Name
	for key, value := range more {
		attributes[key] = value
	}
	return attributes
}

// tell passes an event on that the caller wants and may see.
func (a *action) tell(event podEvent, filter *containerFilter, session neutral.Session) error {
	f := a.op.Filter
	wanted := oneOf(f.Kinds, func(k neutral.Kind) bool { return k == event.Kind }) &&
		oneOf(f.Actions, func(word string) bool { return word == event.Action }) &&
		oneOf(f.Containers, func(ref string) bool {
			ref = strings.TrimPrefix(ref, "/")
			return ref == event.container.Name || strings.HasPrefix(event.ID, ref)
		}) && filter.matches(&event.container)
	if !wanted || !a.shows(&event.container) {
		return nil
	}
	if err := session.Event(event.Event); err != nil {
		return fault.Wrap(fault.Unavailable, err, "an event could not be passed on")
	}
	return nil
}

// shows tells whether the caller may see a container's events; those of others are left out of the stream.
func (a *action) shows(c *neutral.Container) bool { return a.permit(containerObject(c)) == nil }
