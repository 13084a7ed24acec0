package kubernetes

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Asked reads the annotation of an object that is created. A label cannot hold what it says.
func (Dialect) Asked(req dialect.Request) (from, name string, err error) {
	if !bytes.Contains(req.Body, []byte(dialect.CopyFrom)) {
		return "", "", nil
	}
	raw, _, ok := bodyOf(req)
	if !ok {
		return "", "", fault.New(fault.Invalid, "a create with %s is completed by the gateway, which reads JSON and YAML", dialect.CopyFrom)
	}
	body, err := replica.Parse(raw)
	if err != nil {
		return "", "", err
	}
	name = replica.Text(body, "metadata", "name")
	if name == "" {
		name = strings.TrimSuffix(replica.Text(body, "metadata", "generateName"), "-")
	}
	return replica.Text(body, "metadata", "annotations", dialect.CopyFrom), name, nil
}

// sourceImage is what a client whose command line must name an image names to mean the source's. Nothing can be run of it.
const sourceImage = "scratch"

// unsaid tells values that say nothing.
func unsaid(path string, value any) bool {
	return strings.HasSuffix(path, "ontainers.image") && (value == sourceImage || value == sourceImage+":latest")
}

// mergeKeys are the lists that are merged, by what an element of one is known by.
var mergeKeys = map[string]string{"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath",
	"imagePullSecrets": "name"}

func elementKey(path string, element any) string {
	object, _ := element.(map[string]any)
	key, _ := object[mergeKeys[path[strings.LastIndexByte(path, '.')+1:]]].(string)
	return key
}

// Complete fills a create.
func (Dialect) Complete(req dialect.Request, draft dialect.Draft) (dialect.Request, []dialect.Left, error) {
	raw, _, ok := bodyOf(req)
	if !ok {
		return req, nil, fault.New(fault.Invalid, "the request's body could not be read")
	}
	body, err := replica.Parse(raw)
	if err != nil {
		return req, nil, err
	}
	if kind := replica.Text(body, "kind"); kind != "" && kind != replica.Text(draft.Body, "kind") {
		return req, nil, fault.New(fault.Invalid, "%s names a %s, and a %s is created: a copy is of its source's kind", dialect.CopyFrom,
			replica.Text(draft.Body, "kind"), kind)
	}
	drafted, _ := replica.Clone(draft.Body).(map[string]any)
	delete(replica.Object(drafted, "metadata"), "name")
	template := []string{"spec", "template"}
	if replica.Object(drafted, template...) == nil {
		template = nil
	}
	matchNames(replica.List(body, append(slices.Clone(template), "spec", "containers")...), replica.List(drafted, append(slices.Clone(template), "spec", "containers")...))
	if !replica.Empty(replica.Object(body, "spec")["selector"]) {
		delete(replica.Object(drafted, "spec"), "selector")
	}
	given := map[string]bool{}
	for _, element := range replica.List(body, append(slices.Clone(template), "spec", "containers")...) {
		container, _ := element.(map[string]any)
		for _, variable := range replica.List(container, "env") {
			v, _ := variable.(map[string]any)
			name, _ := v["name"].(string)
			given[name] = true
		}
	}
	replica.Merge{Key: elementKey, Zero: unsaid}.Fill("", body, drafted)
	if template != nil { // what a selector says, a template must say too
		if labels := replica.Object(body, "spec", "template", "metadata", "labels"); labels != nil {
			maps.Copy(labels, replica.Object(body, "spec", "selector", "matchLabels"))
		}
	}
	var left []dialect.Left
	for _, l := range draft.Left {
		if _, name, ok := strings.Cut(l.Field, ".env["); ok && given[strings.TrimSuffix(name, "]")] {
			continue
		}
		left = append(left, l)
	}
	if raw, err = json.Marshal(body); err != nil {
		return req, nil, fault.Wrap(fault.Internal, err, "the completed request could not be written")
	}
	req.Body, req.Header = raw, req.Header.Clone()
	req.Header.Set("Content-Type", mediaJSON)
	return req, left, nil
}

// matchNames makes one container the other where either side has one: what a client calls it is its own matter.
func matchNames(written, drafted []any) {
	if len(written) != 1 || len(drafted) != 1 {
		return
	}
	w, _ := written[0].(map[string]any)
	d, _ := drafted[0].(map[string]any)
	if name, ok := w["name"].(string); ok && name != "" && d != nil {
		d["name"] = name
	}
}
