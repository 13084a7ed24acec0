package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// backendBody is what the backend answers, to tell its answers from those of anything in between.
var backendBody = []byte(strings.Repeat("isthmus bench\n", 8))

// ServeBackend serves HTTP/1.1 GETs on a TCP address until the context ends. It is the service behind all arms, and
// costs as little as a server can, so that what is measured is the way there: it looks at a request no closer than to
// find its end.
func ServeBackend(ctx context.Context, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("backend: %w", err)
		}
		group.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			_ = answer(conn, backendBody) // the peer's end of a connection is no event here
		})
	}
}

var endOfHead = []byte("\r\n\r\n")

// answer answers every request on a connection with the same body.
func answer(conn io.ReadWriter, body []byte) error {
	whole := append([]byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: "+
		strconv.Itoa(len(body))+"\r\n\r\n"), body...)
	buffer, held := make([]byte, 64<<10), 0
	for {
		n, err := conn.Read(buffer[held:])
		if err != nil {
			return err
		}
		held += n
		for {
			head, rest, ok := bytes.Cut(buffer[:held], endOfHead)
			if !ok {
				break
			}
			if !bytes.HasPrefix(head, []byte("GET ")) {
				return errors.New("the backend knows GET only")
			}
			if _, err := conn.Write(whole); err != nil {
				return err
			}
			held = copy(buffer, rest)
		}
		if held == len(buffer) {
			return errors.New("the head of a request is too large")
		}
	}
}
