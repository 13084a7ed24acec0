package audit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// maxLine bounds a line that is read; the longest that is written are shorter.
const maxLine = 1 << 20

// Unfinished finds the operations that were sent and whose end no gateway saw: their lines of the phase Decided, oldest
// first. What began after the last start of the gateway may be under way and is left out. It reads a log's files in any
// order; lines that are none are passed over, for a crash leaves one.
func Unfinished(files ...io.Reader) ([]string, error) {
	type mark struct {
		Time    time.Time `json:"time"`
		Phase   Phase     `json:"phase"`
		ID      string    `json:"id"`
		Follows bool      `json:"follows"`
	}
	type sent struct {
		at   time.Time
		line string
	}
	var started time.Time
	open, ended := map[string][]sent{}, map[string]int{}
	for _, file := range files {
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			var m mark
			if json.Unmarshal(lines.Bytes(), &m) != nil {
				continue
			}
			switch {
			case m.Phase == Started && m.Time.After(started):
				started = m.Time
			case m.Phase == Decided && m.Follows && ended[m.ID] > 0:
				if ended[m.ID]--; ended[m.ID] == 0 {
					delete(ended, m.ID)
				}
			case m.Phase == Decided && m.Follows:
				open[m.ID] = append(open[m.ID], sent{m.Time, lines.Text()})
			case m.Phase == Done && len(open[m.ID]) > 0:
				if open[m.ID] = open[m.ID][1:]; len(open[m.ID]) == 0 {
					delete(open, m.ID)
				}
			case m.Phase == Done:
				ended[m.ID]++
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
	}
	var lost []sent
	for _, all := range open {
		for _, s := range all {
			if s.at.Before(started) {
				lost = append(lost, s)
			}
		}
	}
	slices.SortFunc(lost, func(a, b sent) int { return a.at.Compare(b.at) })
	texts := make([]string, len(lost))
	for i, s := range lost {
		texts[i] = s.line
	}
	return texts, nil
}
