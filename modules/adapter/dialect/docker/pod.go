package docker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A Pod of several containers is a holder, which has its name, its namespaces and its volumes and does nothing, and beside
// it each container, called POD.CONTAINER, in the holder's namespaces.
const (
	labelPod       = "isthmus.io/pod"           // of all of them: the Pod's name
	labelMember    = "isthmus.io/pod-container" // of all but the holder: the name in the Pod
	labelInitial   = "isthmus.io/pod-init"      // of those that end before others begin
	labelLasting   = "isthmus.io/pod-lasting"   // of the holder: how many do not
	labelOrder     = "isthmus.io/pod-order"     // the place among the others
	labelKubePod   = "io.kubernetes.pod.name"   // as kubelets wrote them on engines, for what reads those
	labelKubeSpace = "io.kubernetes.pod.namespace"
	labelKubeName  = "io.kubernetes.container.name"
)

// holder is the id of the container whose namespaces one of a Pod runs in. A label alone makes none: it must run there.
func holderOf(labels map[string]string, mode string) string {
	id, joined := strings.CutPrefix(mode, "container:")
	if !joined || labels[labelMember] == "" {
		return ""
	}
	return id
}

// holds tells whether a container is the holder of a Pod.
func holds(labels map[string]string) bool { return labels[labelPod] != "" && labels[labelMember] == "" }

func (l *located) labelled() map[string]string {
	if l.native.Config == nil {
		return nil
	}
	return l.native.Config.Labels
}

func (l *located) holds() bool { return holds(l.labelled()) }

func (l *located) holder() string {
	if l.native.HostConfig == nil {
		return ""
	}
	return holderOf(l.labelled(), string(l.native.HostConfig.NetworkMode))
}

// podReady tells whether all containers of a Pod that are to last are ready, of those that run. They have its labels, by
// which they are found with their holder.
func podReady(holder container.Summary, running []container.Summary) bool {
	ready := 0
	for _, s := range running {
		if holderOf(s.Labels, s.HostConfig.NetworkMode) == holder.ID && s.Labels[labelInitial] == "" && isReady(s) {
			ready++
		}
	}
	return strconv.Itoa(ready) == holder.Labels[labelLasting]
}

// assembled puts the containers of each Pod into its holder. Those whose holder is gone stay what they are.
func assembled(all []*located) []*located {
	holders := map[string]*located{}
	for _, l := range all {
		if l.holds() {
			holders[l.id] = l
		}
	}
	whole := slices.DeleteFunc(slices.Clone(all), func(l *located) bool {
		h := holders[l.holder()]
		if h == nil {
			return false
		}
		m := l.shown()
		m.Name, m.Pod, m.Initial = l.labelled()[labelMember], h.name, l.labelled()[labelInitial] != ""
		h.Members = append(h.Members, m)
		h.order = append(h.order, l.labelled()[labelOrder])
		return true
	})
	for _, h := range holders {
		h.Siblings = len(h.Members)
		places := map[string]string{}
		for i := range h.Members {
			places[h.Members[i].ID] = fmt.Sprintf("%4s", h.order[i])
		}
		slices.SortStableFunc(h.Members, func(x, y neutral.Container) int { return strings.Compare(places[x.ID], places[y.ID]) })
	}
	return whole
}

// podContainers are the containers of a Pod beside its holder.
func (a *action) podContainers(ctx context.Context, holder *located) ([]*located, error) {
	list, err := a.api.ContainerList(ctx, client.ContainerListOptions{All: true,
		Filters: make(client.Filters).Add("label", labelPod+"="+holder.labelled()[labelPod])})
	if err != nil {
		return nil, faultOf(err)
	}
	var ids []string
	for _, s := range list.Items {
		if holderOf(s.Labels, s.HostConfig.NetworkMode) == holder.id {
			ids = append(ids, s.ID)
		}
	}
	return a.containersByID(ctx, ids)
}

// wholePod is a container, with its members where it holds some.
func (a *action) wholePod(ctx context.Context, found *located) (*located, error) {
	if !found.holds() {
		return found, nil
	}
	members, err := a.podContainers(ctx, found)
	if err != nil {
		return nil, err
	}
	return assembled(append(members, found))[0], nil
}

// podPlan is a Pod of several containers on its way into an engine.
type podPlan struct {
	*action
	namespace, name string
	holder          client.ContainerCreateOptions
	members         []client.ContainerCreateOptions
	mounts          [][]neutral.Mount // of each member, those that the holder has for it
	files           [][]byte
	losses          []neutral.Loss

	made []string // containers, the newest last
}

// createPod makes the containers of a Pod and starts none. When a step fails, what it made goes again; where the gateway
// itself ends between two steps, the same call makes the rest.
func (a *action) createPod(ctx context.Context, c *neutral.Container) (neutral.Result, error) {
	p := &podPlan{action: a, namespace: a.namespace(), name: c.Name}
	if p.name == "" {
		return neutral.Result{}, fault.New(fault.Invalid, "the Pod has no name")
	}
	if _, err := a.allNetworks(ctx); err != nil { // the engine's version is known after it
		return neutral.Result{}, err
	}
	if err := p.plan(ctx, c); err != nil {
		return neutral.Result{}, err
	}
	on, err := a.attachments(ctx, p.namespace, c.Networks)
	if err != nil {
		return neutral.Result{}, err
	}
	image, err := a.holderImage(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	p.holder.Config.Image = image
	networks, err := a.makeAttached(ctx, p.namespace, on)
	var id string
	if err == nil {
		id, err = p.make(ctx, c, on)
	}
	if err != nil {
		for _, id := range slices.Backward(p.made) {
			a.undoContainer(ctx, id)
		}
		a.undoNetworks(ctx, networks)
		return neutral.Result{}, faultOf(err)
	}
	result := neutral.Result{ID: id, Losses: p.losses}
	now, err := a.containerByID(ctx, id)
	if err == nil {
		now, err = a.wholePod(ctx, now)
	}
	if err != nil {
		return result, err
	}
	shown := now.shown()
	result.Container = &shown
	return result, nil
}

// plan writes what is asked of the engine, and asks policy about each container.
func (p *podPlan) plan(ctx context.Context, c *neutral.Container) error {
	b := &specBuilder{namespace: p.namespace, version: p.engineVersion()}
	held := *c
	held.Members, held.Mounts, held.Image = nil, nil, holderRepository
	config, host := b.containerSpec(&held)
	if len(c.Mounts) > holderPlaces {
		b.refuse("volumes", "the containers of a Pod share "+strconv.Itoa(holderPlaces)+" volumes at most")
	}
	for i, m := range c.Mounts {
		host.Mounts = append(host.Mounts, sharedVolume(m, i))
	}
	config.StopSignal = "SIGKILL" // it hears no other
	if host.IpcMode == "" {
		host.IpcMode = container.IPCModeShareable
	}
	config.Labels = b.containerLabels(&held, p.op.Peer)
	p.label(config.Labels, "POD")
	lasting := 0
	for i := range c.Members {
		if !c.Members[i].Initial {
			lasting++
		}
	}
	config.Labels[labelLasting] = strconv.Itoa(lasting)
	p.holder = client.ContainerCreateOptions{Config: config, HostConfig: host, Name: dockerName(p.namespace, p.name)}
	if b.err != nil {
		return b.err
	}
	if err := p.permitContainer(ctx, p.namespace, p.name, &held, config.Labels); err != nil {
		return err
	}
	for i := range c.Members {
		if err := p.member(ctx, &c.Members[i], c.Labels, i); err != nil {
			return err
		}
	}
	p.losses = append(b.losses, p.losses...)
	return nil
}

// label marks a container of the Pod.
func (p *podPlan) label(labels map[string]string, name string) {
	labels[labelPod], labels[labelKubePod], labels[labelKubeSpace], labels[labelKubeName] = p.name, p.name, p.namespace, name
}

// sharedVolume is a volume of the holder's, which nobody named and which goes with it. One in memory is a file system of
// its own: a tmpfs of an engine is one container's.
func sharedVolume(m neutral.Mount, i int) mount.Mount {
	volume := mount.Mount{Type: mount.TypeVolume, Target: holderPlace(i)}
	if m.Type == string(mount.TypeTmpfs) {
		options := "mode=1777"
		if m.Size > 0 {
			options += ",size=" + strconv.FormatInt(m.Size, 10)
		}
		volume.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "local",
			Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": options}}}
	}
	return volume
}

func (p *podPlan) member(ctx context.Context, m *neutral.Container, labels map[string]string, i int) error {
	b := &specBuilder{namespace: p.namespace, version: p.engineVersion()}
	own, shared := *m, []neutral.Mount(nil)
	own.Mounts = nil
	for _, mount := range m.Mounts {
		if mount.Type == neutral.MountShared {
			shared = append(shared, mount)
		} else {
			own.Mounts = append(own.Mounts, mount)
		}
	}
	own.Labels, own.Origin, own.Losses, own.Networks = labels, nil, nil, nil
	share := func(mode *string) bool {
		is := *mode == neutral.ShareHolder
		if is {
			*mode = ""
		}
		return is
	}
	pid, ipc := share(&own.Security.PIDMode), share(&own.Security.IPCMode)
	config, host := b.containerSpec(&own)
	config.Labels = b.containerLabels(&own, "")
	p.label(config.Labels, m.Name)
	config.Labels[labelMember], config.Labels[labelOrder] = m.Name, strconv.Itoa(i)
	if m.Initial {
		config.Labels[labelInitial] = "true"
	}
	if b.err != nil {
		return b.err
	}
	host.NetworkMode = shareMode
	if pid {
		host.PidMode = shareMode
	}
	if ipc {
		host.IpcMode = shareMode
	}
	if err := p.permitContainer(ctx, p.namespace, p.name, &own, config.Labels); err != nil {
		return err
	}
	if err := p.permitVolumes(ctx, p.namespace, own.Mounts); err != nil {
		return err
	}
	files, err := p.configFiles(ctx, p.namespace, m.Files)
	if err != nil {
		return err
	}
	p.members = append(p.members, client.ContainerCreateOptions{Config: config, HostConfig: host, Name: dockerName(p.namespace, p.name+"."+m.Name)})
	p.mounts, p.files, p.losses = append(p.mounts, shared), append(p.files, files), append(p.losses, b.losses...)
	return nil
}

// shareMode stands for the holder until its id is known.
const shareMode = "container:"

// make makes the containers that are not there yet.
func (p *podPlan) make(ctx context.Context, c *neutral.Container, on []attached) (string, error) {
	held := *c
	later := networking(&p.holder, &held, "", on, &specBuilder{namespace: p.namespace, version: p.engineVersion()})
	made, err := p.api.ContainerCreate(ctx, p.holder) // its image is pulled from nowhere
	switch {
	case cerrdefs.IsConflict(err):
		there, err := p.begun(ctx)
		if err != nil {
			return "", err
		}
		made.ID = there
	case err != nil:
		return "", err
	default:
		p.made = append(p.made, made.ID)
		p.warn(made.Warnings)
		if err := p.finishContainer(ctx, made.ID, later, nil, p.namespace, p.name); err != nil {
			return "", err
		}
	}
	inspected, err := p.api.ContainerInspect(ctx, made.ID, client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	volumes := map[string]string{}
	for _, m := range inspected.Container.Mounts {
		volumes[m.Destination] = m.Name
	}
	for i := range p.members {
		for _, m := range p.mounts[i] {
			at := slices.IndexFunc(c.Mounts, func(held neutral.Mount) bool { return held.Target == m.Source })
			if at < 0 || volumes[holderPlace(at)] == "" {
				return "", fault.New(fault.Invalid, "the Pod has no volume %s", m.Source)
			}
			p.members[i].HostConfig.Mounts = append(p.members[i].HostConfig.Mounts, mount.Mount{Type: mount.TypeVolume,
				Source: volumes[holderPlace(at)], Target: m.Target, ReadOnly: m.ReadOnly, VolumeOptions: &mount.VolumeOptions{NoCopy: true}})
		}
		if err := p.makeMember(ctx, i, made.ID); err != nil {
			return "", err
		}
	}
	if len(p.made) == 0 {
		return "", taken("pod", p.name)
	}
	return made.ID, nil
}

// begun is the holder of the same Pod, which was begun before and not finished.
func (p *podPlan) begun(ctx context.Context) (string, error) {
	found, err := p.api.ContainerInspect(ctx, p.holder.Name, client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	config := found.Container.Config
	if config == nil || config.Labels[labelOrigin] != p.holder.Config.Labels[labelOrigin] {
		return "", taken("container", p.holder.Name)
	}
	if !holds(config.Labels) || config.Image != p.holder.Config.Image { // a document can be copied
		return "", fault.New(fault.Unprocessable, "container %s has the document of Pod %s and holds no Pod", p.holder.Name, p.name)
	}
	return found.Container.ID, nil
}

// makeMember makes one container in the holder's namespaces. One that is there already is left; one of a holder that is
// gone makes way.
func (p *podPlan) makeMember(ctx context.Context, i int, holder string) error {
	options := p.members[i]
	options.HostConfig.NetworkMode = container.NetworkMode(shareMode + holder)
	if options.HostConfig.PidMode == shareMode {
		options.HostConfig.PidMode = container.PidMode(shareMode + holder)
	}
	if options.HostConfig.IpcMode == shareMode {
		options.HostConfig.IpcMode = container.IpcMode(shareMode + holder)
	}
	made, err := p.makeContainer(ctx, options)
	if fault.Is(err, fault.Conflict) || cerrdefs.IsConflict(err) {
		there, stale := p.makesWay(ctx, options, holder)
		switch {
		case there:
			return nil
		case stale == "":
			return err
		}
		if _, err := p.api.ContainerRemove(ctx, stale, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !cerrdefs.IsNotFound(err) {
			return err
		}
		made, err = p.makeContainer(ctx, options)
	}
	if err != nil {
		return err
	}
	p.made = append(p.made, made.ID)
	p.warn(made.Warnings)
	return p.finishContainer(ctx, made.ID, nil, p.files[i], p.namespace, options.Name)
}

// makesWay tells whether a member is there already, or which container of a former Pod has its name.
func (p *podPlan) makesWay(ctx context.Context, options client.ContainerCreateOptions, holder string) (there bool, stale string) {
	found, err := p.api.ContainerInspect(ctx, options.Name, client.ContainerInspectOptions{})
	if err != nil || found.Container.Config == nil || found.Container.HostConfig == nil {
		return false, ""
	}
	of := holderOf(found.Container.Config.Labels, string(found.Container.HostConfig.NetworkMode))
	if of == holder {
		return true, ""
	}
	if of == "" {
		return false, ""
	}
	if _, err := p.api.ContainerInspect(ctx, of, client.ContainerInspectOptions{}); cerrdefs.IsNotFound(err) {
		return false, found.Container.ID
	}
	return false, ""
}

func (p *podPlan) warn(warnings []string) {
	for _, warning := range warnings {
		p.losses = append(p.losses, neutral.Loss{Field: "container", Change: warning})
	}
}

// removePod removes a Pod's containers, its volumes with them. The holder ends first and goes last: as long as it is there
// the Pod can be found and its removal be asked for again, and one whose holder has ended is not begun anew.
func (a *action) removePod(ctx context.Context, holder *located) error {
	members, err := a.podContainers(ctx, holder)
	if err != nil {
		return err
	}
	if _, err := a.api.ContainerKill(ctx, holder.id, client.ContainerKillOptions{Signal: "SIGKILL"}); err != nil &&
		!cerrdefs.IsConflict(err) && !cerrdefs.IsNotFound(err) { // it does not run
		return faultOf(err)
	}
	for _, m := range members {
		if err := a.removeWhole(ctx, m.id); err != nil {
			return err
		}
	}
	return a.removeWhole(ctx, holder.id)
}

func (a *action) removeWhole(ctx context.Context, id string) error {
	_, err := a.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return faultOf(err)
}
