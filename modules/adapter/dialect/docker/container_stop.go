package docker

import (
	"context"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func (a *action) startContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "start")
	if err != nil {
		return neutral.Result{}, err
	}
	if found.running() {
		return neutral.Result{}, fault.New(fault.NotModified, "container %s is already started", found.Name)
	}
	return neutral.Result{ID: found.id}, faultOf(a.startOn(ctx, found.id, found.native.NetworkSettings))
}

// letGo bounds how long a swarm may take to let go of an overlay, or of a place on it, before a container is started on it;
// letGoPause is how often that is tried.
const (
	letGo      = 10 * time.Second
	letGoPause = 250 * time.Millisecond
)

// startOn starts a container with its networks. A swarm takes its time to let go of the place that a container had on an overlay, and the engine
// to forget the overlay whose last container ended; who starts one on it meanwhile is told that there is none.
func (c *Cluster) startOn(ctx context.Context, id string, on *container.NetworkSettings) error {
	for deadline := time.Now().Add(letGo); ; {
		_, err := c.api.ContainerStart(ctx, id, client.ContainerStartOptions{})
		if err == nil || !c.joining(ctx, on, err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(letGoPause):
		}
	}
}

// joining reports whether an engine failed to put a container on a network that is there.
func (c *Cluster) joining(ctx context.Context, on *container.NetworkSettings, err error) bool {
	text := err.Error()
	if strings.Contains(text, "attaching to network failed") || strings.Contains(text, "after successful attachment") {
		return true
	}
	if !cerrdefs.IsNotFound(err) || !strings.Contains(text, "network ") || on == nil {
		return false
	}
	for name, settings := range on.Networks {
		if settings != nil && settings.NetworkID != "" {
			name = settings.NetworkID
		}
		if _, err := c.api.NetworkInspect(ctx, name, client.NetworkInspectOptions{}); err != nil {
			return false
		}
	}
	return true
}

func (l *located) running() bool {
	return l.State.Status == neutral.StatusRunning || l.State.Status == neutral.StatusRestarting || l.State.Status == neutral.StatusPaused
}

func (a *action) stopContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "stop")
	if err != nil {
		return neutral.Result{}, err
	}
	if !found.running() {
		return neutral.Result{}, fault.New(fault.NotModified, "container %s is not running", found.Name)
	}
	options := client.ContainerStopOptions{}
	if s := a.op.Stop; s != nil {
		options.Timeout, options.Signal = s.Timeout, s.Signal
	}
	losses := a.signalled(&options.Signal)
	_, err = a.api.ContainerStop(ctx, found.id, options)
	return neutral.Result{ID: found.id, Losses: losses}, faultOf(err)
}

// signalVersion is the first API whose engines are told a signal to stop by.
var signalVersion = apiVersion{1, 42}

// signalled takes out a signal that the engine would not read.
func (a *action) signalled(signal *string) []neutral.Loss {
	if *signal == "" || !a.engineVersion().less(signalVersion) {
		return nil
	}
	*signal = ""
	return []neutral.Loss{{Field: "signal", Change: "the container's own", Reason: "engines before API " + signalVersion.String() + " stop by no other"}}
}

func (a *action) restartContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "restart")
	if err != nil {
		return neutral.Result{}, err
	}
	options := client.ContainerRestartOptions{}
	if s := a.op.Stop; s != nil {
		options.Timeout, options.Signal = s.Timeout, s.Signal
	}
	losses := a.signalled(&options.Signal)
	_, err = a.api.ContainerRestart(ctx, found.id, options)
	if err != nil && a.joining(ctx, found.native.NetworkSettings, err) { // the container has stopped; it is started once more
		err = a.startOn(ctx, found.id, found.native.NetworkSettings)
	}
	return neutral.Result{ID: found.id, Losses: losses}, faultOf(err)
}

func (a *action) killContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "kill")
	if err != nil {
		return neutral.Result{}, err
	}
	options := client.ContainerKillOptions{}
	if a.op.Stop != nil {
		options.Signal = a.op.Stop.Signal
	}
	_, err = a.api.ContainerKill(ctx, found.id, options)
	return neutral.Result{ID: found.id}, faultOf(err)
}

// pauseContainer freezes a container, which engines can.
func (a *action) pauseContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "pause")
	if err != nil {
		return neutral.Result{}, err
	}
	switch a.terms.Pause {
	case "", neutral.PauseFreeze:
	case neutral.PauseRefuse:
		return neutral.Result{}, fault.New(fault.Denied, "no permission: the policy of this cluster refuses to pause container %s", found.Name)
	default:
		return neutral.Result{}, fault.New(fault.Unsupported, "pause is refused: the policy of this cluster wants the processes of container "+
			"%s ended by it, and an engine freezes them", found.Name)
	}
	_, err = a.api.ContainerPause(ctx, found.id, client.ContainerPauseOptions{})
	return neutral.Result{ID: found.id}, faultOf(err)
}

func (a *action) unpauseContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "unpause")
	if err != nil {
		return neutral.Result{}, err
	}
	_, err = a.api.ContainerUnpause(ctx, found.id, client.ContainerUnpauseOptions{})
	return neutral.Result{ID: found.id}, faultOf(err)
}

// waitContainer waits for a container's end. Callers wait before they start, so the answer begins once the engine waits.
func (a *action) waitContainer(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	condition := container.WaitCondition(a.op.Wait)
	if condition == "" {
		condition = container.WaitConditionNotRunning
	}
	waiting := a.api.ContainerWait(ctx, found.id, client.ContainerWaitOptions{Condition: condition})
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	select {
	case ended := <-waiting.Result:
		result := neutral.Result{ID: found.id, ExitCode: int(ended.StatusCode)}
		if ended.Error != nil && ended.Error.Message != "" {
			return result, fault.New(fault.Internal, "%s", plain(ended.Error.Message))
		}
		return result, nil
	case err := <-waiting.Error:
		return neutral.Result{}, faultOf(err)
	case <-ctx.Done():
		return neutral.Result{}, ctx.Err()
	}
}
