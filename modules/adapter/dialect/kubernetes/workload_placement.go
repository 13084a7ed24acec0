package kubernetes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/placement"
)

// placementToAffinity writes Swarm's constraints, which are expressions over labels of nodes here; nil when there are none.
func placementToAffinity(constraints []string) (*corev1.Affinity, error) {
	var term corev1.NodeSelectorTerm
	for _, text := range constraints {
		const field = "TaskTemplate.Placement.Constraints"
		key, value, not, ok := cutConstraint(text)
		if !ok {
			return nil, invalid(field, "constraint expected one operator from ==, !=: %q", text)
		}
		requirement := corev1.NodeSelectorRequirement{Operator: corev1.NodeSelectorOpIn, Values: []string{value}}
		if not {
			requirement.Operator = corev1.NodeSelectorOpNotIn
		}
		switch native, known := placement.Label(key); {
		case known:
			requirement.Key = native
			if native == corev1.LabelArchStable {
				requirement.Values = []string{placement.Architecture(value)}
			}
		case key == "node.role":
			if value != "manager" && value != "worker" {
				return nil, invalid(field, "no node has the role %q", value)
			}
			requirement = corev1.NodeSelectorRequirement{Key: placement.ControlPlane, Operator: corev1.NodeSelectorOpExists}
			if (value == "worker") != not {
				requirement.Operator = corev1.NodeSelectorOpDoesNotExist
			}
		default:
			return nil, refuse(field, "Kubernetes cannot place by %q", key)
		}
		term.MatchExpressions = append(term.MatchExpressions, requirement)
	}
	if len(term.MatchExpressions) == 0 {
		return nil, nil
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}}}, nil
}

func cutConstraint(text string) (key, value string, not, ok bool) {
	for _, operator := range []string{"!=", "=="} {
		if left, right, found := strings.Cut(text, operator); found {
			key, value = strings.TrimSpace(left), strings.TrimSpace(right)
			return key, value, operator == "!=", key != "" && value != ""
		}
	}
	return "", "", false, false
}

// placementFromSpec writes the required expressions, and the plain selector, as constraints. Alternatives and what
// Swarm has no words for are left out; an update does not touch them.
func placementFromSpec(spec *corev1.PodSpec) []string {
	var constraints []string
	keys := make([]string, 0, len(spec.NodeSelector))
	for key := range spec.NodeSelector {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		constraints = append(constraints, placement.Name(key)+" == "+spec.NodeSelector[key])
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil ||
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return constraints
	}
	terms := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 {
		return constraints
	}
	for _, r := range terms[0].MatchExpressions {
		switch {
		case r.Key == placement.ControlPlane && r.Operator == corev1.NodeSelectorOpExists:
			constraints = append(constraints, "node.role == manager")
		case r.Key == placement.ControlPlane && r.Operator == corev1.NodeSelectorOpDoesNotExist:
			constraints = append(constraints, "node.role == worker")
		case r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1:
			constraints = append(constraints, placement.Name(r.Key)+" == "+r.Values[0])
		case r.Operator == corev1.NodeSelectorOpNotIn:
			for _, value := range r.Values {
				constraints = append(constraints, placement.Name(r.Key)+" != "+value)
			}
		}
	}
	return constraints
}
