package kubernetes

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// right is one thing that an account may or may not do.
type right struct {
	authorizationv1.ResourceAttributes
	why string
}

func (r right) String() string {
	name := r.Resource
	if r.Group != "" {
		name += "." + r.Group
	}
	if r.Name != "" {
		name += fmt.Sprintf(" %q", r.Name)
	}
	where := "in the whole cluster"
	if r.Namespace != "" {
		where = "in the namespace " + r.Namespace
	}
	return fmt.Sprintf("%s %s %s (%s)", r.Verb, name, where, r.why)
}

// needed are the rights of the gateway itself.
func (c *Cluster) needed(peers []string) []right {
	var all []right
	for _, resource := range []authorizationv1.ResourceAttributes{
		{Resource: "pods"}, {Resource: "services"}, {Group: "discovery.k8s.io", Resource: "endpointslices"},
	} {
		for _, verb := range []string{"list", "watch"} {
			resource.Verb = verb
			all = append(all, right{resource, "the catalogue, and where containers are"})
		}
	}
	all = append(all, right{authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods"}, "where containers are"},
		right{authorizationv1.ResourceAttributes{Verb: "list", Resource: "persistentvolumes"}, "object.hostMounts of policies, by way of claims"})
	if c.reviews {
		all = append(all, right{authorizationv1.ResourceAttributes{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"},
			"callers' tokens"})
	}
	if !c.impersonate {
		return all
	}
	impersonate := func(resource, name, why string) {
		all = append(all, right{authorizationv1.ResourceAttributes{Verb: "impersonate", Resource: resource, Name: name}, why})
	}
	if len(peers) > 0 {
		impersonate("groups", peersGroup, "acting for peers")
	}
	for _, peer := range peers {
		impersonate("users", peerIdentity+peer, "acting for peer "+peer)
		impersonate("groups", peerIdentity+peer, "acting for peer "+peer)
	}
	return all
}

// excessive are rights that no gateway needs whose peers have their own.
func (c *Cluster) excessive() []right {
	if !c.impersonate {
		return nil
	}
	return []right{
		{authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"}, "everything"},
		{authorizationv1.ResourceAttributes{Verb: "impersonate", Resource: "users", Name: "isthmus-nobody"}, "acting as anybody"},
		{authorizationv1.ResourceAttributes{Verb: "impersonate", Resource: "groups", Name: "system:masters"}, "acting as anybody"},
		{authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Namespace: c.namespace}, "peers have their own right to it"},
		{authorizationv1.ResourceAttributes{Verb: "list", Resource: "secrets", Namespace: c.namespace}, "peers have their own right to it"},
	}
}

// Rights asks the API server what the gateway's own account may do.
//
// https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/
func (c *Cluster) Rights(ctx context.Context, peers []string) (dialect.Findings, error) {
	var found dialect.Findings
	for _, r := range c.needed(peers) {
		allowed, err := c.may(asGateway(ctx), r.ResourceAttributes)
		if err != nil {
			return found, err
		}
		if !allowed {
			found.Missing = append(found.Missing, r.String())
		}
	}
	for _, r := range c.excessive() {
		allowed, err := c.may(asGateway(ctx), r.ResourceAttributes)
		if err != nil {
			return found, err
		}
		if allowed {
			found.Needless = append(found.Needless, r.String())
		}
	}
	return found, nil
}

// may asks whether whoever a context stands for may do something.
func (c *Cluster) may(ctx context.Context, what authorizationv1.ResourceAttributes) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &what}}
	answer, err := c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, nativeFault(err)
	}
	return answer.Status.Allowed, nil
}
