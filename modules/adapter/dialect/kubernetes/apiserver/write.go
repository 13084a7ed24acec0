package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// bodyLimit bounds a body, in bytes; it is the API's own.
const bodyLimit = 3 << 20

// writing is what a request that writes says of how.
type writing struct {
	dry        bool
	manager    string // of fields
	force      bool
	validation string // Ignore, Warn, Strict
}

func writingOf(c *call) (writing, error) {
	query := c.URL.Query()
	w := writing{manager: query.Get("fieldManager"), validation: query.Get("fieldValidation"), force: query.Get("force") == "true"}
	for _, mode := range query["dryRun"] {
		if mode != metav1.DryRunAll {
			return w, apierrors.NewBadRequest(fmt.Sprintf("dryRun: Unsupported value: %q: supported values: %q", mode, metav1.DryRunAll))
		}
		w.dry = true
	}
	switch w.validation {
	case "":
		w.validation = metav1.FieldValidationWarn
	case metav1.FieldValidationIgnore, metav1.FieldValidationWarn, metav1.FieldValidationStrict:
	default:
		return w, apierrors.NewBadRequest(fmt.Sprintf("fieldValidation: Unsupported value: %q", w.validation))
	}
	if len(w.manager) > 128 {
		return w, apierrors.NewBadRequest("fieldManager: may not be longer than 128 characters")
	}
	if w.manager == "" { // the API names it by the client
		w.manager, _, _ = strings.Cut(c.UserAgent(), "/")
		w.manager = w.manager[:min(len(w.manager), 128)]
	}
	return w, nil
}

// readWhole reads the body of a request.
func readWhole(c *call) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(c.Body, bodyLimit+1))
	switch {
	case err != nil:
		return nil, apierrors.NewBadRequest("the body of the request could not be read")
	case len(raw) > bodyLimit:
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", bodyLimit))
	}
	return raw, nil
}

// readObject decodes the object in a body. The warnings are of fields that are unknown, or there twice.
func readObject(c *call, w writing) (object, []string, error) {
	raw, err := readWhole(c)
	if err != nil {
		return nil, nil, err
	}
	if slow(c, raw) {
		return nil, nil, errSlowQuantity
	}
	into := c.resource.New().(object)
	problems, err := decode(c.Header, raw, into, c.resource.GroupVersionKind, w.validation != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, nil, badBody(err)
	}
	return into, problems, w.strict(c.resource.GroupVersionKind, problems)
}

// slowQuantity is a number whose exponent has five digits or more: the library that reads quantities takes seconds for one.
var slowQuantity = regexp.MustCompile(`(?m)(^|[\s"':,\[{])[+-]?[0-9]*\.?[0-9]+[eE][+-]?[0-9]{5,}($|[\s"',\]}])`)

// packedQuantity is the same where nothing says where a text begins.
var packedQuantity = regexp.MustCompile(`[0-9][eE][+-]?[0-9]{5,}`)

// slow tells whether a body may hold such a number. What is written with escapes is read before.
func slow(c *call, raw []byte) bool {
	if strings.Contains(c.Header.Get("Content-Type"), "protobuf") {
		switch c.resource.GroupResource() {
		case configMapResource, secretResource: // they have no quantities, and may hold anything
			return false
		}
		return packedQuantity.Match(raw)
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		if plain, err := yaml.YAMLToJSON(raw); err == nil { // JSON is YAML
			raw = plain
		}
	}
	return slowQuantity.Match(raw)
}

var errSlowQuantity = apierrors.NewBadRequest("a number in the body has an exponent of more than four digits")

func badBody(err error) error {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		return err
	}
	return apierrors.NewBadRequest(err.Error())
}

// strict refuses what is only warned of otherwise.
func (w writing) strict(kind schema.GroupVersionKind, problems []string) error {
	if len(problems) > 0 && w.validation == metav1.FieldValidationStrict {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: strict decoding error: %s", kind.Kind, kind.Version,
			kind.Kind, strings.Join(problems, ", ")))
	}
	return nil
}

func (s *Server) writerOf(c *call) (writer, error) {
	of, ok := s.kinds[c.resource.GroupResource()].(writer)
	if !ok {
		return nil, apierrors.NewMethodNotSupported(c.resource.GroupResource(), c.verb)
	}
	return of, nil
}

func (s *Server) create(w http.ResponseWriter, c *call) error {
	if _, ok := s.kinds[c.resource.GroupResource()]; !ok { // a review: what a caller may do is not this API's to say
		return unknownPath(c.Request)
	}
	options, err := writingOf(c)
	if err != nil {
		return err
	}
	if c.name != "" {
		return apierrors.NewMethodNotSupported(c.resource.GroupResource(), "create")
	}
	o, warnings, err := readObject(c, options)
	if err != nil {
		return err
	}
	made, losses, err := s.make(c, options, o)
	if err != nil {
		return err
	}
	warn(w, append(warnings, losses...))
	return s.answer(w, c, http.StatusCreated, whole(c.resource, made))
}

// make makes an object, and gives it as it is then.
func (s *Server) make(c *call, options writing, o object) (object, []string, error) {
	of, err := s.writerOf(c)
	if err != nil {
		return nil, nil, err
	}
	if o.GetNamespace() != "" && o.GetNamespace() != c.namespace {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf(
			"the namespace of the provided object does not match the namespace sent on the request: %q and %q", o.GetNamespace(), c.namespace))
	}
	if o.GetResourceVersion() != "" {
		return nil, nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	o.SetNamespace(c.namespace)
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(generated(o.GetGenerateName()))
	}
	o.SetUID("")
	o.SetCreationTimestamp(metav1.Time{})
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetGeneration(0)
	o.SetSelfLink("")
	dropStatus(o)
	if generational(o) {
		o.SetGeneration(1)
	}
	of.complete(o, nil)
	if err := invalid(c, of, o, nil); err != nil {
		return nil, nil, err
	}
	if c.verb == "create" { // apply has noted its own
		if err := updateManagers(c, options, "", c.resource.New().(object), o); err != nil {
			return nil, nil, err
		}
	}
	if err := s.refresh(c.Context()); err != nil {
		return nil, nil, err
	}
	if s.store.get(c.resource.GroupResource(), keyOf(o)) != nil {
		return nil, nil, apierrors.NewAlreadyExists(c.resource.GroupResource(), o.GetName())
	}
	if c.namespace != "" && s.store.get(namespaceResource, key{name: c.namespace}) == nil {
		return nil, nil, apierrors.NewNotFound(namespaceResource, c.namespace)
	}
	losses, err := of.create(c.Context(), deed{peer: c.peer, dry: options.dry, next: o})
	if fault.Is(err, fault.Conflict) { // somebody else was faster
		return nil, nil, apierrors.NewAlreadyExists(c.resource.GroupResource(), o.GetName())
	}
	if err != nil {
		return nil, nil, err
	}
	if options.dry {
		o.SetUID(uidOf(s.cluster, "dry-run", o.GetNamespace(), o.GetName()))
		o.SetCreationTimestamp(metav1.NewTime(s.now().Truncate(1e9)))
		return o, texts(losses), nil
	}
	made, err := s.written(c.Context(), c, keyOf(o))
	return made, texts(losses), err
}

// generated is a name that nobody else has, as short as the API makes it.
func generated(base string) string {
	const longest, random = 63, 5
	return base[:min(len(base), longest-random)] + rand.String(random)
}

// written is an object after it was written.
func (s *Server) written(ctx context.Context, c *call, k key) (object, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	e := s.store.get(c.resource.GroupResource(), k)
	if e == nil { // and removed since
		return nil, apierrors.NewNotFound(c.resource.GroupResource(), k.name)
	}
	return e.object, nil
}

func (s *Server) update(w http.ResponseWriter, c *call) error {
	options, err := writingOf(c)
	if err != nil {
		return err
	}
	o, warnings, err := readObject(c, options)
	if err != nil {
		return err
	}
	if o.GetName() != c.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", o.GetName(), c.name))
	}
	if o.GetNamespace() != "" && o.GetNamespace() != c.namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the URL (%s)",
			o.GetNamespace(), c.namespace))
	}
	o.SetNamespace(c.namespace)
	old, err := s.find(c)
	if err != nil {
		return err
	}
	of, err := s.writerOf(c)
	if err != nil {
		return err
	}
	of.complete(o, old.object) // a field with its default value is whose it was
	if err := updateManagers(c, options, "", old.object, o); err != nil {
		return err
	}
	changed, losses, err := s.replace(c, options, old, o)
	if err != nil {
		return err
	}
	warn(w, append(warnings, losses...))
	return s.answer(w, c, http.StatusOK, whole(c.resource, changed))
}

// replace puts an object in the place of what there was.
func (s *Server) replace(c *call, options writing, old *entry, next object) (object, []string, error) {
	of, err := s.writerOf(c)
	if err != nil {
		return nil, nil, err
	}
	if version := next.GetResourceVersion(); version != "" && version != old.object.GetResourceVersion() {
		return nil, nil, apierrors.NewConflict(c.resource.GroupResource(), c.name, errModified)
	}
	if uid := next.GetUID(); uid != "" && uid != old.object.GetUID() {
		return nil, nil, apierrors.NewConflict(c.resource.GroupResource(), c.name, fmt.Errorf(
			"Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.object.GetUID()))
	}
	next.SetResourceVersion(old.object.GetResourceVersion())
	next.SetUID(old.object.GetUID())
	next.SetCreationTimestamp(old.object.GetCreationTimestamp())
	next.SetDeletionTimestamp(old.object.GetDeletionTimestamp())
	next.SetGeneration(old.object.GetGeneration())
	next.SetSelfLink("")
	if next.GetGenerateName() == "" {
		next.SetGenerateName(old.object.GetGenerateName())
	}
	copyStatus(next, old.object)
	of.complete(next, old.object)
	if err := invalid(c, of, next, old.object); err != nil {
		return nil, nil, err
	}
	if generational(next) && !sameSpec(old.object, next) {
		next.SetGeneration(old.object.GetGeneration() + 1)
	}
	if sameButTimes(old.object, next) {
		return old.object, nil, nil
	}
	losses, err := of.update(c.Context(), deed{peer: c.peer, dry: options.dry, old: old, next: next})
	if fault.Is(err, fault.Conflict) {
		return nil, nil, apierrors.NewConflict(c.resource.GroupResource(), c.name, errModified)
	}
	if err != nil {
		return nil, nil, err
	}
	if options.dry {
		return next, texts(losses), nil
	}
	changed, err := s.written(c.Context(), c, keyOf(next))
	return changed, texts(losses), err
}

var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// sameButTimes tells whether a write changes nothing: when a manager wrote last is no change.
func sameButTimes(old, next object) bool {
	a, b := old.DeepCopyObject().(object), next.DeepCopyObject().(object)
	for _, o := range []object{a, b} {
		o.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind())
		fields := o.GetManagedFields()
		for i := range fields {
			fields[i].Time = nil
		}
		o.SetManagedFields(fields)
	}
	return apiequality.Semantic.DeepEqual(a, b)
}

// part is a field of an object that not every kind has.
func part(o object, name string) reflect.Value { return reflect.ValueOf(o).Elem().FieldByName(name) }

func sameSpec(a, b object) bool {
	return apiequality.Semantic.DeepEqual(part(a, "Spec").Interface(), part(b, "Spec").Interface())
}

// generational tells whether the API counts the changes of an object's spec.
func generational(o object) bool {
	switch o.(type) {
	case *corev1.Namespace, *corev1.Service, *corev1.PersistentVolumeClaim:
		return false
	}
	return part(o, "Spec").IsValid()
}

// dropStatus takes the status away, which callers do not write; copyStatus keeps the one that was.
func dropStatus(o object) {
	if status := part(o, "Status"); status.IsValid() {
		status.SetZero()
	}
}

func copyStatus(to, from object) {
	if status := part(to, "Status"); status.IsValid() {
		status.Set(part(from.DeepCopyObject().(object), "Status"))
	}
}

func texts(losses []neutral.Loss) []string {
	var all []string
	for _, loss := range losses {
		all = append(all, loss.String())
	}
	return all
}
