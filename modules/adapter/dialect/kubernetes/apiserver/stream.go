package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podstream"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// serveLog gives what a container has written.
func (s *Server) serveLog(w http.ResponseWriter, c *call, e *entry, pod *corev1.Pod) error {
	asked, err := podstream.ParseLog(c.URL.Query(), s.now())
	if err != nil {
		return err
	}
	if err := ofPod(c, pod); err != nil {
		return err
	}
	name := pod.Spec.Containers[0].Name
	if asked.Previous {
		return apierrors.NewBadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", name, pod.Name))
	}
	if e.native.container == "" {
		return apierrors.NewBadRequest("container " + name + " in pod " + pod.Name + " is waiting to start: " + waitingReason(pod))
	}
	op := neutral.Operation{Action: neutral.ContainerLogs, Verb: neutral.Logs, Peer: c.peer, Object: about(pod), Ref: e.native.container, Logs: &asked.Options}
	if e.native.task { // its node may be another one
		op.Action, op.Ref = neutral.TaskLogs, e.native.id
	}
	return s.told(asked.Serve(w, c.Request, s.runs(op)))
}

// waitingReason is why a container has not begun.
func waitingReason(pod *corev1.Pod) string {
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Waiting != nil {
			return status.State.Waiting.Reason
		}
	}
	return string(pod.Status.Phase)
}

// serveExec runs a command in a container.
func (s *Server) serveExec(w http.ResponseWriter, c *call, e *entry, pod *corev1.Pod) error {
	asked, err := podstream.ParseExec(c.URL.Query())
	if err != nil {
		return err
	}
	if err := running(c, e, pod); err != nil {
		return err
	}
	op := neutral.Operation{Action: neutral.ExecCreate, Verb: neutral.Exec, Peer: c.peer, Object: about(pod), Ref: e.native.container, Exec: &asked.Spec}
	if _, err := s.under.Do(c.Context(), op); err != nil { // what cannot be carried out is said before the stream begins
		return err
	}
	op.Action = neutral.ExecStart
	op.Attach = &neutral.AttachOptions{Stdin: asked.Spec.Stdin, Stdout: asked.Spec.Stdout, Stderr: asked.Spec.Stderr, Stream: true, TTY: asked.Spec.TTY}
	return s.told(asked.Serve(w, c.Request, s.runs(op)))
}

// serveAttach joins a container's own process.
func (s *Server) serveAttach(w http.ResponseWriter, c *call, e *entry, pod *corev1.Pod) error {
	asked, err := podstream.ParseAttach(c.URL.Query())
	if err != nil {
		return err
	}
	if err := running(c, e, pod); err != nil {
		return err
	}
	op := neutral.Operation{Action: neutral.ContainerAttach, Verb: neutral.Attach, Peer: c.peer, Object: about(pod), Ref: e.native.container,
		Attach: &asked.Options}
	return s.told(asked.Serve(w, c.Request, s.runs(op)))
}

// told is an error that the caller is still to be told.
func (s *Server) told(err error) error {
	var told *podstream.Told
	if errors.As(err, &told) {
		s.log.Debug("a stream ended", "err", err)
		return nil
	}
	return err
}

// servePortForward carries connections to a container's ports.
func (s *Server) servePortForward(w http.ResponseWriter, c *call, e *entry, pod *corev1.Pod) error {
	asked, err := podstream.ParsePortForward(c.URL.Query())
	if err != nil {
		return err
	}
	if err := running(c, e, pod); err != nil {
		return err
	}
	return s.told(asked.Serve(w, c.Request, func(ctx context.Context, port uint16) (io.ReadWriteCloser, error) {
		return s.under.Dial(ctx, e.native.container, port)
	}))
}
