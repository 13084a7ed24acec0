package envoytest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestSession runs interactive sessions between isthmus and the bridge: a POST of HTTP/2 whose bodies stream both ways
// and end one after the other.
func TestSession(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.on(names.BridgeSocket, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(names.HeaderSession) != "tcp" {
				http.Error(w, "no session", http.StatusBadRequest)
				return
			}
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			w.WriteHeader(http.StatusOK)
			_ = rc.Flush()
			if r.URL.Path == "/exit" {
				_, _ = io.WriteString(w, "hi\n")
				return // the server ends first
			}
			lines := bufio.NewScanner(r.Body)
			for lines.Scan() {
				_, _ = fmt.Fprintln(w, strings.ToUpper(lines.Text()))
				_ = rc.Flush()
			}
			_, _ = io.WriteString(w, "exit 5\n") // after the client's half-close
		}))
		east.decides(routed(names.Bridge))
	})
	c := west.local()
	open := func(path string) (io.WriteCloser, *http.Response) {
		t.Helper()
		r, w := io.Pipe()
		req := request(t, http.MethodPost, "http://"+east.host("api")+path, r)
		req.Header.Set(names.HeaderSession, "tcp")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		return w, resp
	}
	t.Run("the client ends first", func(t *testing.T) {
		w, resp := open("/exec")
		lines := bufio.NewReader(resp.Body)
		for _, word := range []string{"one", "two"} {
			_, _ = fmt.Fprintln(w, word)
			if line, err := lines.ReadString('\n'); err != nil || line != strings.ToUpper(word)+"\n" {
				t.Fatalf("%q %v", line, err)
			}
		}
		_ = w.Close()
		if rest, err := io.ReadAll(lines); err != nil || string(rest) != "exit 5\n" {
			t.Errorf("%q %v", rest, err)
		}
	})
	t.Run("the server ends first", func(t *testing.T) {
		_, resp := open("/exit")
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hi\n" {
			t.Errorf("%q %v", b, err)
		}
	})
}

// TestLargeBodies rewrites bodies up to the limit, and refuses larger ones.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	const limit = 16 << 20
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("x-short") != "" {
				t.Error("a request that is too large reached the orchestrator")
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			_, _ = w.Write(bytes.ToLower(b))
			if r.Header.Get("x-more") != "" {
				_, _ = io.CopyN(w, zeros{}, limit)
			}
		}))
		east.decides(rewritten)
	})
	send := func(size int, set ...string) answer {
		r := request(t, http.MethodPost, "http://"+east.host("api")+"/x", bytes.NewReader(bytes.Repeat([]byte("a"), size)))
		for _, h := range set {
			r.Header.Set(h, "1")
		}
		return call(t, west.local(), r)
	}
	for _, size := range []int{1 << 10, 3 << 20, limit} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			a := send(size)
			if a.code != http.StatusOK || a.body != strings.Repeat("A", size) {
				t.Errorf("%d, %d bytes: %.200s", a.code, len(a.body), a.body)
			}
		})
	}
	t.Run("too large a request", func(t *testing.T) {
		// External processing rewrites this answer as any other.
		if a := send(limit+1<<20, "x-short"); a.code != http.StatusRequestEntityTooLarge || !strings.Contains(a.body, "TOO LARGE") {
			t.Errorf("%d %.300s", a.code, a.body)
		}
	})
	t.Run("too large an answer", func(t *testing.T) {
		refusal(t, send(1<<20, "x-more"), http.StatusBadGateway, "too large")
	})
}
