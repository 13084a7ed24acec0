package podstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func logWorld(t *testing.T, run Run) *world {
	return newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
		l, err := ParseLog(r.URL.Query(), noon)
		if err != nil {
			return err
		}
		return l.Serve(w, r, run)
	})
}

// log asks for a log as kubectl does.
func (w *world) log(ctx context.Context, t *testing.T, options *corev1.PodLogOptions) (io.ReadCloser, error) {
	t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: w.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client.CoreV1().Pods("default").GetLogs("web", options).Stream(ctx)
}

func lines(_ context.Context, session neutral.Session) (neutral.Result, error) {
	for _, c := range []neutral.Chunk{
		{Stream: neutral.Stdout, Data: []byte("one\ntwo\n"), Time: noon},
		{Stream: neutral.Stderr, Data: []byte("thr"), Time: noon.Add(time.Second)},
		{Stream: neutral.Stdout, Data: []byte("four\n"), Time: noon.Add(1500 * time.Millisecond).In(time.FixedZone("", 3600))},
		{Stream: neutral.Stderr, Data: []byte("ee\n\n"), Time: noon.Add(2 * time.Second)},
		{Stream: neutral.Stdout, Data: []byte("five\n")},
	} {
		if err := session.Output(c); err != nil {
			return neutral.Result{}, err
		}
	}
	return neutral.Result{}, nil
}

func TestLog(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options corev1.PodLogOptions
		want    string
	}{
		"all":    {corev1.PodLogOptions{}, "one\ntwo\nthrfour\nee\n\nfive\n"},
		"follow": {corev1.PodLogOptions{Follow: true}, "one\ntwo\nthrfour\nee\n\nfive\n"},
		"stderr": {corev1.PodLogOptions{Stream: new("Stderr")}, "three\n\n"},
		"limit":  {corev1.PodLogOptions{LimitBytes: new(int64(6))}, "one\ntw"},
		"whole":  {corev1.PodLogOptions{LimitBytes: new(int64(8))}, "one\ntwo\n"},
		"times": {corev1.PodLogOptions{Timestamps: true, Stream: new("Stdout")},
			"2026-11-30T12:00:00.000000000Z one\n2026-11-30T12:00:00.000000000Z two\n2026-11-30T12:00:01.500000000Z four\nfive\n"},
		"times of cut lines": {corev1.PodLogOptions{Timestamps: true, Stream: new("Stderr")},
			"2026-11-30T12:00:01.000000000Z three\n2026-11-30T12:00:02.000000000Z \n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := logWorld(t, lines)
			stream, err := w.log(limited(t), t, &test.options)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(stream)
			if err != nil || string(got) != test.want {
				t.Errorf("%q, %v", got, err)
			}
			stream.Close()
			if err := w.wait(t); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

func TestLogRefused(t *testing.T) {
	t.Parallel()
	w := logWorld(t, func(context.Context, neutral.Session) (neutral.Result, error) {
		return neutral.Result{}, fault.New(fault.NotFound, "container web is not there")
	})
	if _, err := w.log(limited(t), t, &corev1.PodLogOptions{}); !apierrors.IsNotFound(err) && !strings.Contains(err.Error(), "not there") {
		t.Error(err)
	}
	if _, err := w.log(limited(t), t, &corev1.PodLogOptions{TailLines: new(int64(-1))}); err == nil || !strings.Contains(err.Error(), "tailLines") {
		t.Error(err)
	}
}

// A followed log's lines come when they are written, and the end of its caller ends it.
func TestLogFollow(t *testing.T) {
	t.Parallel()
	more := make(chan string)
	w := logWorld(t, func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
		if err := session.Accept(); err != nil {
			return neutral.Result{}, err
		}
		for {
			select {
			case line := <-more:
				if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte(line)}); err != nil {
					return neutral.Result{}, err
				}
			case <-ctx.Done():
				return neutral.Result{}, ctx.Err()
			}
		}
	})
	ctx, cancel := context.WithCancel(limited(t))
	stream, err := w.log(ctx, t, &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(stream)
	for _, line := range []string{"a\n", "b\n"} {
		more <- line
		if got, err := reader.ReadString('\n'); err != nil || got != line {
			t.Fatalf("%q, %v", got, err)
		}
	}
	cancel()
	var told *Told
	if err := w.wait(t); !errors.As(err, &told) {
		t.Errorf("Serve: %v", err)
	}
}

// A log that breaks off is not taken for whole.
func TestLogBroken(t *testing.T) {
	t.Parallel()
	for _, follow := range []bool{false, true} {
		w := logWorld(t, func(_ context.Context, session neutral.Session) (neutral.Result, error) {
			if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("half")}); err != nil {
				return neutral.Result{}, err
			}
			return neutral.Result{}, fault.New(fault.Unavailable, "the orchestrator went away")
		})
		stream, err := w.log(limited(t), t, &corev1.PodLogOptions{Follow: follow})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(stream)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q, %v", got, err)
		}
		var told *Told
		if err := w.wait(t); !errors.As(err, &told) || !fault.Is(err, fault.Unavailable) {
			t.Errorf("Serve: %v", err)
		}
	}
}

// A caller that reads nothing holds the log up; when it goes, the log ends.
func TestLogSlowReader(t *testing.T) {
	t.Parallel()
	var written atomic.Int64
	w := logWorld(t, func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
		line := append(bytes.Repeat([]byte("x"), 64<<10), '\n')
		for ctx.Err() == nil {
			if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: line}); err != nil {
				return neutral.Result{}, err
			}
			written.Add(int64(len(line)))
		}
		return neutral.Result{}, ctx.Err()
	})
	stream, err := w.log(limited(t), t, &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	before := int64(-1)
	for written.Load() != before || before == 0 {
		before = written.Load()
		time.Sleep(300 * time.Millisecond)
	}
	if before > 32<<20 {
		t.Errorf("%d bytes went out, and nobody read", before)
	}
	stream.Close()
	if err := w.wait(t); err == nil {
		t.Error("Serve says nothing")
	}
}

// A log that is cancelled while its caller reads nothing ends too.
func TestLogServerEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		return Log{Options: neutral.LogOptions{Stdout: true}}.Serve(w, r.WithContext(ctx), func(_ context.Context, session neutral.Session) (neutral.Result, error) {
			for {
				if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: make([]byte, 1<<20)}); err != nil {
					return neutral.Result{}, err
				}
			}
		})
	})
	stream, err := w.log(limited(t), t, &corev1.PodLogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.wait(t); err == nil {
		t.Error("Serve says nothing")
	}
	stream.Close()
}
