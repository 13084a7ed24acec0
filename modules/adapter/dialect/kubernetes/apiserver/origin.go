package apiserver

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// document is what is kept beside an object of the orchestrator: what was written by a client of the API, in the API's
// words. What the orchestrator itself knows is not in it.
type document struct {
	Object    json.RawMessage `json:"object"`
	Revisions []revision      `json:"revisions,omitempty"` // of a Deployment, the oldest first
	Mark      []byte          `json:"mark,omitempty"`      // of what another gateway may begin: that this one wrote it
}

// revision is one template that a Deployment has had.
type revision struct {
	Number   int64                  `json:"number"`
	Hash     string                 `json:"hash"`
	Template corev1.PodTemplateSpec `json:"template"`
	Created  time.Time              `json:"created"`
	Cause    string                 `json:"cause,omitempty"`
}

// originOf writes an object down.
func originOf(o object, revisions []revision) (*neutral.Origin, error) {
	kept := o.DeepCopyObject().(object)
	kept.SetResourceVersion("")
	kept.SetUID("")
	kept.SetCreationTimestamp(metav1.Time{})
	dropStatus(kept)
	raw, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(document{Object: raw, Revisions: revisions})
	if err != nil {
		return nil, err
	}
	return &neutral.Origin{Dialect: neutral.Kubernetes, Spec: spec}, fits(spec)
}

// documentLimit is what a document may be, packed, to have room in a label, in bytes.
const documentLimit = 90 << 10

// fits refuses a document that could not be kept: without it the object would be another one.
func fits(spec []byte) error {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(spec)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	if packed.Len() > documentLimit {
		return fault.New(fault.TooLarge, "the object is too large: packed it has %d bytes, and a label of Docker takes %d", packed.Len(), documentLimit)
	}
	return nil
}

// readOrigin reads what was written down into an object; ok false when there is none that can be read.
func readOrigin(origin *neutral.Origin, into object) (revisions []revision, ok bool) {
	if origin == nil || origin.Dialect != neutral.Kubernetes {
		return nil, false
	}
	var d document
	if err := json.Unmarshal(origin.Spec, &d); err != nil {
		return nil, false
	}
	if err := json.Unmarshal(d.Object, into); err != nil {
		return nil, false
	}
	into.GetObjectKind().SetGroupVersionKind(noKind)
	return d.Revisions, true
}

var noKind schema.GroupVersionKind

// uidOf is the same for the same object of an orchestrator, always.
func uidOf(parts ...string) types.UID {
	h := sha256.New()
	for _, part := range parts {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	id, _ := uuid.FromBytes(h.Sum(nil)[:16]) // of 16 bytes it cannot fail
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return types.UID(id.String())
}

// placed sets what the orchestrator says of an object itself.
func placed(o object, w *world, resource, id, namespace, name string, created time.Time) {
	o.SetNamespace(namespace)
	o.SetName(name)
	o.SetUID(uidOf(w.cluster, resource, id))
	o.SetCreationTimestamp(metav1.NewTime(created.Truncate(time.Second)))
}
