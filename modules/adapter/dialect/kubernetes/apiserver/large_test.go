package apiserver

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// many are a Swarm's services and containers of the number.
func many(t testing.TB, s *stand, tasks int) {
	t.Helper()
	const each = 100
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	for i := range tasks / each {
		w := neutral.Workload{ID: fmt.Sprintf("s%024d", i), Name: fmt.Sprintf("web%d", i), Namespace: "default", Mode: neutral.ModeReplicated,
			Replicas: each, Version: "1", Template: neutral.Container{Image: "nginx:1", Env: []string{"A=1", "B=2"}, Labels: map[string]string{"app": "web"}}}
		s.fake.workloads = append(s.fake.workloads, w)
		s.fake.schedule(&s.fake.workloads[len(s.fake.workloads)-1])
	}
}

// BenchmarkLarge reads and lists ten thousand tasks.
func BenchmarkLarge(b *testing.B) {
	s := stands(b)
	many(b, s, 10000)
	get := func(accept, query string) int64 {
		response := s.response(b, http.MethodGet, "/api/v1/pods"+query, http.Header{"Accept": {accept}}, "")
		defer response.Body.Close()
		n, err := io.Copy(io.Discard, response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			b.Fatal(response.StatusCode, err)
		}
		return n
	}
	begun := time.Now()
	get("application/json", "?limit=1")
	b.Logf("the first reading takes %v", time.Since(begun))
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	b.Logf("%d MB are held", memory.HeapAlloc>>20)
	for _, c := range []struct{ name, accept, query string }{
		{"one", "application/json", "?limit=1"},
		{"json", "application/json", ""},
		{"protobuf", "application/vnd.kubernetes.protobuf", ""},
		{"table", "application/json;as=Table;v=v1;g=meta.k8s.io", ""},
		{"watch", "application/json", "?watch=true&timeoutSeconds=1"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(get(c.accept, c.query))
			}
		})
	}
}
