package envoytest

import (
	"io"
	"testing"
	"time"
)

// TestHalfHead holds that a connection of a peer ends that stands still within a head, or gets on with it by nothing: no
// time limits a head on the link, but no ping is answered within one.
func TestHalfHead(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	for name, goOn := range map[string]func(*link){
		"silent":        func(*link) {},
		"CONTINUATIONs": func(l *link) { _ = l.out.WriteContinuation(1, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := v.dialPeer(t, v.west.authority.client(id("west")))
			_ = l.conn.SetDeadline(time.Now().Add(30 * time.Second))
			l.greet()
			l.headers(1, true, false, l.encode(fields()...))
			_ = l.writes.Flush()
			began, ended := time.Now(), make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, l.conn)
				ended <- err
			}()
			beat := time.NewTicker(time.Second)
			defer beat.Stop()
			for {
				select {
				case err := <-ended:
					t.Logf("the connection ended after %v: %v", time.Since(began).Round(time.Second), err)
					if time.Since(began) > 25*time.Second {
						t.Error("the connection stays") // until this test's own deadline
					}
					return
				case <-beat.C:
					goOn(l)
					_ = l.writes.Flush()
				}
			}
		})
	}
}
