package apiserver

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Annotations by which kubectl rollout knows revisions.
const (
	annotationRevision = "deployment.kubernetes.io/revision"
	annotationCause    = "kubernetes.io/change-cause"
)

// replicaSetKind is the templates that Deployments have, and had. Swarm knows its services' own history of one; that of a
// Deployment is kept in its document.
type replicaSetKind struct{ *Server }

func (k replicaSetKind) project(w *world) []entry {
	var all []entry
	form := workloadKind{k.Server, deploymentForm{}}
	for i := range w.workloads {
		workload := &w.workloads[i]
		if workload.Mode != neutral.ModeReplicated {
			continue
		}
		o, revisions, own := form.read(workload)
		d := o.(*appsv1.Deployment)
		if own || len(revisions) == 0 {
			revisions = []revision{{Number: 1, Hash: hashOf(workload.Template), Template: d.Spec.Template, Created: workload.CreatedAt}}
		}
		placed(o, w, deploymentResource.Resource, workload.ID, workload.Namespace, workload.Name, workload.CreatedAt)
		for _, r := range revisions {
			all = append(all, entry{object: k.replicaSet(w, workload, d, r), native: native{id: workload.ID, own: own}})
		}
	}
	return all
}

func (k replicaSetKind) replicaSet(w *world, workload *neutral.Workload, d *appsv1.Deployment, r revision) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{}
	rs.Labels = withLabel(r.Template.Labels, labelHash, r.Hash)
	rs.Annotations = map[string]string{annotationRevision: strconv.FormatInt(r.Number, 10)}
	if r.Cause != "" {
		rs.Annotations[annotationCause] = r.Cause
	}
	placed(rs, w, replicaSetResource.Resource, workload.ID+"/"+r.Hash, workload.Namespace, workload.Name+"-"+r.Hash, r.Created)
	rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, deploymentForm{}.kind())}
	rs.Generation = 1
	rs.Spec.Template = *r.Template.DeepCopy()
	rs.Spec.Template.Labels = withLabel(r.Template.Labels, labelHash, r.Hash)
	rs.Spec.Selector = d.Spec.Selector.DeepCopy()
	if rs.Spec.Selector.MatchLabels == nil {
		rs.Spec.Selector.MatchLabels = map[string]string{}
	}
	rs.Spec.Selector.MatchLabels[labelHash] = r.Hash
	replicas := int32(0)
	for _, run := range w.runsOf()[workload.ID] {
		if run.hash != r.Hash || run.terminating {
			continue
		}
		replicas++
		rs.Status.FullyLabeledReplicas++
		if run.ready {
			rs.Status.ReadyReplicas++
			rs.Status.AvailableReplicas++
		}
	}
	rs.Status.Replicas, rs.Status.ObservedGeneration = replicas, 1
	if r.Hash == hashOf(workload.Template) {
		replicas = int32(workload.Replicas)
	}
	rs.Spec.Replicas = &replicas
	return rs
}

// hashOfTemplate names a template of the API.
func hashOfTemplate(template *corev1.PodTemplateSpec) string {
	told, err := json.Marshal(template)
	if err != nil {
		return "0"
	}
	return digest(told)
}

// revisions are those of a Deployment after it is written: a template that it had before becomes the newest one again.
func (k workloadKind) revisions(d deed) []revision {
	next, ok := d.next.(*appsv1.Deployment)
	if !ok {
		return nil
	}
	var before []revision
	if d.old != nil {
		before = k.revisionsOf(d.old)
	}
	if next.Spec.Paused && d.old != nil {
		return before // the template is no revision before it is rolled out
	}
	if k.sameTemplate(d) {
		if n := len(before); n > 0 {
			before[n-1].Cause = next.Annotations[annotationCause]
		}
		return before
	}
	hash := hashOfTemplate(&next.Spec.Template)
	newest := int64(0)
	for _, r := range before {
		newest = max(newest, r.Number)
	}
	same := func(r revision) bool {
		return r.Hash == hash || apiequality.Semantic.DeepEqual(r.Template, next.Spec.Template)
	}
	if n := len(before); n > 0 && same(before[n-1]) {
		before[n-1].Cause = next.Annotations[annotationCause]
		return before
	}
	now := revision{Number: newest + 1, Hash: hash, Template: *next.Spec.Template.DeepCopy(), Created: k.now().Truncate(time.Second), Cause: next.Annotations[annotationCause]}
	if i := slices.IndexFunc(before, same); i >= 0 {
		now.Created = before[i].Created
		before = slices.Delete(before, i, i+1)
	}
	if over := len(before) - int(*next.Spec.RevisionHistoryLimit); over > 0 {
		before = before[over:]
	}
	return append(before, now)
}

// revisionsOf are those of a Deployment as it is, by the ReplicaSets that it owns.
func (k workloadKind) revisionsOf(e *entry) []revision {
	var found []revision
	sets, _ := k.store.list(replicaSetResource, e.object.GetNamespace())
	for _, s := range sets {
		rs := s.object.(*appsv1.ReplicaSet)
		if !metav1.IsControlledBy(rs, e.object) {
			continue
		}
		number, err := strconv.ParseInt(rs.Annotations[annotationRevision], 10, 64)
		if err != nil {
			continue
		}
		template := *rs.Spec.Template.DeepCopy()
		delete(template.Labels, labelHash)
		found = append(found, revision{Number: number, Hash: rs.Labels[labelHash], Template: template,
			Created: rs.CreationTimestamp.Time, Cause: rs.Annotations[annotationCause]})
	}
	slices.SortFunc(found, func(a, b revision) int { return int(a.Number - b.Number) })
	return found
}

// revise sets on a Deployment which revision it is at.
func revise(o object, revisions []revision) {
	d, ok := o.(*appsv1.Deployment)
	if !ok {
		return
	}
	number := int64(1)
	if n := len(revisions); n > 0 {
		number = revisions[n-1].Number
	}
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[annotationRevision] = strconv.FormatInt(number, 10)
}
