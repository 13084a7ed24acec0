package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// recreation is a container on its way into another network mode. It is made anew, and the old one kept, stopped.
type recreation struct {
	*Cluster
	s     *neutral.Switching
	r     *switchRecord
	old   *client.ContainerInspectResult
	image string
}

// switchRecreate puts another container in the place of one. Until the new one is seen to run, nothing of the old one is gone.
func (c *Cluster) switchRecreate(ctx context.Context, s *neutral.Switching, p *planned, old *client.ContainerInspectResult) error {
	again := &recreation{Cluster: c, s: s, r: &p.record, old: old, image: p.image}
	if made, err := c.madeFor(ctx, s.ID, again.r); err != nil || made != nil {
		if err == nil {
			err = fault.New(fault.Conflict, "the switch of container %s was begun already", again.r.Name)
		}
		return err
	}
	commit := s.Need.Layer == neutral.LayerCommit
	if !commit { // a new container that cannot be made keeps nobody from the old one
		if err := again.create(ctx); err != nil {
			return err
		}
	}
	if err := again.stop(ctx); err != nil {
		return err
	}
	if commit {
		if err := again.commit(ctx); err != nil {
			return err
		}
		if err := again.create(ctx); err != nil {
			return err
		}
	}
	if err := again.takePlace(ctx); err != nil {
		return err
	}
	if err := again.step(ctx, "the start of the new container"); err != nil {
		return err
	}
	if err := c.startOn(ctx, again.r.New, nil); err != nil {
		return err
	}
	if err := c.settled(ctx, again.r.New, again.r.Name, s.Plan.To); err != nil {
		return err
	}
	if !restarts(again.r.Restart) {
		return nil
	}
	if err := again.step(ctx, "the restart policy of the new container"); err != nil {
		return err
	}
	return c.restartBy(ctx, again.r.New, again.r.Restart)
}

func (a *recreation) step(ctx context.Context, what string) error { return step(ctx, a.s, what, a.r) }

// create makes the new container, under a name of its own. An engine that made it otherwise than the old one is not trusted.
func (a *recreation) create(ctx context.Context) error {
	inspect, err := replica.Parse(a.old.Raw)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
	}
	made, err := remake(inspect, a.s.Plan.To, a.s.ID, a.image)
	if err != nil {
		return err
	}
	if err := a.step(ctx, "the new container "+draftName(a.r.Name, a.s.ID)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	if a.r.New, err = a.createRaw(ctx, draftName(a.r.Name, a.s.ID), made.body); err != nil {
		return err
	}
	now, err := a.inspect(ctx, a.r.New)
	if err != nil {
		return err
	}
	if now == nil {
		return fault.New(fault.Conflict, "the new container %s was removed", draftName(a.r.Name, a.s.ID))
	}
	if a.r.Image == "" && now.Container.Image != a.old.Container.Image {
		return fault.New(fault.Conflict, "the image of container %s was tagged anew meanwhile", a.r.Name)
	}
	told, err := replica.Parse(now.Raw)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
	}
	if other := strayed(made.body, told); len(other) > 0 {
		return fault.New(fault.Internal, "the engine made the new container otherwise than the old one: %s", toldChanges(other))
	}
	return nil
}

// stop ends the old container. Its policy of restarts is taken away before, or an engine that is started meanwhile starts it.
func (a *recreation) stop(ctx context.Context) error {
	a.r.Stopped = true
	if restarts(a.r.Restart) {
		if err := a.step(ctx, "the restart policy of the old container"); err != nil {
			return err
		}
		if err := a.restartBy(ctx, a.r.Old, container.RestartPolicy{Name: container.RestartPolicyDisabled}); err != nil {
			return err
		}
	}
	a.r.Since = a.old.Container.State.StartedAt
	if err := a.step(ctx, "the stop of the old container"); err != nil {
		return err
	}
	if err := a.stopByItself(ctx, a.old.Container); err != nil {
		return err
	}
	if a.s.Need.Layer != neutral.LayerRefuse {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	changed, err := a.changedFiles(short, a.old.Container)
	if err == nil && len(changed) > 0 {
		err = fault.New(fault.Conflict, "container %s changed files beside its volumes before it ended: %s", a.r.Name, toldChanges(changed))
	}
	return err
}

// commitDeadline bounds how long an engine may write an image of a container's files.
const commitDeadline = 5 * time.Minute

// switchImage is what the files of a container are committed to, of a domain that never is.
func switchImage(lease string) string { return "isthmus.invalid/switch:" + lease }

func (a *recreation) commit(ctx context.Context) error {
	if err := a.step(ctx, "the image of the old container's files"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commitDeadline)
	defer cancel()
	made, err := a.api.ContainerCommit(ctx, a.r.Old, client.ContainerCommitOptions{Reference: switchImage(a.s.ID)})
	a.r.Image, a.image = made.ID, switchImage(a.s.ID)
	return err
}

// takePlace gives the new container the name of the old one.
func (a *recreation) takePlace(ctx context.Context) error {
	if err := a.step(ctx, "the spare name of the old container"); err != nil {
		return err
	}
	if err := a.rename(ctx, a.r.Old, spareName(a.r.Name, a.s.ID)); err != nil {
		return err
	}
	if err := a.step(ctx, "the name of the new container"); err != nil {
		return err
	}
	return a.rename(ctx, a.r.New, a.r.Name)
}

func (c *Cluster) rename(ctx context.Context, id, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err := c.api.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: name})
	return err
}

// stopByItself stops a container by its own signal and within its own time.
func (c *Cluster) stopByItself(ctx context.Context, of container.InspectResponse) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(stopSeconds(of.Config))*time.Second+2*callDeadline)
	defer cancel()
	_, err := c.api.ContainerStop(ctx, of.ID, client.ContainerStopOptions{})
	return err
}

// restarts tells a policy by which an engine starts a container by itself.
func restarts(policy container.RestartPolicy) bool {
	return policy.Name != "" && policy.Name != container.RestartPolicyDisabled
}

func (c *Cluster) restartBy(ctx context.Context, id string, policy container.RestartPolicy) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err := c.api.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{RestartPolicy: &policy})
	return err
}

// createRaw asks for a container by a request that the client's types do not hold whole.
func (c *Cluster) createRaw(ctx context.Context, name string, body map[string]any) (string, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "the request for a container could not be written")
	}
	at := "http://" + apiHost + "/v" + c.api.ClientVersion() + "/containers/create?" + url.Values{"name": {name}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(raw))
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "the request for a container could not be written")
	}
	request.Header.Set("Content-Type", jsonMediaType)
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "the orchestrator is not reachable")
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "the orchestrator's answer broke off")
	}
	var told struct {
		ID      string `json:"Id"`
		Message string `json:"message"`
	}
	err = json.Unmarshal(answer, &told)
	switch {
	case response.StatusCode != http.StatusCreated && told.Message != "":
		return "", fault.New(fault.FromStatus(response.StatusCode), "%s", plain(told.Message))
	case err != nil || response.StatusCode != http.StatusCreated || told.ID == "":
		return "", fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
	}
	return told.ID, nil
}

// answerLimit bounds what is read of an engine's short answer.
const answerLimit = 1 << 20
