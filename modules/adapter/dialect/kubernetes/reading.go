package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"mime"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
	Names:        map[string]string{"hostname": "ingress", "address": "addresses"},
}

// lists are the keys of lists of objects: of a list, and of a list as a table.
var lists = map[string]bool{"items": true, "rows": true}

// Reading leaves unread what is a container's own (its output, its ports, what is sent to its processes), and what says
// which resources there are: the rest is objects.
func (c *Cluster) Reading(op neutral.Operation, head dialect.Request) (*dialect.Reading, error) {
	if op.Object.Kind == neutral.KindSystem {
		// The old form of discovery has the API server's own address in it.
		if op.Object.Resource != "/api" || strings.Contains(strings.Join(head.Header.Values("Accept"), ","), "APIGroupDiscoveryList") {
			return nil, nil
		}
	}
	switch op.Extra[extraSubresource] {
	case "log", "exec", "attach", "portforward", "proxy":
		return nil, nil
	}
	accept, err := readable(head.Header.Values("Accept"))
	if err != nil {
		return nil, err
	}
	reading := &dialect.Reading{Accept: accept, Rules: rules, Body: bodyOf}
	verb := op.Extra[extraVerb]
	if verb == string(verbUpdate) || verb == string(verbPatch) {
		reading.Live, _, _ = strings.Cut(head.Path, "?")
	}
	reading.Sequence = verb == string(verbWatch)
	if verb != string(verbList) && verb != string(verbWatch) {
		return reading, nil
	}
	reading.Lists = lists
	reading.Path = withObjects(head.Path, accept, op.Object.Kind)
	reading.Filter = func(context.Context) dialect.Filter {
		if reading.Sequence {
			return (&watched{op: op}).see
		}
		return func(element []byte, see func(neutral.Object) bool) ([]byte, error) { return seen(op, element, see) }
	}
	return reading, nil
}

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
	if err != nil || !see(object) {
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

// watched filters a watch. An object that changed so that it may not be seen any more is gone for the caller, as it is
// for one who watches by a selector.
type watched struct {
	op      neutral.Operation
	shown   map[string]bool // of what was told, by UID
	columns json.RawMessage // of a table whose first event was left out
}

func (w *watched) see(element []byte, see func(neutral.Object) bool) ([]byte, error) {
	var event struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal(element, &event); err != nil {
		return nil, unreadableObject(err)
	}
	switch event.Type {
	case "ADDED", "MODIFIED", "DELETED":
	default:
		return element, nil // a bookmark, or an error, and no object
	}
	var table struct {
		Kind    string            `json:"kind"`
		Columns json.RawMessage   `json:"columnDefinitions"`
		Rows    []json.RawMessage `json:"rows"`
	}
	if err := json.Unmarshal(event.Object, &table); err != nil {
		return nil, unreadableObject(err)
	}
	object := event.Object
	if isTable := table.Kind == "Table"; isTable {
		if len(table.Rows) != 1 {
			return nil, fault.New(fault.Unavailable, "an event in the orchestrator's answer has %d objects", len(table.Rows))
		}
		object = table.Rows[0]
		if hasElements(table.Columns) {
			w.columns = table.Columns
		}
	}
	judged, err := objectOf(w.op, object)
	if err != nil {
		return nil, err
	}
	uid, err := uidOf(object)
	if err != nil {
		return nil, err
	}
	if w.shown == nil {
		w.shown = map[string]bool{}
	}
	visible := see(judged)
	switch {
	case !visible && !w.shown[uid]:
		return nil, nil
	case !visible:
		delete(w.shown, uid)
		if element, err = gone(element); err != nil {
			return nil, err
		}
	case event.Type == "DELETED":
		delete(w.shown, uid)
	default:
		w.shown[uid] = true
	}
	if table.Kind == "Table" && !hasElements(table.Columns) && w.columns != nil {
		element, err = withColumns(element, w.columns)
	}
	if table.Kind == "Table" {
		w.columns = nil // told
	}
	return element, err
}

func hasElements(list json.RawMessage) bool {
	list = bytes.TrimSpace(list)
	return len(list) > 2 && list[0] == '['
}

func uidOf(raw []byte) (string, error) {
	var found judged
	err := json.Unmarshal(raw, &found)
	if err == nil && found.Metadata.UID == "" && len(found.Object) > 0 {
		err = json.Unmarshal(found.Object, &found)
	}
	if err != nil {
		return "", unreadableObject(err)
	}
	return string(found.Metadata.UID), nil
}

// gone is the event that an object which was seen may not be seen any more: it tells of the object as it is now no more
// than which one it is.
func gone(event []byte) ([]byte, error) {
	return changed(event, func(e map[string]json.RawMessage) (err error) {
		e["type"] = json.RawMessage(`"DELETED"`)
		e["object"], err = changed(e["object"], func(object map[string]json.RawMessage) error {
			if _, ok := object["rows"]; !ok {
				return identify(object)
			}
			var rows []map[string]json.RawMessage
			if err := json.Unmarshal(object["rows"], &rows); err != nil {
				return err
			}
			for _, row := range rows {
				if err := blank(row); err != nil {
					return err
				}
			}
			object["rows"], err = json.Marshal(rows)
			return err
		})
		return err
	})
}

// blank leaves of a table's row the name and what identifies its object.
func blank(row map[string]json.RawMessage) (err error) {
	var cells []json.RawMessage
	if err := json.Unmarshal(row["cells"], &cells); err != nil {
		return err
	}
	for i := 1; i < len(cells); i++ {
		cells[i] = json.RawMessage(`""`)
	}
	if row["cells"], err = json.Marshal(cells); err != nil {
		return err
	}
	delete(row, "conditions")
	row["object"], err = changed(row["object"], identify)
	return err
}

// identify leaves of an object what identifies it.
func identify(object map[string]json.RawMessage) error {
	for key := range object {
		if key != "apiVersion" && key != "kind" && key != "metadata" {
			delete(object, key)
		}
	}
	var err error
	object["metadata"], err = changed(object["metadata"], func(metadata map[string]json.RawMessage) error {
		for key := range metadata {
			if key != "name" && key != "namespace" && key != "uid" && key != "resourceVersion" && key != "creationTimestamp" {
				delete(metadata, key)
			}
		}
		return nil
	})
	return err
}

// withColumns is an event of a table that says its columns, which the API says in the first event alone.
func withColumns(event []byte, columns json.RawMessage) ([]byte, error) {
	return changed(event, func(e map[string]json.RawMessage) (err error) {
		e["object"], err = changed(e["object"], func(table map[string]json.RawMessage) error {
			table["columnDefinitions"] = columns
			return nil
		})
		return err
	})
}

func changed(raw []byte, change func(map[string]json.RawMessage) error) ([]byte, error) {
	members := map[string]json.RawMessage{}
	err := json.Unmarshal(raw, &members)
	if err == nil {
		err = change(members)
	}
	if err != nil {
		return nil, unreadableObject(err)
	}
	return json.Marshal(members)
}
