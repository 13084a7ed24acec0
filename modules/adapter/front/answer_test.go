package front

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

const tooLarge = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",` +
	`"message":"the body is too large for the gateway to translate","reason":"RequestEntityTooLarge","code":413}` + "\n"

// TestStatusBecomesAnError asks for what an Envoy refuses by itself; what engines say stays byte for byte.
func TestStatusBecomesAnError(t *testing.T) {
	t.Parallel()
	long := `{"message":"` + strings.Repeat("x", 2*statusLimit) + `"}`
	for name, x := range map[string]struct {
		code             int
		mediaType, sent  string
		want, wantedType string
	}{
		"too large":         {413, "application/json", tooLarge, `{"message":"the body is too large for the gateway to translate"}` + "\n", "application/json"},
		"with a charset":    {413, "application/json; charset=utf-8", tooLarge, `{"message":"the body is too large for the gateway to translate"}` + "\n", "application/json"},
		"a word only":       {504, "application/json", `{"kind":"Status","apiVersion":"v1","reason":"Timeout"}`, `{"message":"Timeout"}` + "\n", "application/json"},
		"nothing said":      {500, "application/json", `{"kind":"Status","apiVersion":"v1"}`, `{"message":"Internal Server Error"}` + "\n", "application/json"},
		"an engine's error": {404, "application/json", `{ "message": "no such container" }`, `{ "message": "no such container" }`, "application/json"},
		"another document":  {404, "application/json", `{"kind":"Status","message":"m"}`, `{"kind":"Status","message":"m"}`, "application/json"},
		"no JSON":           {400, "application/json", `{"kind":`, `{"kind":`, "application/json"},
		"a long error":      {500, "application/json", long, long, "application/json"},
		"text":              {500, "text/plain", tooLarge, tooLarge, "text/plain"},
		"no error":          {200, "application/json", tooLarge, tooLarge, "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := edgeOf(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", x.mediaType)
				w.Header().Set("Content-Length", strconv.Itoa(len(x.sent)))
				w.WriteHeader(x.code)
				_, _ = io.WriteString(w, x.sent)
			})
			// An ordinary call, and one that hijacks when it is not refused.
			for _, path := range []string{"/containers/c/json", "/containers/c/attach?stream=1"} {
				method := http.MethodGet
				if strings.Contains(path, "attach") {
					if method = http.MethodPost; x.code == http.StatusOK {
						continue
					}
				}
				r, err := http.NewRequestWithContext(t.Context(), method, "http://docker"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				got := body(t, answer)
				_ = answer.Body.Close()
				if answer.StatusCode != x.code || got != x.want || answer.Header.Get("Content-Type") != x.wantedType {
					t.Errorf("%s: answer %d %q %.200q", path, answer.StatusCode, answer.Header.Get("Content-Type"), got)
				}
			}
		})
	}
}

// TestHeadKeepsItsHead asks for a head only: the length is that of a body that nobody sends.
func TestHeadKeepsItsHead(t *testing.T) {
	t.Parallel()
	c := edgeOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "42")
		w.WriteHeader(http.StatusNotFound)
	})
	answer, err := c.Head("http://docker/containers/c/archive?path=/x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusNotFound || answer.ContentLength != 42 {
		t.Errorf("answer %d, %d bytes", answer.StatusCode, answer.ContentLength)
	}
}

// zeros is a body that never ends by itself.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestBodyTooLarge sends 60 MB to an Envoy that refuses them after the first one, while the client still writes.
func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	const size = 60 << 20
	for name, length := range map[string]int64{"of a known length": size, "in chunks": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := edgeOf(t, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.CopyN(io.Discard, r.Body, 1<<20); err != nil {
					t.Error(err)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				_, _ = io.WriteString(w, tooLarge)
			})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://docker/v1.41/containers/create?name=c",
				io.LimitReader(zeros{}, size))
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength = length
			answer, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			got := body(t, answer)
			var told map[string]string
			if err := json.Unmarshal([]byte(got), &told); err != nil || answer.StatusCode != http.StatusRequestEntityTooLarge ||
				len(told) != 1 || told["message"] != "the body is too large for the gateway to translate" {
				t.Errorf("answer %d %q, %v", answer.StatusCode, got, err)
			}
		})
	}
}

// TestBrokenError is an error whose body breaks off: what came of it still arrives, and its end is no end.
func TestBrokenError(t *testing.T) {
	t.Parallel()
	c := edgeOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"mess`)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})
	answer, err := c.Get("http://docker/info")
	if err != nil {
		if errors.Is(err, io.EOF) {
			return // the head was taken back with the rest
		}
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	const sent = `{"mess`
	if got, err := io.ReadAll(answer.Body); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(sent, string(got)) {
		t.Errorf("read %q, %v", got, err)
	}
}
