// Package hijacktest is a fake of the one thing about dockerd that needs a fake of its own: connections that it hijacks.
package hijacktest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The content types of dockerd's streams.
const (
	RawStream         = "application/vnd.docker.raw-stream"
	MultiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// patience bounds every connection of a fake engine.
const patience = 30 * time.Second

// Connection is one request to the fake engine, its body read, with the connection under it.
type Connection struct {
	*net.UnixConn
	Request *http.Request
	Body    []byte
	Reader  *bufio.Reader // what the client sends after the request
}

// Accept hijacks as dockerd does.
func (c Connection) Accept(mediaType string) {
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", mediaType)
}

// Answer gives an ordinary answer.
func (c Connection) Answer(status int, mediaType, body string) {
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status),
		mediaType, len(body), body)
}

// Say writes one frame of a multiplexed stream.
func (c Connection) Say(stream byte, payload string) {
	n := len(payload)
	_, _ = c.Write(append([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, payload...))
}

// SocketDir is a directory whose name leaves room in the 108 bytes of a Unix socket's path.
func SocketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Engine serves each connection by serve, which owns it until it returns. The test ends only when all are done.
func Engine(t testing.TB, serve func(Connection)) neutral.Upstream {
	t.Helper()
	socket := filepath.Join(SocketDir(t), "docker.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
					return
				}
				reader := bufio.NewReader(conn)
				request, err := http.ReadRequest(reader)
				if err != nil {
					return
				}
				body, err := io.ReadAll(request.Body)
				if err != nil {
					return
				}
				serve(Connection{UnixConn: conn, Request: request, Body: body, Reader: reader})
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return neutral.Upstream{Socket: socket, Host: "docker"}
}
