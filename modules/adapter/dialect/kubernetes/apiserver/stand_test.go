package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	metadataclient "k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// stand is an API over a fake orchestrator, with clients of its own.
type stand struct {
	*kubernetes.Clientset
	api    *Server
	fake   *fakeOrchestrator
	server *httptest.Server
	config *rest.Config
	logged *logged
}

// stands makes one. What it leaves running when the test ends is an error, and so is a panic.
func stands(t testing.TB) *stand {
	t.Helper()
	// A sealed value is another one; that is all that the fake is to see.
	seal := func(b []byte) ([]byte, error) { return append([]byte("sealed "), flip(b)...), nil }
	unseal := func(b []byte) ([]byte, error) { return flip(bytes.TrimPrefix(b, []byte("sealed "))), nil }
	s := &stand{fake: newFakeOrchestrator(), logged: &logged{t: t}}
	s.api = New(Config{Cluster: "west", Orchestrator: s.fake, Seal: seal, Unseal: unseal, Log: slog.New(slog.NewTextHandler(s.logged, nil))})
	s.server = httptest.NewUnstartedServer(s.api)
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(s.logged, nil), slog.LevelError)
	s.server.Start()
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
		s.api.Close()
		noneLeft(t)
	})
	s.config = &rest.Config{Host: s.server.URL, QPS: -1, WarningHandler: rest.NoWarnings{}}
	s.Clientset = client(t, s.config)
	return s
}

func flip(b []byte) []byte {
	flipped := make([]byte, len(b))
	for i := range b {
		flipped[i] = ^b[i]
	}
	return flipped
}

// logged is where the server's log goes: a panic of a handler fails the test.
type logged struct{ t testing.TB }

func (l *logged) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("panic")) {
		l.t.Errorf("%s", b)
	}
	return len(b), nil
}

// noneLeft fails when something of the package still runs.
func noneLeft(t testing.TB) {
	t.Helper()
	var left []string
	for range 200 {
		left = left[:0]
		stacks := make([]byte, 8<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for one := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(one, "kubernetes/apiserver.") && !strings.Contains(one, "apiserver.noneLeft") && !strings.Contains(one, "testing.tRunner") {
				left = append(left, one)
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d goroutines are left, as\n%s", len(left), left[0])
}

func client(t testing.TB, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// media is the stand's clients' configuration for another form of bodies.
func (s *stand) media(content, accept string) *rest.Config {
	config := rest.CopyConfig(s.config)
	config.ContentType, config.AcceptContentTypes = content, accept
	return config
}

func (s *stand) dynamic(t testing.TB) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *stand) metadata(t testing.TB) metadataclient.Interface {
	t.Helper()
	c, err := metadataclient.NewForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends one request, and gives its status and body.
func (s *stand) ask(t testing.TB, method, path, contentType, body string) (int, string) {
	t.Helper()
	response := s.response(t, method, path, http.Header{"Content-Type": {contentType}}, body)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(raw)
}

func (s *stand) response(t testing.TB, method, path string, header http.Header, body string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := s.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// eventually waits for what must become true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(15 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("never: " + what)
		}
	}
}

// must is for what a test stands on.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func loose(t testing.TB, o kruntime.Object, kind schema.GroupVersionKind) *unstructured.Unstructured {
	t.Helper()
	fields := must(kruntime.DefaultUnstructuredConverter.ToUnstructured(o))(t)
	u := &unstructured.Unstructured{Object: fields}
	u.SetGroupVersionKind(kind)
	return u
}

var everything = labels.Everything()

// decodeAll reads JSON documents that follow each other, until there are no more.
func decodeAll[T any](t testing.TB, from io.Reader) []T {
	t.Helper()
	var all []T
	for decoder := json.NewDecoder(from); ; {
		var one T
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
}
