package apiserver

import (
	"maps"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

type jobForm struct{}

func (jobForm) resource() schema.GroupResource { return jobResource }
func (jobForm) kind() schema.GroupVersionKind  { return batchv1.SchemeGroupVersion.WithKind("Job") }
func (jobForm) modes() []neutral.Mode {
	return []neutral.Mode{neutral.ModeJob, neutral.ModeGlobalJob}
}
func (jobForm) blank() object                             { return &batchv1.Job{} }
func (jobForm) template(o object) *corev1.PodTemplateSpec { return &o.(*batchv1.Job).Spec.Template }
func (jobForm) selector(o object) *metav1.LabelSelector   { return o.(*batchv1.Job).Spec.Selector }

func (jobForm) of(w *neutral.Workload, template corev1.PodTemplateSpec, selector *metav1.LabelSelector) object {
	completions := int32(max(w.Replicas, 1))
	if template.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	return &batchv1.Job{Spec: batchv1.JobSpec{Completions: &completions, Parallelism: &completions, Selector: selector, Template: template}}
}

// labelJob selects a job's Pods, as the API's own jobs set it.
const labelJob = batchv1.JobNameLabel

func (jobForm) complete(o object) {
	job := o.(*batchv1.Job)
	set(&job.Spec.Completions, 1)
	set(&job.Spec.Parallelism, 1)
	set(&job.Spec.BackoffLimit, 6)
	set(&job.Spec.CompletionMode, batchv1.NonIndexedCompletion)
	set(&job.Spec.Suspend, false)
	set(&job.Spec.ManualSelector, false)
	set(&job.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	if job.Spec.Selector == nil && !*job.Spec.ManualSelector {
		job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{labelJob: job.Name}}
	}
	if job.Spec.Template.Labels == nil {
		job.Spec.Template.Labels = map[string]string{}
	}
	job.Spec.Template.Labels[labelJob] = job.Name
	job.Spec.Template.Labels["job-name"] = job.Name // as it was called before, and is asked for still
	if len(job.Labels) == 0 {
		job.Labels = maps.Clone(job.Spec.Template.Labels)
	}
}

func (f jobForm) validate(next, old object) field.ErrorList {
	job, path := next.(*batchv1.Job), field.NewPath("spec")
	spec := &job.Spec
	var problems field.ErrorList
	for name, value := range map[string]*int32{"completions": spec.Completions, "parallelism": spec.Parallelism, "backoffLimit": spec.BackoffLimit} {
		problems = append(problems, notNegative(path.Child(name), int64(*value))...)
	}
	switch policy := spec.Template.Spec.RestartPolicy; policy {
	case corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure:
	default:
		problems = append(problems, field.NotSupported(path.Child("template", "spec", "restartPolicy"), policy,
			[]corev1.RestartPolicy{corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure}))
	}
	refuse := func(name string, there bool, reason string) {
		if there {
			problems = append(problems, field.Forbidden(path.Child(name), reason))
		}
	}
	refuse("suspend", *spec.Suspend, "a job of Swarm is not suspended")
	refuse("completionMode", *spec.CompletionMode != batchv1.NonIndexedCompletion, "the tasks of a Swarm job have no index that is told")
	refuse("manualSelector", *spec.ManualSelector, "Swarm finds a job's tasks by itself")
	refuse("podFailurePolicy", spec.PodFailurePolicy != nil, "Swarm has no such policy")
	refuse("successPolicy", spec.SuccessPolicy != nil, "Swarm has no such policy")
	refuse("activeDeadlineSeconds", spec.ActiveDeadlineSeconds != nil, "Swarm ends no job by a deadline")
	refuse("ttlSecondsAfterFinished", spec.TTLSecondsAfterFinished != nil, "Swarm keeps a job until it is removed")
	refuse("backoffLimitPerIndex", spec.BackoffLimitPerIndex != nil, "the tasks of a Swarm job have no index that is told")
	refuse("managedBy", spec.ManagedBy != nil, "Swarm runs the job")
	if old, ok := old.(*batchv1.Job); ok && old != nil && !apiequality.Semantic.DeepEqual(old.Spec.Template, spec.Template) {
		problems = append(problems, field.Invalid(path.Child("template"), "", "field is immutable"))
	}
	return problems
}

func (jobForm) into(o object, w *neutral.Workload) []neutral.Loss {
	spec := &o.(*batchv1.Job).Spec
	w.Mode, w.Replicas = neutral.ModeJob, int(*spec.Completions)
	w.Template.Restart = neutral.RestartPolicy{Mode: neutral.RestartOnFailure, Max: int(*spec.BackoffLimit)}
	if *spec.BackoffLimit == 0 {
		w.Template.Restart = neutral.RestartPolicy{Mode: neutral.RestartNo}
	}
	if *spec.Parallelism != *spec.Completions {
		return []neutral.Loss{{Field: "spec.parallelism", Change: "all at once", Reason: "the job's tasks run at the same time"}}
	}
	return nil
}

func (jobForm) live(o object, w *neutral.Workload, runs []run) {
	job := o.(*batchv1.Job)
	started := metav1.NewTime(w.CreatedAt.Truncate(time.Second))
	ready, terminating := int32(0), int32(0)
	status := batchv1.JobStatus{StartTime: &started}
	var last time.Time
	for _, r := range runs {
		switch {
		case r.State == "complete":
			status.Succeeded++
			if r.Updated.After(last) {
				last = r.Updated
			}
		case r.ended:
			status.Failed++
			if r.Updated.After(last) {
				last = r.Updated
			}
		case r.terminating:
			terminating++
		default:
			status.Active++
			if r.ready {
				ready++
			}
		}
	}
	status.Ready, status.Terminating = &ready, &terminating
	if w.Mode == neutral.ModeGlobalJob {
		completions := int32(max(w.Desired, w.Completed))
		job.Spec.Completions = &completions
	}
	at := metav1.NewTime(last.Truncate(time.Second))
	switch {
	case status.Active == 0 && status.Succeeded >= *job.Spec.Completions:
		status.CompletionTime = &at
		for _, kind := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
			status.Conditions = append(status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue,
				Reason: batchv1.JobReasonCompletionsReached, Message: "Reached expected number of succeeded pods", LastProbeTime: at, LastTransitionTime: at})
		}
	case status.Active == 0 && status.Failed > *job.Spec.BackoffLimit:
		for _, kind := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobFailed} {
			status.Conditions = append(status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue,
				Reason: batchv1.JobReasonBackoffLimitExceeded, Message: "Job has reached the specified backoff limit", LastProbeTime: at, LastTransitionTime: at})
		}
	}
	job.Status = status
}
