package front

import (
	"context"
	"net"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/modules/caller"
)

type ownerKey struct{}

// withOwner remembers which user runs the process that opened a connection, as the kernel knows it.
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
	if controlErr := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, ownerKey{}, caller.Owner(credentials.Uid))
}

// ownerOf is that user's name as a caller; "" for connections of no Unix socket.
func ownerOf(ctx context.Context) string {
	owner, _ := ctx.Value(ownerKey{}).(string)
	return owner
}
