package testbed

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Progress returns a logger for people who wait: a line an event, with the
// time since the logger was made.
func Progress(w io.Writer) *slog.Logger {
	return slog.New(&progressHandler{out: &progressOutput{w: w, start: time.Now()}})
}

type progressOutput struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

type progressHandler struct {
	out        *progressOutput
	attributes string
	group      string
}

var _ slog.Handler = (*progressHandler)(nil)

func (h *progressHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *progressHandler) Handle(_ context.Context, record slog.Record) error {
	var line strings.Builder
	fmt.Fprintf(&line, "[%6.1fs] ", record.Time.Sub(h.out.start).Seconds())
	if record.Level > slog.LevelInfo {
		line.WriteString(record.Level.String() + " ")
	}
	line.WriteString(record.Message + h.attributes)
	record.Attrs(func(a slog.Attr) bool {
		line.WriteString(h.format(a))
		return true
	})
	line.WriteByte('\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, line.String())
	return err
}

func (h *progressHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	next := *h
	for _, a := range attributes {
		next.attributes += h.format(a)
	}
	return &next
}

func (h *progressHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

func (h *progressHandler) format(a slog.Attr) string {
	return fmt.Sprintf(" %s%s=%v", h.group, a.Key, a.Value.Resolve())
}
