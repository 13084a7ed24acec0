package docker

import (
	"io/fs"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// storedMatches tells whether a list holds a secret or a config.
func storedMatches(set filters, f *neutral.StoredFile) bool {
	named := len(set["name"]) == 0 || slices.ContainsFunc(set["name"], func(w string) bool { return strings.HasPrefix(f.Name, w) })
	exactly := len(set["names"]) == 0 || slices.Contains(set["names"], f.Name)
	return named && exactly && anyPrefix(set["id"], f.ID) && labelsMatch(set["label"], f.Labels)
}

func storedMeta(f *neutral.StoredFile) swarm.Meta {
	return swarm.Meta{Version: versionIndex(f.Version), CreatedAt: f.Created.UTC(), UpdatedAt: f.Created.UTC()}
}

// secretToDocker renders a secret, without what is in it.
func secretToDocker(f *neutral.StoredFile) swarm.Secret {
	return swarm.Secret{ID: f.ID, Meta: storedMeta(f),
		Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: f.Name, Labels: labelled(f.Labels)}}}
}

func configToDockerConfig(f *neutral.StoredFile) swarm.Config {
	return swarm.Config{ID: f.ID, Meta: storedMeta(f),
		Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: f.Name, Labels: labelled(f.Labels)}, Data: f.Data}}
}

// storedToDocker renders a list.
func storedToDocker[T any](q *query, files []neutral.StoredFile, render func(*neutral.StoredFile) T) []T {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		set = filters{} // Decode refused it
	}
	list := make([]T, 0, len(files))
	for i := range files {
		if storedMatches(set, &files[i]) {
			list = append(list, render(&files[i]))
		}
	}
	return list
}

// secretReferences and configReferences are the files of a service's tasks.
func secretReferences(files []neutral.MountedFile) []*swarm.SecretReference {
	var list []*swarm.SecretReference
	for _, f := range files {
		if f.Kind == neutral.KindSecret {
			list = append(list, &swarm.SecretReference{SecretName: f.Name, File: &swarm.SecretReferenceFileTarget{
				Name: strings.TrimPrefix(f.Target, "/run/secrets/"), UID: "0", GID: "0", Mode: fs.FileMode(f.Mode)}})
		}
	}
	return list
}

func configReferences(files []neutral.MountedFile) []*swarm.ConfigReference {
	var list []*swarm.ConfigReference
	for _, f := range files {
		if f.Kind == neutral.KindConfig {
			list = append(list, &swarm.ConfigReference{ConfigName: f.Name, File: &swarm.ConfigReferenceFileTarget{
				Name: f.Target, UID: "0", GID: "0", Mode: fs.FileMode(f.Mode)}})
		}
	}
	return list
}
