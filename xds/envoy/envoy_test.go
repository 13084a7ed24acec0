package envoy

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func TestBootstrap(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"plain":   {Node: "east-1", Cluster: "east", RunDir: "/run/isthmus"},
		"limited": {Node: "east-1", Cluster: "east", RunDir: "/run/isthmus", MaxConnections: 100, MaxMemory: 1 << 30},
	} {
		document, err := Bootstrap(o)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(document, &v); err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(v, "", "  ") // protojson's own spacing varies
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "bootstrap_"+name+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil { //nolint:gosec // testdata is for all to read
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytes.TrimSpace(want), got) {
			t.Errorf("%s differs from its golden; run with -update and review:\n%s", name, got)
		}
	}
}

func TestOptionsInvalid(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{}, {Node: "n", Cluster: "c", RunDir: "run"}, {Node: "n", RunDir: "/run"}, {Cluster: "c", RunDir: "/run"},
		{Node: "n", Cluster: "c", RunDir: "/run", Concurrency: -1}, {Node: "n", Cluster: "c", RunDir: "/run", MaxMemory: -1},
	} {
		if _, err := Bootstrap(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if _, err := New(Config{Options: Options{Node: "n", Cluster: "c", RunDir: "/run"}}); err == nil {
		t.Error("no binary is taken")
	}
}

func TestParseStart(t *testing.T) {
	t.Parallel()
	own, err := startTicks(os.Getpid())
	if err != nil || own == 0 {
		t.Errorf("%d %v", own, err)
	}
	stat := "42 (a) b) c) S" + strings.Repeat(" 1", 18) + " 777 9"
	if n, err := parseStart([]byte(stat)); err != nil || n != 777 {
		t.Errorf("%d %v", n, err)
	}
	for _, bad := range []string{"", "42 (x", "42 (x) S 1 2", "42 (x) S" + strings.Repeat(" 1", 18) + " x"} {
		if _, err := parseStart([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add([]byte("42 (a) b) S 1 2"))
	f.Add([]byte(""))
	f.Fuzz(func(_ *testing.T, stat []byte) { _, _ = parseStart(stat) })
}

// TestFind finds the one process that was started for a run directory, and no other.
func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if p := find(dir); p != nil {
		t.Fatalf("found %d", p.pid)
	}
	cmd := exec.Command("sleep", "60")
	cmd.Args = []string{"sleep", "60"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ticks, err := startTicks(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// A record that names a process of the right number and start, but another program.
	b, err := json.Marshal(record{PID: cmd.Process.Pid, Start: ticks, Boot: bootID(), Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordFile(dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if p := find(dir); p != nil {
		t.Errorf("a stranger's process %d was taken for envoy", p.pid)
	}
}

// TestAdoptedEnd notices the end of a process that is no child, and signals it.
func TestAdoptedEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", "exec sleep 60 # ")
	cmd.Args = []string{"/bin/sh", "-c", "while :; do sleep 1; done", "--config-path", bootstrapFile(dir)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	var p *process
	for deadline := time.Now().Add(5 * time.Second); p == nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		p = find(dir)
	}
	if p == nil || p.pid != cmd.Process.Pid || !p.adopted {
		_ = cmd.Process.Kill()
		t.Fatalf("%+v", p)
	}
	select {
	case <-p.done:
		t.Fatal("it ended by itself")
	case <-time.After(50 * time.Millisecond):
	}
	p.kill()
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		t.Fatal("its end was not noticed")
	}
	p.kill() // signals nobody
}

// TestDoesNotStart is about an Envoy that ends at once: it is tried again, and the status says why.
func TestDoesNotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "envoy")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no such thing >&2\nexit 3\n"), 0o700); err != nil { //nolint:gosec // it must run
		t.Fatal(err)
	}
	s, err := New(Config{Options: Options{Node: "n", Cluster: "c", RunDir: dir}, Binary: broken, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		st := s.Status()
		if st.Restarts >= 2 && strings.Contains(st.LastExit, "exit status 3: no such thing") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", st)
		}
	}
}

func TestLogIsPutAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "envoy.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxLog+1); err != nil {
		t.Fatal(err)
	}
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString("one\ntwo\n")
	_ = f.Close()
	if tail := logTail(path); tail != "two" {
		t.Errorf("%q", tail)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() != maxLog+1 {
		t.Errorf("%v %v", info, err)
	}
}

func TestCountUnderWay(t *testing.T) {
	t.Parallel()
	const idle = `http.admin.downstream_cx_active: 1
http.admin.downstream_rq_active: 1
http.edge-local.downstream_cx_active: 2
http.edge-local.downstream_rq_active: 0
http.peer.downstream_cx_active: 3
http.peer.downstream_rq_active: 0
listener.0.0.0.0_15443.downstream_cx_active: 3
listener.0.0.0.0_15443.worker_0.downstream_cx_active: 3
listener._run_edge.sock.downstream_cx_active: 2
listener.127.0.0.1_18080.downstream_cx_active: 0
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
`
	for _, test := range []struct {
		stats string
		want  int
	}{
		{"", 0}, {idle, 0},
		{strings.Replace(idle, "peer.downstream_rq_active: 0", "peer.downstream_rq_active: 2", 1), 2},
		{strings.Replace(idle, "18080.downstream_cx_active: 0", "18080.downstream_cx_active: 1", 1), 1}, // raw TCP
	} {
		if got, err := countUnderWay(test.stats); err != nil || got != test.want {
			t.Errorf("%d, %v, want %d of\n%s", got, err, test.want, test.stats)
		}
	}
	if n, err := countUnderWay("http.peer.downstream_rq_active: many"); err == nil {
		t.Errorf("%d of what is no number", n)
	}
}

func TestCountLimited(t *testing.T) {
	t.Parallel()
	for stats, want := range map[string]Limited{
		"":                    {}, // no limit has made a counter
		statPerSecond + ": 7": {PerSecond: 7},
		statPerSecond + ": 7\n" + statUnderWay + ": 12\n": {PerSecond: 7, UnderWay: 12},
	} {
		if got, err := countLimited(stats); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v of\n%s", got, err, want, stats)
		}
	}
	if n, err := countLimited(statUnderWay + ": many"); err == nil {
		t.Errorf("%+v of what is no number", n)
	}
}
