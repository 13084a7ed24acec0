package kubernetes

import (
	"context"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Lookup finds the labels of the object that a call of this dialect is about. The API is asked, not the cache: policy
// decides by what it says. A call about no single object (a list, a create) is given back as it is.
func (c *Cluster) Lookup(ctx context.Context, op neutral.Operation) (neutral.Object, error) {
	object := op.Object
	if object.Name == "" {
		return object, nil
	}
	resource, err := c.resourceOf(op)
	if err != nil {
		return object, err
	}
	var found *metav1.PartialObjectMetadata
	// A namespace is named by its path as its own namespace, yet is an object of the whole cluster.
	if getter := c.metadata.Resource(resource); object.Namespace == "" || object.Kind == neutral.KindNamespace {
		found, err = getter.Get(ctx, object.Name, metav1.GetOptions{})
	} else {
		found, err = getter.Namespace(object.Namespace).Get(ctx, object.Name, metav1.GetOptions{})
	}
	if err != nil {
		return object, apiFault(err, string(object.Kind)+" "+object.Name)
	}
	object.Labels = found.Labels
	if object.Labels == nil { // nil would say that nobody looked
		object.Labels = map[string]string{}
	}
	return object, nil
}

// resourceOf is the API's own name of what an operation is about.
func (c *Cluster) resourceOf(op neutral.Operation) (schema.GroupVersionResource, error) {
	qualified := op.Object.Resource
	if qualified == "" && op.Object.Kind == neutral.KindContainer {
		qualified = coreGroup + "/pods"
	}
	group, rest, ok := strings.Cut(qualified, "/")
	resource, _, _ := strings.Cut(rest, "/") // without the subresource
	if !ok || group == "" || resource == "" {
		return schema.GroupVersionResource{}, fault.New(fault.Unsupported, "an object of kind %s cannot be looked up", op.Object.Kind)
	}
	if group == coreGroup {
		group = ""
	}
	if version := op.Extra[extraVersion]; version != "" {
		return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, nil
	}
	found, err := c.mapper.ResourceFor(schema.GroupVersionResource{Group: group, Resource: resource})
	if err != nil {
		return schema.GroupVersionResource{}, apiFault(err, "the resource "+qualified)
	}
	return found, nil
}
