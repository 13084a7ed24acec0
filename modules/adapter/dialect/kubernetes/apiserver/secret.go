package apiserver

import (
	"context"
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// annotationUntold says why a secret has no data.
const annotationUntold = "isthmus.io/data"

// secretKind is records of what was written here, sealed with a key of the gateway's, and the orchestrator's own secrets,
// whose values it tells nobody.
type secretKind struct {
	*Server
	seal, unseal func([]byte) ([]byte, error)
}

// sealedDocument is a document that can be read by the gateway alone.
type sealedDocument struct {
	Sealed []byte `json:"sealed"`
}

func (k secretKind) project(w *world) []entry {
	var all []entry
	for _, f := range w.secrets {
		switch f.Labels[labelRecord] {
		case recordSecret:
			if origin, ok := k.opened(f.Origin); ok {
				f.Origin = origin
				if e, ok := recorded(w, f, secretResource.Resource, &corev1.Secret{}); ok {
					all = append(all, e)
				}
			}
		case "":
			o := &corev1.Secret{Type: corev1.SecretTypeOpaque}
			o.Labels = visible(f.Labels)
			o.Annotations = map[string]string{annotationUntold: "Docker tells the value of a secret to nobody"}
			placed(o, w, secretResource.Resource, f.ID, f.Namespace, f.Name, f.Created)
			all = append(all, entry{object: o, native: native{id: f.ID, version: f.Version, own: true}})
		}
	}
	return all
}

func (k secretKind) opened(origin *neutral.Origin) (*neutral.Origin, bool) {
	if origin == nil || k.unseal == nil {
		return nil, false
	}
	var d sealedDocument
	if err := json.Unmarshal(origin.Spec, &d); err != nil {
		return nil, false
	}
	plain, err := k.unseal(d.Sealed)
	if err != nil {
		return nil, false
	}
	return &neutral.Origin{Dialect: origin.Dialect, Spec: plain, Peer: origin.Peer}, true
}

func (secretKind) complete(next, _ object) {
	o := next.(*corev1.Secret)
	if o.Type == "" {
		o.Type = corev1.SecretTypeOpaque
	}
	if len(o.StringData) > 0 {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		for key, value := range o.StringData {
			o.Data[key] = []byte(value)
		}
		o.StringData = nil
	}
}

func (secretKind) validate(next, old object) field.ErrorList {
	o := next.(*corev1.Secret)
	var problems field.ErrorList
	total := 0
	for key, value := range o.Data {
		problems = append(problems, validKey(field.NewPath("data"), key)...)
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		problems = append(problems, field.TooLong(field.NewPath("data"), "", corev1.MaxSecretSize))
	}
	if old, ok := old.(*corev1.Secret); ok && old != nil {
		if old.Type != o.Type {
			problems = append(problems, field.Invalid(field.NewPath("type"), o.Type, "field is immutable"))
		}
		if fixed(old.Immutable) {
			problems = append(problems, staysFixed(o.Immutable)...)
			if !apiequality.Semantic.DeepEqual(old.Data, o.Data) {
				problems = append(problems, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
			}
		}
	}
	for _, key := range requiredKeys[o.Type] {
		if _, ok := o.Data[key]; !ok {
			problems = append(problems, field.Required(field.NewPath("data").Key(key), ""))
		}
	}
	return problems
}

// requiredKeys are what secrets of the API's own types must hold.
var requiredKeys = map[corev1.SecretType][]string{
	corev1.SecretTypeTLS:              {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
	corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
	corev1.SecretTypeSSHAuth:          {corev1.SSHAuthPrivateKey},
}

func (k secretKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	return k.update(ctx, d)
}

func (k secretKind) update(ctx context.Context, d deed) ([]neutral.Loss, error) {
	if err := notOwn(d, "secret"); err != nil {
		return nil, err
	}
	if k.seal == nil {
		return nil, fault.New(fault.Unsupported, "this gateway has no key to seal secrets with")
	}
	origin, err := originOf(d.next, nil)
	if err != nil {
		return nil, err
	}
	sealed, err := k.seal(origin.Spec)
	if err != nil {
		return nil, err
	}
	if origin.Spec, err = json.Marshal(sealedDocument{Sealed: sealed}); err != nil {
		return nil, err
	}
	if err := fits(origin.Spec); err != nil {
		return nil, err
	}
	if err := k.keep(ctx, d, recordSecret, d.next.GetNamespace(), d.next.GetName(), origin); err != nil {
		return nil, err
	}
	losses, err := k.awaken(ctx, d)
	return append(k.stale(d), losses...), err
}

func (k secretKind) remove(ctx context.Context, d deed) error {
	return k.forget(ctx, d, d.old.object.GetNamespace())
}

// values are what is in a ConfigMap or a Secret, by key; ok false when there is none of the name.
func (s *Server) values(namespace, name string, secret bool) (values map[string][]byte, ok bool) {
	resource := configMapResource
	if secret {
		resource = secretResource
	}
	e := s.store.get(resource, key{namespace, name})
	if e == nil {
		return nil, false
	}
	switch o := e.object.(type) {
	case *corev1.Secret:
		return o.Data, true
	case *corev1.ConfigMap:
		values = maps.Clone(o.BinaryData)
		if values == nil {
			values = map[string][]byte{}
		}
		for key, value := range o.Data {
			values[key] = []byte(value)
		}
		return values, true
	}
	return nil, false
}
