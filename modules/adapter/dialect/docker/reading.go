package docker

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Reader = (*Cluster)(nil)

// rules are what the API's fields hold.
var rules = &mask.Rules{
	Images:       map[string]bool{"Image": true, "image": true, "RepoTags": true, "RepoDigests": true, "from": true, "FromImage": true},
	Environments: map[string]bool{"Env": true},
	Commands:     map[string]bool{"CreatedBy": true},
	Credentials: map[string]bool{"JoinTokens": true, "UnlockKey": true, "IdentityToken": true, "RegistryToken": true,
		"registrytoken": true, "identitytoken": true, "Password": true, "password": true, "auth": true},
}

// unread are the actions whose answers are a container's own, or an image's, and those whose head alone is waited for.
var unread = map[neutral.Action]bool{
	neutral.SystemPing: true, neutral.SystemVersion: true, neutral.SystemAuth: true, neutral.ContainerLogs: true, neutral.ContainerAttach: true,
	neutral.ExecStart: true, neutral.ContainerStats: true, neutral.ContainerTop: true, neutral.ContainerChanges: true,
	neutral.ContainerExport: true, neutral.ContainerCopyIn: true, neutral.ContainerCopyOut: true, neutral.ContainerWait: true,
	neutral.WorkloadLogs: true, neutral.TaskLogs: true, neutral.ImageBuild: true,
}

// elements are the actions that answer with a list of objects, by the key of the list.
var elements = map[neutral.Action]string{
	neutral.ContainerList: "", neutral.ImageList: "", neutral.NetworkList: "", neutral.WorkloadList: "", neutral.TaskList: "",
	neutral.NodeList: "", neutral.SecretList: "", neutral.ConfigList: "", neutral.VolumeList: "Volumes",
}

// Reading leaves unread what is a container's own, its output, its files, what is sent to its processes, and the images
// that are built, saved and loaded: the rest is objects.
func (c *Cluster) Reading(op neutral.Operation, head dialect.Request) (*dialect.Reading, error) {
	target, err := head.URL()
	if err != nil {
		return nil, fault.New(fault.Invalid, "the request's path cannot be parsed")
	}
	reading := &dialect.Reading{Rules: rules, Body: func(req dialect.Request) ([]byte, string, bool) { return req.Body, "", json.Valid(req.Body) }}
	if live, ok := strings.CutSuffix(target.Path, "/update"); ok && op.Action != neutral.ContainerUpdate { // of a spec that is replaced whole
		reading.Live, reading.LiveKey = (&url.URL{Path: live}).EscapedPath(), "Spec"
	}
	reading.Reveals = hiddenReference(op)
	if reading.Reveals == "" {
		reading.Reveals, reading.Sought = hiddenFilters(op, target.Query())
	}
	switch op.Action {
	case neutral.VolumeCreate:
		reading.Always, reading.Created = true, createdVolume
	case neutral.ImageExport: // save is an image, push tells how it goes
		if !strings.HasSuffix(target.Path, "/push") {
			return nil, nil
		}
		reading.Sequence = true
	case neutral.ImagePull:
		reading.Sequence = true
	case neutral.ContainerCommit:
		if strings.Contains(strings.Join(target.Query()["changes"], ""), "$") {
			reading.Reveals = "a change of a commit can be no variable, whose value it would show"
		}
	case neutral.NetworkGet:
		reading.Part = func(ctx context.Context) dialect.Part {
			return func(key string, member []byte, see func(neutral.Object) bool) ([]byte, error) {
				return c.onNetwork(ctx, key, member, see)
			}
		}
	case neutral.ExecCreate:
		reading.Always = true // whose the exec is stays known
	case neutral.EventWatch:
		reading.Sequence, reading.Always = true, true
		reading.Filter = func(ctx context.Context) dialect.Filter {
			return func(element []byte, see func(neutral.Object) bool) ([]byte, error) {
				return seenEvent(element, see, func(id string) (bool, error) { return c.seenByID(ctx, id, see) })
			}
		}
	case neutral.SystemUsage: // it lists everything, also to one who may ask about the system alone
		reading.Always, reading.Lists = true, map[string]bool{"Containers": true, "Images": true, "Volumes": true, "BuildCache": true}
		reading.Part = func(ctx context.Context) dialect.Part {
			return func(key string, member []byte, see func(neutral.Object) bool) ([]byte, error) {
				return c.usedPart(ctx, key, member, see)
			}
		}
		reading.Filter = func(ctx context.Context) dialect.Filter {
			return func(element []byte, see func(neutral.Object) bool) ([]byte, error) {
				return (&listing{cluster: c, ctx: ctx, kind: usedKind(element)}).see(element, see)
			}
		}
	case neutral.ObjectRaw:
		if op.Object.Resource != "plugins" {
			return nil, nil
		}
		last := target.Path[strings.LastIndexByte(target.Path, '/')+1:]
		if last == "create" { // of files
			return nil, nil
		}
		reading.Sequence = last == "pull" || last == "push" || last == "upgrade"
	default:
		if unread[op.Action] {
			return nil, nil
		}
	}
	if reading.Sequence {
		reading.Accept = jsonMediaType // newer engines have events in other framings too
	}
	if list, ok := elements[op.Action]; ok {
		reading.Lists = map[string]bool{list: true}
		reading.Always = op.Action == neutral.NetworkList
		reading.Filter = func(ctx context.Context) dialect.Filter {
			return (&listing{cluster: c, ctx: ctx, kind: op.Object.Kind}).see
		}
	}
	return reading, nil
}

// usedKind tells what an element of the disk's usage is, which does not say it.
func usedKind(element []byte) neutral.Kind {
	var found struct{ Names, RepoTags, RepoDigests, Mountpoint, InUse json.RawMessage }
	if err := json.Unmarshal(element, &found); err != nil {
		return neutral.KindOther
	}
	switch {
	case found.Names != nil:
		return neutral.KindContainer
	case found.RepoTags != nil, found.RepoDigests != nil:
		return neutral.KindImage
	case found.Mountpoint != nil:
		return neutral.KindVolume
	case found.InUse != nil: // what builds keep, which tells of their commands: images in the making
		return neutral.KindImage
	}
	return neutral.KindOther
}

// Foreign is nothing: an engine answers itself.
func (c *Cluster) Foreign(neutral.Operation) bool { return false }

// seenEvent gives an event to one who may watch what it is about, and the container that a network or a volume has to do
// with.
func seenEvent(element []byte, see func(neutral.Object) bool, byID func(id string) (bool, error)) ([]byte, error) {
	var event struct {
		Type  string
		Actor struct {
			ID         string
			Attributes map[string]string
		}
	}
	if err := json.Unmarshal(element, &event); err != nil {
		return nil, unreadableElement(err)
	}
	kind, ok := eventKinds[event.Type]
	if !ok {
		kind = neutral.KindOther
	}
	name := event.Actor.Attributes["name"]
	if name == "" {
		name = event.Actor.ID
	}
	// The attributes are the labels, and a few things more.
	object := objectFrom(kind, name, event.Actor.Attributes)
	object.Resource = ""
	if kind == neutral.KindOther {
		object.Resource = event.Type
	}
	if !see(object) {
		return nil, nil
	}
	if with := event.Actor.Attributes["container"]; with != "" && (kind == neutral.KindNetwork || kind == neutral.KindVolume) {
		if seen, err := byID(with); err != nil || !seen {
			return nil, err
		}
	}
	return element, nil
}

// listing filters a list.
type listing struct {
	cluster *Cluster
	//nolint:containedctx // it lives as long as the one answer
	ctx      context.Context
	kind     neutral.Kind
	services map[string]swarm.Annotations // for tasks, by id; read once
}

// entry is what of any element of docker's lists policy speaks of.
type entry struct {
	ID          string `json:"Id"`
	Name        string
	Names       []string
	RepoTags    []string
	Labels      map[string]string
	ServiceID   string
	Spec        swarm.Annotations
	Description json.RawMessage // of a node an object, of a build's cache a text
	Driver      string
	Options     map[string]string
}

func (l *listing) see(element []byte, see func(neutral.Object) bool) ([]byte, error) {
	var e entry
	if err := json.Unmarshal(element, &e); err != nil {
		return nil, unreadableElement(err)
	}
	visible := false
	switch l.kind {
	case neutral.KindContainer:
		for i, name := range e.Names {
			e.Names[i] = strings.TrimPrefix(name, "/")
		}
		name := e.ID
		for _, n := range e.Names {
			if !strings.Contains(n, "/") { // the others are links of other containers to it
				name = n
			}
		}
		visible = see(objectFrom(l.kind, name, e.Labels)) || l.looksRight(e.ID, see)
	case neutral.KindImage:
		names := e.RepoTags
		if len(names) == 0 {
			names = []string{e.ID}
		}
		for _, name := range names {
			visible = visible || see(objectFrom(l.kind, name, e.Labels))
		}
	case neutral.KindTask:
		service, err := l.service(e.ServiceID)
		if err != nil {
			return nil, err
		}
		visible = see(objectFromAnnotations(l.kind, service))
	case neutral.KindNode:
		var described struct{ Hostname string }
		if len(e.Description) > 0 {
			if err := json.Unmarshal(e.Description, &described); err != nil {
				return nil, unreadableElement(err)
			}
		}
		visible = see(objectFrom(l.kind, described.Hostname, e.Spec.Labels))
	case neutral.KindWorkload, neutral.KindSecret, neutral.KindConfig:
		visible = see(objectFromAnnotations(l.kind, e.Spec))
	case neutral.KindVolume:
		source := volumeSource(e.Driver, e.Options)
		object := objectFrom(l.kind, e.Name, e.Labels)
		object.Volume = &source
		visible = see(object)
	case neutral.KindNetwork:
		visible = !ofLease(e.Labels) && see(objectFrom(l.kind, e.Name, e.Labels))
	default:
		visible = see(objectFrom(l.kind, e.Name, e.Labels))
	}
	if !visible {
		return nil, nil
	}
	if l.kind == neutral.KindNetwork {
		return l.cluster.networkElement(l.ctx, element, see)
	}
	return element, nil
}

// looksRight judges a container by its spec, which lists do not hold. One that is gone meanwhile is not seen.
func (l *listing) looksRight(id string, see func(neutral.Object) bool) bool {
	object, err := l.cluster.lookupContainer(l.ctx, id)
	return err == nil && see(object)
}

// service is what a task's service is called.
func (l *listing) service(id string) (swarm.Annotations, error) {
	if l.services == nil {
		found, err := l.cluster.api.ServiceList(l.ctx, client.ServiceListOptions{})
		if err != nil {
			return swarm.Annotations{}, faultOf(err)
		}
		l.services = map[string]swarm.Annotations{}
		for _, s := range found.Items {
			l.services[s.ID] = s.Spec.Annotations
		}
	}
	return l.services[id], nil
}

func unreadableElement(err error) error {
	return fault.Wrap(fault.Unavailable, err, "an object in the engine's answer could not be read")
}
