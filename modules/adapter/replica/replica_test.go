package replica

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// fakeDialect copies objects that are at /KIND/NAME, and need what their member "needs" names.
type fakeDialect struct{ dialect.Replicator }

func (fakeDialect) Replicate(ctx context.Context, read dialect.Read, from dialect.ObjectRef, to dialect.Place) (dialect.Draft, error) {
	answer, err := read(ctx, dialect.Request{Method: http.MethodGet, Path: "/" + from.Kind + "/" + from.Name})
	if err != nil {
		return dialect.Draft{}, err
	}
	body, err := Parse(answer.Body)
	if err != nil {
		return dialect.Draft{}, err
	}
	path := "/" + from.Kind + "/" + to.Name
	d := dialect.Draft{
		Object: dialect.ObjectRef{Cluster: to.Cluster, Namespace: to.Namespace, Kind: from.Kind, Name: to.Name}, Body: body,
		Create: dialect.Request{Method: http.MethodPost, Path: path}, Get: dialect.Request{Method: http.MethodGet, Path: path},
		Remove: dialect.Request{Method: http.MethodDelete, Path: path},
	}
	if from.Kind == "secret" {
		d.Left = []dialect.Left{{Field: "data", Reason: "nobody tells it", Needed: true}}
	}
	for _, need := range List(body, "needs") {
		kind, name, _ := strings.Cut(need.(string), "/")
		d.Needs = append(d.Needs, dialect.Need{
			ObjectRef: dialect.ObjectRef{Cluster: from.Cluster, Namespace: from.Namespace, Kind: kind, Name: name},
			Bind: func(body map[string]any, found []byte) error {
				body["bound"] = string(found)
				return nil
			},
			Drop: func(body map[string]any) { body["dropped"] = name },
		})
	}
	return d, nil
}

// fakeAPI keeps objects by their paths; refuses says which calls fail.
type fakeAPI struct {
	objects map[string]string
	calls   []string
	refuses string
}

func (a *fakeAPI) do(_ context.Context, req dialect.Request) (dialect.Response, error) {
	call := req.Method + " " + req.Path
	if req.Method != http.MethodGet {
		a.calls = append(a.calls, call)
	}
	if call == a.refuses {
		return dialect.Response{Status: http.StatusForbidden, Body: []byte(`{"message":"no permission: not here"}`)}, nil
	}
	switch req.Method {
	case http.MethodPost:
		a.objects[req.Path] = string(req.Body)
		return dialect.Response{Status: http.StatusCreated, Header: http.Header{"Warning": {`299 - "a loss"`}}}, nil
	case http.MethodDelete:
		delete(a.objects, req.Path)
		return dialect.Response{Status: http.StatusOK}, nil
	}
	object, ok := a.objects[req.Path]
	if !ok {
		return dialect.Response{Status: http.StatusNotFound, Body: []byte(`{"message":"not found"}`)}, nil
	}
	return dialect.Response{Status: http.StatusOK, Body: []byte(object)}, nil
}

func TestCopy(t *testing.T) {
	t.Parallel()
	const web, withSecret = `{"a":1,"needs":["config/page"]}`, `{"needs":["secret/key"]}`
	for _, c := range []struct {
		name, source string
		there        map[string]string
		refuses      string
		options      Options
		calls        []string
		body         map[string]any // of the copy, afterwards
		fails        string
	}{
		{name: "with what it needs", source: web, calls: []string{"POST /config/page", "POST /web/copy"}, body: map[string]any{"bound": `{"p":1}`}},
		{name: "what it needs is there", source: web, there: map[string]string{"/config/page": `{"other":1}`}, calls: []string{"POST /web/copy"}, body: map[string]any{"bound": `{"other":1}`}},
		{name: "a dry run", source: web, options: Options{DryRun: true}},
		{name: "it is there", source: web, there: map[string]string{"/web/copy": "{}"}, fails: "is there already"},
		{name: "taken back", source: web, refuses: "POST /web/copy", calls: []string{"POST /config/page", "POST /web/copy", "DELETE /config/page"}, fails: "no permission: not here"},
		{name: "incomplete", source: withSecret, fails: "--incomplete makes it all the same"},
		{name: "incomplete by wish", source: withSecret, options: Options{Incomplete: true}, calls: []string{"POST /web/copy"}, body: map[string]any{"dropped": "key"}},
		{name: "the secret is there", source: withSecret, there: map[string]string{"/secret/key": "{}"}, calls: []string{"POST /web/copy"}, body: map[string]any{"bound": "{}"}},
		{name: "the secret may not be read", source: `{"needs":["secret/none"]}`, fails: "not found"},
		{name: "what may not be read at the target may be made", source: web, refuses: "GET /web/copy", calls: []string{"POST /config/page", "POST /web/copy"}, body: map[string]any{"bound": `{"p":1}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from := &fakeAPI{objects: map[string]string{"/web/web": c.source, "/config/page": `{"p":1}`, "/secret/key": `{}`}}
			to := &fakeAPI{objects: map[string]string{}, refuses: c.refuses}
			for path, object := range c.there {
				to.objects[path] = object
			}
			planned := false
			report, err := Copy(t.Context(), fakeDialect{}, Side{Cluster: "west", Do: from.do}, Side{Cluster: "east", Do: to.do},
				dialect.ObjectRef{Cluster: "west", Namespace: "shop", Kind: "web", Name: "web"}, dialect.Place{Namespace: "shop", Name: "copy"}, c.options,
				Progress{Step: func(string) {}, Plan: func(Report) { planned = len(to.calls) == 0 }})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("failed with %v and not with %q", err, c.fails)
				}
			} else if err != nil || !planned {
				t.Fatalf("failed with %v, the plan came first: %v", err, planned)
			}
			if !slices.Equal(to.calls, c.calls) || len(from.calls) > 0 {
				t.Errorf("calls are %v (of the source %v) and not %v", to.calls, from.calls, c.calls)
			}
			if c.fails == "" && !c.options.DryRun {
				var body map[string]any
				if err := json.Unmarshal([]byte(to.objects["/web/copy"]), &body); err != nil {
					t.Fatal(err)
				}
				for key, value := range c.body {
					if body[key] != value {
						t.Errorf("the copy has %s %v and not %v", key, body[key], value)
					}
				}
				if !slices.Contains(report.Losses, "a loss") {
					t.Errorf("the target's warning is not told: %v", report)
				}
			}
		})
	}
}

// TestCopyItself makes nothing where the copy would be its source.
func TestCopyItself(t *testing.T) {
	t.Parallel()
	api := &fakeAPI{objects: map[string]string{"/web/web": "{}"}}
	side := Side{Cluster: "west", Do: api.do}
	_, err := Copy(t.Context(), fakeDialect{}, side, side, dialect.ObjectRef{Cluster: "west", Namespace: "shop", Kind: "web", Name: "web"},
		dialect.Place{Namespace: "shop", Name: "web"}, Options{}, Progress{Step: func(string) {}, Plan: func(Report) {}})
	if !fault.Is(err, fault.Invalid) || len(api.calls) > 0 {
		t.Errorf("failed with %v after %v", err, api.calls)
	}
}

func TestIncompleteError(t *testing.T) {
	t.Parallel()
	var err error = &IncompleteError{[]Left{{Object: "x", Left: dialect.Left{Field: "f", Reason: "r"}}}}
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || !strings.Contains(err.Error(), "x: f: r") {
		t.Errorf("it reads %v", err)
	}
}

// TestFill fills what is empty, key by key, and merges lists by what their elements are known by.
func TestFill(t *testing.T) {
	t.Parallel()
	key := func(_ string, element any) string {
		object, _ := element.(map[string]any)
		name, _ := object["name"].(string)
		return name
	}
	for _, c := range []struct{ written, drafted, want string }{
		{`{}`, `{"a":1,"b":{"c":[1]}}`, `{"a":1,"b":{"c":[1]}}`},
		{`{"a":2,"b":{"d":1}}`, `{"a":1,"b":{"c":2}}`, `{"a":2,"b":{"c":2,"d":1}}`},
		{`{"a":null,"b":"","c":[]}`, `{"a":{},"b":"x","c":[1]}`, `{"a":{},"b":"x","c":[1]}`},
		{`{"l":[1]}`, `{"l":[2,3]}`, `{"l":[1]}`},
		{`{"l":[{"name":"x","v":1}]}`, `{"l":[{"name":"y"},{"name":"x","v":2,"w":3}]}`, `{"l":[{"name":"x","v":1,"w":3},{"name":"y"}]}`},
		{`{"a":false}`, `{"a":true}`, `{"a":false}`},
	} {
		written, err := Parse([]byte(c.written))
		if err != nil {
			t.Fatal(err)
		}
		drafted, err := Parse([]byte(c.drafted))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(Merge{Key: key}.Fill("", any(written), any(drafted)))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want {
			t.Errorf("%s filled from %s is %s and not %s", c.written, c.drafted, got, c.want)
		}
	}
}

// TestHiddenCommand takes out a whole command of which a word is hidden, and of a set the one element.
func TestHiddenCommand(t *testing.T) {
	t.Parallel()
	tree := map[string]any{
		"Cmd": []any{"run", "--password", "hidden-by-isthmus", "--force"}, "Entrypoint": []any{"sh", "-c"},
		"Env":         []any{"A=1", "KEY=hidden-by-isthmus"},
		"Healthcheck": map[string]any{"Test": []any{"CMD", "hidden-by-isthmus"}},
		"spec":        map[string]any{"containers": []any{map[string]any{"name": "web", "args": []any{"a", "hidden-by-isthmus"}}}},
	}
	left := Hidden(tree, "east")
	var fields []string
	for _, l := range left {
		fields = append(fields, l.Field)
	}
	if want := []string{"Cmd", "Env[KEY]", "Healthcheck.Test", "spec.containers[web].args"}; !slices.Equal(fields, want) {
		t.Errorf("told are %v, and not %v", fields, want)
	}
	want := map[string]any{
		"Entrypoint": []any{"sh", "-c"}, "Env": []any{"A=1"}, "Healthcheck": map[string]any{},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "web"}}},
	}
	if !reflect.DeepEqual(tree, want) {
		t.Errorf("what is left is %v", tree)
	}
}
