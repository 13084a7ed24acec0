package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// joined resolves the networks that a container is to be on. Policy must let the caller do to each what it does to the
// container, as with volumes.
func (a *action) joined(ctx context.Context, wanted []neutral.NetworkAttachment) ([]neutral.NetworkAttachment, error) {
	var list []neutral.NetworkAttachment
	var all []neutral.Network
	for _, w := range wanted {
		if predefined(w.Name) {
			list = append(list, w)
			continue
		}
		if all == nil {
			var err error
			if all, err = a.callersNetworks(ctx); err != nil {
				return nil, err
			}
		}
		found, err := resolveNetwork(all, w.Name)
		if err != nil {
			return nil, err
		}
		if err := a.permit(a.networkObject(found)); err != nil {
			return nil, err
		}
		w.Name = found.Name
		list = append(list, w)
	}
	return list, nil
}

// networksThere wants the networks of a Pod that is to start to be there: without its network's policy it would be open
// to all.
func (a *action) networksThere(ctx context.Context, pod *corev1.Pod) error {
	list := networksFromMeta(pod.ObjectMeta)
	if !onUserNetwork(pod.Labels) && len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := a.callersNetworks(ctx)
	if err != nil {
		return err
	}
	for _, n := range list {
		if !predefined(n.Name) && !slices.ContainsFunc(all, func(there neutral.Network) bool { return there.Name == n.Name }) {
			return fault.New(fault.NotFound, "network %s not found", n.Name)
		}
	}
	return nil
}

// publishPorts lets everybody reach the published ports of containers that a network keeps to itself: a policy for each
// port, which selects who publishes it.
func (a *action) publishPorts(ctx context.Context, labels map[string]string) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		port, ok := strings.CutPrefix(label, portLabel)
		if !ok {
			continue
		}
		var number int32
		name, digits, _ := strings.Cut(port, "-")
		if _, err := fmt.Sscan(digits, &number); err != nil {
			continue
		}
		protocol, at := corev1.Protocol(strings.ToUpper(name)), intstr.FromInt32(number)
		policy := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "published-" + port, Namespace: a.namespace},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{label: "true"}},
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
					{Protocol: &protocol, Port: &at}}}},
			},
		}
		_, err := a.client.NetworkingV1().NetworkPolicies(a.namespace).Create(ctx, policy, metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return nativeFault(err)
		}
	}
	return nil
}

// networksFromMeta are the callers' networks of a Pod.
func networksFromMeta(meta metav1.ObjectMeta) []neutral.NetworkAttachment {
	var list []neutral.NetworkAttachment
	if text := meta.Annotations[annotationNetworks]; text != "" && json.Unmarshal([]byte(text), &list) != nil {
		return nil // somebody broke the annotation
	}
	return list
}

// noteNetworks puts a Pod on networks, but for its search domains.
func noteNetworks(meta *metav1.ObjectMeta, list []neutral.NetworkAttachment) error {
	for label := range meta.Labels {
		if strings.HasPrefix(label, networkLabel) {
			delete(meta.Labels, label)
		}
	}
	delete(meta.Annotations, annotationNetworks)
	delete(meta.Labels, labelNetworked)
	if len(list) == 0 {
		return nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "networks cannot be written")
	}
	metav1.SetMetaDataAnnotation(meta, annotationNetworks, string(text))
	metav1.SetMetaDataLabel(meta, labelNetworked, "true")
	for _, n := range list {
		legal, _ := legalNetwork(n.Name)
		metav1.SetMetaDataLabel(meta, networkLabel+legal, "true")
	}
	return nil
}

// joinNetwork puts a container on one more network.
func (a *action) joinNetwork(ctx context.Context) (neutral.Result, error) {
	return a.changeNetworks(ctx, func(_ *located, name string, list []neutral.NetworkAttachment) ([]neutral.NetworkAttachment, error) {
		if slices.ContainsFunc(list, func(n neutral.NetworkAttachment) bool { return n.Name == name }) {
			return nil, fault.New(fault.Conflict, "endpoint with name %s already exists in network %s", a.op.Member.Name, name)
		}
		return append(slices.Clone(list), neutral.NetworkAttachment{Name: name, Aliases: a.op.Member.Aliases}), nil
	})
}

// leaveNetwork takes a container off one. The last one it cannot leave: it would be open to all then.
func (a *action) leaveNetwork(ctx context.Context) (neutral.Result, error) {
	return a.changeNetworks(ctx, func(found *located, name string, list []neutral.NetworkAttachment) ([]neutral.NetworkAttachment, error) {
		left := slices.DeleteFunc(slices.Clone(list), func(n neutral.NetworkAttachment) bool { return n.Name == name })
		switch {
		case len(left) == len(list):
			return nil, fault.New(fault.Conflict, "container %s is not connected to network %s", found.ID, name)
		case len(left) == 0:
			return nil, fault.New(fault.Unsupported, "the last network of a container cannot be left: without one, its Pod is on the "+
				"cluster's own network, which is open to all; connect it to another one first")
		}
		return left, nil
	})
}

func (a *action) changeNetworks(ctx context.Context, change func(*located, string, []neutral.NetworkAttachment) ([]neutral.NetworkAttachment, error)) (neutral.Result, error) {
	if a.op.Member == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no container is named")
	}
	// Between our reading and our writing a kubelet may note something on the Pod, and another caller change its networks.
	for attempt := 0; ; attempt++ {
		result, err := a.changeNetworksOnce(ctx, change)
		if attempt >= 4 || !apierrors.IsConflict(err) {
			return result, err
		}
	}
}

func (a *action) changeNetworksOnce(ctx context.Context, change func(*located, string, []neutral.NetworkAttachment) ([]neutral.NetworkAttachment, error)) (neutral.Result, error) {
	network, err := a.findNetwork(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	found, err := a.lookFor(ctx, a.op.Member.Name)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := a.permitContainer(ctx, &found.Container); err != nil {
		return neutral.Result{}, err
	}
	if err := found.own("change the networks of"); err != nil {
		return neutral.Result{}, err
	}
	if found.Network == neutral.NetworkHost {
		return neutral.Result{}, fault.New(fault.Conflict, "container sharing network namespace with another container or host cannot be "+
			"connected to any other network")
	}
	list, err := change(found, network.Name, networksFromMeta(found.pod.ObjectMeta))
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{ID: found.ID}
	pod := found.pod.DeepCopy()
	if err := noteNetworks(&pod.ObjectMeta, list); err != nil {
		return neutral.Result{}, err
	}
	if gated(pod) { // its name servers are fixed, but nothing of it runs
		return result, a.replacePod(ctx, found.pod, unstarted(pod, ""), 0)
	}
	now, err := a.patchNetworks(ctx, found.pod, pod)
	if err != nil {
		return neutral.Result{}, err
	}
	if alive(now) {
		result.Losses = append(result.Losses, neutral.Loss{Field: "names", Change: "of this network it resolves from its next start on",
			Reason: "a Pod's search domains cannot be changed"})
	}
	return result, a.writeNames(ctx, now)
}

// patchNetworks writes the labels and the annotation of a Pod that stays, if it is still what was read.
func (a *action) patchNetworks(ctx context.Context, was, is *corev1.Pod) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	labels := map[string]any{labelNetworked: "true"}
	for label := range was.Labels {
		if strings.HasPrefix(label, networkLabel) {
			labels[label] = nil
		}
	}
	for label, value := range is.Labels {
		if strings.HasPrefix(label, networkLabel) {
			labels[label] = value
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": was.UID, "resourceVersion": was.ResourceVersion,
		"labels": labels, "annotations": map[string]any{annotationNetworks: is.Annotations[annotationNetworks]}}})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	now, err := a.client.CoreV1().Pods(was.Namespace).Patch(ctx, was.Name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		return nil, nativeFault(err)
	}
	return now, nil
}

// searchDomains are where a Pod looks for the names of its networks.
func searchDomains(namespace string, list []neutral.NetworkAttachment) []string {
	var domains []string
	for _, n := range list {
		legal, _ := legalNetwork(n.Name)
		domains = append(domains, networkPrefix+legal+"."+namespace+".svc."+clusterDomain)
	}
	return domains
}

// clusterDomain is that of nearly every cluster; no call of the API tells it.
const clusterDomain = "cluster.local"

// searchNetworks makes a Pod look for names in its networks, and in no others that it was on.
func searchNetworks(meta metav1.ObjectMeta, namespace string, spec *corev1.PodSpec) {
	list := networksFromMeta(meta)
	own := "." + namespace + ".svc." + clusterDomain
	config := spec.DNSConfig
	if config == nil {
		if len(list) == 0 {
			return
		}
		config = &corev1.PodDNSConfig{}
	}
	domains := slices.DeleteFunc(slices.Clone(config.Searches), func(domain string) bool {
		return strings.HasPrefix(domain, networkPrefix) && strings.HasSuffix(domain, own)
	})
	domains = append(domains, searchDomains(namespace, list)...)
	config.Searches = domains
	spec.DNSConfig = config
}
