package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

var _ dialect.Replicator = Dialect{}

// replicaKinds are the kinds that can be copied, by the words of callers of any orchestrator.
var replicaKinds = map[string]string{
	"container": "container", "containers": "container", "pod": "container", "pods": "container",
	"service": "service", "services": "service", "deployment": "service", "deployments": "service", "workload": "service",
	"daemonset": "service", "daemonsets": "service", "job": "service", "jobs": "service",
	"config": "config", "configs": "config", "configmap": "config", "configmaps": "config",
	"secret": "secret", "secrets": "secret", "network": "network", "networks": "network",
}

// replicator makes one draft.
type replicator struct {
	read  dialect.Read
	from  dialect.ObjectRef
	to    dialect.Place
	draft dialect.Draft
}

// Replicate reads an object of an engine, or of what speaks as one.
func (Dialect) Replicate(ctx context.Context, read dialect.Read, from dialect.ObjectRef, to dialect.Place) (dialect.Draft, error) {
	kind, ok := replicaKinds[from.Kind]
	if !ok {
		return dialect.Draft{}, fault.New(fault.Unsupported, "a %s cannot be copied by a docker gateway: containers, services, configs, "+
			"secrets and networks can", from.Kind)
	}
	for _, n := range []struct {
		foreign bool
		of      string
	}{{to.Origin, from.Namespace}, {to.Foreign, to.Namespace}} {
		if n.foreign && n.of != defaultNamespace {
			return dialect.Draft{}, fault.New(fault.Unsupported, "docker knows one namespace of a cluster of another orchestrator, which is called "+
				"default here; for namespace %s, copy at the gateway of that cluster", n.of)
		}
	}
	from.Kind = kind
	r := &replicator{read: read, from: from, to: to}
	if to.Origin {
		from.Namespace = ""
	}
	r.draft.Object = dialect.ObjectRef{Cluster: to.Cluster, Namespace: to.Namespace, Kind: kind, Name: to.Name}
	var err error
	switch kind {
	case "container":
		err = r.container(ctx, dockerName(from.Namespace, from.Name))
	case "service":
		err = r.service(ctx, dockerName(from.Namespace, from.Name))
	case "network":
		err = r.network(ctx, dockerName(from.Namespace, from.Name))
	default:
		err = r.stored(ctx, kind, dockerName(from.Namespace, from.Name))
	}
	if err != nil {
		return dialect.Draft{}, err
	}
	replica.Prune(r.draft.Body)
	r.draft.Left = append(r.draft.Left, replica.Hidden(r.draft.Body, from.Cluster)...)
	return r.draft, nil
}

// Alike tells whether a create is one of the kind that is meant by the word.
func (Dialect) Alike(req dialect.Request, kind string) bool {
	path, _, _ := strings.Cut(req.Path, "?")
	kind, ok := replicaKinds[kind]
	return !ok || strings.HasSuffix(path, "/"+kind+"s/create")
}

// same tells whether the copy is made beside its source.
func (r *replicator) same() bool { return r.from.Cluster == r.to.Cluster }

// target is what the engine calls the copy.
func (r *replicator) target() string {
	if r.to.Foreign {
		return r.to.Name
	}
	return dockerName(r.to.Namespace, r.to.Name)
}

func (r *replicator) left(field, reason string) {
	r.draft.Left = append(r.draft.Left, dialect.Left{Field: field, Reason: reason})
}

func (r *replicator) needed(field, reason string) {
	r.draft.Left = append(r.draft.Left, dialect.Left{Field: field, Reason: reason, Needed: true})
}

// get reads one object, in the newest version that the API has.
func (r *replicator) get(ctx context.Context, path string) (map[string]any, error) {
	response, err := r.read(ctx, dialect.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return nil, err
	}
	return replica.Parse(response.Body)
}

// requests are how the copy is made, read and taken back.
func (r *replicator) requests(collection, query string) {
	name := url.PathEscape(r.target())
	suffix := ""
	if collection == "containers" {
		suffix = "/json"
	}
	header := http.Header{"Content-Type": {jsonMediaType}}
	r.draft.Create = dialect.Request{Method: http.MethodPost, Path: "/" + collection + "/create" + query, Header: header}
	r.draft.Get = dialect.Request{Method: http.MethodGet, Path: "/" + collection + "/" + name + suffix}
	r.draft.Remove = dialect.Request{Method: http.MethodDelete, Path: "/" + collection + "/" + name}
}

// labels are an object's labels as the copy has them: what says of which stack, project or service it is, and what the
// gateway keeps, stays behind.
func (r *replicator) labels(field string, body map[string]any) {
	labels, _ := body["Labels"].(map[string]any)
	kept := map[string]any{}
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		switch {
		case ownLabel(label), label == labelLosses, label == labelOwner, label == dialect.CopyFrom, label == dialect.CopiedFrom,
			label == labelStack: // which is what the copy's namespace says
		case strings.HasPrefix(label, "com.docker.compose.") || strings.HasPrefix(label, "com.docker.stack.") || strings.HasPrefix(label, "com.docker.swarm."):
			r.left(field+"["+label+"]", "it says of which project, stack or service the source is")
		default:
			kept[label] = labels[label]
		}
	}
	if !r.to.Foreign && r.to.Namespace != defaultNamespace {
		kept[labelStack] = r.to.Namespace
	}
	body["Labels"] = kept
}

// image is the image by its digest, where the source's cluster knows one.
func (r *replicator) image(ctx context.Context, field, image string) string {
	if strings.Contains(image, "@") || image == "" {
		return image
	}
	found, err := r.get(ctx, "/images/"+strings.ReplaceAll(url.PathEscape(image), "%2F", "/")+"/json")
	if err == nil {
		for _, d := range replica.List(found, "RepoDigests") {
			text, _ := d.(string)
			repository, digest, ok := strings.Cut(text, "@")
			if ok && digest != "" && familiar(repository) == familiar(repositoryOf(image)) {
				return image + "@" + digest
			}
		}
	}
	r.left(field, "the source's cluster knows no digest of "+image+": the copy runs what its own cluster finds under this name")
	return image
}

// repositoryOf is an image's name without its tag.
func repositoryOf(image string) string {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}

// familiar is a repository in docker's short form.
func familiar(repository string) string {
	repository = strings.TrimPrefix(repository, "docker.io/")
	return strings.TrimPrefix(repository, "library/")
}

// stored reads a config or a secret. An engine tells the value of a secret to nobody.
func (r *replicator) stored(ctx context.Context, kind, name string) error {
	found, err := r.get(ctx, "/"+kind+"s/"+url.PathEscape(name))
	if err != nil {
		return err
	}
	spec := replica.Object(found, "Spec")
	if spec == nil {
		return unlike(kind)
	}
	body, _ := replica.Clone(spec).(map[string]any)
	r.labels("Spec.Labels", body)
	body["Name"] = r.target()
	r.requests(kind+"s", "")
	r.draft.Body = body
	if kind == "secret" && replica.Empty(body["Data"]) && replica.Empty(body["Driver"]) {
		r.needed("Spec.Data", "docker tells the value of a secret to nobody: make secret "+r.target()+" in "+r.to.Cluster+" yourself")
	}
	return nil
}

// network reads a network, which is made anew with addresses of its own.
func (r *replicator) network(ctx context.Context, name string) error {
	found, err := r.get(ctx, "/networks/"+url.PathEscape(name))
	if err != nil {
		return err
	}
	body := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		switch key {
		case "Driver", "Options", "Internal", "Attachable", "Labels", "EnableIPv4", "EnableIPv6":
			body[key] = replica.Clone(found[key])
		case "IPAM":
			for _, config := range replica.List(found, "IPAM", "Config") {
				if !replica.Empty(config) {
					r.left("IPAM", "the copy's cluster gives a network its own addresses")
					break
				}
			}
		case "Name", "Id", "Created", "Scope", "Containers", "Peers", "Services", "ConfigFrom", "ConfigOnly", "Ingress", "Status": // its own
		default:
			if !replica.Empty(found[key]) {
				r.left(key, "it is not known what this is")
			}
		}
	}
	for _, option := range slices.Sorted(maps.Keys(replica.Object(body, "Options"))) {
		if strings.Contains(option, "vxlanid") || strings.HasPrefix(option, "com.docker.network.bridge.") || option == "parent" {
			r.left("Options["+option+"]", "it is of the source's hosts")
			delete(replica.Object(body, "Options"), option)
		}
	}
	if r.to.Foreign {
		for _, option := range []string{"EnableIPv4", "Attachable"} {
			delete(body, option)
		}
	}
	r.labels("Labels", body)
	body["Name"] = r.target()
	r.requests("networks", "")
	r.draft.Body = body
	return nil
}

func unlike(kind string) error {
	return fault.New(fault.Unavailable, "what was read is not what docker tells of a %s", kind)
}

// found reads what a need's Get answered.
func found(answer []byte, key string) (string, error) {
	var object map[string]json.RawMessage
	var text string
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&object); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "the target's answer could not be read")
	}
	if err := json.Unmarshal(object[key], &text); err != nil || text == "" {
		return "", fault.Wrap(fault.Unavailable, err, "the target's answer has no %s", key)
	}
	return text, nil
}
