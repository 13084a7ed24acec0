package apiserver

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	watchLongest  = time.Hour // of a watch whose caller says nothing
	bookmarkEvery = time.Minute
)

// watching is one watch.
type watching struct {
	server  *Server
	call    *call
	form    form
	chosen  selection
	flush   func() error
	encoder streaming.Encoder
	version uint64 // up to which the caller knows all
	columns bool   // of a table, were sent
}

// watch tells a caller what changes, until its time is up or it goes.
func (s *Server) watch(w http.ResponseWriter, c *call) error {
	options, err := listOptions(c)
	if err != nil {
		return err
	}
	f, ok := formOf(c.Header.Get("Accept"), true)
	if !ok {
		return errAccept
	}
	chosen, err := selectionOf(c)
	if err != nil {
		return err
	}
	leave := s.follower.enter()
	defer leave()
	watching := &watching{server: s, call: c, form: f, chosen: chosen}
	initial, err := watching.begin(options)
	if err != nil {
		return err
	}
	controller := http.NewResponseController(w)
	watching.flush = controller.Flush
	watching.encoder = streaming.NewEncoder(f.StreamSerializer.Framer.NewFrameWriter(w), f.StreamSerializer.Serializer)
	media := f.MediaType
	if !f.EncodesAsText {
		media += ";stream=watch"
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	longest := watchLongest
	if options.TimeoutSeconds != nil && *options.TimeoutSeconds > 0 {
		longest = min(longest, time.Duration(min(*options.TimeoutSeconds, int64(math.MaxInt64/time.Second)))*time.Second)
	}
	ctx, cancel := context.WithTimeout(c.Context(), longest)
	defer cancel()
	if err := watching.run(ctx, options, initial); err != nil && c.Context().Err() == nil {
		s.log.Debug("a watch ended", "path", c.URL.Path, "err", err)
	}
	return nil
}

// begin finds where the watch starts, and what its caller is told before: all that there is, unless it said what it knows.
func (w *watching) begin(options metav1.ListOptions) ([]*entry, error) {
	all := options.ResourceVersion == "" || options.ResourceVersion == "0"
	if options.SendInitialEvents != nil {
		if options.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan {
			return nil, apierrors.NewBadRequest("sendInitialEvents needs resourceVersionMatch=NotOlderThan")
		}
		all = *options.SendInitialEvents
	}
	if options.ResourceVersion != "0" || all || w.server.unread() {
		if err := w.server.refresh(w.call.Context()); err != nil {
			return nil, err
		}
	}
	kind := w.call.resource.GroupResource()
	if all {
		entries, version := w.server.store.list(kind, w.call.namespace)
		if err := w.server.tooNew(metav1.ListOptions{ResourceVersion: options.ResourceVersion}, version); err != nil {
			return nil, err
		}
		w.version = version
		return entries, nil
	}
	if options.ResourceVersion == "" || options.ResourceVersion == "0" { // from now on
		_, w.version = w.server.store.list(kind, w.call.namespace)
		return nil, nil
	}
	version, err := parseVersion(options.ResourceVersion)
	if err != nil {
		return nil, err
	}
	w.version = version
	if _, current, _, ok := w.server.store.since(kind, version); !ok {
		return nil, expired(version, current)
	}
	return nil, nil
}

func expired(version, current uint64) error {
	return apierrors.NewResourceExpired("too old resource version: " + formatVersion(version) + " (" + formatVersion(current) + ")")
}

// run sends until ctx ends. Its error is the caller's going.
func (w *watching) run(ctx context.Context, options metav1.ListOptions, initial []*entry) error {
	for _, e := range initial {
		if !w.chosen.matches(e.object) {
			continue
		}
		if err := w.send(watch.Added, e.object); err != nil {
			return err
		}
	}
	if options.SendInitialEvents != nil && *options.SendInitialEvents && options.AllowWatchBookmarks {
		if err := w.bookmark(true); err != nil {
			return err
		}
	}
	bookmarks := time.NewTicker(bookmarkEvery)
	defer bookmarks.Stop()
	for {
		changes, upto, moved, ok := w.server.store.since(w.call.resource.GroupResource(), w.version)
		if !ok {
			status := statusOf(expired(w.version, upto), w.call, w.server.cluster)
			return errors.Join(w.event(string(watch.Error), named(status, metav1.SchemeGroupVersion.WithKind("Status"))), w.flush())
		}
		for _, change := range changes {
			if err := w.change(change); err != nil {
				return err
			}
		}
		w.version = upto
		if err := w.flush(); err != nil {
			return err
		}
		select {
		case <-moved:
		case <-bookmarks.C:
			if options.AllowWatchBookmarks {
				if err := w.bookmark(false); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			if options.AllowWatchBookmarks && w.call.Context().Err() == nil { // its time is up: it goes on from here
				return errors.Join(w.bookmark(false), w.flush())
			}
			return nil
		}
	}
}

// change tells of one change, as far as it is of what the caller chose: what comes to match it is added, what ceases to is
// deleted.
func (w *watching) change(c change) error {
	before := c.old != nil && w.in(c.old)
	after := c.new != nil && w.in(c.new)
	switch {
	case after && before:
		return w.send(watch.Modified, c.new.object)
	case after:
		return w.send(watch.Added, c.new.object)
	case before:
		last := c.old.object
		if c.new != nil {
			last = c.new.object
		}
		gone := last.DeepCopyObject().(object)
		gone.SetResourceVersion(formatVersion(c.version))
		return w.send(watch.Deleted, gone)
	}
	return nil
}

func (w *watching) in(e *entry) bool {
	return (w.call.namespace == "" || e.object.GetNamespace() == w.call.namespace) && w.chosen.matches(e.object)
}

// bookmark tells the caller up to which version it knows all; the first one, that it has had all that there was.
func (w *watching) bookmark(initial bool) error {
	mark := w.call.resource.New().(object)
	mark.SetResourceVersion(formatVersion(w.version))
	if initial {
		mark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return w.send(watch.Bookmark, mark)
}

func (w *watching) send(kind watch.EventType, o object) error {
	formed, err := w.server.formed(w.call, w.form, whole(w.call.resource, o))
	if err != nil {
		return err
	}
	if t, ok := formed.(*metav1.Table); ok {
		if w.columns {
			t.ColumnDefinitions = nil
		}
		w.columns = true
	}
	return w.event(string(kind), formed)
}

func (w *watching) event(kind string, body runtime.Object) error {
	raw, err := runtime.Encode(w.form.Serializer, body)
	if err != nil {
		return err
	}
	return w.encoder.Encode(&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: raw}})
}
