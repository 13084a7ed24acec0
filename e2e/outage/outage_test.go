package outage

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/page"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

var update = flag.Bool("update", false, "write what was met into docs/network-switch.md")

const document = "../../docs/network-switch.md"

var running *stage

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := os.MkdirTemp("", "isthmus-outage-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(root) }()
	log := testbed.Progress(os.Stderr)
	code := 1
	if running, err = open(ctx, root, log); err != nil {
		fmt.Fprintln(os.Stderr, "the clusters did not come up:", err)
	} else {
		done := make(chan int, 1)
		go func() { done <- m.Run() }()
		select {
		case code = <-done:
		case <-ctx.Done(): // the clusters end, and with them the tests
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := testbed.Down(end, root, log); err != nil {
		fmt.Fprintln(os.Stderr, "the clusters did not end:", err)
		return 1
	}
	return code
}

// TestOutages kills each victim before each change, and holds what docs/network-switch.md says of it.
func TestOutages(t *testing.T) {
	rows := everywhere(t, targetsOf, (*site).outages)
	if !t.Failed() {
		hold(t, "outages", table(rows), 2)
	}
}

// everywhere looks at the targets of each cluster, of both at once. Rows come in the order of the targets.
func everywhere[R any](t *testing.T, targetsOf func(cluster string) []target, look func(*site, *testing.T, target) []R) []R {
	var all []*[]R
	t.Run("in", func(t *testing.T) {
		for _, cluster := range []string{"west", "east"} {
			targets := targetsOf(cluster)
			rows := make([][]R, len(targets))
			for i := range rows {
				all = append(all, &rows[i])
			}
			t.Run(cluster, func(t *testing.T) {
				t.Parallel()
				for i, target := range targets {
					t.Run(target.title(), func(t *testing.T) { rows[i] = look(running.sites[cluster], t, target) })
				}
			})
		}
	})
	var rows []R
	for _, of := range all {
		rows = append(rows, *of...)
	}
	return rows
}

// hold writes a table into its section of the page, or holds that the page has its rows: those columns that no clock made.
func hold(t *testing.T, section, table string, columns int) {
	t.Helper()
	if *update {
		if err := page.Write(document, section, table); err != nil {
			t.Fatal(err)
		}
		return
	}
	said, err := page.Section(document, section)
	if err != nil {
		t.Fatal(err)
	}
	if page.Columns(said, columns) != page.Columns(table, columns) {
		t.Errorf("%s tells of %s otherwise than they were; -update writes:\n%s", filepath.Base(document), section, table)
	}
}

// row is a change, and how long after the death of each victim before it the target was back.
type row struct {
	target, change string
	back           [len(victims)]time.Duration
	away           [len(victims)]time.Duration
}

func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| target | killed before |")
	for _, v := range victims {
		fmt.Fprintf(&b, " %s |", v)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(victims)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s |", r.target, r.change)
		for i := range victims {
			fmt.Fprintf(&b, " %.1f, %.1f |", r.back[i].Seconds(), r.away[i].Seconds())
		}
		b.WriteString("\n")
	}
	return b.String()
}
