package docker

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What an engine answers as a sequence, as a list and as files is told by the route.
func TestReading(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path   string
		read, sequence bool
		list           string // "-" for none
		live           string
	}{
		{"GET", "/v1.44/containers/json", true, false, "", ""},
		{"GET", "/v1.44/volumes", true, false, "Volumes", ""},
		{"GET", "/v1.44/containers/web/json", true, false, "-", ""},
		{"GET", "/v1.44/events", true, true, "-", ""},
		{"POST", "/v1.44/images/create?fromImage=a", true, true, "-", ""},
		{"POST", "/v1.44/images/create?fromSrc=-", false, false, "-", ""},
		{"POST", "/v1.44/images/a/b/push", true, true, "-", ""},
		{"GET", "/v1.44/images/a/get", false, false, "-", ""},
		{"POST", "/v1.44/plugins/pull", true, true, "-", ""},
		{"POST", "/v1.44/plugins/create", false, false, "-", ""},
		{"POST", "/v1.44/services/a/update?version=1", true, false, "-", "/v1.44/services/a"},
		{"POST", "/v1.44/containers/a/update", true, false, "-", ""},
		{"POST", "/session", false, false, "-", ""},
	} {
		head := dialect.Request{Method: c.method, Path: c.path, Header: http.Header{}}
		op, err := Dialect{}.Classify(head)
		if err != nil {
			t.Fatal(err)
		}
		reading, err := (&Cluster{}).Reading(op, head)
		if err != nil || (reading != nil) != c.read {
			t.Errorf("%s: %+v, %v", c.path, reading, err)
			continue
		}
		if reading != nil && (reading.Sequence != c.sequence || reading.Live != c.live || reading.Lists[c.list] != (c.list != "-")) {
			t.Errorf("%s: %+v", c.path, reading)
		}
	}
}

// FuzzFilter gives filters what an engine would hardly say.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{`{"Id":"1","Names":["/a","/b/a"]}`, `{"Type":"container","Actor":{"Attributes":{"name":"a"}}}`, `{"ServiceID":"s"}`, `null`, `[]`, `{"Spec":null,"Names":null}`} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, element string, visible bool) {
		if !json.Valid([]byte(element)) {
			return
		}
		asked := false
		see := func(neutral.Object) bool { asked = true; return visible }
		got, err := seenEvent([]byte(element), see)
		if err == nil && (got != nil) != visible || err == nil && !asked {
			t.Fatalf("%s, %s", element, got)
		}
		for _, kind := range []neutral.Kind{neutral.KindImage, neutral.KindTask, neutral.KindNode, neutral.KindWorkload, neutral.KindVolume} {
			asked = false
			l := &listing{kind: kind, services: map[string]swarm.Annotations{}}
			got, err := l.see([]byte(element), see)
			if err == nil && (!asked || (got != nil) != visible) {
				t.Fatalf("%s: %s, %s", kind, element, got)
			}
		}
	})
}
