package apiserver

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

type daemonSetForm struct{}

func (daemonSetForm) resource() schema.GroupResource { return daemonSetResource }
func (daemonSetForm) kind() schema.GroupVersionKind {
	return appsv1.SchemeGroupVersion.WithKind("DaemonSet")
}
func (daemonSetForm) modes() []neutral.Mode { return []neutral.Mode{neutral.ModeGlobal} }
func (daemonSetForm) blank() object         { return &appsv1.DaemonSet{} }
func (daemonSetForm) template(o object) *corev1.PodTemplateSpec {
	return &o.(*appsv1.DaemonSet).Spec.Template
}
func (daemonSetForm) selector(o object) *metav1.LabelSelector {
	return o.(*appsv1.DaemonSet).Spec.Selector
}

func (daemonSetForm) of(_ *neutral.Workload, template corev1.PodTemplateSpec, selector *metav1.LabelSelector) object {
	return &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}
}

func (daemonSetForm) complete(o object) {
	spec := &o.(*appsv1.DaemonSet).Spec
	set(&spec.RevisionHistoryLimit, 10)
	if spec.UpdateStrategy.Type == "" {
		spec.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if spec.UpdateStrategy.RollingUpdate == nil {
			spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		set(&spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		set(&spec.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
}

func (f daemonSetForm) validate(next, old object) field.ErrorList {
	spec, path := &next.(*appsv1.DaemonSet).Spec, field.NewPath("spec")
	problems := validSelector(f, next, old)
	if policy := spec.Template.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways && !keepsRestart(f, old, policy) {
		problems = append(problems, field.NotSupported(path.Child("template", "spec", "restartPolicy"), policy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		problems = append(problems, field.NotSupported(path.Child("updateStrategy", "type"), spec.UpdateStrategy.Type,
			[]appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType}))
	}
	return problems
}

func (daemonSetForm) into(o object, w *neutral.Workload) []neutral.Loss {
	spec := &o.(*appsv1.DaemonSet).Spec
	w.Update = &neutral.UpdatePolicy{Parallelism: 1, Order: "stop-first", OnFailure: "pause"}
	if rolling := spec.UpdateStrategy.RollingUpdate; rolling != nil && rolling.MaxSurge.IntValue() > 0 {
		w.Update.Order = "start-first"
	}
	if spec.MinReadySeconds > 0 {
		return []neutral.Loss{{Field: "spec.minReadySeconds", Change: "dropped", Reason: "Swarm counts a task as running at once"}}
	}
	return nil
}

func (daemonSetForm) live(o object, w *neutral.Workload, runs []run) {
	d := o.(*appsv1.DaemonSet)
	d.Status = appsv1.DaemonSetStatus{ObservedGeneration: d.Generation, DesiredNumberScheduled: int32(w.Desired)}
	current := hashOf(w.Template)
	for _, r := range runs {
		if r.terminating {
			continue
		}
		d.Status.CurrentNumberScheduled++
		if r.hash == current {
			d.Status.UpdatedNumberScheduled++
		}
		if r.ready {
			d.Status.NumberReady++
			d.Status.NumberAvailable++
		}
	}
	d.Status.DesiredNumberScheduled = max(d.Status.DesiredNumberScheduled, d.Status.CurrentNumberScheduled)
	d.Status.NumberUnavailable = d.Status.DesiredNumberScheduled - d.Status.NumberAvailable
}
