package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/placement"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// pod reads how the Pod runs as a whole. What a field says by default is no loss.
func (d *decoding) pod() {
	spec, c := d.spec, &d.out.Container
	restarts := map[corev1.RestartPolicy]neutral.RestartMode{corev1.RestartPolicyAlways: neutral.RestartAlways,
		corev1.RestartPolicyOnFailure: neutral.RestartOnFailure, corev1.RestartPolicyNever: neutral.RestartNo}
	if mode, ok := restarts[spec.RestartPolicy]; ok {
		c.Restart.Mode, spec.RestartPolicy = mode, ""
	}
	grace := int(told(&spec.TerminationGracePeriodSeconds))
	c.StopTimeout = &grace
	c.Network = neutral.NetworkBridge
	if take(&spec.HostNetwork) {
		c.Network = neutral.NetworkHost
	}
	if !d.target.Swarm {
		if take(&spec.HostPID) {
			c.Security.PIDMode = "host"
		}
		if take(&spec.HostIPC) {
			c.Security.IPCMode = "host"
		}
	}
	plain(&spec.ServiceAccountName, "default")
	plain(&spec.DeprecatedServiceAccount, "default")
	if d.written.ServiceAccountName != "" { // the two are one, and said where the caller said it
		spec.DeprecatedServiceAccount = ""
	} else {
		spec.ServiceAccountName = ""
	}
	plain(&spec.SchedulerName, corev1.DefaultSchedulerName)
	plainly(&spec.AutomountServiceAccountToken, false)
	plainly(&spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	plainly(&spec.EnableServiceLinks, false) // there are none
	plainly(&spec.Priority, 0)
	plainly(&spec.PreemptionPolicy, corev1.PreemptLowerPriority)
	plainly(&spec.ShareProcessNamespace, false)
	if d.mounted != nil && c.Security.PIDMode == "" && told(&spec.ShareProcessNamespace) {
		c.Security.PIDMode = neutral.ShareHolder
	}
	plainly(&spec.HostUsers, true)
	plainly(&spec.SetHostnameAsFQDN, false)
}

// names reads what the container is called and how it finds others.
func (d *decoding) names() {
	spec, c := d.spec, &d.out.Container
	c.Hostname = take(&spec.Hostname)
	if name := told(&spec.HostnameOverride); name != "" {
		c.Hostname = name
	}
	if c.Hostname == "" && c.Network != neutral.NetworkHost { // a Pod's host is called as the Pod is
		name := d.target.Object.Name
		c.Hostname = name[:min(len(name), validation.DNS1123LabelMaxLength)]
	}
	if spec.Subdomain != "" && !d.target.Swarm {
		d.lose(d.path.Child("subdomain"), "the container's domain", "nothing resolves names below it")
		c.Domain = take(&spec.Subdomain)
	}
	for i := range spec.HostAliases {
		alias := &spec.HostAliases[i]
		for _, name := range alias.Hostnames {
			c.ExtraHosts = append(c.ExtraHosts, name+":"+alias.IP)
		}
		if len(take(&alias.Hostnames)) > 0 {
			alias.IP = ""
		}
	}
	policy := d.path.Child("dnsPolicy")
	switch spec.DNSPolicy {
	case corev1.DNSClusterFirst:
		spec.DNSPolicy = ""
	case corev1.DNSClusterFirstWithHostNet:
		if c.Network == neutral.NetworkHost {
			d.lose(policy, string(corev1.DNSDefault), "on a host's network names are resolved as the host does it")
		}
		spec.DNSPolicy = ""
	case corev1.DNSDefault, corev1.DNSNone:
		if c.Network != neutral.NetworkHost {
			d.lose(policy, string(corev1.DNSClusterFirst), "an engine always resolves the names of the container's networks")
		}
		spec.DNSPolicy = ""
	}
	if dns := take(&spec.DNSConfig); dns != nil {
		c.DNS, c.DNSSearch = dns.Nameservers, dns.Searches
		for _, option := range dns.Options {
			text := option.Name
			if option.Value != nil {
				text += ":" + *option.Value
			}
			c.DNSOptions = append(c.DNSOptions, text)
		}
	}
}

// placement reads which nodes may run the Pod. What a constraint cannot say is left, and refused.
func (d *decoding) placement() {
	spec := d.spec
	for i := range spec.TopologySpreadConstraints {
		if spread := &spec.TopologySpreadConstraints[i]; spread.WhenUnsatisfiable == corev1.ScheduleAnyway {
			d.lose(d.path.Child("topologySpreadConstraints").Index(i), "dropped", "an orchestrator of engines spreads tasks by itself")
			*spread = corev1.TopologySpreadConstraint{}
		}
	}
	if spec.NodeName != "" {
		d.constrain("node.hostname", "==", take(&spec.NodeName))
	}
	if spec.OS != nil && spec.OS.Name == corev1.Linux {
		d.constrain("node.platform.os", "==", string(corev1.Linux))
		spec.OS = nil
	}
	labels := make([]string, 0, len(spec.NodeSelector))
	for label := range spec.NodeSelector {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	for _, label := range labels {
		if d.label(label, corev1.NodeSelectorOpIn, []string{spec.NodeSelector[label]}) {
			delete(spec.NodeSelector, label)
		}
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return
	}
	required := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil || len(required.NodeSelectorTerms) != 1 {
		return // constraints know no alternatives
	}
	term := &required.NodeSelectorTerms[0]
	if !written(term) {
		d.refuse(d.path.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(0),
			"it asks for nothing, and no node has that")
	}
	term.MatchExpressions = slices.DeleteFunc(term.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
		return d.label(r.Key, r.Operator, r.Values)
	})
	term.MatchFields = slices.DeleteFunc(term.MatchFields, func(r corev1.NodeSelectorRequirement) bool {
		return r.Key == "metadata.name" && d.label(corev1.LabelHostname, r.Operator, r.Values)
	})
}

func (d *decoding) constrain(key, operator, value string) {
	text := key + " " + operator + " " + value
	if !slices.Contains(d.out.Placement, text) {
		d.out.Placement = append(d.out.Placement, text)
	}
}

// label writes what is asked of one label of a node; ok is false where Swarm has no words for it.
func (d *decoding) label(label string, operator corev1.NodeSelectorOperator, values []string) (ok bool) {
	if role, is := roles[label]; is {
		switch {
		case operator == corev1.NodeSelectorOpExists, operator == corev1.NodeSelectorOpIn && len(values) == 1 && values[0] == "":
		case operator == corev1.NodeSelectorOpDoesNotExist:
			role = otherRole[role]
		default:
			return false
		}
		d.constrain("node.role", "==", role)
		return true
	}
	key := placement.Name(label)
	if !constraintKey.MatchString(key) || len(values) == 0 {
		return false
	}
	for i, value := range values {
		if label == corev1.LabelArchStable {
			values[i] = placement.Machine(value)
		}
		if !constraintValue.MatchString(value) {
			return false
		}
	}
	switch {
	case operator == corev1.NodeSelectorOpIn && len(values) == 1:
		d.constrain(key, "==", values[0])
	case operator == corev1.NodeSelectorOpNotIn:
		for _, value := range values {
			d.constrain(key, "!=", value)
		}
	default:
		return false
	}
	return true
}
