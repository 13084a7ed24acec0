package load

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OpenOptions say how much load there is.
type OpenOptions struct {
	Connections int
	Rate        float64 // requests a second, on average
	Duration    time.Duration
	Seed        uint64 // of the schedule
}

// lateness is what the generator may be behind its schedule.
const lateness = time.Millisecond

// Open sends requests at the times of a Poisson process, whether earlier ones were answered or not, as callers who know
// nothing of each other do. A latency counts from the time the request was to be sent: what it waited for a free
// connection, because earlier answers are slow, is part of it.
func Open(ctx context.Context, target Target, options OpenOptions) (Result, error) {
	all, err := connect(ctx, target, options.Connections)
	if err != nil {
		return Result{}, err
	}
	defer disconnect(all)
	times := schedule(options)
	queue := make(chan time.Time, len(times)+1) // never full: a target that hangs cannot hold up the schedule
	var group sync.WaitGroup
	for _, c := range all {
		group.Go(func() {
			for intended := range queue {
				c.measure(ctx, intended)
			}
		})
	}
	begin := time.Now()
	late := 0
	func() {
		defer close(queue)
		// Timers of the runtime are a millisecond coarse; the schedule gets a thread that the kernel wakes on time.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		precise, restore := timerSlack()
		defer restore()
		for _, after := range times {
			intended := begin.Add(after)
			for wait := time.Until(intended); wait > 0 && ctx.Err() == nil; wait = time.Until(intended) {
				precise(min(wait, 50*time.Millisecond))
			}
			if ctx.Err() != nil {
				return
			}
			if time.Since(intended) > lateness {
				late++
			}
			queue <- intended
		}
	}()
	group.Wait()
	r := gather(all, time.Since(begin))
	r.Late = late
	return r, ctx.Err()
}

// schedule draws the times of all requests, from the begin on.
func schedule(options OpenOptions) []time.Duration {
	draw := rand.New(rand.NewPCG(options.Seed, 0))
	var times []time.Duration
	for at := 0.0; ; {
		at += draw.ExpFloat64() / options.Rate
		after := time.Duration(at * float64(time.Second))
		if after >= options.Duration {
			return times
		}
		times = append(times, after)
	}
}

// timerSlack gives a sleep that is as exact as the kernel can, for the calling thread until restored. By default the
// kernel may wake a thread 50 us late to join wake-ups.
func timerSlack() (sleep func(time.Duration), restore func()) {
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	}
	restore = func() {
		if err == nil {
			_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0)
		}
	}
	return func(d time.Duration) {
		request := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&request, nil) // a signal only means to look at the clock earlier
	}, restore
}
