package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gatherInterval is how often Envoy's heap is looked at, which grows with its load.
const gatherInterval = 10 * time.Second

// gatherHeap has the kernel gather the heap of a running Envoy into huge pages until the context is done, or until the
// function that it returns is called, which waits for the end. The heap of a busy Envoy is a little larger than the
// processor's cache, and in small pages it is a matter of luck how much of it stays there.
//
// Envoy's allocator leaves this to the kernel, and the kernel does it by itself where it is set to "always". Set to
// "madvise", as many distributions have it, it wants to be asked, and set to "never" it is left alone. Asking for
// another process takes CAP_SYS_NICE and Linux 6.1; without, all stays as it is.
func (s *Supervisor) gatherHeap(ctx context.Context, p *process) (end func()) {
	size, err := hugePage()
	if err != nil || size == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		if err := gatherRepeatedly(ctx, p, size); err != nil {
			s.config.Log.Info("envoy's heap stays in small pages", "pid", p.pid, "error", err)
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// gatherRepeatedly ends when the context or the process does, and when the kernel does not grant it.
func gatherRepeatedly(ctx context.Context, p *process, size uint64) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ticker := time.NewTicker(gatherInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.done: // so the number was its own when it was opened
			return nil
		case <-ticker.C:
		}
		if err := gather(fd, p.pid, size); err != nil {
			return err
		}
	}
}

// gather asks once. What the kernel cannot gather at the moment it may next time.
func gather(fd, pid int, size uint64) error {
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps")
	if err != nil {
		return err
	}
	for _, r := range scattered(maps, size) {
		err := collapse(fd, r)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("ask for huge pages: %w", err)
		}
	}
	return nil
}

func collapse(fd int, r memory) error {
	vector := unix.RemoteIovec{Base: uintptr(r.begin), Len: int(r.end - r.begin)}                                                      //nolint:gosec // what the kernel said
	_, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&vector)), 1, unix.MADV_COLLAPSE, 0, 0) //nolint:gosec // no other way
	if errno != 0 {
		return errno
	}
	return nil
}

// memory is a range of addresses, of whole huge pages.
type memory struct{ begin, end uint64 }

// scattered finds in a process' smaps the private memory without a file that is not in huge pages, and is in use for at
// least a half, so that it becomes no more than twice what it was: heaps are, stacks are not.
func scattered(smaps []byte, size uint64) []memory {
	var found []memory
	var now memory
	var all, resident uint64
	heap := false
	for line := range bytes.Lines(smaps) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if !bytes.HasSuffix(fields[0], []byte(":")) { // BEGIN-END PERMISSIONS OFFSET DEVICE INODE [NAME]
			begin, end, ok := bytes.Cut(fields[0], []byte("-"))
			from, fromErr := strconv.ParseUint(string(begin), 16, 64)
			to, toErr := strconv.ParseUint(string(end), 16, 64)
			heap = ok && fromErr == nil && toErr == nil && from < to && len(fields) == 5 && string(fields[1]) == "rw-p" && string(fields[4]) == "0"
			all, resident = to-from, 0
			now = memory{begin: from + (size-from%size)%size, end: to - to%size}
			continue
		}
		if !heap {
			continue
		}
		kilobytes, err := strconv.ParseUint(string(fields[1]), 10, 54)
		if err != nil {
			continue
		}
		switch string(fields[0]) {
		case "Rss:":
			resident = kilobytes << 10
		case "AnonHugePages:": // stands after Rss
			if now.begin < now.end && resident >= all-resident && kilobytes<<10 < now.end-now.begin {
				found = append(found, now)
			}
			heap = false
		}
	}
	return found
}

const hugePages = "/sys/kernel/mm/transparent_hugepage/"

// hugePage is the size of a huge page where the kernel wants to be asked for them, and 0 where it does not.
func hugePage() (uint64, error) {
	when, err := os.ReadFile(hugePages + "enabled")
	if err != nil || !bytes.Contains(when, []byte("[madvise]")) {
		return 0, err
	}
	size, err := os.ReadFile(hugePages + "hpage_pmd_size")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(size)), 10, 64)
}
