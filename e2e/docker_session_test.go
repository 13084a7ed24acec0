package e2e

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// heard is a session that keeps what it is given.
type heard struct {
	input   io.Reader
	resizes chan neutral.Size

	mu       sync.Mutex
	accepted chan struct{}
	once     sync.Once
	output   strings.Builder
	errors   strings.Builder
	chunks   []neutral.Chunk
	events   []neutral.Event
	usages   []neutral.Usage
	stat     *neutral.FileStat
}

func hearing(input io.Reader) *heard { return &heard{input: input, accepted: make(chan struct{})} }

func (h *heard) Accept() error {
	h.once.Do(func() { close(h.accepted) })
	return nil
}

func (h *heard) Output(chunk neutral.Chunk) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	chunk.Data = append([]byte(nil), chunk.Data...)
	h.chunks = append(h.chunks, chunk)
	if chunk.Stream == neutral.Stderr {
		h.errors.Write(chunk.Data)
	} else {
		h.output.Write(chunk.Data)
	}
	return h.Accept()
}

func (h *heard) Event(event neutral.Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event)
	return nil
}

func (h *heard) Measured(usage neutral.Usage) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.usages = append(h.usages, usage)
	return nil
}

func (h *heard) Progress(string, string) error { return nil }

func (h *heard) Stat(stat neutral.FileStat) { h.stat = &stat }

func (h *heard) Stdin() io.Reader { return h.input }

func (h *heard) Resizes() <-chan neutral.Size { return h.resizes }

func (h *heard) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.output.String()
}

// words are the events of a kind, in their order.
func (h *heard) words(kind neutral.Kind, name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var words []string
	for _, e := range h.events {
		if e.Kind == kind && e.Attributes["name"] == name {
			words = append(words, e.Action)
		}
	}
	return strings.Join(words, " ")
}

// stream carries a streamed operation out.
func (p *planned) stream(ctx context.Context, op neutral.Operation, session neutral.Session) (neutral.Result, error) {
	plan, err := p.plan(op)
	if err != nil {
		return neutral.Result{}, err
	}
	return plan.Stream(ctx, session)
}

func (p *planned) hear(op neutral.Operation, input string) (*heard, neutral.Result) {
	p.t.Helper()
	h := hearing(nil)
	if input != "" {
		h.input = strings.NewReader(input)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	result, err := p.stream(ctx, op, h)
	if err != nil {
		p.t.Fatalf("%s %s: %v, after %q", op.Action, op.Ref, err, h.text())
	}
	return h, result
}

// TestDockerPlansContainers makes, uses and removes containers.
func TestDockerPlansContainers(t *testing.T) {
	scripting(t)
	defer turn("docker-plans-containers")()
	p := plannedOn(t, "west")
	watch, watched := context.WithCancel(t.Context())
	events, ended := hearing(nil), make(chan error, 1)
	go func() {
		_, err := p.stream(watch, neutral.Operation{Action: neutral.EventWatch}, events)
		ended <- err
	}()
	<-events.accepted

	p.do(neutral.Operation{Action: neutral.ConfigCreate, File: &neutral.StoredFile{Name: "page", Data: []byte("from a config\n")}})
	grace := 1
	c := neutral.Container{Name: "web", Image: demo.Image, Entrypoint: []string{"sh", "-c"},
		Command: []string{"cat /www/page; echo oops >&2; echo $WORD; exec sleep 600"}, Env: []string{"WORD=yes"}, Labels: map[string]string{"app": "web"},
		StopTimeout: &grace, Resources: neutral.Resources{Memory: 64 << 20, MilliCPU: 500, MilliCPUReserved: 100}, Hostname: "h",
		Mounts:   []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}, {Type: "tmpfs", Target: "/tmp", Size: 1 << 20}},
		Files:    []neutral.MountedFile{{Kind: neutral.KindConfig, Name: "page", Target: "/www/page", Mode: 0o444}},
		Networks: []neutral.NetworkAttachment{{Name: "default", Aliases: []string{"www"}}, {Name: "other"}}, User: "0",
		Ports:    []neutral.Port{{Container: 80, Protocol: "tcp"}, {Container: 81, Protocol: "tcp", Publish: true, HostMode: true}},
		Security: neutral.Security{CapAdd: []string{"CAP_NET_ADMIN"}, NoNewPrivileges: true}, ExtraHosts: []string{"db:10.1.2.3"},
		Restart: neutral.RestartPolicy{Mode: neutral.RestartOnFailure, Max: 2},
		Origin:  &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(`{"kind":"Pod"}`)}}
	created := p.do(neutral.Operation{Action: neutral.ContainerCreate, Container: &c})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for _, name := range []string{"web", "renamed", "tty", "task"} {
			_, _ = p.try(ctx, neutral.Operation{Action: neutral.ContainerRemove, Ref: name, Remove: &neutral.RemoveOptions{Force: true, Volumes: true}})
		}
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.WorkloadRemove, Ref: "svc"})
	})
	if len(created.Losses) > 0 || created.Container.State.Status != neutral.StatusCreated || created.Container.Name != "web" {
		t.Errorf("created %+v", created)
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.ContainerCreate, Container: &c})
	read := func(ref string) neutral.Container {
		return *p.do(neutral.Operation{Action: neutral.ContainerInspect, Ref: ref}).Container
	}
	p.do(neutral.Operation{Action: neutral.ContainerStart, Ref: "web"})
	p.refuses(fault.NotModified, neutral.Operation{Action: neutral.ContainerStart, Ref: "web"})
	now := read(created.ID[:20])
	if now.State.Status != neutral.StatusRunning || now.State.StartedAt.IsZero() || now.Namespace != p.namespace || now.Origin == nil ||
		string(now.Origin.Spec) != `{"kind":"Pod"}` || now.Labels["app"] != "web" || now.Mounts[0].Source != "data" || now.Mounts[1].Size != 1<<20 ||
		now.Resources != c.Resources || len(now.Files) != 1 || now.Files[0] != c.Files[0] || len(now.Networks) != 2 || now.Networks[0].Name != "default" ||
		len(now.Networks[0].Aliases) != 1 || now.Networks[0].ID == "" || now.Ports[1].Published == 0 || !now.Security.NoNewPrivileges ||
		now.Restart != c.Restart || now.Hostname != "h" || now.Owner != nil || now.ExtraHosts[0] != "db:10.1.2.3" || *now.StopTimeout != 1 ||
		now.Network != neutral.NetworkBridge || now.User != "0" {
		t.Errorf("container %+v", now)
	}
	p.until("it has written", func() bool {
		h, _ := p.hear(neutral.Operation{Action: neutral.ContainerLogs, Ref: "web", Logs: &neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1, Timestamps: true}}, "")
		return h.text() == "from a config\nyes\n" && h.errors.String() == "oops\n" && len(h.chunks) == 3 && time.Since(h.chunks[0].Time) < time.Minute
	})
	if h, _ := p.hear(neutral.Operation{Action: neutral.ContainerLogs, Ref: "web", Logs: &neutral.LogOptions{Stdout: true, Stderr: true, Tail: 2}}, ""); len(h.chunks) != 2 || !h.chunks[0].Time.IsZero() {
		t.Errorf("the last two lines are %+v", h.chunks)
	}
	follow, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	if _, err := p.stream(follow, neutral.Operation{Action: neutral.ContainerLogs, Ref: "web",
		Logs: &neutral.LogOptions{Stdout: true, Follow: true, Tail: -1}}, hearing(nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a log that is followed ends with %v", err)
	}

	exec := func(spec neutral.ExecSpec, input string) (*heard, int) {
		t.Helper()
		if found := p.do(neutral.Operation{Action: neutral.ExecCreate, Ref: "web", Exec: &spec}); found.Container.ID != created.ID {
			t.Errorf("an exec in %+v", found.Container)
		}
		h, result := p.hear(neutral.Operation{Action: neutral.ExecStart, Ref: "web", Exec: &spec, Attach: &neutral.AttachOptions{Stdin: spec.Stdin}}, input)
		return h, result.ExitCode
	}
	h, code := exec(neutral.ExecSpec{Command: []string{"sh", "-c", "cat; echo $A; pwd; echo bad >&2; exit 7"}, Env: []string{"A=b"}, WorkingDir: "/data",
		Stdin: true, Stdout: true, Stderr: true}, "in\n")
	if h.text() != "in\nb\n/data\n" || h.errors.String() != "bad\n" || code != 7 {
		t.Errorf("exec: %q, %q, %d", h.text(), h.errors.String(), code)
	}
	if h, code := exec(neutral.ExecSpec{Command: []string{"/nothing"}, Stdout: true}, ""); code != 126 && code != 127 || !strings.Contains(h.text(), "nothing") {
		t.Errorf("a command that is not there: %d, %q", code, h.text())
	}
	if h, code := exec(neutral.ExecSpec{Command: []string{"sh", "-c", `until stty size | grep "33 77"; do sleep 0.1; done`}, TTY: true, Stdout: true, Size: &neutral.Size{Rows: 33, Columns: 77}}, ""); code != 0 ||
		!strings.Contains(h.text(), "33 77") {
		t.Errorf("a terminal: %d, %q", code, h.text())
	}
	p.refuses(fault.Invalid, neutral.Operation{Action: neutral.ExecCreate, Ref: "web", Exec: &neutral.ExecSpec{}})
	if top := p.do(neutral.Operation{Action: neutral.ContainerTop, Ref: "web"}).Top; len(top.Processes) != 1 {
		t.Errorf("top %+v", top)
	}
	if h, _ := p.hear(neutral.Operation{Action: neutral.ContainerStats, Ref: "web", Usage: &neutral.UsageOptions{Once: true}}, ""); len(h.usages) != 1 ||
		h.usages[0].Memory == 0 || h.usages[0].MemoryLimit != 64<<20 || h.usages[0].CPU == 0 || len(h.usages[0].Networks) == 0 {
		t.Errorf("usage %+v", h.usages)
	}

	// Files go out and in.
	if stat := p.do(neutral.Operation{Action: neutral.ContainerStat, Ref: "web", Copy: &neutral.CopyOptions{Path: "/www/page"}}).File; stat.Size != 14 || stat.Name != "page" {
		t.Errorf("stat %+v", stat)
	}
	archive, _ := p.hear(neutral.Operation{Action: neutral.ContainerCopyOut, Ref: "web", Copy: &neutral.CopyOptions{Path: "/www/page"}}, "")
	if archive.stat == nil || archive.stat.Name != "page" {
		t.Errorf("the archive is of %+v", archive.stat)
	}
	p.hear(neutral.Operation{Action: neutral.ContainerCopyIn, Ref: "web", Copy: &neutral.CopyOptions{Path: "/data"}}, archive.text())
	if h, _ := exec(neutral.ExecSpec{Command: []string{"cat", "/data/page"}, Stdout: true}, ""); h.text() != "from a config\n" {
		t.Errorf("what was copied is %q", h.text())
	}

	p.do(neutral.Operation{Action: neutral.ContainerPause, Ref: "web"})
	if read("web").State.Status != neutral.StatusPaused {
		t.Error("it is not paused")
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.ExecCreate, Ref: "web", Exec: &neutral.ExecSpec{Command: []string{"true"}}})
	p.do(neutral.Operation{Action: neutral.ContainerUnpause, Ref: "web"})
	p.do(neutral.Operation{Action: neutral.ContainerUpdate, Ref: "web", Container: &neutral.Container{Resources: neutral.Resources{Memory: 128 << 20}}})
	if r := read("web").Resources; r.Memory != 128<<20 || r.MilliCPU != 500 {
		t.Errorf("updated to %+v", r)
	}
	waiting, waited := hearing(nil), make(chan int, 1)
	go func() {
		result, err := p.stream(t.Context(), neutral.Operation{Action: neutral.ContainerWait, Ref: "web", Wait: neutral.WaitNextExit}, waiting)
		if err != nil {
			result.ExitCode = -1
		}
		waited <- result.ExitCode
	}()
	<-waiting.accepted
	p.do(neutral.Operation{Action: neutral.ContainerRestart, Ref: "web"})
	if code := <-waited; code != 137 {
		t.Errorf("it ended with %d", code)
	}
	p.do(neutral.Operation{Action: neutral.ContainerStop, Ref: "web"})
	p.refuses(fault.NotModified, neutral.Operation{Action: neutral.ContainerStop, Ref: "web"})
	if list := p.do(neutral.Operation{Action: neutral.ContainerList}).Containers; len(list) != 0 {
		t.Errorf("what runs: %+v", list)
	}
	if list := p.do(neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true, Labels: []string{"app=web"}}}).Containers; len(list) != 1 || list[0].Name != "web" {
		t.Errorf("all: %+v", list)
	}
	if pruned := p.do(neutral.Operation{Action: neutral.ContainerPrune}).Removed; len(pruned) != 1 || pruned[0] != created.ID {
		t.Errorf("pruned %v", pruned)
	}
	p.refuses(fault.NotFound, neutral.Operation{Action: neutral.ContainerInspect, Ref: created.ID})
	p.refuses(fault.Unsupported, neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Image: demo.Image,
		Files: []neutral.MountedFile{{Kind: neutral.KindSecret, Name: "key", Target: "/k"}}}})

	terminal(p)
	ownedByService(p)
	p.do(neutral.Operation{Action: neutral.ConfigRemove, Ref: "page"})
	p.until("the events are told", func() bool {
		return strings.Contains(events.words(neutral.KindConfig, "page"), "create remove")
	})
	words := events.words(neutral.KindContainer, "web")
	for _, word := range []string{"create ", "start", "exec_start: cat /data/page", "pause unpause", "update", "die", "restart", "stop", "destroy"} {
		if !strings.Contains(words, word) {
			t.Errorf("events of the container: %s, without %q", words, word)
		}
	}
	if words := events.words(neutral.KindContainer, "renamed"); !strings.HasSuffix(words, "destroy") || !strings.HasPrefix(words, "rename") {
		events.mu.Lock()
		t.Errorf("events of the renamed container: %s; of all: %+v", words, events.events)
		events.mu.Unlock()
	}
	watched()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the events ended with %v", err)
	}
	for _, e := range events.events {
		if e.Namespace != p.namespace && e.Kind != neutral.KindNode {
			t.Errorf("an event of another namespace: %+v", e)
		}
		for key := range e.Attributes {
			if strings.HasPrefix(key, "isthmus.io/origin") {
				t.Errorf("an event tells %s", key)
			}
		}
	}
}

// terminal attaches to a terminal before it is there.
func terminal(p *planned) {
	p.t.Helper()
	p.do(neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Name: "tty", Image: demo.Image, TTY: true, Stdin: true,
		Command: []string{"sh"}}})
	h, ended := hearing(strings.NewReader("stty size; exit 3\n")), make(chan error, 1)
	h.resizes = make(chan neutral.Size, 1)
	h.resizes <- neutral.Size{Rows: 21, Columns: 71}
	go func() {
		_, err := p.stream(p.t.Context(), neutral.Operation{Action: neutral.ContainerAttach, Ref: "tty",
			Attach: &neutral.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true, TTY: true}}, h)
		ended <- err
	}()
	<-h.accepted
	p.do(neutral.Operation{Action: neutral.ContainerStart, Ref: "tty"})
	if err := <-ended; err != nil || !strings.Contains(h.text(), "exit 3") {
		p.t.Errorf("attached: %q, %v", h.text(), err)
	}
	_, result := p.hear(neutral.Operation{Action: neutral.ContainerWait, Ref: "tty"}, "")
	if result.ExitCode != 3 {
		p.t.Errorf("the terminal ended with %d", result.ExitCode)
	}
	p.do(neutral.Operation{Action: neutral.ContainerRename, Ref: "tty", NewName: "renamed"})
	p.refuses(fault.NotFound, neutral.Operation{Action: neutral.ContainerRemove, Ref: "tty"})
	p.do(neutral.Operation{Action: neutral.ContainerRemove, Ref: "renamed"})
}

// ownedByService reads a service's logs, and may do nothing to the containers of its tasks.
func ownedByService(p *planned) {
	p.t.Helper()
	p.do(neutral.Operation{Action: neutral.WorkloadCreate, Workload: &neutral.Workload{Name: "svc", Mode: neutral.ModeReplicated, Replicas: 2,
		Template: neutral.Container{Image: demo.Image, Entrypoint: []string{"sh", "-c"}, Command: []string{"echo a line; exec sleep 600"}}}})
	var tasks []neutral.Task
	p.until("two tasks run", func() bool {
		tasks = p.do(neutral.Operation{Action: neutral.TaskList, Filter: neutral.Filter{Workloads: []string{"svc"}}}).Tasks
		return len(tasks) == 2 && tasks[0].State == "running" && tasks[1].State == "running"
	})
	p.until("both lines are there", func() bool {
		h, _ := p.hear(neutral.Operation{Action: neutral.WorkloadLogs, Ref: "svc", Logs: &neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1, Timestamps: true}}, "")
		if h.text() != "a line\na line\n" {
			return false
		}
		for _, chunk := range h.chunks {
			if chunk.Context == nil || !strings.HasPrefix(chunk.Context.Name, "svc.") || chunk.Context.Node == "" || chunk.Time.IsZero() {
				p.t.Errorf("a line of %+v at %s", chunk.Context, chunk.Time)
			}
		}
		return true
	})
	if h, _ := p.hear(neutral.Operation{Action: neutral.TaskLogs, Ref: tasks[0].ID, Logs: &neutral.LogOptions{Stdout: true, Tail: -1}}, ""); h.text() != "a line\n" ||
		h.chunks[0].Context.ID != tasks[0].ID {
		p.t.Errorf("the task's log is %q of %+v", h.text(), h.chunks)
	}
	id := tasks[0].Container.ID
	c := p.do(neutral.Operation{Action: neutral.ContainerInspect, Ref: id}).Container
	if c.Owner == nil || c.Owner.Kind != "Service" || c.Owner.Name != "svc" || c.Owner.Namespace != p.namespace || c.Namespace != p.namespace {
		p.t.Errorf("the container of a task: %+v, %s", c.Owner, c.Namespace)
	}
	for _, action := range []neutral.Action{neutral.ContainerStop, neutral.ContainerKill, neutral.ContainerRemove, neutral.ContainerPause,
		neutral.ContainerRestart, neutral.ContainerUpdate, neutral.ContainerRename} {
		op := neutral.Operation{Action: action, Ref: id, Container: &neutral.Container{}, NewName: "mine"}
		if _, err := p.try(p.t.Context(), op); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), p.namespace+"/svc") {
			p.t.Errorf("%s of a task's container: %v", action, err)
		}
	}
	p.do(neutral.Operation{Action: neutral.WorkloadRemove, Ref: "svc"})
}
