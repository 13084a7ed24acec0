package table

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
)

// containers are the names and the images of a template's containers.
func containers(template corev1.PodTemplateSpec) (names, images string) {
	var n, i []string
	for _, c := range template.Spec.Containers {
		n = append(n, c.Name)
		i = append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// replicas are those that are wanted: one where nothing is said.
func replicas(n *int32) int64 {
	if n == nil {
		return 1
	}
	return int64(*n)
}

func deploymentCells(d *appsv1.Deployment, now time.Time) []any {
	names, images := containers(d.Spec.Template)
	selector := "<invalid>"
	if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil {
		selector = s.String()
	}
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicas(d.Spec.Replicas)), int64(d.Status.UpdatedReplicas),
		int64(d.Status.AvailableReplicas), since(d.CreationTimestamp.Time, now), names, images, selector,
	}
}

func replicaSetCells(r *appsv1.ReplicaSet, now time.Time) []any {
	names, images := containers(r.Spec.Template)
	return []any{
		r.Name, replicas(r.Spec.Replicas), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
		since(r.CreationTimestamp.Time, now), names, images, metav1.FormatLabelSelector(r.Spec.Selector),
	}
}

func daemonSetCells(d *appsv1.DaemonSet, now time.Time) []any {
	names, images := containers(d.Spec.Template)
	s := d.Status
	return []any{
		d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
		int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector),
		since(d.CreationTimestamp.Time, now), names, images, metav1.FormatLabelSelector(d.Spec.Selector),
	}
}

func jobCells(j *batchv1.Job, now time.Time) []any {
	names, images := containers(j.Spec.Template)
	return []any{
		j.Name, jobState(j), completions(j), jobDuration(j, now), since(j.CreationTimestamp.Time, now), names, images,
		metav1.FormatLabelSelector(j.Spec.Selector),
	}
}

// completions are the pods that succeeded, of those that must. Without a number, one that succeeds ends the job, of all
// that run at once.
func completions(j *batchv1.Job) string {
	done := fmt.Sprintf("%d/", j.Status.Succeeded)
	if j.Spec.Completions != nil {
		return done + fmt.Sprint(*j.Spec.Completions)
	}
	if parallel := replicas(j.Spec.Parallelism); parallel > 1 {
		return done + fmt.Sprintf("1 of %d", parallel)
	}
	return done + "1"
}

func jobDuration(j *batchv1.Job, now time.Time) string {
	if j.Status.StartTime == nil {
		return ""
	}
	end := now
	if j.Status.CompletionTime != nil {
		end = j.Status.CompletionTime.Time
	}
	return duration.HumanDuration(end.Sub(j.Status.StartTime.Time))
}

// jobState is the last word on a job: what ended it, what is ending it, what holds it.
func jobState(j *batchv1.Job) string {
	holds := map[batchv1.JobConditionType]bool{}
	for _, c := range j.Status.Conditions {
		holds[c.Type] = c.Status == corev1.ConditionTrue
	}
	switch {
	case holds[batchv1.JobComplete]:
		return string(batchv1.JobComplete)
	case holds[batchv1.JobFailed]:
		return string(batchv1.JobFailed)
	case j.DeletionTimestamp != nil:
		return "Terminating"
	}
	for _, c := range []batchv1.JobConditionType{batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if holds[c] {
			return string(c)
		}
	}
	return "Running"
}
