package apiserver

import (
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

// call is one request for a resource, as far as its path and method tell.
type call struct {
	*http.Request
	resource    resource.Resource
	namespace   string // "" is all of them, or a resource that is in none
	name        string
	subresource string
	verb        string // in the API's words
	peer        string // for whom it is done
}

// parse reads a path as the API does: /api/v1/namespaces/shop/pods/web/log.
func parse(r *http.Request) (*call, error) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/"), "/")
	for i, part := range parts {
		decoded, err := url.PathUnescape(part)
		if err != nil || decoded == "" || decoded == "." || decoded == ".." || strings.Contains(decoded, "/") { // another path, to others
			return nil, unknownPath(r)
		}
		parts[i] = decoded
	}
	c := &call{Request: r, peer: peerOf(r.Header)}
	var group schema.GroupVersion
	switch {
	case len(parts) > 2 && parts[0] == "api":
		group, parts = schema.GroupVersion{Version: parts[1]}, parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		group, parts = schema.GroupVersion{Group: parts[1], Version: parts[2]}, parts[3:]
	default:
		return nil, unknownPath(r)
	}
	watching := false
	if parts[0] == "watch" && len(parts) > 1 { // the form before ?watch=true
		watching, parts = true, parts[1:]
	}
	// /namespaces/shop is an object of its own, /namespaces/shop/pods are others in it.
	if parts[0] == "namespaces" && len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
		c.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 3 {
		return nil, unknownPath(r)
	}
	found, ok := resource.Find(group.Group, group.Version, parts[0])
	if !ok || (c.namespace != "" && !found.Namespaced) {
		return nil, unknownPath(r)
	}
	c.resource = found
	if len(parts) > 1 {
		c.name = parts[1]
	}
	if len(parts) > 2 {
		c.subresource = parts[2]
	}
	if c.verb = c.verbOf(watching); c.verb == "" {
		return nil, apierrors.NewMethodNotSupported(found.GroupResource(), strings.ToLower(r.Method))
	}
	return c, c.served()
}

// verbOf is the API's verb.
func (c *call) verbOf(watching bool) string {
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		switch {
		case watching, c.name == "" && asksToWatch(c.URL.Query()):
			return "watch"
		case c.name == "":
			return "list"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if c.name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return ""
}

// asksToWatch reads the query as the API does: the first value of a repeated key, and any but false and 0 for true. Policy
// was asked by the same rule.
func asksToWatch(query url.Values) bool {
	values, ok := query["watch"]
	return ok && !strings.EqualFold(values[0], "false") && values[0] != "0"
}

// served tells what is not: a verb that the resource does not have, a subresource that is none.
func (c *call) served() error {
	verbs := c.resource.Verbs
	if c.subresource != "" {
		sub, ok := c.resource.Subresource(c.subresource)
		if !ok {
			return unknownPath(c.Request)
		}
		verbs = sub.Verbs
	}
	for _, verb := range verbs {
		if verb == c.verb {
			if c.namespace == "" && c.resource.Namespaced && (c.name != "" || verb == "create" || verb == "deletecollection") {
				return apierrors.NewBadRequest("the namespace of the object is missing in the path")
			}
			if c.name == "" && (verb == "update" || verb == "patch") {
				break
			}
			return nil
		}
	}
	return apierrors.NewMethodNotSupported(c.resource.GroupResource(), c.verb)
}

func unknownPath(*http.Request) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "the server could not find the requested resource",
		0, true)
}

// peerOf is the peer in whose name the gateway asks.
func peerOf(header http.Header) string {
	_, peer, _ := strings.Cut(header.Get("Impersonate-User"), ":peer:")
	return peer
}
