package podstream

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Exec is a request to run a command in a container.
type Exec struct {
	Container string // "" is the Pod's only one
	Spec      neutral.ExecSpec
}

// Attach is a request for the streams of a container's own process.
type Attach struct {
	Container string // "" is the Pod's only one
	Options   neutral.AttachOptions
}

// ParseExec reads the query of a Pod's exec. See PodExecOptions in
// https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
func ParseExec(query url.Values) (Exec, error) {
	s, err := parseStreams(query)
	if err != nil {
		return Exec{}, err
	}
	command := query["command"]
	if len(command) == 0 || command[0] == "" {
		return Exec{}, &fault.Error{Kind: fault.Invalid, Field: "command", Message: "you must specify at least one command for exec"}
	}
	return Exec{Container: query.Get("container"), Spec: neutral.ExecSpec{
		Command: command, TTY: s.tty, Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr,
	}}, nil
}

// ParseAttach reads the query of a Pod's attach.
func ParseAttach(query url.Values) (Attach, error) {
	s, err := parseStreams(query)
	if err != nil {
		return Attach{}, err
	}
	return Attach{Container: query.Get("container"), Options: neutral.AttachOptions{
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, Stream: true, TTY: s.tty,
	}}, nil
}

// streams are those that a caller wants.
type streams struct{ stdin, stdout, stderr, tty bool }

func parseStreams(query url.Values) (streams, error) {
	s := streams{stdin: flag(query, "stdin"), stdout: flag(query, "stdout"), stderr: flag(query, "stderr"), tty: flag(query, "tty")}
	if s.tty {
		s.stderr = false // a terminal is one stream; clients ask for both all the same, and the kubelet passes over it too
	}
	if !s.stdin && !s.stdout && !s.stderr {
		return streams{}, fault.New(fault.Invalid, "you must specify at least 1 of stdin, stdout, stderr")
	}
	return s, nil
}

// flag reads a boolean as the API does: what is there is true, unless it says otherwise.
func flag(query url.Values, name string) bool {
	values := query[name]
	return len(values) > 0 && values[0] != "0" && !strings.EqualFold(values[0], "false")
}

// Log is a request for a container's log.
type Log struct {
	Container string // "" is the Pod's only one
	Previous  bool   // of the run before the present one
	Limit     int64  // bytes; 0 is no limit
	Options   neutral.LogOptions
}

// ParseLog reads the query of a Pod's log; sinceSeconds is counted from now. See PodLogOptions in
// https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
func ParseLog(query url.Values, now time.Time) (Log, error) {
	log := Log{Container: query.Get("container"), Previous: flag(query, "previous"), Options: neutral.LogOptions{
		Follow: flag(query, "follow"), Timestamps: flag(query, "timestamps"), Stdout: true, Stderr: true, Tail: -1,
	}}
	tail, tailed, err := number(query, "tailLines")
	if err != nil {
		return Log{}, err
	}
	if tailed {
		if tail < 0 {
			return Log{}, unprocessable("tailLines", "must be greater than or equal to 0")
		}
		log.Options.Tail = int(min(tail, math.MaxInt32))
	}
	limit, limited, err := number(query, "limitBytes")
	if err != nil {
		return Log{}, err
	}
	if limited && limit < 1 {
		return Log{}, unprocessable("limitBytes", "must be greater than 0")
	}
	log.Limit = limit
	if log.Options.Since, err = since(query, now); err != nil {
		return Log{}, err
	}
	if values := query["stream"]; len(values) > 0 {
		switch values[0] {
		case "All":
		case "Stdout":
			log.Options.Stderr = false
		case "Stderr":
			log.Options.Stdout = false
		default:
			return Log{}, unprocessable("stream", "Unsupported value: "+strconv.Quote(values[0])+`: supported values: "All", "Stdout", "Stderr"`)
		}
		if values[0] != "All" && tailed {
			return Log{}, unprocessable("", "`tailLines` and specific `stream` are mutually exclusive for now")
		}
	}
	return log, nil
}

// secondsLimit is what a time.Duration holds.
const secondsLimit = math.MaxInt64 / int64(time.Second)

// since reads sinceSeconds or sinceTime; zero is the log's beginning.
func since(query url.Values, now time.Time) (time.Time, error) {
	seconds, counted, err := number(query, "sinceSeconds")
	if err != nil {
		return time.Time{}, err
	}
	values, dated := query["sinceTime"]
	if dated && counted {
		return time.Time{}, unprocessable("", "at most one of `sinceTime` or `sinceSeconds` may be specified")
	}
	if counted {
		if seconds < 1 {
			return time.Time{}, unprocessable("sinceSeconds", "must be greater than 0")
		}
		return now.Add(-time.Duration(min(seconds, secondsLimit)) * time.Second), nil
	}
	if !dated || len(values) == 0 || values[0] == "" || values[0] == "null" { // the API takes both for none
		return time.Time{}, nil
	}
	moment, err := time.Parse(time.RFC3339, values[0])
	if err != nil {
		return time.Time{}, &fault.Error{Kind: fault.Invalid, Field: "sinceTime", Message: "sinceTime is not a time in the form of RFC 3339"}
	}
	return moment, nil
}

func number(query url.Values, name string) (value int64, given bool, err error) {
	values := query[name]
	if len(values) == 0 {
		return 0, false, nil
	}
	value, err = strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return 0, false, &fault.Error{Kind: fault.Invalid, Field: name, Message: name + " is not a whole number"}
	}
	return value, true, nil
}

func unprocessable(field, message string) error {
	if field != "" {
		message = field + ": " + message
	}
	return &fault.Error{Kind: fault.Unprocessable, Field: field, Message: message}
}
