package docker

import (
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// imagesToDocker renders GET /images/json, filtered by reference as an engine does.
func imagesToDocker(q *query, images []neutral.Image) []image.Summary {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		set = filters{} // Decode refused it
	}
	list := make([]image.Summary, 0, len(images))
	for _, i := range images {
		tags, digests := familiarAll(i.Tags), familiarAll(i.Digests)
		if patterns := set["reference"]; len(patterns) > 0 {
			tags = slices.DeleteFunc(tags, func(t string) bool { return !matchReference(patterns, t) })
			digests = slices.DeleteFunc(digests, func(t string) bool { return !matchReference(patterns, t) })
			if len(tags) == 0 && len(digests) == 0 {
				continue
			}
		}
		if dangling := set["dangling"]; len(dangling) > 0 {
			if wanted := slices.Contains([]string{"true", "1"}, dangling[0]); wanted != (len(tags) == 0) {
				continue
			}
		}
		if len(set["label"]) > 0 {
			continue // labels of images are not known
		}
		list = append(list, image.Summary{ID: i.ID, RepoTags: tags, RepoDigests: digests, Created: unix(i.Created), Size: i.Size,
			SharedSize: -1, Containers: -1, Labels: map[string]string{}})
	}
	slices.SortStableFunc(list, func(a, b image.Summary) int { return int(b.Created - a.Created) })
	return list
}

// familiarAll writes references as docker shows them, "busybox:1.36" for "docker.io/library/busybox:1.36".
func familiarAll(references []string) []string {
	list := make([]string, 0, len(references))
	for _, text := range references {
		if named, err := reference.ParseNormalizedNamed(text); err == nil {
			text = reference.FamiliarString(named)
		}
		list = append(list, text)
	}
	return list
}

// matchReference matches a reference, or its name alone, with shell patterns.
func matchReference(patterns []string, text string) bool {
	name := text
	if i := strings.IndexByte(name, '@'); i >= 0 {
		name = name[:i]
	} else if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		whole, err := path.Match(p, text)
		part, err2 := path.Match(p, name)
		return err == nil && whole || err2 == nil && part
	})
}

// imageToDocker renders GET /images/{name}/json, as far as a cluster's nodes tell of an image.
func imageToDocker(i *neutral.Image) any {
	return image.InspectResponse{ID: i.ID, RepoTags: familiarAll(i.Tags), RepoDigests: familiarAll(i.Digests), Size: i.Size,
		Created: stamp(i.Created), Os: "linux", Config: &dockerspec.DockerOCIImageConfig{}}
}
