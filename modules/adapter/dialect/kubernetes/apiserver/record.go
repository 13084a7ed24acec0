package apiserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// labelRecord marks a stored file that stands for an object which the orchestrator has no place for; it says of which kind.
const labelRecord = "isthmus.io/record"

// The kinds of records.
const (
	recordNamespace = "namespace"
	recordConfigMap = "configmap"
	recordSecret    = "secret"
	recordService   = "service"
	recordFile      = "file" // a value of a ConfigMap or Secret, as a container has it mounted
)

// nameLimit is what Swarm takes for the name of a config, the namespace before it included.
const nameLimit = 64

// recordName is the name of the stored file of an object. The object's own is in its origin.
func recordName(kind, namespace, name string) string {
	full := kind
	if name != "" {
		full += "." + name
	}
	if room := nameLimit - len(namespace) - len("_"); len(full) > room {
		sum := sha256.Sum256([]byte(full))
		cut := max(room-17, len(kind)) // "-" and 16 digits
		full = full[:cut] + "-" + hex.EncodeToString(sum[:8])
	}
	return full
}

// keep writes an object down as a record of its own.
func (s *Server) keep(ctx context.Context, d deed, kind, namespace, name string, origin *neutral.Origin) error {
	origin.Peer = d.peer
	create, update := neutral.ConfigCreate, neutral.ConfigUpdate
	if kind == recordSecret {
		create, update = neutral.SecretCreate, neutral.SecretUpdate
	}
	op := neutral.Operation{
		Action: create, Verb: neutral.Create, Peer: d.peer,
		Object: neutral.Object{Kind: create.Kind(), Namespace: namespace, Name: recordName(kind, namespace, name)},
		File: &neutral.StoredFile{Name: recordName(kind, namespace, name), Namespace: namespace, Origin: origin,
			Labels: map[string]string{labelRecord: kind}, Data: []byte(kind + "\n")}, // Swarm takes no empty one
	}
	if d.old != nil && d.old.native.id != "" {
		op.Action, op.Verb, op.Ref, op.Version = update, neutral.Update, d.old.native.id, d.old.native.version
		op.File.Data = nil // which never changes
	}
	if d.dry {
		return nil
	}
	_, err := s.under.Do(ctx, op)
	return err
}

// forget removes a record.
func (s *Server) forget(ctx context.Context, d deed, namespace string) error {
	action := neutral.ConfigRemove
	if _, ok := d.old.object.(*corev1.Secret); ok {
		action = neutral.SecretRemove
	}
	if d.dry || d.old.native.id == "" {
		return nil
	}
	_, err := s.under.Do(ctx, neutral.Operation{Action: action, Verb: neutral.Destroy, Peer: d.peer, Ref: d.old.native.id,
		Object: neutral.Object{Kind: action.Kind(), Namespace: namespace}})
	return err
}

// records are the stored files that are records of a kind.
func (w *world) records(kind string) []neutral.StoredFile {
	var found []neutral.StoredFile
	for _, f := range slices.Concat(w.configs, w.secrets) {
		if f.Labels[labelRecord] == kind {
			found = append(found, f)
		}
	}
	return found
}

// recorded is a record's object, set into its place; ok false for one that cannot be read.
func recorded(w *world, f neutral.StoredFile, resource string, into object) (entry, bool) {
	if _, ok := readOrigin(f.Origin, into); !ok {
		return entry{}, false
	}
	name, namespace := into.GetName(), f.Namespace
	// A document belongs to the place that it names: one that was copied elsewhere is none.
	place := into.GetNamespace()
	if resource == namespaceResource.Resource { // it is in none, and its document in itself
		place, namespace = name, ""
	}
	if place != f.Namespace {
		return entry{}, false
	}
	placed(into, w, resource, f.ID, namespace, name, f.Created)
	return entry{object: into, native: native{id: f.ID, version: f.Version}}, true
}
