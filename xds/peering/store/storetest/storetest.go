// Package storetest holds what every home of what peers said must do.
package storetest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
)

// Run holds a home against the contract. open opens the home of one test; called again in the same test, it opens the
// same home once more, as a restarted gateway does.
func Run(t *testing.T, home func(t *testing.T) (open func() store.Store)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, func() store.Store){
		"empty":                  empty,
		"what is saved is there": saved,
		"the newest stands":      newest,
		"deleted":                deleted,
		"names":                  badNames,
		"ended context":          endedContext,
		"at once":                atOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, home(t))
		})
	}
}

// Example is a record that sets everything there is to set.
func Example(peer string, revision uint64) store.Record {
	version := peering.ProtocolVersion{Major: 1, Minor: 2}
	return store.Record{
		Peer:     peer,
		LastSeen: time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC),
		Configuration: peering.Configuration{
			Revision: revision,
			Identity: peering.Identity{TrustDomain: peer + ".example", Cluster: peer},
			Orchestrator: peering.Orchestrator{
				Type: neutral.Kubernetes, Version: "v1.37.2", APIVersions: []string{"v1", "apps/v1"},
			},
			Software:         "1.2.3",
			Protocol:         peering.ProtocolRange{Current: version, Oldest: version},
			Features:         []string{"a", "b"},
			CatalogueVersion: "17",
			GatewayAddresses: []string{"gateway.example:8443", "[2001:db8::1]:8443"},
		},
	}
}

func load(t *testing.T, s store.Store) []store.Record {
	t.Helper()
	records, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func expect(t *testing.T, s store.Store, want ...store.Record) {
	t.Helper()
	got := load(t, s)
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("it holds\n%+v, want\n%+v", got, want)
	}
}

func empty(t *testing.T, open func() store.Store) {
	s := open()
	expect(t, s)
	if err := s.Delete(t.Context(), "nobody"); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
}

func saved(t *testing.T, open func() store.Store) {
	s := open()
	east, west := Example("east", 1), store.Record{Peer: "west"}
	for _, r := range []store.Record{west, east} {
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, s, east, west)
	expect(t, open(), east, west)
}

func newest(t *testing.T, open func() store.Store) {
	s := open()
	for revision := range uint64(5) {
		if err := s.Save(t.Context(), Example("east", revision)); err != nil {
			t.Fatal(err)
		}
	}
	short := store.Record{Peer: "east"}
	if err := s.Save(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	expect(t, open(), short)
}

func deleted(t *testing.T, open func() store.Store) {
	s := open()
	for _, peer := range []string{"east", "west"} {
		if err := s.Save(t.Context(), Example(peer, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Delete(t.Context(), "east"); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, s, Example("west", 1))
	expect(t, open(), Example("west", 1))
	if err := s.Save(t.Context(), Example("east", 2)); err != nil {
		t.Fatal(err)
	}
	expect(t, open(), Example("east", 2), Example("west", 1))
}

func badNames(t *testing.T, open func() store.Store) {
	s := open()
	for _, peer := range []string{"", ".", "..", "../east", "a/b", "East", "-east", "e_t", "e\x00", string(make([]byte, 64))} {
		if err := s.Save(t.Context(), store.Record{Peer: peer}); err == nil {
			t.Errorf("save of %q was accepted", peer)
		}
		if err := s.Delete(t.Context(), peer); err == nil {
			t.Errorf("delete of %q was accepted", peer)
		}
	}
	expect(t, s)
}

func endedContext(t *testing.T, open func() store.Store) {
	s := open()
	if err := s.Save(t.Context(), Example("east", 1)); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ended, Example("east", 2)); err == nil {
		t.Error("save was done for nobody")
	}
	if err := s.Delete(ended, "east"); err == nil {
		t.Error("delete was done for nobody")
	}
	if _, err := s.Load(ended); err == nil {
		t.Error("load was done for nobody")
	}
	expect(t, s, Example("east", 1))
}

// atOnce saves, deletes and loads from several goroutines: each load sees whole records only.
func atOnce(t *testing.T, open func() store.Store) {
	s := open()
	var group sync.WaitGroup
	for i := range 4 {
		peer := fmt.Sprint("peer-", i)
		group.Go(func() {
			for revision := range uint64(10) {
				if err := s.Save(t.Context(), Example(peer, revision)); err != nil {
					t.Errorf("save: %v", err)
				}
				if revision%4 == 3 {
					if err := s.Delete(t.Context(), peer); err != nil {
						t.Errorf("delete: %v", err)
					}
				}
			}
		})
	}
	group.Go(func() {
		for range 50 {
			records, err := s.Load(t.Context())
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			for _, r := range records {
				if !reflect.DeepEqual(r, Example(r.Peer, r.Configuration.Revision)) {
					t.Errorf("a half record: %+v", r)
				}
			}
		}
	})
	group.Wait()
	want := make([]store.Record, 4)
	for i := range want {
		want[i] = Example(fmt.Sprint("peer-", i), 9)
	}
	expect(t, open(), want...)
}
