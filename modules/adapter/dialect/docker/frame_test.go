package docker

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func collected(into *strings.Builder) func(neutral.Stream, []byte) error {
	return func(stream neutral.Stream, data []byte) error {
		into.WriteByte("?oe"[stream])
		into.Write(data)
		return nil
	}
}

func TestReadFrames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", pieceLimit+10)
	stream := bytes.Join([][]byte{frame(1, []byte("out\n")), frame(2, []byte("err\n")), frame(0, []byte("in")), frame(1, nil), frame(1, []byte(long))}, nil)
	var got strings.Builder
	if err := readFrames(bytes.NewReader(stream), collected(&got)); err != nil || got.String() != "oout\neerr\noino"+long[:pieceLimit]+"o"+long[pieceLimit:] {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	for name, broken := range map[string][]byte{"a head": stream[:5], "a frame": stream[:10], "an unknown stream": frame(9, []byte("x"))} {
		if err := readFrames(bytes.NewReader(broken), collected(&got)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := readFrames(bytes.NewReader(frame(frameError, []byte("node at 10.9.8.7 is away"))), collected(&got))
	if f := fault.Of(err); f.Kind != fault.Unavailable || strings.Contains(f.Message, "10.9.8.7") || !strings.Contains(f.Message, "is away") {
		t.Errorf("the engine's own words: %v", err)
	}
	full := errors.New("full")
	if err := readFrames(bytes.NewReader(stream), func(neutral.Stream, []byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("a caller that is gone: %v", err)
	}
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	if err := readLines(strings.NewReader("one\ntwo\nthree"), collected(&got)); err != nil || got.String() != "oone\notwo\nothree" {
		t.Errorf("%q, %v", got.String(), err)
	}
	long := 0
	if err := readLines(strings.NewReader(strings.Repeat("x", 3*pieceLimit+1)+"\n"), func(_ neutral.Stream, piece []byte) error {
		long += len(piece)
		return nil
	}); err != nil || long != 3*pieceLimit+2 {
		t.Errorf("%d bytes, %v", long, err)
	}
}

func TestLogLine(t *testing.T) {
	t.Parallel()
	at, rest := cutTime([]byte("2026-11-30T01:02:03.5Z com.docker.swarm.node.id=n,com.docker.swarm.task.id=t%2C1,a=b a line\n"))
	if !at.Equal(time.Date(2026, 11, 30, 1, 2, 3, 5e8, time.UTC)) {
		t.Errorf("the time is %s", at)
	}
	if id, line := cutDetails(rest); id != "t,1" || string(line) != "a line\n" {
		t.Errorf("%q of %q", line, id)
	}
	for _, text := range []string{"a line\n", "word", "", "x=%zz y", "com.docker.swarm.task.id=%zz y"} {
		if at, rest := cutTime([]byte(text)); !at.IsZero() || string(rest) != text {
			t.Errorf("%q has the time %s and %q", text, at, rest)
		}
		if id, rest := cutDetails([]byte(text)); id != "" || string(rest) != text {
			t.Errorf("%q is of %q and %q", text, id, rest)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(bytes.Join([][]byte{frame(1, []byte("2026-11-30T01:02:03Z com.docker.swarm.task.id=t a\n")), frame(2, []byte("b"))}, nil))
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 1, 'x'})
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		given := 0
		emit := func(_ neutral.Stream, data []byte) error {
			given += len(data)
			_, rest := cutTime(data)
			cutDetails(rest)
			return nil
		}
		_ = readFrames(bytes.NewReader(stream), emit)
		if given > len(stream) {
			t.Fatalf("%d bytes of %d", given, len(stream))
		}
		given = 0
		if err := readLines(io.LimitReader(bytes.NewReader(stream), 1<<20), emit); err != nil || given != min(len(stream), 1<<20) {
			t.Fatalf("%d bytes of %d, %v", given, len(stream), err)
		}
	})
}
