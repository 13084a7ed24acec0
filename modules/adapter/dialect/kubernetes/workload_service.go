package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A workload whose ports are published, or that is exported, has a Service of its own name, which it owns.

// The range that clusters publish on every node, unless they are told otherwise.
const (
	nodePortFirst = 30000
	nodePortLast  = 32767
)

// notePorts keeps the published ports beside the workload.
func notePorts(meta *metav1.ObjectMeta, ports []neutral.Port) error {
	var published []neutral.Port
	for _, p := range ports {
		if p.Publish && !p.HostMode {
			published = append(published, p)
		}
	}
	delete(meta.Annotations, annotationPublished)
	if len(published) == 0 {
		return nil
	}
	text, err := json.Marshal(published)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "ports cannot be written")
	}
	meta.Annotations[annotationPublished] = string(text)
	return nil
}

func portsFromMeta(meta metav1.ObjectMeta) []neutral.Port {
	var ports []neutral.Port
	if text := meta.Annotations[annotationPublished]; text != "" {
		if json.Unmarshal([]byte(text), &ports) != nil {
			return nil // somebody broke the annotation; the template's ports are still there
		}
	}
	return ports
}

// mergePorts puts published ports in the place of the template's plain ones.
func mergePorts(template, published []neutral.Port) []neutral.Port {
	merged := slices.Clone(published)
	for _, p := range template {
		if !slices.ContainsFunc(published, func(q neutral.Port) bool { return q.Container == p.Container && q.Protocol == p.Protocol }) {
			merged = append(merged, p)
		}
	}
	return merged
}

// servicePorts are the ports that a workload's Service offers: the published ones and, for an exported workload, those
// that it says it listens on.
func servicePorts(w *neutral.Workload) ([]neutral.Port, error) {
	var ports []neutral.Port
	exported := w.Labels[labelExport] == exportTrue
	for _, p := range w.Template.Ports {
		if p.Publish && !p.HostMode || exported {
			ports = append(ports, p)
		}
	}
	if !exported {
		return ports, nil
	}
	if written := w.Labels[annotationPorts]; written != "" {
		said, err := parsePorts(written)
		if err != nil {
			return nil, invalid("Labels."+annotationPorts, "the label %s is not valid: %v", annotationPorts, err)
		}
		for _, p := range said {
			if !slices.ContainsFunc(ports, func(q neutral.Port) bool { return q.Container == p.Number && q.Protocol == p.Protocol }) {
				ports = append(ports, neutral.Port{Name: p.Name, Container: p.Number, Protocol: p.Protocol})
			}
		}
	}
	if len(ports) == 0 {
		return nil, invalid("Labels."+labelExport, "a service that is exported (label %s=true) needs a port: publish one, "+
			"or name those that it listens on in the label %s", labelExport, annotationPorts)
	}
	return ports, nil
}

// serviceFromPorts writes the Service. A port within the nodes' range is opened on every node, as Swarm does with any;
// others stay inside the cluster, and the gateway offers them to peers.
func serviceFromPorts(meta metav1.ObjectMeta, selector map[string]string, ports []neutral.Port) (*corev1.Service, []neutral.Loss) {
	service := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: meta.Name, Namespace: meta.Namespace, Labels: map[string]string{labelWorkload: meta.Name}},
		Spec:       corev1.ServiceSpec{Selector: selector, Type: corev1.ServiceTypeClusterIP},
	}
	if meta.Labels[labelExport] == exportTrue {
		service.Labels[labelExport] = exportTrue
	}
	var losses []neutral.Loss
	used := map[string]bool{}
	for _, p := range ports {
		port := corev1.ServicePort{Protocol: corev1.Protocol(strings.ToUpper(p.Protocol)), TargetPort: intstr.FromInt32(int32(p.Container)),
			Port: int32(p.Container)}
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if p.Published != 0 {
			port.Port = int32(p.Published)
		}
		switch {
		case !p.Publish || p.HostMode:
		case p.Published == 0:
			service.Spec.Type = corev1.ServiceTypeNodePort
		case p.Published >= nodePortFirst && p.Published <= nodePortLast:
			service.Spec.Type, port.NodePort = corev1.ServiceTypeNodePort, int32(p.Published)
		default:
			losses = append(losses, neutral.Loss{Field: fmt.Sprintf("EndpointSpec.Ports (%d)", p.Published),
				Change: "published inside the cluster only",
				Reason: fmt.Sprintf("nodes open ports from %d to %d", nodePortFirst, nodePortLast)})
		}
		// No name that begins with a protocol: such a name says what is spoken above TCP, which docker does not tell.
		port.Name = fmt.Sprintf("port-%d", port.Port)
		if port.Protocol != corev1.ProtocolTCP {
			port.Name += "-" + strings.ToLower(string(port.Protocol))
		}
		if p.Name != "" && isLabel(p.Name) && !used[p.Name] {
			port.Name = p.Name
		}
		if used[port.Name] {
			continue
		}
		used[port.Name] = true
		service.Spec.Ports = append(service.Spec.Ports, port)
	}
	return service, losses
}

// ownedBy makes the garbage collector take an object along with its workload.
func ownedBy(n *nativeWorkload) []metav1.OwnerReference {
	version := "apps/v1"
	if n.kind == "Job" {
		version = "batch/v1"
	}
	yes := true
	return []metav1.OwnerReference{{APIVersion: version, Kind: n.kind, Name: n.meta.Name, UID: n.meta.UID, Controller: &yes}}
}

// offer makes, changes or removes the workload's Service and its export, so that they are what ports and labels say.
func (c *Cluster) offer(ctx context.Context, n *nativeWorkload, ports []neutral.Port) ([]neutral.Loss, error) {
	services := c.client.CoreV1().Services(n.meta.Namespace)
	there, err := services.Get(ctx, n.meta.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nativeFault(err)
	}
	exists := err == nil
	ours := exists && metav1.IsControlledBy(there, n.meta)
	if len(ports) == 0 {
		if !ours {
			return nil, nil
		}
		if err := services.Delete(ctx, n.meta.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return nil, nativeFault(err)
		}
		return nil, c.export(ctx, n, false)
	}
	if exists && !ours {
		return nil, fault.New(fault.Conflict, "the ports cannot be published: the cluster has a Service %s of its own", n.meta.Name)
	}
	selector := map[string]string{labelWorkload: n.meta.Name}
	if n.template.Labels[labelWorkload] == "" {
		selector = n.template.Labels // a workload that isthmus did not make
	}
	service, losses := serviceFromPorts(*n.meta, selector, ports)
	service.OwnerReferences = ownedBy(n)
	if !exists {
		_, err = services.Create(ctx, service, metav1.CreateOptions{FieldManager: fieldManager})
	} else {
		there.Labels, there.Spec.Type, there.Spec.Ports = service.Labels, service.Spec.Type, service.Spec.Ports
		_, err = services.Update(ctx, there, metav1.UpdateOptions{FieldManager: fieldManager})
	}
	if err != nil {
		return nil, nativeFault(err)
	}
	return losses, c.export(ctx, n, n.meta.Labels[labelExport] == exportTrue)
}

// export makes or removes the ServiceExport. A cluster without the Multi-Cluster Services API has none; there the
// Service's label says the same.
func (c *Cluster) export(ctx context.Context, n *nativeWorkload, wanted bool) error {
	for _, version := range exportVersions {
		err := c.exportAs(ctx, version, n, wanted)
		if !apierrors.IsNotFound(err) { // else the cluster does not have this version, or nothing to remove
			return nativeFault(err)
		}
	}
	return nil
}

func (c *Cluster) exportAs(ctx context.Context, version schema.GroupVersionResource, n *nativeWorkload, wanted bool) error {
	exports := c.dynamic.Resource(version).Namespace(n.meta.Namespace)
	if !wanted {
		there, err := exports.Get(ctx, n.meta.Name, metav1.GetOptions{})
		if err != nil || !metav1.IsControlledBy(there, n.meta) {
			return err
		}
		return exports.Delete(ctx, n.meta.Name, metav1.DeleteOptions{})
	}
	export := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": version.GroupVersion().String(), "kind": "ServiceExport",
		"metadata": map[string]any{"name": n.meta.Name, "namespace": n.meta.Namespace},
	}}
	export.SetOwnerReferences(ownedBy(n))
	_, err := exports.Create(ctx, export, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
