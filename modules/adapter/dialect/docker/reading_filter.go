package docker

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/volume"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// hiddenReference says that an object is asked for by an address, as a node may be called: whether it is there tells whether
// the address is one of the cluster's.
func hiddenReference(op neutral.Operation) string {
	ref := strings.TrimPrefix(op.Ref, "/")
	if mask.IsAddress(ref) || op.Object.Kind == neutral.KindNode && mask.Hides(rules, "Hostname", ref) {
		return "nothing can be asked for by an address"
	}
	return ""
}

// imageFilters hold references of images, in which what looks like an address may be a version.
var imageFilters = map[string]bool{"ancestor": true, "reference": true, "image": true, "filter": true}

// searched are the filters that find names by a part of them, or a pattern.
var searched = map[string]bool{"name": true, "names": true, "reference": true, "filter": true}

// hiddenFilters says by what a list is filtered that is hidden: whoever could would ask for each address whose it is. Where a
// filter takes a part of a name, sought gives the names that it may have found.
func hiddenFilters(op neutral.Operation, query url.Values) (reveals string, sought func(element []byte) []byte) {
	set := filters{}
	for _, text := range query["filters"] {
		more, err := parseFilters(text)
		if err != nil {
			continue // the engine refuses it
		}
		for key, values := range more {
			set[key] = append(set[key], values...)
		}
	}
	set["filter"] = query["filter"] // of images, as old clients have it
	for key, values := range set {
		field := ""
		if imageFilters[key] || op.Action == neutral.ImageList && (key == "before" || key == "since") {
			field = "Image"
		}
		for _, value := range values {
			if mask.Hides(rules, field, value) || mask.Hides(rules, field, strings.ReplaceAll(value, `\`, "")) {
				return "nothing can be filtered by an address, as in " + key, nil
			}
		}
		if searched[key] && len(values) > 0 {
			sought = namesIn
		}
	}
	return "", sought
}

// namesIn are the names of an element of any list.
func namesIn(element []byte) []byte {
	var named struct {
		Name                         string
		Names, RepoTags, RepoDigests []string
		Spec                         struct{ Name string }
		Description                  json.RawMessage
	}
	if json.Unmarshal(element, &named) != nil {
		return element
	}
	var described struct{ Hostname string }
	_ = json.Unmarshal(named.Description, &described) // a node's; others have none, or a text
	named.Description = nil
	names, err := json.Marshal([]any{named, described})
	if err != nil {
		return element
	}
	return names
}

// createdVolume reads the answer to the creation of a volume: an engine gives one that was there already, as it is.
func createdVolume(written, answer []byte) (object neutral.Object, reduced []byte, err error) {
	var made volume.Volume
	if err := json.Unmarshal(answer, &made); err != nil {
		return object, nil, unreadableElement(err)
	}
	var wanted volume.CreateRequest
	if len(written) > 0 {
		if err := json.Unmarshal(written, &wanted); err != nil {
			return object, nil, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
		}
	}
	object = objectFrom(neutral.KindVolume, made.Name, made.Labels)
	source := volumeSource(made.Driver, made.Options)
	object.Volume = &source
	reduced, err = json.Marshal(volume.Volume{Name: made.Name, Driver: wanted.Driver, Labels: wanted.Labels, Options: wanted.DriverOpts})
	return object, reduced, err
}
