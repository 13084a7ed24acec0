package front

import (
	"context"
	"net"

	"golang.org/x/sys/unix"
)

// Credentials are those of the process that opened a client's connection, as the kernel knows them.
type Credentials struct{ UID, GID uint32 }

type credentialsKey struct{}

// withCredentials remembers who is on the other end of a connection.
func withCredentials(ctx context.Context, conn net.Conn) context.Context {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ctx
	}
	var credentials *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credentials == nil {
		return ctx
	}
	return context.WithValue(ctx, credentialsKey{}, Credentials{UID: credentials.Uid, GID: credentials.Gid})
}

func credentialsOf(ctx context.Context) (Credentials, bool) {
	c, ok := ctx.Value(credentialsKey{}).(Credentials)
	return c, ok
}
