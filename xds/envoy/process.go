package envoy

import (
	"bytes"
	"encoding/json"
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

	"golang.org/x/sys/unix"
)

// process is an Envoy that runs, ours or one that an earlier supervisor started.
type process struct {
	pid     int
	send    func(unix.Signal) error // reaches this process and never one that has its number later
	adopted bool
	started time.Time
	done    chan struct{} // closed when it ended
	exit    string        // why; read after done
}

// record is what a supervisor leaves for the next one.
type record struct {
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"` // by the kernel's clock, which tells two processes of one number apart
	Boot    string    `json:"boot"`
	Started time.Time `json:"started"`
}

func bootstrapFile(runDir string) string { return filepath.Join(runDir, "envoy-bootstrap.json") }
func recordFile(runDir string) string    { return filepath.Join(runDir, "envoy-process.json") }

// start starts an Envoy of its own session, so that neither a signal to isthmus' terminal nor isthmus' end reaches it.
func start(c Config, bootstrap []byte) (*process, error) {
	if err := os.WriteFile(bootstrapFile(c.RunDir), bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	log, err := openLog(c.LogFile)
	if err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	defer func() { _ = log.Close() }()
	level := c.LogLevel
	if level == "" {
		level = "warning"
	}
	args := []string{
		"--config-path", bootstrapFile(c.RunDir), "--disable-hot-restart", "--log-level", level,
		// It repeats with every configuration that the filter which proves answers is a work in progress.
		"--component-log-level", "misc:error",
		// What a listener, or a filter chain, that is gone carries is cut, which takes Envoy a second: a peer's streams end
		// with the trust in it. No chain and no listener changes while what it stands for is there. A drain tells callers
		// at once to go elsewhere.
		"--drain-time-s", "0", "--drain-strategy", "immediate",
		// Access log lines of a quiet gateway are on disk soon; a busy one writes them by the buffer all the same.
		"--file-flush-interval-msec", "250",
	}
	if c.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(c.Concurrency))
	}
	cmd := exec.Command(c.Binary, args...) //nolint:noctx // it is to outlive every context here
	cmd.Dir = c.RunDir
	cmd.Stdout, cmd.Stderr = log, log // a file: a pipe would break when isthmus dies
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8"} // none of isthmus' secrets
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	p := &process{
		pid: cmd.Process.Pid, started: time.Now(), done: make(chan struct{}),
		send: func(sig unix.Signal) error { return cmd.Process.Signal(sig) },
	}
	go func() {
		defer close(p.done)
		err := cmd.Wait()
		p.exit = "exit status 0"
		if err != nil {
			p.exit = err.Error()
		}
		if tail := logTail(c.LogFile); tail != "" {
			p.exit += ": " + tail
		}
	}()
	if err := p.remember(c.RunDir); err != nil {
		// It is found by its arguments all the same.
		return p, nil
	}
	return p, nil
}

func (p *process) remember(runDir string) error {
	ticks, err := startTicks(p.pid)
	if err != nil {
		return err
	}
	b, err := json.Marshal(record{PID: p.pid, Start: ticks, Boot: bootID(), Started: p.started})
	if err != nil {
		return err
	}
	tmp := recordFile(runDir) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, recordFile(runDir))
}

func forget(runDir string) { _ = os.Remove(recordFile(runDir)) }

// find finds the Envoy that an earlier supervisor left in this run directory: by its record, or, when that supervisor
// died before it wrote one, by the arguments it was started with.
func find(runDir string) *process {
	if b, err := os.ReadFile(recordFile(runDir)); err == nil {
		var r record
		if json.Unmarshal(b, &r) == nil && r.Boot == bootID() {
			if p, err := attach(r.PID, runDir, r.Start); err == nil {
				p.started = r.Started
				return p
			}
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !startedHere(pid, runDir) {
			continue
		}
		if p, err := attach(pid, runDir, 0); err == nil {
			return p
		}
	}
	return nil
}

var errOther = errors.New("another process")

// attach takes hold of a running process and then makes sure that it is the one; start 0 is any.
func attach(pid int, runDir string, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	ticks, err := startTicks(pid)
	if err != nil || start != 0 && ticks != start || !startedHere(pid, runDir) {
		_ = unix.Close(fd)
		return nil, errOther
	}
	// A pidfd becomes readable when its process ends; the runtime's poller waits for that.
	f := os.NewFile(uintptr(fd), "pidfd")
	conn, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	p := &process{
		pid: pid, adopted: true, started: time.Now(), done: make(chan struct{}),
		send: func(sig unix.Signal) error { return unix.PidfdSendSignal(fd, sig, nil, 0) },
	}
	if info, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
		p.started = info.ModTime()
	}
	go func() {
		defer close(p.done)
		defer func() { _ = f.Close() }()
		err := conn.Read(func(fd uintptr) bool { return ended(int(fd)) })
		p.exit = "it was of an earlier run; its exit status is unknown"
		if err != nil {
			p.exit += " (" + err.Error() + ")"
		}
	}()
	return p, nil
}

// ended tells whether the process of a pidfd is over.
func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (p *process) terminate() { p.signal(unix.SIGTERM) }
func (p *process) kill()      { p.signal(unix.SIGKILL) }

func (p *process) signal(sig unix.Signal) {
	select {
	case <-p.done:
	default:
		_ = p.send(sig) // it may have ended just now
	}
}

// startedHere tells whether a process is an Envoy that was started for a run directory, and not about to be gone.
func startedHere(pid int, runDir string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(bytes.TrimRight(b, "\x00")), "\x00")
	i := slices.Index(args, "--config-path")
	return i > 0 && i+1 < len(args) && args[i+1] == bootstrapFile(runDir)
}

// startTicks is when a process started, by the kernel's clock.
func startTicks(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStart(b)
}

// parseStart reads field 22 of a process's stat. The command in parentheses may contain anything, so fields count from
// after it.
func parseStart(stat []byte) (uint64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("a process's stat has another form")
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// maxLog is the size at which Envoy's log is put aside when Envoy starts.
const maxLog = 16 << 20

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// logTail is the last line of Envoy's log, where it says why it could not go on.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const most = 2 << 10
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-most), io.SeekStart)
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
