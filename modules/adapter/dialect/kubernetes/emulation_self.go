package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/discovery"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// What a caller is told of itself that Kubernetes has no field for.
const (
	extraPeer   = "isthmus.io/peer"   // whose caller it is: names of callers are each peer's own
	extraGroups = "isthmus.io/groups" // "incomplete" where the peer could not tell all of them
)

// reviewSelf tells a caller who it is, as policy sees it: its name and groups as its own gateway tells them. Who is not
// named is its peer, by the name that the API server of a Kubernetes cluster knows it by.
// See https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/self-subject-review-v1/
func reviewSelf(body []byte, asker dialect.Asker) (runtime.Object, error) {
	review := &authenticationv1.SelfSubjectReview{}
	if err := readReview(body, authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), review); err != nil {
		return nil, err
	}
	review.ObjectMeta = metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(time.Now())}
	user := authenticationv1.UserInfo{Username: asker.Caller, Groups: asker.Groups,
		Extra: map[string]authenticationv1.ExtraValue{extraPeer: {asker.Peer}}}
	if user.Username == "" {
		user.Username = peerIdentity + asker.Peer
	}
	if !asker.Whole {
		user.Extra[extraGroups] = authenticationv1.ExtraValue{"incomplete"}
	}
	review.Status = authenticationv1.SelfSubjectReviewStatus{UserInfo: user}
	return review, nil
}

// reviewRules tells what the caller may do in a namespace, and with what is in none. Only what it may do whatever the
// object is becomes a rule: rules of this API have no conditions, so the others are named in the error.
// See https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-rules-review-v1/
func (e *emulated) reviewRules(body []byte, asker dialect.Asker) (runtime.Object, error) {
	review := &authorizationv1.SelfSubjectRulesReview{}
	if err := readReview(body, authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview"), review); err != nil {
		return nil, err
	}
	namespace := review.Spec.Namespace
	if namespace == "" {
		return nil, fault.New(fault.Invalid, "no namespace on request")
	}
	if !isLabel(namespace) {
		return nil, fault.New(fault.Invalid, "%q names no valid namespace", namespace)
	}
	review.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	status := &review.Status
	var open []string
	ask := func(r resource.Resource, subresource, name string, verbs []string) {
		what := authorizationv1.ResourceAttributes{Group: r.Group, Resource: r.Name, Subresource: subresource, Name: name}
		if r.Namespaced {
			what.Namespace = namespace
		}
		rule := authorizationv1.ResourceRule{APIGroups: []string{r.Group}, Resources: []string{r.Name}}
		if subresource != "" {
			rule.Resources[0] += "/" + subresource
		}
		if name != "" {
			rule.ResourceNames = []string{name}
		}
		var some []string
		for _, what.Verb = range verbs {
			switch leave := e.leave(authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &what}, asker); {
			case leave.Allowed:
				rule.Verbs = append(rule.Verbs, what.Verb)
			case leave.Open:
				some = append(some, what.Verb)
			}
		}
		if len(some) > 0 {
			open = append(open, fmt.Sprintf("%s (%s)", schema.GroupResource{Group: r.Group, Resource: rule.Resources[0]}, strings.Join(some, ", ")))
		}
		if len(rule.Verbs) > 0 {
			status.ResourceRules = addRule(status.ResourceRules, rule)
		}
	}
	for _, r := range slices.Concat(resource.All, resource.Reviews) {
		verbs := r.Verbs
		if r.Group == "" && r.Name == "namespaces" { // of all namespaces it is asked about one
			ask(r, "", namespace, []string{"delete", "get", "patch", "update"})
			verbs = []string{"create", "list", "watch"}
		}
		ask(r, "", "", verbs)
		for _, s := range r.Subresources {
			ask(r, s.Name, "", s.Verbs)
		}
	}
	var paths []string
	for _, path := range slices.Concat([]string{"/healthz", "/livez", "/readyz"}, discovery.Paths(), openapi.Paths()) {
		what := authorizationv1.NonResourceAttributes{Path: path, Verb: "get"}
		switch leave := e.leave(authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &what}, asker); {
		case leave.Allowed:
			paths = append(paths, path)
		case leave.Open:
			open = append(open, path)
		}
	}
	if len(paths) > 0 {
		status.NonResourceRules = []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: paths}}
	}
	if len(open) > 0 {
		status.Incomplete = true
		status.EvaluationError = "allowed for some objects only, or under conditions: " + strings.Join(open, ", ")
	}
	return review, nil
}

// addRule adds a rule to one that says the same of other resources of the group, or after all.
func addRule(rules []authorizationv1.ResourceRule, rule authorizationv1.ResourceRule) []authorizationv1.ResourceRule {
	for i := range rules {
		r := &rules[i]
		if slices.Equal(r.APIGroups, rule.APIGroups) && slices.Equal(r.Verbs, rule.Verbs) && slices.Equal(r.ResourceNames, rule.ResourceNames) {
			r.Resources = append(r.Resources, rule.Resources...)
			return rules
		}
	}
	return append(rules, rule)
}
