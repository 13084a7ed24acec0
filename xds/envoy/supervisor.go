// Package envoy writes the document that Envoy starts from, and keeps an Envoy running.
//
// Envoy outlives isthmus: a killed isthmus leaves it serving, and the next one adopts it. Only a supervisor that is
// told to stop drains and stops its Envoy.
//
//	s, err := envoy.New(envoy.Config{Options: o, Binary: "/usr/bin/envoy", Log: log})
//	registry.MustRegister(s)                  // metrics
//	go s.Run(ctx)                             // until ctx is done and Envoy has drained
//	s.Ready(ctx)                              // waits until Envoy has its configuration
package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Config is what a Supervisor needs.
type Config struct {
	Options
	Binary  string        // Envoy's
	LogFile string        // of Envoy's own log; "" is envoy.log in the run directory
	Drain   time.Duration // how long open requests may take to end at shutdown; 0 is 10 s
	Leave   bool          // leaves Envoy running at shutdown, for the next supervisor to adopt
	Log     *slog.Logger
}

// State is how it is with Envoy.
type State string

// The states of Envoy.
const (
	Starting State = "starting" // not yet, or not again
	Running  State = "running"
	Draining State = "draining"
	Stopped  State = "stopped"
)

// Status is what the supervisor knows.
type Status struct {
	State    State
	PID      int
	Adopted  bool      // it ran before this supervisor did
	Since    time.Time // it runs
	Restarts uint64    // by this supervisor
	LastExit string    // why the one before ended; "" when there was none
}

// Supervisor keeps one Envoy running. It has its run directory for itself.
type Supervisor struct {
	config    Config
	bootstrap []byte
	admin     *admin

	mu     sync.Mutex
	status Status

	metrics []prometheus.Collector
}

// The waits between an Envoy's death and the next one's start.
const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 15 * time.Second
	// steady is how long an Envoy lived that makes its death a new story.
	steady = time.Minute
)

// New makes a supervisor; it starts nothing yet.
func New(c Config) (*Supervisor, error) {
	document, err := Bootstrap(c.Options)
	if err != nil {
		return nil, err
	}
	if c.Binary == "" {
		return nil, errors.New("envoy: no binary given")
	}
	if c.LogFile == "" {
		c.LogFile = filepath.Join(c.RunDir, "envoy.log")
	}
	if c.Drain == 0 {
		c.Drain = 10 * time.Second
	}
	s := &Supervisor{config: c, bootstrap: document, admin: newAdmin(c.RunDir), status: Status{State: Starting}}
	s.metrics = s.collectors()
	return s, nil
}

// Run adopts or starts Envoy and keeps it running until the context is done; then it drains and stops it. An error
// tells that it could not begin.
func (s *Supervisor) Run(ctx context.Context) error {
	unlock, err := lock(s.config.RunDir)
	if err != nil {
		return err
	}
	defer unlock()
	defer s.set(func(st *Status) { st.State, st.PID = Stopped, 0 })

	backoff := firstBackoff
	for {
		p, err := s.next(ctx)
		began := time.Now()
		if err == nil {
			s.set(func(st *Status) { st.State, st.PID, st.Adopted, st.Since = Running, p.pid, p.adopted, p.started })
			gathered := s.gatherHeap(ctx, p)
			select {
			case <-p.done:
				err = fmt.Errorf("envoy ended: %s", p.exit)
			case <-ctx.Done():
			}
			gathered()
			switch {
			case err != nil:
			case s.config.Leave:
				return nil
			default:
				return s.stop(p)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steady {
			backoff = firstBackoff
		}
		s.set(func(st *Status) { st.State, st.PID, st.LastExit, st.Restarts = Starting, 0, err.Error(), st.Restarts+1 })
		s.config.Log.Error("envoy is not running", "error", err, "again_in", backoff, "log", s.config.LogFile)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// next gives an Envoy that runs: one that an earlier supervisor left, or a new one.
func (s *Supervisor) next(ctx context.Context) (*process, error) {
	if p := find(s.config.RunDir); p != nil {
		err := s.answering(ctx, p)
		if err == nil {
			s.config.Log.Info("envoy adopted", "pid", p.pid, "since", p.started)
			return p, nil
		}
		if ctx.Err() != nil {
			return p, nil //nolint:nilerr // the shutdown that came first ends it too
		}
		s.config.Log.Warn("an envoy of an earlier run does not answer and is ended", "pid", p.pid, "error", err)
		p.kill()
		<-p.done
	}
	p, err := start(s.config, s.bootstrap)
	if err != nil {
		return nil, err
	}
	s.config.Log.Info("envoy started", "pid", p.pid)
	return p, nil
}

// answering tells whether a found Envoy is ours and alive; it may be starting still.
func (s *Supervisor) answering(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		info, err := s.admin.info(ctx)
		if err == nil {
			if info.Node.ID != s.config.Node {
				return fmt.Errorf("it is node %q", info.Node.ID)
			}
			return nil
		}
		select {
		case <-p.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop lets open requests end, and then Envoy.
func (s *Supervisor) stop(p *process) error {
	s.set(func(st *Status) { st.State = Draining })
	// The context of the run is done; the drain has its own limit.
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Drain)
	defer cancel()
	if err := s.admin.drain(ctx); err != nil {
		s.config.Log.Warn("envoy does not drain", "error", err)
	} else {
		s.drained(ctx, p)
	}
	p.terminate()
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		s.config.Log.Warn("envoy does not end and is killed", "pid", p.pid)
		p.kill()
		<-p.done
	}
	forget(s.config.RunDir)
	s.config.Log.Info("envoy stopped", "pid", p.pid)
	return nil
}

// quiet is how long nothing may be under way before Envoy ends: what ends with this gateway, the goodbye to its peers
// among it, begins a moment after.
const quiet = time.Second

// drained waits until nothing is under way any more.
func (s *Supervisor) drained(ctx context.Context, p *process) {
	last := time.Now()
	for time.Since(last) < quiet {
		if n, err := s.admin.underWay(ctx); err != nil || n != 0 {
			last = time.Now()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		case <-p.done:
			return
		}
	}
}

// Ready waits until Envoy serves its configuration.
func (s *Supervisor) Ready(ctx context.Context) error {
	for {
		info, err := s.admin.info(ctx)
		if err == nil && info.State == "LIVE" {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("envoy is %s", info.State)
			}
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ReopenLogs makes Envoy open its access logs anew, after they were moved away.
func (s *Supervisor) ReopenLogs(ctx context.Context) error { return s.admin.post(ctx, "/reopen_logs") }

// Stats are Envoy's own counters, in Prometheus' text format.
func (s *Supervisor) Stats(ctx context.Context) ([]byte, error) {
	return s.admin.do(ctx, http.MethodGet, "/stats/prometheus?usedonly")
}

// Limited is how many requests of peers Envoy refused since it started, because a limit was reached.
func (s *Supervisor) Limited(ctx context.Context) (Limited, error) { return s.admin.limited(ctx) }

// Status tells how it is with Envoy.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Supervisor) set(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// lock makes sure that no other supervisor has the run directory. The kernel frees it when this process ends, however
// it ends.
func lock(runDir string) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(runDir, "envoy.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another gateway runs in %s: %w", runDir, err)
	}
	return func() { _ = f.Close() }, nil
}

func (s *Supervisor) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "isthmus_envoy_up", Help: "Whether the supervised Envoy runs.",
		}, func() float64 {
			if s.Status().State == Running {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "isthmus_envoy_restarts_total", Help: "How often Envoy had to be started again.",
		}, func() float64 { return float64(s.Status().Restarts) }),
	}
}

var limitedTotal = prometheus.NewDesc("isthmus_envoy_limited_total",
	"Requests of peers that Envoy refused because a limit of theirs was reached.", []string{"limit"}, nil)

// scrapeTimeout is how long Envoy may take to tell its counters.
const scrapeTimeout = time.Second

// Describe makes the supervisor a Prometheus collector.
func (s *Supervisor) Describe(ch chan<- *prometheus.Desc) {
	ch <- limitedTotal
	for _, c := range s.metrics {
		c.Describe(ch)
	}
}

// Collect makes the supervisor a Prometheus collector.
func (s *Supervisor) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	if n, err := s.Limited(ctx); err == nil { // an Envoy that does not answer has counted nothing that is known
		ch <- prometheus.MustNewConstMetric(limitedTotal, prometheus.CounterValue, float64(n.PerSecond), "requests-per-second")
		ch <- prometheus.MustNewConstMetric(limitedTotal, prometheus.CounterValue, float64(n.UnderWay), "requests")
	}
	for _, c := range s.metrics {
		c.Collect(ch)
	}
}
