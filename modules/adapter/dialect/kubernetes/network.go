package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A network of callers is a NetworkPolicy and a headless Service of one name. The policy selects the Pods that are on it,
// by a label of the network's own, and lets in who has the same label; the Service gives the names of the network's
// containers a domain, so that two networks can have one name for two containers. See network_names.go.

const (
	// networkPrefix begins the names of a network's two objects.
	networkPrefix = "net-"
	// networkLabel and a network's legal name are a label of the Pods on it.
	networkLabel = "network.isthmus.io/"
	// portLabel, a protocol and a port are a label of Pods that publish it, and that are on a network.
	portLabel = "port.isthmus.io/"

	// annotationDriver keeps what a caller called a network's driver.
	annotationDriver = "isthmus.io/driver"
	// annotationNetworks keeps the networks of a Pod, with the names that it has on each, JSON.
	annotationNetworks = "isthmus.io/networks"

	// networkNameLimit leaves room for the prefix.
	networkNameLimit = 50
)

// enforcement is told of each network: who enforces it is not this gateway's doing.
var enforcement = neutral.Loss{Field: "isolation", Change: "by a NetworkPolicy", Reason: "which the cluster's own network enforces, or not"}

// legalNetwork is a network's name among labels.
func legalNetwork(name string) (legal string, kept bool) {
	return legalName(name, validation.IsDNS1123Label, networkNameLimit)
}

// networkID derives a network's id from its name, so that lists and containers agree.
func (c *Cluster) networkID(namespace, name string) string {
	return networkID(c.cluster, namespace, name)
}

func networkID(cluster, namespace, name string) string {
	return digest(cluster, namespace, "network", name)
}

// onUserNetwork tells whether a Pod or a template is on a caller's network.
func onUserNetwork(labels map[string]string) bool {
	for label := range labels {
		if strings.HasPrefix(label, networkLabel) {
			return true
		}
	}
	return false
}

// networks are the two that every cluster has: the Pods' own, which docker's callers know as their bridge, and the
// nodes'. Docker's "none" is not among them, for no Pod is without a network. They have no ids here: a dialect whose
// callers want one derives it from the name.
func networks() []neutral.Network {
	return []neutral.Network{
		{Name: "bridge", Driver: "bridge", Scope: "local"},
		{Name: "host", Driver: "host", Scope: "local"},
	}
}

// predefined tells whether a network is not a caller's.
func predefined(name string) bool {
	switch name {
	case "", "default", "bridge", "host", "none", "pod":
		return true
	}
	return false
}

func (c *Cluster) networkFromPolicy(policy *networkingv1.NetworkPolicy) neutral.Network {
	n := neutral.Network{Name: strings.TrimPrefix(policy.Name, networkPrefix), Driver: policy.Annotations[annotationDriver],
		Scope: "local", Labels: labelsFromMeta(policy.ObjectMeta), Created: policy.CreationTimestamp.Time}
	if name := policy.Annotations[annotationName]; name != "" {
		n.Name = name
	}
	if n.Driver == "overlay" {
		n.Scope = "swarm"
	}
	n.ID = c.networkID(policy.Namespace, n.Name)
	n.Internal = slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	return n
}

// policyFromNetwork writes a network. One that is internal reaches nothing but itself and, for the sake of name servers, the
// DNS port of the cluster's Pods.
func policyFromNetwork(n *neutral.Network, namespace string) (*networkingv1.NetworkPolicy, error) {
	legal, kept := legalNetwork(n.Name)
	members := metav1.LabelSelector{MatchLabels: map[string]string{networkLabel + legal: "true"}}
	policy := &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: networkPrefix + legal, Namespace: namespace,
			Annotations: map[string]string{annotationDriver: n.Driver}},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: members,
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &members}}}}},
	}
	if !kept {
		policy.Annotations[annotationName] = n.Name
	}
	if err := labelMeta(&policy.ObjectMeta, n.Labels); err != nil {
		return nil, err
	}
	policy.Labels[labelNetwork] = "true"
	if n.Internal {
		udp, tcp, dns := corev1.ProtocolUDP, corev1.ProtocolTCP, intstr.FromInt32(53)
		policy.Spec.PolicyTypes = append(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &members}}},
			{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &dns}, {Protocol: &tcp, Port: &dns}}},
		}
	}
	return policy, nil
}

func (a *action) networkObject(n *neutral.Network) neutral.Object {
	object := neutral.Object{Kind: neutral.KindNetwork, Name: n.Name, Labels: n.Labels}
	if n.ID != "" {
		object.Namespace = a.namespace
	}
	return object
}

// https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/#list
func (a *action) policiesPath() string {
	return "/apis/networking.k8s.io/v1/namespaces/" + a.namespace + "/networkpolicies?labelSelector=" + labelNetwork
}

func (a *action) planNetworkList() (dialect.Plan, error) {
	filter := a.op.Filter
	return get(a.policiesPath(), func(response dialect.Response) (neutral.Result, error) {
		var list networkingv1.NetworkPolicyList
		if err := decodeObject(response, &list); err != nil {
			return neutral.Result{}, err
		}
		result := neutral.Result{Networks: []neutral.Network{}}
		all := networks()
		for i := range list.Items {
			all = append(all, a.networkFromPolicy(&list.Items[i]))
		}
		for _, n := range all {
			if oneOf(filter.Names, func(name string) bool { return strings.Contains(n.Name, name) }) &&
				matchLabels(filter.Labels, n.Labels) && a.permit(a.networkObject(&n)) == nil {
				result.Networks = append(result.Networks, n)
			}
		}
		return result, nil
	}), nil
}

// callersNetworks are the networks that callers made.
func (a *action) callersNetworks(ctx context.Context) ([]neutral.Network, error) {
	list, err := a.client.NetworkingV1().NetworkPolicies(a.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelNetwork})
	if err != nil {
		return nil, nativeFault(err)
	}
	all := make([]neutral.Network, 0, len(list.Items))
	for i := range list.Items {
		all = append(all, a.networkFromPolicy(&list.Items[i]))
	}
	return all, nil
}

// resolveNetwork finds the network that ref names, by name, id or the beginning of its id.
func resolveNetwork(all []neutral.Network, ref string) (*neutral.Network, error) {
	i, err := matchReference(ref, "network", len(all), func(i int) string { return all[i].ID }, func(i int) string { return all[i].Name })
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "network %s not found", ref)
	}
	if err != nil {
		return nil, err
	}
	return &all[i], nil
}

// findNetwork is resolveNetwork for the operation's own reference, once policy lets the caller have it.
func (a *action) findNetwork(ctx context.Context) (*neutral.Network, error) {
	if predefined(a.op.Ref) {
		what := "changed"
		if a.op.Action == neutral.NetworkRemove {
			what = "removed"
		}
		return nil, fault.New(fault.Conflict, "%s is a pre-defined network and cannot be %s", a.op.Ref, what)
	}
	all, err := a.callersNetworks(ctx)
	if err != nil {
		return nil, err
	}
	found, err := resolveNetwork(all, a.op.Ref)
	if err != nil {
		return nil, err
	}
	return found, a.permit(a.networkObject(found))
}

func (a *action) inspectNetwork(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, n := range networks() {
		if n.Name == a.op.Ref {
			return neutral.Result{Network: &n}, a.permit(a.networkObject(&n))
		}
	}
	found, err := a.findNetwork(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	pods, err := a.members(ctx, found.Name)
	if err != nil {
		return neutral.Result{}, err
	}
	for i := range pods {
		if alive(&pods[i]) && a.knowsPod(ctx, &pods[i]) {
			found.Members = append(found.Members, neutral.NetworkMember{ID: containerID(a.cluster, &pods[i], ""), Name: displayName(&pods[i], 0)})
		}
	}
	return neutral.Result{Network: found}, a.permit(a.networkObject(found)) // once more: the record is about the network
}

// members are the Pods of a network.
func (a *action) members(ctx context.Context, name string) ([]corev1.Pod, error) {
	legal, _ := legalNetwork(name)
	pods, err := a.client.CoreV1().Pods(a.namespace).List(ctx, metav1.ListOptions{LabelSelector: networkLabel + legal})
	if err != nil {
		return nil, nativeFault(err)
	}
	return pods.Items, nil
}

// createNetwork makes the Service, then the policy: what lists show is whole.
func (a *action) createNetwork(ctx context.Context) (neutral.Result, error) {
	if a.op.Network == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no network is asked for")
	}
	policy, err := policyFromNetwork(a.op.Network, a.namespace)
	if err != nil {
		return neutral.Result{}, err
	}
	wanted := a.networkFromPolicy(policy)
	if err := a.permit(a.networkObject(&wanted)); err != nil {
		return neutral.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: policy.Name, Namespace: a.namespace, Labels: map[string]string{labelNetwork: "true"}},
		// Without a selector: a name is an endpoint of its own.
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Type: corev1.ServiceTypeClusterIP},
	}
	leftBy(ctx, &policy.ObjectMeta)
	if name := policy.Annotations[annotationName]; name != "" {
		service.Annotations = map[string]string{annotationName: name}
	}
	names, err := a.client.CoreV1().Services(a.namespace).Create(ctx, service, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		names, err = nil, a.sameService(ctx, service, wanted.Name)
	}
	if err != nil {
		return neutral.Result{}, nativeFault(err)
	}
	made, err := a.client.NetworkingV1().NetworkPolicies(a.namespace).Create(ctx, policy, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && names != nil {
		a.undoService(ctx, names)
	}
	if apierrors.IsAlreadyExists(err) {
		return neutral.Result{}, fault.New(fault.Conflict, "network with name %s already exists", a.op.Network.Name)
	}
	if err != nil {
		return neutral.Result{}, nativeFault(err)
	}
	n := a.networkFromPolicy(made)
	return neutral.Result{ID: n.ID, Network: &n, Losses: []neutral.Loss{enforcement}}, nil
}

// removeNetwork removes a network that no container is on.
func (a *action) removeNetwork(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.findNetwork(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	user, err := a.networkUser(ctx, found.Name)
	if err != nil {
		return neutral.Result{}, err
	}
	if user != nil {
		return neutral.Result{}, fault.New(fault.Conflict, "error while removing network: network %s has active endpoints%s",
			found.Name, a.toldUser(ctx, user, " (%s)", a.networkObject(found)))
	}
	return neutral.Result{Removed: []string{found.Name}}, a.deleteNetwork(ctx, found.Name)
}

// networkUser finds what is on a network: a container that runs, or a service, which may be scaled to none. One that does
// not run keeps no network, as with an engine; it does not start without it. See networksThere.
func (a *action) networkUser(ctx context.Context, name string) (*user, error) {
	pods, err := a.members(ctx, name)
	if err != nil {
		return nil, err
	}
	for i := range pods { // a service's tasks count as their service does
		if alive(&pods[i]) && pods[i].DeletionTimestamp == nil && metav1.GetControllerOf(&pods[i]) == nil {
			return &user{object: a.podObject(&pods[i]),
				name: fmt.Sprintf("name:%q id:%q", displayName(&pods[i], 0), containerID(a.cluster, &pods[i], "")[:12])}, nil
		}
	}
	natives, err := a.natives(ctx)
	if err != nil {
		return nil, err
	}
	legal, _ := legalNetwork(name)
	for _, n := range natives {
		if n.template.Labels[networkLabel+legal] != "" {
			w := workloadFromNative(a.cluster, n)
			return &user{object: workloadObject(&w), name: "service " + n.meta.Name}, nil
		}
	}
	return nil, nil //nolint:nilnil // that there is none is an answer
}

// pruneNetworks removes the networks that nothing is on.
func (a *action) pruneNetworks(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := a.callersNetworks(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	var result neutral.Result
	for i := range all {
		n := &all[i]
		if !matchLabels(a.op.Filter.Labels, n.Labels) || !a.op.Until.IsZero() && !n.Created.Before(a.op.Until) ||
			a.permit(a.networkObject(n)) != nil {
			continue
		}
		user, err := a.networkUser(ctx, n.Name)
		if err != nil {
			return result, err
		}
		if pods, err := a.members(ctx, n.Name); err != nil || user != nil || len(pods) > 0 {
			if err != nil {
				return result, err
			}
			continue
		}
		if err := a.deleteNetwork(ctx, n.Name); err != nil {
			return result, err
		}
		result.Removed = append(result.Removed, n.Name)
	}
	return result, nil
}
