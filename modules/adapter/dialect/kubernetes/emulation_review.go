package kubernetes

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Reviewer = (*emulated)(nil)

// selfReview is how the operation of a caller's question about itself is called.
const selfReview = "authorization.k8s.io/selfsubjectaccessreviews"

// Reviews tells a caller's question about its own rights: kubectl auth can-i.
func (e *emulated) Reviews(op neutral.Operation) bool {
	return op.Object.Resource == selfReview && op.Extra[extraVerb] == string(verbCreate)
}

// Review answers one. may judges a request that the caller would make.
func (e *emulated) Review(req dialect.Request, may func(neutral.Operation) (bool, string)) (dialect.Response, error) {
	var review authorizationv1.SelfSubjectAccessReview
	kind := authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview")
	// kubectl sends it as protobuf.
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(req.Body, &kind, &review); err != nil {
		return dialect.Response{}, fault.Wrap(fault.Invalid, err, "the review could not be read")
	}
	review.SetGroupVersionKind(kind)
	review.Status = authorizationv1.SubjectAccessReviewStatus{}
	if head, ok := reviewed(review.Spec); !ok {
		review.Status.Reason = "that is not served"
	} else if op, err := (Dialect{}).Classify(head); err != nil {
		review.Status.Reason = fault.Of(err).Message
	} else {
		review.Status.Allowed, review.Status.Reason = may(op)
	}
	raw, err := json.Marshal(review)
	if err != nil {
		return dialect.Response{}, err
	}
	return dialect.Response{Status: http.StatusCreated, Header: http.Header{"Content-Type": {mediaJSON}}, Body: raw}, nil
}

// methods are those by which the API's verbs are asked for.
var methods = map[string]string{"get": http.MethodGet, "list": http.MethodGet, "watch": http.MethodGet, "create": http.MethodPost,
	"update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete}

// reviewed is the request that a review is about; ok false for one that is not served.
func reviewed(spec authorizationv1.SelfSubjectAccessReviewSpec) (head dialect.Request, ok bool) {
	if n := spec.NonResourceAttributes; n != nil {
		return dialect.Request{Method: http.MethodGet, Path: n.Path}, strings.HasPrefix(n.Path, "/")
	}
	a := spec.ResourceAttributes
	if a == nil || methods[a.Verb] == "" {
		return head, false
	}
	for _, r := range resource.All {
		if r.Group != a.Group || r.Name != a.Resource {
			continue
		}
		if _, part := r.Subresource(a.Subresource); a.Subresource != "" && !part || a.Subresource == "" && !r.Serves(a.Verb) {
			return head, false
		}
		path := "/apis/" + r.Group + "/" + r.Version
		if r.Group == "" {
			path = "/api/" + r.Version
		}
		if r.Namespaced && a.Namespace != "" {
			path += "/namespaces/" + url.PathEscape(a.Namespace)
		}
		path += "/" + r.Name
		name := a.Name
		if name == "" && a.Verb != "list" && a.Verb != "create" && a.Verb != "deletecollection" && a.Verb != "watch" || a.Subresource != "" && name == "" {
			name = "any" // of no name in particular
		}
		if name != "" && (a.Verb != "create" || a.Subresource != "") {
			path += "/" + url.PathEscape(name)
		}
		if a.Subresource != "" {
			path += "/" + a.Subresource
		}
		if a.Verb == "watch" {
			path += "?watch=true"
		}
		return dialect.Request{Method: methods[a.Verb], Path: path, Header: http.Header{}}, true
	}
	return head, false
}
