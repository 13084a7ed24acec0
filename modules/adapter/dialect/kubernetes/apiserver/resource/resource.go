// Package resource lists what the Kubernetes API over another orchestrator serves. Discovery, OpenAPI and tables are made
// from this list, and requests are looked up in it.
package resource

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Resource is one kind of object that is served.
type Resource struct {
	schema.GroupVersionKind
	Name         string // plural, as in paths: "deployments"
	Singular     string
	ShortNames   []string
	Categories   []string
	Namespaced   bool
	Verbs        []string
	Subresources []Subresource
	New          func() runtime.Object // an empty object
	NewList      func() runtime.Object // an empty list of them
}

// Subresource is a part of an object, or something to do with it, that has a path of its own.
type Subresource struct {
	Name  string                  // "scale"
	Kind  schema.GroupVersionKind // of its body; that of the resource for status
	Verbs []string
}

// GroupResource is the resource without its version.
func (r Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Name}
}

// GroupVersionResource is the resource with its version.
func (r Resource) GroupVersionResource() schema.GroupVersionResource {
	return r.GroupVersion().WithResource(r.Name)
}

// Serves tells whether a verb, in the API's words, is served.
func (r Resource) Serves(verb string) bool { return slices.Contains(r.Verbs, verb) }

// Subresource finds one by its name.
func (r Resource) Subresource(name string) (Subresource, bool) {
	i := slices.IndexFunc(r.Subresources, func(s Subresource) bool { return s.Name == name })
	if i < 0 {
		return Subresource{}, false
	}
	return r.Subresources[i], true
}

var (
	reading = []string{"get", "list", "watch"}
	writing = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	parts   = []string{"get", "patch", "update"}

	core  = schema.GroupVersion{Version: "v1"}
	scale = schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
)

// All are the resources, in the order of their groups and names.
var All = []Resource{
	{GroupVersionKind: core.WithKind("ConfigMap"), Name: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true, Verbs: writing,
		New: func() runtime.Object { return &corev1.ConfigMap{} }, NewList: func() runtime.Object { return &corev1.ConfigMapList{} }},
	{GroupVersionKind: core.WithKind("Event"), Name: "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true, Verbs: reading,
		New: func() runtime.Object { return &corev1.Event{} }, NewList: func() runtime.Object { return &corev1.EventList{} }},
	{GroupVersionKind: core.WithKind("Namespace"), Name: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		Verbs: []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		New:   func() runtime.Object { return &corev1.Namespace{} }, NewList: func() runtime.Object { return &corev1.NamespaceList{} }},
	{GroupVersionKind: core.WithKind("Node"), Name: "nodes", Singular: "node", ShortNames: []string{"no"}, Verbs: reading,
		New: func() runtime.Object { return &corev1.Node{} }, NewList: func() runtime.Object { return &corev1.NodeList{} }},
	{GroupVersionKind: core.WithKind("PersistentVolumeClaim"), Name: "persistentvolumeclaims", Singular: "persistentvolumeclaim",
		ShortNames: []string{"pvc"}, Namespaced: true, Verbs: writing,
		New:     func() runtime.Object { return &corev1.PersistentVolumeClaim{} },
		NewList: func() runtime.Object { return &corev1.PersistentVolumeClaimList{} }},
	{GroupVersionKind: core.WithKind("Pod"), Name: "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"},
		Namespaced: true, Verbs: writing, Subresources: []Subresource{
			{Name: "attach", Kind: core.WithKind("PodAttachOptions"), Verbs: []string{"create", "get"}},
			{Name: "exec", Kind: core.WithKind("PodExecOptions"), Verbs: []string{"create", "get"}},
			{Name: "log", Kind: core.WithKind("Pod"), Verbs: []string{"get"}},
			{Name: "portforward", Kind: core.WithKind("PodPortForwardOptions"), Verbs: []string{"create", "get"}},
			{Name: "status", Kind: core.WithKind("Pod"), Verbs: []string{"get"}},
		},
		New: func() runtime.Object { return &corev1.Pod{} }, NewList: func() runtime.Object { return &corev1.PodList{} }},
	{GroupVersionKind: core.WithKind("Secret"), Name: "secrets", Singular: "secret", Namespaced: true, Verbs: writing,
		New: func() runtime.Object { return &corev1.Secret{} }, NewList: func() runtime.Object { return &corev1.SecretList{} }},
	{GroupVersionKind: core.WithKind("Service"), Name: "services", Singular: "service", ShortNames: []string{"svc"},
		Categories: []string{"all"}, Namespaced: true, Verbs: writing,
		Subresources: []Subresource{{Name: "status", Kind: core.WithKind("Service"), Verbs: []string{"get"}}},
		New:          func() runtime.Object { return &corev1.Service{} }, NewList: func() runtime.Object { return &corev1.ServiceList{} }},

	{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("DaemonSet"), Name: "daemonsets", Singular: "daemonset",
		ShortNames: []string{"ds"}, Categories: []string{"all"}, Namespaced: true, Verbs: writing,
		Subresources: []Subresource{{Name: "status", Kind: appsv1.SchemeGroupVersion.WithKind("DaemonSet"), Verbs: []string{"get"}}},
		New:          func() runtime.Object { return &appsv1.DaemonSet{} }, NewList: func() runtime.Object { return &appsv1.DaemonSetList{} }},
	{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Name: "deployments", Singular: "deployment",
		ShortNames: []string{"deploy"}, Categories: []string{"all"}, Namespaced: true, Verbs: writing, Subresources: []Subresource{
			{Name: "scale", Kind: scale, Verbs: parts},
			{Name: "status", Kind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Verbs: []string{"get"}},
		},
		New: func() runtime.Object { return &appsv1.Deployment{} }, NewList: func() runtime.Object { return &appsv1.DeploymentList{} }},
	{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), Name: "replicasets", Singular: "replicaset",
		ShortNames: []string{"rs"}, Categories: []string{"all"}, Namespaced: true, Verbs: reading,
		Subresources: []Subresource{{Name: "status", Kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), Verbs: []string{"get"}}},
		New:          func() runtime.Object { return &appsv1.ReplicaSet{} }, NewList: func() runtime.Object { return &appsv1.ReplicaSetList{} }},

	{GroupVersionKind: batchv1.SchemeGroupVersion.WithKind("Job"), Name: "jobs", Singular: "job", Categories: []string{"all"},
		Namespaced: true, Verbs: writing,
		Subresources: []Subresource{{Name: "status", Kind: batchv1.SchemeGroupVersion.WithKind("Job"), Verbs: []string{"get"}}},
		New:          func() runtime.Object { return &batchv1.Job{} }, NewList: func() runtime.Object { return &batchv1.JobList{} }},

	{GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), Name: "endpointslices", Singular: "endpointslice",
		Namespaced: true, Verbs: reading,
		New: func() runtime.Object { return &discoveryv1.EndpointSlice{} }, NewList: func() runtime.Object { return &discoveryv1.EndpointSliceList{} }},
}

// Reviews are the kinds that are asked and not kept. Policy answers them.
var Reviews = []Resource{
	{GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"),
		Name: "selfsubjectreviews", Singular: "selfsubjectreview", Verbs: []string{"create"},
		New: func() runtime.Object { return &authenticationv1.SelfSubjectReview{} }},
	{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"),
		Name: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", Verbs: []string{"create"},
		New: func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} }},
	{GroupVersionKind: authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"),
		Name: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview", Verbs: []string{"create"},
		New: func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} }},
}

// Find gives the resource of a path.
func Find(group, version, name string) (Resource, bool) {
	for _, list := range [][]Resource{All, Reviews} {
		for _, r := range list {
			if r.Group == group && r.Version == version && r.Name == name {
				return r, true
			}
		}
	}
	return Resource{}, false
}
