package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var update = flag.Bool("update", false, "rewrite the words and reasons in the translation page")

const translationPage = "../../docs/translation.md"

// kept are the actions that the bridge answers from memory, without a plan of the cluster.
var kept = map[neutral.Action]bool{neutral.ExecInspect: true, neutral.ExecResize: true, neutral.ContainerResize: true}

// bodies are what the actions whose request is in a body are asked with.
var bodies = map[neutral.Action]string{
	neutral.ContainerCreate: `{"Image":"busybox"}`,
	neutral.ExecCreate:      `{"Cmd":["true"]}`,
	neutral.WorkloadCreate:  `{"Name":"shop","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`,
	neutral.WorkloadUpdate:  `{"Name":"shop","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`,
	neutral.ContainerUpdate: `{"Memory":67108864}`,
	neutral.VolumeCreate:    `{"Name":"data"}`,
	neutral.NetworkCreate:   `{"Name":"front"}`,
	neutral.SecretCreate:    `{"Name":"key","Data":"aGVsbG8="}`,
	neutral.ConfigCreate:    `{"Name":"key","Data":"aGVsbG8="}`,
	neutral.SecretUpdate:    `{"Name":"x","Labels":{"team":"a"}}`,
	neutral.ConfigUpdate:    `{"Name":"x","Labels":{"team":"a"},"Data":"aGVsbG8="}`,
	neutral.NetworkJoin:     `{"Container":"web"}`,
	neutral.NetworkLeave:    `{"Container":"web"}`,
}

// echo is an API server that has nothing but the network frontend, a secret and a config x, and takes everything: what is created comes back as it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if (r.Method == http.MethodPost || r.Method == http.MethodPatch) && err == nil {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/networkpolicies") {
		_, _ = io.WriteString(w, `{"kind":"NetworkPolicyList","apiVersion":"networking.k8s.io/v1","items":[{"metadata":{"name":"net-frontend",`+
			`"namespace":"default"}}]}`)
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/secrets"):
		_, _ = io.WriteString(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","items":[{"metadata":{"name":"x"}}]}`)
		return
	case strings.HasSuffix(r.URL.Path, "/configmaps"):
		_, _ = io.WriteString(w, `{"kind":"ConfigMapList","apiVersion":"v1","items":[{"metadata":{"name":"x"}}]}`)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
}

// east is the Kubernetes half against echo.
func east(t *testing.T) dialect.Cluster {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\n", server.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster, err := kubernetes.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "east", Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// everything is a policy that allows everything.
type everything struct{}

func (everything) Judge(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement {
	return modules.Judgement{Allowed: true}
}

func (everything) Foresee(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement {
	return modules.Judgement{Allowed: true}
}

func (everything) MayKnow(modules.Subject, neutral.Object) bool { return true }

// decide asks the adapter about the head of a docker request.
func decide(ctx context.Context, cluster dialect.Cluster, head dialect.Request) error {
	module := adapter.New(adapter.Config{Cluster: "east", Orchestrator: neutral.Kubernetes, Namespace: "default",
		Dialects: adapter.Dialects, Target: cluster, APIVersion: func() string { return "1.34" },
		Policy: func() modules.Policy { return everything{} }, Log: slog.New(slog.DiscardHandler)})
	_, err := module.Decide(ctx, &modules.Request{Class: modules.ContainerOperation, Method: head.Method, Path: head.Path,
		Header: head.Header, Peer: modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true}})
	return err
}

// plan takes a docker request through both halves as the adapter does, up to the plan.
func plan(cluster dialect.Cluster, request dialect.Request) (neutral.Operation, dialect.Plan, []neutral.Loss, error) {
	op, err := docker.Dialect{}.Classify(request)
	if err != nil {
		return op, dialect.Plan{}, nil, err
	}
	decoded, losses, err := docker.Dialect{}.Decode(op, request)
	if err != nil {
		return op, dialect.Plan{}, nil, err
	}
	if _, local := (docker.Dialect{}).Local(op, request, dialect.Target{}); local || kept[op.Action] {
		return op, dialect.Plan{}, nil, nil
	}
	made, err := cluster.Plan(decoded, func(neutral.Object) (dialect.Terms, error) { return dialect.Terms{}, nil })
	return op, made, losses, err
}

// create carries a create out and gives what was lost.
func create(ctx context.Context, cluster dialect.Cluster, path, body string) ([]neutral.Loss, error) {
	_, made, losses, err := plan(cluster, post(path, body))
	if err != nil {
		return nil, err
	}
	var result neutral.Result
	if made.Call != nil {
		result, err = made.Call.Decode(dialect.Response{Status: http.StatusCreated, Body: made.Call.Request.Body})
	} else {
		result, err = made.Program(ctx)
	}
	return append(losses, result.Losses...), err
}

func post(path, body string) dialect.Request {
	return dialect.Request{Method: http.MethodPost, Path: "/v" + docker.APIVersion + path,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)}
}

// said is a refusal without the sentence that all refusals of fields begin with.
func said(f *fault.Error, field string) string {
	const shared = "cannot be carried to another orchestrator without changing safety or data: "
	text := strings.TrimPrefix(strings.TrimPrefix(f.Message, shared), "not supported: ")
	if name, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(name, field) {
		text = rest
	}
	return strings.TrimPrefix(text, field+" is refused: ")
}

// operation tells what becomes of a row of the operations: the action, the word, and the reason of a refusal.
func operation(t *testing.T, cluster dialect.Cluster, request, was string) (action neutral.Action, word, reason string) {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	head := dialect.Request{Method: method, Path: "/v" + docker.APIVersion + path, Header: http.Header{}}
	op, err := docker.Dialect{}.Classify(head)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	if err = decide(t.Context(), cluster, head); err == nil {
		head.Body = []byte(bodies[op.Action])
		_, _, _, err = plan(cluster, head)
	}
	var f *fault.Error
	switch {
	case errors.As(err, &f) && f.Kind == fault.Unsupported:
		return op.Action, "refused", said(f, "")
	case err != nil && !fault.Is(err, fault.NotFound): // a thing that is not there is no refusal
		t.Fatalf("%s: %v", request, err)
	case was == "approximated":
		return op.Action, was, ""
	}
	return op.Action, "supported", ""
}

// field tells what becomes of a field with a value, in a create of a container or of a service.
func field(t *testing.T, cluster dialect.Cluster, name, value string, service bool) (word, reason string) {
	t.Helper()
	path, base := "/containers/create", bodies[neutral.ContainerCreate]
	if service {
		path, base = "/services/create", bodies[neutral.WorkloadCreate]
	}
	var body map[string]any
	var set any
	if err := errors.Join(json.Unmarshal([]byte(base), &body), json.Unmarshal([]byte(value), &set)); err != nil {
		t.Fatalf("%s: %s: %v", name, value, err)
	}
	at, parts := body, strings.Split(name, ".")
	for _, part := range parts[:len(parts)-1] {
		if _, ok := at[part].(map[string]any); !ok {
			at[part] = map[string]any{}
		}
		at, _ = at[part].(map[string]any)
	}
	at[parts[len(parts)-1]] = set
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	losses, err := create(ctx, cluster, path, string(raw))
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Unsupported {
		return "refused", said(f, name)
	}
	if err != nil {
		t.Errorf("%s: %s: %v", name, value, err)
	}
	word = "kept"
	var told []string
	for _, loss := range losses {
		if loss.Change != "dropped" {
			word = "changed"
		} else if word == "kept" {
			word = "dropped"
		}
		told = append(told, strings.TrimPrefix(loss.String(), loss.Field+": "))
	}
	return word, strings.TrimPrefix(strings.Join(told, "; "), "dropped ")
}

// TestTranslationPage runs every example of the translation page, and wants the page to hold every action and every
// field that docker has.
func TestTranslationPage(t *testing.T) {
	t.Parallel()
	cluster := east(t)
	page, err := os.ReadFile(translationPage)
	if err != nil {
		t.Fatal(err)
	}
	lines, section := strings.Split(string(page), "\n"), ""
	named := map[string]bool{}
	for i, line := range lines {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		var want []string
		switch code := func(i int) string { return strings.Trim(cells[i], "`") }; {
		case len(cells) == 5 && section == "Operations" && strings.HasPrefix(cells[1], "`"):
			action, word, reason := operation(t, cluster, code(1), cells[3])
			want = []string{cells[0], cells[1], "`" + string(action) + "`", word, reason}
			named[string(action)] = true
		case len(cells) == 4 && strings.HasPrefix(section, "Fields of") && strings.HasPrefix(cells[1], "`"):
			service := strings.Contains(section, "service")
			word, reason := field(t, cluster, code(0), code(1), service)
			want = []string{cells[0], cells[1], word, reason}
			named[fmt.Sprint(service, code(0))] = true
		default:
			continue
		}
		if last := len(want) - 1; want[last] == "" {
			want[last] = cells[last] // the page's own words
		}
		if made := "| " + strings.Join(want, " | ") + " |"; made != line {
			if !*update {
				t.Errorf("%s:%d says\n%s\nthe code says\n%s", translationPage, i+1, line, made)
			}
			lines[i] = made
		}
	}
	for _, action := range neutral.Actions() {
		if !named[string(action)] {
			t.Errorf("no operation of the page is %s", action)
		}
	}
	fieldsNamed(t, named)
	if *update {
		if err := os.WriteFile(translationPage, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// fieldsNamed wants the page to name every field of the API's own types, or a part of it.
func fieldsNamed(t *testing.T, named map[string]bool) {
	t.Helper()
	for _, at := range []struct {
		service bool
		prefix  string
		kind    reflect.Type
	}{
		{false, "", reflect.TypeFor[container.Config]()},
		{false, "HostConfig.", reflect.TypeFor[container.HostConfig]()},
		{false, "NetworkingConfig.", reflect.TypeFor[network.NetworkingConfig]()},
		{true, "", reflect.TypeFor[swarm.ServiceSpec]()},
		{true, "TaskTemplate.", reflect.TypeFor[swarm.TaskSpec]()},
		{true, "TaskTemplate.ContainerSpec.", reflect.TypeFor[swarm.ContainerSpec]()},
	} {
		for _, f := range reflect.VisibleFields(at.kind) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				name = f.Name
			}
			if f.Anonymous || name == "-" {
				continue
			}
			found := false
			for n := range named {
				whole := fmt.Sprint(at.service, at.prefix, name)
				found = found || n == whole || strings.HasPrefix(n, whole+".")
			}
			if !found {
				t.Errorf("no row of the page is about %s%s", at.prefix, name)
			}
		}
	}
}
