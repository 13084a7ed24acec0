package docker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// world is an orchestrator in memory, behind the inbound half as the adapter uses it. It answers in neutral terms, so
// that what a docker client makes of the answers is the inbound half's doing alone.
type world struct {
	mu         sync.Mutex
	dialect    Dialect
	containers []neutral.Container
	workloads  []neutral.Workload
	former     *neutral.Workload // what the one that was updated last was
	execs      map[string]neutral.Operation
	files      map[string]string // of every container
}

var epoch = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func newWorld() *world {
	now := epoch.Add(5 * time.Second)
	id := func(c string) string { return strings.Repeat(c, 64) }
	return &world{
		dialect: Dialect{Now: func() time.Time { return now }},
		execs:   map[string]neutral.Operation{},
		files:   map[string]string{"/a": "what is in a"},
		containers: []neutral.Container{
			{ID: id("a"), Name: "web", Image: "busybox:1.36", Command: []string{"sleep", "60"}, CreatedAt: epoch.Add(-time.Second),
				State:   neutral.State{Status: neutral.StatusRunning, StartedAt: epoch, Health: "healthy", Address: "10.0.0.7"},
				Network: neutral.NetworkPod, Mounts: []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}},
				Ports: []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp", HostIP: "10.1.2.3"}, {Container: 53, Protocol: "udp"}}},
			{ID: id("b"), Name: "job", Image: "busybox:1.36", CreatedAt: epoch.Add(-time.Minute),
				State: neutral.State{Status: neutral.StatusExited, ExitCode: 7, OOMKilled: true, FinishedAt: epoch.Add(2 * time.Second)}},
			{ID: id("c"), Name: "fresh", Image: "busybox", CreatedAt: epoch.Add(-time.Hour), State: neutral.State{Status: neutral.StatusCreated}},
			{ID: id("d"), Name: "tty", TTY: true, Image: "busybox", CreatedAt: epoch.Add(-2 * time.Hour), State: neutral.State{Status: neutral.StatusExited}},
			{ID: id("e"), Name: "broken", Image: "busybox", CreatedAt: epoch.Add(-2 * time.Hour), State: neutral.State{Status: neutral.StatusExited}},
			{ID: id("9"), Name: "brokentty", TTY: true, Image: "busybox", CreatedAt: epoch.Add(-2 * time.Hour), State: neutral.State{Status: neutral.StatusExited}},
		},
		workloads: []neutral.Workload{{ID: "shop00000000000000000000a", Name: "shop", Mode: neutral.ModeReplicated, Replicas: 2,
			Running: 1, Desired: 2, Version: "41", CreatedAt: epoch,
			Template: neutral.Container{Image: "nginx:1", Restart: neutral.RestartPolicy{Mode: neutral.RestartAlways},
				Ports: []neutral.Port{{Container: 80, Published: 30080, Publish: true, Protocol: "tcp"}}}}},
	}
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	head := dialect.Request{Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header}
	answer := func(res dialect.Response) {
		for k, v := range res.Header {
			rw.Header()[k] = v
		}
		rw.WriteHeader(res.Status)
		rw.Write(res.Body)
	}
	op, err := w.dialect.Classify(head)
	if err != nil {
		answer(w.dialect.Refuse(head, err))
		return
	}
	if res, ok := w.dialect.Local(op, head, dialect.Target{Cluster: "east"}); ok {
		answer(res)
		return
	}
	if op.Action.Body() || op.Action == neutral.ExecStart {
		if head.Body, err = io.ReadAll(r.Body); err != nil {
			return
		}
	}
	op, losses, err := w.dialect.Decode(op, head)
	detached := op.Attach != nil && op.Attach.Detach // answered at once, as the gateway does
	if err == nil && op.Action.Stream() && !detached {
		w.stream(op, rw, r)
		return
	}
	var result neutral.Result
	if err == nil {
		result, err = w.do(op, losses)
	}
	if err == nil {
		var res dialect.Response
		if res, err = w.dialect.Encode(op, head, result); err == nil {
			answer(res)
			return
		}
	}
	answer(w.dialect.Refuse(head, err))
}

// stream runs a session; a hijack is turned into one as the gateway's front does it.
func (w *world) stream(op neutral.Operation, rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		s := w.dialect.Session(op, rw, r)
		result, err := w.drive(op, s)
		s.Close(result, err)
		return
	}
	conn, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	h := &hijacked{conn: buffered, header: http.Header{}}
	r.Body = io.NopCloser(buffered)
	s := w.dialect.Session(op, h, r)
	result, err := w.drive(op, s)
	s.Close(result, err)
}

// hijacked writes an answer on a hijacked connection, its 200 as a 101.
type hijacked struct {
	conn   *bufio.ReadWriter
	header http.Header
}

func (h *hijacked) Header() http.Header { return h.header }
func (h *hijacked) WriteHeader(status int) {
	text := "101 UPGRADED"
	if status != http.StatusOK {
		text = fmt.Sprintf("%d Error", status)
	}
	h.header.Set("Connection", "Upgrade")
	h.header.Set("Upgrade", "tcp")
	fmt.Fprintf(h.conn, "HTTP/1.1 %s\r\n", text)
	h.header.Write(h.conn)
	io.WriteString(h.conn, "\r\n")
}
func (h *hijacked) Write(p []byte) (int, error) { return h.conn.Write(p) }
func (h *hijacked) FlushError() error           { return h.conn.Flush() }

func (w *world) find(ref string) (*neutral.Container, error) {
	for i := range w.containers {
		if c := &w.containers[i]; c.Name == ref || strings.HasPrefix(c.ID, ref) {
			return c, nil
		}
	}
	return nil, fault.New(fault.NotFound, "No such container: %s", ref)
}

func (w *world) workload(ref string) (*neutral.Workload, error) {
	for i := range w.workloads {
		if c := &w.workloads[i]; c.Name == ref || c.ID == ref {
			return c, nil
		}
	}
	return nil, fault.New(fault.NotFound, "no such service: %s", ref)
}

// service is a copy of a workload.
func (w *world) service(i int) neutral.Workload {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.workloads[i]
}

var someTask = neutral.Task{ID: "task0000000000000000000aa", Name: "shop.1", Workload: "shop00000000000000000000a", Slot: 1,
	NodeID: "node0000000000000000000aa", Node: "node-a", Desired: "running", State: "running", Created: epoch, Updated: epoch,
	Container: neutral.Container{Image: "nginx:1", ID: strings.Repeat("7", 64)}}

var someNode = neutral.Node{ID: "node0000000000000000000aa", Name: "node-a", Hostname: "node-a", Role: "manager", Leader: true, Ready: true,
	OS: "linux", Architecture: "amd64", Engine: "containerd://2.0"}

func (w *world) do(op neutral.Operation, losses []neutral.Loss) (neutral.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := neutral.Result{Losses: losses}
	switch op.Action {
	case neutral.SystemVersion, neutral.SystemInfo:
		r.System = &neutral.System{Name: "east", Version: "v1.34.1", Platform: "Kubernetes", Architecture: "amd64", Running: 1, Nodes: 1, Now: epoch}
	case neutral.ImageList:
		r.Images = []neutral.Image{heldImage}
	case neutral.ImageInspect:
		if !strings.Contains(op.Image, "busybox") {
			return r, fault.New(fault.NotFound, "No such image: %s", op.Image)
		}
		r.Image = &heldImage
	case neutral.VolumeCreate:
		r.Volumes = []neutral.Volume{*op.Volume}
	case neutral.VolumeRemove:
		if op.Ref != "data" {
			return r, fault.New(fault.NotFound, "get %s: no such volume", op.Ref)
		}
	case neutral.VolumePrune:
		r.Removed = []string{"old"}
	case neutral.ContainerStat:
		if op.Copy.Path != "/tmp" {
			return r, fault.New(fault.NotFound, "Could not find the file %s in container %s", op.Copy.Path, op.Ref)
		}
		r.File = &neutral.FileStat{Name: "tmp", Mode: fs.ModeDir | 0o777, Modified: epoch}
	case neutral.NetworkList, neutral.SecretList:
	case neutral.VolumeGet:
		if op.Ref != "data" {
			return r, fault.New(fault.NotFound, "get %s: no such volume", op.Ref)
		}
		r.Volumes = []neutral.Volume{{Name: "data"}}
	case neutral.VolumeList:
		r.Volumes = []neutral.Volume{{Name: "data"}}
	case neutral.ContainerList:
		for _, c := range w.containers {
			if op.Filter.All || c.State.Status == neutral.StatusRunning {
				r.Containers = append(r.Containers, c)
			}
		}
	case neutral.ContainerCreate:
		c := *op.Container
		c.ID, c.Losses, c.CreatedAt = strings.Repeat("f", 63)+fmt.Sprint(len(w.containers)), losses, epoch
		c.State.Status = neutral.StatusCreated
		w.containers = append(w.containers, c)
		r.ID = c.ID
	case neutral.ContainerPrune:
		r.Removed = []string{"fresh"}
	case neutral.ContainerPause:
		return r, fault.New(fault.Unsupported, "pause: not on this cluster")
	case neutral.WorkloadList:
		for _, c := range w.workloads {
			if len(op.Filter.Labels) == 0 {
				r.Workloads = append(r.Workloads, c)
			}
		}
	case neutral.WorkloadCreate:
		c := *op.Workload
		c.ID, c.Version = "made", "1"
		w.workloads = append(w.workloads, c)
		r.ID = c.ID
	case neutral.WorkloadInspect, neutral.WorkloadUpdate, neutral.WorkloadRemove:
		c, err := w.workload(op.Ref)
		if err != nil {
			return r, err
		}
		if op.Action == neutral.WorkloadUpdate {
			if op.Version != c.Version {
				return r, fault.New(fault.Conflict, "update out of sequence")
			}
			id, now := c.ID, *c
			if op.Rollback {
				if w.former == nil {
					return r, fault.New(fault.Conflict, "service %s does not have a previous spec", c.Name)
				}
				op.Workload = w.former
			}
			w.former = &now
			*c = *op.Workload
			c.ID, c.Version = id, op.Version+"0"
		}
		copied := *c
		r.Workload = &copied
	case neutral.TaskList:
		r.Tasks = []neutral.Task{someTask}
	case neutral.TaskInspect:
		if op.Ref != someTask.ID {
			return r, fault.New(fault.NotFound, "task %s not found", op.Ref)
		}
		r.Task = &someTask
	case neutral.NodeList:
		r.Nodes = []neutral.Node{someNode}
	case neutral.NodeInspect:
		if op.Ref != someNode.ID && op.Ref != someNode.Name {
			return r, fault.New(fault.NotFound, "node %s not found", op.Ref)
		}
		r.Node = &someNode
	case neutral.ExecCreate:
		if _, err := w.find(op.Ref); err != nil {
			return r, err
		}
		r.ID = fmt.Sprintf("exec%d", len(w.execs))
		w.execs[r.ID] = op
	case neutral.ExecStart:
	case neutral.ExecInspect:
		code := 4
		r.Exec = &neutral.ExecState{ID: op.Ref, Spec: *w.execs[op.Ref].Exec, ExitCode: &code}
	default:
		c, err := w.find(op.Ref)
		if err != nil {
			return r, err
		}
		if op.Action == neutral.ContainerStart && c.State.Status == neutral.StatusRunning {
			return r, fault.New(fault.NotModified, "already running")
		}
		copied := *c
		r.Container, r.Top = &copied, &neutral.ProcessTable{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"1", "sleep 60"}}}
	}
	return r, nil
}

var heldImage = neutral.Image{ID: "sha256:" + strings.Repeat("1", 64), Tags: []string{"docker.io/library/busybox:1.36"}, Size: 4 << 20, Created: epoch}

func (w *world) drive(op neutral.Operation, s dialect.Session) (neutral.Result, error) {
	var result neutral.Result
	switch op.Action {
	case neutral.EventWatch:
		if err := s.Accept(); err != nil {
			return result, err
		}
		for _, action := range []string{"create", "start"} {
			if err := s.Event(neutral.Event{Time: epoch, Kind: neutral.KindContainer, Action: action, ID: w.containers[0].ID,
				Attributes: map[string]string{"name": "web", "image": "busybox"}}); err != nil {
				return result, err
			}
		}
		return result, nil
	case neutral.ImagePull:
		return result, s.Progress("1.36", "the nodes pull "+op.Image)
	case neutral.WorkloadLogs:
		return result, s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("line of a task\n"), Time: epoch, Context: &someTask})
	case neutral.ExecStart:
		w.mu.Lock()
		made := w.execs[op.Ref]
		w.mu.Unlock()
		if err := s.Accept(); err != nil {
			return result, err
		}
		spec := made.Exec
		if err := s.Output(neutral.Chunk{Stream: neutral.Stderr, Data: fmt.Appendf(nil, "err:%s %v %s", spec.WorkingDir, spec.Env, spec.User)}); err != nil {
			return result, err
		}
		return result, echo(s)
	case neutral.ContainerStats:
		for i := range int64(2) {
			second := time.Duration(i+1) * time.Second
			if _, err := neutral.Measured(s, neutral.Usage{At: epoch.Add(second), ID: w.containers[0].ID, Name: "web", CPU: second / 2, HostCPU: 2 * second,
				CPUs: 2, Memory: 3 << 20, Cache: 1 << 20, MemoryLimit: 8 << 20, Processes: 4, BlockRead: 1000,
				Networks: map[string]neutral.Traffic{"eth0": {ReceivedBytes: 2000, SentBytes: 3000}}}); err != nil {
				return result, err
			}
		}
		return result, nil
	case neutral.ContainerCopyIn:
		archive := tar.NewReader(s.Stdin())
		for {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				return result, nil
			}
			if err != nil {
				return result, err
			}
			content, err := io.ReadAll(archive)
			if err != nil {
				return result, err
			}
			w.mu.Lock()
			w.files[path.Join(op.Copy.Path, header.Name)] = string(content)
			w.mu.Unlock()
		}
	case neutral.ContainerCopyOut:
		w.mu.Lock()
		content, ok := w.files[op.Copy.Path]
		w.mu.Unlock()
		if !ok {
			return result, fault.New(fault.NotFound, "Could not find the file %s in container %s", op.Copy.Path, op.Ref)
		}
		neutral.Stat(s, neutral.FileStat{Name: path.Base(op.Copy.Path), Size: int64(len(content)), Mode: 0o644, Modified: epoch})
		var b bytes.Buffer
		archive := tar.NewWriter(&b)
		header := &tar.Header{Name: path.Base(op.Copy.Path), Size: int64(len(content)), Mode: 0o644, Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(header); err != nil {
			return result, err
		}
		if _, err := io.WriteString(archive, content); err != nil {
			return result, err
		}
		if err := archive.Close(); err != nil {
			return result, err
		}
		return result, s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: b.Bytes()})
	default:
	}
	w.mu.Lock()
	found, err := w.find(op.Ref)
	if err != nil {
		w.mu.Unlock()
		return result, err
	}
	c := *found
	w.mu.Unlock()
	if c.TTY {
		neutral.Terminal(s)
	}
	if err := s.Accept(); err != nil {
		return result, err
	}
	switch op.Action {
	case neutral.ContainerWait:
		result.ExitCode = c.State.ExitCode
		if c.Name == "fore2" {
			result.ExitCode = 3
		}
		return result, nil
	case neutral.ContainerAttach:
		if err := s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("attached output\n")}); err != nil {
			return result, err
		}
		return result, echo(s)
	default:
	}
	switch {
	case strings.HasPrefix(c.Name, "broken"):
		if err := s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("one\n")}); err != nil {
			return result, err
		}
		return result, fault.New(fault.Unavailable, "the pod is gone")
	case c.TTY:
		return result, s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("raw\r\n")})
	}
	for i, line := range []string{"one\n", "two\n"} {
		if op.Logs.Tail == 1 && i == 0 {
			continue
		}
		if err := s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte(line), Time: epoch.Add(time.Duration(i+1) * time.Second)}); err != nil {
			return result, err
		}
	}
	return result, nil
}

// echo gives back what the caller sends.
func echo(s dialect.Session) error {
	in := s.Stdin()
	if in == nil {
		return nil
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return s.Output(neutral.Chunk{Stream: neutral.Stdout, Data: data})
}
