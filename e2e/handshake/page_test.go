package handshake

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/page"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
)

var update = flag.Bool("update", false, "write what was met into the page")

const document = "../../docs/handshake.md"

// times is the page's table of times.
func times() string {
	t := session.DefaultTiming()
	var b strings.Builder
	b.WriteString("| what | how long |\n|---|---|\n")
	for _, row := range []struct {
		what string
		d    time.Duration
		more string
	}{
		{"a call of the handshake may take", t.Answer, ""},
		{"pause after the first hello without an answer; twice as long after each", t.BackoffMin, ", jittered"},
		{"longest such pause, and the pause after a goodbye or a refusal", t.BackoffMax, ", jittered"},
		{"between two heartbeats", t.Heartbeat, ", jittered"},
		{"silence until a peer is marked stale", t.Stale, ""},
		{"silence until a peer is marked down, and hello is said again", t.Down, ""},
		{"between two changes of the own configuration that are told", t.Settle, ""},
	} {
		fmt.Fprintf(&b, "| %s | %s%s |\n", row.what, row.d, row.more)
	}
	return b.String()
}

// TestPage holds that the page has the times as they are, and each fault that is met, and no other.
func TestPage(t *testing.T) {
	t.Parallel()
	if *update {
		if err := page.Write(document, "times", times()); err != nil {
			t.Fatal(err)
		}
		return // TestFaults writes the rest
	}
	said, err := page.Section(document, "times")
	if err != nil {
		t.Fatal(err)
	}
	if said != times() {
		t.Errorf("the page's times are not those of the code; -update writes:\n%s", times())
	}
	if said, err = page.Section(document, "faults"); err != nil {
		t.Fatal(err)
	}
	all := faults()
	if page.Columns(said, 3) != page.Columns(table(all, make([]time.Duration, len(all))), 3) {
		t.Error("the page's faults are not those of the test; -update writes them")
	}
}
