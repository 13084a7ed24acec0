package front

import (
	"context"
	"crypto/rand"
	"net"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/modules/caller"
)

// dialAs connects to a Unix socket as a user in groups, on a thread that is somebody else from then on and ends.
func dialAs(t *testing.T, socket string, uid, gid uint32, groups []uint32) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = unix.Close(fd) })
			// Of this thread alone, which package syscall's functions would not do.
			if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); e != 0 { //nolint:gosec // as the call has it
				return e
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
				return e
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				return e
			}
			return unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestOwnerOfSocket asks the kernel who opened a Unix socket: the process' user and all its groups, whatever this machine's
// files say of them.
func TestOwnerOfSocket(t *testing.T) {
	t.Parallel()
	if syscall.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	many := make([]uint32, 100) // more than are asked for at first
	for i := range many {
		many[i] = 3_000_000_000 + uint32(i)
	}
	for _, c := range []struct {
		uid, gid uint32
		groups   []uint32
		want     caller.Process
	}{
		{0, 0, nil, caller.Process{Groups: []uint32{0}}},
		{3999999999, 3999999998, nil, caller.Process{User: 3999999999, Groups: []uint32{3999999998}}},
		{3999999999, 3999999998, []uint32{3999999997, 0}, caller.Process{User: 3999999999, Groups: []uint32{0, 3999999997, 3999999998}}},
		{3999999999, 3999999998, many, caller.Process{User: 3999999999, Groups: append(slices.Clone(many), 3999999998)}},
	} {
		listener, err := net.Listen("unix", "@"+rand.Text()) // a name that needs no folder to be open
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		dialAs(t, listener.Addr().String(), c.uid, c.gid, c.groups)
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if got, want := ownerOf(withOwner(context.Background(), conn)), caller.Owner(c.want); got != want || !got.Groups.Whole() || got.Groups == "" {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
