package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// patchSteps bounds a JSON patch, as the API does.
const patchSteps = 10000

// conflicts bounds how often a patch that names no version is made anew, because its object was changed meanwhile.
const conflicts = 5

func (s *Server) patch(w http.ResponseWriter, c *call) error {
	options, err := writingOf(c)
	if err != nil {
		return err
	}
	raw, err := readWhole(c)
	if err != nil {
		return err
	}
	if slow(c, raw) {
		return errSlowQuantity
	}
	patchType := types.PatchType(mediaOf(c.Header))
	if patchType == types.ApplyYAMLPatchType && c.URL.Query().Get("fieldManager") == "" {
		return apierrors.NewBadRequest("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
	}
	for try := 1; ; try++ {
		old, err := s.find(c)
		if apierrors.IsNotFound(err) && patchType == types.ApplyYAMLPatchType {
			err := s.applyNew(w, c, options, raw)
			if apierrors.IsAlreadyExists(err) && try < conflicts { // made meanwhile
				continue
			}
			return err
		}
		if err != nil {
			return err
		}
		next, warnings, err := patched(c, options, patchType, raw, old.object)
		if err != nil {
			return err
		}
		changed, losses, err := s.replace(c, options, old, next)
		if apierrors.IsConflict(err) && try < conflicts && next.GetResourceVersion() == old.object.GetResourceVersion() && !versioned(raw) {
			continue
		}
		if err != nil {
			return err
		}
		warn(w, append(warnings, losses...))
		return s.answer(w, c, http.StatusOK, whole(c.resource, changed))
	}
}

// mediaOf is the media type of a body; "" where it cannot be read.
func mediaOf(header http.Header) string {
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return media
}

// versioned tells whether a patch may name the version that it is for.
func versioned(patch []byte) bool { return strings.Contains(string(patch), "resourceVersion") }

// applyNew makes what is applied and is not there.
func (s *Server) applyNew(w http.ResponseWriter, c *call, options writing, raw []byte) error {
	empty := c.resource.New().(object)
	next, warnings, err := patched(c, options, types.ApplyYAMLPatchType, raw, empty)
	if err != nil {
		return err
	}
	made, losses, err := s.make(c, options, next)
	if err != nil {
		return err
	}
	warn(w, append(warnings, losses...))
	return s.answer(w, c, http.StatusCreated, whole(c.resource, made))
}

// patched is an object after a patch.
func patched(c *call, w writing, patchType types.PatchType, raw []byte, old object) (object, []string, error) {
	if patchType == types.ApplyYAMLPatchType {
		return applied(c, w, raw, old)
	}
	before, err := json.Marshal(whole(c.resource, old))
	if err != nil {
		return nil, nil, err
	}
	after, err := patchedJSON(c, patchType, raw, before)
	if err != nil {
		return nil, nil, err
	}
	next := c.resource.New().(object)
	problems, err := decode(http.Header{"Content-Type": {mediaJSON}}, after, next, c.resource.GroupVersionKind, w.validation != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", c.resource.GroupResource(), c.name, err.Error(), 0, true)
	}
	if err := w.strict(c.resource.GroupVersionKind, problems); err != nil {
		return nil, nil, err
	}
	if err := samePlace(c, next); err != nil {
		return nil, nil, err
	}
	if secret, ok := next.(*corev1.Secret); ok { // stringData is nobody's field, what becomes of it is
		secretKind{}.complete(secret, old)
	}
	return next, problems, updateManagers(c, w, "", old, next)
}

// samePlace refuses a patch that would make another object of it.
func samePlace(c *call, next metav1.Object) error {
	if next.GetName() != c.name || next.GetNamespace() != c.namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("the name or the namespace of the object (%s/%s) does not match the URL (%s/%s)",
			next.GetNamespace(), next.GetName(), c.namespace, c.name))
	}
	return nil
}

func patchedJSON(c *call, patchType types.PatchType, raw, before []byte) (after []byte, err error) {
	if !json.Valid(raw) {
		if converted, err := yaml.YAMLToJSONStrict(raw); err == nil {
			raw = converted
		}
	}
	switch patchType {
	case types.JSONPatchType:
		steps, err := jsonpatch.DecodePatch(raw)
		if err != nil {
			return nil, apierrors.NewBadRequest("error decoding patch: " + err.Error())
		}
		if len(steps) > patchSteps {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the allowed maximum operations in a JSON patch is %d", patchSteps))
		}
		if after, err = steps.Apply(before); err != nil {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", c.resource.GroupResource(), c.name, err.Error(), 0, false)
		}
		return after, nil
	case types.MergePatchType:
		if after, err = jsonpatch.MergePatch(before, raw); err != nil {
			return nil, apierrors.NewBadRequest("error decoding patch: " + err.Error())
		}
		return after, nil
	case types.StrategicMergePatchType:
		if after, err = strategicpatch.StrategicMergePatch(before, raw, c.resource.New()); err != nil {
			return nil, apierrors.NewBadRequest("error decoding patch: " + err.Error())
		}
		return after, nil
	}
	return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", c.resource.GroupResource(), c.name,
		"the body of the request was in an unknown format - accepted media types include: "+strings.Join([]string{
			string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType)}, ", "), 0, true)
}

// applied is an object after server-side apply: whose a field is, is kept, and what others own is not taken without force.
// See https://kubernetes.io/docs/reference/using-api/server-side-apply/
func applied(c *call, w writing, raw []byte, old object) (object, []string, error) {
	asJSON, err := yaml.YAMLToJSON(raw)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest("error decoding YAML: " + err.Error())
	}
	config := &unstructured.Unstructured{}
	if err := json.Unmarshal(asJSON, &config.Object); err != nil || config.Object == nil {
		return nil, nil, apierrors.NewBadRequest("the applied configuration is no object")
	}
	problems, err := decode(http.Header{"Content-Type": {"application/yaml"}}, raw, c.resource.New(), c.resource.GroupVersionKind,
		w.validation != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, nil, badBody(err)
	}
	if err := w.strict(c.resource.GroupVersionKind, problems); err != nil {
		return nil, nil, err
	}
	if config.GetName() == "" {
		config.SetName(c.name)
	}
	if config.GetNamespace() == "" {
		config.SetNamespace(c.namespace)
	}
	if err := samePlace(c, config); err != nil {
		return nil, nil, err
	}
	if version := config.GetResourceVersion(); version != "" && version != old.GetResourceVersion() {
		return nil, nil, apierrors.NewConflict(c.resource.GroupResource(), c.name, errModified)
	}
	m, err := fieldManager(c.resource.GroupVersionKind, "")
	if err != nil {
		return nil, nil, err
	}
	merged, err := m.Apply(whole(c.resource, old), config, w.manager, w.force)
	if err != nil {
		var known apierrors.APIStatus
		if errors.As(err, &known) {
			return nil, nil, err
		}
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	next, err := typed(c, merged)
	return next, problems, err
}

// typed is an object of the resource's own type.
func typed(c *call, o runtime.Object) (object, error) {
	loose, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o.(object), nil
	}
	next := c.resource.New().(object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(loose.Object, next); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return next, nil
}
