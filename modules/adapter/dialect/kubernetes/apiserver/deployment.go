package apiserver

import (
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// replicasLimit bounds the tasks of one service: a Swarm that is asked for millions has no time for anything else.
const replicasLimit = 100_000

type deploymentForm struct{}

func (deploymentForm) resource() schema.GroupResource { return deploymentResource }
func (deploymentForm) kind() schema.GroupVersionKind {
	return appsv1.SchemeGroupVersion.WithKind("Deployment")
}
func (deploymentForm) modes() []neutral.Mode { return []neutral.Mode{neutral.ModeReplicated} }
func (deploymentForm) blank() object         { return &appsv1.Deployment{} }
func (deploymentForm) template(o object) *corev1.PodTemplateSpec {
	return &o.(*appsv1.Deployment).Spec.Template
}
func (deploymentForm) selector(o object) *metav1.LabelSelector {
	return o.(*appsv1.Deployment).Spec.Selector
}

func (deploymentForm) of(w *neutral.Workload, template corev1.PodTemplateSpec, selector *metav1.LabelSelector) object {
	replicas := int32(w.Replicas)
	o := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector, Template: template}}
	if u := w.Update; u != nil {
		share := intstr.FromInt32(int32(max(u.Parallelism, 1)))
		none := intstr.FromInt32(0)
		o.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &share, MaxSurge: &none}}
		if u.Order == "start-first" {
			o.Spec.Strategy.RollingUpdate.MaxUnavailable, o.Spec.Strategy.RollingUpdate.MaxSurge = &none, &share
		}
	}
	return o
}

func (deploymentForm) complete(o object) {
	spec := &o.(*appsv1.Deployment).Spec
	set(&spec.Replicas, 1)
	set(&spec.RevisionHistoryLimit, 10)
	set(&spec.ProgressDeadlineSeconds, 600)
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if spec.Strategy.RollingUpdate == nil {
			spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		set(&spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		set(&spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
}

// set gives a pointer a value where it has none.
func set[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}

func (f deploymentForm) validate(next, old object) field.ErrorList {
	spec, path := &next.(*appsv1.Deployment).Spec, field.NewPath("spec")
	problems := validSelector(f, next, old)
	problems = append(problems, notNegative(path.Child("replicas"), int64(*spec.Replicas))...)
	if *spec.Replicas > replicasLimit {
		problems = append(problems, field.Invalid(path.Child("replicas"), *spec.Replicas, fmt.Sprintf("must be less than or equal to %d", replicasLimit)))
	}
	problems = append(problems, notNegative(path.Child("minReadySeconds"), int64(spec.MinReadySeconds))...)
	problems = append(problems, notNegative(path.Child("revisionHistoryLimit"), int64(*spec.RevisionHistoryLimit))...)
	if *spec.ProgressDeadlineSeconds <= spec.MinReadySeconds {
		problems = append(problems, field.Invalid(path.Child("progressDeadlineSeconds"), *spec.ProgressDeadlineSeconds, "must be greater than minReadySeconds"))
	}
	if policy := spec.Template.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways && !keepsRestart(f, old, policy) {
		problems = append(problems, field.NotSupported(path.Child("template", "spec", "restartPolicy"), policy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	switch spec.Strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if spec.Strategy.RollingUpdate != nil {
			problems = append(problems, field.Forbidden(path.Child("strategy", "rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'"))
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if _, _, err := spread(spec); err != nil && *spec.Replicas >= 0 {
			problems = append(problems, field.Invalid(path.Child("strategy", "rollingUpdate"), nil, err.Error()))
		}
	default:
		problems = append(problems, field.NotSupported(path.Child("strategy", "type"), spec.Strategy.Type,
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType}))
	}
	return problems
}

func notNegative(path *field.Path, value int64) field.ErrorList {
	if value < 0 {
		return field.ErrorList{field.Invalid(path, value, "must be greater than or equal to 0")}
	}
	return nil
}

// spread is how many Pods a rollout may add, and how many it may be short of.
func spread(spec *appsv1.DeploymentSpec) (surge, unavailable int, err error) {
	replicas := int(*spec.Replicas)
	rolling := spec.Strategy.RollingUpdate
	if surge, err = intstr.GetScaledValueFromIntOrPercent(rolling.MaxSurge, replicas, true); err != nil {
		return 0, 0, err
	}
	if unavailable, err = intstr.GetScaledValueFromIntOrPercent(rolling.MaxUnavailable, replicas, false); err != nil {
		return 0, 0, err
	}
	if surge < 0 || unavailable < 0 {
		return 0, 0, fmt.Errorf("must be greater than or equal to 0")
	}
	if surge == 0 && unavailable == 0 {
		if replicas > 0 && rolling.MaxSurge.IntValue() == 0 && rolling.MaxSurge.Type == intstr.Int && rolling.MaxUnavailable.Type == intstr.Int {
			return 0, 0, fmt.Errorf("may not be 0 when `maxSurge` is 0")
		}
		unavailable = 1
	}
	return surge, unavailable, nil
}

func (deploymentForm) into(o object, w *neutral.Workload) []neutral.Loss {
	spec := &o.(*appsv1.Deployment).Spec
	w.Replicas = int(*spec.Replicas)
	w.Update = &neutral.UpdatePolicy{Parallelism: 1, Order: "stop-first", OnFailure: "pause"}
	var losses []neutral.Loss
	if spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		w.Update.Parallelism = 0 // all at once
	} else if surge, unavailable, err := spread(spec); err == nil {
		w.Update.Parallelism = unavailable
		if surge > 0 {
			w.Update.Order, w.Update.Parallelism = "start-first", surge
		}
		if surge > 0 && unavailable > 0 && spec.Strategy.RollingUpdate.MaxUnavailable.String() != "25%" {
			losses = append(losses, neutral.Loss{Field: "spec.strategy.rollingUpdate.maxUnavailable", Change: "0",
				Reason: "Swarm starts the new one before it stops the old, or the other way round, and not both"})
		}
	}
	if spec.MinReadySeconds > 0 {
		losses = append(losses, neutral.Loss{Field: "spec.minReadySeconds", Change: "dropped", Reason: "Swarm counts a task as running at once"})
	}
	return losses
}

func (deploymentForm) live(o object, w *neutral.Workload, runs []run) {
	d := o.(*appsv1.Deployment)
	replicas := int32(min(w.Replicas, math.MaxInt32))
	if w.Labels[labelWaiting] == "" {
		d.Spec.Replicas = &replicas // as it is: docker service scale may have been here since
	}
	replicas = *d.Spec.Replicas
	status := &d.Status
	*status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation}
	current := hashOf(w.Template)
	for _, r := range runs {
		if r.terminating {
			terminating := int32(1)
			if status.TerminatingReplicas != nil {
				terminating += *status.TerminatingReplicas
			}
			status.TerminatingReplicas = &terminating
			continue
		}
		status.Replicas++
		if r.hash == current {
			status.UpdatedReplicas++
		}
		if r.ready {
			status.ReadyReplicas++
			status.AvailableReplicas++
		}
	}
	status.UnavailableReplicas = max(replicas-status.AvailableReplicas, 0)
	since := metav1.NewTime(w.UpdatedAt.Truncate(1e9))
	available := appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable",
		Message: "Deployment has minimum availability.", LastUpdateTime: since, LastTransitionTime: since}
	if status.AvailableReplicas < minimum(d) {
		available.Status, available.Reason = corev1.ConditionFalse, "MinimumReplicasUnavailable"
		available.Message = "Deployment does not have minimum availability."
	}
	if waits := w.Labels[labelWaiting]; waits != "" {
		available.Status, available.Reason, available.Message = corev1.ConditionFalse, "CreateContainerConfigError", waits+" is not there"
	}
	progressing := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated",
		Message: fmt.Sprintf("ReplicaSet %q is progressing.", d.Name+"-"+current), LastUpdateTime: since, LastTransitionTime: since}
	switch {
	case w.Updating == "paused" && !d.Spec.Paused:
		progressing.Status, progressing.Reason, progressing.Message = corev1.ConditionFalse, "ProgressDeadlineExceeded", w.UpdateMessage
	case d.Spec.Paused:
		progressing.Status, progressing.Reason, progressing.Message = corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused"
	case status.UpdatedReplicas >= replicas && status.AvailableReplicas >= replicas && status.Replicas == status.UpdatedReplicas:
		progressing.Reason, progressing.Message = "NewReplicaSetAvailable", fmt.Sprintf("ReplicaSet %q has successfully progressed.", d.Name+"-"+current)
	}
	status.Conditions = []appsv1.DeploymentCondition{available, progressing}
}

// minimum is how many Pods must be available.
func minimum(d *appsv1.Deployment) int32 {
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate == nil {
		return *d.Spec.Replicas
	}
	_, unavailable, err := spread(&d.Spec)
	if err != nil {
		return *d.Spec.Replicas
	}
	return max(*d.Spec.Replicas-int32(unavailable), 0)
}
