package kubernetes

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Reviewer = (*emulated)(nil)

// A caller's questions about itself, as their operations are called.
const (
	selfReview   = "authentication.k8s.io/selfsubjectreviews"
	accessReview = "authorization.k8s.io/selfsubjectaccessreviews"
	rulesReview  = "authorization.k8s.io/selfsubjectrulesreviews"
)

// Reviews tells such a question: kubectl auth whoami and can-i.
func (e *emulated) Reviews(op neutral.Operation) bool {
	switch op.Object.Resource {
	case selfReview, accessReview, rulesReview:
		return op.Extra[extraVerb] == string(verbCreate)
	}
	return false
}

// Review answers one.
func (e *emulated) Review(op neutral.Operation, req dialect.Request, asker dialect.Asker) (dialect.Response, error) {
	answer := e.reviewAccess
	switch op.Object.Resource {
	case selfReview:
		answer = reviewSelf
	case rulesReview:
		answer = e.reviewRules
	}
	review, err := answer(req.Body, asker)
	if err != nil {
		return dialect.Response{}, err
	}
	raw, err := json.Marshal(review)
	if err != nil {
		return dialect.Response{}, err
	}
	return dialect.Response{Status: http.StatusCreated, Header: http.Header{"Content-Type": {mediaJSON}}, Body: raw}, nil
}

// readReview reads what is asked. kubectl sends it as protobuf.
func readReview(body []byte, kind schema.GroupVersionKind, into runtime.Object) error {
	read, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, &kind, into)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the review could not be read")
	}
	if read != into {
		return fault.New(fault.Invalid, "the review is no %s", kind.Kind)
	}
	into.GetObjectKind().SetGroupVersionKind(kind)
	return nil
}

// reviewAccess tells whether the caller may do one thing. What depends on the object is a yes: some objects there may be.
func (e *emulated) reviewAccess(body []byte, asker dialect.Asker) (runtime.Object, error) {
	review := &authorizationv1.SelfSubjectAccessReview{}
	if err := readReview(body, authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), review); err != nil {
		return nil, err
	}
	leave := e.leave(review.Spec, asker)
	review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: leave.Allowed || leave.Open, Reason: leave.Why}
	return review, nil
}

// leave is what policy says of what a review is about.
func (e *emulated) leave(spec authorizationv1.SelfSubjectAccessReviewSpec, asker dialect.Asker) dialect.Leave {
	head, anything, ok := reviewed(spec)
	if !ok {
		return dialect.Leave{Why: "that is not served"}
	}
	op, err := (Dialect{}).Classify(head)
	switch {
	case err != nil:
		return dialect.Leave{Why: fault.Of(err).Message}
	case e.Reviews(op):
		return dialect.Leave{Allowed: true} // everybody may ask about itself
	case anything:
		if op.Object.Kind == neutral.KindNamespace {
			op.Object.Namespace = "" // it was its name
		}
		op.Object.Name, op.Ref = "", ""
	}
	return asker.May(op)
}

// methods are those by which the API's verbs are asked for.
var methods = map[string]string{"get": http.MethodGet, "list": http.MethodGet, "watch": http.MethodGet, "create": http.MethodPost,
	"update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete}

// reviewed is the request that a review is about; ok false for one that is not served. The name in it stands for
// anything where the review has none and the request needs one.
func reviewed(spec authorizationv1.SelfSubjectAccessReviewSpec) (head dialect.Request, anything, ok bool) {
	if n := spec.NonResourceAttributes; n != nil {
		return dialect.Request{Method: http.MethodGet, Path: n.Path}, false, strings.HasPrefix(n.Path, "/")
	}
	a := spec.ResourceAttributes
	if a == nil || methods[a.Verb] == "" {
		return head, false, false
	}
	for _, r := range slices.Concat(resource.All, resource.Reviews) {
		if r.Group != a.Group || r.Name != a.Resource {
			continue
		}
		if _, part := r.Subresource(a.Subresource); a.Subresource != "" && !part || a.Subresource == "" && !r.Serves(a.Verb) {
			return head, false, false
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
			name, anything = "any", true
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
		return dialect.Request{Method: methods[a.Verb], Path: path, Header: http.Header{}}, anything, true
	}
	return head, false, false
}
