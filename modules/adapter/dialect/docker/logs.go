package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func (a *action) logOptions() neutral.LogOptions {
	if a.op.Logs != nil {
		return *a.op.Logs
	}
	return neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1}
}

// stamp of a moment, as an engine's query has it; "" for none.
func moment(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())
}

func tail(lines int) string {
	if lines < 0 {
		return "all"
	}
	return strconv.Itoa(lines)
}

// containerLogs gives a container's log.
func (a *action) containerLogs(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	o := a.logOptions()
	ctx, cancel := within(ctx, o)
	defer cancel()
	native, err := a.api.ContainerLogs(ctx, found.id, client.ContainerLogsOptions{ShowStdout: o.Stdout, ShowStderr: o.Stderr,
		Since: moment(o.Since), Until: moment(o.Until), Timestamps: o.Timestamps, Follow: o.Follow, Tail: tail(o.Tail)})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	defer func() { _ = native.Close() }()
	if found.TTY {
		neutral.Terminal(session)
	}
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	read := readFrames
	switch {
	case found.TTY && o.Timestamps:
		read = readLines
	case found.TTY:
		read = readRaw
	}
	err = read(native, func(stream neutral.Stream, data []byte) error {
		chunk := neutral.Chunk{Stream: stream, Data: data}
		if o.Timestamps {
			chunk.Time, chunk.Data = cutTime(data)
		}
		return session.Output(chunk)
	})
	return neutral.Result{}, logEnd(ctx, err)
}

// errLogEnd is the cause of a log that is over because the wanted time is.
var errLogEnd = errors.New("the wanted time is over")

// within bounds a log that is followed by the end that the caller wants.
func within(ctx context.Context, o neutral.LogOptions) (context.Context, context.CancelFunc) {
	if o.Follow && !o.Until.IsZero() {
		return context.WithDeadlineCause(ctx, o.Until, errLogEnd)
	}
	return context.WithCancel(ctx)
}

// logEnd tells an end that the caller wanted from a broken log.
func logEnd(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errLogEnd) {
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// cutTime takes the time from the beginning of a line.
func cutTime(line []byte) (time.Time, []byte) {
	head, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return time.Time{}, line
	}
	at, err := time.Parse(time.RFC3339Nano, string(head))
	if err != nil {
		return time.Time{}, line
	}
	return at, rest
}

// The details of a line of a service's log that name whose line it is.
const detailTask = "com.docker.swarm.task.id"

// cutDetails takes the details from the beginning of a line, and gives the id of its task.
func cutDetails(line []byte) (task string, rest []byte) {
	head, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return "", line
	}
	for pair := range strings.SplitSeq(string(head), ",") {
		key, value, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			return "", line
		}
		if key == detailTask {
			if value, err = url.QueryUnescape(value); err != nil {
				return "", line
			}
			task = value
		}
	}
	if task == "" {
		return "", line
	}
	return task, rest
}

// workloadLogs gives the logs of all tasks of a service, and of those that come while it follows.
func (a *action) workloadLogs(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	found, err := a.findService(call)
	if err != nil {
		return neutral.Result{}, err
	}
	o := a.logOptions()
	ctx, end := within(ctx, o)
	defer end()
	native, err := a.api.ServiceLogs(ctx, found.id, client.ServiceLogsOptions{ShowStdout: o.Stdout, ShowStderr: o.Stderr,
		Since: moment(o.Since), Timestamps: true, Details: true, Follow: o.Follow, Tail: tail(o.Tail)})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	return a.swarmLogs(ctx, session, native, found)
}

// taskLogs gives one task's log.
func (a *action) taskLogs(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	found, err := a.findTask(call)
	if err != nil {
		return neutral.Result{}, err
	}
	o := a.logOptions()
	ctx, end := within(ctx, o)
	defer end()
	native, err := a.api.TaskLogs(ctx, found.ID, client.TaskLogsOptions{ShowStdout: o.Stdout, ShowStderr: o.Stderr,
		Since: moment(o.Since), Timestamps: true, Details: true, Follow: o.Follow, Tail: tail(o.Tail)})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	return a.swarmLogs(ctx, session, native, found.service)
}

// swarmLogs passes a log on whose lines tell of their tasks.
func (a *action) swarmLogs(ctx context.Context, session neutral.Session, native io.ReadCloser, s *service) (neutral.Result, error) {
	defer func() { _ = native.Close() }()
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	o := a.logOptions()
	context := taskContexts{action: a, service: s, known: map[string]*neutral.Task{}}
	read := readFrames
	if s.Template.TTY {
		read = readLines
	}
	err := read(native, func(stream neutral.Stream, line []byte) error {
		at, line := cutTime(line)
		id, line := cutDetails(line)
		if !o.Until.IsZero() && at.After(o.Until) { // a swarm does not filter by it
			return nil
		}
		chunk := neutral.Chunk{Stream: stream, Data: line, Context: context.task(ctx, id)}
		if o.Timestamps {
			chunk.Time = at
		}
		return session.Output(chunk)
	})
	return neutral.Result{}, logEnd(ctx, err)
}

// taskContexts are the tasks whose lines came by.
type taskContexts struct {
	action  *action
	service *service
	known   map[string]*neutral.Task
}

// task gives a line's task; of one that is gone no more than its id is known.
func (c *taskContexts) task(ctx context.Context, id string) *neutral.Task {
	if id == "" {
		return nil
	}
	if known, ok := c.known[id]; ok {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	tasks, err := c.action.tasks(ctx, []*service{c.service}, client.Filters{}.Add("service", c.service.id))
	if err != nil {
		c.action.log.Debug("the tasks of a service whose log is read are not known", "service", c.service.docker, "err", err)
	}
	for i := range tasks {
		shown := tasks[i].shown()
		c.known[shown.ID] = &shown
	}
	if c.known[id] == nil {
		c.known[id] = &neutral.Task{ID: id, Workload: c.service.id, Name: c.service.name}
	}
	return c.known[id]
}
