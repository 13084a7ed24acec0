package apiserver

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	eventAge   = time.Hour // how long events are told, as with the API itself
	eventCount = 5000      // and how many
)

// happenings are the orchestrator's events of the last time.
type happenings struct {
	mu   sync.Mutex
	all  []neutral.Event
	seen map[string]bool
}

// add takes events in; the same one may come twice.
func (h *happenings) add(e neutral.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen == nil {
		h.seen = map[string]bool{}
	}
	if h.seen[eventID(e)] {
		return
	}
	h.seen[eventID(e)] = true
	h.all = append(h.all, e)
	if over := len(h.all) - eventCount; over > 0 {
		for _, old := range h.all[:over] {
			delete(h.seen, eventID(old))
		}
		h.all = slices.Clone(h.all[over:])
	}
}

func (h *happenings) since(t time.Time) []neutral.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var recent []neutral.Event
	for _, e := range h.all {
		if e.Time.After(t) {
			recent = append(recent, e)
		}
	}
	return recent
}

func eventID(e neutral.Event) string {
	return strconv.FormatInt(e.Time.UnixNano(), 36) + "/" + e.Action + "/" + e.ID
}

// recall asks the orchestrator for what happened before anybody watched.
func (s *Server) recall(ctx context.Context) error {
	now := s.now()
	_, err := s.under.Stream(ctx, neutral.Operation{Action: neutral.EventWatch, Verb: neutral.Watch, Since: now.Add(-eventAge), Until: now,
		Object: neutral.Object{Kind: neutral.KindEvent}}, noting{s})
	return err
}

// eventKind is what happened to containers and services.
type eventKind struct{ *Server }

func (k eventKind) project(w *world) []entry {
	tasks, parts := map[string]*corev1.Pod{}, map[string]string{}
	for _, e := range podKind(k).project(w) {
		if e.native.members == nil {
			tasks[e.native.container] = e.object.(*corev1.Pod)
		}
		for name, id := range e.native.members { // what holds them is none of the Pod's containers
			tasks[id], parts[id] = e.object.(*corev1.Pod), name
		}
	}
	var all []entry
	for _, e := range w.events {
		pod := tasks[e.ID]
		if name := parts[e.ID]; name != "" {
			e.Attributes = maps.Clone(e.Attributes)
			e.Attributes["name"] = name
		}
		reason, kind, message := eventWords(e)
		if reason == "" || pod == nil {
			continue
		}
		o := &corev1.Event{Reason: reason, Message: message, Type: kind, Count: 1}
		placed(o, w, eventResource.Resource, eventID(e), pod.Namespace, pod.Name+"."+strconv.FormatInt(e.Time.UnixNano(), 16), e.Time)
		o.InvolvedObject = corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			FieldPath: fieldPath(pod, parts[e.ID])}
		at := metav1.NewTime(e.Time.Truncate(time.Second))
		o.FirstTimestamp, o.LastTimestamp = at, at
		o.Source = corev1.EventSource{Component: "docker", Host: pod.Spec.NodeName}
		o.ReportingController = "docker"
		all = append(all, entry{object: o})
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.object.GetName(), b.object.GetName()) })
	return all
}

// fieldPath is where a Pod's spec has a container; "" is its only one.
func fieldPath(pod *corev1.Pod, name string) string {
	if name == "" {
		name = pod.Spec.Containers[0].Name
	}
	if slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name }) {
		return "spec.initContainers{" + name + "}"
	}
	return "spec.containers{" + name + "}"
}

// eventWords are the kubelet's words for what happened to a container.
func eventWords(e neutral.Event) (reason, kind, message string) {
	if e.Kind != neutral.KindContainer {
		return "", "", ""
	}
	switch e.Action {
	case "create":
		return "Created", corev1.EventTypeNormal, "Created container " + e.Attributes["name"]
	case "start":
		return "Started", corev1.EventTypeNormal, "Started container " + e.Attributes["name"]
	case "die":
		if code := e.Attributes["exitCode"]; code != "" && code != "0" {
			return "Failed", corev1.EventTypeWarning, "The container ended with exit code " + code
		}
		return "Completed", corev1.EventTypeNormal, "The container ended"
	case "oom":
		return "OOMKilling", corev1.EventTypeWarning, "The container used more memory than it may"
	case "kill":
		return "Killing", corev1.EventTypeNormal, "The container was sent signal " + e.Attributes["signal"]
	case "health_status: unhealthy":
		return "Unhealthy", corev1.EventTypeWarning, "The container's health check fails"
	}
	return "", "", ""
}
