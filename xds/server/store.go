package server

import (
	"context"
	"errors"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// store holds the configuration that is served, and the streams that wait for it to change. It answers nothing before
// it was first set: an Envoy that outlived the control plane keeps what it has.
type store struct {
	mu      sync.Mutex
	version string
	types   map[string]map[string]snapshot.Resource // by type and name; nil before the first set
	watches map[string]map[*watch]struct{}          // by type
}

// watch is a stream that waits for changes of one type. It is answered once; the stream then asks again.
type watch struct {
	request *cachev3.DeltaRequest
	sub     cachev3.Subscription
	answers chan cachev3.DeltaResponse
	again   []string // to be sent whatever the stream has
}

var _ cachev3.Cache = (*store)(nil)

func newStore() *store { return &store{watches: map[string]map[*watch]struct{}{}} }

// set replaces the configuration and tells which types changed.
func (s *store) set(next *snapshot.Snapshot) []string {
	types := make(map[string]map[string]snapshot.Resource, len(snapshot.Types))
	for _, typeURL := range snapshot.Types {
		resources := next.Resources(typeURL)
		types[typeURL] = make(map[string]snapshot.Resource, len(resources))
		for _, r := range resources {
			types[typeURL][r.Name] = r
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var changed []string
	first := s.types == nil
	for _, typeURL := range snapshot.Types {
		if first || differ(s.types[typeURL], types[typeURL]) {
			changed = append(changed, typeURL)
		}
	}
	s.types, s.version = types, next.Version
	for _, typeURL := range changed {
		for w := range s.watches[typeURL] {
			if s.answer(w) {
				delete(s.watches[typeURL], w)
			}
		}
	}
	return changed
}

func differ(a, b map[string]snapshot.Resource) bool {
	if len(a) != len(b) {
		return true
	}
	for name, r := range a {
		if other, ok := b[name]; !ok || other.Version != r.Version {
			return true
		}
	}
	return false
}

// CreateDeltaWatch answers a stream at once when it does not have what is served, else when that changes.
func (s *store) CreateDeltaWatch(request *cachev3.DeltaRequest, sub cachev3.Subscription, answers chan cachev3.DeltaResponse) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watch{request: request, sub: sub, answers: answers}
	// What a running stream asks for by name it wants sent, though it had it once: Envoy forgets the endpoints of a
	// cluster that changed. A new stream only tells what it has.
	if len(request.GetInitialResourceVersions()) == 0 {
		w.again = request.GetResourceNamesSubscribe()
	}
	if s.types != nil && s.answer(w) {
		return nil, nil
	}
	w.again = nil
	typeURL := request.GetTypeUrl()
	if s.watches[typeURL] == nil {
		s.watches[typeURL] = map[*watch]struct{}{}
	}
	s.watches[typeURL][w] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches[typeURL], w)
	}, nil
}

// answer sends what a watch's stream does not have; false when it has all. The channel has room: go-control-plane
// makes it larger than the number of watches of a stream.
func (s *store) answer(w *watch) bool {
	typeURL := w.request.GetTypeUrl()
	resources := s.types[typeURL]
	has := w.sub.ReturnedResources()
	d := &delta{request: w.request, version: s.version, returned: make(map[string]string, len(has))}
	consider := func(name string) {
		if r, ok := resources[name]; ok {
			d.returned[name] = r.Version
			if has[name] != r.Version || slices.Contains(w.again, name) {
				d.updated = append(d.updated, r)
			}
		} else if _, ok := has[name]; ok {
			d.removed = append(d.removed, name)
		}
	}
	if w.sub.IsWildcard() {
		for name := range resources {
			consider(name)
		}
		for name := range has {
			if _, ok := resources[name]; !ok {
				consider(name)
			}
		}
		// A first answer tells a wildcard stream that there is nothing.
		if len(d.updated)+len(d.removed) == 0 && len(has) == 0 && w.request.GetResponseNonce() == "" {
			w.answers <- d
			return true
		}
	} else {
		for name := range w.sub.SubscribedResources() {
			consider(name)
		}
	}
	if len(d.updated)+len(d.removed) == 0 {
		return false
	}
	w.answers <- d
	return true
}

// CreateWatch refuses the protocol in which a change of one resource sends all.
func (s *store) CreateWatch(*cachev3.Request, cachev3.Subscription, chan cachev3.Response) (func(), error) {
	return nil, errDeltaOnly
}

// Fetch refuses polling.
func (s *store) Fetch(context.Context, *cachev3.Request) (cachev3.Response, error) {
	return nil, errDeltaOnly
}

var errDeltaOnly = errors.New("this control plane speaks delta ADS only")

// delta is one answer: what changed since the stream last heard.
type delta struct {
	request  *cachev3.DeltaRequest
	version  string
	updated  []snapshot.Resource
	removed  []string
	returned map[string]string // what the stream has then
}

var _ cachev3.DeltaResponse = (*delta)(nil)

func (d *delta) GetDeltaDiscoveryResponse() (*discoveryv3.DeltaDiscoveryResponse, error) {
	resources := make([]*discoveryv3.Resource, len(d.updated))
	for i, r := range d.updated {
		resources[i] = &discoveryv3.Resource{
			Name: r.Name, Version: r.Version,
			Resource: &anypb.Any{TypeUrl: r.Body.GetTypeUrl(), Value: r.Body.GetValue()},
		}
	}
	return &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: d.request.GetTypeUrl(), SystemVersionInfo: d.version, Resources: resources, RemovedResources: d.removed,
	}, nil
}

func (d *delta) GetDeltaRequest() *discoveryv3.DeltaDiscoveryRequest { return d.request }
func (d *delta) GetSystemVersion() (string, error)                   { return d.version, nil }
func (d *delta) GetResponseVersion() string                          { return d.version }
func (d *delta) GetNextVersionMap() map[string]string                { return d.returned }
func (d *delta) GetReturnedResources() map[string]string             { return d.returned }
func (d *delta) GetContext() context.Context                         { return context.Background() }
