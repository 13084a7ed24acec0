package kubernetes

import (
	"errors"
	"testing"
)

func TestReplay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ past, during, after, want string }{
		{"", "", "", ""},
		{"first\r\n", "", "$ ", "first\r\n$ "},
		{"", "$ ", "ls\r\n", "$ ls\r\n"},
		{"a\r\nb\r\n", "b\r\n$ ", "", "a\r\nb\r\n$ "},
		{"a\r\nb\r\n", "a\r\nb\r\nc", "d", "a\r\nb\r\ncd"},
		{"a\r\n", "x", "", "a\r\nx"},
	} {
		var got []byte
		r := &replay{hold: true, emit: func(p []byte) error { got = append(got, p...); return nil }}
		for _, b := range []byte(c.during) {
			if _, err := r.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 0 {
			t.Errorf("%q was passed on before the log was known", got)
		}
		r.release([]byte(c.past))
		if _, err := r.Write([]byte(c.after)); err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want || r.written() != (c.want != "") {
			t.Errorf("log %q, stream %q then %q: %q, want %q", c.past, c.during, c.after, got, c.want)
		}
	}
}

func TestReplayBroken(t *testing.T) {
	t.Parallel()
	gone := errors.New("the caller is gone")
	r := &replay{hold: true, emit: func([]byte) error { return gone }}
	r.release([]byte("past"))
	if _, err := r.Write([]byte("x")); !errors.Is(err, gone) {
		t.Errorf("a write after the caller went: %v", err)
	}
}
