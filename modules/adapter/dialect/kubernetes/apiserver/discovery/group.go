package discovery

import (
	"encoding/json"
	"fmt"
	"slices"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apidiscoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/document"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

var (
	aggregatedV2      = document.Target{Group: apidiscoveryv2.GroupName, Version: "v2", Kind: "APIGroupDiscoveryList"}
	aggregatedV2beta1 = document.Target{Group: apidiscoveryv2beta1.GroupName, Version: "v2beta1", Kind: "APIGroupDiscoveryList"}
)

// group is an API group with its one version.
type group struct {
	schema.GroupVersion
	resources []resource.Resource
}

// served are all resources, in the order of groups and names that they are told in.
func served() []resource.Resource {
	all := slices.Concat(resource.All, resource.Reviews)
	slices.SortStableFunc(all, func(a, b resource.Resource) int {
		return slices.Compare([]string{a.Group, a.Version, a.Name}, []string{b.Group, b.Version, b.Name})
	})
	return all
}

func groupsOf(resources []resource.Resource) []group {
	var groups []group
	for _, r := range resources {
		last := len(groups) - 1
		if last < 0 || groups[last].GroupVersion != r.GroupVersion() {
			groups = append(groups, group{GroupVersion: r.GroupVersion()})
			last++
		}
		groups[last].resources = append(groups[last].resources, r)
	}
	return groups
}

// legacy are the documents of clients that ask for each group and version on its own.
func legacy(groups []group) map[string]runtime.Object {
	core := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}}
	named := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	all := map[string]runtime.Object{"/api": core, "/apis": named}
	for _, g := range groups {
		if g.Group == "" {
			core.Versions = append(core.Versions, g.Version)
			all["/api/"+g.Version] = g.list()
			continue
		}
		version := metav1.GroupVersionForDiscovery{GroupVersion: g.String(), Version: g.Version}
		one := metav1.APIGroup{Name: g.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
		named.Groups = append(named.Groups, one)
		one.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		all["/apis/"+g.Group] = &one
		all["/apis/"+g.String()] = g.list()
	}
	return all
}

func (g group) list() *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: g.String()}
	for _, r := range g.resources {
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: r.Name, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.Kind,
			Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
		for _, s := range r.Subresources {
			one := metav1.APIResource{Name: r.Name + "/" + s.Name, Namespaced: r.Namespaced, Kind: s.Kind.Kind, Verbs: s.Verbs}
			if s.Kind.GroupVersion() != g.GroupVersion {
				one.Group, one.Version = s.Kind.Group, s.Kind.Version
			}
			list.APIResources = append(list.APIResources, one)
		}
	}
	return list
}

// aggregated are the documents that tell all resources at once, of the core group and of the named groups.
func aggregated(groups []group) map[string]*apidiscoveryv2.APIGroupDiscoveryList {
	empty := func() *apidiscoveryv2.APIGroupDiscoveryList {
		return &apidiscoveryv2.APIGroupDiscoveryList{
			TypeMeta: metav1.TypeMeta{Kind: aggregatedV2.Kind, APIVersion: apidiscoveryv2.SchemeGroupVersion.String()},
			Items:    []apidiscoveryv2.APIGroupDiscovery{},
		}
	}
	all := map[string]*apidiscoveryv2.APIGroupDiscoveryList{"/api": empty(), "/apis": empty()}
	for _, g := range groups {
		path := "/apis"
		if g.Group == "" {
			path = "/api"
		}
		all[path].Items = append(all[path].Items, apidiscoveryv2.APIGroupDiscovery{
			ObjectMeta: metav1.ObjectMeta{Name: g.Group},
			Versions: []apidiscoveryv2.APIVersionDiscovery{{
				Version: g.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Resources: g.discovered(),
			}},
		})
	}
	return all
}

func (g group) discovered() []apidiscoveryv2.APIResourceDiscovery {
	var list []apidiscoveryv2.APIResourceDiscovery
	for _, r := range g.resources {
		one := apidiscoveryv2.APIResourceDiscovery{
			Resource: r.Name, SingularResource: r.Singular, ResponseKind: g.kind(r.GroupVersionKind), Scope: apidiscoveryv2.ScopeCluster,
			Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		}
		if r.Namespaced {
			one.Scope = apidiscoveryv2.ScopeNamespace
		}
		for _, s := range r.Subresources {
			one.Subresources = append(one.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: s.Name, ResponseKind: g.kind(s.Kind), Verbs: s.Verbs})
		}
		list = append(list, one)
	}
	return list
}

// kind names a kind as the API server does, which leaves the group's own name away.
func (g group) kind(k schema.GroupVersionKind) *metav1.GroupVersionKind {
	if k.GroupVersion() == g.GroupVersion {
		return &metav1.GroupVersionKind{Kind: k.Kind}
	}
	return &metav1.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}
}

// toV2beta1 is the list for clients of Kubernetes 1.26 to 1.29. The two versions have the same fields.
func toV2beta1(list *apidiscoveryv2.APIGroupDiscoveryList) *apidiscoveryv2beta1.APIGroupDiscoveryList {
	old := &apidiscoveryv2beta1.APIGroupDiscoveryList{}
	b, err := json.Marshal(list)
	if err == nil {
		err = json.Unmarshal(b, old)
	}
	if err != nil {
		panic(fmt.Sprintf("discovery v2beta1: %v", err))
	}
	old.APIVersion = apidiscoveryv2beta1.SchemeGroupVersion.String()
	return old
}
