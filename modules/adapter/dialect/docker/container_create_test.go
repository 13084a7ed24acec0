package docker

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeMaker is an engine that makes what it is asked for, and remembers what it was asked. fail says what it refuses.
type fakeMaker struct {
	mu     sync.Mutex
	asked  []string
	bodies map[string]string
	pulled bool
	fail   string // the beginning of a request
}

var versionPrefix = regexp.MustCompile(`^/v[0-9.]+`)

func (f *fakeMaker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	request := r.Method + " " + versionPrefix.ReplaceAllString(r.URL.Path, "")
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		f.asked = append(f.asked, request)
		f.bodies[request] = string(body)
	}
	answer := func(status int, text string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
	switch {
	case f.fail != "" && strings.HasPrefix(request, f.fail):
		answer(http.StatusInternalServerError, `{"message":"10.9.8.7 is out of order"}`)
	case request == "GET /info":
		answer(http.StatusOK, `{"Name":"node-1","Swarm":{"LocalNodeState":"inactive"}}`)
	case request == "GET /volumes":
		answer(http.StatusOK, `{"Volumes":[]}`)
	case request == "GET /networks":
		answer(http.StatusOK, `[{"Id":"n0","Name":"shop_old","Driver":"bridge","Labels":{"com.docker.stack.namespace":"shop"}}]`)
	case request == "POST /images/create":
		f.pulled = true
		answer(http.StatusOK, `{"status":"Pulled"}`)
	case request == "POST /containers/create" && !f.pulled:
		answer(http.StatusNotFound, `{"message":"No such image: web:1"}`)
	case request == "POST /networks/create" || request == "POST /containers/create":
		answer(http.StatusCreated, `{"Id":"`+map[bool]string{true: "n1", false: "c1"}[request == "POST /networks/create"]+`"}`)
	case request == "GET /containers/c1/json":
		answer(http.StatusOK, `{"Id":"c1","Name":"/shop_web","State":{"Status":"created"},"Config":{"Image":"web:1"},"HostConfig":{},"NetworkSettings":{}}`)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(http.StatusOK, `{}`)
	}
}

func makeWeb(t *testing.T, fail string) (*fakeMaker, neutral.Result, error) {
	t.Helper()
	f := &fakeMaker{bodies: map[string]string{}, fail: fail}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c, err := Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "west", Endpoint: "tcp://" + strings.TrimPrefix(server.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	result, _, err := ask(t, c.(*Cluster), neutral.Operation{Action: neutral.ContainerCreate, Object: neutral.Object{Namespace: "shop"}, Container: &neutral.Container{
		Name: "web", Image: "web:1", Networks: []neutral.NetworkAttachment{{Name: "default", Aliases: []string{"www"}}, {Name: "old"}}}},
		func(neutral.Object) bool { return true })
	return f, result, err
}

// An image that is missing is pulled, a network that is missing made, and older engines are given networks one by one.
func TestContainerCreate(t *testing.T) {
	t.Parallel()
	f, result, err := makeWeb(t, "")
	if err != nil || result.ID != "c1" || result.Container.Name != "shop_web" { // the answer has no label
		t.Fatalf("%+v, %v", result, err)
	}
	want := []string{"POST /networks/create", "POST /containers/create", "POST /images/create", "POST /containers/create", "POST /networks/n0/connect"}
	if diff := cmp.Diff(want, f.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	var made struct {
		Name, Driver string
		Labels       map[string]string
	}
	if err := json.Unmarshal([]byte(f.bodies["POST /networks/create"]), &made); err != nil || made.Name != "shop_default" || made.Driver != "bridge" ||
		made.Labels[labelStack] != "shop" || made.Labels[labelImplicit] == "" {
		t.Errorf("network %+v, %v", made, err)
	}
	var created struct {
		HostConfig       struct{ NetworkMode string }
		NetworkingConfig struct {
			EndpointsConfig map[string]struct{ Aliases []string }
		}
	}
	err = json.Unmarshal([]byte(f.bodies["POST /containers/create"]), &created)
	if on := created.NetworkingConfig.EndpointsConfig; err != nil || created.HostConfig.NetworkMode != "shop_default" || len(on) != 1 ||
		!slices.Equal(on["shop_default"].Aliases, []string{"www", "web"}) {
		t.Errorf("container %+v, %v", created, err)
	}
}

// What was made before a step failed goes again, and no address is told.
func TestContainerCreateUndoes(t *testing.T) {
	t.Parallel()
	for fail, want := range map[string][]string{
		"POST /networks/create":     nil,
		"POST /images/create":       {"DELETE /networks/n1"},
		"POST /containers/create":   {"DELETE /networks/n1"},
		"POST /networks/n0/connect": {"DELETE /containers/c1", "DELETE /networks/n1"},
	} {
		f, _, err := makeWeb(t, fail)
		said := fault.Of(err)
		if err == nil || strings.Contains(said.Message, "10.9.8.7") || !strings.Contains(said.Message, "out of order") {
			t.Errorf("%s: %v", fail, said)
		}
		undone := slices.DeleteFunc(f.asked, func(request string) bool { return !strings.HasPrefix(request, "DELETE") })
		if !slices.Equal(undone, want) {
			t.Errorf("%s: undone %v, want %v", fail, undone, want)
		}
	}
}
