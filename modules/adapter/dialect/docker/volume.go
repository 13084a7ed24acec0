package docker

import (
	"github.com/moby/moby/api/types/volume"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func volumeObject(v volume.Volume) neutral.Object {
	object := nameOf("", v.Name, v.Labels).object(neutral.KindVolume, v.Labels)
	source := volumeSource(v.Driver, v.Options)
	object.Volume = &source
	return object
}
