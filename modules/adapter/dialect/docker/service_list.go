package docker

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// nativeService is what the neutral model calls a swarm's service.
const nativeService = "Service"

// service is a workload with the service that it was read from. Its volumes and files have the engine's names.
type service struct {
	neutral.Workload
	named
	native swarm.Service
}

// shown is the workload with the names that a caller knows.
func (s *service) shown() neutral.Workload {
	w := s.Workload
	w.Template = localized(w.Template, s.namespace)
	return w
}

// localized gives volumes and files of a namespace the names that they have within it.
func localized(c neutral.Container, namespace string) neutral.Container {
	c.Mounts = slices.Clone(c.Mounts)
	for i, m := range c.Mounts {
		if m.Type == string(neutral.KindVolume) {
			c.Mounts[i].Source = shortName(namespace, m.Source)
		}
	}
	c.Files = slices.Clone(c.Files)
	for i, f := range c.Files {
		c.Files[i].Name = shortName(namespace, f.Name)
	}
	return c
}

// shortName is dockerName's reverse for names that stand without labels.
func shortName(namespace, name string) string {
	if namespace == "" || namespace == defaultNamespace {
		return name
	}
	return strings.TrimPrefix(name, namespace+"_")
}

// serviceFromSwarm reads a service.
func serviceFromSwarm(native swarm.Service, networks []network.Summary) (*service, error) {
	spec := native.Spec
	w, err := workloadFromSpec(spec)
	if err != nil {
		return nil, err
	}
	s := &service{native: native, named: nameOf(native.ID, spec.Name, spec.Labels)}
	kept := readBeside(spec.Labels)
	w.ID, w.Name, w.Namespace, w.Native = native.ID, s.name, s.namespace, nativeService
	w.Labels, w.Origin, w.Losses = kept.labels, kept.origin, kept.losses
	w.Version = native.Version.String()
	w.CreatedAt, w.UpdatedAt = native.CreatedAt, native.UpdatedAt
	w.Exported = spec.Labels[labelExport] == "true"
	w.Template.Namespace = s.namespace
	w.Template.Ports = portsOf(native)
	w.Desired = w.Replicas
	if status := native.ServiceStatus; status != nil {
		w.Running, w.Desired, w.Completed = int(status.RunningTasks), int(status.DesiredTasks), int(status.CompletedTasks)
		if w.Mode == neutral.ModeGlobalJob {
			w.Desired += w.Completed // a swarm counts those that are still to end
		}
	}
	if u := native.UpdateStatus; u != nil {
		w.Updating, w.UpdateMessage = updating(u.State), u.Message
	}
	nameNetworks(&w.Template, s.namespace, networks)
	w.Template.Networks = withoutOwnAlias(w.Template.Networks, s.namespace, s.name)
	s.Workload = *w
	return s, nil
}

// updating is the state of a rollout. One back is a rollout as well; its message says so.
func updating(state swarm.UpdateState) string {
	switch state {
	case swarm.UpdateStateRollbackStarted:
		state = swarm.UpdateStateUpdating
	case swarm.UpdateStateRollbackPaused:
		state = swarm.UpdateStatePaused
	case swarm.UpdateStateRollbackCompleted:
		state = swarm.UpdateStateCompleted
	}
	return string(state)
}

// workloadFromSpec reads a spec. Its networks have their ids as names.
func workloadFromSpec(spec swarm.ServiceSpec) (*neutral.Workload, error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
	}
	tree, err := parseTree(body)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
	}
	w := workloadFromTree(tree, true)
	w.Template.Env, w.Template.Hostname = each(untemplated, w.Template.Env), untemplated(w.Template.Hostname)
	if c := spec.TaskTemplate.ContainerSpec; c != nil {
		w.Template.Security.Sysctls = c.Sysctls
		if p := c.Privileges; p != nil {
			if p.Seccomp != nil {
				switch p.Seccomp.Mode {
				case "", swarm.SeccompModeDefault:
				case swarm.SeccompModeUnconfined:
					w.Template.Security.Seccomp = neutral.ProfileUnconfined
				default:
					w.Template.Security.Seccomp = neutral.ProfileCustom
				}
			}
			if p.AppArmor != nil && p.AppArmor.Mode != "" && p.AppArmor.Mode != swarm.AppArmorModeDefault {
				w.Template.Security.AppArmor = neutral.ProfileUnconfined
			}
		}
	}
	w.Headless = spec.EndpointSpec != nil && spec.EndpointSpec.Mode == swarm.ResolutionModeDNSRR
	return w, nil
}

// portsOf are a service's ports: where the swarm chose one, the one that it chose.
func portsOf(native swarm.Service) []neutral.Port {
	ports := native.Endpoint.Ports
	if len(ports) == 0 && native.Spec.EndpointSpec != nil {
		ports = native.Spec.EndpointSpec.Ports
	}
	var list []neutral.Port
	for _, p := range ports {
		if p.TargetPort > 1<<16-1 || p.PublishedPort > 1<<16-1 {
			continue
		}
		list = append(list, neutral.Port{Name: p.Name, Container: uint16(p.TargetPort), Published: uint16(p.PublishedPort), Publish: true,
			Protocol: string(p.Protocol), HostMode: p.PublishMode == swarm.PortConfigPublishModeHost})
	}
	slices.SortFunc(list, comparePorts)
	return list
}

func (s *service) object() neutral.Object {
	o := s.named.object(neutral.KindWorkload, s.Labels)
	o.Container = &s.Template
	return o
}

// inSwarm tells whether there can be services; only an engine that manages its swarm tells of them.
func (a *action) inSwarm(ctx context.Context) (bool, error) {
	self, err := a.node(ctx)
	if err != nil {
		return false, faultOf(err)
	}
	return self.manager || self.id != "", nil
}

// wantSwarm refuses what takes a swarm.
func (a *action) wantSwarm(ctx context.Context, what string) error {
	there, err := a.inSwarm(ctx)
	if err == nil && !there {
		return fault.Wrap(fault.Unsupported, dialect.ErrStandalone, "%s: cluster %s is a Docker engine without a swarm, which has none", what, a.cluster)
	}
	return err
}

// services are all services, whoever may see them.
func (a *action) services(ctx context.Context) ([]*service, error) {
	if there, err := a.inSwarm(ctx); err != nil || !there {
		return nil, err
	}
	list, err := a.api.ServiceList(ctx, client.ServiceListOptions{Status: true})
	if err != nil {
		return nil, faultOf(err)
	}
	networks, err := a.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	services := make([]*service, 0, len(list.Items))
	for _, native := range list.Items {
		s, err := serviceFromSwarm(native, networks)
		if err != nil {
			return nil, err
		}
		services = append(services, s)
	}
	slices.SortFunc(services, func(x, y *service) int { return strings.Compare(x.docker+x.id, y.docker+y.id) })
	return services, nil
}

func (a *action) listServices(ctx context.Context) (neutral.Result, error) {
	services, err := a.services(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	filter := a.op.Filter
	result := neutral.Result{Workloads: []neutral.Workload{}}
	for _, s := range services {
		if !s.in(a.op.Object.Namespace) || !anyPrefix(filter.IDs, s.id) || !anyPrefix(filter.Names, s.name) ||
			len(filter.Modes) > 0 && !slices.Contains(filter.Modes, string(s.Mode)) || !labelsMatch(filter.Labels, s.Labels) {
			continue
		}
		if err := a.permitSeen(ctx, s.object()); fault.Is(err, fault.Denied) {
			continue
		} else if err != nil {
			return neutral.Result{}, err
		}
		result.Workloads = append(result.Workloads, s.shown())
	}
	return result, nil
}

// findService gives the service that the operation names, once policy lets the caller have it.
func (a *action) findService(ctx context.Context) (*service, error) {
	services, err := a.services(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]named, len(services))
	for i, s := range services {
		all[i] = s.named
	}
	i, err := find("service", a.op.Object.Namespace, a.op.Ref, all)
	if err != nil {
		return nil, err
	}
	return services[i], a.permitSeen(ctx, services[i].object())
}

func (a *action) inspectService(ctx context.Context) (neutral.Result, error) {
	found, err := a.findService(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	w := found.shown()
	return neutral.Result{Workload: &w}, nil
}

func (a *action) removeService(ctx context.Context) (neutral.Result, error) {
	found, err := a.findService(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if _, err := a.api.ServiceRemove(ctx, found.id, client.ServiceRemoveOptions{}); err != nil {
		return neutral.Result{}, faultOf(err)
	}
	return neutral.Result{ID: found.id, Removed: []string{found.id}}, nil
}

// serviceByID reads one service again.
func (a *action) serviceByID(ctx context.Context, id string) (*service, error) {
	list, err := a.api.ServiceList(ctx, client.ServiceListOptions{Status: true, Filters: make(client.Filters).Add("id", id)})
	if err != nil {
		return nil, faultOf(err)
	}
	if len(list.Items) != 1 {
		return nil, fault.New(fault.NotFound, "service %s not found", id)
	}
	networks, err := a.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	return serviceFromSwarm(list.Items[0], networks)
}

// swarmVersion reads an optimistic lock.
func swarmVersion(text string) (swarm.Version, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return swarm.Version{}, fault.New(fault.Invalid, "invalid version '%s'", shorten(text))
	}
	return swarm.Version{Index: n}, nil
}

// outOfSequence tells the fault of an object that was changed since the caller read it, and other faults as they are.
func outOfSequence(err error) error {
	if err != nil && strings.Contains(err.Error(), "update out of sequence") {
		return fault.Wrap(fault.Conflict, err, "update out of sequence")
	}
	return faultOf(err)
}
