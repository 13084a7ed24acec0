package docker

import (
	"slices"
	"testing"
)

func TestOverlaySource(t *testing.T) {
	t.Parallel()
	for options, paths := range map[string][]string{
		"lowerdir=/srv/a:/srv/../etc,upperdir=/u,workdir=/w,ro": {"/srv/a", "/etc", "/u", "/w"},
		"lowerdir=/srv/a,lowerdir+=/etc":                        nil,
		"lowerdir=/srv/a,datadir+=/etc":                         nil,
		"lowerdir=/srv/a,newer=/etc":                            nil,
		`lowerdir=/srv/a\:/etc`:                                 nil,
		"lowerdir+=/etc":                                        nil,
		"":                                                      nil,
	} {
		for _, device := range []string{"overlay", "/srv/a"} {
			got := volumeSource("local", map[string]string{"type": "overlay", "device": device, "o": options})
			if got.Unseen != (paths == nil) || !slices.Equal(got.HostPaths, paths) {
				t.Errorf("%s of %s: %+v", options, device, got)
			}
		}
	}
}
