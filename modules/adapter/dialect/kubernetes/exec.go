package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// captureLimit bounds the output of the gateway's own commands in a container, in bytes.
const captureLimit = 256 << 10

// createExec says whether the command could be run as it is wanted. Who runs it later keeps the exec; the result is the
// container that it is for.
func (a *action) createExec(ctx context.Context) (neutral.Result, error) {
	if a.op.Exec == nil || len(a.op.Exec.Command) == 0 {
		return neutral.Result{}, fault.New(fault.Invalid, "No exec command specified")
	}
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := found.takes("exec"); err != nil {
		return neutral.Result{}, err
	}
	own, err := a.userOfExec(ctx, a.op.Exec.User, found)
	if err != nil {
		return neutral.Result{}, err
	}
	_, losses, err := execCommand(a.op.Exec, &found.Container, own)
	return neutral.Result{Container: &found.Container, Losses: losses}, err
}

// startExec runs a command in a container. Its result's exit code is the command's.
func (a *action) startExec(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	spec := a.op.Exec
	if spec == nil || len(spec.Command) == 0 {
		return neutral.Result{}, fault.New(fault.Invalid, "No exec command specified")
	}
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := found.takes("exec"); err != nil {
		return neutral.Result{}, err
	}
	own, err := a.userOfExec(ctx, spec.User, found)
	if err != nil {
		return neutral.Result{}, err
	}
	command, losses, err := execCommand(spec, &found.Container, own)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	options := &corev1.PodExecOptions{Container: found.native(), Command: command, TTY: spec.TTY,
		Stdin: spec.Stdin && session.Stdin() != nil, Stdout: true, Stderr: !spec.TTY}
	streams := remotecommand.StreamOptions{Tty: spec.TTY, Stdout: outputWriter{session, neutral.Stdout}}
	if options.Stdin {
		streams.Stdin = session.Stdin()
	}
	if !spec.TTY {
		streams.Stderr = outputWriter{session, neutral.Stderr}
	} else {
		sizes := newSizeQueue(ctx, session.Resizes(), false)
		if spec.Size != nil {
			sizes.first = spec.Size
		}
		streams.TerminalSizeQueue = sizes
	}
	result := neutral.Result{Losses: losses}
	code, message, err := a.run(ctx, found.pod, "exec", options, streams)
	if err != nil {
		return result, err
	}
	if message != "" {
		// Docker says so in the stream, for by now the caller listens to nothing else.
		if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte(message + "\r\n")}); err != nil {
			return result, err
		}
	}
	result.ExitCode = code
	return result, nil
}

// execCommand writes docker's options of an exec as a command, for Kubernetes has only a command. What runs it in
// another directory or environment must be in the image. own is the user that the container runs as, "" where unknown.
func execCommand(spec *neutral.ExecSpec, c *neutral.Container, own string) ([]string, []neutral.Loss, error) {
	if spec.User != "" && !sameUser(spec.User, own) {
		return nil, nil, refuseUser(spec.User, own)
	}
	if spec.Privileged && !c.Security.Privileged {
		return nil, nil, refuse("Privileged", "Kubernetes runs commands with the container's own rights")
	}
	command := spec.Command
	var losses []neutral.Loss
	if len(spec.Env) > 0 {
		for _, pair := range spec.Env {
			if name, _, ok := strings.Cut(pair, "="); !ok || name == "" || strings.HasPrefix(name, "-") {
				return nil, nil, invalid("Env", "invalid environment variable: %q", pair)
			}
		}
		command = append(append([]string{"env"}, spec.Env...), command...)
		losses = append(losses, neutral.Loss{Field: "Env", Change: "set by the image's env", Reason: "Kubernetes runs a command and no more"})
	}
	if spec.WorkingDir != "" && spec.WorkingDir != c.WorkingDir {
		command = append([]string{"/bin/sh", "-c", `cd -- "$1" || exit 126; shift; exec "$@"`, "sh", spec.WorkingDir}, command...)
		losses = append(losses, neutral.Loss{Field: "WorkingDir", Change: "entered by the image's shell", Reason: "Kubernetes runs a command and no more"})
	}
	return command, losses, nil
}

// run executes or attaches. A command that could not be started gives its exit code and the runtime's words; err is
// a failure of the cluster.
func (c *Cluster) run(ctx context.Context, pod *corev1.Pod, subresource string, options runtime.Object, streams remotecommand.StreamOptions) (code int, message string, err error) {
	url := c.client.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		SubResource(subresource).VersionedParams(options, scheme.ParameterCodec).URL()
	config := rest.CopyConfig(c.rest)
	socket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
	if err != nil {
		return 0, "", fault.Wrap(fault.Internal, err, "a stream to the orchestrator could not be made")
	}
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	if err != nil {
		return 0, "", fault.Wrap(fault.Internal, err, "a stream to the orchestrator could not be made")
	}
	var refused error // what the API said to the first way; the second one's client does not read it
	executor, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		var failure *httpstream.UpgradeFailureError
		if errors.As(err, &failure) {
			refused = failure.Cause
		}
		return failure != nil || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return 0, "", fault.Wrap(fault.Internal, err, "a stream to the orchestrator could not be made")
	}
	// The client logs ends of streams that are none of its business (a caller that hangs up); what matters comes back.
	err = executor.StreamWithContext(klog.NewContext(ctx, logr.Discard()), streams)
	var status apierrors.APIStatus
	if err != nil && errors.As(refused, &status) && strings.Contains(err.Error(), "unable to upgrade connection") {
		return 0, "", nativeFault(refused)
	}
	return readOutcome(err)
}

// readOutcome tells a command's own end from one that could not be started and from a broken stream.
func readOutcome(err error) (code int, message string, fail error) {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return 0, "", nil
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitStatus(), "", nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return 0, "", err
	}
	text := err.Error()
	if strings.Contains(text, "OCI runtime exec failed") || strings.Contains(text, "unable to start container process") {
		message := kubeletMessage(text)
		code := startExitCode(message)
		if code == exitNoStart {
			code = exitForbidden
		}
		return code, message, nil
	}
	return 0, "", fault.Wrap(fault.Unavailable, err, "the stream to the container broke")
}

// capture runs a command of the gateway's own and gives its output.
func (c *Cluster) capture(ctx context.Context, found *located, command []string) (output string, code int, err error) {
	var b limitedBuffer
	code, message, err := c.run(ctx, found.pod, "exec",
		&corev1.PodExecOptions{Container: found.native(), Command: command, Stdout: true, Stderr: true},
		remotecommand.StreamOptions{Stdout: &b, Stderr: &b})
	return strings.TrimSpace(b.String() + message), code, err
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := captureLimit - l.b.Len(); room > 0 {
		_, _ = l.b.Write(p[:min(room, len(p))]) // a buffer never fails to be written
	}
	return len(p), nil
}

func (l *limitedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// outputWriter gives what is written to a session.
type outputWriter struct {
	session neutral.Session
	stream  neutral.Stream
}

func (w outputWriter) Write(p []byte) (int, error) {
	if err := w.session.Output(neutral.Chunk{Stream: w.stream, Data: p}); err != nil {
		return 0, fmt.Errorf("give output to the caller: %w", err)
	}
	return len(p), nil
}

// sizeQueue gives a terminal's sizes to a stream. nudge makes the first size wrong for a moment, so that a program
// that drew its prompt before anybody listened draws it again.
type sizeQueue struct {
	ctx   context.Context
	sizes <-chan neutral.Size
	first *neutral.Size
	nudge bool
}

func newSizeQueue(ctx context.Context, sizes <-chan neutral.Size, nudge bool) *sizeQueue {
	return &sizeQueue{ctx: ctx, sizes: sizes, nudge: nudge}
}

// Next blocks until there is a new size; nil ends the queue.
func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	size := q.first
	q.first = nil
	if size == nil {
		select {
		case next, open := <-q.sizes:
			if !open {
				return nil
			}
			size = &next
		case <-q.ctx.Done():
			return nil
		}
	}
	if q.nudge && size.Rows > 1 {
		q.nudge, q.first = false, size
		return &remotecommand.TerminalSize{Width: size.Columns, Height: size.Rows - 1}
	}
	return &remotecommand.TerminalSize{Width: size.Columns, Height: size.Rows}
}

// discard reads what a caller sends and nobody wants, so that it is not kept waiting.
func discard(r io.Reader) {
	if r != nil {
		_, _ = io.Copy(io.Discard, r) // its end is the caller's
	}
}
