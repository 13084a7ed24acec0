package docker

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
)

// Members of an inspected service that are its own.
var ownOfService = []string{"ID", "Version", "CreatedAt", "UpdatedAt", "PreviousSpec", "Endpoint", "UpdateStatus", "ServiceStatus", "JobStatus"}

// service reads a service, and the names of its networks, which its spec has by their ids.
func (r *replicator) service(ctx context.Context, name string) error {
	inspect, err := r.get(ctx, "/services/"+url.PathEscape(name))
	if err != nil {
		return err
	}
	networks := map[string]string{}
	for _, at := range [][]string{{"Spec", "TaskTemplate", "Networks"}, {"Spec", "Networks"}} {
		for _, element := range replica.List(inspect, at...) {
			attachment, _ := element.(map[string]any)
			id, _ := attachment["Target"].(string)
			if mode, predefined := predefinedNetwork(id); predefined {
				networks[id] = string(mode)
				continue
			}
			network, err := r.get(ctx, "/networks/"+url.PathEscape(id))
			if err != nil {
				return err
			}
			networks[id], _ = network["Name"].(string)
		}
	}
	if err := r.serviceDraft(inspect, networks); err != nil {
		return err
	}
	container := replica.Object(r.draft.Body, "TaskTemplate", "ContainerSpec")
	container["Image"] = r.image(ctx, "Spec.TaskTemplate.ContainerSpec.Image", replica.Text(container, "Image"))
	return nil
}

// serviceDraft is the pure part: what a service that was inspected is made by. Networks are their names by id.
func (r *replicator) serviceDraft(inspect map[string]any, networks map[string]string) error {
	spec, ok := replica.Clone(inspect["Spec"]).(map[string]any)
	container := replica.Object(spec, "TaskTemplate", "ContainerSpec")
	if !ok || container == nil {
		return unlike("service")
	}
	for _, key := range slices.Sorted(maps.Keys(inspect)) {
		if key != "Spec" && !slices.Contains(ownOfService, key) && !replica.Empty(inspect[key]) {
			r.left(key, "it is not known what this is")
		}
	}
	task := replica.Object(spec, "TaskTemplate")
	delete(task, "ForceUpdate") // how often the source was started anew
	r.labels("Spec.Labels", spec)
	r.labels("Spec.TaskTemplate.ContainerSpec.Labels", container)
	container["Mounts"] = r.mounts("Spec.TaskTemplate.ContainerSpec.Mounts", replica.List(container, "Mounts"))
	for _, of := range []map[string]any{task, spec} {
		r.attachments(of, networks)
	}
	r.placement(replica.Object(task, "Placement"))
	for _, element := range replica.List(spec, "EndpointSpec", "Ports") {
		port, _ := element.(map[string]any)
		if published := fmt.Sprint(port["PublishedPort"]); r.same() && port["PublishedPort"] != nil && published != "0" {
			r.left("Spec.EndpointSpec.Ports["+fmt.Sprint(port["TargetPort"])+"]", "port "+published+" of the nodes is the source's: the copy gets one that is free")
			delete(port, "PublishedPort")
		}
	}
	if !r.same() {
		if !replica.Empty(container["Hosts"]) {
			r.left("Spec.TaskTemplate.ContainerSpec.Hosts", "addresses are the source's cluster's")
			delete(container, "Hosts")
		}
		if dns := replica.Object(container, "DNSConfig"); !replica.Empty(dns["Nameservers"]) {
			r.left("Spec.TaskTemplate.ContainerSpec.DNSConfig.Nameservers", "addresses are the source's cluster's")
			delete(dns, "Nameservers")
		}
		r.files(container, "secret")
		r.files(container, "config")
	}
	spec["Name"] = r.target()
	r.draft.Body = spec
	r.requests("services", "")
	return nil
}

// attachments are the networks of a service, by their names.
func (r *replicator) attachments(of map[string]any, networks map[string]string) {
	for i, element := range replica.List(of, "Networks") {
		attachment, ok := element.(map[string]any)
		if !ok {
			continue
		}
		id, _ := attachment["Target"].(string)
		name := networks[id]
		if name == "" {
			name = id
		}
		attachment["Target"] = name
		if aliases := replica.List(attachment, "Aliases"); r.same() && len(aliases) > 0 {
			r.left(fmt.Sprintf("Spec.TaskTemplate.Networks[%d].Aliases", i), "callers of these names mean the source")
			delete(attachment, "Aliases")
		}
		if _, predefined := predefinedNetwork(name); !predefined {
			r.needNetwork(name)
		}
	}
}

// placement takes out constraints that name the source's own nodes.
func (r *replicator) placement(placement map[string]any) {
	if r.same() || placement == nil {
		return
	}
	var kept []any
	for i, constraint := range replica.List(placement, "Constraints") {
		text, _ := constraint.(string)
		key := strings.TrimSpace(text)
		if strings.HasPrefix(key, "node.id") || strings.HasPrefix(key, "node.hostname") || strings.HasPrefix(key, "node.ip") {
			r.left(fmt.Sprintf("Spec.TaskTemplate.Placement.Constraints[%d]", i), "it names nodes of the source's cluster")
			continue
		}
		kept = append(kept, constraint)
	}
	placement["Constraints"] = kept
}

// files are the secrets or configs of a service: they must be there, and have other ids there.
func (r *replicator) files(container map[string]any, kind string) {
	key, id, name := "Secrets", "SecretID", "SecretName"
	if kind == "config" {
		key, id, name = "Configs", "ConfigID", "ConfigName"
	}
	for _, element := range replica.List(container, key) {
		reference, _ := element.(map[string]any)
		called, _ := reference[name].(string)
		delete(reference, id)
		isNamed := func(element any) bool {
			reference, _ := element.(map[string]any)
			return reference[name] == called
		}
		within := func(body map[string]any) map[string]any { return replica.Object(body, "TaskTemplate", "ContainerSpec") }
		r.draft.Needs = append(r.draft.Needs, dialect.Need{
			ObjectRef: dialect.ObjectRef{Cluster: r.from.Cluster, Namespace: defaultNamespace, Kind: kind, Name: called},
			Bind: func(body map[string]any, answer []byte) error {
				is, err := found(answer, "ID")
				if err != nil {
					return err
				}
				for _, element := range replica.List(within(body), key) {
					if reference, _ := element.(map[string]any); isNamed(element) {
						reference[id] = is
					}
				}
				return nil
			},
			Drop: func(body map[string]any) {
				within(body)[key] = slices.DeleteFunc(replica.List(within(body), key), isNamed)
			},
		})
	}
}
