package docker

import (
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// labelAnonymous is on volumes that nobody named, as an engine marks them.
const labelAnonymous = "com.docker.volume.anonymous"

// volumesToDocker renders GET /volumes. Which volumes a container has, the target knows; the rest is filtered here.
func volumesToDocker(q *query, result neutral.Result) any {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		set = filters{} // Decode refused it
	}
	list := volume.ListResponse{Volumes: []volume.Volume{}, Warnings: warnings(result.Losses)}
	for _, v := range result.Volumes {
		rendered := volumeToDocker(v)
		named := len(set["name"]) == 0 || slices.ContainsFunc(set["name"], func(w string) bool { return strings.Contains(v.Name, w) })
		driven := len(set["driver"]) == 0 || slices.Contains(set["driver"], rendered.Driver)
		if named && driven && labelsMatch(set["label"], rendered.Labels) {
			list.Volumes = append(list.Volumes, rendered)
		}
	}
	return list
}

func volumeToDocker(v neutral.Volume) volume.Volume {
	d := volume.Volume{Name: v.Name, Driver: v.Driver, Scope: v.Scope, Labels: labelled(v.Labels), Options: labelled(v.Options)}
	if v.Anonymous {
		d.Labels = map[string]string{labelAnonymous: ""}
		for key, value := range v.Labels {
			d.Labels[key] = value
		}
	}
	if d.Driver == "" {
		d.Driver = "local"
	}
	if d.Scope == "" {
		d.Scope = "local"
	}
	if !v.Created.IsZero() {
		d.CreatedAt = v.Created.UTC().Format(time.RFC3339)
	}
	return d
}
