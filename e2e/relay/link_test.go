package relay

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echoes is the address of a server that says everything back.
func echoes(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func linked(t *testing.T) (*Link, net.Conn) {
	t.Helper()
	l, err := NewLink(echoes(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, dial(t, l)
}

func dial(t *testing.T, l *Link) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// attempt connects and says something; a reset may come at any moment of it.
func attempt(l *Link) error {
	c, err := net.DialTimeout("tcp", l.Address(), 10*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = say(c, "hello")
	return err
}

// say writes and reads the echo; it tells how long that took.
func say(c net.Conn, text string) (time.Duration, error) {
	begun := time.Now()
	if _, err := io.WriteString(c, text); err != nil {
		return 0, err
	}
	heard := make([]byte, len(text))
	if _, err := io.ReadFull(c, heard); err != nil {
		return 0, err
	}
	if string(heard) != text {
		return 0, errors.New("heard " + string(heard))
	}
	return time.Since(begun), nil
}

func TestLinkPasses(t *testing.T) {
	t.Parallel()
	_, c := linked(t)
	if _, err := say(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("an end became %d bytes, %v", n, err)
	}
}

func TestLinkSlow(t *testing.T) {
	t.Parallel()
	l, c := linked(t)
	l.Set(Weather{Delay: 100 * time.Millisecond})
	if took, err := say(c, "hello"); err != nil || took < 200*time.Millisecond {
		t.Errorf("%s, %v", took, err)
	}
	l.Set(Weather{Rate: 1000})
	if took, err := say(c, string(make([]byte, 100))); err != nil || took < 200*time.Millisecond {
		t.Errorf("%s, %v", took, err)
	}
	l.Set(Weather{})
	if took, err := say(c, "hello"); err != nil || took > time.Second {
		t.Errorf("%s, %v", took, err)
	}
}

// TestLinkHole sends into a hole, one direction after the other: it arrives when the weather is good again.
func TestLinkHole(t *testing.T) {
	t.Parallel()
	l, c := linked(t)
	for _, hole := range []Weather{Hole, {Hold: [2]bool{Out: true}}, {Hold: [2]bool{Back: true}}} {
		l.Set(hole)
		time.AfterFunc(200*time.Millisecond, func() { l.Set(Weather{}) })
		if took, err := say(c, "hello"); err != nil || took < 150*time.Millisecond {
			t.Errorf("%+v: %s, %v", hole, took, err)
		}
	}
}

func TestLinkEnds(t *testing.T) {
	t.Parallel()
	l, c := linked(t)
	if _, err := say(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if n := l.Reset(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if _, err := say(c, "hello"); err == nil {
		t.Error("a reset connection answers")
	}
	l.Set(Weather{Refuse: true})
	if err := attempt(l); err == nil {
		t.Error("a refused connection answers")
	}
	l.Set(Weather{Cut: 8})
	c = dial(t, l)
	if _, err := say(c, "hello"); err != nil {
		t.Error(err)
	}
	if _, err := say(c, "hello"); err == nil {
		t.Error("a connection answers beyond its cut")
	}
	l.Set(Weather{})
	if err := attempt(l); err != nil {
		t.Error(err)
	}
}

// TestLinkNobody is a link to where nobody listens.
func TestLinkNobody(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	l, err := NewLink(nobody.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := attempt(l); err == nil {
		t.Error("nobody answers")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
