package openapi

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

// answered are the media types of objects.
var answered = []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf, runtime.ContentTypeYAML}

// patches are the media types of patches.
var patches = []string{string(types.ApplyYAMLPatchType), string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType)}

// operation is one method of a path.
type operation struct {
	verb, action string                  // of the API: "update"; "put"
	id, part     string                  // of its name, before and after the version: "delete", "Collection"
	kind         schema.GroupVersionKind // of what it is done to
	takes, gives reflect.Type            // the body of the request and of the answer, if there are any
	codes        []int
	query        []any
}

// method is that of a verb.
func (o operation) method() string {
	switch o.verb {
	case "create":
		return "post"
	case "update":
		return "put"
	case "patch":
		return "patch"
	case "delete", "deletecollection":
		return "delete"
	default:
		return "get"
	}
}

// kinds are those that definitions have.
func kinds() map[string][]schema.GroupVersionKind {
	all := map[string][]schema.GroupVersionKind{}
	add := func(object any, kind schema.GroupVersionKind) {
		if model, ok := object.(named); ok {
			all[model.OpenAPIModelName()] = append(all[model.OpenAPIModelName()], kind)
		}
	}
	resources := slices.Concat(resource.All, resource.Reviews)
	for _, r := range resources {
		add(zero(typeOf(r.GroupVersionKind)), r.GroupVersionKind)
		if r.Serves("list") {
			add(zero(typeOf(listKind(r))), listKind(r))
		}
	}
	for _, gv := range versions(resources) {
		add(metav1.DeleteOptions{}, gv.WithKind("DeleteOptions"))
	}
	add(metav1.Status{}, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	add(autoscalingv1.Scale{}, autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	return all
}

func listKind(r resource.Resource) schema.GroupVersionKind {
	return r.GroupVersion().WithKind(r.Kind + "List")
}

// typeOf is the struct of a kind of the API.
func typeOf(kind schema.GroupVersionKind) reflect.Type {
	object, err := scheme.Scheme.New(kind)
	if err != nil {
		panic("openapi: " + err.Error())
	}
	return reflect.TypeOf(object).Elem()
}

// addPaths adds what a resource is served at.
func (b *builder) addPaths(paths node, r resource.Resource) {
	collection := prefix(r.GroupVersion()) + "/" + r.Name
	scope := ""
	object, status := typeOf(r.GroupVersionKind), reflect.TypeFor[metav1.Status]()
	if r.Namespaced {
		if r.Serves("list") {
			everywhere := b.list(r)
			b.addPath(paths, collection, r, []operation{everywhere}, r.Kind+"ForAllNamespaces")
		}
		collection, scope = prefix(r.GroupVersion())+"/namespaces/{namespace}/"+r.Name, "Namespaced"
	}
	var many, one []operation
	for _, verb := range r.Verbs {
		switch verb {
		case "list":
			many = append(many, b.list(r))
		case "create":
			many = append(many, operation{verb: verb, action: "post", id: "create", kind: r.GroupVersionKind, takes: object, gives: object,
				codes: []int{http.StatusOK, http.StatusCreated, http.StatusAccepted}, query: b.query(metav1.CreateOptions{}, writeParameters...)})
		case "deletecollection":
			many = append(many, operation{verb: verb, action: verb, id: "delete", part: "Collection", kind: r.GroupVersionKind, takes: reflect.TypeFor[metav1.DeleteOptions](),
				gives: status, codes: []int{http.StatusOK}, query: slices.Concat(b.query(metav1.DeleteOptions{}, deleteParameters...), b.query(metav1.ListOptions{}, listParameters...))})
		case "get", "update", "patch":
			one = append(one, b.single(verb, r.GroupVersionKind, object))
		case "delete":
			one = append(one, operation{verb: verb, action: verb, id: "delete", kind: r.GroupVersionKind, takes: reflect.TypeFor[metav1.DeleteOptions](),
				gives: status, codes: []int{http.StatusOK, http.StatusAccepted}, query: b.query(metav1.DeleteOptions{}, deleteParameters...)})
		}
	}
	b.addPath(paths, collection, r, many, scope+r.Kind)
	b.addPath(paths, collection+"/{name}", r, one, scope+r.Kind)
	for _, s := range r.Subresources {
		b.addPath(paths, collection+"/{name}/"+s.Name, r, b.subresource(r, s), scope+r.Kind+strings.ToUpper(s.Name[:1])+s.Name[1:])
	}
}

// list reads a collection, or watches it.
func (b *builder) list(r resource.Resource) operation {
	names := listParameters
	if r.Serves("watch") {
		names = slices.Concat(names, watchParameters)
	}
	return operation{verb: "list", action: "list", id: "list", kind: r.GroupVersionKind, gives: typeOf(listKind(r)), codes: []int{http.StatusOK},
		query: b.query(metav1.ListOptions{}, names...)}
}

// single reads or writes one object, or a part of it.
func (b *builder) single(verb string, kind schema.GroupVersionKind, object reflect.Type) operation {
	switch verb {
	case "update":
		return operation{verb: verb, action: "put", id: "replace", kind: kind, takes: object, gives: object,
			codes: []int{http.StatusOK, http.StatusCreated}, query: b.query(metav1.UpdateOptions{}, writeParameters...)}
	case "patch":
		return operation{verb: verb, action: "patch", id: "patch", kind: kind, takes: reflect.TypeFor[metav1.Patch](), gives: object,
			codes: []int{http.StatusOK, http.StatusCreated}, query: b.query(metav1.PatchOptions{}, slices.Concat(writeParameters, []string{"force"})...)}
	default:
		return operation{verb: verb, action: "get", id: "read", kind: kind, gives: object, codes: []int{http.StatusOK}}
	}
}

// subresource is what can be done to a part of an object. What is not an object is a stream.
func (b *builder) subresource(r resource.Resource, s resource.Subresource) []operation {
	var all []operation
	for _, verb := range s.Verbs {
		switch {
		case strings.HasSuffix(s.Kind.Kind, "Options"):
			part := map[string]string{"create": "Post", "get": "Get"}[verb]
			all = append(all, operation{verb: verb, action: "connect", id: "connect", part: part, kind: s.Kind, gives: reflect.TypeFor[string](), codes: []int{http.StatusOK},
				query: b.query(zero(typeOf(s.Kind)))})
		case s.Name == "log":
			options := zero(typeOf(r.GroupVersion().WithKind("PodLogOptions")))
			all = append(all, operation{verb: verb, action: "get", id: "read", kind: s.Kind, gives: reflect.TypeFor[string](), codes: []int{http.StatusOK},
				query: b.query(options)})
		default:
			all = append(all, b.single(verb, s.Kind, typeOf(s.Kind)))
		}
	}
	return all
}

func (b *builder) addPath(paths node, path string, r resource.Resource, operations []operation, id string) {
	if len(operations) == 0 {
		return
	}
	group := r.Group
	if group == "" {
		group = "core"
	}
	group, _, _ = strings.Cut(group, ".")
	title := strings.ToUpper(group[:1]) + group[1:] + strings.ToUpper(r.Version[:1]) + r.Version[1:]
	common := b.pathParameters(path)
	if operations[0].action != "connect" {
		common = append(common, b.parameter("pretty", "query", "If 'true', then the output is indented.", "string"))
	}
	item := node{"parameters": common}
	for _, o := range operations {
		n := node{
			"tags":                            []string{group + "_" + r.Version},
			"operationId":                     o.id + title + o.part + id,
			"description":                     o.describe(),
			"responses":                       b.responses(o),
			"x-kubernetes-action":             o.action,
			"x-kubernetes-group-version-kind": kindNode(o.kind),
		}
		parameters := o.query
		if b.version == 2 {
			n["schemes"], n["consumes"], n["produces"] = []string{"https"}, o.consumes(), o.produces()
			if o.takes != nil {
				parameters = append([]any{node{"in": "body", "name": "body", "required": o.bodyNeeded(), "schema": b.schemaOf(o.takes)}}, parameters...)
			}
		} else if o.takes != nil {
			content := node{}
			for _, media := range o.consumes() {
				content[media] = node{"schema": b.schemaOf(o.takes)}
			}
			n["requestBody"] = node{"content": content, "required": o.bodyNeeded()}
		}
		if len(parameters) > 0 {
			n["parameters"] = parameters
		}
		item[o.method()] = n
	}
	paths[path] = item
}

// describe says what an operation does.
func (o operation) describe() string {
	kind := o.kind.Kind
	switch {
	case o.action == "connect":
		return "Opens a stream to the pod, by " + kind + "."
	case o.verb == "list":
		return "Lists each " + kind + ", or watches them."
	case o.verb == "deletecollection":
		return "Deletes each " + kind + " that is selected."
	case o.verb == "create":
		return "Makes a " + kind + "."
	case o.verb == "update":
		return "Replaces a " + kind + "."
	case o.verb == "patch":
		return "Changes a part of a " + kind + ", or applies one."
	case o.verb == "delete":
		return "Deletes a " + kind + "."
	case o.gives == reflect.TypeFor[string]():
		return "Reads what a container has written."
	default:
		return "Reads a " + kind + "."
	}
}

func (o operation) bodyNeeded() bool { return o.takes != reflect.TypeFor[metav1.DeleteOptions]() }

func (o operation) consumes() []string {
	if o.takes == reflect.TypeFor[metav1.Patch]() {
		return patches
	}
	return []string{"*/*"}
}

func (o operation) produces() []string {
	switch {
	case o.action == "connect":
		return []string{"*/*"}
	case o.gives == reflect.TypeFor[string]():
		return []string{"text/plain"}
	default:
		return answered
	}
}

func (b *builder) responses(o operation) node {
	all := node{"401": node{"description": http.StatusText(http.StatusUnauthorized)}}
	for _, code := range o.codes {
		answer := node{"description": http.StatusText(code)}
		if b.version == 2 {
			answer["schema"] = b.schemaOf(o.gives)
		} else {
			content := node{}
			for _, media := range o.produces() {
				content[media] = node{"schema": b.schemaOf(o.gives)}
			}
			answer["content"] = content
		}
		all[codeText(code)] = answer
	}
	return all
}
