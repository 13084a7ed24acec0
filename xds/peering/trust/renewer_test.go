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

// Another authority issues at once, and the time before the end is kept to; what an admin supplies is only handed on.
func TestRenewerUse(t *testing.T) {
	t.Parallel()
	first, second, supply := t.TempDir(), t.TempDir(), newSupply(t)
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock stands at 2000-01-01: what was made outside of it is not in force yet.
		time.Sleep(time.Until(supply.root.NotBefore.Add(time.Hour)))
		a, b := initialize(t, first, "", "west"), initialize(t, second, "", "west")
		supplied, err := Supplied(supply.certifies(t), westIdentity, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r := NewRenewer(RenewerConfig{Lifetime: 12 * time.Hour, Before: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		pairs := make(chan Pair, 10)
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx, func(p Pair) { pairs <- p }) }()
		time.Sleep(time.Hour)
		if len(pairs) != 0 || !r.RenewAt().IsZero() {
			t.Fatal("a certificate without an authority")
		}
		issuedBy := func(want *Authority) {
			t.Helper()
			synctest.Wait()
			if len(pairs) != 1 {
				t.Fatalf("%d certificates", len(pairs))
			}
			p := <-pairs
			chain, err := parseCertificates(p.CertificatePEM)
			if err != nil || fingerprint(chain[len(chain)-1].Raw) != want.Fingerprint() {
				t.Errorf("issued by another (%v)", err)
			}
		}
		r.Use(a)
		issuedBy(a)
		if left := time.Until(r.RenewAt()); left != 11*time.Hour {
			t.Errorf("renewed in %s", left)
		}
		time.Sleep(10 * time.Hour)
		r.Use(b)
		issuedBy(b)
		time.Sleep(10*time.Hour + 59*time.Minute)
		if len(pairs) != 0 {
			t.Error("renewed before it was due")
		}
		time.Sleep(time.Minute)
		issuedBy(b)
		r.Use(b)
		issuedBy(b) // on demand
		r.Use(supplied)
		issuedBy(supplied)
		if !r.RenewAt().IsZero() {
			t.Error("it renews what an admin supplies")
		}
		time.Sleep(48 * time.Hour)
		if len(pairs) != 0 {
			t.Error("what an admin supplies was issued anew")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
