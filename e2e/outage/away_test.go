package outage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// rounds is how often each way is measured.
const rounds = 3

// TestTimeAway measures for how long a database answers nobody while it is switched, and while its orchestrator starts it
// again, one after the other. The page has what was measured; no time is held.
func TestTimeAway(t *testing.T) {
	rows := everywhere(t, targetsOf, (*site).away)
	if t.Failed() {
		return
	}
	var b strings.Builder
	b.WriteString("| target | plain restart | there | back | there and back, to one restart |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		there, back, restart := r.there.Seconds(), r.back.Seconds(), r.restart.Seconds()
		fmt.Fprintf(&b, "| %s | `%s` | %.1f | %.1f | %.1f / %.1f = %.1f |\n", r.target.title(), r.target.restarts, there, back, there+back, restart, (there+back)/max(restart, blink.Seconds()))
	}
	hold(t, "away", b.String(), 2)
}

// awayRow is for how long a target is away by each way: of all rounds the median.
type awayRow struct {
	target               target
	there, back, restart time.Duration
}

func (s *site) away(t *testing.T, target target) []awayRow {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	before := s.ready(ctx, t, target)
	if _, err := target.query(ctx, s, "CREATE TABLE IF NOT EXISTS counted (round integer PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	var there, back, restart [rounds]time.Duration
	for i := range rounds {
		p := &presence{port: target.port}
		away := watch(ctx, blink, p.answers)
		until(ctx, t, "a row is written", func() error {
			if err := target.open(ctx, s); err != nil {
				return err
			}
			err := target.psql(ctx, s, fmt.Sprintf("INSERT INTO counted VALUES (%d) ON CONFLICT DO NOTHING", i+1))
			if err == nil {
				there[i] = away()
				away = watch(ctx, blink, p.answers)
			}
			if closed := target.close(ctx, s); closed != nil {
				t.Fatal(closed)
			}
			return err
		})
		s.settled(ctx, t, target, before)
		back[i] = away()
		away = watch(ctx, blink, p.answers)
		if err := target.restart(ctx, s); err != nil {
			t.Fatal(err)
		}
		before = s.ready(ctx, t, target)
		restart[i] = away()
		t.Logf("away %s there, %s back, %s by %s", there[i], back[i], restart[i], target.restarts)
	}
	said, err := target.query(ctx, s, "SELECT count(*) FROM counted")
	if count := strings.TrimSpace(said); err != nil || count != fmt.Sprint(rounds) {
		t.Errorf("%s rows are there: %v", count, err)
	}
	return []awayRow{{target, median(there[:]), median(back[:]), median(restart[:])}}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
