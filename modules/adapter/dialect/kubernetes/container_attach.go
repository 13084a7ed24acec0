package kubernetes

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// attachContainer carries a container's standard streams. Docker attaches before it starts, so the answer comes at
// once, and what the container writes before Kubernetes lets anybody attach is taken from its log:
//
//	no terminal:           output is the log, from the beginning or from now on; stdin is a stream of its own
//	terminal and stdin:    a stream for both, after what the log holds by then
//	terminal, no stdin:    the log
func (a *action) attachContainer(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	options := neutral.AttachOptions{Stdout: true, Stderr: true, Stream: true}
	if a.op.Attach != nil {
		options = *a.op.Attach
	}
	if found.State.Status == neutral.StatusRemoving {
		return neutral.Result{}, fault.New(fault.Conflict, "container %s is marked for removal", found.Name)
	}
	if found.State.Status == neutral.StatusPaused {
		return neutral.Result{}, found.takes("attach")
	}
	defer a.audience.enter(found.ID)()
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	t := attachment{action: a, found: found, options: options, session: session, fromStart: options.Logs}
	if err := t.await(ctx); err != nil || t.pod == nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{}
	if !found.TTY {
		result.Losses = append(result.Losses, mergedLog)
	}
	if !options.Stream {
		logs := neutral.LogOptions{Stdout: options.Stdout, Stderr: options.Stderr, Tail: -1}
		return result, a.readLog(ctx, t.now(), logs, session, t.emit)
	}
	join := t.follow
	if found.TTY && found.Stdin && options.Stdin {
		join = t.terminal
	}
	if err := join(ctx); !fault.Is(err, fault.NotFound) { // one that was removed meanwhile has nothing more to say
		return result, err
	}
	return result, nil
}

// attachment is an attach under way.
type attachment struct {
	*action
	found     *located
	options   neutral.AttachOptions
	session   neutral.Session
	pod       *corev1.Pod // the one that runs
	instance  string
	fromStart bool // output from the run's beginning is wanted
}

// await finds the run to attach to: the present one, or the next one when the container does not run.
func (t *attachment) await(ctx context.Context) error {
	t.pod, t.instance = t.found.pod, logInstance(t.found.pod, t.found.native())
	if t.found.State.Status == neutral.StatusRunning || !t.options.Stream {
		return nil
	}
	before := t.instance
	var err error
	t.pod, t.instance, err = t.awaitRun(ctx, t.found, before)
	t.fromStart = true // it began after its caller had attached
	return err
}

// now is the container with the Pod that runs it.
func (t *attachment) now() *located {
	now := *t.found
	now.pod = t.pod
	return &now
}

func (t *attachment) emit(chunk neutral.Chunk) error {
	chunk.Time = time.Time{} // an attached caller wants bytes
	return t.session.Output(chunk)
}

// follow gives the log and, where the container takes it, passes stdin on.
func (t *attachment) follow(ctx context.Context) error {
	logs := neutral.LogOptions{Follow: true, Stdout: t.options.Stdout, Stderr: t.options.Stderr, Tail: 0}
	if t.fromStart {
		logs.Tail = -1
	}
	if !logs.Stdout && logs.Stderr && !t.found.TTY {
		return fault.New(fault.Unsupported, "attaching to stderr alone is refused: Kubernetes keeps one log of both streams")
	}
	if !t.options.Stdin || t.session.Stdin() == nil {
		return t.readLog(ctx, t.now(), logs, t.session, t.emit)
	}
	if !t.found.Stdin {
		go discard(t.session.Stdin()) // ends with the caller's connection
		return t.readLog(ctx, t.now(), logs, t.session, t.emit)
	}
	input, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		_, _, err := t.run(input, t.pod, "attach",
			&corev1.PodAttachOptions{Container: t.found.native(), Stdin: true},
			remotecommand.StreamOptions{Stdin: t.session.Stdin()})
		if err != nil && input.Err() == nil {
			// The container may have ended before it read anything, which is no failure.
			t.log.Debug("stdin of a container ended early", "container", t.found.Name, "err", err)
		}
	})
	err := t.readLog(ctx, t.now(), logs, t.session, t.emit)
	stop()
	group.Wait()
	return err
}

// terminal joins caller and terminal. What the terminal showed before is taken from the log, less what the stream
// repeats of it.
func (t *attachment) terminal(ctx context.Context) error {
	sizes := newSizeQueue(ctx, t.session.Resizes(), true)
	sizes.first = t.options.Size
	out := &replay{emit: func(p []byte) error { return t.session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: p}) }}
	if t.fromStart {
		out.hold = true
	}
	var group sync.WaitGroup
	past, stop := context.WithCancel(ctx)
	if out.hold {
		group.Go(func() { out.release(t.past(past)) })
	}
	_, _, err := t.run(ctx, t.pod, "attach",
		&corev1.PodAttachOptions{Container: t.found.native(), Stdin: true, Stdout: true, TTY: true},
		remotecommand.StreamOptions{Stdin: t.session.Stdin(), Stdout: out, Tty: true, TerminalSizeQueue: sizes})
	group.Wait()
	stop()
	if ended := t.confirmEnd(ctx, t.pod, t.found.native(), t.instance, err); ended != nil {
		return ended
	}
	if err != nil && !out.written() {
		// It had ended before anybody could attach: its log is all there is.
		window := newLogWindow(neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1}, true, t.emit)
		return t.readRest(ctx, t.pod, t.instance, window, *window.native(t.found.native()), &logPosition{})
	}
	return nil
}

// pastDelay leaves the stream time to be made before the log is read, so that nothing falls between them.
const pastDelay = 300 * time.Millisecond

// past reads the log as it is shortly after the attach.
func (t *attachment) past(ctx context.Context) []byte {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(pastDelay):
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var past []byte
	logs := neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1}
	err := t.readLog(ctx, t.now(), logs, t.session, func(chunk neutral.Chunk) error {
		past = append(past, chunk.Data...)
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.log.Debug("what a terminal showed before it was attached to is not known", "container", t.found.Name, "err", err)
	}
	return past
}
