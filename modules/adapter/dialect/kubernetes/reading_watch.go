package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// watched filters a watch. An object that changed so that it may not be seen any more is gone for the caller, as it is
// for one who watches by a selector.
type watched struct {
	op neutral.Operation
	// began gives what could be seen when the watch began, by UID: its caller has listed that before.
	began   func(see func(neutral.Object) bool) map[string]bool
	asked   bool            // what could be seen in the beginning was asked
	shown   map[string]bool // of what was told, by UID; false for what was told to be gone
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
	case "BOOKMARK", "ERROR": // no object
		return element, nil
	default:
		return nil, fault.New(fault.Unavailable, "the orchestrator's answer to a watch holds what is no event")
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
	visible := judged.Name != "" && see(judged) // a table's row that brings no object cannot be judged
	if _, told := w.shown[uid]; !visible && !told && !w.asked && event.Type != "ADDED" {
		w.asked = true
		for known := range w.began(see) {
			if _, told := w.shown[known]; !told {
				w.shown[known] = true
			}
		}
	}
	switch {
	case !visible && !w.shown[uid]:
		return nil, nil
	case !visible:
		w.forget(uid)
		if element, err = gone(element); err != nil {
			return nil, err
		}
	case event.Type == "DELETED":
		w.forget(uid)
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

// forget remembers that an object is gone for the caller, as long as what was there in the beginning may still be asked.
func (w *watched) forget(uid string) {
	if w.asked {
		delete(w.shown, uid)
		return
	}
	w.shown[uid] = false
}

// known lists what could be seen of the watched objects in the version at which the watch begins. It is nothing where the
// API does not know that any more, and where the watch itself begins by telling what there is.
func (c *Cluster) known(ctx context.Context, op neutral.Operation, path string, see func(neutral.Object) bool) map[string]bool {
	before, raw, _ := strings.Cut(path, "?")
	query, err := url.ParseQuery(raw)
	version := query.Get("resourceVersion")
	if err != nil || version == "" || version == "0" || query.Get("watch") == "" {
		return nil
	}
	for _, key := range []string{"watch", "allowWatchBookmarks", "sendInitialEvents", "timeoutSeconds", "limit", "continue", "includeObject"} {
		query.Del(key)
	}
	query.Set("resourceVersionMatch", string(metav1.ResourceVersionMatchExact))
	answer, err := c.read(ctx, before+"?"+query.Encode())
	if err != nil {
		c.log.Debug("what could be seen when a watch began is not known", "error", err)
		return nil
	}
	defer func() { _ = answer.Body.Close() }()
	all := map[string]bool{}
	reader := mask.Reader{Lists: lists, Most: objectLimit,
		Element: func(element []byte) ([]byte, error) {
			object, err := objectOf(op, element)
			if err != nil || !see(object) {
				return nil, err
			}
			uid, err := uidOf(element)
			all[uid] = true
			return nil, err
		},
		Member: func(_ string, raw []byte) ([]byte, error) { return raw, nil }}
	if err := reader.Document(io.Discard, answer.Body); err != nil {
		c.log.Debug("what could be seen when a watch began is not known", "error", err)
		return nil
	}
	return all
}

// read asks for JSON in the name of the context's actor.
func (c *Cluster) read(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", mediaJSON)
	answer, err := c.Transport().RoundTrip(request)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("status %d", answer.StatusCode), answer.Body.Close())
	}
	return answer, err
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
	var members map[string]json.RawMessage
	err := json.Unmarshal(raw, &members)
	if err == nil && members == nil {
		err = errors.New("it is null")
	}
	if err == nil {
		err = change(members)
	}
	if err != nil {
		return nil, unreadableObject(err)
	}
	return json.Marshal(members)
}
