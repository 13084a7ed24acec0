package docker

import (
	"encoding/base64"
	"io/fs"
	"path"
	"regexp"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// storedLimit is a swarm's for one secret; a config may be twice as long.
const storedLimit = 500 << 10

var storedName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9])?$`)

// storedDisposals settle POST /secrets/create and /configs/create.
var storedDisposals = map[string]disposal{
	"Driver":     {refuse: true, reason: "a swarm's secret driver is not there on the target"},
	"Templating": {refuse: true, reason: "a template is filled by a swarm alone"},
}

// decodeStoredFile reads https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Secret/operation/SecretCreate
// and the same of configs. No error tells of what is in it.
func decodeStoredFile(op *neutral.Operation, t *tree) ([]neutral.Loss, error) {
	f := &neutral.StoredFile{Name: t.get("Name").str(), Labels: callerLabels(t.get("Labels").strMap())}
	data, err := base64.StdEncoding.DecodeString(t.get("Data").str())
	if err != nil {
		t.get("Data").fail(fault.Invalid, "invalid JSON: Data is not in base64")
	}
	losses, err := settle(t, storedDisposals, string(op.Action))
	if err != nil {
		return nil, err
	}
	limit := storedLimit
	if op.Action == neutral.ConfigCreate {
		limit *= 2
	}
	switch {
	case !storedName.MatchString(f.Name):
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Name", Message: "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and " +
			"the start and end character must be [a-zA-Z0-9]"}
	case len(data) == 0 || len(data) > limit:
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Data", Message: "data must be larger than 0 and at most " +
			map[bool]string{true: "1000", false: "500"}[op.Action == neutral.ConfigCreate] + " KiB"}
	}
	f.Data = data
	op.File, op.Ref = f, f.Name
	op.Object.Name, op.Object.Labels = f.Name, f.Labels
	return losses, nil
}

// filesFromTree reads the secrets or the configs of a task. Their owner is left unread unless it is root.
func filesFromTree(t *tree, kind neutral.Kind) []neutral.MountedFile {
	word, folder := "Secret", "/run/secrets"
	if kind == neutral.KindConfig {
		word, folder = "Config", "/"
	}
	var files []neutral.MountedFile
	for _, item := range t.items() {
		file := item.get("File")
		f := neutral.MountedFile{Kind: kind, Name: item.get(word + "Name").str(), Target: file.get("Name").str(),
			Mode: uint32(fs.FileMode(file.get("Mode").count()).Perm())}
		item.get(word + "ID").understood() // the name says it
		switch {
		case f.Name == "":
			item.fail(fault.Invalid, "malformed %s reference", kind)
		case f.Target == "" && item.get("Runtime") == nil:
			f.Target = f.Name
		}
		if !path.IsAbs(f.Target) {
			f.Target = path.Join(folder, f.Target)
		}
		f.Target = path.Clean(f.Target)
		if file.get("Mode") == nil {
			f.Mode = 0o444
		}
		files = append(files, f)
	}
	return files
}
