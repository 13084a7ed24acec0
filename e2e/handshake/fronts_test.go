package handshake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
)

// ping asks a gateway's docker socket of its peer, as docker's client does first of all.
func (g *gateway) ping(peer string) (string, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(g.dir, "run", peer+".sock"))
		}}}
	response, err := client.Get("http://docker/_ping")
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	said, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(said)), err
}

// TestFrontWaits restarts both gateways, west without a memory of east, and asks at once: who comes while the handshake
// is under way waits for it, and not for ever.
func TestFrontWaits(t *testing.T) {
	t.Parallel()
	p := newPair(t, t, false)
	ask := func() (string, time.Duration) {
		t.Helper()
		var said string
		began := time.Now()
		if _, err := within(10*time.Second, func() (err error) {
			began = time.Now()
			said, err = p.west.ping("east")
			return err // until the socket is there
		}); err != nil {
			t.Fatal(err)
		}
		return said, time.Since(began)
	}
	if said, _ := ask(); said != "200 OK" {
		t.Fatal(said)
	}
	again := func(f relay.Fault) {
		t.Helper()
		if _, err := within(patience, p.west.remembers); err != nil { // what is to be forgotten
			t.Fatal(err)
		}
		for _, g := range p.both() {
			g.kill()
			g.calls.Set(f)
		}
		if err := os.RemoveAll(filepath.Join(p.west.dir, "state", "peers")); err != nil {
			t.Fatal(err)
		}
		for _, g := range p.both() {
			g.start(t)
		}
	}
	again(func(c *relay.Call) relay.Answer {
		if c.Method == "Hello" {
			time.Sleep(time.Second)
		}
		return relay.Pass(c)
	})
	if said, took := ask(); said != "200 OK" || took < 300*time.Millisecond {
		t.Errorf("%s after %s", said, took)
	}
	again(quiet)
	if said, took := ask(); said[:3] != "503" || took > 8*time.Second {
		t.Errorf("%s after %s", said, took)
	}
	for _, g := range p.both() {
		g.calls.Set(nil)
	}
	if _, err := within(2*patience, p.joined); err != nil {
		t.Fatal(err)
	}
	if said, _ := ask(); said != "200 OK" {
		t.Error(said)
	}
	if t.Failed() {
		t.Log(p.west.tail())
	}
}

// remembers tells whether the gateway has stored what its peer said.
func (g *gateway) remembers() error {
	records, err := filepath.Glob(filepath.Join(g.dir, "state", "peers", "*.json"))
	if err == nil && len(records) == 0 {
		err = errors.New("nothing of the peer is stored")
	}
	return err
}
