package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// serveSubresource answers a request for a part of an object, or for something to be done with it.
func (s *Server) serveSubresource(w http.ResponseWriter, c *call) error {
	switch c.subresource {
	case "scale":
		return s.serveScale(w, c)
	case "status":
		return s.get(w, c)
	}
	e, err := s.find(c)
	if err != nil {
		return err
	}
	pod, ok := e.object.(*corev1.Pod)
	if !ok {
		return unknownPath(c.Request)
	}
	switch c.subresource {
	case "log":
		return s.serveLog(w, c, e, pod)
	case "exec":
		return s.serveExec(w, c, e, pod)
	case "attach":
		return s.serveAttach(w, c, e, pod)
	case "portforward":
		return s.servePortForward(w, c, e, pod)
	}
	return unknownPath(c.Request)
}

// chosen is the container of a Pod that a request names, or its only one.
type chosen struct {
	name   string
	id     string // "" while it is not made
	status *corev1.ContainerStatus
}

// choose finds it, in the API's words where there is none or the request does not say which.
func choose(c *call, e *entry, pod *corev1.Pod) (chosen, error) {
	name := c.URL.Query().Get("container")
	spec := &pod.Spec
	if name == "" {
		if len(spec.Containers) > 1 {
			text := "a container name must be specified for pod " + pod.Name + ", choose one of: " + names(spec.Containers)
			if len(spec.InitContainers) > 0 {
				text += " or one of the init containers: " + names(spec.InitContainers)
			}
			return chosen{}, apierrors.NewBadRequest(text)
		}
		name = spec.Containers[0].Name
	}
	called := func(of corev1.Container) bool { return of.Name == name }
	if !slices.ContainsFunc(spec.Containers, called) && !slices.ContainsFunc(spec.InitContainers, called) {
		return chosen{}, apierrors.NewBadRequest("container " + name + " is not valid for pod " + pod.Name)
	}
	found := chosen{name: name, id: e.native.container}
	if e.native.members != nil {
		found.id = e.native.members[name]
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				found.status = &list[i]
			}
		}
	}
	return found, nil
}

func names(containers []corev1.Container) string {
	all := make([]string, len(containers))
	for i := range containers {
		all[i] = containers[i].Name
	}
	return fmt.Sprint(all)
}

// running is the container that a process is to be started in.
func running(c *call, e *entry, pod *corev1.Pod) (chosen, error) {
	found, err := choose(c, e, pod)
	if err != nil {
		return found, err
	}
	if found.id == "" || e.native.members == nil && pod.Status.Phase != corev1.PodRunning {
		return found, apierrors.NewBadRequest("container " + found.name + " in pod " + pod.Name + " is not running; current phase is " + string(pod.Status.Phase))
	}
	if e.native.members != nil && (found.status == nil || found.status.State.Running == nil) {
		return found, apierrors.NewBadRequest("container " + found.name + " in pod " + pod.Name + " is not running")
	}
	return found, nil
}

func about(pod *corev1.Pod) neutral.Object {
	return neutral.Object{Kind: neutral.KindContainer, Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels}
}

// runs gives what carries out an operation with a session.
func (s *Server) runs(op neutral.Operation) func(context.Context, neutral.Session) (neutral.Result, error) {
	return func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
		return s.under.Stream(ctx, op, session)
	}
}
