package caller

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestSettle holds who waits for a handshake that has just begun: container operations of callers that are let in, and
// nobody else.
func TestSettle(t *testing.T) {
	t.Parallel()
	callers, err := New(Config{Open: []modules.Class{modules.ContainerOperation, modules.ServiceQuery}})
	if err != nil {
		t.Fatal(err)
	}
	var waited []string
	edge := Admission{Callers: func() *Authenticator { return callers },
		Settle: func(_ context.Context, peer string) { waited = append(waited, peer) }}
	ask := func(class modules.Class, peer string) error {
		_, err := edge.Decide(t.Context(), &modules.Request{Class: class, To: peer, Header: http.Header{}})
		return err
	}
	if err := ask(modules.ContainerOperation, "east"); err != nil {
		t.Error(err)
	}
	if err := ask(modules.ServiceQuery, "north"); err != nil {
		t.Error(err)
	}
	if err := ask(modules.ContainerAccess, "south"); err == nil {
		t.Error("a caller that is not known was let in")
	}
	if !slices.Equal(waited, []string{"east"}) {
		t.Errorf("waited for %q", waited)
	}
	edge.Settle = nil
	if err := ask(modules.ContainerOperation, "east"); err != nil {
		t.Error(err)
	}
}

// TestTold holds that a peer is told who the caller is and which groups it is in, and nothing that the caller says itself.
func TestTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, secret+",ci,b,a\nanother-long-secret,plain\n", 0o600)
	callers, err := New(Config{Tokens: path, Open: []modules.Class{modules.ContainerOperation}})
	if err != nil {
		t.Fatal(err)
	}
	edge := Admission{Callers: func() *Authenticator { return callers }}
	for token, want := range map[string][2]string{secret: {"ci", "a,b"}, "another-long-secret": {"plain", ""}, "": {"", ""}} {
		header := http.Header{}
		header.Set(names.HeaderCaller, "root")
		header.Set(names.HeaderGroups, "wheel")
		if token != "" {
			header.Set("Authorization", "Bearer "+token)
		}
		req := &modules.Request{Class: modules.ContainerOperation, To: "east", Header: header}
		verdict, err := edge.Decide(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		got := [2]string{verdict.Route.Set.Get(names.HeaderCaller), verdict.Route.Set.Get(names.HeaderGroups)}
		if got != want || req.Caller != want[0] || string(req.Groups) != want[1] {
			t.Errorf("of %q the peer is told %q", token, got)
		}
		for _, key := range []string{names.HeaderCaller, names.HeaderGroups} {
			if !slices.Contains(verdict.Route.Remove, key) {
				t.Errorf("%s is not taken off", key)
			}
		}
	}
}
