package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// echo is an API server that has nothing and takes everything: what is created comes back as it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	body, err := io.ReadAll(r.Body)
	if r.Method == http.MethodPost && err == nil {
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
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
	t.Cleanup(func() { _ = cluster.Close() })
	return cluster
}

// translate takes a docker request through both halves as the adapter does, and gives what was lost.
func translate(ctx context.Context, cluster dialect.Cluster, request dialect.Request) ([]neutral.Loss, error) {
	op, err := docker.Dialect{}.Classify(request)
	if err != nil {
		return nil, err
	}
	op, losses, err := docker.Dialect{}.Decode(op, request)
	if err != nil {
		return nil, err
	}
	plan, err := cluster.Plan(op, func(neutral.Object) error { return nil })
	if err != nil {
		return nil, err
	}
	var result neutral.Result
	switch {
	case plan.Call != nil && request.Body != nil:
		result, err = plan.Call.Decode(dialect.Response{Status: http.StatusCreated, Body: plan.Call.Request.Body})
	case plan.Program != nil && request.Body != nil:
		result, err = plan.Program(ctx)
	}
	return append(losses, result.Losses...), err
}

func TestProbe(t *testing.T) {
	cluster := east(t)
	data, err := os.ReadFile(os.Getenv("PROBE"))
	if err != nil {
		t.Skip()
	}
	for _, line := range strings.Split(string(data), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		field, value, _ := strings.Cut(rest, " ")
		if kind == "" {
			continue
		}
		var body any = map[string]any{"Image": "busybox"}
		path := "/v1.49/containers/create"
		if kind == "s" {
			body = map[string]any{"Name": "x", "TaskTemplate": map[string]any{"ContainerSpec": map[string]any{"Image": "busybox"}}}
			path = "/v1.49/services/create"
		}
		var v any
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		at := body.(map[string]any)
		parts := strings.Split(field, ".")
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		at[parts[len(parts)-1]] = v
		raw, _ := json.Marshal(body)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		losses, err := translate(ctx, cluster, dialect.Request{Method: "POST", Path: path, Header: http.Header{"Content-Type": {"application/json"}}, Body: raw})
		cancel()
		word := "kept"
		for _, l := range losses {
			if l.Change == "dropped" && word == "kept" {
				word = "dropped"
			} else if l.Change != "dropped" {
				word = "changed"
			}
		}
		var f *fault.Error
		if errors.As(err, &f) {
			word = f.Kind.String()
			fmt.Printf("%s %s\t%s\t%s\t%s\n", kind, field, value, word, f.Message)
			continue
		}
		text := ""
		for _, l := range losses {
			text += " | " + l.String()
		}
		fmt.Printf("%s %s\t%s\t%s\t%s %v\n", kind, field, value, word, text, err)
	}
}
