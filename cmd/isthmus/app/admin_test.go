package app

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// fakeEnvoy is an Envoy's admin interface that names listeners.
type fakeEnvoy struct {
	mu        sync.Mutex
	listeners []string
}

func (e *fakeEnvoy) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = w.Write([]byte(strings.Join(e.listeners, "\n") + "\n"))
}

// testGateway is a gateway that does not run: its orchestrator is away and its Envoy a fake one.
func testGateway(t *testing.T, more ...string) (*gateway, *fakeEnvoy) {
	t.Helper()
	dir := shortDir(t)
	set := documentsOf(t, dir, more...)
	if _, err := trust.Init(trustDir(set), set.Gateway.Spec.TrustDomain, set.Gateway.Metadata.Name); err != nil {
		t.Fatal(err)
	}
	g, err := newGateway(t.Context(), set, &gatewayOptions{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.target.Close(); err != nil {
			t.Error(err)
		}
	})
	listener, err := net.Listen("unix", g.socket(names.AdminSocket))
	if err != nil {
		t.Fatal(err)
	}
	envoy := &fakeEnvoy{}
	server := &http.Server{Handler: envoy}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return g, envoy
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	g, envoy := testGateway(t, peerEast, peerSouth, policyEast)
	envoy.listeners = []string{"peer::0.0.0.0:15443", "access/15432::127.0.0.1:15432"}
	handler := (&admin{gateway: g, registry: g.registry, log: g.log}).handler()
	const access = `{"listen":"127.0.0.1:15432","peer":"east","target":"db-0.shop","port":5432}`
	for _, c := range []struct {
		name, method, path, host, header, body string
		status                                 int
		says                                   string
	}{
		{"health", "GET", "/healthz", "", "", "", 200, `"ok"`},
		{"a name of loopback", "GET", "/healthz", "localhost:15000", "", "", 200, `"ok"`},
		{"an address of IPv6", "GET", "/healthz", "[::1]:15000", "", "", 200, `"ok"`},
		{"the head alone", "HEAD", "/healthz", "", "", "", 200, ""},
		{"a name that was made to resolve to loopback", "GET", "/peers", "evil.example:15000", "", "", 403, "IP addresses and localhost only"},
		{"a name that only begins as loopback does", "GET", "/peers", "localhost.evil.example", "", "", 403, "IP addresses and localhost only"},
		{"a number that is no address", "GET", "/peers", "127.0.0.1.evil.example", "", "", 403, "IP addresses and localhost only"},
		{"no name", "GET", "/peers", "-", "", "", 403, "IP addresses and localhost only"},
		{"readiness", "GET", "/readyz", "", "", "", 503, "the orchestrator does not answer; the catalogue is not complete yet; no Envoy is connected"},
		{"peers", "GET", "/peers", "", "", "", 200, `"name": "south",
    "state": "suspended"`},
		{"an empty catalogue is a list", "GET", "/catalogue", "", "", "", 200, "[]"},
		{"no accesses are a list", "GET", "/accesses", "", "", "", 200, "[]"},
		{"status", "GET", "/status", "", "", "", 200, `"identity": "spiffe://west.isthmus.internal/cluster/west"`},
		{"metrics", "GET", "/metrics", "", "", "", 200, ""},
		{"what is not there", "GET", "/nothing", "", "", "", 404, "the admin interface has no /nothing"},
		{"a method that is not there", "PUT", "/peers", "", "1", "", 404, "the admin interface has no"},
		{"a change of another page", "POST", "/accesses", "", "", access, 403, adminHeader},
		{"a removal of another page", "DELETE", "/accesses/15432", "", "", "", 403, adminHeader},
		{"a change by a made-up name", "POST", "/accesses", "evil.example", "1", access, 403, "IP addresses and localhost only"},
		{"a body that is empty", "POST", "/accesses", "", "1", "", 400, "the body is not an access"},
		{"a body that is cut", "POST", "/accesses", "", "1", access[:20], 400, "the body is not an access"},
		{"a field that is none", "POST", "/accesses", "", "1", `{"listn":"127.0.0.1:1"}`, 400, "listn"},
		{"a body of any length", "POST", "/accesses", "", "1", `{"peer":"` + strings.Repeat("x", 65<<10) + `"}`, 400, "the body is not an access"},
		{"a target without a namespace", "POST", "/accesses", "", "1", strings.Replace(access, "db-0.shop", "db-0", 1), 400, "such as east/shop/db-0:5432"},
		{"a port that is none", "POST", "/accesses", "", "1", strings.Replace(access, "5432}", "0}", 1), 400, "between 1 and 65535"},
		{"a port past all", "POST", "/accesses", "", "1", strings.Replace(access, "5432}", "70000}", 1), 400, "the body is not an access"},
		{"an address without a port", "POST", "/accesses", "", "1", strings.Replace(access, "127.0.0.1:15432", "127.0.0.1", 1), 400, "is not address:port"},
		{"an address that is a name", "POST", "/accesses", "", "1", strings.Replace(access, "127.0.0.1:15432", "localhost:15432", 1), 400, "is not address:port"},
		{"a peer that nobody knows", "POST", "/accesses", "", "1", strings.Replace(access, "east", "north", 1), 404, `no peer is named \"north\"`},
		{"an access", "POST", "/accesses", "", "1", access, 200, `"name": "15432"`},
		{"the same again", "POST", "/accesses", "", "1", access, 200, `"name": "15432"`},
		{"another on its port", "POST", "/accesses", "", "1", strings.Replace(access, "db-0", "db-1", 1), 409, "close it first"},
		{"the accesses", "GET", "/accesses", "", "", "", 200, `"target": "db-0.shop"`},
		{"its end", "DELETE", "/accesses/15432", "", "1", "", 200, "{}"},
		{"its end again", "DELETE", "/accesses/15432", "", "1", "", 404, `no access is named \"15432\"`},
		{"the end of a path", "DELETE", "/accesses/..%2f..%2fetc", "", "1", "", 404, "no access is named"},
	} {
		request := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
		switch request.Host = c.host; c.host {
		case "":
			request.Host = "127.0.0.1:15000"
		case "-":
			request.Host = ""
		}
		if c.header != "" {
			request.Header.Set(adminHeader, c.header)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s, want %d with %s", c.name, w.Code, w.Body, c.status, c.says)
		}
		if c.path == "/metrics" || c.method == http.MethodHead {
			continue
		}
		if got := w.Header().Get("Content-Type"); got != "application/json" || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %s %s", c.name, got, w.Body)
		}
	}
}

// TestAdminWaits holds that an access is answered for only once Envoy listens, and that it stays when Envoy is late.
func TestAdminWaits(t *testing.T) {
	t.Parallel()
	g, envoy := testGateway(t, peerEast)
	server := httptest.NewServer((&admin{gateway: g, registry: g.registry, log: g.log}).handler())
	defer server.Close()
	admin := server.Listener.Addr().String()
	done := make(chan string, 1)
	go func() {
		code, out, stderr := run(t, "access", "east/shop/db-0:5432", "--local", "15432", "--admin", admin)
		if code != 0 {
			t.Errorf("%d %s", code, stderr)
		}
		done <- out
	}()
	<-g.dirty // it is kept, and Envoy's configuration is to be made anew
	select {
	case out := <-done:
		t.Fatalf("answered before Envoy listens: %s", out)
	default:
	}
	envoy.mu.Lock()
	envoy.listeners = []string{"access/15432::127.0.0.1:15432"}
	envoy.mu.Unlock()
	if out := <-done; out != "127.0.0.1:15432 leads to db-0.shop port 5432 of east\npsql -h 127.0.0.1 -p 15432 -U postgres\n" {
		t.Errorf("it prints %q", out)
	}
	if out := isthmus(t, "access", "list", "--admin", admin); !strings.Contains(out, "15432  127.0.0.1:15432  east  db-0.shop  5432") {
		t.Errorf("list prints %q", out)
	}
	if out := isthmus(t, "peers", "--admin", admin); !strings.Contains(out, "east") || !strings.Contains(out, "never") {
		t.Errorf("peers prints %q", out)
	}
	if out := isthmus(t, "catalogue", "--admin", admin); !strings.HasPrefix(out, "SERVICE") {
		t.Errorf("catalogue prints %q", out)
	}
	isthmus(t, "access", "close", "15432", "--admin", admin)
	if code, _, stderr := run(t, "access", "close", "15432", "--admin", admin); code != 1 || !strings.Contains(stderr, "isthmus: no access is named") {
		t.Errorf("closed twice: %d %s", code, stderr)
	}
	envoy.mu.Lock()
	envoy.listeners = []string{"access/15432::127.0.0.1:154321"}
	envoy.mu.Unlock()
	if err := g.dialable(t.Context(), "127.0.0.1:15432"); err == nil {
		t.Error("another listener whose address begins the same is taken for ours")
	}
	if err := os.Remove(g.socket(names.AdminSocket)); err != nil {
		t.Fatal(err)
	}
	if err := g.dialable(t.Context(), "127.0.0.1:15432"); err == nil {
		t.Error("without an Envoy a listener is there")
	}
}
