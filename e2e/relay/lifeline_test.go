package relay

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestLifeline is cut before a change, or after it, and carries nothing from then on.
func TestLifeline(t *testing.T) {
	t.Parallel()
	for _, reached := range []bool{false, true} {
		var mu sync.Mutex
		var arrived []string
		orchestrator := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			arrived = append(arrived, r.Method+" "+r.URL.Path)
		}))
		t.Cleanup(orchestrator.Close)
		target, err := url.Parse(orchestrator.URL)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := NewLifeline(listener, target, http.DefaultTransport)
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		l.CutAt(2, reached)
		ask := func(method, path string) bool {
			r, err := http.NewRequestWithContext(t.Context(), method, "http://"+listener.Addr().String()+path, strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				return false
			}
			return answer.Body.Close() == nil
		}
		if !ask("GET", "/a") || !ask("POST", "/b") || !ask("GET", "/c") || l.Cut().Err() != nil {
			t.Error("it was cut too early")
		}
		if ask("DELETE", "/d") || ask("GET", "/e") || ask("POST", "/f") || l.Cut().Err() == nil {
			t.Error("it was not cut")
		}
		want := []string{"GET /a", "POST /b", "GET /c"}
		if reached {
			want = append(want, "DELETE /d")
		}
		mu.Lock()
		if !slices.Equal(arrived, want) || !slices.Equal(l.Changes(), []string{"POST /b", "DELETE /d"}) {
			t.Errorf("arrived %v, changes %v", arrived, l.Changes())
		}
		mu.Unlock()
	}
}
