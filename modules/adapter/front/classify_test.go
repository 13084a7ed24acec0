package front

import (
	"net/http"
	"net/url"
	"testing"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, path, upgrade string
		want                  kind
	}{
		{"POST", "/v1.41/containers/c/attach", "tcp", kindSession},
		{"POST", "/containers/c/attach", "", kindSession},
		{"POST", "/exec/e/start", "", kindSession},
		{"POST", "/v1.24/exec/e/start", "TCP", kindSession},
		{"POST", "/vendor/exec/start", "", kindOrdinary},
		{"GET", "/v1.41/containers/c/attach", "", kindOrdinary},
		{"GET", "/v1.41/containers/c/attach/ws", "websocket", kindUnserved},
		{"POST", "/v1.41/session", "h2c", kindUnserved},
		{"POST", "/grpc", "", kindUnserved},
		{"GET", "/v1.41/containers/json", "h2c", kindOrdinary},
		{"POST", "/v1.41/containers/c/start", "", kindOrdinary},
		{"POST", "/v1.41/containers/c/start", "tcp", kindSession}, // the engine refuses it itself
		{"POST", "/", "", kindOrdinary},
		{"POST", "", "", kindOrdinary},
	}
	for _, tt := range tests {
		r := &http.Request{Method: tt.method, URL: &url.URL{Path: tt.path}, Header: http.Header{}}
		if tt.upgrade != "" {
			r.Header.Set("Connection", "keep-alive, Upgrade")
			r.Header.Set("Upgrade", tt.upgrade)
		}
		if got := classify(r); got != tt.want {
			t.Errorf("%s %s, upgrade %q: %d, want %d", tt.method, tt.path, tt.upgrade, got, tt.want)
		}
	}
}

// FuzzClassify: no path makes an ordinary request of a build session, and a version in front changes nothing.
func FuzzClassify(f *testing.F) {
	f.Add("/containers/c/attach")
	f.Add("//exec//start")
	f.Add("/v1.41")
	f.Fuzz(func(t *testing.T, path string) {
		plain := callOf(path)
		if len(path) > 0 && path[0] == '/' && !isVersion(firstSegment(path)) {
			if versioned := callOf("/v1.41" + path); versioned != plain {
				t.Fatalf("%q is call %d, with a version %d", path, plain, versioned)
			}
		}
	})
}

func firstSegment(path string) string {
	path = path[1:]
	for i, c := range path {
		if c == '/' {
			return path[:i]
		}
	}
	return path
}
