package podstream

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestParseExec(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Exec{
		"command=ls&command=-l&stdout=true&container=web": {Container: "web", Spec: neutral.ExecSpec{Command: []string{"ls", "-l"}, Stdout: true}},
		"command=sh&stdin=1&stdout=1&stderr=1&tty=1":      {Spec: neutral.ExecSpec{Command: []string{"sh"}, Stdin: true, Stdout: true, TTY: true}},
		"command=a&command=&stdin&stdout=0&stderr=False":  {Spec: neutral.ExecSpec{Command: []string{"a", ""}, Stdin: true}},
	} {
		query, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseExec(query); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"stdout=1":                 "at least one command",
		"command=&stdout=1":        "at least one command",
		"command=x":                "at least 1 of stdin, stdout, stderr",
		"command=x&stderr=1&tty=1": "at least 1 of stdin, stdout, stderr",
	} {
		query, _ := url.ParseQuery(text)
		if _, err := ParseExec(query); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParseAttach(t *testing.T) {
	t.Parallel()
	query := query("container=web", "stdin=1", "tty=true")
	want := Attach{Container: "web", Options: neutral.AttachOptions{Stdin: true, TTY: true, Stream: true}}
	if got, err := ParseAttach(query); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseAttach(url.Values{}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestParseLog(t *testing.T) {
	t.Parallel()
	all := neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1}
	with := func(change func(*neutral.LogOptions)) neutral.LogOptions { o := all; change(&o); return o }
	for text, want := range map[string]Log{
		"":                                     {Options: all},
		"container=web&previous=1":             {Container: "web", Previous: true, Options: all},
		"follow=true&timestamps=true":          {Options: with(func(o *neutral.LogOptions) { o.Follow, o.Timestamps = true, true })},
		"tailLines=0&limitBytes=7":             {Limit: 7, Options: with(func(o *neutral.LogOptions) { o.Tail = 0 })},
		"tailLines=9223372036854775807":        {Options: with(func(o *neutral.LogOptions) { o.Tail = 1<<31 - 1 })},
		"sinceSeconds=60":                      {Options: with(func(o *neutral.LogOptions) { o.Since = noon.Add(-time.Minute) })},
		"sinceTime=2026-11-30T11:00:00Z":       {Options: with(func(o *neutral.LogOptions) { o.Since = noon.Add(-time.Hour) })},
		"sinceTime=null":                       {Options: all},
		"stream=Stderr":                        {Options: with(func(o *neutral.LogOptions) { o.Stdout = false })},
		"stream=Stdout":                        {Options: with(func(o *neutral.LogOptions) { o.Stderr = false })},
		"stream=All&tailLines=3&unknown=1":     {Options: with(func(o *neutral.LogOptions) { o.Tail = 3 })},
		"insecureSkipTLSVerifyBackend=true":    {Options: all},
		"sinceSeconds=9223372036854775807&x=y": {Options: with(func(o *neutral.LogOptions) { o.Since = noon.Add(-time.Duration(secondsLimit) * time.Second) })},
	} {
		query, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseLog(query, noon); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, kind := range map[string]fault.Kind{
		"tailLines=x":               fault.Invalid,
		"limitBytes=":               fault.Invalid,
		"sinceSeconds=1.5":          fault.Invalid,
		"sinceTime=yesterday":       fault.Invalid,
		"tailLines=-1":              fault.Unprocessable,
		"limitBytes=0":              fault.Unprocessable,
		"sinceSeconds=0":            fault.Unprocessable,
		"stream=stdout":             fault.Unprocessable,
		"stream=Stdout&tailLines=1": fault.Unprocessable,
		"sinceSeconds=1&sinceTime=2026-11-30T11:00:00Z": fault.Unprocessable,
	} {
		query, _ := url.ParseQuery(text)
		if _, err := ParseLog(query, noon); !fault.Is(err, kind) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "command=ls&stdout=1", "tty=1&stderr=1&command=a", "tailLines=5&follow=1&sinceSeconds=3",
		"sinceTime=2026-11-30T11:00:00+01:00&limitBytes=9", "stream=Stderr", "ports=80,443&ports=1", "%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if e, err := ParseExec(query); err == nil {
			s := e.Spec
			if len(s.Command) == 0 || s.Command[0] == "" || s.TTY && s.Stderr || !s.Stdin && !s.Stdout && !s.Stderr {
				t.Errorf("%q gives %+v", text, e)
			}
		} else if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
		if a, err := ParseAttach(query); err == nil {
			if o := a.Options; o.TTY && o.Stderr || !o.Stdin && !o.Stdout && !o.Stderr {
				t.Errorf("%q gives %+v", text, a)
			}
		} else if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
		if l, err := ParseLog(query, noon); err == nil {
			if o := l.Options; l.Limit < 0 || o.Tail < -1 || !o.Stdout && !o.Stderr || query.Has("sinceSeconds") && !o.Since.Before(noon) {
				t.Errorf("%q gives %+v", text, l)
			}
		} else if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unprocessable) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func FuzzSizes(f *testing.F) {
	f.Add([]byte(`{"Width":80,"Height":24}`+"\n"+`{"Width":132,"Height":50}`), uint8(7))
	f.Add([]byte(`{"width":1,"height":2} x`), uint8(1))
	f.Add([]byte(`{"Width":"`+strings.Repeat("x", 2000)), uint8(50))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		if len(data) > 4*sizeLimit {
			return
		}
		whole, parts := &sizeReader{}, &sizeReader{}
		var a, b []neutral.Size
		_ = whole.read(data, func(s neutral.Size) { a = append(a, s) })
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			_ = parts.read(rest[:n], func(s neutral.Size) { b = append(b, s) })
			if len(parts.rest) > sizeLimit {
				t.Fatalf("%d bytes are kept", len(parts.rest))
			}
			rest = rest[n:]
		}
		if len(data) <= sizeLimit && !reflect.DeepEqual(a, b) {
			t.Errorf("%q gives %v whole and %v in parts", data, a, b)
		}
	})
}
