package extproc

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	zone := NewZone("East", "isthmus.internal")
	for authority, want := range map[string]modules.Class{
		"api.east.isthmus.internal":                    modules.ContainerOperation,
		"API.East.isthmus.internal:443":                modules.ContainerOperation,
		"api.east.isthmus.internal.":                   modules.ContainerOperation,
		"web.shop.svc.east.isthmus.internal":           modules.ServiceQuery,
		"web.shop.svc.east.isthmus.internal:8080":      modules.ServiceQuery,
		"db-0.shop.ctr.east.isthmus.internal:5432":     modules.ContainerAccess,
		"main.db-0.shop.ctr.east.isthmus.internal:1":   modules.ContainerAccess,
		"api.west.isthmus.internal":                    modules.Unknown,
		"x.api.east.isthmus.internal":                  modules.Unknown,
		"svc.east.isthmus.internal":                    modules.Unknown,
		"ctr.east.isthmus.internal":                    modules.ContainerAccess,
		"ctr.west.isthmus.internal":                    modules.Unknown,
		".svc.east.isthmus.internal":                   modules.Unknown,
		"a..svc.east.isthmus.internal":                 modules.Unknown,
		"east.isthmus.internal":                        modules.Unknown,
		"apieast.isthmus.internal":                     modules.Unknown,
		"":                                             modules.Unknown,
		"api.east.isthmus.internal:80:80":              modules.Unknown,
		"[::1]:80":                                     modules.Unknown,
		"web.shop.svc.east.isthmus.internal.evil.test": modules.Unknown,
	} {
		if got := zone.Classify(authority); got != want {
			t.Errorf("Classify(%q) = %s, want %s", authority, got, want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add("api.east.isthmus.internal:443")
	f.Add("a.b.ctr.east.isthmus.internal:5432")
	zone := NewZone("east", "isthmus.internal")
	f.Fuzz(func(t *testing.T, authority string) {
		class := zone.Classify(authority)
		if class == modules.Unknown {
			return
		}
		// Whatever is of a class is under the zone, so that no name of another cluster is ever decided here.
		if !strings.Contains(strings.ToLower(authority), ".east.isthmus.internal") {
			t.Errorf("%q is %s and not of this zone", authority, class)
		}
	})
}
