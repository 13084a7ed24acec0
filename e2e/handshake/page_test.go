package handshake

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering/session"
)

var update = flag.Bool("update", false, "write what was met into the page")

const page = "../../docs/handshake.md"

// section is what stands between two marks of the page.
func section(text, name string) (before, content, after string, err error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, ok := strings.Cut(text, begin)
	content, after, found := strings.Cut(rest, end)
	if !ok || !found {
		return "", "", "", fmt.Errorf("%s has no section %s", page, name)
	}
	return before + begin, content, end + after, nil
}

// writeSection replaces a section of the page.
func writeSection(t *testing.T, name, content string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, _, after, err := section(string(text), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte(before+content+after), 0o644); err != nil { //nolint:gosec // a page for everybody
		t.Fatal(err)
	}
}

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
		writeSection(t, "times", times())
		return // TestFaults writes the rest
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, said, _, err := section(string(text), "times")
	if err != nil {
		t.Fatal(err)
	}
	if said != times() {
		t.Errorf("the page's times are not those of the code; -update writes:\n%s", times())
	}
	_, said, _, err = section(string(text), "faults")
	if err != nil {
		t.Fatal(err)
	}
	all := faults()
	if untimed(said) != untimed(table(all, make([]time.Duration, len(all)))) {
		t.Error("the page's faults are not those of the test; -update writes them")
	}
}

// untimed is a table without its last column.
func untimed(table string) string {
	lines := strings.Split(table, "\n")
	for i, line := range lines {
		if at := strings.LastIndex(strings.TrimSuffix(line, " |"), " |"); at > 0 {
			lines[i] = line[:at]
		}
	}
	return strings.Join(lines, "\n")
}
