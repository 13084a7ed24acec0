package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Forecaster = (*Cluster)(nil)

// Media types of patches.
const (
	mediaYAML      = "application/yaml"
	mediaJSONPatch = "application/json-patch+json"
	mediaApply     = "application/apply-patch+yaml"
)

// objectLimit bounds an object that is read whole; the API itself takes less.
const objectLimit = 8 << 20

// bodyOf gives a body as JSON.
func bodyOf(req dialect.Request) (body []byte, mediaType string, ok bool) {
	kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	switch {
	case req.Header.Get("Content-Type") == "", err == nil && (kind == mediaJSON || strings.HasSuffix(kind, "+json")):
		return req.Body, "", json.Valid(req.Body)
	case kind == mediaApply: // JSON is YAML
		body, err := yaml.YAMLToJSONStrict(req.Body)
		return body, "", err == nil
	case kind == mediaYAML:
		body, err := yaml.YAMLToJSONStrict(req.Body)
		return body, mediaJSON, err == nil
	}
	return nil, "", false
}

// Forecastable is every create and update of a resource, which the API can do without keeping what comes of it.
func (c *Cluster) Forecastable(op neutral.Operation) bool {
	switch op.Extra[extraVerb] {
	case string(verbCreate), string(verbUpdate), string(verbPatch):
		return true
	}
	return false
}

// Forecast asks the API for a dry run: what comes of defaults, patches and admission is as the API itself has it. A patch
// is then bound to the version of the object that it was tried on.
// See https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
func (c *Cluster) Forecast(ctx context.Context, op neutral.Operation, req dialect.Request) (dialect.Forecast, error) {
	response, err := c.dryRun(ctx, req)
	if err != nil {
		return dialect.Forecast{}, err
	}
	if response.Status >= http.StatusMultipleChoices {
		return dialect.Forecast{Refused: &response}, nil
	}
	objects, err := objectsOf(op, response.Body)
	if err != nil {
		return dialect.Forecast{}, err
	}
	known := &volumes{cluster: c}
	for i := range objects {
		known.resolve(ctx, objects[i].Namespace, objects[i].Container)
	}
	forecast := dialect.Forecast{Objects: objects, Request: req}
	if req.Method == http.MethodPatch {
		var tried judged
		if err := json.Unmarshal(response.Body, &tried); err != nil {
			return dialect.Forecast{}, unreadableObject(err)
		}
		if version := tried.Metadata.ResourceVersion; version != "" && op.Object.Labels != nil { // it was there
			if forecast.Request, forecast.Pinned, err = pinned(req, version); err != nil {
				return dialect.Forecast{}, err
			}
		}
	}
	return forecast, nil
}

func (c *Cluster) dryRun(ctx context.Context, req dialect.Request) (dialect.Response, error) {
	target, err := req.URL()
	if err != nil {
		return dialect.Response{}, invalidPath("it cannot be parsed")
	}
	query := target.Query()
	query["dryRun"] = []string{metav1.DryRunAll}
	dry, err := http.NewRequestWithContext(ctx, req.Method, (&url.URL{Scheme: "http", Host: c.access.base.Host, Path: target.Path, RawPath: target.RawPath,
		RawQuery: query.Encode()}).String(), bytes.NewReader(req.Body))
	if err != nil {
		return dialect.Response{}, invalidPath("it cannot be parsed")
	}
	dry.Header = req.Header.Clone()
	dry.Header.Set("Accept", mediaJSON)
	answer, err := c.Transport().RoundTrip(dry)
	if err != nil {
		return dialect.Response{}, nativeFault(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, objectLimit+1))
	switch {
	case err != nil:
		return dialect.Response{}, unreadableObject(err)
	case len(body) > objectLimit:
		return dialect.Response{}, unreadableObject(errors.New("it is too large"))
	}
	return dialect.Response{Status: answer.StatusCode, Header: answer.Header, Body: body}, nil
}

// pinned is a patch that the API takes for this version of the object alone. One that names a version itself stays as it
// is.
func pinned(req dialect.Request, version string) (dialect.Request, bool, error) {
	body, _, ok := bodyOf(req)
	if !ok {
		return req, false, fault.New(fault.Invalid, "the patch is in a form that cannot be held to a policy's conditions; send it as JSON")
	}
	kind, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	var err error
	if kind == mediaJSONPatch {
		var steps []json.RawMessage
		if err = json.Unmarshal(body, &steps); err == nil {
			var test []byte
			test, err = json.Marshal(map[string]string{"op": "test", "path": "/metadata/resourceVersion", "value": version})
			steps = append([]json.RawMessage{test}, steps...)
			if err == nil {
				req.Body, err = json.Marshal(steps)
			}
		}
	} else {
		named := false
		req.Body, err = changed(body, func(patch map[string]json.RawMessage) error {
			metadata := map[string]json.RawMessage{}
			if raw, ok := patch["metadata"]; ok && string(raw) != "null" {
				if err := json.Unmarshal(raw, &metadata); err != nil {
					return err
				}
			}
			var own string // null and "" are for any version
			if raw, ok := metadata["resourceVersion"]; ok && json.Unmarshal(raw, &own) == nil && own != "" {
				named = true
				return nil
			}
			metadata["resourceVersion"], _ = json.Marshal(version) // a string always marshals
			patch["metadata"], err = json.Marshal(metadata)
			return err
		})
		if named && err == nil {
			return req, false, nil
		}
	}
	if err != nil {
		return req, false, fault.Wrap(fault.Invalid, err, "the patch could not be read")
	}
	return req, true, nil
}

// objectsOf is what policy is asked about an object that was, or would be, written: once for each of its containers.
func objectsOf(op neutral.Operation, raw []byte) ([]neutral.Object, error) {
	object, err := objectOf(op, raw)
	if err != nil {
		return nil, err
	}
	if op.Object.Namespace != "" {
		object.Namespace = op.Object.Namespace
	}
	object.Container = nil
	var meta metav1.ObjectMeta
	var spec *corev1.PodSpec
	switch object.Kind {
	case neutral.KindContainer:
		var pod corev1.Pod
		if err := json.Unmarshal(raw, &pod); err != nil {
			return nil, unreadableObject(err)
		}
		meta, spec = pod.ObjectMeta, &pod.Spec
	case neutral.KindWorkload:
		var workload unstructured.Unstructured
		if err := json.Unmarshal(raw, &workload.Object); err != nil {
			return nil, unreadableObject(err)
		}
		template, _, err := nativeTemplate(&workload)
		if err != nil {
			return nil, unreadableObject(err)
		}
		meta, spec = template.ObjectMeta, &template.Spec
	}
	if spec == nil {
		return []neutral.Object{object}, nil
	}
	one := *spec
	one.Containers = append(append([]corev1.Container(nil), spec.InitContainers...), spec.Containers...)
	for _, e := range spec.EphemeralContainers {
		one.Containers = append(one.Containers, corev1.Container(e.EphemeralContainerCommon))
	}
	var objects []neutral.Object
	for i := range one.Containers {
		container := containerFromSpec(meta, &one, i)
		container.Name, container.Namespace = object.Name, object.Namespace
		each := object
		each.Container = &container
		objects = append(objects, each)
	}
	if len(objects) == 0 {
		return []neutral.Object{object}, nil
	}
	return objects, nil
}
