package hijack

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

func sessionOf(protocol string, sizes []string, body io.Reader) *http.Request {
	r := &http.Request{Method: http.MethodPost, Header: http.Header{}}
	if body != nil {
		r.Body = io.NopCloser(body)
	}
	if protocol != "" {
		r.Header.Set(names.HeaderSession, protocol)
	}
	for _, size := range sizes {
		r.Header.Add(names.HeaderSessionBody, size)
	}
	return r
}

func TestReadSession(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		protocol    string
		sizes       []string
		stream      string
		body, stdin string
		kind        fault.Kind
		fails       bool
	}{
		{name: "body and stdin", protocol: "tcp", sizes: []string{"2"}, stream: "{}typed", body: "{}", stdin: "typed"},
		{name: "no length", protocol: "tcp", stream: "typed", stdin: "typed"},
		{name: "zero", protocol: "tcp", sizes: []string{"0"}, stream: "typed", stdin: "typed"},
		{name: "body alone", protocol: "tcp", sizes: []string{"2"}, stream: "{}", body: "{}"},
		{name: "no session", sizes: []string{"2"}, stream: "{}", fails: true, kind: fault.Invalid},
		{name: "other protocol", protocol: "h2c", stream: "{}", fails: true, kind: fault.Invalid},
		{name: "truncated", protocol: "tcp", sizes: []string{"3"}, stream: "{}", fails: true, kind: fault.Invalid},
		{name: "negative", protocol: "tcp", sizes: []string{"-1"}, fails: true, kind: fault.Invalid},
		{name: "signed", protocol: "tcp", sizes: []string{"+1"}, stream: "x", fails: true, kind: fault.Invalid},
		{name: "words", protocol: "tcp", sizes: []string{"two"}, fails: true, kind: fault.Invalid},
		{name: "twice", protocol: "tcp", sizes: []string{"1", "2"}, fails: true, kind: fault.Invalid},
		{name: "overflow", protocol: "tcp", sizes: []string{"99999999999999999999"}, fails: true, kind: fault.Invalid},
		{name: "huge", protocol: "tcp", sizes: []string{"1048577"}, fails: true, kind: fault.TooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body, stdin, err := ReadSession(sessionOf(tt.protocol, tt.sizes, iotest.OneByteReader(strings.NewReader(tt.stream))))
			if tt.fails {
				if !fault.Is(err, tt.kind) {
					t.Fatalf("error %v, want kind %v", err, tt.kind)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stdin)
			if err != nil || string(body) != tt.body || string(rest) != tt.stdin {
				t.Errorf("body %q, stdin %q, error %v; want %q, %q", body, rest, err, tt.body, tt.stdin)
			}
		})
	}
}

func TestReadSessionThatBreaksOff(t *testing.T) {
	t.Parallel()
	_, _, err := ReadSession(sessionOf("tcp", []string{"5"}, iotest.ErrReader(errors.New("stream reset"))))
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("error %v, want Unavailable", err)
	}
}

func TestReadSessionWithoutBody(t *testing.T) {
	t.Parallel()
	_, stdin, err := ReadSession(sessionOf("tcp", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(stdin); err != nil || len(rest) != 0 {
		t.Errorf("stdin %q, error %v", rest, err)
	}
}

// FuzzReadSession: whatever a peer sends, body and stdin are the stream, split where the header says.
func FuzzReadSession(f *testing.F) {
	f.Add("tcp", "2", []byte("{}typed"))
	f.Add("tcp", "", []byte("typed"))
	f.Add("", "0", []byte{})
	f.Add("tcp", "-1", []byte("x"))
	f.Add("tcp", "00000000000000000001", []byte("x"))
	f.Fuzz(func(t *testing.T, protocol, size string, stream []byte) {
		r := sessionOf("", nil, bytes.NewReader(stream))
		r.Header[http.CanonicalHeaderKey(names.HeaderSession)] = []string{protocol}
		r.Header[http.CanonicalHeaderKey(names.HeaderSessionBody)] = []string{size}
		body, stdin, err := ReadSession(r)
		if err != nil {
			if kind := fault.Of(err).Kind; kind != fault.Invalid && kind != fault.TooLarge {
				t.Fatalf("a bad session is a fault of kind %v: %v", kind, err)
			}
			return
		}
		rest, err := io.ReadAll(stdin)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(append(bytes.Clone(body), rest...), stream) || len(body) > BodyLimit {
			t.Fatalf("stream %q became %q and %q", stream, body, rest)
		}
	})
}
