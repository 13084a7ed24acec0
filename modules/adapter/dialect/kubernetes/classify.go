package kubernetes

import (
	"net/http"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Keys of Operation.Extra that Classify sets.
const (
	extraVersion     = "version"     // the API version of the resource, "v1"
	extraSubresource = "subresource" // "log", "scale"; absent for the object itself
	extraVerb        = "verb"        // the API's own verb, "deletecollection"
	extraContainer   = "container"   // the container of the pod, where log, exec or attach names one
)

// impersonation is the prefix of the headers by which a caller acts as somebody else. The API server would judge them
// by this gateway's rights, not by the caller's.
const impersonation = "Impersonate-"

// Classify names what a request asks, by the rules with which the API server itself reads a path, but stricter: a path
// that the two could read differently is refused.
// See https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
func (Dialect) Classify(head dialect.Request) (neutral.Operation, error) {
	for key := range head.Header {
		if len(key) >= len(impersonation) && strings.EqualFold(key[:len(impersonation)], impersonation) {
			return neutral.Operation{}, fault.New(fault.Denied, "no permission: impersonation does not cross gateways")
		}
	}
	switch head.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return neutral.Operation{}, fault.New(fault.Unsupported, "the Kubernetes API does not serve this method")
	}
	t, err := parseTarget(head.Method, head.Path)
	if err != nil {
		return neutral.Operation{}, err
	}
	if t.resource == "" {
		return classifySystem(head, t.system)
	}
	return classifyResource(head, t)
}

// classifySystem names a request outside the resources: discovery, health, version.
func classifySystem(head dialect.Request, path string) (neutral.Operation, error) {
	op := neutral.Operation{
		Action: neutral.ObjectRaw,
		Verb:   neutral.Get,
		Object: neutral.Object{Kind: neutral.KindSystem, Resource: path},
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "", "api", "apis", "openapi", ".well-known", "openid":
	case "version":
		op.Action = neutral.SystemVersion
	case "healthz", "livez", "readyz":
		op.Action = neutral.SystemPing
	case "metrics", "logs", "debug", "flagz", "statusz":
		op.Verb = neutral.Raw // the inside of the API server, addresses included
	default:
		return neutral.Operation{}, fault.New(fault.NotFound, "the server could not find the requested resource")
	}
	if head.Method != http.MethodGet && head.Method != http.MethodHead {
		op.Action, op.Verb = neutral.ObjectRaw, neutral.Raw
	}
	return op, nil
}

// classifyResource names a request for a resource.
func classifyResource(head dialect.Request, t target) (neutral.Operation, error) {
	verb, err := t.verb(head.Method)
	if err != nil {
		return neutral.Operation{}, err
	}
	kind := kindOf(t.group, t.resource)
	op := neutral.Operation{
		Verb: verb.neutral(),
		Object: neutral.Object{
			Kind:      kind,
			Resource:  t.qualified(),
			Namespace: t.namespace,
			Name:      t.name,
		},
		Ref:   t.name,
		Extra: map[string]string{extraVersion: t.version, extraVerb: string(verb)},
	}
	if t.subresource != "" {
		op.Extra[extraSubresource] = t.subresource
		if t.container != "" {
			op.Extra[extraContainer] = t.container
		}
		if op.Verb, op.Action, err = subresourceVerb(kind, t, verb); err != nil {
			return neutral.Operation{}, err
		}
		if t.subresource == "ephemeralcontainers" && op.Verb == neutral.Exec {
			op.Also = []neutral.Verb{neutral.Create} // of any image and with any rights, which exec alone does not give
		}
		return op, nil
	}
	op.Action = actionOf(kind, t.group, verb)
	switch {
	case kind == neutral.KindOther && !verb.reads():
		// Whoever may create containers shall not thereby create RoleBindings.
		op.Verb = neutral.Raw
	case verb == verbUpdate && createsOnUpdate(kind),
		verb == verbPatch && isApply(head.Header):
		op.Also = []neutral.Verb{neutral.Create}
	}
	return op, nil
}

// isApply tells whether a patch is a server-side apply, which creates what is not there.
func isApply(header http.Header) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(header.Get("Content-Type"))), "application/apply-patch")
}
