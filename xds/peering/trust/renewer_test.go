package trust

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRenewer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := initialize(t, dir, "", "west")
		r := NewRenewer(RenewerConfig{Authority: a})
		if r.Current().CertificatePEM != nil {
			t.Error("a certificate before the first")
		}
		start := time.Now()
		var at []time.Duration
		var last Pair
		ctx, cancel := context.WithTimeout(t.Context(), 3*24*time.Hour)
		defer cancel()
		err := r.Run(ctx, func(p Pair) {
			now := time.Now()
			at = append(at, now.Sub(start))
			if !now.Before(p.NotAfter) || string(p.KeyPEM) == string(last.KeyPEM) || string(r.Current().KeyPEM) != string(p.KeyPEM) {
				t.Errorf("at %s: %s", now.Sub(start), p)
			}
			if last.CertificatePEM != nil {
				if left := last.NotAfter.Sub(now); left < 8*time.Hour-2*time.Minute || left > 8*time.Hour {
					t.Errorf("renewed with %s left", left)
				}
			}
			last = p
		})
		if err != nil {
			t.Error(err)
		}
		if len(at) != 5 || at[0] != 0 { // at 0, 16, 32, 48 and 64 of 72 hours
			t.Errorf("renewed at %v", at)
		}
	})
}

// An authority near its end: certificates end with it, and then the failure is told again and again, without a spin.
func TestRenewerAtTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := initialize(t, dir, "", "west")
		time.Sleep(time.Until(a.NotAfter()) - 36*time.Hour)
		var log strings.Builder
		r := NewRenewer(RenewerConfig{Authority: a, Logger: slog.New(slog.NewTextHandler(io.Writer(&log), nil))})
		ctx, cancel := context.WithTimeout(t.Context(), 37*time.Hour)
		defer cancel()
		n := 0
		if err := r.Run(ctx, func(Pair) { n++ }); err != nil {
			t.Error(err)
		}
		if n != 2 { // for 24 hours, and after 16 of them until the end
			t.Errorf("%d certificates", n)
		}
		if lines := strings.Count(log.String(), "was not renewed"); lines < 50 || lines > 70 {
			t.Errorf("%d lines of log in the hour after the end", lines)
		}
		if err := NewRenewer(RenewerConfig{Authority: a}).Run(t.Context(), func(Pair) {}); err == nil {
			t.Error("a renewer of an authority that ended runs")
		}
	})
}
