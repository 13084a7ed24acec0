package envoy

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
)

// Rotation keeps Envoy's access log from growing without end. Envoy may be another process' child.
type Rotation struct {
	RunDir  string        // of Envoy's admin socket
	Path    string        // the access log
	MaxSize int64         // bytes at which it is rotated
	Keep    int           // rotated files that are kept
	Every   time.Duration // how often the size is looked at; 0 is a second
	Log     *slog.Logger
}

// Run rotates until ctx ends. No line is lost: Envoy writes to the file that was moved until it opens the new one.
func (r Rotation) Run(ctx context.Context) error {
	admin := newAdmin(r.RunDir)
	if r.Every == 0 {
		r.Every = time.Second
	}
	ticker := time.NewTicker(r.Every)
	defer ticker.Stop()
	failed := false
	for {
		err := r.once(ctx, admin)
		if err != nil && !failed && ctx.Err() == nil {
			r.Log.Warn("the access log is not rotated; trying again", "err", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (r Rotation) once(ctx context.Context, admin *admin) error {
	info, err := os.Stat(r.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It was moved, by us a moment ago, by one of us that died then, or by the admin; or Envoy does not run yet.
		if _, err := admin.info(ctx); err != nil {
			return nil //nolint:nilerr // an Envoy that starts opens the file
		}
		return admin.post(ctx, "/reopen_logs")
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() < r.MaxSize:
		return nil
	}
	if err := durable.Rotate(r.Path, r.Keep); err != nil {
		return err
	}
	return admin.post(ctx, "/reopen_logs")
}
