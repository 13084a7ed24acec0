package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// Lifeline carries what a process asks of an orchestrator's API, and is cut at one of its changes: from then on nothing
// passes, as if the process had been killed there. What the process still does to clean up behind itself does not pass
// either. Or it is nobody's life that hangs on it, and a judge says of each change whether it passes.
type Lifeline struct {
	proxy    *httputil.ReverseProxy
	listener net.Listener
	server   *http.Server
	done     chan struct{}

	mu      sync.Mutex
	changes []string
	at      int
	reached bool
	judge   func(*http.Request) bool
	dead    context.Context
	cut     context.CancelFunc
}

// NewLifeline serves an API at a listener. transport leads to it, whatever host a request names.
func NewLifeline(listener net.Listener, target *url.URL, transport http.RoundTripper) *Lifeline {
	l := &Lifeline{listener: listener, done: make(chan struct{})}
	l.dead, l.cut = context.WithCancel(context.Background())
	l.proxy = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	l.server = &http.Server{Handler: l}
	go func() {
		defer close(l.done)
		if err := l.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return l
}

// CutAt cuts the line at the n-th change, counted from one: before the orchestrator hears of it, or, reached, when it has
// carried it out and the process has not heard.
func (l *Lifeline) CutAt(n int, reached bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.reached = n, reached
}

// Each has every change judged before the orchestrator hears of it; nil for no judge. What does not pass is broken off.
func (l *Lifeline) Each(judge func(*http.Request) (passes bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge = judge
}

// Changes are those that were asked for, as method and path.
func (l *Lifeline) Changes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.changes...)
}

// Cut is over once the line is cut.
func (l *Lifeline) Cut() context.Context { return l.dead }

// Close ends what is under way.
func (l *Lifeline) Close() error {
	l.cut()
	err := l.server.Close()
	<-l.done
	return err
}

func changes(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// passes asks the judge. Other requests pass meanwhile.
func (l *Lifeline) passes(r *http.Request) bool {
	l.mu.Lock()
	judge := l.judge
	l.mu.Unlock()
	return judge == nil || !changes(r) || judge(r)
}

// note tells whether a request passes, and whether it is the last one.
func (l *Lifeline) note(r *http.Request) (passes, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead.Err() != nil {
		return false, false
	}
	if !changes(r) {
		return true, false
	}
	l.changes = append(l.changes, r.Method+" "+r.URL.Path)
	if len(l.changes) != l.at {
		return true, false
	}
	if !l.reached {
		l.cut()
	}
	return l.reached, true
}

// ServeHTTP carries one request.
func (l *Lifeline) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	passes, last := l.note(r)
	if !passes || !l.passes(r) {
		panic(http.ErrAbortHandler)
	}
	if last {
		l.proxy.ServeHTTP(unheard{header: http.Header{}}, r)
		l.cut()
		panic(http.ErrAbortHandler)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(l.dead, cancel)()
	l.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// unheard takes an answer that nobody hears.
type unheard struct{ header http.Header }

func (u unheard) Header() http.Header       { return u.header }
func (unheard) Write(b []byte) (int, error) { return len(b), nil }
func (unheard) WriteHeader(int)             {}
