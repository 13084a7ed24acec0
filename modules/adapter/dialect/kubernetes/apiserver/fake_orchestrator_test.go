package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeOrchestrator keeps in memory what a swarm of one node would: its tasks run as soon as they are asked for. The real
// one is in the end-to-end tests.
type fakeOrchestrator struct {
	mu         sync.Mutex
	next       int
	workloads  []neutral.Workload
	tasks      []neutral.Task
	containers []neutral.Container
	files      map[neutral.Kind][]neutral.StoredFile
	volumes    []neutral.Volume
	watching   map[chan neutral.Event]bool
	broken     error         // what everything is answered with
	kill       int           // after so many writes of containers everything breaks, where it is not 0
	faster     bool          // somebody else starts what was made at once
	held       chan struct{} // what is to be stopped waits until it is closed; nil is not at all
	waiting    atomic.Int32  // how many wait for an initial container
	ends       chan struct{} // an initial container that is waited for ends when it is closed; nil is at once
}

func newFakeOrchestrator() *fakeOrchestrator {
	return &fakeOrchestrator{files: map[neutral.Kind][]neutral.StoredFile{}, watching: map[chan neutral.Event]bool{}}
}

func (f *fakeOrchestrator) id(prefix string) string {
	f.next++
	return fmt.Sprintf("%s%0*d", prefix, 25-len(prefix), f.next)
}

func (f *fakeOrchestrator) tell(e neutral.Event) {
	e.Time = time.Now()
	for c := range f.watching {
		select {
		case c <- e:
		default:
		}
	}
}

func notFound(ref string) error { return fault.New(fault.NotFound, "%s not found", ref) }

// Do does it.
func (f *fakeOrchestrator) Do(_ context.Context, op neutral.Operation) (neutral.Result, error) {
	if op.Action == neutral.ContainerStop && f.held != nil {
		<-f.held
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return neutral.Result{}, f.broken
	}
	switch op.Action {
	case neutral.NodeList:
		return neutral.Result{Nodes: []neutral.Node{{ID: "node1", Name: "west-1", Hostname: "west-1", Role: "manager", Ready: true,
			Availability: "active", OS: "linux", Architecture: "x86_64", Engine: "29.0", MilliCPU: 2000, Memory: 1 << 30}}}, nil
	case neutral.WorkloadList:
		return neutral.Result{Workloads: slices.Clone(f.workloads)}, nil
	case neutral.WorkloadInspect:
		i := slices.IndexFunc(f.workloads, func(w neutral.Workload) bool { return w.ID == op.Ref })
		if i < 0 {
			return neutral.Result{}, notFound(op.Ref)
		}
		w := f.workloads[i]
		return neutral.Result{Workload: &w}, nil
	case neutral.TaskList:
		return neutral.Result{Tasks: slices.Clone(f.tasks)}, nil
	case neutral.ContainerList:
		all := slices.Clone(f.containers)
		for i := range all {
			all[i].Members = slices.Clone(all[i].Members)
		}
		return neutral.Result{Containers: all}, nil
	case neutral.ContainerInspect:
		i := slices.IndexFunc(f.containers, func(c neutral.Container) bool { return c.ID == op.Ref })
		if i < 0 {
			return neutral.Result{}, notFound(op.Ref)
		}
		c := f.containers[i]
		c.Members = slices.Clone(c.Members)
		return neutral.Result{Container: &c}, nil
	case neutral.ConfigList, neutral.SecretList:
		return neutral.Result{Stored: slices.Clone(f.files[op.Action.Kind()])}, nil
	case neutral.VolumeList:
		return neutral.Result{Volumes: slices.Clone(f.volumes)}, nil
	case neutral.WorkloadCreate, neutral.WorkloadUpdate:
		return f.writeWorkload(op)
	case neutral.WorkloadRemove:
		i := slices.IndexFunc(f.workloads, func(w neutral.Workload) bool { return w.ID == op.Ref })
		if i < 0 {
			return neutral.Result{}, notFound(op.Ref)
		}
		f.workloads = slices.Delete(f.workloads, i, i+1)
		f.tasks = slices.DeleteFunc(f.tasks, func(t neutral.Task) bool { return t.Workload == op.Ref })
		f.tell(neutral.Event{Kind: neutral.KindWorkload, Action: "remove", ID: op.Ref})
		return neutral.Result{}, nil
	case neutral.ConfigCreate, neutral.SecretCreate, neutral.ConfigUpdate, neutral.SecretUpdate, neutral.ConfigRemove, neutral.SecretRemove:
		return f.writeFile(op)
	case neutral.VolumeCreate:
		v := *op.Volume
		v.Created = time.Now()
		f.volumes = append(f.volumes, v)
		return neutral.Result{}, nil
	case neutral.VolumeRemove:
		f.volumes = slices.DeleteFunc(f.volumes, func(v neutral.Volume) bool { return v.Name == op.Ref && v.Namespace == op.Object.Namespace })
		return neutral.Result{}, nil
	case neutral.ContainerCreate:
		if len(op.Container.Members) > 0 {
			return f.createPod(op)
		}
		c := *op.Container
		c.ID, c.CreatedAt, c.State = f.id("c"), time.Now(), neutral.State{Status: neutral.StatusCreated}
		f.containers = append(f.containers, c)
		f.tell(neutral.Event{Kind: neutral.KindContainer, Action: "create", ID: c.ID})
		return neutral.Result{ID: c.ID}, nil
	case neutral.ContainerStart, neutral.ContainerStop, neutral.ContainerRemove:
		return f.changeContainer(op)
	case neutral.ImageInspect, neutral.ExecCreate:
		return neutral.Result{}, nil
	}
	return neutral.Result{}, fault.New(fault.Unsupported, "%s is not done by the fake", op.Action)
}

// write is one write of a container; one that comes after the kill is not done.
func (f *fakeOrchestrator) write() error {
	if f.kill > 0 {
		if f.kill--; f.kill == 0 {
			f.broken = fault.New(fault.Unavailable, "killed")
			return f.broken
		}
	}
	return nil
}

// createPod makes what is missing of a Pod of several containers.
func (f *fakeOrchestrator) createPod(op neutral.Operation) (neutral.Result, error) {
	i := slices.IndexFunc(f.containers, func(c neutral.Container) bool {
		return c.Name == op.Container.Name && c.Namespace == op.Container.Namespace
	})
	made := false
	if i < 0 {
		if err := f.write(); err != nil {
			return neutral.Result{}, err
		}
		c := *op.Container
		c.ID, c.CreatedAt, c.State, c.Members = f.id("h"), time.Now(), neutral.State{Status: neutral.StatusCreated}, nil
		f.containers, made = append(f.containers, c), true
		i = len(f.containers) - 1
	}
	for _, m := range op.Container.Members[len(f.containers[i].Members):] {
		if err := f.write(); err != nil {
			return neutral.Result{}, err
		}
		m.ID, m.State = f.id("m"), neutral.State{Status: neutral.StatusCreated}
		f.containers[i].Members, made = append(f.containers[i].Members, m), true
	}
	if !made {
		return neutral.Result{}, fault.New(fault.Conflict, "name conflicts with an existing object")
	}
	f.tell(neutral.Event{Kind: neutral.KindContainer, Action: "create", ID: f.containers[i].ID})
	return neutral.Result{ID: f.containers[i].ID}, nil
}

// changeMember starts or ends a container of a Pod of several.
func (f *fakeOrchestrator) changeMember(op neutral.Operation) (neutral.Result, error) {
	for i := range f.containers {
		for j := range f.containers[i].Members {
			m := &f.containers[i].Members[j]
			if m.ID != op.Ref {
				continue
			}
			if op.Action == neutral.ContainerStart {
				if m.State.Status != neutral.StatusCreated {
					return neutral.Result{}, fault.New(fault.Internal, "%s begins twice", m.Name)
				}
				m.State = neutral.State{Status: neutral.StatusRunning, StartedAt: time.Now()}
			} else {
				m.State.Status, m.State.FinishedAt = neutral.StatusExited, time.Now()
			}
			f.tell(neutral.Event{Kind: neutral.KindContainer, Action: strings.TrimPrefix(string(op.Action), "container."), ID: op.Ref})
			return neutral.Result{}, nil
		}
	}
	return neutral.Result{}, notFound(op.Ref)
}

func (f *fakeOrchestrator) changeContainer(op neutral.Operation) (neutral.Result, error) {
	if err := f.write(); err != nil {
		return neutral.Result{}, err
	}
	if strings.HasPrefix(op.Ref, "m") {
		return f.changeMember(op)
	}
	i := slices.IndexFunc(f.containers, func(c neutral.Container) bool { return c.ID == op.Ref })
	if i < 0 {
		return neutral.Result{}, notFound(op.Ref)
	}
	switch op.Action {
	case neutral.ContainerStart:
		if f.faster {
			f.containers[i].State = neutral.State{Status: neutral.StatusRunning, StartedAt: time.Now()}
			return neutral.Result{}, fault.New(fault.NotModified, "it runs")
		}
		f.containers[i].State = neutral.State{Status: neutral.StatusRunning, StartedAt: time.Now()}
	case neutral.ContainerStop:
		f.containers[i].State = neutral.State{Status: neutral.StatusExited, FinishedAt: time.Now()}
	default:
		f.containers = slices.Delete(f.containers, i, i+1)
	}
	f.tell(neutral.Event{Kind: neutral.KindContainer, Action: strings.TrimPrefix(string(op.Action), "container."), ID: op.Ref})
	return neutral.Result{}, nil
}

func (f *fakeOrchestrator) writeWorkload(op neutral.Operation) (neutral.Result, error) {
	w := *op.Workload
	w.UpdatedAt = time.Now()
	i := slices.IndexFunc(f.workloads, func(o neutral.Workload) bool { return o.Name == w.Name && o.Namespace == w.Namespace })
	switch {
	case op.Action == neutral.WorkloadCreate && i >= 0:
		return neutral.Result{}, fault.New(fault.Conflict, "name conflicts with an existing object")
	case op.Action == neutral.WorkloadCreate:
		w.ID, w.CreatedAt = f.id("s"), w.UpdatedAt
		f.workloads = append(f.workloads, w)
		i = len(f.workloads) - 1
	case i < 0:
		return neutral.Result{}, notFound(op.Ref)
	case f.workloads[i].Version != op.Version:
		return neutral.Result{}, fault.New(fault.Conflict, "update out of sequence")
	default:
		w.ID, w.CreatedAt = f.workloads[i].ID, f.workloads[i].CreatedAt
		f.workloads[i] = w
	}
	f.next++
	f.workloads[i].Version = strconv.Itoa(f.next)
	f.schedule(&f.workloads[i])
	f.tell(neutral.Event{Kind: neutral.KindWorkload, Action: "update", ID: w.ID})
	return neutral.Result{ID: f.workloads[i].ID}, nil
}

// schedule makes the tasks that a workload asks for, and ends the others.
func (f *fakeOrchestrator) schedule(w *neutral.Workload) {
	wanted := w.Replicas
	if w.Mode == neutral.ModeGlobal {
		wanted = 1
	}
	hash := hashOf(w.Template)
	kept := 0
	f.tasks = slices.DeleteFunc(f.tasks, func(t neutral.Task) bool {
		if t.Workload != w.ID {
			return false
		}
		if hashOf(t.Container) == hash && kept < wanted {
			kept++
			return false
		}
		return true
	})
	for ; kept < wanted; kept++ {
		t := neutral.Task{ID: f.id("t"), Workload: w.ID, Slot: kept + 1, Node: "west-1", NodeID: "node1", Desired: "running", State: "running",
			Container: w.Template, Created: time.Now(), Updated: time.Now()}
		t.Container.ID = f.id("c")
		t.Container.State = neutral.State{Status: neutral.StatusRunning, StartedAt: time.Now()}
		if w.Mode == neutral.ModeJob {
			t.State, t.Desired = "complete", "complete"
			t.Container.State = neutral.State{Status: neutral.StatusExited}
		}
		f.tasks = append(f.tasks, t)
	}
	w.Running, w.Desired = wanted, wanted
}

func (f *fakeOrchestrator) writeFile(op neutral.Operation) (neutral.Result, error) {
	kind := op.Action.Kind()
	files := f.files[kind]
	f.next++
	if op.Action == neutral.ConfigCreate || op.Action == neutral.SecretCreate {
		file := *op.File
		if slices.ContainsFunc(files, func(o neutral.StoredFile) bool { return o.Name == file.Name && o.Namespace == file.Namespace }) {
			return neutral.Result{}, fault.New(fault.Conflict, "name conflicts with an existing object")
		}
		file.ID, file.Created, file.Version = f.id("f"), time.Now(), strconv.Itoa(f.next)
		if kind == neutral.KindSecret {
			file.Data = nil
		}
		f.files[kind] = append(files, file)
		return neutral.Result{ID: file.ID}, nil
	}
	i := slices.IndexFunc(files, func(o neutral.StoredFile) bool { return o.ID == op.Ref })
	if i < 0 {
		return neutral.Result{}, notFound(op.Ref)
	}
	if op.Action == neutral.ConfigRemove || op.Action == neutral.SecretRemove {
		f.files[kind] = slices.Delete(files, i, i+1)
		return neutral.Result{}, nil
	}
	if files[i].Version != op.Version {
		return neutral.Result{}, fault.New(fault.Conflict, "update out of sequence")
	}
	files[i].Labels, files[i].Origin, files[i].Version = op.File.Labels, op.File.Origin, strconv.Itoa(f.next)
	return neutral.Result{}, nil
}

// Stream gives events, a log of two lines, or what a command writes, which is its own words.
func (f *fakeOrchestrator) Stream(ctx context.Context, op neutral.Operation, session neutral.Session) (neutral.Result, error) {
	switch op.Action {
	case neutral.EventWatch:
		if !op.Until.IsZero() {
			return neutral.Result{}, nil
		}
		c := make(chan neutral.Event, 100)
		f.mu.Lock()
		f.watching[c] = true
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			delete(f.watching, c)
			f.mu.Unlock()
		}()
		if err := session.Accept(); err != nil {
			return neutral.Result{}, err
		}
		for {
			select {
			case <-ctx.Done():
				return neutral.Result{}, ctx.Err()
			case e := <-c:
				if err := session.Event(e); err != nil {
					return neutral.Result{}, err
				}
			}
		}
	case neutral.ContainerLogs, neutral.TaskLogs:
		err := errors.Join(session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("one\n")}),
			session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("two\n")}))
		return neutral.Result{}, err
	case neutral.ExecStart:
		err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte(strings.Join(op.Exec.Command, " ") + "\n")})
		return neutral.Result{ExitCode: 3}, err
	case neutral.ImagePull:
		return neutral.Result{}, nil
	case neutral.ContainerWait:
		f.waiting.Add(1)
		defer f.waiting.Add(-1)
		if f.ends != nil {
			select {
			case <-f.ends:
			case <-ctx.Done():
				return neutral.Result{}, ctx.Err()
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.changeMember(neutral.Operation{Action: neutral.ContainerStop, Ref: op.Ref})
	}
	return neutral.Result{}, fault.New(fault.Unsupported, "%s is not done by the fake", op.Action)
}

// Dial has nobody to connect to.
func (f *fakeOrchestrator) Dial(context.Context, string, uint16) (net.Conn, error) {
	return nil, fault.New(fault.Unavailable, "nothing listens")
}
