package kubernetes

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeLine is a line of a node's log, or a piece of one when it does not end in one.
type fakeLine struct {
	at   time.Time
	text string
}

// fakeLog is a node's log that its runtime still writes when a reader's follow ends.
type fakeLog struct {
	t      *testing.T
	writes [][]fakeLine // what is there at each request beyond what was before
	ended  func()       // called when a follow ends

	mu    sync.Mutex
	reads []string // the requests
}

func at(offset time.Duration, text string) fakeLine {
	return fakeLine{at: logStart.Add(offset), text: text}
}

func (l *fakeLog) serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	l.mu.Lock()
	l.reads = append(l.reads, r.URL.RawQuery)
	lines := slices.Concat(l.writes[:min(len(l.reads), len(l.writes))]...)
	l.mu.Unlock()
	if tail := query.Get("tailLines"); tail != "" {
		n, err := strconv.Atoi(tail)
		if err != nil {
			l.t.Error(err)
		}
		lines = lines[max(0, len(lines)-n):]
	}
	since := time.Time{}
	if text := query.Get("sinceTime"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			l.t.Error(err)
		}
	}
	begin := true
	for _, line := range lines {
		if !line.at.Before(since) {
			if begin {
				_, _ = io.WriteString(w, line.at.Format(time.RFC3339Nano)+" ")
			}
			_, _ = io.WriteString(w, line.text)
		}
		begin = strings.HasSuffix(line.text, "\n")
	}
	if query.Get("follow") != "" && l.ended != nil {
		l.ended()
	}
}

func (l *fakeLog) requests() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reads)
}

// TestLogRest holds that what a runtime writes after the kubelet ended a follow is read as well, each line once.
func TestLogRest(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", logBuffer+10)
	for name, c := range map[string]struct {
		tail   int
		since  time.Duration
		writes [][]fakeLine
		want   string
	}{
		"nothing more": {-1, 0, [][]fakeLine{{at(0, "a\n")}}, "a\n"},
		"an empty log": {-1, 0, [][]fakeLine{{}}, ""},
		"all of it":    {-1, 0, [][]fakeLine{{}, {at(1, "a\n"), at(2, "b\n")}}, "a\nb\n"},
		"in several steps": {-1, 0, [][]fakeLine{{at(1, "a\n")}, {at(2, "b\n")}, {}, {at(time.Second, "c\n")}, {at(2*time.Second, "d\n")}},
			"a\nb\nc\nd\n"},
		"one time": {-1, 0, [][]fakeLine{{at(-time.Hour, "old\n"), at(1, "a\n"), at(1, "b\n"), at(1, "a\n")}, {at(1, "a\n"), at(1, "b\n")}, {at(1, "b\n")}},
			"old\na\nb\na\na\nb\nb\n"},
		"two streams": {-1, 0, [][]fakeLine{{at(5, "a\n"), at(9, "b\n")}, {at(7, "late\n"), at(10, "c\n")}}, "a\nb\nlate\nc\n"},
		"two streams at a second's end": {-1, 0, [][]fakeLine{{at(time.Second+1, "a\n"), at(time.Second-1, "late\n")}, {at(time.Second+2, "c\n")}},
			"a\nlate\nc\n"},
		"no newline":          {-1, 0, [][]fakeLine{{at(1, "a\n"), at(2, "b")}}, "a\nb"},
		"no newline at first": {-1, 0, [][]fakeLine{{at(1, "a\n"), at(2, "b")}, {at(time.Second, "c")}, {at(time.Second, "d\n"), at(time.Second, "e")}}, "a\nbcd\ne"},
		"long lines":          {-1, 0, [][]fakeLine{{at(1, long)}, {at(2, long+"\n"), at(3, long+"\n")}}, long + long + "\n" + long + "\n"},
		"a line across seconds": {-1, 0, [][]fakeLine{{at(1, "a"), at(time.Second, "b\n"), at(time.Second, "c\n")}, {at(time.Second+1, "d\n")}},
			"ab\nc\nd\n"},
		"since": {-1, time.Second, [][]fakeLine{{at(1, "a"), at(time.Second, "b\n")}, {at(time.Second, "c\n")}}, "c\n"},
		"since, but later": {-1, time.Second + 5, [][]fakeLine{{at(time.Second+1, "a\n"), at(time.Second+5, "b\n")}, {at(time.Second+4, "late\n"), at(time.Second+6, "c\n")}},
			"b\nc\n"},
		"tail":                             {2, 0, [][]fakeLine{{at(1, "a\n"), at(1, "b\n"), at(1, "c\n")}, {at(1, "d\n"), at(3, "e\n")}}, "b\nc\nd\ne\n"},
		"tail over a second":               {2, 0, [][]fakeLine{{at(1, "a\n"), at(2, "b\n"), at(time.Second, "c\n")}, {at(time.Second, "d\n")}}, "b\nc\nd\n"},
		"tail without newline":             {1, 0, [][]fakeLine{{at(1, "a\n"), at(1, "b")}, {at(2, "c\n")}}, "bc\n"},
		"tail of nothing":                  {5, 0, [][]fakeLine{{}, {at(1, "a\n")}}, "a\n"},
		"from now on":                      {0, 0, [][]fakeLine{{at(1, "a\n"), at(1, "b\n")}, {at(1, "c\n")}, {at(2, "d\n")}}, "c\nd\n"},
		"from now on, nothing at first":    {0, 0, [][]fakeLine{{at(1, "a\n"), at(1, "b\n")}, {}, {at(1, "c\n")}}, "c\n"},
		"from the beginning, as it is now": {0, 0, [][]fakeLine{{}, {at(1, "a\n")}, {at(1, "b\n")}}, "a\nb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fakeAPI{}
			cluster := f.serve(t, running())
			log := &fakeLog{t: t, writes: c.writes, ended: func() { f.set(f.webPod(t, webEnded())) }}
			f.log = log.serve
			options := &neutral.LogOptions{Follow: true, Stdout: true, Stderr: true, Tail: c.tail}
			if c.since > 0 {
				options.Since = logStart.Add(c.since)
			}
			plan, err := cluster.Plan(neutral.Operation{Action: neutral.ContainerLogs, Ref: "web", Logs: options}, allowAll)
			if err != nil {
				t.Fatal(err)
			}
			r := &recorder{}
			if _, err := plan.Stream(t.Context(), r); err != nil || r.text() != c.want || r.accepted == 0 {
				t.Errorf("%.80q, %v; want %.80q\n%s", r.text(), err, c.want, strings.Join(log.requests(), "\n"))
			}
		})
	}
}

func webEnded() *corev1.ContainerState {
	ended := exited(0)
	ended.Terminated.ContainerID = "containerd://web"
	return ended
}

// TestLogRestOfMany holds that a long log is complete for who follows it and for who is attached.
func TestLogRestOfMany(t *testing.T) {
	t.Parallel()
	var lines []fakeLine
	var want strings.Builder
	for i := range 20000 {
		text := fmt.Sprintln(i / 3)
		lines = append(lines, at(time.Duration(i/7)*time.Millisecond, text)) // some share a time, some also a text
		want.WriteString(text)
	}
	for _, action := range []neutral.Action{neutral.ContainerLogs, neutral.ContainerAttach} {
		f := &fakeAPI{}
		c := f.serve(t, running())
		log := &fakeLog{t: t, writes: [][]fakeLine{lines[:15001], lines[15001:17003], lines[17003:]},
			ended: func() { f.set(f.webPod(t, webEnded())) }}
		f.log = log.serve
		r, err := followLog(t, c, action)
		if err != nil || r.text() != want.String() {
			t.Errorf("%s: %d bytes of %d, %v", action, len(r.text()), want.Len(), err)
		}
		if reads := log.requests(); len(reads) != 5 || strings.Contains(reads[4], "follow") || !strings.Contains(reads[4], "sinceTime") {
			t.Errorf("%s: asked of the node: %q", action, reads)
		}
	}
}

// TestLogRestOfRun holds that the rest is that of the run that was followed, also when the container runs again.
func TestLogRestOfRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		next func(pod *corev1.Pod)
		want string // in the requests after the first; "" when there are none
	}{
		"the next run": {func(pod *corev1.Pod) {
			pod.Status.ContainerStatuses[0].ContainerID = "containerd://next"
			pod.Status.ContainerStatuses[0].LastTerminationState = *webEnded()
		}, "previous=true"},
		"a later run": {func(pod *corev1.Pod) {
			pod.Status.ContainerStatuses[0].ContainerID = "containerd://later"
			pod.Status.ContainerStatuses[0].LastTerminationState = *exited(0)
		}, ""},
		"another Pod": {func(pod *corev1.Pod) { pod.UID = "uid-of-1" }, ""},
	} {
		f := &fakeAPI{}
		cluster := f.serve(t, running())
		log := &fakeLog{t: t, writes: [][]fakeLine{{at(1, "a\n")}, {at(2, "b\n")}}, ended: func() {
			pod := f.webPod(t, running())
			c.next(pod)
			f.set(pod)
		}}
		f.log = log.serve
		r, err := followLog(t, cluster, neutral.ContainerLogs)
		want := "a\n"
		if c.want != "" {
			want = "a\nb\n"
		}
		reads := log.requests()
		if err != nil || r.text() != want || (c.want == "") != (len(reads) == 1) {
			t.Errorf("%s: %q, %v: %q", name, r.text(), err, reads)
		}
		for _, read := range reads[1:] {
			if !strings.Contains(read, c.want) {
				t.Errorf("%s: asked of the node: %q", name, read)
			}
		}
	}
}

// TestLogRotated holds that a log that no longer holds what was read of it gives what is new.
func TestLogRotated(t *testing.T) {
	t.Parallel()
	for _, tailed := range []bool{false, true} {
		position := &logPosition{tailed: tailed}
		for _, line := range []fakeLine{at(1, "a\n"), at(2, "b\n"), at(3, "c\n")} {
			position.pass(line.at, []byte(line.text))
		}
		var got strings.Builder
		text := fmt.Sprintf("%s d\n%s e\n", logStart.Add(4).Format(time.RFC3339Nano), logStart.Add(5).Format(time.RFC3339Nano))
		for range 2 {
			err := scanLog(strings.NewReader(text), true, position.after(func(_ time.Time, data []byte) error {
				got.Write(data)
				return nil
			}))
			if err != nil {
				t.Error(err)
			}
		}
		if got.String() != "d\ne\n" {
			t.Errorf("tailed %v: %q", tailed, got.String())
		}
	}
}

// TestLogRestFails holds that a rest that cannot be read is asked for again, and told of when it stays so.
func TestLogRestFails(t *testing.T) {
	t.Parallel()
	for _, failures := range []int{2, 1000} {
		f := &fakeAPI{}
		c := f.serve(t, running())
		log := &fakeLog{t: t, writes: [][]fakeLine{{at(1, "a\n")}, {at(2, "b\n")}}, ended: func() { f.set(f.webPod(t, webEnded())) }}
		var mu sync.Mutex
		looks := 0
		f.log = func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			looks++
			look := looks
			mu.Unlock()
			if look > 1 && look < 2+failures {
				_, _ = io.WriteString(w, "unable to retrieve container logs for containerd://web")
				return
			}
			log.serve(w, r)
		}
		r, err := followLog(t, c, neutral.ContainerLogs)
		switch {
		case failures < restLooks:
			if err != nil || r.text() != "a\nb\n" {
				t.Errorf("%d failures: %q, %v", failures, r.text(), err)
			}
		case !fault.Is(err, fault.Unavailable) || r.text() != "a\n" || looks != 1+restLooks:
			t.Errorf("%d looks: %q, %v", looks, r.text(), err)
		}
	}
}

// FuzzLogPosition reads a log in two parts, which are the whole however it is divided.
func FuzzLogPosition(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 3, 255, 0, 0}, uint16(5), uint16(60))
	f.Add([]byte{9, 8, 7, 6, 5}, uint16(40), uint16(0))
	f.Fuzz(func(t *testing.T, steps []byte, first, second uint16) {
		if len(steps) > 200 {
			return
		}
		var text, want strings.Builder
		var ends []int // where a log can be cut: after a byte of a line
		now := logStart
		for i, step := range steps {
			now = now.Add(time.Duration(step/16) * 100 * time.Millisecond)
			text.WriteString(now.Format(time.RFC3339Nano) + " ")
			line := strings.Repeat("x", int(step%4)) + strconv.Itoa(i/3) + "\n"
			for j := range line {
				text.WriteByte(line[j])
				ends = append(ends, text.Len())
			}
			want.WriteString(line)
		}
		if len(ends) == 0 {
			return
		}
		position := &logPosition{}
		var got strings.Builder
		read := func(text string) {
			err := scanLog(strings.NewReader(text), true, position.after(func(_ time.Time, data []byte) error {
				got.Write(data)
				return nil
			}))
			if err != nil {
				t.Fatal(err)
			}
		}
		one, two := int(first)%len(ends), int(second)%len(ends)
		read(text.String()[:ends[min(one, two)]])
		read(text.String()[:ends[max(one, two)]])
		read(text.String())
		read(text.String())
		if got.String() != want.String() {
			t.Errorf("%q, want %q", got.String(), want.String())
		}
	})
}
