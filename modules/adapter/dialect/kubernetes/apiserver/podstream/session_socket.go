package podstream

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The channels of exec and attach.
const (
	channelStdin byte = iota
	channelStdout
	channelStderr
	channelError
	channelResize
)

// socketCarrier carries a session's streams in the channels of a WebSocket.
type socketCarrier struct {
	channels
	session *session
	group   sync.WaitGroup
}

func openSocket(s *session, w http.ResponseWriter, r *http.Request, protocol string) (carrier, error) {
	socket, err := upgradeWebSocket(w, r, protocol)
	if err != nil {
		return nil, err
	}
	c := &socketCarrier{channels: newChannels(socket), session: s}
	c.group.Go(func() { c.watch(s.ctx, s.cancel, c.beat) })
	c.group.Go(func() { c.answerPings(s.ctx) })
	c.group.Go(func() {
		_ = c.listen(c.take, c.closed) // however it ended, the caller is gone
		s.lost()
	})
	// An empty message says that the connection stands.
	first := channelError
	switch {
	case s.want.stdout:
		first = channelStdout
	case s.want.stderr:
		first = channelStderr
	}
	if err := c.write(first, nil); err != nil {
		s.cancel(errGone)
		c.close()
		return nil, told(errGone)
	}
	return c, nil
}

func (c *socketCarrier) take(channel byte, data io.Reader) {
	switch channel {
	case channelStdin:
		c.session.typed(data)
	case channelResize:
		text, err := io.ReadAll(io.LimitReader(data, sizeLimit))
		if err == nil {
			c.session.resize(text)
		}
	default: // nobody listens there
	}
}

func (c *socketCarrier) closed(channel byte) {
	if channel == channelStdin {
		_ = c.session.feed.Close() // never fails
	}
}

func (c *socketCarrier) output(stream neutral.Stream, data []byte) error {
	channel := channelStdout
	if stream == neutral.Stderr {
		channel = channelStderr
	}
	return c.channels.output(channel, data)
}

func (c *socketCarrier) finish(status metav1.Status) {
	if text := ending(c.protocol, status); len(text) > 0 {
		_ = c.write(channelError, text) // the client may be gone
	}
	c.socket.finish(c.session.ctx)
}

func (c *socketCarrier) close() {
	c.line.Close()
	c.group.Wait()
}

// ending is what the error channel says in a protocol.
func ending(protocol string, status metav1.Status) []byte {
	if !structured(protocol) {
		return []byte(status.Message)
	}
	text, err := json.Marshal(status)
	if err != nil { // strings and numbers cannot fail to marshal
		return nil
	}
	return text
}
