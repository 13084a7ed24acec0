package podstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/moby/spdystream/spdy"
)

// Split frames say the same as whole ones.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte{0, 2, 9, 1, 2, 200, 3, 2, 1, 4, 2, 0, 5, 6, 7, 2, 255})
	f.Fuzz(func(t *testing.T, plan []byte) {
		var b bytes.Buffer
		framer, err := spdy.NewFramer(&b, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(plan) && i < 64; i += 2 {
			id, n := spdy.StreamId(plan[i+1]%3*2+1), int(plan[i+1])
			var frame spdy.Frame
			switch plan[i] % 8 {
			case 0:
				frame = &spdy.SynStreamFrame{StreamId: id, Headers: map[string][]string{"Streamtype": {strings.Repeat("x", n)}}}
			case 1, 2:
				frame = &spdy.DataFrame{StreamId: id, Data: bytes.Repeat([]byte{byte(n)}, n*n*4)}
			case 3:
				frame = &spdy.DataFrame{StreamId: id, Data: bytes.Repeat([]byte{byte(n)}, n*n*2), Flags: spdy.DataFlagFin}
			case 4:
				frame = &spdy.PingFrame{Id: uint32(n) + 1}
			case 5:
				frame = &spdy.RstStreamFrame{StreamId: id, Status: spdy.Cancel}
			case 6:
				frame = &spdy.SettingsFrame{FlagIdValues: []spdy.SettingsFlagIdValue{{Id: spdy.SettingsInitialWindowSize, Value: 1}}}
			case 7:
				frame = &spdy.GoAwayFrame{}
			}
			if err := framer.WriteFrame(frame); err != nil {
				t.Fatal(err)
			}
		}
		data := b.Bytes()
		want, err := frames(t, bytes.NewReader(data), 1<<24)
		if err != nil {
			t.Fatal(err)
		}
		got, err := frames(t, &splitter{r: bytes.NewReader(data)}, frameSize)
		if err != nil || got != want {
			t.Errorf("whole %q\nsplit %q, %v", want, got, err)
		}
	})
}

// What is no SPDY gives no large frame either.
func FuzzSplitterRubbish(f *testing.F) {
	f.Add([]byte{0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1})
	f.Add([]byte{0x80, 3, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff})
	f.Add([]byte{0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = frames(t, &splitter{r: io.MultiReader(bytes.NewReader(data), bytes.NewReader(make([]byte, 1<<18)))}, frameSize)
	})
}

// frames are what a stream of SPDY says, less where its data is cut.
func frames(t *testing.T, r io.Reader, limit int) (string, error) {
	t.Helper()
	framer, err := spdy.NewFramer(io.Discard, r)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	var stream spdy.StreamId // whose data may go on
	for {
		frame, err := framer.ReadFrame()
		if errors.Is(err, io.EOF) {
			return said.String(), nil
		}
		if err != nil {
			return said.String(), err
		}
		switch frame := frame.(type) {
		case *spdy.SettingsFrame: // for nobody
		case *spdy.DataFrame:
			if len(frame.Data) > limit {
				t.Fatalf("a frame of %d bytes", len(frame.Data))
			}
			if stream != frame.StreamId {
				said.WriteByte(byte('A' + frame.StreamId%26))
			}
			stream = frame.StreamId
			said.Write(frame.Data)
			if frame.Flags != 0 {
				stream = 0
				said.WriteString("!")
			}
		default:
			stream = 0
			text, err := json.Marshal(frame)
			if err != nil {
				t.Fatal(err)
			}
			said.Write(text)
		}
	}
}
