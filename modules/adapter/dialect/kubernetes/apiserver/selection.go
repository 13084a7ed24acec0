package apiserver

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// selection is what of a list or a watch is wanted.
type selection struct {
	labels labels.Selector
	fields fields.Selector
}

// selectionOf reads the selectors of a request. Fields that the kind does not offer are refused, as the API does.
func selectionOf(c *call) (selection, error) {
	query := c.URL.Query()
	wanted, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return selection{}, apierrors.NewBadRequest(err.Error())
	}
	chosen, err := fields.ParseSelector(query.Get("fieldSelector"))
	if err != nil {
		return selection{}, apierrors.NewBadRequest("unable to parse the field selector: " + err.Error())
	}
	offered := fieldsOf(c.resource.New().(object))
	for _, requirement := range chosen.Requirements() {
		if _, ok := offered[requirement.Field]; !ok {
			return selection{}, apierrors.NewBadRequest("field label not supported: " + requirement.Field)
		}
	}
	if c.name != "" { // a watch of one object by its path
		chosen = fields.AndSelectors(chosen, fields.OneTermEqualSelector("metadata.name", c.name))
	}
	return selection{labels: wanted, fields: chosen}, nil
}

func (s selection) matches(o object) bool {
	return s.labels.Matches(labels.Set(o.GetLabels())) && (s.fields.Empty() || s.fields.Matches(fieldsOf(o)))
}

// fieldsOf are the fields that objects can be selected by.
func fieldsOf(o object) fields.Set {
	set := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
	switch o := o.(type) {
	case *corev1.Pod:
		set["spec.nodeName"], set["spec.restartPolicy"] = o.Spec.NodeName, string(o.Spec.RestartPolicy)
		set["spec.schedulerName"], set["spec.serviceAccountName"] = o.Spec.SchedulerName, o.Spec.ServiceAccountName
		set["spec.hostNetwork"] = strconv.FormatBool(o.Spec.HostNetwork)
		set["status.phase"], set["status.podIP"], set["status.nominatedNodeName"] = string(o.Status.Phase), o.Status.PodIP, o.Status.NominatedNodeName
	case *corev1.Event:
		about := o.InvolvedObject
		set["involvedObject.kind"], set["involvedObject.name"], set["involvedObject.namespace"] = about.Kind, about.Name, about.Namespace
		set["involvedObject.uid"], set["involvedObject.apiVersion"] = string(about.UID), about.APIVersion
		set["involvedObject.resourceVersion"], set["involvedObject.fieldPath"] = about.ResourceVersion, about.FieldPath
		set["reason"], set["type"], set["source"], set["reportingComponent"] = o.Reason, o.Type, o.Source.Component, o.ReportingController
	case *corev1.Secret:
		set["type"] = string(o.Type)
	case *corev1.Node:
		set["spec.unschedulable"] = strconv.FormatBool(o.Spec.Unschedulable)
		delete(set, "metadata.namespace")
	case *corev1.Namespace:
		set["status.phase"] = string(o.Status.Phase)
		delete(set, "metadata.namespace")
	case *appsv1.ReplicaSet:
		set["status.replicas"] = strconv.Itoa(int(o.Status.Replicas))
	case *batchv1.Job:
		set["status.successful"] = strconv.Itoa(int(o.Status.Succeeded))
	case *corev1.Service:
		set["spec.clusterIP"], set["spec.type"] = o.Spec.ClusterIP, string(o.Spec.Type)
	}
	return set
}
