package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// told makes a peer say something of itself.
func told(t *testing.T, g *gateway, peer string, condition peering.Condition, c *peering.Configuration) {
	t.Helper()
	now := time.Now()
	g.tracker.Track(peer, now).Update(tracker.Status{Condition: condition, Configuration: c}, now)
}

func stateOf(t *testing.T, g *gateway) TrustState {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/trust", nil)
	r.Host = "127.0.0.1"
	(&admin{gateway: g, registry: g.registry, log: g.log}).handler().ServeHTTP(w, r)
	var state TrustState
	if err := json.Unmarshal(w.Body.Bytes(), &state); err != nil || w.Code != 200 {
		t.Fatalf("%d %s (%v)", w.Code, w.Body, err)
	}
	return state
}

// A rotation waits for every peer that is declared, also for one that is suspended or away, and says why it waits.
func TestRotationWaits(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t, peerEast, peerSouth, policyEast) // south is suspended
	change := func(method, path, body string, status int, says string) {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Host = "127.0.0.1"
		r.Header.Set(adminHeader, "1")
		(&admin{gateway: g, registry: g.registry, log: g.log}).handler().ServeHTTP(w, r)
		if w.Code != status || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	const begin = `{"within":"0s","keep":"1h0m0s"}`
	change("POST", "/trust/rotation/next", `{"after":"announced"}`, 409, "no rotation is under way")
	change("DELETE", "/trust/rotation", "", 409, "no rotation is under way")
	change("POST", "/trust/rotation", `{"within":"soon","keep":"1h"}`, 400, "--within")
	change("POST", "/trust/rotation", `{"within":"0s","keep":"-1h"}`, 400, "cannot be kept for")
	former := g.authority.Load().Fingerprint()
	change("POST", "/trust/rotation", begin, 200, `"phase": "announced"`)
	change("POST", "/trust/rotation", begin, 409, "under way already")

	all := g.authority.Load().Export().Fingerprints()
	if len(all) != 2 || all[0] != former {
		t.Fatalf("announced: %v", all)
	}
	if sent := g.configuration().Bundle; sent.Text == "" || !strings.Contains(sent.Text, all[1]) {
		t.Errorf("peers are told %q", sent.Text)
	}
	why := func(peer, want string) {
		t.Helper()
		for _, p := range stateOf(t, g).Peers {
			if p.Name == peer {
				if p.Acknowledged != (want == "") || !strings.Contains(p.Why, want) {
					t.Errorf("%s: %+v, want %q", peer, p, want)
				}
				return
			}
		}
		t.Errorf("no peer %s", peer)
	}
	feature := []string{peering.FeatureTrustBundle}
	why("south", "suspended")
	why("east", "never shaken hands")
	told(t, g, "east", peering.Ready, &peering.Configuration{})
	why("east", "takes no bundles over the link")
	told(t, g, "east", peering.Down, &peering.Configuration{Features: feature, Trusts: []string{former}})
	why("east", "not in session: down")
	told(t, g, "east", peering.Ready, &peering.Configuration{Features: feature, Trusts: []string{former}})
	why("east", "has not taken it yet")
	told(t, g, "east", peering.Down, &peering.Configuration{Features: feature, Trusts: all})
	why("east", "") // it keeps what it said, also while it is away

	now := time.Now()
	if since := g.rotate(t.Context(), now, now.Add(-time.Hour)); !since.IsZero() || g.rotator.Rotation().Phase != trust.Announced {
		t.Error("it goes on though a peer has not acknowledged")
	}
	set := *g.set.Load()
	set.Peers = slices.Clone(set.Peers)
	for i := range set.Peers {
		if set.Peers[i].Metadata.Name == "south" {
			set.Peers = slices.Delete(set.Peers, i, i+1)
			break
		}
	}
	g.set.Store(&set)
	if since := g.rotate(t.Context(), now, time.Time{}); !since.Equal(now) || g.rotator.Rotation().Phase != trust.Announced {
		t.Error("it goes on in the same moment")
	}
	g.rotate(t.Context(), now.Add(ackSettle), now)
	state := stateOf(t, g)
	if state.Phase != "issuing" || state.Authorities[0].Fingerprint != all[1] || state.Authorities[1].Role != "former" {
		t.Fatalf("%+v", state)
	}
	change("DELETE", "/trust/rotation", "", 409, "no way back")
	change("POST", "/trust/rotation/next", `{"after":"announced"}`, 409, "in another phase")
	change("POST", "/trust/rotation/next", `{"after":"issuing"}`, 200, `"phase": "steady"`)
	if got := g.authority.Load().Export().Fingerprints(); len(got) != 1 || got[0] != all[1] {
		t.Errorf("at the end: %v", got)
	}
	var text strings.Builder
	if err := stateOf(t, g).print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"phase", "steady", "issues", all[1], "east", "yes", "trusts " + former[:16]} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("trust show does not tell %q:\n%s", want, text.String())
		}
	}
}

// A peer's new bundle is taken when it is in session, and never one of another.
func TestTakeBundles(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t, peerEast, policyEast)
	dir := t.TempDir()
	if _, err := trust.Init(dir, "", "east"); err != nil {
		t.Fatal(err)
	}
	east, err := trust.OpenRotator(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.bundles.Import("east", east.Authority().Export()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := east.Begin(now, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	says := &peering.Configuration{Bundle: east.Authority().Signed()}
	trusted := func(want int) {
		t.Helper()
		all, err := g.bundles.List()
		if err != nil || len(all) != 1 || len(all[0].Bundle.Fingerprints()) != want {
			t.Errorf("%+v %v, want %d", all, err, want)
		}
	}
	for _, condition := range []peering.Condition{peering.Refused, peering.Connecting, peering.Departed} {
		told(t, g, "east", condition, says)
		g.takeBundles(now)
		trusted(1)
	}
	forged := *says
	forged.Bundle.Signature = []byte("none")
	told(t, g, "east", peering.Ready, &forged)
	g.takeBundles(now)
	trusted(1)
	if p := stateOf(t, g).Peers[0]; !strings.Contains(p.Refused, "signed by no authority") {
		t.Errorf("%+v", p)
	}
	told(t, g, "east", peering.Ready, says)
	g.takeBundles(now)
	trusted(2)
	if p := stateOf(t, g).Peers[0]; p.Refused != "" {
		t.Errorf("%+v", p)
	}
}
