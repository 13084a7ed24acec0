package kubernetes

import (
	"context"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// staleAfter is how long a cache without a watch is still believed. Watches end now and then, and a new one is open
// within the second; a cache that stays cut off would send accesses to addresses that are somebody else's by now.
const staleAfter = 10 * time.Second

// freshness knows since when a cache has no open watch.
type freshness struct {
	lost    atomic.Int64 // in nanoseconds of Unix time; 0 while a watch is open
	trouble *complaint
}

func newFreshness(trouble *complaint) *freshness {
	f := &freshness{trouble: trouble}
	f.cut()
	return f
}

func (f *freshness) cut() { f.lost.Store(time.Now().UnixNano()) }

// fresh tells whether the cache is to be believed.
func (f *freshness) fresh() bool {
	lost := f.lost.Load()
	return lost == 0 || time.Since(time.Unix(0, lost)) < staleAfter
}

// observe follows the watches that an informer opens.
func (f *freshness) observe(lw *cache.ListWatch) *cache.ListWatch {
	open := lw.WatchFuncWithContext
	lw.WatchFuncWithContext = func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		w, err := open(ctx, options)
		if err != nil {
			if ctx.Err() == nil {
				f.trouble.say(err) // a reflector that is refused connections tells nobody
			}
			return nil, err
		}
		f.lost.Store(0)
		return &observedWatch{Interface: w, ended: f.cut}, nil
	}
	return lw
}

// observedWatch tells when the reflector leaves it, which it does by Stop however it ended.
type observedWatch struct {
	watch.Interface
	ended func()
}

func (w *observedWatch) Stop() {
	w.Interface.Stop()
	w.ended()
}
