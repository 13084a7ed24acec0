package docker

import (
	"context"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// execContainer gives the container in which a command is to run, once policy lets the caller run it with the rights that
// it asks for.
func (a *action) execContainer(ctx context.Context) (*located, error) {
	spec := a.op.Exec
	if spec == nil || len(spec.Command) == 0 {
		return nil, fault.New(fault.Invalid, "No exec command specified")
	}
	found, err := a.findContainer(ctx)
	if err != nil {
		return nil, err
	}
	switch found.State.Status {
	case neutral.StatusRunning:
	case neutral.StatusPaused:
		return nil, fault.New(fault.Conflict, "container %s is paused, unpause the container before exec", found.Name)
	default:
		return nil, fault.New(fault.Conflict, "container %s is not running", found.Name)
	}
	if !spec.Privileged && spec.User == "" {
		return found, nil
	}
	next := found.Container
	next.Security.Privileged = next.Security.Privileged || spec.Privileged
	if spec.User != "" {
		next.User = spec.User
	}
	object := found.object()
	object.Container = &next
	return found, a.permitSeen(ctx, object)
}

// createExec says whether the command could be run as it is wanted. Who runs it later keeps the exec; the result is the
// container that it is for.
func (a *action) createExec(ctx context.Context) (neutral.Result, error) {
	found, err := a.execContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	c := found.shown()
	return neutral.Result{Container: &c}, nil
}

// consoleVersion is the first API whose engines are told a terminal's size before its process begins.
var consoleVersion = apiVersion{1, 42}

// startExec runs a command in a container. Its result's exit code is the command's.
func (a *action) startExec(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.execContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	spec := a.op.Exec
	stdin := spec.Stdin && session.Stdin() != nil
	options := client.ExecCreateOptions{User: spec.User, Privileged: spec.Privileged, TTY: spec.TTY, AttachStdin: stdin, AttachStdout: true,
		AttachStderr: true, DetachKeys: spec.DetachKeys, Env: spec.Env, WorkingDir: spec.WorkingDir, Cmd: spec.Command}
	size := spec.Size
	if a.op.Attach != nil && a.op.Attach.Size != nil {
		size = a.op.Attach.Size
	}
	attach := client.ExecAttachOptions{TTY: spec.TTY}
	if size != nil && spec.TTY && !a.engineVersion().less(consoleVersion) {
		options.ConsoleSize = client.ConsoleSize{Height: uint(size.Rows), Width: uint(size.Columns)}
		attach.ConsoleSize = options.ConsoleSize
	}
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	made, err := a.api.ExecCreate(call, found.id, options)
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	attached, err := a.api.ExecAttach(call, made.ID, attach)
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	h := processStreams{attached.HijackedResponse, spec.TTY, !spec.TTY, func(ctx context.Context) bool {
		now, err := a.api.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
		return cerrdefs.IsNotFound(err) || err == nil && !now.Running
	}}
	if err := session.Accept(); err != nil {
		h.Close()
		return neutral.Result{}, err
	}
	if spec.TTY {
		defer resized(ctx, size, session.Resizes(), func(ctx context.Context, size neutral.Size) error {
			_, err := a.api.ExecResize(ctx, made.ID, client.ExecResizeOptions{Height: uint(size.Rows), Width: uint(size.Columns)})
			return err
		})()
	}
	if err := h.carry(ctx, session, stdin); err != nil {
		return neutral.Result{}, err
	}
	code, err := a.exitCode(ctx, made.ID)
	return neutral.Result{ExitCode: code}, err
}

// exitPatience is how long an engine may take to know how a command ended whose output has.
const exitPatience = 10 * time.Second

func (a *action) exitCode(ctx context.Context, id string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, exitPatience)
	defer cancel()
	for {
		now, err := a.api.ExecInspect(ctx, id, client.ExecInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			return 0, fault.Wrap(fault.NotFound, err, "the container ended while the command ran, and how that one ended is not known")
		}
		if err != nil {
			return 0, faultOf(err)
		}
		if !now.Running {
			return now.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, faultOf(ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// attachContainer carries a container's standard streams. The answer begins once the engine attached, for callers attach
// before they start.
func (a *action) attachContainer(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if found.State.Status == neutral.StatusPaused {
		return neutral.Result{}, fault.New(fault.Conflict, "container %s is paused, unpause the container before attach", found.Name)
	}
	options := neutral.AttachOptions{Stdout: true, Stderr: true, Stream: true}
	if a.op.Attach != nil {
		options = *a.op.Attach
	}
	stdin := options.Stdin && found.Stdin && session.Stdin() != nil
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	attached, err := a.api.ContainerAttach(call, found.id, client.ContainerAttachOptions{Stream: options.Stream, Stdin: stdin,
		Stdout: options.Stdout, Stderr: options.Stderr, Logs: options.Logs})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	h := processStreams{attached.HijackedResponse, found.TTY, found.StdinOnce && !found.TTY, func(ctx context.Context) bool {
		_, err := a.api.ContainerInspect(ctx, found.id, client.ContainerInspectOptions{})
		return cerrdefs.IsNotFound(err) // one that ended may be started again
	}}
	if found.TTY {
		neutral.Terminal(session)
	}
	if err := session.Accept(); err != nil {
		h.Close()
		return neutral.Result{}, err
	}
	if found.TTY {
		defer resized(ctx, options.Size, session.Resizes(), func(ctx context.Context, size neutral.Size) error {
			_, err := a.api.ContainerResize(ctx, found.id, client.ContainerResizeOptions{Height: uint(size.Rows), Width: uint(size.Columns)})
			return err
		})()
	}
	return neutral.Result{}, h.carry(ctx, session, stdin)
}
