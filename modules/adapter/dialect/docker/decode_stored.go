package docker

import (
	"encoding/base64"
	"io/fs"
	"path"
	"regexp"
	"strconv"

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
	f, losses, err := storedFromTree(op, t)
	if err != nil {
		return nil, err
	}
	op.File, op.Ref = f, f.Name
	op.Object.Name, op.Object.Labels = f.Name, f.Labels
	return losses, nil
}

// decodeStoredUpdate reads https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Config/operation/ConfigUpdate:
// the whole of it once more, of which labels may be others.
func decodeStoredUpdate(op *neutral.Operation, q *query, t *tree) ([]neutral.Loss, error) {
	f, losses, err := storedFromTree(op, t)
	if err != nil {
		return nil, err
	}
	version := q.text("version")
	if _, err := strconv.ParseUint(version, 10, 64); err != nil {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "version", Message: "invalid " + string(op.Object.Kind) + " version '" + shorten(version) + "'"}
	}
	op.File, op.Version, op.Object.Labels = f, version, f.Labels
	return losses, nil
}

// storedFromTree reads a secret or a config. An update may leave out what is in it.
func storedFromTree(op *neutral.Operation, t *tree) (*neutral.StoredFile, []neutral.Loss, error) {
	f := &neutral.StoredFile{Name: t.get("Name").str(), Labels: callerLabels(t.get("Labels").strMap())}
	data, err := base64.StdEncoding.DecodeString(t.get("Data").str())
	if err != nil {
		t.get("Data").fail(fault.Invalid, "invalid JSON: Data is not in base64")
	}
	losses, err := settle(t, storedDisposals, string(op.Action))
	if err != nil {
		return nil, nil, err
	}
	config := op.Action.Kind() == neutral.KindConfig
	limit := storedLimit
	if config {
		limit *= 2
	}
	update := op.Action == neutral.SecretUpdate || op.Action == neutral.ConfigUpdate
	switch {
	case !storedName.MatchString(f.Name):
		return nil, nil, &fault.Error{Kind: fault.Invalid, Field: "Name", Message: "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and " +
			"the start and end character must be [a-zA-Z0-9]"}
	case len(data) == 0 && !update || len(data) > limit:
		return nil, nil, &fault.Error{Kind: fault.Invalid, Field: "Data", Message: "data must be larger than 0 and at most " +
			map[bool]string{true: "1000", false: "500"}[config] + " KiB"}
	}
	if len(data) > 0 {
		f.Data = data
	}
	return f, losses, nil
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
