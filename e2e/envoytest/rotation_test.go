package envoytest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// TestRotationUnderLoad renews the certificates of two gateways again and again, rotates the authority of each whole,
// once with isthmus killed in every phase, and both at once, while requests, streams, raw TCP and new connections go
// both ways: nothing of it fails. At the end nothing of the authorities of the beginning passes.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	services := map[string][]service{"west": loadServices(t), "east": loadServices(t)}
	west, east := newSite(t, "west", services["west"]...), newSite(t, "east", services["east"]...)
	olds := map[string]*trust.Authority{}
	for _, s := range []*site{west, east} {
		s.isthmus("trust", "init", "--config", s.config())
		old, err := trust.Open(s.trustDir())
		if err != nil {
			t.Fatal(err)
		}
		olds[s.name] = old
	}
	west.knows(east)
	east.knows(west)
	west.start()
	east.start()
	west.joined("east")
	east.joined("west")
	for _, way := range [][2]*site{{west, east}, {east, west}} {
		serves(t, way[0], way[1], services[way[1].name])
	}
	admits := func(to, from *site) error {
		pair, err := olds[from.name].Issue(time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		l := &load{t: t, ctx: t.Context()}
		return l.expectAs(from, to, pair, fmt.Sprintf("%s:%d", to.host("web"), services[to.name][0].at.Port()))
	}

	l := startLoad(t, services, west, east)
	time.Sleep(time.Second)
	refused := refusedHandshakes(t, west) + refusedHandshakes(t, east)
	for range 4 {
		for _, s := range []*site{west, east} {
			before := shown(t, s)
			s.ask("trust", "renew")
			eventually(t, waits, func() error {
				if shown(t, s) == before {
					return errors.New("the certificate is the same")
				}
				return nil
			})
		}
	}

	began := time.Now()
	west.ask("trust", "rotate", "--keep", "5s")
	for _, phase := range []string{"announced", "issuing", "steady"} { // killed in each
		west.reaches(phase, 60*time.Second)
		if phase == "issuing" {
			if err := admits(east, west); err != nil {
				t.Errorf("a certificate of the former authority is refused while it is kept: %v", err)
			}
		}
		west.kill()
		west.start()
	}
	t.Logf("west's rotation took %s, with isthmus killed in each phase", time.Since(began).Round(100*time.Millisecond))
	west.acknowledged("east")

	began = time.Now()
	east.ask("trust", "rotate", "--keep", "3s")
	east.reaches("steady", 60*time.Second)
	east.acknowledged("west")
	t.Logf("east's rotation took %s", time.Since(began).Round(100*time.Millisecond))

	began = time.Now()
	west.ask("trust", "rotate", "--keep", "3s")
	east.ask("trust", "rotate", "--keep", "3s")
	west.reaches("steady", 60*time.Second)
	east.reaches("steady", 60*time.Second)
	west.acknowledged("east")
	east.acknowledged("west")
	t.Logf("both at once took %s", time.Since(began).Round(100*time.Millisecond))
	if now := refusedHandshakes(t, west) + refusedHandshakes(t, east); now != refused {
		t.Errorf("Envoys refused %d handshakes", now-refused)
	}
	l.stop()

	for _, way := range [][2]*site{{west, east}, {east, west}} {
		to, from := way[0], way[1]
		if err := admits(to, from); err == nil {
			t.Errorf("%s takes a certificate of %s's authority of the beginning", to.name, from.name)
		}
		if text := to.ask("trust", "show"); !strings.Contains(text, "steady") || !strings.Contains(text, from.name+"  yes") {
			t.Error(text)
		}
		// And the Envoys find each other anew.
		serves(t, from, to, services[to.name])
	}
}

// serves waits until one site's services answer the other.
func serves(t *testing.T, from, to *site, services []service) {
	t.Helper()
	client := clientTo(t, "tcp", from.edge, false)
	l := &load{t: t, ctx: t.Context()}
	eventually(t, 20*time.Second, func() error {
		if err := l.expect(client, fmt.Sprintf("http://%s:%d/x", to.host("web"), services[0].at.Port()), "/x"); err != nil {
			return err
		}
		conn, err := from.tunnel(fmt.Sprintf("%s:%d", to.host("echo"), services[2].at.Port()))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// reaches waits for a phase of a rotation.
func (s *site) reaches(phase string, within time.Duration) {
	s.t.Helper()
	eventually(s.t, within, func() error {
		state, err := s.trust()
		if err != nil {
			return err
		}
		if state.Phase != phase {
			return fmt.Errorf("%s: %+v", s.name, state)
		}
		return nil
	})
}

// acknowledged waits until a peer trusts this site's authority, and no former one.
func (s *site) acknowledged(peer string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, func() error {
		state, err := s.trust()
		if err != nil {
			return err
		}
		for _, p := range state.Peers {
			if p.Name == peer && p.Acknowledged && len(p.Trusts) == len(state.Authorities) {
				return nil
			}
		}
		return fmt.Errorf("%s: %+v", s.name, state.Peers)
	})
}

// shown is the serial number of the certificate that a site's peer listener shows.
func shown(t *testing.T, s *site) string {
	t.Helper()
	var all struct {
		Certificates []struct {
			Chain []struct {
				Serial string                 `json:"serial_number"`
				Names  []struct{ URI string } `json:"subject_alt_names"`
			} `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(envoyAdmin(t, s, "/certs")), &all); err != nil {
		t.Fatal(err)
	}
	var serials []string
	for _, c := range all.Certificates {
		for _, own := range c.Chain {
			for _, name := range own.Names {
				if strings.HasSuffix(name.URI, "/cluster/"+s.name) {
					serials = append(serials, own.Serial)
				}
			}
		}
	}
	slices.Sort(serials)
	return strings.Join(slices.Compact(serials), " ")
}

// refusedHandshakes are those that a site's Envoy refused, as a server or as a client.
func refusedHandshakes(t *testing.T, s *site) int {
	t.Helper()
	total := 0
	lines := bufio.NewScanner(strings.NewReader(envoyAdmin(t, s, "/stats?filter=ssl.(fail_verify|connection_error)")))
	for lines.Scan() {
		_, value, _ := strings.Cut(lines.Text(), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		total += n
	}
	return total
}

func envoyAdmin(t *testing.T, s *site, path string) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "run", names.AdminSocket))
		}}}
	a := call(t, client, request(t, http.MethodGet, "http://envoy"+path, nil))
	if a.code != http.StatusOK {
		t.Fatal(a)
	}
	return a.body
}
