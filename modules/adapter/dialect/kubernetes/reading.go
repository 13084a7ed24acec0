package kubernetes

import (
	"context"
	"encoding/json"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Reader = (*Cluster)(nil)

// rules are what the API's fields hold. Images also are the names that nodes know images by.
var rules = &mask.Rules{
	Kept:         map[string]bool{"helm.sh/chart": true, "chart": true},
	Images:       map[string]bool{"image": true, "imageID": true, "names": true, "reference": true},
	Environments: map[string]bool{"env": true},
	// What a docker client wrote, its environment included, is beside what was made of it.
	Credentials: map[string]bool{annotationOrigin: true},
	Names:       map[string]string{"hostname": "ingress", "address": "addresses"},
}

// lists are the keys of lists of objects: of a list, and of a list as a table.
var lists = map[string]bool{"items": true, "rows": true}

// Reading leaves unread what is a container's own (its output, its ports, what is sent to its processes), and what says
// which resources there are: the rest is objects.
func (c *Cluster) Reading(op neutral.Operation, head dialect.Request) (*dialect.Reading, error) {
	if op.Object.Kind == neutral.KindSystem {
		return systemReading(op, head)
	}
	revealed := hiddenReference(op)
	switch op.Extra[extraSubresource] {
	case "log", "exec", "attach", "portforward", "proxy":
		if revealed != "" {
			return &dialect.Reading{Rules: rules, Body: bodyOf, Reveals: revealed}, nil
		}
		return nil, nil
	}
	if revealed == "" {
		revealed = hiddenSelectors(head)
	}
	accept, err := readable(head.Header.Values("Accept"))
	if err != nil {
		return nil, err
	}
	reading := &dialect.Reading{Accept: accept, Rules: rules, Body: bodyOf, Reveals: revealed}
	verb := op.Extra[extraVerb]
	if verb == string(verbUpdate) || verb == string(verbPatch) {
		reading.Live, _, _ = strings.Cut(head.Path, "?")
	}
	if verb == string(verbPatch) {
		reading.Steps = stepsOf
	}
	reading.Sequence = verb == string(verbWatch)
	if verb != string(verbList) && verb != string(verbWatch) {
		return reading, nil
	}
	reading.Lists = lists
	// A list is about one object by its selector, which an API of somebody else may not know.
	reading.Always = op.Object.Name != ""
	reading.FilterPath = withObjects(head.Path, accept, op.Object.Kind)
	reading.Filter = func(ctx context.Context) dialect.Filter {
		if !reading.Sequence {
			volumes := &volumes{cluster: c}
			return func(element []byte, see func(neutral.Object) bool) ([]byte, error) {
				return seen(op, element, volumes.through(ctx, see))
			}
		}
		watch := &watched{op: op, began: func(see func(neutral.Object) bool) map[string]bool { return c.known(ctx, op, head.Path, see) }}
		return func(element []byte, see func(neutral.Object) bool) ([]byte, error) {
			return watch.see(element, (&volumes{cluster: c}).through(ctx, see)) // volumes change while one watches
		}
	}
	return reading, nil
}

// hiddenReference says that an object is asked for by a name that is an address, as nodes and the addresses of Services
// have: whether it is there tells whether the address is one of the cluster's.
func hiddenReference(op neutral.Operation) string {
	name := op.Object.Name
	if mask.IsAddress(name) || op.Object.Kind == neutral.KindNode && mask.Hides(rules, "name", name) {
		return "nothing can be asked for by an address"
	}
	return ""
}

// hiddenSelectors says by what objects are selected that is hidden. With it one could ask for each address whose it is; names
// of nodes, and labels with them, may be addresses too.
func hiddenSelectors(head dialect.Request) string {
	target, err := head.URL()
	if err != nil {
		return ""
	}
	query := target.Query()
	for _, selector := range query["fieldSelector"] {
		parsed, err := fields.ParseSelector(selector)
		if err != nil {
			continue // the API refuses it
		}
		for _, r := range parsed.Requirements() {
			if selectableAddresses[r.Field] {
				return r.Field + " is hidden, and nothing can be selected by it"
			}
			if mask.Hides(rules, r.Field[strings.LastIndexByte(r.Field, '.')+1:], r.Value) {
				return "nothing can be selected by an address, as in " + r.Field
			}
		}
	}
	for _, selector := range query["labelSelector"] {
		requirements, err := labels.ParseToRequirements(selector)
		if err != nil {
			continue
		}
		for _, r := range requirements {
			if mask.Hides(rules, r.Key(), "") || slices.ContainsFunc(r.ValuesUnsorted(), func(value string) bool { return mask.Hides(rules, r.Key(), value) }) {
				return "nothing can be selected by an address, as in the label " + r.Key()
			}
		}
	}
	return ""
}

// selectableAddresses are the fields of the API's own resources that hold addresses and that lists can be selected by.
var selectableAddresses = map[string]bool{"status.podIP": true, "status.podIPs": true, "status.hostIP": true, "spec.clusterIP": true}

// systemReading is how what is no resource is read: the roots of discovery and how to verify its tokens, which have the
// API server's own address in them, and the inside of the API server. Accept does not tell which form of discovery comes:
// it may offer several, or one that the API server does not have.
func systemReading(op neutral.Operation, head dialect.Request) (*dialect.Reading, error) {
	if op.Verb == neutral.Raw {
		return &dialect.Reading{Accept: "text/plain, " + mediaJSON + ";q=0.9", Rules: rules, Body: bodyOf}, nil
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(op.Object.Resource, "/"), "/")
	switch {
	case first == ".well-known", first == "openid":
		return &dialect.Reading{Rules: rules}, nil // in JSON, whatever is accepted
	case op.Object.Resource != "/api" && op.Object.Resource != "/apis":
		return nil, nil
	}
	accept, err := readable(head.Header.Values("Accept"))
	return &dialect.Reading{Accept: accept, Rules: rules}, err
}

// Foreign are answers of what a Pod, a Service or a node serves itself.
func (c *Cluster) Foreign(op neutral.Operation) bool { return op.Extra[extraSubresource] == "proxy" }

// readable leaves of the forms that a caller takes those in JSON, in their order.
func readable(accept []string) (string, error) {
	var kept []string
	for _, form := range strings.Split(strings.Join(accept, ","), ",") {
		kind, _, err := mime.ParseMediaType(form)
		switch {
		case err != nil:
		case kind == mediaJSON:
			kept = append(kept, strings.TrimSpace(form))
		case kind == "*/*", kind == "application/*":
			kept = append(kept, mediaJSON)
		}
	}
	if len(kept) == 0 && strings.TrimSpace(strings.Join(accept, "")) != "" {
		return "", fault.New(fault.Unsupported, "the gateway reads this answer to hide addresses in it, and reads %s alone; accept "+
			"that as well", mediaJSON)
	}
	if len(kept) == 0 {
		return mediaJSON, nil
	}
	return strings.Join(kept, ","), nil
}

// withObjects asks a table to bring of each row what it is judged by: conditions need the whole of what runs containers.
// "" leaves the path as it is.
func withObjects(path, accept string, kind neutral.Kind) string {
	before, query, _ := strings.Cut(path, "?")
	values, err := url.ParseQuery(query)
	if err != nil || !strings.Contains(accept, "as=Table") {
		return ""
	}
	include := metav1.IncludeMetadata
	if kind == neutral.KindContainer || kind == neutral.KindWorkload {
		include = metav1.IncludeObject
	}
	asked := metav1.IncludeObjectPolicy(values.Get("includeObject"))
	if asked == metav1.IncludeObject || asked == include {
		return ""
	}
	values.Set("includeObject", string(include))
	return before + "?" + values.Encode()
}

// judged is what policy sees of an object in a list, which need not say its own kind.
type judged struct {
	Kind     string            `json:"kind"`
	Metadata metav1.ObjectMeta `json:"metadata"`
	// Object is a table's row's.
	Object json.RawMessage `json:"object"`
}

// seen gives an object of a list, or a row of a table, if the caller may see it.
func seen(op neutral.Operation, element []byte, see func(neutral.Object) bool) ([]byte, error) {
	object, err := objectOf(op, element)
	if err != nil || object.Name == "" || !see(object) { // a table's row that brings no object cannot be judged
		return nil, err
	}
	return element, nil
}

// objectOf reads what policy is asked about.
func objectOf(op neutral.Operation, raw []byte) (neutral.Object, error) {
	var found judged
	if err := json.Unmarshal(raw, &found); err != nil {
		return neutral.Object{}, unreadableObject(err)
	}
	if found.Metadata.Name == "" && len(found.Object) > 0 {
		raw = found.Object
		found.Metadata = metav1.ObjectMeta{}
		if err := json.Unmarshal(raw, &found); err != nil {
			return neutral.Object{}, unreadableObject(err)
		}
	}
	object := op.Object
	object.Namespace, object.Name = found.Metadata.Namespace, found.Metadata.Name
	object.Labels = labelsFromMeta(found.Metadata)
	switch object.Kind {
	case neutral.KindNamespace: // as its path names it
		object.Namespace = object.Name
	case neutral.KindContainer:
		var pod corev1.Pod
		if json.Unmarshal(raw, &pod) == nil && len(pod.Spec.Containers) == 1 {
			container := containerFromPod("", &pod, 0, time.Now())
			object.Container = &container
		}
	case neutral.KindWorkload:
		var workload unstructured.Unstructured
		if json.Unmarshal(raw, &workload.Object) == nil {
			container, err := templateContainer(&workload)
			if err == nil {
				object.Container = container
			}
		}
	}
	return object, nil
}

func unreadableObject(err error) error {
	return fault.Wrap(fault.Unavailable, err, "an object in the orchestrator's answer could not be read")
}
