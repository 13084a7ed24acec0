package front

import (
	"context"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/modules/caller"
)

type ownerKey struct{}

// withOwner remembers who runs the process that opened a connection, as the kernel knows it.
func withOwner(ctx context.Context, conn net.Conn) context.Context {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ctx
	}
	var credentials *unix.Ucred
	var groups []uint32
	var groupsErr error
	if controlErr := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups, groupsErr = peerGroups(fd)
	}); controlErr != nil || err != nil {
		return ctx
	}
	process := caller.Process{User: credentials.Uid, Groups: append(groups, credentials.Gid), Part: groupsErr != nil}
	return context.WithValue(ctx, ownerKey{}, caller.Owner(process))
}

// peerGroups are the supplementary groups of the process at the other end of a Unix socket.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		length := uint32(len(groups)) * uint32(unsafe.Sizeof(groups[0])) //nolint:gosec // at most 65536 groups
		_, _, failure := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&length)), 0) //nolint:gosec // as the call has it
		got := int(length) / int(unsafe.Sizeof(groups[0]))
		switch {
		case failure == unix.ERANGE && got > len(groups): // the length is what it takes
			groups = make([]uint32, got)
		case failure != 0:
			return nil, failure
		default:
			return slices.Clone(groups[:got]), nil
		}
	}
}

// ownerOf is who that is as a caller; nobody for connections of no Unix socket.
func ownerOf(ctx context.Context) caller.Identity {
	owner, _ := ctx.Value(ownerKey{}).(caller.Identity)
	return owner
}
