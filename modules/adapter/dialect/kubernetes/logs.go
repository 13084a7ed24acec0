package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	logBuffer = 64 << 10
	// endDelay is how long after its log the end of a container may become known. A busy node's kubelet writes its
	// containers' states late; a log that truly broke is told of after it.
	endDelay = 30 * time.Second
	// endPause is between two looks at a container whose log ended, where it cannot be followed.
	endPause = time.Second
	// logTailMost bounds the lines that are held back to find the last ones before a time.
	logTailMost = 100000
)

// mergedLog is what a reader of a container's log cannot be told.
var mergedLog = neutral.Loss{Field: "stderr", Change: "part of stdout", Reason: "Kubernetes keeps one log of both"}

// containerLogs gives the log of the container's present run.
func (a *action) containerLogs(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	options := neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1}
	if a.op.Logs != nil {
		options = *a.op.Logs
	}
	result := neutral.Result{}
	if !found.TTY {
		result.Losses = append(result.Losses, mergedLog)
	}
	return result, a.readLog(ctx, found, options, session, session.Output)
}

// accepter is the part of a session that says that a stream begins.
type accepter interface{ Accept() error }

// readLog gives emit the lines that options want. It ends without an error only when they are all there are: when it
// follows, that is when the container has ended.
func (c *Cluster) readLog(ctx context.Context, found *located, options neutral.LogOptions, session accepter, emit func(neutral.Chunk) error) error {
	if options.Follow && !options.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, options.Until, errLogEnd)
		defer cancel()
	}
	pod := found.pod
	instance := logInstance(pod, found.native())
	if instance == "" {
		if err := session.Accept(); err != nil || !options.Follow {
			return err
		}
		var err error
		if pod, instance, err = c.awaitRun(ctx, found, ""); err != nil || pod == nil {
			return logEnd(ctx, err)
		}
	}
	window := newLogWindow(options, found.TTY, emit)
	request := window.native(found.native())
	position := &logPosition{tailed: request.TailLines != nil}
	native := request
	var err error
	if options.Follow && options.Tail == 0 {
		if err = c.markEnd(ctx, pod, *request, position); err == nil {
			native = position.native(*request)
		}
	}
	var body io.ReadCloser
	if err == nil {
		body, err = c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, native).Stream(ctx)
	}
	if apierrors.IsNotFound(err) {
		return fault.Wrap(fault.NotFound, err, "No such container: %s", found.Name)
	}
	if err != nil {
		return logEnd(ctx, nativeFault(err))
	}
	defer func() { _ = body.Close() }() // nothing is to be done about a log that does not close
	if err := session.Accept(); err != nil {
		return err
	}
	err = scanLog(body, native.SinceTime != nil, position.after(window.line))
	switch {
	case errors.Is(err, errLogEnd):
		err = nil
	case err != nil && ctx.Err() != nil:
		return logEnd(ctx, ctx.Err())
	case options.Follow:
		// A log that breaks and one that is complete look alike; only the container's end tells them apart.
		if broken := c.confirmEnd(ctx, pod, found.native(), instance, err); broken != nil {
			return logEnd(ctx, broken)
		}
		if err = c.readRest(ctx, pod, instance, window, *request, position); errors.Is(err, errLogEnd) {
			err = nil
		}
		err = logEnd(ctx, err)
	}
	if err != nil {
		return err
	}
	return window.flush()
}

// errLogEnd ends the reading of a log whose wanted part is over.
var errLogEnd = errors.New("the wanted part of the log is over")

// logEnd turns the passing of "until" into a good end.
func logEnd(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errLogEnd) {
		return nil
	}
	return err
}

// logInstance is the run whose log the kubelet gives; "" before the first.
func logInstance(pod *corev1.Pod, name string) string {
	status := containerStatus(pod, name)
	if status == nil {
		return ""
	}
	switch {
	case status.State.Running != nil:
		return status.ContainerID
	case status.State.Terminated != nil && status.State.Terminated.ContainerID != "":
		return ranAs(status.State.Terminated)
	case status.LastTerminationState.Terminated != nil:
		return ranAs(status.LastTerminationState.Terminated)
	}
	return ""
}

// ranAs is the run that ended; "" for one that never began and has no log.
func ranAs(t *corev1.ContainerStateTerminated) string {
	if t.Reason == reasonStartError || t.Reason == reasonCannotRun {
		return ""
	}
	return t.ContainerID
}

// awaitRun waits for a run of the container other than the one named. The Pod is nil when there will be none: it was
// removed, or could not be started.
func (c *Cluster) awaitRun(ctx context.Context, found *located, not string) (*corev1.Pod, string, error) {
	var run *corev1.Pod
	instance, replacing, first := "", false, found.pod.UID
	wasTerminal := terminal(found.pod)
	err := c.followPod(ctx, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil {
			return !replacing, nil
		}
		replacing = pod.Annotations[annotationReplacing] != ""
		if id := logInstance(pod, found.native()); id != "" && id != not {
			run, instance = pod, id
			return true, nil
		}
		return terminal(pod) && !replacing && (!wasTerminal || pod.UID != first), nil
	})
	return run, instance, err
}

// confirmEnd returns nil once the run is known to be over, and an error when it goes on although its log ended.
func (c *Cluster) confirmEnd(ctx context.Context, pod *corev1.Pod, name, instance string, cause error) error {
	over := func(now *corev1.Pod) bool {
		if now == nil || now.UID != pod.UID {
			return true
		}
		status := containerStatus(now, name)
		return status == nil || status.State.Running == nil || status.ContainerID != instance
	}
	wait, cancel := context.WithTimeout(ctx, c.endDelay)
	defer cancel()
	var err error
	for wait.Err() == nil {
		err = c.followPod(wait, pod.Namespace, pod.Name, func(now *corev1.Pod) (bool, error) { return over(now), nil })
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		select { // an API that does not answer for a while says nothing of the container
		case <-wait.Done():
		case <-time.After(endPause):
		}
	}
	// A watch can lag; what the API holds now decides.
	last, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	now, asked := c.client.CoreV1().Pods(pod.Namespace).Get(last, pod.Name, metav1.GetOptions{})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case apierrors.IsNotFound(asked), asked == nil && over(now):
		return nil
	case asked != nil:
		err = asked
	}
	return fault.Wrap(fault.Unavailable, errors.Join(cause, err), "the connection to the container's log broke while the container runs")
}

// logWindow lets through the lines that a caller wants. The kubelet knows seconds; the rest is decided here.
type logWindow struct {
	options neutral.LogOptions
	tty     bool
	emit    func(neutral.Chunk) error
	tail    []neutral.Chunk // the last lines before Until, when both are asked for
	early   bool            // the present line is from before Since
}

func newLogWindow(options neutral.LogOptions, tty bool, emit func(neutral.Chunk) error) *logWindow {
	if tty {
		options.Stdout = options.Stdout || options.Stderr
	}
	return &logWindow{options: options, tty: tty, emit: emit}
}

func (w *logWindow) held() bool {
	return w.options.Tail >= 0 && !w.options.Until.IsZero() && !w.options.Follow
}

// native is the request to the kubelet.
func (w *logWindow) native(container string) *corev1.PodLogOptions {
	native := &corev1.PodLogOptions{Container: container, Follow: w.options.Follow, Timestamps: true}
	if !w.options.Since.IsZero() {
		since := metav1.NewTime(w.options.Since.Truncate(time.Second))
		native.SinceTime = &since
	}
	if w.options.Tail >= 0 && !w.held() {
		lines := int64(w.options.Tail)
		native.TailLines = &lines
	}
	return native
}

func (w *logWindow) line(at time.Time, data []byte) error {
	if !at.IsZero() {
		w.early = at.Before(w.options.Since)
		if !w.options.Until.IsZero() && at.After(w.options.Until) {
			return errLogEnd
		}
	}
	if w.early || !w.options.Stdout {
		return nil
	}
	if w.tty {
		data = terminalLine(data)
	}
	chunk := neutral.Chunk{Stream: neutral.Stdout, Data: data, Time: at}
	if !w.held() {
		return w.emit(chunk)
	}
	chunk.Data = bytes.Clone(data)
	w.tail = append(w.tail, chunk)
	if limit := min(w.options.Tail, logTailMost); len(w.tail) > limit {
		w.tail = w.tail[len(w.tail)-limit:]
	}
	return nil
}

// terminalLine ends a line as a terminal does, which container runtimes do not keep in their logs.
func terminalLine(data []byte) []byte {
	if line, ok := bytes.CutSuffix(data, []byte{'\n'}); ok && !bytes.HasSuffix(line, []byte{'\r'}) {
		return append(bytes.Clone(line), '\r', '\n')
	}
	return data
}

func (w *logWindow) flush() error {
	for _, chunk := range w.tail {
		if err := w.emit(chunk); err != nil {
			return err
		}
	}
	return nil
}

// scanLog reads lines that begin with their time. A line that is longer than a buffer comes in pieces, of which the
// first alone has the time. Data is not kept by line. A log from a time on can begin inside a line whose beginning is
// older, which is left out.
func scanLog(r io.Reader, inside bool, line func(at time.Time, data []byte) error) error {
	reader := bufio.NewReaderSize(r, logBuffer)
	begin := true
	for {
		piece, err := reader.ReadSlice('\n')
		if len(piece) > 0 {
			at, data := time.Time{}, piece
			if begin {
				var ok bool
				at, data, ok = cutTime(piece)
				inside = inside && !ok && !errors.Is(err, io.EOF)
				if !ok && !inside {
					// The kubelet writes its own errors into the log.
					return fault.Wrap(fault.Unavailable, errors.New(string(piece)), "the node could not give the container's log")
				}
			}
			if len(data) > 0 && !inside {
				if err := line(at, data); err != nil {
					return err
				}
			}
			begin = piece[len(piece)-1] == '\n'
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}

func cutTime(piece []byte) (time.Time, []byte, bool) {
	head, data, ok := bytes.Cut(piece, []byte{' '})
	if !ok {
		return time.Time{}, nil, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(head))
	return at, data, err == nil
}
