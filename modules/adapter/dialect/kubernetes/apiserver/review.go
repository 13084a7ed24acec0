package apiserver

import (
	"net/http"

	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

// reviewGroup is of what is asked and not kept.
const reviewGroup = authorizationv1.GroupName

// review answers whether the caller may do something. What it may is the policy's of the cluster to say, which was asked
// before; here everything that is served can be done.
func (s *Server) review(w http.ResponseWriter, c *call) error {
	options, err := writingOf(c)
	if err != nil {
		return err
	}
	o, warnings, err := readObject(c, options)
	if err != nil {
		return err
	}
	review := o.(*authorizationv1.SelfSubjectAccessReview)
	review.Status.Allowed, review.Status.Reason = servedVerb(review.Spec.ResourceAttributes)
	warn(w, warnings)
	return s.answer(w, c, http.StatusCreated, named(review, c.resource.GroupVersionKind))
}

// servedVerb tells whether a resource has a verb at all.
func servedVerb(asked *authorizationv1.ResourceAttributes) (allowed bool, reason string) {
	if asked == nil {
		return true, ""
	}
	for _, r := range resource.All {
		if (asked.Group == r.Group || asked.Group == "*") && (asked.Resource == r.Name || asked.Resource == "*") {
			if asked.Subresource != "" {
				_, ok := r.Subresource(asked.Subresource)
				return ok, ""
			}
			return asked.Verb == "*" || r.Serves(asked.Verb), ""
		}
	}
	return false, "the resource is not served"
}
