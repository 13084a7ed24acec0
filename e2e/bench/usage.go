package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of /proc/<pid>/stat; it is the same on all that Go runs on.
const clockTick = time.Second / 100

// usage is the processor time that a process has taken, all threads together.
func usage(pid int) (time.Duration, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	return parseUsage(raw)
}

// parseUsage reads the 14th and 15th field, user and system time. The second may hold blanks and parentheses.
func parseUsage(stat []byte) (time.Duration, error) {
	_, after, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
	fields := bytes.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("processor time: %q is no stat of a process", stat)
	}
	var sum time.Duration
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		sum += time.Duration(ticks) * clockTick
	}
	return sum, nil
}

// usages is the processor time of each role's processes.
func usages(roles map[string][]int) (map[string]time.Duration, error) {
	all := make(map[string]time.Duration, len(roles))
	for role, pids := range roles {
		for _, pid := range pids {
			u, err := usage(pid)
			if err != nil {
				return nil, err
			}
			all[role] += u
		}
	}
	return all, nil
}

// confine lets a process, with all its threads, run on the given processors only.
func confine(pid int, cpus unix.CPUSet) error {
	seen := make(map[string]bool)
	for { // threads that begin meanwhile may have the old set, so look again until there is no new one
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			return fmt.Errorf("confine process %d: %w", pid, err)
		}
		fresh := false
		for _, t := range threads {
			if seen[t.Name()] {
				continue
			}
			seen[t.Name()], fresh = true, true
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("confine process %d: %w", pid, err)
			}
			if err := unix.SchedSetaffinity(tid, &cpus); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("confine process %d: %w", pid, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}

// split divides the processors that this process may use: one for the gateways, all others for the load and what is
// behind. With only one there is nothing to divide.
func split() (all, gateways, others unix.CPUSet, divided bool, err error) {
	if err = unix.SchedGetaffinity(0, &all); err != nil {
		return all, all, all, false, fmt.Errorf("processors: %w", err)
	}
	if all.Count() < 2 {
		return all, all, all, false, nil
	}
	for cpu := 0; others.Count()+gateways.Count() < all.Count(); cpu++ {
		switch {
		case !all.IsSet(cpu):
		case gateways.Count() == 0:
			gateways.Set(cpu)
		default:
			others.Set(cpu)
		}
	}
	return all, gateways, others, true, nil
}
