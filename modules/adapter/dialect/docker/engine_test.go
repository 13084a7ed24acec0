package docker

import (
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// fakeEngine answers the calls of the outbound half in the words of an engine of API 1.41, from objects that a test
// sets. The real one is in the end-to-end tests.
type fakeEngine struct {
	t      *testing.T
	socket string

	mu         sync.Mutex
	server     *http.Server
	ended      chan struct{}
	containers []object // as the list has them; "inspect" holds what only inspect shows
	networks   []object
	services   []object // nil: not a swarm manager
	leaderless bool
	tasks      []object
	nodes      []object
	others     map[string]object // by path without version
	events     map[chan object]struct{}
	lists      int
	stall      chan struct{}     // containers/json waits for it
	asked      func()            // what happens when tasks are asked for
	hijacks    map[string]string // by path: what a hijacked connection begins with; it stays open until its caller closes it
}

// object is a JSON object.
type object = map[string]any

func newFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{t: t, socket: filepath.Join(dir, "docker.sock"), others: map[string]object{}, events: map[chan object]struct{}{},
		networks: []object{{"Id": "net-bridge", "Name": "bridge", "Driver": "bridge"}, {"Id": "net-overlay", "Name": "ov", "Driver": "overlay"}}}
	t.Cleanup(func() {
		e.stop()
		_ = os.RemoveAll(dir)
	})
	return e
}

// start serves; after stop it starts the engine again.
func (e *fakeEngine) start() {
	e.t.Helper()
	listener, err := net.Listen("unix", e.socket)
	if err != nil {
		e.t.Fatal(err)
	}
	server, ended := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	e.mu.Lock()
	e.server, e.ended = server, ended
	e.mu.Unlock()
	go func() {
		_ = server.Serve(listener)
		close(ended)
	}()
}

func (e *fakeEngine) stop() {
	e.mu.Lock()
	server, ended := e.server, e.ended
	e.server = nil
	e.mu.Unlock()
	if server != nil {
		_ = server.Close()
		<-ended
	}
}

// connect opens the outbound half on the engine.
func (e *fakeEngine) connect() *Cluster {
	e.t.Helper()
	cluster, err := Dialect{}.Connect(e.t.Context(), dialect.Config{Cluster: "west", Endpoint: "unix://" + e.socket,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			e.t.Error(err)
		}
	})
	return cluster.(*Cluster)
}

// set changes what the engine holds.
func (e *fakeEngine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

// tell sends an event to whoever follows.
func (e *fakeEngine) tell(kind, action, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for follower := range e.events {
		follower <- object{"Type": kind, "Action": action, "Actor": object{"ID": id}, "time": time.Now().Unix(), "timeNano": time.Now().UnixNano()}
	}
}

func (e *fakeEngine) listed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lists
}

func (e *fakeEngine) followers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.events)
}

// ServeHTTP is the Engine API.
func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Ostype", "linux")
	path := strings.TrimPrefix(r.URL.Path, "/v1.41")
	if path == "/events" {
		e.serveEvents(w, r)
		return
	}
	e.mu.Lock()
	stall := e.stall
	said, hijack := e.hijacks[path]
	e.mu.Unlock()
	if hijack {
		e.serveHijacked(w, said)
		return
	}
	if path == "/containers/json" && stall != nil {
		select {
		case <-stall:
		case <-r.Context().Done():
			return
		}
	}
	e.mu.Lock()
	status, body := e.answer(path, r)
	e.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		e.t.Logf("answer to %s: %v", path, err)
	}
}

func (e *fakeEngine) serveHijacked(w http.ResponseWriter, said string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.t.Error(err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + said)); err == nil {
		_, _ = io.Copy(io.Discard, buffered)
	}
}

func (e *fakeEngine) answer(path string, r *http.Request) (int, any) {
	if found, ok := e.others[path]; ok {
		return http.StatusOK, found
	}
	switch path {
	case "/_ping":
		return http.StatusOK, "OK"
	case "/info":
		return http.StatusOK, object{"Name": "node-1", "KernelVersion": "6.18", "NCPU": 2, "MemTotal": 1 << 30, "Containers": 3,
			"SystemTime": "2026-11-24T12:00:00.5Z", "Swarm": object{"NodeID": "self", "LocalNodeState": "active",
				"ControlAvailable": e.services != nil, "Nodes": 2}}
	case "/version":
		return http.StatusOK, object{"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}
	case "/containers/json":
		e.lists++
		return http.StatusOK, withLabels(e.containers, r, "Labels")
	case "/networks":
		return http.StatusOK, e.networks
	case "/services":
		if e.services == nil {
			return http.StatusServiceUnavailable, object{"message": "This node is not a swarm manager."}
		}
		if e.leaderless {
			return http.StatusServiceUnavailable, object{"message": "The swarm does not have a leader."}
		}
		return http.StatusOK, withLabels(e.services, r, "Spec", "Labels")
	case "/tasks":
		if e.asked != nil {
			e.asked()
		}
		return http.StatusOK, e.tasks
	case "/nodes":
		return http.StatusOK, e.nodes
	}
	if id, ok := strings.CutPrefix(path, "/containers/"); ok {
		id = strings.TrimSuffix(id, "/json")
		for _, c := range e.containers {
			if c["Id"] == id || slices.Contains(c["Names"].([]string), "/"+id) {
				return http.StatusOK, inspected(c)
			}
		}
		return http.StatusNotFound, object{"message": "No such container: " + id}
	}
	return http.StatusNotFound, object{"message": "no such object: " + path}
}

// withLabels filters by labels as the engine does.
func withLabels(objects []object, r *http.Request, at ...string) []object {
	var filters map[string]map[string]bool
	_ = json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters)
	kept := []object{}
	for _, o := range objects {
		var labels any = o
		for _, key := range at {
			labels = labels.(object)[key]
		}
		all := true
		for want := range filters["label"] {
			key, value, valued := strings.Cut(want, "=")
			got, ok := labels.(map[string]string)[key]
			all = all && ok && (!valued || got == value)
		}
		if all {
			kept = append(kept, o)
		}
	}
	return kept
}

// inspected is a container as inspect has it.
func inspected(c object) object {
	state := c["State"].(string)
	shown := object{"Id": c["Id"], "Name": c["Names"].([]string)[0], "Image": "sha256:1",
		"State":           object{"Status": state, "Running": state == "running" || state == "paused", "Paused": state == "paused"},
		"HostConfig":      c["HostConfig"],
		"NetworkSettings": object{"Networks": c["NetworkSettings"].(object)["Networks"], "Ports": object{}},
		"Config":          object{"Image": "web:1", "Labels": c["Labels"], "Cmd": []string{"serve"}, "ExposedPorts": c["exposed"]}}
	if more, ok := c["inspect"].(object); ok {
		maps.Copy(shown, more)
	}
	return shown
}

func (e *fakeEngine) serveEvents(w http.ResponseWriter, r *http.Request) {
	follower := make(chan object, 100)
	e.mu.Lock()
	e.events[follower] = struct{}{}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.events, follower)
		e.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	control := http.NewResponseController(w)
	_ = control.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-follower:
			_ = json.NewEncoder(w).Encode(event)
			_ = control.Flush()
		}
	}
}

// running is a container of the list. An engine writes an address that it does not have as "".
func running(id, name, mode string, labels map[string]string, networks object, ports ...object) object {
	if networks == nil {
		networks = object{}
	}
	return object{"Id": id, "Names": []string{"/" + name}, "Image": "web:1", "State": "running", "Status": "Up 3 seconds",
		"Labels": labels, "Ports": ports, "HostConfig": object{"NetworkMode": mode}, "NetworkSettings": object{"Networks": networks}}
}

func onNetwork(name, id, address string) object {
	return object{name: object{"NetworkID": id, "IPAddress": address, "GlobalIPv6Address": "", "Gateway": "", "IPv6Gateway": "", "MacAddress": ""}}
}

func listedPort(number int) object { return object{"PrivatePort": number, "Type": "tcp"} }

func exportLabels(more ...string) map[string]string {
	labels := map[string]string{labelExport: "true"}
	for i := 0; i < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	return labels
}
