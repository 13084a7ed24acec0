package podspec

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TaskStatus(t neutral.Task, spec *corev1.PodSpec, now time.Time) corev1.PodStatus {
	p := corev1.PodPending
	if t.State == "running" {
		p = corev1.PodRunning
	}
	return corev1.PodStatus{Phase: p, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
}
func Status(c neutral.Container, spec *corev1.PodSpec, now time.Time) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodRunning}
}
func Validate(spec *corev1.PodSpec, path *field.Path) field.ErrorList { return nil }
