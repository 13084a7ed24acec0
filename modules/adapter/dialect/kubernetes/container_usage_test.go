package kubernetes

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The two kinds of control groups, as a container of each prints them.
const (
	usageV1 = `#@ /proc/stat
cpu  100 0 50 800 20 10 20 0 0 0
cpu0 50 0 25 400 10 5 10 0 0 0
cpu1 50 0 25 400 10 5 10 0 0 0
intr 1 2 3
#@ /proc/meminfo
MemTotal:       1024 kB
MemFree:         512 kB
#@ /proc/net/dev
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    2000      20    0    0    0     0          0         0     3000      30    0    0    0     0       0          0
#@ /sys/fs/cgroup/cpuacct/cpuacct.usage
2500000000
#@ /sys/fs/cgroup/cpuacct/cpuacct.stat
user 150
system 100
#@ /sys/fs/cgroup/memory/memory.usage_in_bytes
65536
#@ /sys/fs/cgroup/memory/memory.limit_in_bytes
9223372036854771712
#@ /sys/fs/cgroup/memory/memory.stat
inactive_file 1
total_inactive_file 4096
#@ /sys/fs/cgroup/pids/pids.current
3
#@ /sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes
8:0 Read 512
8:0 Write 1024
Total 1536
#@ ` + "\n"
	usageV2 = `#@ /proc/stat
cpu  100 0 50 800 20 10 20 0 0 0
cpu0 50 0 25 400 10 5 10 0 0 0
#@ /proc/meminfo
MemTotal:       1024 kB
#@ /sys/fs/cgroup/cpu.stat
usage_usec 2500000
user_usec 1500000
system_usec 1000000
#@ /sys/fs/cgroup/memory.current
65536
#@ /sys/fs/cgroup/memory.max
131072
#@ /sys/fs/cgroup/memory.stat
inactive_file 4096
#@ /sys/fs/cgroup/pids.current
3
#@ /sys/fs/cgroup/io.stat
8:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0
#@ ` + "\n"
)

func usages(t *testing.T, text string) []neutral.Usage {
	t.Helper()
	var all []neutral.Usage
	err := readUsage(strings.NewReader(text), func(u neutral.Usage) error { all = append(all, u); return nil })
	if err != nil && !fault.Is(err, fault.Unsupported) { // too long
		t.Fatal(err)
	}
	return all
}

// endless says the same again and again, up to what no reader should want.
type endless struct {
	text string
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.read > 16<<20 {
		return 0, io.EOF
	}
	n := copy(b, e.text)
	e.read += n
	return n, nil
}

// TestUsageBounded holds that an image whose shell never stops does not fill the gateway's memory.
func TestUsageBounded(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"one file": "y\n", "empty lines": "\n", "many files": "#@ x\ny\n", "no file": "#@ /proc/stat"} {
		e := &endless{text: text}
		err := readUsage(io.MultiReader(strings.NewReader("#@ x\n"), e), func(neutral.Usage) error { return nil })
		if name == "no file" { // one line without an end
			if e.read > 1<<20 {
				t.Errorf("%s: %d bytes were read", name, e.read)
			}
			continue
		}
		if !fault.Is(err, fault.Unsupported) || e.read > 2<<20 {
			t.Errorf("%s: %v after %d bytes", name, err, e.read)
		}
	}
	if got := usages(t, strings.Repeat(usageV2, 5000)); len(got) != 5000 {
		t.Errorf("of 5000 measurements %d were told", len(got))
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	v2 := neutral.Usage{CPU: 2500 * time.Millisecond, UserCPU: 1500 * time.Millisecond, KernelCPU: time.Second, HostCPU: 10 * time.Second,
		CPUs: 1, Memory: 65536, Cache: 4096, MemoryLimit: 131072, Processes: 3, BlockRead: 512, BlockWritten: 1024}
	v1 := v2
	v1.CPUs, v1.MemoryLimit = 2, 1<<20
	v1.Networks = map[string]neutral.Traffic{"eth0": {ReceivedBytes: 2000, ReceivedPackets: 20, SentBytes: 3000, SentPackets: 30}}
	if diff := cmp.Diff([]neutral.Usage{v1, v2}, usages(t, usageV1+usageV2)); diff != "" {
		t.Error(diff)
	}
	if got := usages(t, usageV2[:200]); len(got) != 0 {
		t.Errorf("half a measurement is told: %+v", got)
	}
}

// TestUsageScript runs the script as a container would, on this machine.
func TestUsageScript(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", usageScript, "sh", "2"}, usageFiles...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := usages(t, string(out))
	if len(got) != 2 || got[0].HostCPU == 0 || got[0].CPUs == 0 || got[0].MemoryLimit == 0 || got[1].HostCPU <= got[0].HostCPU {
		t.Errorf("%+v", got)
	}
	if len(out)/2*usageBatch > 64<<10 {
		t.Errorf("%d bytes a measurement: %d of them do not fit a pipe", len(out)/2, usageBatch)
	}
}

// FuzzUsage reads what containers print, who may print anything.
func FuzzUsage(f *testing.F) {
	f.Add(usageV1)
	f.Add(usageV2)
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range usages(t, text) {
			if u.CPUs < 0 || u.Processes < 0 || u.Cache < 0 {
				t.Errorf("%+v", u)
			}
		}
	})
}
