package apiserver

import (
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

// scaleResource is the scale of a workload as a resource of its own, so that it is read and patched like any other.
var scaleResource = resource.Resource{GroupVersionKind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"), Name: "scales", Namespaced: true,
	New: func() runtime.Object { return &autoscalingv1.Scale{} }}

func scaleOf(d *appsv1.Deployment) *autoscalingv1.Scale {
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Namespace: d.Namespace, UID: d.UID, ResourceVersion: d.ResourceVersion,
		CreationTimestamp: d.CreationTimestamp}}
	s.Spec.Replicas, s.Status.Replicas = *d.Spec.Replicas, d.Status.Replicas
	if selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil {
		s.Status.Selector = selector.String()
	}
	return s
}

// serveScale reads or changes how many Pods a workload has.
func (s *Server) serveScale(w http.ResponseWriter, c *call) error {
	old, err := s.find(c)
	if err != nil {
		return err
	}
	before := scaleOf(old.object.(*appsv1.Deployment))
	if c.verb == "get" {
		return s.answer(w, c, http.StatusOK, named(before, scaleResource.GroupVersionKind))
	}
	options, err := writingOf(c)
	if err != nil {
		return err
	}
	var wanted *autoscalingv1.Scale
	var warnings []string
	of := *c // the same request, about its scale
	of.resource = scaleResource
	if c.verb == "update" {
		o, problems, err := readObject(&of, options)
		if err != nil {
			return err
		}
		wanted, warnings = o.(*autoscalingv1.Scale), problems
	} else {
		raw, err := readWhole(c)
		if err != nil {
			return err
		}
		o, problems, err := patched(&of, options, types.PatchType(mediaOf(c.Header)), raw, before)
		if err != nil {
			return err
		}
		wanted, warnings = o.(*autoscalingv1.Scale), problems
	}
	if wanted.Spec.Replicas < 0 {
		return apierrors.NewInvalid(scaleResource.GroupKind(), c.name, notNegative(field.NewPath("spec", "replicas"), int64(wanted.Spec.Replicas)))
	}
	if wanted.ResourceVersion != "" && wanted.ResourceVersion != before.ResourceVersion {
		return apierrors.NewConflict(c.resource.GroupResource(), c.name, errModified)
	}
	next := old.object.DeepCopyObject().(*appsv1.Deployment)
	next.Spec.Replicas = &wanted.Spec.Replicas
	if err := updateManagers(c, options, "scale", old.object, next); err != nil {
		return err
	}
	changed, losses, err := s.replace(c, options, old, next)
	if err != nil {
		return err
	}
	warn(w, append(warnings, losses...))
	return s.answer(w, c, http.StatusOK, named(scaleOf(changed.(*appsv1.Deployment)), scaleResource.GroupVersionKind))
}
