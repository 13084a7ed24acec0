package docker

import (
	"net/url"
	"path"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// errPage is dockerd's answer to a path or a method that no route has.
var errPage = fault.New(fault.NotFound, "page not found")

// Classify names what a request asks. A path that is not clean (empty, "." or ".." segments, a backslash or a NUL) names
// nothing: what the gateway authorizes and what an engine would make of it must not differ.
func (Dialect) Classify(head dialect.Request) (neutral.Operation, error) {
	target, err := head.URL()
	if err != nil {
		return neutral.Operation{}, fault.New(fault.Invalid, "the request's path cannot be parsed")
	}
	_, rest, err := splitVersion(target.Path)
	if err != nil {
		return neutral.Operation{}, err
	}
	route, ref, ok := findRoute(head.Method, rest)
	if !ok {
		return neutral.Operation{}, errPage
	}
	op := neutral.Operation{
		Action: route.action,
		Verb:   route.action.Verb(),
		Object: neutral.Object{Kind: route.action.Kind(), Resource: route.resource},
		Ref:    ref,
		Beyond: route.beyond,
	}
	if route.verb != "" {
		op.Verb = route.verb
	}
	if route.kind != "" {
		op.Object.Kind = route.kind
	}
	if (op.Action == neutral.ImagePull || op.Action == neutral.ImageBuild) && isForm(head) {
		// An engine prefers a form's fields to the query's, and the form is in the body, which is not judged.
		return neutral.Operation{}, fault.New(fault.Invalid, "an image is %s by the query alone, not by a form",
			map[neutral.Action]string{neutral.ImagePull: "pulled", neutral.ImageBuild: "built"}[op.Action])
	}
	if err := nameObject(&op, target); err != nil {
		return neutral.Operation{}, err
	}
	return op, nil
}

const formMediaType = "application/x-www-form-urlencoded"

// isForm tells whether an engine would read the body as a form. It takes a media type in any case.
func isForm(head dialect.Request) bool {
	for _, text := range head.Header.Values("Content-Type") {
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(text)), formMediaType) {
			return true
		}
	}
	return false
}

// nameObject fills the object's name as far as the head tells it.
func nameObject(op *neutral.Operation, target *url.URL) error {
	query, err := url.ParseQuery(target.RawQuery)
	if err != nil {
		return fault.New(fault.Invalid, "the request's query cannot be parsed")
	}
	switch op.Action {
	case neutral.ContainerCreate:
		op.Object.Name = strings.TrimPrefix(query.Get("name"), "/")
	case neutral.ContainerCommit:
		op.Ref = query.Get("container")
		op.Object.Name = op.Ref
	case neutral.ImagePull:
		if query.Get("fromImage") == "" { // an import, whose body is the image
			op.Action, op.Verb = neutral.ImageBuild, neutral.ImageBuild.Verb()
			op.Object.Name = query.Get("repo")
			return nil
		}
		op.Image = pulledImage(query.Get("fromImage"), query.Get("tag"))
		op.Ref, op.Object.Name = op.Image, op.Image
	case neutral.ImageBuild:
		if len(query["t"]) > 1 {
			return &fault.Error{Kind: fault.Invalid, Field: "t",
				Message: "t is given more than once, and one name alone is judged; build once and tag the image"}
		}
		op.Object.Name = query.Get("t")
		op.Beyond = op.Beyond || query.Has("outputs") // an exporter's attributes name images too
	case neutral.ExecStart, neutral.ExecInspect, neutral.ExecResize:
		// An exec's id does not tell its container.
	case neutral.ImageInspect:
		op.Image, op.Object.Name = op.Ref, op.Ref
	default:
		op.Object.Name = op.Ref
	}
	return nil
}

// pulledImage joins the two halves of an image's name as POST /images/create has them.
func pulledImage(name, tag string) string {
	switch {
	case tag == "":
		return name
	case strings.Contains(tag, ":"): // a digest
		return name + "@" + tag
	}
	return name + ":" + tag
}

// findRoute matches a path without its version. Routes of one first segment are tried in order; the first fits.
func findRoute(method, rest string) (route, string, bool) {
	if !strings.HasPrefix(rest, "/") || strings.ContainsAny(rest, "\\\x00") {
		return route{}, "", false
	}
	segments := strings.Split(rest[1:], "/")
	for _, r := range routesByHead[segments[0]] {
		if r.method != method {
			continue
		}
		if ref, ok := r.match(segments); ok {
			return r, ref, true
		}
	}
	return route{}, "", false
}

// match compares segments with the route's; {ref} takes one segment, {name} one or more.
func (r route) match(segments []string) (string, bool) {
	if r.hole < 0 {
		return "", len(segments) == len(r.segments) && equalSegments(segments, r.segments)
	}
	tail := len(r.segments) - r.hole - 1
	if len(segments) < len(r.segments) || !equalSegments(segments[:r.hole], r.segments[:r.hole]) ||
		!equalSegments(segments[len(segments)-tail:], r.segments[r.hole+1:]) {
		return "", false
	}
	held := segments[r.hole : len(segments)-tail]
	if len(held) > 1 && held[0] == "" {
		held = held[1:] // "/containers//web/json": the name as inspect shows it, with its slash
	}
	if len(held) > 1 && !r.wide {
		return "", false
	}
	ref := strings.Join(held, "/")
	if ref == "" || path.Clean("/"+ref) != "/"+ref {
		return "", false
	}
	return ref, true
}

// equalSegments compares segments with a route's, where a further {hole} takes anything but nothing.
func equalSegments(segments, pattern []string) bool {
	for i, want := range pattern {
		if strings.HasPrefix(want, "{") && segments[i] != "" {
			continue
		}
		if segments[i] != want {
			return false
		}
	}
	return true
}
