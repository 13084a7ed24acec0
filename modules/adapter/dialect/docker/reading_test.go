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
		got, err := seenEvent([]byte(element), see, func(string) (bool, error) { return visible, nil })
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

// What a network tells of its containers and services is told to those who may see them.
func TestReadingOfParts(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.containers = []object{running("c1", "web", "bridge", map[string]string{"tier": "front"}, nil), running("c2", "db", "bridge", nil, nil)}
	e.services = []object{{"ID": "s1", "Spec": object{"Name": "shop", "Labels": map[string]string{"tier": "front"}, "TaskTemplate": object{}}},
		{"ID": "s2", "Spec": object{"Name": "vault", "TaskTemplate": object{}}}}
	e.start()
	c := e.connect()
	see := func(o neutral.Object) bool { return o.Labels["tier"] == "front" }
	for _, tt := range []struct{ key, member, want string }{
		{"Containers", `{"c1":{"Name":"web"},"c2":{"Name":"db"},"ep-gone":{"Name":"old"}}`, `{"c1":{"Name":"web"}}`},
		{"Containers", `null`, `null`},
		{"Services", `{"shop":{"VIP":"10.0.0.1"},"vault":{"VIP":"10.0.0.2"},"gone":{}}`, `{"shop":{"VIP":"10.0.0.1"}}`},
		{"Services", `{}`, `{}`},
		{"Labels", `{"a":"b"}`, `{"a":"b"}`},
	} {
		if got, err := c.onNetwork(t.Context(), tt.key, []byte(tt.member), see); err != nil || string(got) != tt.want {
			t.Errorf("%s %s: %s, %v", tt.key, tt.member, got, err)
		}
	}
	if _, err := c.onNetwork(t.Context(), "Containers", []byte(`[]`), see); err == nil {
		t.Error("containers that are none pass")
	}
	listed := func(o neutral.Object) bool { return o.Kind == neutral.KindNetwork || see(o) }
	got, err := (&listing{cluster: c, ctx: t.Context(), kind: neutral.KindNetwork}).see([]byte(`{"Name":"bridge","Containers":{"c1":{},"c2":{}}}`), listed)
	if err != nil || string(got) != `{"Containers":{"c1":{}},"Name":"bridge"}` {
		t.Errorf("%s, %v", got, err)
	}
	usage := `{"TotalCount":2,"Items":[{"Id":"c1","Names":["/web"],"Labels":{"tier":"front"}},{"Id":"c2","Names":["/db"]}]}`
	if got, err := c.usedPart(t.Context(), "ContainerUsage", []byte(usage), see); err != nil || string(got) != `{"Items":[{"Id":"c1","Names":["/web"],"Labels":{"tier":"front"}}],"TotalCount":2}` {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := c.usedPart(t.Context(), "BuildCacheUsage", []byte(`{"Items":[{"ID":"x","InUse":false,"Description":"RUN secret"}]}`), see); err != nil || string(got) != `{"Items":[]}` {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := c.usedPart(t.Context(), "LayersSize", []byte(`1`), see); err != nil || string(got) != `1` {
		t.Errorf("%s, %v", got, err)
	}
	for event, visible := range map[string]bool{
		`{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"name":"bridge","tier":"front","container":"c1"}}}`: true,
		`{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"name":"bridge","tier":"front","container":"c2"}}}`: false,
		`{"Type":"volume","Action":"mount","Actor":{"ID":"v","Attributes":{"tier":"front","container":"gone"}}}`:                  false,
		`{"Type":"network","Action":"create","Actor":{"ID":"n","Attributes":{"name":"bridge","tier":"front"}}}`:                   true,
	} {
		got, err := seenEvent([]byte(event), see, func(id string) (bool, error) { return c.seenByID(t.Context(), id, see) })
		if err != nil || (got != nil) != visible {
			t.Errorf("%s: %s, %v", event, got, err)
		}
	}
}
