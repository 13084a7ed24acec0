package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// record runs a session into a recorder.
func record(t *testing.T, method, path, body string, drive func(dialect.Session) (neutral.Result, error)) *httptest.ResponseRecorder {
	t.Helper()
	req := dialect.Request{Method: method, Path: path, Header: http.Header{}}
	op, err := Dialect{}.Classify(req)
	if err != nil {
		t.Fatal(err)
	}
	if op, _, err = (Dialect{}).Decode(op, req); err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	s := Dialect{}.Session(op, recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
	result, err := drive(s)
	if err := s.Close(result, err); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := s.Close(neutral.Result{}, errors.New("again")); err != nil {
		t.Errorf("a second close: %v", err)
	}
	return recorder
}

func chunk(stream neutral.Stream, text string) neutral.Chunk {
	return neutral.Chunk{Stream: stream, Data: []byte(text), Time: epoch}
}

// TestSessionArchive wants an archive as it is, with what it is of told before it, and one that breaks off to be seen.
func TestSessionArchive(t *testing.T) {
	t.Parallel()
	stat := neutral.FileStat{Name: "a", Size: 3, Mode: 0o644, Modified: epoch}
	res := record(t, "GET", "/v1.49/containers/c/archive?path=/a", "", func(s dialect.Session) (neutral.Result, error) {
		neutral.Stat(s, stat)
		return neutral.Result{}, s.Output(chunk(neutral.Stdout, "tar"))
	})
	var told container.PathStat
	text, err := base64.StdEncoding.DecodeString(res.Header().Get("X-Docker-Container-Path-Stat"))
	if err != nil || json.Unmarshal(text, &told) != nil || told.Name != "a" || told.Size != 3 || told.Mode != 0o644 || !told.Mtime.Equal(epoch) {
		t.Errorf("%s %v", text, err)
	}
	if res.Body.String() != "tar" || res.Header().Get("Content-Type") != "application/x-tar" {
		t.Errorf("%q %v", res.Body.String(), res.Header())
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("an archive that broke off ended as if it were whole")
			}
		}()
		record(t, "GET", "/v1.49/containers/c/archive?path=/a", "", func(s dialect.Session) (neutral.Result, error) {
			return neutral.Result{}, errors.Join(s.Output(chunk(neutral.Stdout, "ta")), fault.New(fault.Unavailable, "gone"))
		})
	}()
	res = record(t, "PUT", "/v1.49/containers/c/archive?path=/a&noOverwriteDirNonDir=1", "sent", func(s dialect.Session) (neutral.Result, error) {
		got, err := io.ReadAll(s.Stdin())
		if string(got) != "sent" {
			t.Errorf("%q", got)
		}
		return neutral.Result{}, err
	})
	if res.Code != 200 || res.Body.Len() != 0 {
		t.Errorf("%d %q", res.Code, res.Body.String())
	}
}

func TestSessionLogs(t *testing.T) {
	t.Parallel()
	out := func(s dialect.Session) (neutral.Result, error) {
		return neutral.Result{}, errors.Join(s.Output(chunk(neutral.Stdout, "a\n")), s.Output(chunk(neutral.Stderr, "b\n")))
	}
	for _, c := range []struct{ name, path, stdout, stderr, media string }{
		{"both", "/v1.49/containers/c/logs?stdout=1&stderr=1", "a\n", "b\n", mediaMultiplexed},
		{"one", "/v1.49/containers/c/logs?stderr=1", "", "b\n", mediaMultiplexed},
		{"old", "/v1.41/containers/c/logs?stdout=1", "a\n", "", mediaRaw},
		{"timestamps", "/v1.49/containers/c/logs?stdout=1&timestamps=1", "2026-11-24T10:00:00.000000000Z a\n", "", mediaMultiplexed},
		{"details", "/v1.49/containers/c/logs?stdout=1&timestamps=1&details=1", "2026-11-24T10:00:00.000000000Z  a\n", "", mediaMultiplexed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := record(t, "GET", c.path, "", out)
			var stdout, stderr bytes.Buffer
			if _, err := stdcopy.StdCopy(&stdout, &stderr, res.Body); err != nil {
				t.Fatal(err)
			}
			if stdout.String() != c.stdout || stderr.String() != c.stderr || res.Header().Get("Content-Type") != c.media {
				t.Errorf("%q %q %s", stdout.String(), stderr.String(), res.Header().Get("Content-Type"))
			}
		})
	}
}

func TestSessionTaskContext(t *testing.T) {
	t.Parallel()
	res := record(t, "GET", "/v1.49/services/s/logs?stdout=1&details=1", "", func(s dialect.Session) (neutral.Result, error) {
		c := chunk(neutral.Stdout, "line\n")
		c.Context = &someTask
		return neutral.Result{}, s.Output(c)
	})
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	if want := "com.docker.swarm.node.id=node0000000000000000000aa,com.docker.swarm.service.id=shop00000000000000000000a," +
		"com.docker.swarm.task.id=task0000000000000000000aa line\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

func TestSessionTerminal(t *testing.T) {
	t.Parallel()
	res := record(t, "GET", "/v1.49/containers/c/logs?stdout=1", "", func(s dialect.Session) (neutral.Result, error) {
		neutral.Terminal(s)
		return neutral.Result{}, s.Output(chunk(neutral.Stdout, "raw\r\n"))
	})
	if res.Body.String() != "raw\r\n" || res.Header().Get("Content-Type") != mediaRaw {
		t.Errorf("%q %v", res.Body, res.Header())
	}
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	gone := fault.Wrap(fault.Unavailable, errors.New("dial 10.0.0.1: refused"), "the pod is gone")
	accept := func(result neutral.Result, err error) func(dialect.Session) (neutral.Result, error) {
		return func(s dialect.Session) (neutral.Result, error) {
			if err := s.Accept(); err != nil {
				return result, err
			}
			return result, err
		}
	}
	refuse := func(dialect.Session) (neutral.Result, error) {
		return neutral.Result{}, fault.New(fault.NotFound, "No such container: c")
	}
	for _, c := range []struct {
		name, method, path string
		drive              func(dialect.Session) (neutral.Result, error)
		status             int
		body               string
	}{
		{"wait", "POST", "/v1.49/containers/c/wait", accept(neutral.Result{ExitCode: 3}, nil), 200, `{"StatusCode":3}` + "\n"},
		{"wait fails", "POST", "/v1.49/containers/c/wait", accept(neutral.Result{}, gone), 200, `{"Error":{"Message":"the pod is gone"},"StatusCode":-1}` + "\n"},
		{"wait refused", "POST", "/v1.49/containers/c/wait", refuse, 404, `{"message":"No such container: c"}` + "\n"},
		{"logs refused", "GET", "/v1.49/containers/c/logs?stdout=1", refuse, 404, `{"message":"No such container: c"}` + "\n"},
		{"logs of nothing", "GET", "/v1.49/containers/c/logs?stdout=1", func(dialect.Session) (neutral.Result, error) { return neutral.Result{}, nil }, 200, ""},
		{"logs fail", "GET", "/v1.49/containers/c/logs?stdout=1", accept(neutral.Result{}, gone), 200, "\x03\x00\x00\x00\x00\x00\x00\x0fthe pod is gone"},
		{"attach fails", "POST", "/v1.49/containers/c/attach?stream=1&stdout=1", accept(neutral.Result{}, gone), 200, "\x03\x00\x00\x00\x00\x00\x00\x0fthe pod is gone"},
		{"pull", "POST", "/v1.49/images/create?fromImage=a", func(s dialect.Session) (neutral.Result, error) {
			return neutral.Result{}, s.Progress("latest", "pulled by the nodes")
		}, 200, `{"status":"pulled by the nodes","id":"latest"}` + "\r\n"},
		{"pull fails", "POST", "/v1.49/images/create?fromImage=a", accept(neutral.Result{}, gone), 200, `{"errorDetail":{"code":503,"message":"the pod is gone"},"error":"the pod is gone"}` + "\n"},
		{"detached", "POST", "/v1.49/containers/c/attach?stream=1&stdin=1", accept(neutral.Result{}, fmt.Errorf("copy: %w", errDetached)), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := record(t, c.method, c.path, "", c.drive)
			if res.Code != c.status || res.Body.String() != c.body {
				t.Errorf("%d %q", res.Code, res.Body)
			}
			if res.Header().Get("Api-Version") != APIVersion {
				t.Errorf("headers %v", res.Header())
			}
		})
	}
}

// TestSessionCut ends a stream that has no place for an error: over HTTP/1 and HTTP/2 the client must see that it is cut.
func TestSessionCut(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %v", http2), func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				op, err := Dialect{}.Classify(dialect.Request{Method: r.Method, Path: r.URL.RequestURI()})
				if err != nil {
					t.Error(err)
				}
				s := Dialect{}.Session(op, w, r)
				if err := s.Event(neutral.Event{Time: epoch, Kind: neutral.KindContainer, Action: "start", ID: "x"}); err != nil {
					t.Error(err)
				}
				if err := s.Close(neutral.Result{}, errors.New("the watch broke")); err != nil {
					t.Error(err)
				}
			}))
			server.EnableHTTP2 = http2
			server.StartTLS()
			t.Cleanup(server.Close)
			res, err := server.Client().Get(server.URL + "/v1.49/events")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if want := map[bool]int{false: 1, true: 2}[http2]; res.ProtoMajor != want {
				t.Fatalf("HTTP/%d", res.ProtoMajor)
			}
			decoder := json.NewDecoder(res.Body)
			var first map[string]any
			if err := decoder.Decode(&first); err != nil {
				t.Fatal(err)
			}
			if first["status"] != "start" || first["Action"] != "start" || first["id"] != "x" || first["timeNano"] != float64(epoch.UnixNano()) {
				t.Errorf("%v", first)
			}
			if err := decoder.Decode(&first); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the client sees a good end: %v", err)
			}
		})
	}
}

// noDeadline is a writer that can neither be cut nor flushed.
type noDeadline struct{ http.ResponseWriter }

func TestSessionCutWithoutDeadlines(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/v1.49/events", nil)
	s := Dialect{}.Session(neutral.Operation{Action: neutral.EventWatch}, noDeadline{httptest.NewRecorder()}, r)
	if err := s.Accept(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("panic %v", err)
		}
	}()
	_ = s.Close(neutral.Result{}, errors.New("broke"))
	t.Error("the stream ended as if all were well")
}

// TestSessionStdin types on a terminal: the detach keys end the session, a part of them does not.
func TestSessionStdin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, typed, keys, want string
		tty, detaches           bool
	}{
		{"plain", "hello\x10\x11 there", "", "hello\x10\x11 there", false, false},
		{"default keys", "hello\x10\x11 there", "", "hello", true, true},
		{"half of them", "a\x10b\x10", "", "a\x10b\x10", true, false},
		{"again", "a\x10\x10\x11b", "", "a\x10", true, true},
		{"own keys", "axb", "x", "a", true, true},
		{"own keys twice", "axxyb", "x,y", "ax", true, true},
	} {
		for _, at := range []string{"whole", "byte by byte"} {
			t.Run(c.name+" "+at, func(t *testing.T) {
				t.Parallel()
				var source io.Reader = strings.NewReader(c.typed)
				if at != "whole" {
					source = oneByte{source}
				}
				r := httptest.NewRequest(http.MethodPost, "/v1.49/containers/c/attach", source)
				op := neutral.Operation{Action: neutral.ContainerAttach, Extra: map[string]string{extraDetachKeys: c.keys},
					Attach: &neutral.AttachOptions{Stdin: true, Stdout: true, Stream: true, TTY: c.tty}}
				s := Dialect{}.Session(op, httptest.NewRecorder(), r)
				got, err := io.ReadAll(s.Stdin())
				if string(got) != c.want || errors.Is(err, errDetached) != c.detaches || !c.detaches && err != nil {
					t.Errorf("%q %v", got, err)
				}
				if err := s.Output(chunk(neutral.Stdout, "x")); errors.Is(err, errDetached) != c.detaches {
					t.Errorf("output after it: %v", err)
				}
			})
		}
	}
}

type oneByte struct{ io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.Reader.Read(p[:1]) }

func TestSessionWithoutStdin(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodPost, "/v1.49/containers/c/attach", strings.NewReader("typed"))
	op := neutral.Operation{Action: neutral.ContainerAttach, Attach: &neutral.AttachOptions{Stdout: true, Stream: true}}
	if s := (Dialect{}).Session(op, httptest.NewRecorder(), r); s.Stdin() != nil {
		t.Error("stdin is carried though the caller did not attach it")
	}
}

// TestSessionFlushesAtOnce waits for the headers of a wait while it lasts: docker run starts the container after them.
func TestSessionFlushesAtOnce(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := Dialect{}.Session(neutral.Operation{Action: neutral.ContainerWait}, w, r)
		if err := s.Accept(); err != nil {
			t.Error(err)
		}
		<-end
		if err := s.Close(neutral.Result{ExitCode: 3}, nil); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1.49/containers/c/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	close(end)
	if err != nil {
		t.Fatalf("no headers before the end: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || strings.TrimSpace(string(body)) != `{"StatusCode":3}` || res.Header.Get("Content-Type") != jsonMediaType {
		t.Errorf("%q %v %v", body, err, res.Header)
	}
}

func TestEventFilters(t *testing.T) {
	t.Parallel()
	event := neutral.Event{Kind: neutral.KindContainer, Action: "health_status: healthy", ID: "abc", Attributes: map[string]string{"name": "web", "app": "x"}}
	for path, want := range map[string]bool{
		`{}`:                                      true,
		`{"type":{"container":true}}`:             true,
		`{"type":{"image":true}}`:                 false,
		`{"event":{"health_status":true}}`:        true,
		`{"event":{"die":true}}`:                  false,
		`{"container":{"web":true}}`:              true,
		`{"container":{"/web":true}}`:             true,
		`{"container":{"ab":true}}`:               true,
		`{"container":{"other":true}}`:            false,
		`{"service":{"web":true}}`:                false,
		`{"label":{"app=x":true}}`:                true,
		`{"label":{"app":true}}`:                  true,
		`{"label":{"app=y":true}}`:                false,
		`{"label":{"app=x":true,"other=1":true}}`: false,
	} {
		set, err := parseFilters(path)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		q := &query{values: map[string][]string{"filters": {string(raw)}}}
		if _, ok := eventToDocker(neutral.Operation{Filter: q.events()}, event); ok != want || q.err != nil {
			t.Errorf("%s: %v %v", path, ok, q.err)
		}
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	head := dialect.Request{Method: "POST", Path: "/v1.49/containers/c/start"}
	secret := errors.New("dial tcp 10.0.0.1:6443: connection refused")
	for _, c := range []struct {
		err    error
		status int
		body   string
	}{
		{fault.New(fault.NotFound, "No such container: c"), 404, "No such container: c"},
		{fault.New(fault.Denied, "west may not start containers"), 403, "no permission: west may not start containers"},
		{fault.New(fault.Denied, "no permission: x"), 403, "no permission: x"},
		{fault.New(fault.NotModified, "already"), 304, ""},
		{fault.New(fault.Unprocessable, "bad spec"), 400, "bad spec"},
		{fault.New(fault.Conflict, "is in use"), 409, "is in use"},
		{fault.New(fault.Unsupported, "pause"), 501, "pause"},
		{fault.New(fault.TooLarge, "big"), 413, "big"},
		{fault.New(fault.Exhausted, "slow down"), 429, "slow down"},
		{fault.Wrap(fault.Unavailable, secret, "the orchestrator cannot be reached"), 503, "the orchestrator cannot be reached"},
		{fmt.Errorf("wrapped: %w", secret), 500, "internal error of the gateway"},
		{context.DeadlineExceeded, 503, "the orchestrator did not answer in time"},
		{&fault.Error{Kind: fault.Invalid, Field: "HostConfig.Memory", Message: "is wrong"}, 400, "HostConfig.Memory: is wrong"},
	} {
		res := Dialect{}.Refuse(head, c.err)
		if res.Status != c.status {
			t.Errorf("%v: %d", c.err, res.Status)
		}
		if c.body == "" {
			if len(res.Body) != 0 {
				t.Errorf("%v: a body %q", c.err, res.Body)
			}
			continue
		}
		var body map[string]string
		if err := json.Unmarshal(res.Body, &body); err != nil || len(body) != 1 || body["message"] != c.body {
			t.Errorf("%v: %q", c.err, res.Body)
		}
		if res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: content type %q", c.err, res.Header.Get("Content-Type"))
		}
	}
	if res := (Dialect{}).Refuse(dialect.Request{Method: "HEAD", Path: "/x"}, errPage); len(res.Body) != 0 || res.Status != 404 {
		t.Errorf("HEAD: %d %q", res.Status, res.Body)
	}
}
