package front

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var errCut = errors.New("stream reset")

// chunked gives its chunks one a Read, then err.
type chunked struct {
	chunks [][]byte
	err    error
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.chunks) == 0 {
		return 0, c.err
	}
	n := copy(p, c.chunks[0])
	if c.chunks[0] = c.chunks[0][n:]; len(c.chunks[0]) == 0 {
		c.chunks = c.chunks[1:]
	}
	return n, nil
}

func frame(stream byte, payload string) []byte {
	b := make([]byte, frameHead)
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(payload)))
	return append(b, payload...)
}

func TestFrames(t *testing.T) {
	t.Parallel()
	whole := append(frame(1, "out"), frame(2, "err")...)
	tests := []struct {
		name   string
		known  bool
		chunks [][]byte
		err    error
		want   []byte
	}{
		{name: "whole frames are left alone", known: true, chunks: [][]byte{whole}, err: io.EOF, want: whole},
		{name: "a split head is joined", known: true, chunks: [][]byte{whole[:3], whole[3:]}, err: io.EOF, want: whole},
		{name: "a split payload stays one frame", known: true, chunks: [][]byte{whole[:10], whole[10:]}, err: io.EOF, want: whole},
		{name: "an empty frame stays", known: true, chunks: [][]byte{frame(1, "")}, err: io.EOF, want: frame(1, "")},
		{name: "sniffed", chunks: [][]byte{whole}, err: errCut, want: append(bytes.Clone(whole), frame(3, "cut\n")...)},
		{name: "cut between frames", known: true, chunks: [][]byte{whole}, err: errCut, want: append(bytes.Clone(whole), frame(3, "cut\n")...)},
		{name: "cut in a payload", known: true, chunks: [][]byte{whole[:9]}, err: errCut, want: append(frame(1, "o"), frame(3, "cut\n")...)},
		{name: "cut in a head", known: true, chunks: [][]byte{whole[:14]}, err: errCut, want: append(frame(1, "out"), frame(3, "cut\n")...)},
		{name: "cut before anything, known", known: true, err: errCut, want: frame(3, "cut\n")},
		{name: "cut before anything, unknown", err: errCut},
		{name: "ends in a head", known: true, chunks: [][]byte{{1, 0, 0}}, err: io.EOF, want: []byte{1, 0, 0}},
		{name: "a terminal", chunks: [][]byte{[]byte("\x1b[H$ ")}, err: errCut, want: []byte("\x1b[H$ ")},
		{name: "a terminal's NULs", chunks: [][]byte{make([]byte, 20)}, err: io.EOF, want: make([]byte, 20)},
		{name: "a terminal that begins like a frame", chunks: [][]byte{{1, 0}, []byte("text")}, err: errCut, want: []byte("\x01\x00text")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := io.ReadAll(iotest.OneByteReader(newFrames(&chunked{chunks: tt.chunks, err: tt.err}, tt.known, "cut")))
			cut := errors.Is(tt.err, errCut)
			if !bytes.Equal(got, tt.want) || cut != (err != nil) || cut && !errors.Is(err, errCut) {
				t.Errorf("read %q, error %v\nwant %q, error %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestLargeFrame delivers of a frame that is not held what has arrived.
func TestLargeFrame(t *testing.T) {
	t.Parallel()
	large := frame(1, strings.Repeat("x", heldPayload+1))
	got, err := io.ReadAll(newFrames(&chunked{chunks: [][]byte{large[:100]}, err: errCut}, true, "cut"))
	if want := append(frame(1, strings.Repeat("x", 100-frameHead)), frame(3, "cut\n")...); !bytes.Equal(got, want) || !errors.Is(err, errCut) {
		t.Errorf("read %q, error %v", got, err)
	}
}

// demultiplex reads a stream as a client does, as far as it is framed.
func demultiplex(stream []byte) (payloads [4]strings.Builder, rest []byte) {
	for len(stream) >= frameHead && stream[0] <= frameError && stream[1]|stream[2]|stream[3] == 0 {
		n := int(binary.BigEndian.Uint32(stream[4:]))
		if n > len(stream)-frameHead {
			break
		}
		payloads[stream[0]].Write(stream[frameHead : frameHead+n])
		stream = stream[frameHead+n:]
	}
	return payloads, stream
}

// FuzzFrames: however a stream is chopped, a client reads the same of it; and one that is cut can be read up to its
// error frame.
func FuzzFrames(f *testing.F) {
	whole := append(frame(1, "out"), frame(2, "err")...)
	f.Add(whole, uint8(3), true, true)
	f.Add(whole, uint8(10), false, false)
	f.Add([]byte("text of a terminal"), uint8(5), false, true)
	f.Add(append(whole, "no frame"...), uint8(2), true, true)
	f.Fuzz(func(t *testing.T, stream []byte, size uint8, known, cut bool) {
		var chunks [][]byte
		for rest := stream; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		src := &chunked{chunks: chunks, err: io.EOF}
		if cut {
			src.err = errCut
		}
		fr := newFrames(src, known, "cut")
		got, err := io.ReadAll(fr)
		if cut != errors.Is(err, errCut) {
			t.Fatalf("error %v", err)
		}
		if fr.state != framingOn {
			if !cut && allRaw(stream) && !bytes.Equal(got, stream) {
				t.Fatalf("raw bytes %q became %q", stream, got)
			}
			return
		}
		gotPayloads, gotRest := demultiplex(got)
		if cut {
			if len(gotRest) != 0 || !strings.HasSuffix(gotPayloads[frameError].String(), "cut\n") {
				t.Fatalf("stream %q, cut, became %q", stream, got)
			}
			return
		}
		wantPayloads, _ := demultiplex(stream)
		for i := range wantPayloads {
			if !strings.HasPrefix(gotPayloads[i].String(), wantPayloads[i].String()) {
				t.Fatalf("stream %d of %q became %q", i, stream, got)
			}
		}
	})
}

// allRaw tells whether a stream does not begin with a frame.
func allRaw(stream []byte) bool {
	return len(stream) > 0 && stream[0] > frameError
}
