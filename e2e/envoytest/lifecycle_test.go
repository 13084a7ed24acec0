package envoytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/envoy"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// ticking is a service whose answer goes on until its caller has gone.
func ticking(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(w, "%d\n", i); err != nil {
			return
		}
		_ = rc.Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// reading is an answer that is being read.
type reading struct {
	t    *testing.T
	body io.ReadCloser
}

// read opens a long answer.
func read(t *testing.T, c *http.Client, url string) *reading {
	t.Helper()
	c.Timeout = 0
	resp, err := c.Do(request(t, http.MethodGet, url, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	r := &reading{t, resp.Body}
	r.goesOn("from the start")
	return r
}

// goesOn checks that more comes, and that it was not there before.
func (r *reading) goesOn(when string) {
	r.t.Helper()
	began := time.Now()
	for time.Since(began) < 100*time.Millisecond {
		if _, err := r.body.Read(make([]byte, 64)); err != nil {
			r.t.Fatalf("%s: the answer ended: %v", when, err)
		}
	}
}

// TestChanges changes everything around an answer that is being read.
func TestChanges(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("ticks", neutral.HTTP1, serve(t, http.HandlerFunc(ticking)), id("west"))
	})
	url := "http://" + east.host("ticks", "shop", "svc") + "/"
	r := read(t, west.edge(), url)
	ask := func(name string) error {
		a := call(t, west.edge(), request(t, http.MethodGet, "http://"+east.host(name, "shop", "svc")+"/", nil))
		if a.code != http.StatusOK {
			return fmt.Errorf("%d %s", a.code, a.body)
		}
		return nil
	}
	web, other := serve(t, http.HandlerFunc(echo)), serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the other")
	}))
	t.Run("a new service", func(t *testing.T) {
		east.export("web", neutral.HTTP1, web, id("west"))
		east.set()
		eventually(t, waits, func() error { return ask("web") })
		r.goesOn("after a new service")
	})
	t.Run("another endpoint", func(t *testing.T) {
		east.model.Services[1].Ports[0].Endpoints = []netip.AddrPort{other}
		east.set()
		eventually(t, waits, func() error {
			if a := call(t, west.edge(), request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/", nil)); a.body != "the other" {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
		r.goesOn("after an endpoint changed")
	})
	t.Run("another protocol", func(t *testing.T) {
		east.model.Services[1].Ports[0].App = neutral.HTTP2
		east.set()
		// Envoy would wait 15 seconds for endpoints that nobody sends again.
		eventually(t, waits, func() error {
			for _, s := range east.server.Status().Types {
				if s.Type == "Cluster" && s.Pushes > 2 {
					return ask("web")
				}
			}
			return fmt.Errorf("no push")
		})
		r.goesOn("after a cluster changed")
	})
	t.Run("a new certificate", func(t *testing.T) {
		east.model.Identity.Certificate, east.model.Identity.Key = east.authority.issue(id("east"))
		east.set()
		eventually(t, waits, func() error { return ask("web") })
		r.goesOn("after a new certificate")
	})
	t.Run("a new peer", func(t *testing.T) {
		east.knows(newGateway(t, "north"))
		east.set()
		eventually(t, waits, func() error { return ask("web") })
		r.goesOn("after a new peer")
	})
	t.Run("permission withdrawn", func(t *testing.T) {
		east.model.Services[1].Peers = nil
		east.set()
		eventually(t, waits, func() error {
			if err := ask("web"); err == nil {
				return fmt.Errorf("still answered")
			}
			return nil
		})
	})
	t.Run("another control plane", func(t *testing.T) {
		eventually(t, waits, func() error { // what was withdrawn is taken out last
			if !east.server.Took(east.server.Status().Version) {
				return fmt.Errorf("envoy has not taken all")
			}
			return nil
		})
		east.control()
		read(t, west.edge(), url)
		r.goesOn("while no control plane answers")
		east.set()
		eventually(t, waits, func() error {
			if len(east.server.Status().Envoys) == 0 {
				return fmt.Errorf("envoy has not come back")
			}
			return nil
		})
		time.Sleep(200 * time.Millisecond)
		for _, s := range east.server.Status().Types {
			if s.Pushes != 0 {
				t.Errorf("%s was pushed again to an envoy that had it", s.Type)
			}
		}
		r.goesOn("after another control plane")
	})
}

// TestPeerGone is about a peer whose gateway does not answer.
func TestPeerGone(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	west.start()
	ask := func() answer {
		return call(t, west.edge(), request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/", nil))
	}
	refusal(t, ask(), http.StatusBadGateway, "the peer's gateway could not be reached")
	west.model.Peers[0].Addresses = nil
	west.set()
	eventually(t, waits, func() error {
		if a := ask(); a.code != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", a.code, a.body)
		}
		return nil
	})
	refusal(t, ask(), http.StatusServiceUnavailable, "the peer's gateway has nothing ready")
}

func TestEnvoyKilled(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "west")
	g.start()
	first := g.supervisor.Status()
	if first.State != envoy.Running || first.PID == 0 || first.Adopted {
		t.Fatalf("%+v", first)
	}
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, waits, func() error {
		s := g.supervisor.Status()
		if s.State != envoy.Running || s.PID == first.PID || s.Restarts != 1 || s.LastExit == "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err := g.supervisor.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	refusal(t, call(t, g.edge(), request(t, http.MethodGet, "http://nobody/", nil)), http.StatusNotFound, "no peer has this name")
}

// adoptEnv makes this test's process a supervisor that is killed.
const adoptEnv = "ISTHMUS_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if os.Getenv(isthmusEnv) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := app.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	if dir := os.Getenv(adoptEnv); dir != "" {
		s, err := envoy.New(envoyConfig(dir, os.Getenv("ISTHMUS_ENVOY")))
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestEnvoyAdopted kills a supervisor: its Envoy goes on, and the next supervisor takes it over.
func TestEnvoyAdopted(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "west")
	g.control()
	g.set()
	path := loopback.Envoy(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), adoptEnv+"="+g.model.Gateway.RunDir, "ISTHMUS_ENVOY="+path)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	eventually(t, waits, func() error {
		if len(g.server.Status().Envoys) != 1 {
			return fmt.Errorf("no envoy came")
		}
		return nil
	})
	refusedThere := func() {
		t.Helper()
		refusal(t, call(t, g.edge(), request(t, http.MethodGet, "http://nobody/", nil)), http.StatusNotFound, "no peer has this name")
	}
	eventually(t, waits, func() error {
		resp, err := g.edge().Do(request(t, http.MethodGet, "http://nobody/", nil))
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	refusedThere()

	c := envoyConfig(g.model.Gateway.RunDir, path)
	c.Log = logger(t)
	_ = os.Remove(g.model.Gateway.RunDir + "/envoy-process.json") // as if the supervisor had died before it wrote it
	s, err := envoy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	g.supervisor = s
	stop := run(t, s.Run)
	eventually(t, waits, func() error {
		if st := s.Status(); st.State != envoy.Running || !st.Adopted {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	refusedThere()
	adopted := s.Status().PID
	if n := len(g.server.Status().Envoys); n != 1 {
		t.Errorf("%d envoys", n)
	}
	t.Run("two supervisors", func(t *testing.T) {
		other, err := envoy.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Run(t.Context()); err == nil {
			t.Error("a second supervisor runs")
		}
	})
	t.Run("an adopted one dies", func(t *testing.T) {
		if err := syscall.Kill(adopted, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, waits, func() error {
			if st := s.Status(); st.State != envoy.Running || st.Adopted || st.PID == adopted {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		refusedThere()
	})
	pid := s.Status().PID
	stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("envoy runs on after an orderly end")
	}
	if s.Status().State != envoy.Stopped {
		t.Errorf("%+v", s.Status())
	}
	t.Run("an end comes before the adoption", func(t *testing.T) {
		c.Leave = true
		left, err := envoy.New(c)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, left.Run)
		eventually(t, waits, func() error {
			if st := left.Status(); st.State != envoy.Running {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
		if err := left.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		pid := left.Status().PID
		stop()
		c.Leave = false
		next, err := envoy.New(c)
		if err != nil {
			t.Fatal(err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := next.Run(over); err != nil {
			t.Error(err)
		}
		// It ended before Run returned; the supervisor that had started it takes its exit status a moment later.
		eventually(t, waits, func() error {
			if err := syscall.Kill(pid, 0); err == nil {
				return errors.New("envoy runs on after an orderly end")
			}
			return nil
		})
	})
}

// TestDrain ends a gateway whose caller keeps its connection and asks nothing: Envoy does not wait for that one.
func TestDrain(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "west")
	g.control()
	g.set()
	c := envoyConfig(g.model.Gateway.RunDir, loopback.Envoy(t))
	c.Log, c.Drain = logger(t), 10*time.Second
	s, err := envoy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	g.supervisor = s
	stop := run(t, s.Run)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := clientTo(t, "unix", g.socket(names.EdgeSocket), false)
	call(t, client, request(t, http.MethodGet, "http://nobody/", nil))
	stats, err := s.Stats(t.Context())
	if err != nil || !strings.Contains(string(stats), "envoy_server_live") || !strings.Contains(string(stats), "envoy_http_downstream_rq") {
		t.Errorf("%v %.2000s", err, stats)
	}
	began := time.Now()
	stop()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("an idle envoy took %v to drain", d)
	}
}

func envoyConfig(dir, path string) envoy.Config {
	return envoy.Config{
		Options: envoy.Options{Node: "west", Cluster: "west", RunDir: dir, Concurrency: 1, MaxMemory: 1 << 30}, Binary: path,
		Drain: 100 * time.Millisecond, Log: discard(),
	}
}
