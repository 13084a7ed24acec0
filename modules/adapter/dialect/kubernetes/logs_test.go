package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var logStart = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

// logText writes lines a second apart, as the kubelet does.
func logText(lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		fmt.Fprintf(&b, "%s %s\n", logStart.Add(time.Duration(i)*time.Second+123456789).Format(time.RFC3339Nano), line)
	}
	return b.String()
}

func TestScanLog(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*logBuffer)
	var got strings.Builder
	times := 0
	err := scanLog(strings.NewReader(logText("one", "", long)+logStart.Format(time.RFC3339Nano)+" no end"), false, func(at time.Time, data []byte) error {
		if !at.IsZero() {
			times++
		}
		got.Write(data)
		return nil
	})
	if err != nil || got.String() != "one\n\n"+long+"\nno end" || times != 4 {
		t.Errorf("%d times, %v: %.60q", times, err, got.String())
	}
}

func TestScanLogOfKubelet(t *testing.T) {
	t.Parallel()
	err := scanLog(strings.NewReader(logText("one")+"failed to try resolving symlinks in path /var/log/pods/x at 10.0.0.1"), false,
		func(time.Time, []byte) error { return nil })
	if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Of(err).Message, "10.0.0.1") {
		t.Errorf("the kubelet's own words: %v", err)
	}
}

func TestLogWindow(t *testing.T) {
	t.Parallel()
	at := func(seconds float64) time.Time { return logStart.Add(time.Duration(seconds * float64(time.Second))) }
	for name, c := range map[string]struct {
		options neutral.LogOptions
		tty     bool
		want    string
	}{
		"all":            {options: neutral.LogOptions{Stdout: true, Tail: -1}, want: "a\nb\nc\n"},
		"since":          {options: neutral.LogOptions{Stdout: true, Tail: -1, Since: at(1.1)}, want: "b\nc\n"},
		"since a moment": {options: neutral.LogOptions{Stdout: true, Tail: -1, Since: at(1.2)}, want: "c\n"},
		"until":          {options: neutral.LogOptions{Stdout: true, Tail: -1, Until: at(1.2)}, want: "a\nb\n"},
		"tail until":     {options: neutral.LogOptions{Stdout: true, Tail: 1, Until: at(1.2)}, want: "b\n"},
		"stderr alone":   {options: neutral.LogOptions{Stderr: true, Tail: -1}, want: ""},
		"terminal":       {options: neutral.LogOptions{Stderr: true, Tail: -1}, tty: true, want: "a\r\nb\r\nc\r\n"},
	} {
		var got strings.Builder
		w := newLogWindow(c.options, c.tty, func(chunk neutral.Chunk) error {
			if chunk.Stream != neutral.Stdout || chunk.Time.IsZero() {
				t.Errorf("%s: %+v", name, chunk)
			}
			got.Write(chunk.Data)
			return nil
		})
		err := scanLog(strings.NewReader(logText("a", "b", "c")), false, w.line)
		if err != nil && !errors.Is(err, errLogEnd) {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.flush(); err != nil || got.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got.String(), err, c.want)
		}
	}
	native := newLogWindow(neutral.LogOptions{Tail: 5, Since: at(0.5), Follow: true, Stdout: true}, false, nil).native("main")
	if *native.TailLines != 5 || !native.SinceTime.Time.Equal(logStart) || !native.Follow || !native.Timestamps {
		t.Errorf("asked of the kubelet: %+v", native)
	}
	if held := newLogWindow(neutral.LogOptions{Tail: 5, Until: at(1), Stdout: true}, false, nil).native("main"); held.TailLines != nil {
		t.Error("the kubelet counts its last lines before it leaves out the latest")
	}
}

func FuzzScanLog(f *testing.F) {
	f.Add([]byte(logText("one", "two")))
	f.Add([]byte("no time\n"))
	f.Add([]byte("2026-11-24T10:00:00Z"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		total := 0
		err := scanLog(bytes.NewReader(text), false, func(_ time.Time, data []byte) error {
			if len(data) == 0 {
				t.Error("an empty piece")
			}
			total += len(data)
			return nil
		})
		if total > len(text) || err == nil && len(text) > 0 && total+64*(bytes.Count(text, []byte{'\n'})+1) < len(text) {
			t.Errorf("%d bytes of %d: %v", total, len(text), err)
		}
	})
}
