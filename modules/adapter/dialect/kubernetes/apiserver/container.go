package apiserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podspec"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// container is what the spec of a Pod comes to, what it refers to included.
func (s *Server) container(spec *corev1.PodSpec, path *field.Path, kind schema.GroupVersionKind, of object, meta metav1.ObjectMeta,
	swarm bool) (podspec.Result, error) {
	result, problems := podspec.Decode(spec, path, podspec.Target{Swarm: swarm, Object: meta})
	var missing field.ErrorList
	if len(problems) == 0 {
		missing = result.Resolve(stored{s, of.GetNamespace()})
	}
	for _, claim := range result.Claims {
		if s.store.get(claimResource, key{of.GetNamespace(), claim.Name}) == nil {
			missing = append(missing, field.NotFound(claim.Path, claim.Name))
		}
	}
	if len(problems) > 0 {
		return result, apierrors.NewInvalid(kind.GroupKind(), of.GetName(), problems)
	}
	if len(missing) > 0 {
		return result, missingError{missing, apierrors.NewInvalid(kind.GroupKind(), of.GetName(), missing)}
	}
	return result, nil
}

// missingError is what a container refers to and is not there yet.
type missingError struct {
	fields field.ErrorList
	*apierrors.StatusError
}

// Unwrap is the error as the API tells it.
func (e missingError) Unwrap() error { return e.StatusError }

// waits tells whether all of it may come still; what it is.
func (e missingError) waits() (names string, ok bool) {
	var all []string
	for _, missing := range e.fields {
		if missing.Type != field.ErrorTypeNotFound {
			return "", false
		}
		name := fmt.Sprint(missing.BadValue)
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return strings.Join(all, ", "), true
}

// stored is what there is of ConfigMaps and Secrets in a namespace.
type stored struct {
	server    *Server
	namespace string
}

func (f stored) Keys(kind neutral.Kind, name string) ([]string, bool) {
	values, ok := f.server.values(f.namespace, name, kind == neutral.KindSecret)
	return slices.Collect(maps.Keys(values)), ok
}

func (f stored) Value(kind neutral.Kind, name, key string) ([]byte, error) {
	values, _ := f.server.values(f.namespace, name, kind == neutral.KindSecret)
	value, ok := values[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "%s has no value %s", name, key)
	}
	return value, nil
}

// Stored is the name of the file that holds a value. It names the content, which never changes: of another content there
// is another file.
func (f stored) Stored(kind neutral.Kind, name, key string) string {
	value, err := f.Value(kind, name, key)
	if err != nil {
		return ""
	}
	if f.server.ownFile(f.namespace, name, kind) {
		return name
	}
	return recordName(recordFile, f.namespace, strings.ToLower(name)+"."+f.server.mark(key, value))
}

// mark names a value by its content. Docker shows the names of secrets to those who may not read them.
func (s *Server) mark(key string, value []byte) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(key))
	mac.Write([]byte{0})
	mac.Write(value)
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// ownFile tells whether a ConfigMap or Secret is a stored file of the orchestrator itself.
func (s *Server) ownFile(namespace, name string, kind neutral.Kind) bool {
	resource := configMapResource
	if kind == neutral.KindSecret {
		resource = secretResource
	}
	e := s.store.get(resource, key{namespace, name})
	return e != nil && e.native.own
}

// provide makes the files that a workload's containers have mounted. They are there before the workload is.
func (s *Server) provide(ctx context.Context, d deed, w *neutral.Workload, refers podspec.Result) error {
	from := stored{s, w.Namespace}
	for _, reference := range refers.Files {
		keys, _ := from.Keys(reference.Kind, reference.Name)
		if reference.Key != "" {
			keys = []string{reference.Key}
		}
		for _, name := range keys {
			value, err := from.Value(reference.Kind, reference.Name, name)
			if err != nil || s.ownFile(w.Namespace, reference.Name, reference.Kind) {
				continue // optional, and not there; or there already
			}
			if err := s.provideFile(ctx, d, reference.Kind, w.Namespace, from.Stored(reference.Kind, reference.Name, name), value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) provideFile(ctx context.Context, d deed, kind neutral.Kind, namespace, name string, value []byte) error {
	action := neutral.ConfigCreate
	if kind == neutral.KindSecret {
		action = neutral.SecretCreate
	}
	if len(value) == 0 {
		return fault.New(fault.Unprocessable, "an empty value cannot be mounted: Swarm keeps no empty files")
	}
	_, err := s.under.Do(ctx, neutral.Operation{Action: action, Verb: neutral.Create, Peer: d.peer,
		Object: neutral.Object{Kind: kind, Namespace: namespace, Name: name},
		File:   &neutral.StoredFile{Name: name, Namespace: namespace, Labels: map[string]string{labelRecord: recordFile}, Data: value}})
	if fault.Is(err, fault.Conflict) { // of the same content, by its name
		return nil
	}
	return err
}

// pull fetches an image as the container's policy says. What the engine has is enough where the policy lets it be.
func (s *Server) pull(ctx context.Context, d deed, c corev1.Container) error {
	_, err := s.under.Do(ctx, neutral.Operation{Action: neutral.ImageInspect, Verb: neutral.Get, Peer: d.peer,
		Object: neutral.Object{Kind: neutral.KindImage, Name: c.Image}, Ref: c.Image, Image: c.Image})
	if err == nil && c.ImagePullPolicy != corev1.PullAlways || c.ImagePullPolicy == corev1.PullNever {
		return err
	}
	there := err == nil
	_, err = s.under.Stream(ctx, neutral.Operation{Action: neutral.ImagePull, Verb: neutral.Create, Peer: d.peer,
		Object: neutral.Object{Kind: neutral.KindImage, Name: c.Image}, Image: c.Image}, quiet{})
	if err != nil && there { // a registry that is away is no reason not to run what is here
		s.log.Warn("an image could not be pulled; the one that the engine has is used", "image", c.Image, "err", err)
		return nil
	}
	return err
}

// undoDeadline bounds how long something is taken back.
const undoDeadline = 30 * time.Second

// undo removes a container that did not start.
func (s *Server) undo(ctx context.Context, d deed, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoDeadline)
	defer cancel()
	_, err := s.under.Do(ctx, neutral.Operation{Action: neutral.ContainerRemove, Verb: neutral.Destroy, Peer: d.peer, Ref: id,
		Object: neutral.Object{Kind: neutral.KindContainer, Namespace: d.next.GetNamespace()}, Remove: &neutral.RemoveOptions{Force: true, Volumes: true}})
	if err != nil {
		s.log.Error("a container that did not start could not be removed", "container", id, "err", err)
	}
}

// containerName is a container's name within its Pod, where nobody has given one.
func containerName(pod string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, pod[:min(len(pod), 63)]), "-")
}

func isNotFound(err error) bool { return fault.Is(err, fault.NotFound) }
