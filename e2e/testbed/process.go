package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollInterval is how often states that nobody announces are looked at.
const pollInterval = 50 * time.Millisecond

// Command is a program for a bed to run.
type Command struct {
	// Name is unique among the running processes of its cluster; the log file
	// is called after it.
	Name string
	Argv []string
	// Env is all that the process gets to know, besides PATH, HOME and the
	// like: a bed is the same whoever makes it.
	Env []string
	Dir string
	// Files are inherited from descriptor 3 on.
	Files []*os.File
}

// Process is a program that runs detached: it outlives the process that
// started it and is known by its id and start time.
type Process struct {
	Name    string
	Cluster string
	PID     int
	// Log is the file that holds what the process printed.
	Log string

	startTime uint64
	child     *child
	command   Command // of a process that this very process started
}

// child is a process of this very process, which has to reap it.
type child struct {
	done chan struct{}
	err  error
}

// Start runs a program in the cluster's network namespace.
func (c *Cluster) Start(ctx context.Context, command Command) (*Process, error) {
	return c.bed.startProcess(ctx, c, command)
}

// Start runs a program in the machine's own network namespace.
func (b *Bed) Start(ctx context.Context, command Command) (*Process, error) {
	return b.startProcess(ctx, nil, command)
}

func (b *Bed) startProcess(ctx context.Context, cluster *Cluster, command Command) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	if command.Name == "" || strings.ContainsAny(command.Name, "/ ") || len(command.Argv) == 0 {
		return nil, fmt.Errorf("start %q: want a name without slash or blank, and a program", command.Name)
	}
	dir, clusterName := filepath.Join(b.Root, "log"), ""
	if cluster != nil {
		dir, clusterName = filepath.Join(cluster.Dir, "log"), cluster.Name
	}
	if p := b.Process(clusterName, command.Name); p != nil && p.Running() {
		return nil, fmt.Errorf("start %s: it runs already, pid %d", command.Name, p.PID)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	logPath := filepath.Join(dir, command.Name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	defer func() { _ = log.Close() }()

	// The shell enters the bed's cgroup before it becomes the program, so
	// that not even a child of the program can be outside of it.
	argv := []string{"/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, processCgroup(b.ID)}
	if cluster != nil {
		argv = append(argv, cluster.enter()...)
	}
	argv = append(argv, command.Argv...)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives the context on purpose
	cmd.Env = append(environment(), command.Env...)
	cmd.Dir = command.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = command.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	running := &child{done: make(chan struct{})}
	b.mu.Lock()
	b.children[cmd.Process.Pid] = running
	b.mu.Unlock()
	go func() {
		running.err = cmd.Wait()
		close(running.done)
	}()
	_, startTime := processStat(cmd.Process.Pid)
	process := &Process{
		Name: command.Name, Cluster: clusterName, PID: cmd.Process.Pid,
		Log: logPath, startTime: startTime, child: running, command: command,
	}
	err = b.update(func(st *state) {
		st.Processes = slices.DeleteFunc(st.Processes, func(p processState) bool {
			return p.Cluster == clusterName && p.Name == command.Name
		})
		st.Processes = append(st.Processes, processState{
			Name: command.Name, Cluster: clusterName, PID: process.PID,
			StartTime: startTime, Log: logPath, Argv0: command.Argv[0],
		})
	})
	if err != nil {
		_ = process.Kill(syscall.SIGKILL)
		return nil, fmt.Errorf("start %s: %w", command.Name, err)
	}
	return process, nil
}

// environment is what every program of a bed gets. GOCOVERDIR lets the
// coverage of programs under test be collected.
func environment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"HOME", "USER", "LANG", "TZ", "TMPDIR", "GOCOVERDIR", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Process returns a recorded process of a cluster ("" is the machine) by
// name, running or not; nil when none of that name was started.
func (b *Bed) Process(cluster, name string) *Process {
	for _, p := range b.Processes() {
		if p.Cluster == cluster && p.Name == name {
			return p
		}
	}
	return nil
}

// Processes returns all that the bed recorded, running or not.
func (b *Bed) Processes() []*Process {
	st, err := readState(b.Root)
	if err != nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*Process
	for _, p := range st.Processes {
		all = append(all, &Process{
			Name: p.Name, Cluster: p.Cluster, PID: p.PID, Log: p.Log,
			startTime: p.StartTime, child: b.children[p.PID],
		})
	}
	return all
}

// reap waits for the children of this process that have just been killed.
func (b *Bed) reap() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for pid, c := range b.children {
		select {
		case <-c.done:
		case <-time.After(5 * time.Second):
		}
		delete(b.children, pid)
	}
}

// Running tells whether the very process that was started still runs.
func (p *Process) Running() bool {
	if p.child != nil {
		select {
		case <-p.child.done:
			return false
		default:
		}
	}
	state, startTime := processStat(p.PID)
	return startTime == p.startTime && startTime != 0 && state != 'Z' && state != 'X'
}

// Kill sends a signal. A process that has ended is no error.
func (p *Process) Kill(signal syscall.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := syscall.Kill(p.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	return nil
}

// Wait returns when the process has ended.
func (p *Process) Wait(ctx context.Context) error {
	for p.Running() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", p.Name, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// crash kills a process at once.
func (c *Cluster) crash(ctx context.Context, p *Process) error {
	if err := p.Kill(syscall.SIGKILL); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// again starts what has ended once more.
func (c *Cluster) again(ctx context.Context, p *Process) (*Process, error) {
	return c.Start(ctx, p.command)
}

// Stop asks the process to end and kills it when it has not by the end of
// grace.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.Kill(syscall.SIGTERM); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if p.Wait(waiting) == nil {
		return nil
	}
	if err := p.Kill(syscall.SIGKILL); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// ExitCode is the status of an ended process that this very process started;
// ok is false for any other. A signal n counts as 128+n.
func (p *Process) ExitCode() (code int, ok bool) {
	if p.child == nil || p.Running() {
		return 0, false
	}
	<-p.child.done
	var exit *exec.ExitError
	switch {
	case p.child.err == nil:
		return 0, true
	case errors.As(p.child.err, &exit):
		if status, isWait := exit.Sys().(syscall.WaitStatus); isWait && status.Signaled() {
			return 128 + int(status.Signal()), true
		}
		return exit.ExitCode(), true
	}
	return 0, false
}

// Tail returns the last lines that the process printed.
func (p *Process) Tail(lines int) string { return tail(p.Log, lines) }

func tail(path string, lines int) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	const window = 64 << 10
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-window), io.SeekStart)
	}
	raw, err := io.ReadAll(file)
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimRight(raw, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// processStat reads the state letter and the start time of a process, zeros
// when there is none.
func processStat(pid int) (state byte, startTime uint64) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	return parseStat(raw)
}

func parseStat(raw []byte) (state byte, startTime uint64) {
	// The command may hold blanks and parentheses; the fields follow the last.
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return 0, 0
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 20 {
		return 0, 0
	}
	startTime, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0
	}
	return fields[0][0], startTime
}

// waitReady polls until the check passes, and gives up early when one of the
// processes it depends on has ended.
func waitReady(ctx context.Context, what string, timeout time.Duration, check func(context.Context) error, on ...*Process) error {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if outer.Err() != nil {
			return fmt.Errorf("wait for %s: %w", what, context.Cause(outer))
		}
		for _, p := range on {
			if !p.Running() {
				return fmt.Errorf("%s: %s has ended; its log ends so:\n%s", what, p.Name, p.Tail(12))
			}
		}
		select {
		case <-outer.Done():
		case <-ctx.Done():
			err = fmt.Errorf("%s is not ready after %s: %w", what, timeout, err)
			if len(on) > 0 {
				err = fmt.Errorf("%w\nthe log of %s ends so:\n%s", err, on[0].Name, on[0].Tail(12))
			}
			return err
		case <-time.After(2 * pollInterval):
		}
	}
}

// run executes a short command and returns what it printed; the error holds
// its error output.
func run(ctx context.Context, argv ...string) (string, error) {
	return runWith(ctx, nil, nil, argv...)
}

func runWith(ctx context.Context, env []string, stdin io.Reader, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if env != nil {
		cmd.Env = append(os.Environ(), env...)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	// A grandchild that keeps the pipe open must not keep the caller.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		message := strings.TrimSpace(stderr.String())
		if message == "" {
			message = strings.TrimSpace(stdout.String())
		}
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(len(argv), 8)], " "), err, message)
	}
	return stdout.String(), nil
}
