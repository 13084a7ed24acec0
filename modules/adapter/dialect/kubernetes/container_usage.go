package kubernetes

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What a container uses, the kernel tells in files that the container itself can read. A metrics server, where there is
// one, knows of CPU and memory alone, and as of some seconds ago.

// usageFiles are those of both kinds of control groups; what is not there is not read.
var usageFiles = []string{
	"/proc/stat", "/proc/meminfo", "/proc/net/dev",
	"/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat",
	"/sys/fs/cgroup/pids.current", "/sys/fs/cgroup/io.stat",
	"/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpuacct/cpuacct.stat", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
	"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "/sys/fs/cgroup/pids/pids.current",
	"/sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes",
}

const (
	// usageMark stands before a file's name, and alone at a measurement's end.
	usageMark = "#@ "
	// usageScript measures $1 times, a second apart.
	usageScript = `n=$1; shift; while :; do for f in "$@"; do echo "#@ $f"; cat "$f" 2>/dev/null; done; echo "#@ "; ` +
		`n=$((n-1)); [ $n -gt 0 ] || exit 0; sleep 1; done`
	// usageBatch is how often one command measures: what it prints must fit a pipe that nobody reads any more, or it
	// would never end.
	usageBatch = 5
	// usageLine bounds a line of such a file.
	usageLine = 64 << 10
	// usageFileLimit and usageLimit bound what is kept of a file and of a measurement: whoever made the image, its shell
	// prints what it likes.
	usageFileLimit, usageLimit = 64 << 10, 1 << 20
	// usageLineCost is what keeping a line takes beside its text.
	usageLineCost = 16
	// cgroups is where a container sees its control groups.
	cgroups = "/sys/fs/cgroup/"
	// ticks is how many there are in a second where the kernel counts in them.
	ticks = 100
)

// containerUsage tells what a container uses.
func (a *action) containerUsage(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	options := neutral.UsageOptions{}
	if a.op.Usage != nil {
		options = *a.op.Usage
	}
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if found.frozen() {
		return neutral.Result{}, found.takes("stats")
	}
	if found.State.Status != neutral.StatusRunning { // as an engine tells of one that uses nothing
		_, err := neutral.Measured(session, neutral.Usage{ID: found.ID, Name: found.Name})
		return neutral.Result{}, err
	}
	for first := true; ; first = false {
		count := usageBatch
		switch {
		case options.Once:
			count = 1
		case !options.Stream:
			count = 2
		}
		err := a.measure(ctx, found, count, func(u neutral.Usage) error {
			ok, err := neutral.Measured(session, u)
			if !ok {
				return fault.New(fault.Unsupported, "the use of resources has no form for this caller")
			}
			return err
		})
		if err != nil && !first && errors.Is(err, errNotMeasured) { // it has ended meanwhile
			return neutral.Result{}, nil
		}
		if err != nil || !options.Stream {
			return neutral.Result{}, err
		}
		select {
		case <-ctx.Done():
			return neutral.Result{}, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

var errNotMeasured = errors.New("the container told nothing")

// measure runs one command in the container, and gives each measurement to tell.
func (a *action) measure(ctx context.Context, found *located, count int, tell func(neutral.Usage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pipe, writer := io.Pipe()
	told := make(chan error, 1)
	go func() {
		err := readUsage(pipe, func(u neutral.Usage) error {
			u.ID, u.Name, u.At = found.ID, found.Name, time.Now()
			return tell(u)
		})
		_ = pipe.CloseWithError(err) // a pipe always closes
		told <- err
		if err != nil {
			cancel() // the command may print for ever
		}
	}()
	command := append([]string{"/bin/sh", "-c", usageScript, "sh", strconv.Itoa(count)}, usageFiles...)
	code, message, err := a.run(ctx, found.pod, "exec", &corev1.PodExecOptions{Container: found.native(), Command: command, Stdout: true},
		remotecommand.StreamOptions{Stdout: writer})
	_ = writer.Close() // a pipe always closes
	failed := <-told
	switch {
	case failed != nil:
		return failed
	case message != "", code != 0:
		return fault.Wrap(fault.Unsupported, errNotMeasured, "what container %s uses is read by its image's shell and cat, which cannot be run",
			found.Name)
	}
	return err
}

// readUsage reads measurements, and fails at one that is too large.
func readUsage(from io.Reader, tell func(neutral.Usage) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, usageLine)
	files := map[string][]string{}
	current, inFile, inAll := "", 0, 0
	for lines.Scan() {
		line := lines.Text()
		if inFile, inAll = inFile+len(line)+usageLineCost, inAll+len(line)+usageLineCost; inFile > usageFileLimit || inAll > usageLimit {
			return fault.New(fault.Unsupported, "what the container's image tells of its use is too long to be a measurement")
		}
		name, marks := strings.CutPrefix(line, usageMark)
		switch {
		case marks && name == "":
			if err := tell(usageFromFiles(files)); err != nil {
				return err
			}
			files, current, inFile, inAll = map[string][]string{}, "", 0, 0
		case marks:
			current, inFile = name, 0
		case current != "":
			files[current] = append(files[current], line)
		}
	}
	return nil // what broke off, the command's own end tells
}

// usageFromFiles reads one measurement. A file that is not there, or not as it should be, counts as nothing.
func usageFromFiles(files map[string][]string) neutral.Usage {
	number := func(file string) int64 {
		if lines := files[file]; len(lines) > 0 {
			n, _ := strconv.ParseInt(strings.TrimSpace(lines[0]), 10, 64) // "max" is none
			return max(n, 0)
		}
		return 0
	}
	keyed := func(file, key string) int64 {
		for _, line := range files[file] {
			if rest, ok := strings.CutPrefix(line, key+" "); ok {
				n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
				return max(n, 0)
			}
		}
		return 0
	}
	u := neutral.Usage{
		CPU:         time.Duration(number(cgroups+"cpuacct/cpuacct.usage")) + time.Duration(keyed(cgroups+"cpu.stat", "usage_usec"))*time.Microsecond,
		UserCPU:     time.Duration(keyed(cgroups+"cpu.stat", "user_usec"))*time.Microsecond + time.Duration(keyed(cgroups+"cpuacct/cpuacct.stat", "user"))*time.Second/ticks,
		KernelCPU:   time.Duration(keyed(cgroups+"cpu.stat", "system_usec"))*time.Microsecond + time.Duration(keyed(cgroups+"cpuacct/cpuacct.stat", "system"))*time.Second/ticks,
		Memory:      number(cgroups+"memory.current") + number(cgroups+"memory/memory.usage_in_bytes"),
		Cache:       keyed(cgroups+"memory.stat", "inactive_file") + keyed(cgroups+"memory/memory.stat", "total_inactive_file"),
		MemoryLimit: number(cgroups+"memory.max") + number(cgroups+"memory/memory.limit_in_bytes"),
		Processes:   number(cgroups+"pids.current") + number(cgroups+"pids/pids.current"),
	}
	for _, line := range files["/proc/meminfo"] {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			kilobytes, _ := strconv.ParseInt(fields[1], 10, 64)
			if total := kilobytes << 10; u.MemoryLimit == 0 || u.MemoryLimit > total {
				u.MemoryLimit = total
			}
		}
	}
	for _, line := range files["/proc/stat"] {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 8 && fields[0] == "cpu":
			for _, field := range fields[1:8] { // guests are in user
				n, _ := strconv.ParseInt(field, 10, 64)
				u.HostCPU += time.Duration(max(n, 0)) * time.Second / ticks
			}
		case len(fields) > 0 && strings.HasPrefix(fields[0], "cpu"):
			u.CPUs++
		}
	}
	usageOfNetworks(&u, files["/proc/net/dev"])
	for _, line := range files[cgroups+"io.stat"] {
		for _, field := range strings.Fields(line) {
			name, text, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseInt(text, 10, 64)
			switch name {
			case "rbytes":
				u.BlockRead += n
			case "wbytes":
				u.BlockWritten += n
			}
		}
	}
	for _, line := range files[cgroups+"blkio/blkio.throttle.io_service_bytes"] {
		if fields := strings.Fields(line); len(fields) == 3 {
			n, _ := strconv.ParseInt(fields[2], 10, 64)
			switch fields[1] {
			case "Read":
				u.BlockRead += n
			case "Write":
				u.BlockWritten += n
			}
		}
	}
	return u
}

func usageOfNetworks(u *neutral.Usage, lines []string) {
	for _, line := range lines {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 10 {
			continue
		}
		var numbers [4]uint64
		for i, at := range []int{0, 1, 8, 9} {
			numbers[i], _ = strconv.ParseUint(fields[at], 10, 64)
		}
		if u.Networks == nil {
			u.Networks = map[string]neutral.Traffic{}
		}
		u.Networks[name] = neutral.Traffic{ReceivedBytes: numbers[0], ReceivedPackets: numbers[1], SentBytes: numbers[2], SentPackets: numbers[3]}
	}
}
