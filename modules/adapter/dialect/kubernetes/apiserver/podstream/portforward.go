package podstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/gorilla/websocket"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// PortForward is a request to reach ports of a Pod.
type PortForward struct {
	Ports []uint16 // of a client that names them in the query; others name them with each connection
}

// Dial connects with a port of the Pod. A connection that can end in one direction has a method CloseWrite. Of an error
// that is a fault the caller is told the message.
type Dial func(ctx context.Context, port uint16) (io.ReadWriteCloser, error)

// portLimit bounds the ports that are named in a query: each has two channels, which are told by one printable byte.
const portLimit = 32

// The protocols of port-forward: over SPDY, over SPDY in a WebSocket, and over channels of a WebSocket.
const (
	protocolForward = "portforward.k8s.io"
	protocolTunnel  = spdyProtocol + "+" + protocolForward
)

var forwardProtocols = []string{protocolTunnel, protocolV4, "v4.base64.channel.k8s.io", ""}

// ParsePortForward reads the query of a Pod's port-forward.
func ParsePortForward(query url.Values) (PortForward, error) {
	var f PortForward
	for _, value := range query["ports"] {
		for text := range strings.SplitSeq(value, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return PortForward{}, &fault.Error{Kind: fault.Invalid, Field: "ports", Message: fmt.Sprintf("ports: %q is not a port", text)}
			}
			if len(f.Ports) == portLimit {
				return PortForward{}, &fault.Error{Kind: fault.Invalid, Field: "ports", Message: fmt.Sprintf("ports: there may be %d of them", portLimit)}
			}
			f.Ports = append(f.Ports, uint16(port))
		}
	}
	return f, nil
}

// Serve carries connections to ports until the caller closes. Each has a stream of its own for what goes wrong with it.
func (f PortForward) Serve(w http.ResponseWriter, r *http.Request, dial Dial) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(errEnded)
	switch {
	case r.ProtoMajor == 1 && isWebSocket(r):
		if err := checkWebSocket(r); err != nil {
			return err
		}
		protocol, err := negotiate(websocket.Subprotocols(r), forwardProtocols)
		if err != nil {
			return err
		}
		if protocol != protocolTunnel && len(f.Ports) == 0 {
			return &fault.Error{Kind: fault.Invalid, Field: "ports", Message: `query parameter "ports" is required`}
		}
		socket, err := upgradeWebSocket(w, r, protocol)
		if err != nil {
			return err
		}
		var group sync.WaitGroup
		group.Go(func() { socket.answerPings(ctx) })
		defer group.Wait()
		if protocol == protocolTunnel {
			tunnel := &tunnel{socket: socket}
			return forwardSPDY(ctx, cancel, socket.line, tunnel, socket.beat, dial)
		}
		return forwardChannels(ctx, cancel, newChannels(socket), f.Ports, dial)
	case r.ProtoMajor == 1 && isSPDY(r):
		protocol, err := negotiateSPDY(w, r, []string{protocolForward})
		if err != nil {
			return err
		}
		line, err := upgradeSPDY(w, protocol)
		if err != nil {
			return err
		}
		return forwardSPDY(ctx, cancel, line, line, func() {}, dial)
	default:
		return fault.New(fault.Invalid, "Upgrade request required")
	}
}

// forwardEnd is what Serve gives when a forwarding is over. That the caller closed is no error.
func forwardEnd(ctx context.Context) error {
	if why := context.Cause(ctx); !errors.Is(why, errGone) {
		return told(why)
	}
	return nil
}

// forwardFailure is what a caller is told of a connection that failed.
func forwardFailure(port uint16, err error) string {
	text := "the container cannot be reached"
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		text = f.Message
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "connection refused"
	}
	return fmt.Sprintf("error forwarding port %d: %s", port, text)
}

// closeWrite ends one direction of a connection, where it can.
func closeWrite(conn io.Closer) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // one that is broken says so to its reader
	}
}

var errBroken = fault.New(fault.Unavailable, "the connection to the container broke")
