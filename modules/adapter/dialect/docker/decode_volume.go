package docker

import (
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// decodeVolumeCreate reads https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Volume/operation/VolumeCreate.
// What its options may say, the target's half knows.
func decodeVolumeCreate(op *neutral.Operation, t *tree) ([]neutral.Loss, error) {
	if cluster := t.get("ClusterVolumeSpec"); cluster != nil {
		return nil, fault.New(fault.Unsupported, "%s", notSupported+"cluster volumes belong to a swarm")
	}
	v := &neutral.Volume{
		Name:    t.get("Name").str(),
		Driver:  t.get("Driver").str(),
		Options: t.get("DriverOpts").strMap(),
		Labels:  callerLabels(t.get("Labels").strMap()),
	}
	losses, err := settle(t, nil, string(op.Action))
	if err != nil {
		return nil, err
	}
	if v.Name != "" && !validName(v.Name) {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "name", Message: "create " + shorten(v.Name) + ": \"" + shorten(v.Name) +
			"\" includes invalid characters for a local volume name, only \"" + nameCharacters + "\" are allowed. If you intended to " +
			"pass a host directory, use absolute path"}
	}
	v.Anonymous = v.Name == ""
	op.Volume, op.Ref = v, v.Name
	op.Object.Name, op.Object.Labels = v.Name, v.Labels
	return losses, nil
}

// volumes reads the filter of a list of volumes. What the target does not filter by, the answer is filtered by.
func (q *query) volumes() neutral.Filter {
	set := q.filters(neutral.VolumeList)
	filter := neutral.Filter{}
	switch q.one(set, "dangling") {
	case "":
	case "true", "1":
		yes := true
		filter.Dangling = &yes
	case "false", "0":
		no := false
		filter.Dangling = &no
	default:
		q.fail("filters", "invalid filter 'dangling=%s'", shorten(set["dangling"][0]))
	}
	return filter
}

// prunedVolumes reads which volumes a prune takes. Since API 1.42 that is those alone that nobody named.
func (q *query) prunedVolumes() neutral.Filter {
	set := q.filters(neutral.VolumePrune)
	filter := neutral.Filter{Labels: set["label"], Anonymous: !q.version.less(apiVersion{1, 42})}
	switch q.one(set, "all") {
	case "", "0", "false":
	case "1", "true":
		filter.Anonymous = false
	default:
		q.fail("filters", "invalid filter 'all=%s'", shorten(set["all"][0]))
	}
	return filter
}
