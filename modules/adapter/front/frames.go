package front

import (
	"encoding/binary"
	"errors"
	"io"
)

// The framing of docker's multiplexed streams: a stream number, three zero bytes, the payload's length, the payload.
const (
	multiplexedType = "application/vnd.docker.multiplexed-stream"
	rawType         = "application/vnd.docker.raw-stream"
	frameHead       = 8
	frameError      = 3 // the stream on which an engine reports its own failure; clients show it and fail
)

type framing int

const (
	framingUnknown framing = iota // not enough was read to tell
	framingOn
	framingOff // a terminal's raw bytes
)

// heldPayload is the largest payload that is held until it is whole. Clients take a frame of a service's logs for one
// message, so messages, which engines cut at 16 KiB, must not be cut elsewhere.
const heldPayload = 64 << 10

// frames passes a stream through so that what was delivered always ends between two frames: a large frame that has
// arrived in part is delivered as a frame of that part, a small one when it is whole. When the stream breaks off, one
// frame of frameError can then follow, and the client fails with a message; a client of a hijacked connection cannot tell
// a cut from an end otherwise.
type frames struct {
	src     io.Reader
	message string
	known   bool // multiplexed for certain, not by looking at the first bytes
	state   framing

	in   []byte
	out  []byte // not delivered yet
	held []byte // a frame's head that has arrived in part
	head [frameHead]byte
	size uint32 // of the current frame's payload
	left uint32 // of it, not arrived
	part []byte // of it, arrived and not delivered
	err  error  // of src, delivered after out
	room []byte // backs out
}

// newFrames reads from src. known false decides by the first bytes: API versions before 1.42 call every stream raw.
func newFrames(src io.Reader, known bool, message string) *frames {
	f := &frames{src: src, message: message, known: known, in: make([]byte, bufferSize)}
	if known {
		f.state = framingOn
	}
	f.held = make([]byte, 0, frameHead)
	return f
}

// Read gives whole frames, as far as the caller's buffer goes.
func (f *frames) Read(p []byte) (int, error) {
	for len(f.out) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		n, err := f.src.Read(f.in)
		f.room = f.room[:0]
		f.take(f.in[:n])
		if err != nil {
			f.end(err)
		}
		f.out = f.room
	}
	n := copy(p, f.out)
	f.out = f.out[n:]
	return n, nil
}

// take puts what can be delivered of b into room.
func (f *frames) take(b []byte) {
	for len(b) > 0 {
		switch {
		case f.state == framingOff:
			f.room = append(f.room, b...)
			return
		case f.left > 0:
			n := min(int(f.left), len(b))
			f.left -= uint32(n)
			switch whole := f.left == 0; {
			case f.size > heldPayload || whole && len(f.part) == 0:
				f.deliver(b[:n])
			default:
				if f.part = append(f.part, b[:n]...); whole {
					f.deliver(f.part)
					f.part = f.part[:0]
				}
			}
			b = b[n:]
		default:
			n := min(frameHead-len(f.held), len(b))
			f.held = append(f.held, b[:n]...)
			b = b[n:]
			f.readHead()
		}
	}
}

// deliver puts a payload into room, as a frame of its own.
func (f *frames) deliver(payload []byte) {
	binary.BigEndian.PutUint32(f.head[4:], uint32(len(payload)))
	f.room = append(append(f.room, f.head[:]...), payload...)
}

// readHead looks at what is held of a frame's head.
func (f *frames) readHead() {
	if !f.plausible() { // not multiplexed, or not any more: what follows is passed on as it is
		f.state = framingOff
		f.room = append(f.room, f.held...)
		f.held = f.held[:0]
		return
	}
	if len(f.held) < frameHead {
		return
	}
	f.state = framingOn
	copy(f.head[:], f.held)
	f.size = binary.BigEndian.Uint32(f.held[4:])
	f.left = f.size
	f.held = f.held[:0]
	if f.left == 0 {
		f.room = append(f.room, f.head[:]...)
	}
}

// plausible tells whether the bytes held can begin a frame. A terminal that begins with such bytes is not thought of.
func (f *frames) plausible() bool {
	for i, b := range f.held {
		switch {
		case i == 0 && b > frameError:
			return false
		case i == 0 && b == 0 && f.state == framingUnknown:
			return false
		case i > 0 && i < 4 && b != 0:
			return false
		}
	}
	return true
}

// end adds what the stream's end needs.
func (f *frames) end(err error) {
	f.err = err
	if len(f.part) > 0 {
		f.deliver(f.part)
		f.part = nil
	}
	if errors.Is(err, io.EOF) {
		f.room = append(f.room, f.held...)
		f.held = f.held[:0]
		return
	}
	if f.state == framingOn {
		f.room = append(f.room, errorFrame(f.message)...)
	}
}

func errorFrame(message string) []byte {
	frame := make([]byte, frameHead, frameHead+len(message)+1)
	frame[0] = frameError
	binary.BigEndian.PutUint32(frame[4:], uint32(len(message)+1))
	return append(append(frame, message...), '\n')
}
