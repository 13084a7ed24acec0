package apiserver

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// networkOfNamespace is the network that the containers of a namespace share, as those of a stack do.
const networkOfNamespace = "default"

// serviceKind is records of what was written here. What a Service does is done by the workloads that it selects: they
// answer to its name on the network of the namespace, and publish its node ports.
type serviceKind struct{ *Server }

func (k serviceKind) project(w *world) []entry {
	var all []entry
	for _, f := range w.records(recordService) {
		if e, ok := recorded(w, f, serviceResource.Resource, &corev1.Service{}); ok {
			all = append(all, e)
		}
	}
	for i := range w.workloads {
		workload := &w.workloads[i]
		if foreignMade(workload) && len(workload.Template.Ports) > 0 {
			all = append(all, k.foreign(w, workload))
		}
	}
	return all
}

// foreign is the Service of a workload that no client of the API made: its published ports.
func (k serviceKind) foreign(w *world, workload *neutral.Workload) entry {
	o := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{labelService: workload.Name}}}
	for _, p := range workload.Template.Ports {
		port := corev1.ServicePort{Name: p.Name, Protocol: protocolOf(p.Protocol), Port: int32(p.Container), TargetPort: intstr.FromInt32(int32(p.Container))}
		if p.Publish || p.Published != 0 {
			port.NodePort = int32(p.Published)
		}
		o.Spec.Ports = append(o.Spec.Ports, port)
	}
	o.Labels = visible(workload.Labels)
	placed(o, w, serviceResource.Resource, workload.ID, workload.Namespace, workload.Name, workload.CreatedAt)
	k.complete(o, nil)
	return entry{object: o, native: native{id: workload.ID, own: true}}
}

func protocolOf(protocol string) corev1.Protocol {
	switch protocol {
	case "udp":
		return corev1.ProtocolUDP
	case "sctp":
		return corev1.ProtocolSCTP
	}
	return corev1.ProtocolTCP
}

func (serviceKind) complete(next, _ object) {
	spec := &next.(*corev1.Service).Spec
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if spec.ClusterIP == corev1.ClusterIPNone {
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
	}
	set(&spec.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack)
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	set(&spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	if spec.Type != corev1.ServiceTypeClusterIP && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == (intstr.IntOrString{}) {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
}

func (serviceKind) validate(next, _ object) field.ErrorList {
	spec, path := &next.(*corev1.Service).Spec, field.NewPath("spec")
	var problems field.ErrorList
	switch spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName:
		problems = append(problems, field.Forbidden(path.Child("type"), "Swarm has no "+string(spec.Type)+"; NodePort publishes a port on each node"))
	default:
		problems = append(problems, field.NotSupported(path.Child("type"), spec.Type, []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort}))
	}
	if len(spec.Ports) == 0 && spec.ClusterIP != corev1.ClusterIPNone {
		problems = append(problems, field.Required(path.Child("ports"), ""))
	}
	names := map[string]bool{}
	for i, port := range spec.Ports {
		at := path.Child("ports").Index(i)
		if port.Port < 1 || port.Port > 65535 {
			problems = append(problems, field.Invalid(at.Child("port"), port.Port, "must be between 1 and 65535, inclusive"))
		}
		if port.Name == "" && len(spec.Ports) > 1 {
			problems = append(problems, field.Required(at.Child("name"), ""))
		}
		if names[port.Name] {
			problems = append(problems, field.Duplicate(at.Child("name"), port.Name))
		}
		names[port.Name] = true
		if port.NodePort != 0 && (port.NodePort < 30000 || port.NodePort > 32767) {
			problems = append(problems, field.Invalid(at.Child("nodePort"), port.NodePort, "provided port is not in the valid range. The range of valid ports is 30000-32767"))
		}
		if port.TargetPort.Type == intstr.Int && (port.TargetPort.IntVal < 1 || port.TargetPort.IntVal > 65535) {
			problems = append(problems, field.Invalid(at.Child("targetPort"), port.TargetPort.IntVal, "must be between 1 and 65535, inclusive"))
		}
		if port.NodePort != 0 && spec.Type == corev1.ServiceTypeClusterIP {
			problems = append(problems, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		if port.TargetPort.Type == intstr.Int && port.TargetPort.IntVal != port.Port && spec.Type == corev1.ServiceTypeClusterIP {
			problems = append(problems, field.Forbidden(at.Child("targetPort"), "containers of a Swarm reach each other at the ports that they "+
				"listen on; make port the same"))
		}
	}
	refuse := func(name string, there bool, reason string) {
		if there {
			problems = append(problems, field.Forbidden(path.Child(name), reason))
		}
	}
	refuse("clusterIP", spec.ClusterIP != "" && spec.ClusterIP != corev1.ClusterIPNone, "addresses are Swarm's to choose, and are not told")
	refuse("externalIPs", len(spec.ExternalIPs) > 0, "Swarm takes no addresses from outside")
	refuse("sessionAffinity", spec.SessionAffinity != corev1.ServiceAffinityNone, "Swarm keeps no client at one task")
	return problems
}

func (k serviceKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	return k.update(ctx, d)
}

func (k serviceKind) update(ctx context.Context, d deed) ([]neutral.Loss, error) {
	if err := notOwn(d, "service"); err != nil {
		return nil, err
	}
	o := d.next.(*corev1.Service)
	if err := k.portsFit(o); err != nil {
		return nil, err
	}
	origin, err := originOf(o, nil)
	if err != nil {
		return nil, err
	}
	if err := k.keep(ctx, d, recordService, o.Namespace, o.Name, origin); err != nil || d.dry {
		return nil, err
	}
	return k.attach(ctx, d, o.Namespace, o.Spec.Selector)
}

// portsFit refuses a named port that a selected container has under another number: nothing translates between them.
func (k serviceKind) portsFit(o *corev1.Service) error {
	for _, form := range workloadForms {
		all, _ := k.store.list(form.resource(), o.Namespace)
		for _, e := range all {
			template := form.template(e.object)
			if !selects(o.Spec.Selector, template.Labels) {
				continue
			}
			for _, port := range o.Spec.Ports {
				if port.TargetPort.Type == intstr.Int || o.Spec.Type != corev1.ServiceTypeClusterIP {
					continue
				}
				if number := targetPort(port, &template.Spec); number != 0 && number != port.Port {
					return fault.New(fault.Unprocessable, "spec.ports: %s is %d in %s, and containers of a Swarm reach each other at the ports "+
						"that they listen on; make port the same", port.TargetPort.StrVal, number, e.object.GetName())
				}
			}
		}
	}
	return nil
}

func selects(selector, of map[string]string) bool {
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(of))
}

// targetPort is the number of a service's port in a container; 0 where the container has none of the name.
func targetPort(port corev1.ServicePort, spec *corev1.PodSpec) int32 {
	if port.TargetPort.Type == intstr.Int {
		return port.TargetPort.IntVal
	}
	for i := range spec.Containers {
		for _, p := range spec.Containers[i].Ports {
			if p.Name == port.TargetPort.StrVal {
				return p.ContainerPort
			}
		}
	}
	return 0
}

func (k serviceKind) remove(ctx context.Context, d deed) error {
	o := d.old.object.(*corev1.Service)
	if d.old.native.own {
		return fault.New(fault.Conflict, "these are the published ports of the service %s itself; change it, or delete its workload", o.Name)
	}
	if err := k.forget(ctx, d, o.Namespace); err != nil || d.dry {
		return err
	}
	_, err := k.attach(ctx, d, o.Namespace, o.Spec.Selector)
	return err
}

// attach brings the workloads that a Service selects abreast of the Services there are.
func (k serviceKind) attach(ctx context.Context, d deed, namespace string, selector map[string]string) ([]neutral.Loss, error) {
	if err := k.refresh(ctx); err != nil {
		return nil, err
	}
	var losses []neutral.Loss
	for _, form := range workloadForms {
		all, _ := k.store.list(form.resource(), namespace)
		for _, e := range all {
			if !selects(selector, form.template(e.object).Labels) {
				continue
			}
			if e.native.own {
				losses = append(losses, neutral.Loss{Field: "spec.selector", Change: e.object.GetName() + " is left as it is",
					Reason: "it was made by docker, and does not answer to names that it was not made for"})
				continue
			}
			_, err := workloadKind{k.Server, form}.write(ctx, deed{peer: d.peer, anew: true, old: e, next: e.object.DeepCopyObject().(object)})
			if err != nil {
				return losses, err
			}
		}
	}
	return losses, nil
}

// aliases are the names that a workload's containers answer to: its own, and those of the Services that select it.
func (s *Server) aliases(o object, labels map[string]string) []string {
	names := []string{o.GetName()}
	services, _ := s.store.list(serviceResource, o.GetNamespace())
	for _, e := range services {
		service := e.object.(*corev1.Service)
		if !e.native.own && selects(service.Spec.Selector, labels) {
			for _, name := range []string{service.Name, service.Name + "." + service.Namespace, service.Name + "." + service.Namespace + ".svc",
				service.Name + "." + service.Namespace + ".svc.cluster.local"} {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// answering is the names that a workload's containers answer to on its namespace's network, and how, in one form.
func answering(own string, names []string, headless bool) string {
	names = slices.DeleteFunc(sorted(names), func(name string) bool { return name == own })
	return strings.Join(append(names, strconv.FormatBool(headless)), " ")
}

// reattach brings workloads abreast of the Services there are, where a gateway was killed before it had come to that. All
// else of them stays as it is in the orchestrator: nobody has asked for what a document may say beyond that.
func (k serviceKind) reattach(ctx context.Context, w *world) error {
	var failed error
	for i := range w.workloads {
		live := &w.workloads[i]
		for _, form := range workloadForms {
			e := k.store.get(form.resource(), key{live.Namespace, live.Name})
			if e == nil || e.native.id != live.ID || e.native.own || paused(e.object) {
				continue
			}
			failed = errors.Join(failed, k.reattachOne(ctx, live, e.object, form.template(e.object).Labels))
		}
	}
	return failed
}

func (k serviceKind) reattachOne(ctx context.Context, live *neutral.Workload, o object, labels map[string]string) error {
	at := slices.IndexFunc(live.Template.Networks, func(n neutral.NetworkAttachment) bool { return n.Name == networkOfNamespace })
	if at < 0 {
		return nil // it was taken off, or is on its host's
	}
	names, headless := k.aliases(o, labels), k.headless(live.Namespace, labels)
	if answering(live.Name, live.Template.Networks[at].Aliases, live.Headless) == answering(live.Name, names, headless) {
		return nil
	}
	k.log.Info("a workload is brought abreast of its Services", "namespace", live.Namespace, "name", live.Name)
	is := *live
	is.Template.Networks = slices.Clone(live.Template.Networks)
	is.Template.Networks[at].Aliases, is.Headless, is.Origin = names, headless, nil
	_, err := k.under.Do(ctx, neutral.Operation{Action: neutral.WorkloadUpdate, Verb: neutral.Update, Ref: live.ID, Version: live.Version, Workload: &is,
		Object: neutral.Object{Kind: neutral.KindWorkload, Namespace: live.Namespace, Name: live.Name, Labels: live.Labels}})
	return err
}

// headless tells whether a Service without an address of its own selects a workload. Its Services share one kind of name:
// a name with an address answers for all tasks as well.
func (s *Server) headless(namespace string, labels map[string]string) bool {
	services, _ := s.store.list(serviceResource, namespace)
	for _, e := range services {
		service := e.object.(*corev1.Service)
		if !e.native.own && service.Spec.ClusterIP == corev1.ClusterIPNone && selects(service.Spec.Selector, labels) {
			return true
		}
	}
	return false
}

// published are the ports that Services of the type NodePort publish of a workload.
func (s *Server) published(namespace string, template *corev1.PodTemplateSpec) []neutral.Port {
	var ports []neutral.Port
	services, _ := s.store.list(serviceResource, namespace)
	for _, e := range services {
		service := e.object.(*corev1.Service)
		if e.native.own || service.Spec.Type != corev1.ServiceTypeNodePort || !selects(service.Spec.Selector, template.Labels) {
			continue
		}
		for _, port := range service.Spec.Ports {
			number := targetPort(port, &template.Spec)
			if number == 0 {
				continue
			}
			ports = append(ports, neutral.Port{Name: port.Name, Container: uint16(number), Published: uint16(port.NodePort), Publish: true,
				Protocol: protocolName(port.Protocol)})
		}
	}
	return ports
}

func protocolName(p corev1.Protocol) string {
	switch p {
	case corev1.ProtocolUDP:
		return "udp"
	case corev1.ProtocolSCTP:
		return "sctp"
	default:
		return "tcp"
	}
}

// workloadForms are all of them.
var workloadForms = []workloadForm{deploymentForm{}, daemonSetForm{}, jobForm{}}
