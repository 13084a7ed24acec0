package kubernetes

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/fields"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// target is what a path of the API points at: a resource, or (resource "") a path of the system.
type target struct {
	system string

	group, version, namespace string
	resource, name            string
	subresource, container    string
	watch                     bool // a watch by path or by query
	collection                bool // no name in the path
}

// apiVerb is a verb as the API server's own authorization knows it.
type apiVerb string

const (
	verbGet              apiVerb = "get"
	verbList             apiVerb = "list"
	verbWatch            apiVerb = "watch"
	verbCreate           apiVerb = "create"
	verbUpdate           apiVerb = "update"
	verbPatch            apiVerb = "patch"
	verbDelete           apiVerb = "delete"
	verbDeleteCollection apiVerb = "deletecollection"
)

func (v apiVerb) reads() bool { return v == verbGet || v == verbList || v == verbWatch }

// neutral is the verb of policy for the object itself.
func (v apiVerb) neutral() neutral.Verb {
	switch v {
	case verbGet:
		return neutral.Get
	case verbList:
		return neutral.List
	case verbWatch:
		return neutral.Watch
	case verbCreate:
		return neutral.Create
	case verbUpdate, verbPatch:
		return neutral.Update
	case verbDelete, verbDeleteCollection:
		return neutral.Destroy
	}
	return neutral.Raw
}

// verb is what a method asks of the target.
func (t target) verb(method string) (apiVerb, error) {
	read := method == http.MethodGet || method == http.MethodHead
	switch {
	case t.watch && !read:
		return "", fault.New(fault.Invalid, "a watch is a GET")
	case t.watch:
		return verbWatch, nil
	case read && t.collection:
		return verbList, nil
	case read:
		return verbGet, nil
	case method == http.MethodPost:
		return verbCreate, nil
	case method == http.MethodPut:
		return verbUpdate, nil
	case method == http.MethodPatch:
		return verbPatch, nil
	case t.collection:
		return verbDeleteCollection, nil
	}
	return verbDelete, nil
}

// qualified is the resource as policy names it: "apps/deployments", "core/pods", "core/serviceaccounts/token".
func (t target) qualified() string {
	group := t.group
	if group == "" {
		group = coreGroup
	}
	if t.subresource != "" {
		return group + "/" + t.resource + "/" + t.subresource
	}
	return group + "/" + t.resource
}

// parseTarget reads a path with its query as it was sent. Only the query of a read changes what is asked.
func parseTarget(method, raw string) (target, error) {
	path, query, _ := strings.Cut(raw, "?")
	segments, err := splitPath(path)
	if err != nil {
		return target{}, err
	}
	var t target
	switch {
	case len(segments) >= 3 && segments[0] == "api":
		t.version, segments = segments[1], segments[2:]
		if t.version != "v1" {
			return target{}, fault.New(fault.NotFound, "the Kubernetes API has no such version of the core group")
		}
	case len(segments) >= 4 && segments[0] == "apis":
		t.group, t.version, segments = segments[1], segments[2], segments[3:]
		if !isSubdomain(t.group) || !isLabel(t.version) {
			return target{}, fault.New(fault.Invalid, "the path names no valid API group and version")
		}
	default:
		return target{system: "/" + strings.Join(segments, "/")}, nil
	}
	if err := t.parseResource(segments); err != nil {
		return target{}, err
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return target{}, fault.Wrap(fault.Invalid, err, "the query is malformed")
	}
	if t.collection && !t.watch && (method == http.MethodGet || method == http.MethodHead) {
		t.parseQuery(q)
	}
	switch t.subresource {
	case "log", "exec", "attach":
		t.container = q.Get("container")
	}
	return t, nil
}

// parseResource reads what follows group and version.
func (t *target) parseResource(segments []string) error {
	switch segments[0] {
	case "watch": // deprecated, still served
		if len(segments) < 2 {
			return fault.New(fault.NotFound, "the path names nothing to watch")
		}
		t.watch, segments = true, segments[1:]
	case "proxy": // gone since Kubernetes 1.10
		return fault.New(fault.NotFound, "the Kubernetes API has no such path; proxy is a subresource")
	}
	if segments[0] == "namespaces" && len(segments) > 1 {
		t.namespace = segments[1]
		if !isLabel(t.namespace) {
			return fault.New(fault.Invalid, "the path names no valid namespace")
		}
		// A namespace has two subresources; anything else behind its name is a resource within it.
		if len(segments) > 2 && segments[2] != "status" && segments[2] != "finalize" {
			segments = segments[2:]
		}
	}
	t.resource = segments[0]
	if !isLabel(t.resource) {
		return fault.New(fault.Invalid, "the path names no valid resource")
	}
	t.collection = len(segments) == 1
	if len(segments) > 1 {
		t.name = segments[1]
	}
	if len(segments) > 2 {
		t.subresource = segments[2]
		if !isLabel(t.subresource) {
			return fault.New(fault.Invalid, "the path names no valid subresource")
		}
		if t.watch {
			return fault.New(fault.NotFound, "a subresource cannot be watched")
		}
	}
	if t.subresource == "proxy" {
		return t.splitProxyName() // the rest of the path is for whom the proxy leads to
	}
	if len(segments) > 3 {
		return fault.New(fault.NotFound, "the Kubernetes API has no such path")
	}
	return nil
}

// splitProxyName leaves of "scheme:name:port", as the proxy subresource takes it, the name that policy speaks of.
func (t *target) splitProxyName() error {
	parts := strings.Split(t.name, ":")
	switch {
	case len(parts) == 1, len(parts) == 2:
		t.name = parts[0]
	case len(parts) == 3 && (parts[0] == "" || parts[0] == "http" || parts[0] == "https"):
		t.name = parts[1]
	default:
		t.name = ""
	}
	if t.name == "" {
		return fault.New(fault.Invalid, "the path names no valid object for a proxy")
	}
	return nil
}

// parseQuery reads what of a collection's query changes the verb or names an object. The API server takes the first
// value of a repeated key, and any value but false and 0 as true.
func (t *target) parseQuery(query url.Values) {
	if v, ok := query["watch"]; ok {
		w := strings.ToLower(v[0])
		t.watch = w != "false" && w != "0"
	}
	// A list of the one object of that name is about that object.
	if selector := query.Get("fieldSelector"); selector != "" {
		if s, err := fields.ParseSelector(selector); err == nil {
			if name, ok := s.RequiresExactMatch("metadata.name"); ok && isSegment(name) {
				t.name = name
			}
		}
	}
}
