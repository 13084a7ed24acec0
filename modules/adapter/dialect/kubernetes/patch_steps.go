package kubernetes

import (
	"encoding/json"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// stepsOf binds a JSON patch to the version of the object that it was looked at on: its last step sets that version, which
// the API takes for that one alone.
func stepsOf(req dialect.Request, object []byte) (bound dialect.Request, steps []byte, ok bool, err error) {
	// As the API does: whatever stands behind the type does not matter.
	kind, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(kind), mediaJSONPatch) {
		return req, nil, false, nil
	}
	if object == nil {
		return req, req.Body, true, nil
	}
	var found judged
	if err := json.Unmarshal(object, &found); err != nil || found.Metadata.ResourceVersion == "" {
		return req, nil, true, unreadableObject(err)
	}
	var all []json.RawMessage
	if err := json.Unmarshal(req.Body, &all); err != nil {
		return req, nil, true, fault.Wrap(fault.Invalid, err, "the patch could not be read")
	}
	last, err := json.Marshal(map[string]string{"op": "add", "path": "/metadata/resourceVersion", "value": found.Metadata.ResourceVersion})
	if err != nil {
		return req, nil, true, unreadableObject(err)
	}
	bound = req
	bound.Body, err = json.Marshal(append(all, last))
	return bound, req.Body, true, err
}
