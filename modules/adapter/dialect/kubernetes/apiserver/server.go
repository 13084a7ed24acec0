// Package apiserver is a Kubernetes API over an orchestrator of another type: kubectl and every other client of the API
// find their objects there, made of the orchestrator's own, and change those by changing them.
//
// It keeps nothing of its own. What an orchestrator has no place for (the document that was written, with its annotations
// and field managers) is kept beside the orchestrator's object as its origin. Reads are of the orchestrator as it is now;
// what differs from the read before becomes the history that watches follow.
package apiserver

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Config is what a Server needs.
type Config struct {
	Cluster      string           // its name
	Orchestrator dialect.Executor // what it stands before
	Log          *slog.Logger
	Now          func() time.Time // nil is time.Now
	// Seal and Unseal hide what must not lie open in the orchestrator: the values of secrets.
	Seal   func(plain []byte) ([]byte, error)
	Unseal func(sealed []byte) ([]byte, error)
	// Key is of the names of values that containers mount: they are by content, and tell nothing of it without the key.
	Key []byte
}

// Server is the API. Its zero value is not usable; New makes one.
type Server struct {
	cluster string
	under   dialect.Executor
	log     *slog.Logger
	now     func() time.Time
	key     []byte
	store   *store
	kinds   map[schema.GroupResource]kind

	turn   chan struct{}             // of reading the orchestrator: who has put one in reads
	read   atomic.Pointer[time.Time] // when the last reading that went well was begun
	tried  time.Time                 // when the last one was
	failed error                     // what became of it

	happened happenings
	follower follower
	starting *starting
	pages    pages
}

// New makes a Server.
func New(config Config) *Server {
	s := &Server{cluster: config.Cluster, under: config.Orchestrator, log: config.Log, now: config.Now, key: config.Key,
		turn: make(chan struct{}, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.store = newStore(s.now())
	s.kinds = kindsOf(s, config)
	s.follower.server = s
	s.starting = newStarting(s)
	return s
}

// Close ends what follows the orchestrator and waits for it.
func (s *Server) Close() {
	s.follower.close()
	s.starting.close()
}

// Resume goes on with what another process was killed at. It returns at once.
func (s *Server) Resume() {
	s.starting.spawn(func(ctx context.Context) {
		for s.refresh(ctx) != nil {
			if !sleep(ctx, followAgain) {
				return
			}
		}
		w, err := s.readWorld(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("what a gateway before this one was killed at is not known", "err", err)
		}
		if err != nil {
			return
		}
		if err := (serviceKind{s}).reattach(ctx, w); err != nil && ctx.Err() == nil {
			s.log.Warn("workloads do not answer to all names of their Services", "err", err)
		}
		if err := s.awakenLeft(ctx, w); err != nil && ctx.Err() == nil {
			s.log.Warn("workloads go on waiting for what is there", "err", err)
		}
	})
}

// ServeHTTP answers one request of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache, private")
	if s.document(w, r) {
		return
	}
	c, err := parse(r)
	if err == nil {
		err = s.guarded(w, c)
	}
	if err != nil {
		s.refuse(w, r, c, err)
	}
}

// takeIn makes objects of what was read. What is read was written by others, and a bug that it meets must not end the
// process: nobody else would catch it while watches are served.
func (s *Server) takeIn(w *world) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("what the orchestrator has could not be read", "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "internal error of the gateway")
		}
	}()
	for _, of := range projections {
		s.store.replace(of, s.kinds[of].project(w))
	}
	s.starting.see(w)
	return nil
}

// guarded serves a request, also where that panics: the caller hears of a bug, and the process survives it.
func (s *Server) guarded(w http.ResponseWriter, c *call) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler: // on purpose: a stream must end with an error
			panic(p)
		default:
			s.log.Error("a request panicked", "method", c.Method, "path", c.URL.Path, "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "internal error of the gateway")
		}
	}()
	return s.serve(w, c)
}

// serve answers a request for a resource. An error is told to the caller; nothing was written then.
func (s *Server) serve(w http.ResponseWriter, c *call) error {
	if c.subresource != "" {
		return s.serveSubresource(w, c)
	}
	if c.resource.GroupResource() == eventResource && !s.follower.pastIsKnown(c.Context()) { // nobody has listened
		if err := s.recall(c.Context()); err != nil && !fault.Is(err, fault.Unsupported) {
			return err
		}
	}
	switch c.verb {
	case "get":
		return s.get(w, c)
	case "list":
		return s.list(w, c)
	case "watch":
		return s.watch(w, c)
	case "create":
		return s.create(w, c)
	case "update":
		return s.update(w, c)
	case "patch":
		return s.patch(w, c)
	case "delete":
		return s.remove(w, c)
	case "deletecollection":
		return s.removeAll(w, c)
	}
	return apierrors.NewMethodNotSupported(c.resource.GroupResource(), c.verb)
}

// refresh reads the orchestrator, unless somebody began to since this was asked for: then what came of that is good
// enough.
func (s *Server) refresh(ctx context.Context) error {
	asked := s.now()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.tried.After(asked) && !errors.Is(s.failed, context.Canceled) {
		return s.failed
	}
	begun := s.now()
	w, err := s.readWorld(ctx)
	s.tried, s.failed = begun, err
	if err != nil {
		return err
	}
	if err := s.takeIn(w); err != nil {
		s.failed = err
		return err
	}
	s.read.Store(&begun)
	return nil
}

// answer writes an object, or a list, in the form that the caller wants.
func (s *Server) answer(w http.ResponseWriter, c *call, status int, body runtime.Object) error {
	f, ok := formOf(c.Header.Get("Accept"), false)
	if !ok {
		return errAccept
	}
	formed, err := s.formed(c, f, body)
	if err != nil {
		return err
	}
	s.write(w, f, status, formed)
	return nil
}

// write sends a body. What fails now can be told to nobody.
func (s *Server) write(w http.ResponseWriter, f form, status int, body runtime.Object) {
	var encoded bytes.Buffer
	if err := f.Serializer.Encode(body, &encoded); err != nil {
		s.log.Error("an answer could not be written", "err", err)
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", f.MediaType)
	w.Header().Set("Content-Length", strconv.Itoa(encoded.Len()))
	w.WriteHeader(status)
	if _, err := w.Write(encoded.Bytes()); err != nil {
		s.log.Debug("a caller has gone before its answer", "err", err)
	}
}

// warn adds the losses of a translation to an answer, as clients of the API show them.
// See https://www.rfc-editor.org/rfc/rfc7234#section-5.5
func warn(w http.ResponseWriter, warnings []string) {
	const longest = 4096 // of all of them, as the API itself has it
	total := 0
	for _, text := range warnings {
		text = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, text)
		if total += len(text); total > longest {
			return
		}
		w.Header().Add("Warning", "299 - "+strconv.Quote(text))
	}
}
