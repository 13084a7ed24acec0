package resource

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"127.0.0.1:80", "[::1]:80", "host.example:65535", "/run/x.sock"} {
		if err := CheckAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "host", ":80", "host:", "host:0", "host:65536", "host:http", "::1:80", "a b:80", "h\nx:80", "hö:80",
		"/" + strings.Repeat("x", 107),
	} {
		if CheckAddress(bad) == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
}

// FuzzCheckAddress makes sure that what is taken for an address is one to Envoy too.
func FuzzCheckAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::1]:80", "/run/x.sock", "host:0", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckAddress(s) != nil {
			return
		}
		if err := address(s).ValidateAll(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if host, port := split(s); !strings.HasPrefix(s, "/") && (host == "" || port == 0) {
			t.Errorf("%q is split into %q and %d", s, host, port)
		}
	})
}

// TestRefusals reads every refusal as the clients of both orchestrators do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, r := range []refusal{
		noDecision, lostAnswer, {http.StatusNotFound, reasonNotFound, `a "quoted" <name>`},
	} {
		var body struct {
			Kind, APIVersion, Status, Message, Reason string
			Metadata                                  map[string]any
			Code                                      uint32
		}
		if err := json.Unmarshal([]byte(r.body()), &body); err != nil {
			t.Fatalf("%s: %v", r.body(), err)
		}
		if body.Kind != "Status" || body.APIVersion != "v1" || body.Status != "Failure" || body.Metadata == nil ||
			body.Message != r.message || body.Reason != r.reason || body.Code != r.code {
			t.Errorf("%s of %+v", r.body(), r)
		}
	}
}

// TestRepliesHaveNoOperator makes sure that Envoy expands nothing in a refusal but the code: its own texts tell
// addresses.
func TestRepliesHaveNoOperator(t *testing.T) {
	t.Parallel()
	for _, m := range replies("the target", discovery()).GetMappers() {
		body := m.GetBodyFormatOverride().GetTextFormatSource().GetInlineString()
		if rest := strings.ReplaceAll(body, "%RESPONSE_CODE%", ""); strings.Contains(rest, "%") {
			t.Errorf("%s", body)
		}
	}
}

// TestEveryRouteToServiceIsGuarded makes sure that no route of a service forgets a guard.
func TestEveryRouteToServiceIsGuarded(t *testing.T) {
	t.Parallel()
	found, byCaller := 0, 0
	for _, host := range PeerRoutes(gateway, hosts(), socket).GetVirtualHosts() {
		for _, r := range host.GetRoutes() {
			cluster := r.GetRoute().GetCluster()
			byPeer, byRoute := false, false
			for _, h := range r.GetMatch().GetHeaders() {
				byPeer = byPeer || h.GetName() == names.HeaderPeer && h.GetStringMatch().GetExact() != ""
				chosen := cluster
				if cluster == names.Orchestrator {
					chosen = names.OrchestratorRoute(gateway.Orchestrator)
				}
				byRoute = byRoute || h.GetName() == names.HeaderRoute && h.GetStringMatch().GetExact() == chosen
			}
			switch {
			case strings.HasPrefix(cluster, "service/") && byPeer && byRoute && r.GetTypedPerFilterConfig()[filterExtProc] == nil:
				byCaller++ // external processing was asked, and chose it
			case strings.HasPrefix(cluster, "service/"):
				found++
				if !byPeer || r.GetTypedPerFilterConfig()[filterExtProc] == nil {
					t.Errorf("%s: %v", host.GetName(), r)
				}
			case cluster == names.Peering:
			case cluster != "" && !byRoute:
				t.Errorf("%s leads to %s without a decision", host.GetName(), cluster)
			}
		}
	}
	if found != len(web.Ports)*len(peers) || byCaller != len(web.Ports) {
		t.Errorf("%d and %d routes to services", found, byCaller)
	}
}

func TestServerName(t *testing.T) {
	t.Parallel()
	if n := serverName(neutral.Upstream{Address: "api.example:6443"}); n != "api.example" {
		t.Error(n)
	}
	c := toOrchestrator(neutral.Upstream{Address: net.JoinHostPort("::1", "6443"), CA: []byte("CA")})
	if c == nil || toOrchestrator(neutral.Upstream{Address: "[::1]:6443"}) != nil || toOrchestrator(socket) != nil {
		t.Error("TLS is wanted where there is a CA, and only there")
	}
}
