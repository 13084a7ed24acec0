// Package audit records decisions, one JSON line each. A line is in the file before Write returns, so that who decides
// can refuse what could not be recorded.
package audit

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Phase tells whether an entry was written before its operation was sent or after it ended.
type Phase string

// The phases. A denied request has only Decided. Started is of the gateway itself: what was under way before it has no
// Done any more.
const (
	Started Phase = "started"
	Decided Phase = "decided"
	Done    Phase = "done"
)

// Verdict is what was decided.
type Verdict string

// The verdicts.
const (
	Allow Verdict = "allow"
	Deny  Verdict = "deny"
)

// Entry is one line. It has no field that could hold a path, header, body or environment: those can carry secrets.
type Entry struct {
	Time     time.Time      `json:"time"`
	Phase    Phase          `json:"phase"`
	ID       string         `json:"id,omitempty"`
	Trace    string         `json:"trace,omitempty"`
	Peer     string         `json:"peer,omitempty"`
	Caller   string         `json:"caller,omitempty"`
	Groups   []string       `json:"groups,omitempty"` // of the caller, in the phase Decided
	Class    modules.Class  `json:"class,omitempty"`
	Verb     neutral.Verb   `json:"verb,omitempty"`
	Action   neutral.Action `json:"action,omitempty"`
	Kind     neutral.Kind   `json:"kind,omitempty"`
	Resource string         `json:"resource,omitempty"`
	// Namespace and Name are as they were known at the decision.
	Namespace string  `json:"namespace,omitempty"`
	Name      string  `json:"name,omitempty"`
	Decision  Verdict `json:"decision,omitempty"`
	Rule      string  `json:"rule,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	Upstream  string  `json:"upstream,omitempty"`
	// Follows says, in the phase Decided, that the operation was sent after this line and that one of the phase Done
	// tells how it ended. Where none is, nobody knows.
	Follows bool     `json:"follows,omitempty"`
	Losses  []string `json:"losses,omitempty"`
	// Status and Duration are of the answer, in the phase Done.
	Status   int           `json:"status,omitempty"`
	Duration time.Duration `json:"-"`
}

// maxText bounds a text that a caller can choose, and maxLosses how many losses are listed.
const (
	maxText   = 512
	maxLosses = 64
)

// NewEntry fills an entry from a request and what was decided about it.
func NewEntry(phase Phase, req *modules.Request, record modules.Record) Entry {
	e := Entry{
		Phase: phase, ID: req.ID, Trace: TraceOf(req.Header.Get("traceparent")), Peer: req.Peer.Name, Caller: req.Caller, Class: req.Class,
		Verb: record.Verb, Action: record.Action,
		Kind: record.Object.Kind, Resource: record.Object.Resource, Namespace: record.Object.Namespace,
		Name: record.Object.Name, Rule: record.Rule, Upstream: record.Upstream,
	}
	if phase == Decided {
		e.Groups = req.Groups.List()
	}
	for _, l := range record.Losses {
		e.Losses = append(e.Losses, l.String())
	}
	return e
}

// TraceOf is the trace id of a W3C traceparent, "" for what is none.
func TraceOf(parent string) string {
	fields := strings.Split(parent, "-")
	if len(fields) < 4 || len(fields[1]) != 32 || strings.Trim(fields[1], "0123456789abcdef") != "" {
		return ""
	}
	return fields[1]
}

// encode is the entry's line, its newline included.
func (e Entry) encode() ([]byte, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	for _, text := range []*string{&e.ID, &e.Peer, &e.Caller, &e.Resource, &e.Namespace, &e.Name, &e.Rule, &e.Reason,
		&e.Upstream} {
		*text = short(*text)
	}
	if len(e.Losses) > 0 {
		losses := make([]string, 0, min(len(e.Losses), maxLosses+1))
		for i, l := range e.Losses {
			if i == maxLosses {
				losses = append(losses, "...")
				break
			}
			losses = append(losses, short(l))
		}
		e.Losses = losses
	}
	line := struct {
		Entry
		DurationMS *float64 `json:"durationMs,omitempty"`
	}{Entry: e}
	if e.Phase == Done {
		ms := float64(e.Duration.Microseconds()) / 1000
		line.DurationMS = &ms
	}
	b, err := json.Marshal(line)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

func short(text string) string {
	if len(text) <= maxText {
		return text
	}
	return text[:maxText] + "..."
}
