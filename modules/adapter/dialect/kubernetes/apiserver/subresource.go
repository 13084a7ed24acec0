package apiserver

import (
	"context"
	"net/http"

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

// running refuses a container that a process cannot be started in, or that is not the Pod's.
func running(c *call, e *entry, pod *corev1.Pod) error {
	if err := ofPod(c, pod); err != nil {
		return err
	}
	if e.native.container == "" || pod.Status.Phase != corev1.PodRunning {
		return apierrors.NewBadRequest("container " + pod.Spec.Containers[0].Name + " in pod " + pod.Name + " is not running; current phase is " + string(pod.Status.Phase))
	}
	return nil
}

// ofPod refuses the name of a container that is not the Pod's.
func ofPod(c *call, pod *corev1.Pod) error {
	name := c.URL.Query().Get("container")
	if name != "" && name != pod.Spec.Containers[0].Name {
		return apierrors.NewBadRequest("container " + name + " is not valid for pod " + pod.Name)
	}
	return nil
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
