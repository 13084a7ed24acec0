package docker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// An engine carries the two outputs of a container without a terminal in one stream of frames: a byte that says which, 3
// of zero, the length in 4, and what was written. A frame of a log is one line, or a part of a long one.

// pieceLimit bounds what of a frame or a line is kept at once; what is longer comes in pieces.
const pieceLimit = 256 << 10

// readFrames gives what is in the frames of a stream until its end.
func readFrames(from io.Reader, emit func(neutral.Stream, []byte) error) error {
	var head [8]byte
	piece := make([]byte, 0, 4<<10)
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return brokenStream(err)
		}
		stream := neutral.Stdout
		switch head[0] {
		case 0, 1:
		case 2:
			stream = neutral.Stderr
		case frameError:
		default:
			return fault.New(fault.Unavailable, "the orchestrator gave a stream that cannot be read")
		}
		for left := int64(binary.BigEndian.Uint32(head[4:])); left > 0; {
			size := int(min(left, pieceLimit))
			if cap(piece) < size {
				piece = make([]byte, size)
			}
			piece = piece[:size]
			if _, err := io.ReadFull(from, piece); err != nil {
				return brokenStream(err)
			}
			left -= int64(size)
			if head[0] == frameError {
				return fault.New(fault.Unavailable, "%s", plain(string(piece)))
			}
			if err := emit(stream, piece); err != nil {
				return err
			}
		}
	}
}

// readRaw gives what comes, as it comes.
func readRaw(from io.Reader, emit func(neutral.Stream, []byte) error) error {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if err := emit(neutral.Stdout, piece[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return brokenStream(err)
		}
	}
}

// readLines gives lines with their ends.
func readLines(from io.Reader, emit func(neutral.Stream, []byte) error) error {
	lines := bufio.NewReaderSize(from, pieceLimit)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			if err := emit(neutral.Stdout, line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return brokenStream(err)
		}
	}
}

func brokenStream(err error) error {
	return fault.Wrap(fault.Unavailable, err, "the stream from the orchestrator broke")
}
