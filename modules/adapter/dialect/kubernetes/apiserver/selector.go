package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// keepsRestart tells whether a workload that docker made restarts its containers as it did before.
func keepsRestart(form workloadForm, old object, policy corev1.RestartPolicy) bool {
	return old != nil && form.template(old).Spec.RestartPolicy == policy
}

// validSelector says what is wrong with the selector of a workload, which must select its own Pods and stays as it is.
func validSelector(form workloadForm, next, old object) field.ErrorList {
	path := field.NewPath("spec", "selector")
	selector := form.selector(next)
	if selector == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return field.ErrorList{field.Invalid(path, selector, "empty selector is invalid for a workload")}
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return field.ErrorList{field.Invalid(path, selector, err.Error())}
	}
	template := form.template(next)
	if !parsed.Matches(labels.Set(template.Labels)) {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "template", "metadata", "labels"), template.Labels,
			"`selector` does not match template `labels`")}
	}
	if old != nil && !apiequality.Semantic.DeepEqual(form.selector(old), selector) {
		return field.ErrorList{field.Invalid(path, selector, "field is immutable")}
	}
	return nil
}
