package podspec

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validator gathers what is wrong with a spec.
type validator struct{ errs field.ErrorList }

// Validate says what an API server refuses of a spec, with or without its defaults, in the same words. Fields that Decode
// refuses in any case are looked at only as far as others depend on them.
func Validate(spec *corev1.PodSpec, at *field.Path) field.ErrorList {
	spec = spec.DeepCopy()
	Default(spec)
	v := &validator{}
	volumes := v.volumes(spec.Volumes, at.Child("volumes"))
	if len(spec.Containers) == 0 {
		v.required(at.Child("containers"), "")
	}
	names := map[string]bool{}
	for i := range spec.Containers {
		v.container(spec, &spec.Containers[i], volumes, at.Child("containers").Index(i))
		if name := spec.Containers[i].Name; names[name] {
			v.add(field.Duplicate(at.Child("containers").Index(i).Child("name"), name))
		}
		names[spec.Containers[i].Name] = true
	}
	for i := range spec.InitContainers {
		c, path := &spec.InitContainers[i], at.Child("initContainers").Index(i)
		v.container(spec, c, volumes, path)
		if names[c.Name] {
			v.add(field.Duplicate(path.Child("name"), c.Name))
		}
		names[c.Name] = true
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			for name, there := range map[string]bool{"lifecycle": c.Lifecycle != nil, "livenessProbe": c.LivenessProbe != nil,
				"readinessProbe": c.ReadinessProbe != nil, "startupProbe": c.StartupProbe != nil} {
				if there {
					v.add(field.Forbidden(path.Child(name), "may not be set for init containers without restartPolicy=Always"))
				}
			}
		}
	}
	v.hostPorts(spec, at.Child("containers"))
	oneOf(v, at.Child("restartPolicy"), spec.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	oneOf(v, at.Child("dnsPolicy"), spec.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	if spec.PreemptionPolicy != nil {
		oneOf(v, at.Child("preemptionPolicy"), *spec.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if deadline := spec.ActiveDeadlineSeconds; deadline != nil && (*deadline < 1 || *deadline > math.MaxInt32) {
		v.invalid(at.Child("activeDeadlineSeconds"), *deadline, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	v.names(spec, at)
	v.podSecurity(spec, at.Child("securityContext"))
	v.scheduling(spec, at)
	return v.errs
}

func (v *validator) add(errs ...*field.Error) { v.errs = append(v.errs, errs...) }

func (v *validator) required(at *field.Path, detail string) { v.add(field.Required(at, detail)) }

// invalid adds what is wrong with a value.
func (v *validator) invalid(at *field.Path, value any, messages ...string) {
	for _, message := range messages {
		v.add(field.Invalid(at, value, message))
	}
}

// oneOf wants one of the words that there are.
func oneOf[T ~string](v *validator, at *field.Path, value T, words ...T) {
	if !slices.Contains(words, value) {
		v.add(field.NotSupported(at, value, words))
	}
}

func (v *validator) nonNegative(at *field.Path, value int64) {
	if value < 0 {
		v.invalid(at, value, apivalidation.IsNegativeErrorMsg)
	}
}

// relative wants a path that stays below where it begins.
func (v *validator) relative(at *field.Path, p string) {
	if path.IsAbs(p) {
		v.invalid(at, p, "must be a relative path")
	}
	v.noBacksteps(at, p)
}

func (v *validator) noBacksteps(at *field.Path, p string) {
	if slices.Contains(strings.Split(p, "/"), "..") {
		v.invalid(at, p, "must not contain '..'")
	}
}

// names are those of the Pod's host, and of what it knows.
func (v *validator) names(spec *corev1.PodSpec, at *field.Path) {
	if spec.ServiceAccountName != "" {
		v.invalid(at.Child("serviceAccountName"), spec.ServiceAccountName, apivalidation.ValidateServiceAccountName(spec.ServiceAccountName, false)...)
	}
	for name, value := range map[string]string{"nodeName": spec.NodeName, "priorityClassName": spec.PriorityClassName} {
		if value != "" {
			v.invalid(at.Child(name), value, apivalidation.NameIsDNSSubdomain(value, false)...)
		}
	}
	for name, value := range map[string]string{"hostname": spec.Hostname, "subdomain": spec.Subdomain} {
		if value != "" {
			v.invalid(at.Child(name), value, validation.IsDNS1123Label(value)...)
		}
	}
	if spec.HostnameOverride != nil {
		v.hostnameOverride(spec, *spec.HostnameOverride, at.Child("hostnameOverride"))
	}
	for i, alias := range spec.HostAliases {
		path := at.Child("hostAliases").Index(i)
		v.add(validation.IsValidIPForLegacyField(path.Child("ip"), alias.IP, false, nil)...)
		for j, name := range alias.Hostnames {
			v.invalid(path.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name)...)
		}
	}
	v.dns(spec, at.Child("dnsConfig"))
}

func (v *validator) hostnameOverride(spec *corev1.PodSpec, name string, at *field.Path) {
	const longest = 64
	if said(spec.SetHostnameAsFQDN) {
		v.add(field.Forbidden(at, "may not be specified when setHostnameAsFQDN is true"))
	}
	if spec.HostNetwork {
		v.add(field.Forbidden(at, "may not be specified when hostNetwork is true"))
	}
	if len(name) > longest {
		v.add(field.TooLong(at, name, longest))
	}
	v.invalid(at, name, validation.IsDNS1123Subdomain(name)...)
}

// What the resolver of a C library takes.
const (
	mostNameservers = 3
	mostSearches    = 32
	longestSearches = 2048
)

func (v *validator) dns(spec *corev1.PodSpec, at *field.Path) {
	dns := spec.DNSConfig
	if spec.DNSPolicy == corev1.DNSNone {
		switch {
		case dns == nil:
			v.required(at, "must provide `dnsConfig` when `dnsPolicy` is None")
			return
		case len(dns.Nameservers) == 0:
			v.required(at.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")
			return
		}
	}
	if dns == nil {
		return
	}
	if len(dns.Nameservers) > mostNameservers {
		v.invalid(at.Child("nameservers"), dns.Nameservers, fmt.Sprintf("must not have more than %d nameservers", mostNameservers))
	}
	for i, server := range dns.Nameservers {
		v.add(validation.IsValidIPForLegacyField(at.Child("nameservers").Index(i), server, false, nil)...)
	}
	if len(dns.Searches) > mostSearches {
		v.invalid(at.Child("searches"), dns.Searches, fmt.Sprintf("must not have more than %d search paths", mostSearches))
	}
	if len(strings.Join(dns.Searches, " ")) > longestSearches {
		v.invalid(at.Child("searches"), dns.Searches, fmt.Sprintf("must not have more than %d characters (including spaces) in the search list", longestSearches))
	}
	for i, search := range dns.Searches {
		if search != "." {
			search = strings.TrimSuffix(search, ".")
			v.invalid(at.Child("searches").Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search)...)
		}
	}
	for i, option := range dns.Options {
		if option.Name == "" {
			v.required(at.Child("options").Index(i), "must not be empty")
		}
	}
}

// scheduling is what is said of nodes.
func (v *validator) scheduling(spec *corev1.PodSpec, at *field.Path) {
	v.add(metavalidation.ValidateLabels(spec.NodeSelector, at.Child("nodeSelector"))...)
	if spec.OS != nil {
		switch path := at.Child("os"); spec.OS.Name {
		case "":
			v.required(path.Child("name"), "")
		default:
			oneOf(v, path, spec.OS.Name, corev1.Linux, corev1.Windows)
		}
	}
	for i, toleration := range spec.Tolerations {
		v.toleration(&toleration, at.Child("tolerations").Index(i))
	}
	for i, gate := range spec.ReadinessGates {
		v.invalid(at.Child("readinessGates").Index(i).Child("conditionType"), string(gate.ConditionType), validation.IsQualifiedName(string(gate.ConditionType))...)
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return
	}
	path := at.Child("affinity", "nodeAffinity")
	if required := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		terms := path.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
		if len(required.NodeSelectorTerms) == 0 {
			v.required(terms, "must have at least one node selector term")
		}
		for i := range required.NodeSelectorTerms {
			v.term(&required.NodeSelectorTerms[i], terms.Index(i))
		}
	}
	for i, preferred := range spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		path := path.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		if preferred.Weight <= 0 || preferred.Weight > 100 {
			v.invalid(path.Child("weight"), preferred.Weight, "must be in the range 1-100")
		}
		v.term(&preferred.Preference, path.Child("preference"))
	}
}

func (v *validator) term(term *corev1.NodeSelectorTerm, at *field.Path) {
	for i, r := range term.MatchExpressions {
		path := at.Child("matchExpressions").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				v.required(path.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				v.add(field.Forbidden(path.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				v.required(path.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			v.invalid(path.Child("operator"), r.Operator, "not a valid selector operator")
		}
		v.add(metavalidation.ValidateLabelName(r.Key, path.Child("key"))...)
		for j, value := range r.Values {
			v.invalid(path.Child("values").Index(j), value, validation.IsValidLabelValue(value)...)
		}
	}
	for i, r := range term.MatchFields {
		path := at.Child("matchFields").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) != 1 {
				v.required(path.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
			}
		default:
			v.invalid(path.Child("operator"), r.Operator, "not a valid selector operator")
		}
		if r.Key != "metadata.name" {
			v.invalid(path.Child("key"), r.Key, "not a valid field selector key")
			continue
		}
		for j, value := range r.Values {
			v.invalid(path.Child("values").Index(j), value, apivalidation.NameIsDNSSubdomain(value, false)...)
		}
	}
}

func (v *validator) toleration(t *corev1.Toleration, at *field.Path) {
	if t.Key != "" {
		v.add(metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
	} else if t.Operator != corev1.TolerationOpExists {
		v.invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		v.invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
	}
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		if wrong := validation.IsValidLabelValue(t.Value); len(wrong) > 0 {
			v.invalid(at.Child("operator"), t.Value, strings.Join(wrong, ";"))
		}
	case corev1.TolerationOpExists:
		if t.Value != "" {
			v.invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'")
		}
	default:
		oneOf(v, at.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
	}
	if t.Effect != "" {
		oneOf(v, at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	}
}
