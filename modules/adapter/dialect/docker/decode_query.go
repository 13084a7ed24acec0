package docker

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// query is a request's parsed head. Its readers keep the first error.
type query struct {
	values  url.Values
	version apiVersion
	err     error
}

func parseQuery(req dialect.Request) (*query, error) {
	target, err := req.URL()
	if err != nil {
		return nil, fault.New(fault.Invalid, "the request's path cannot be parsed")
	}
	version, _, err := splitVersion(target.Path)
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(target.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the request's query cannot be parsed")
	}
	return &query{values: values, version: version}, nil
}

func (q *query) fail(field, format string, args ...any) {
	if q.err == nil {
		err := fault.New(fault.Invalid, format, args...)
		err.Field = field
		q.err = err
	}
}

func (q *query) text(key string) string { return q.values.Get(key) }

// flag reads a boolean as an engine does: everything but a word for no is yes.
func (q *query) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(q.values.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number reads a whole number; ok is false where it is absent.
func (q *query) number(key string) (n int, ok bool) {
	text := q.values.Get(key)
	if text == "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		q.fail(key, "invalid value for query parameter %s: %q is not a number", key, shorten(text))
		return 0, false
	}
	return n, true
}

// moment reads a time: seconds since 1970 with an optional fraction, or RFC 3339.
func (q *query) moment(key string) time.Time {
	text := q.values.Get(key)
	if text == "" || text == "0" {
		return time.Time{}
	}
	t, ok := parseMoment(text)
	if !ok {
		q.fail(key, "invalid value for query parameter %s: %q is not a time", key, shorten(text))
	}
	return t
}

func parseMoment(text string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UTC(), true
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	var nanos int64
	if fraction != "" {
		if len(fraction) > 9 {
			fraction = fraction[:9]
		}
		nanos, err = strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
		if err != nil || nanos < 0 {
			return time.Time{}, false
		}
	}
	return time.Unix(seconds, nanos).UTC(), true
}

// size reads a terminal's size.
func (q *query) size() *neutral.Size {
	read := func(key string) uint16 {
		n, err := strconv.ParseUint(q.values.Get(key), 10, 16)
		if err != nil {
			q.fail(key, "invalid resize parameter %s: %q", key, shorten(q.values.Get(key)))
		}
		return uint16(n)
	}
	return &neutral.Size{Rows: read("h"), Columns: read("w")}
}

// logs reads what part of a log is wanted.
func (q *query) logs() *neutral.LogOptions {
	options := &neutral.LogOptions{
		Follow: q.flag("follow"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Timestamps: q.flag("timestamps"), Details: q.flag("details"),
		Since: q.moment("since"), Until: q.moment("until"), Tail: -1,
	}
	if !options.Stdout && !options.Stderr {
		q.fail("", "Bad parameters: you must choose at least one stream")
	}
	if n, err := strconv.Atoi(q.text("tail")); err == nil && n >= 0 {
		options.Tail = n // as in an engine, anything else is everything
	}
	return options
}

// stop reads how a container ends.
func (q *query) stop() *neutral.StopOptions {
	options := &neutral.StopOptions{Signal: signal(q.text("signal"))}
	if t, ok := q.number("t"); ok {
		options.Timeout = &t
	}
	if options.Signal == "" && q.text("signal") != "" {
		q.fail("signal", "Invalid signal: %s", shorten(q.text("signal")))
	}
	return options
}

// signals are the Linux signals by number, those that a container can be sent by name.
var signals = map[int]string{1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL",
	10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT",
	19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF",
	28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS"}

// signal gives a signal's name, "SIGTERM", from its name with or without SIG in any case, or its number; "" is none.
func signal(text string) string {
	if n, err := strconv.Atoi(text); err == nil {
		if name, ok := signals[n]; ok {
			return "SIG" + name
		}
		return ""
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for _, known := range signals {
		if name == known {
			return "SIG" + name
		}
	}
	if offset, ok := strings.CutPrefix(name, "RTMIN"); ok && realtime(offset, "+") ||
		strings.HasPrefix(name, "RTMAX") && realtime(strings.TrimPrefix(name, "RTMAX"), "-") {
		return "SIG" + name
	}
	return ""
}

func realtime(offset, sign string) bool {
	if offset == "" {
		return true
	}
	digits, ok := strings.CutPrefix(offset, sign)
	n, err := strconv.Atoi(digits)
	return ok && err == nil && n >= 0 && n <= 15
}
