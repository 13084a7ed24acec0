package server

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// store holds the configuration that is served, and the streams that wait for it to change. It answers nothing before
// it was first set: an Envoy that outlived the control plane keeps what it has.
//
// A change is served in stages, so that at no time a route leads to a cluster that Envoy does not have:
//
//	adding ──every Envoy has the new clusters and their endpoints──> routing
//	routing ──every Envoy has the new listeners and routes─────────> settled: old clusters are gone
//
// A stage that an Envoy does not take (it refused something, or it hangs) lasts no longer than patience. A change that
// only withdraws things begins with routing.
type store struct {
	mu      sync.Mutex
	next    *snapshot.Snapshot   // what is to be served in the end; nil before the first set
	served  map[string]resources // by type
	stage   stage
	timer   *time.Timer
	watches map[string]map[*watch]struct{} // by type
}

type stage int

const (
	adding stage = iota
	routing
	settled
)

// patience is how long one stage may take.
const patience = 2 * time.Second

// resources are one type's, by name.
type resources map[string]snapshot.Resource

// watch is a stream that waits for changes of one type. It is answered once; the stream then asks again, which tells
// that it took the answer.
type watch struct {
	request *cachev3.DeltaRequest
	sub     cachev3.Subscription
	answers chan cachev3.DeltaResponse // its stream's
	again   []string                   // to be sent whatever the stream has
}

var _ cachev3.Cache = (*store)(nil)

func newStore() *store {
	return &store{served: map[string]resources{}, watches: map[string]map[*watch]struct{}{}, stage: settled}
}

// set replaces the configuration and tells which types change.
func (s *store) set(next *snapshot.Snapshot) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil && s.next.Version == next.Version {
		return nil
	}
	var changed []string
	for _, typeURL := range snapshot.Types {
		if s.next == nil || differ(s.next.Resources(typeURL), next.Resources(typeURL)) {
			changed = append(changed, typeURL)
		}
	}
	s.next = next
	s.enter(adding)
	return changed
}

// enter begins a stage, and the ones after it as far as nothing needs to be waited for.
func (s *store) enter(stage stage) {
	s.stage = stage
	switch stage {
	case adding:
		for _, typeURL := range []string{resourcev3.SecretType, resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ExtensionConfigType} {
			// Old ones stay beside the new ones: what routes know now must not be gone before the routes are.
			both := maps.Clone(s.served[typeURL])
			if both == nil {
				both = resources{}
			}
			maps.Copy(both, byName(s.next.Resources(typeURL)))
			s.serve(typeURL, both)
		}
	case routing:
		for _, typeURL := range []string{resourcev3.ListenerType, resourcev3.RouteType} {
			s.serve(typeURL, byName(s.next.Resources(typeURL)))
		}
	case settled:
		for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.SecretType, resourcev3.ExtensionConfigType} {
			s.serve(typeURL, byName(s.next.Resources(typeURL)))
		}
	}
	if stage == settled {
		if s.timer != nil {
			s.timer.Stop()
			s.timer = nil
		}
		return
	}
	if s.timer == nil {
		// It runs on when another change comes, so that a stream of changes cannot hold one up.
		var timer *time.Timer
		timer = time.AfterFunc(patience, func() { s.impatient(&timer) })
		s.timer = timer
	}
	s.advance()
}

// impatient goes on without the streams that did not take a stage.
func (s *store) impatient(timer **time.Timer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != *timer || s.stage == settled {
		return
	}
	s.timer = nil
	s.enter(s.stage + 1)
}

// advance goes to the next stage when every stream has what this one serves.
func (s *store) advance() {
	types := map[stage][]string{
		adding:  {resourcev3.ClusterType, resourcev3.EndpointType},
		routing: {resourcev3.ListenerType, resourcev3.RouteType},
	}[s.stage]
	if types == nil {
		return
	}
	for stream := range s.streams() {
		for _, typeURL := range types {
			if !s.took(stream, typeURL) {
				return
			}
		}
	}
	s.enter(s.stage + 1)
}

// tookAll tells whether a snapshot is what is served, and every stream, of which there is one at least, has all of it.
func (s *store) tookAll(version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil || s.next.Version != version || s.stage != settled {
		return false
	}
	streams := s.streams()
	for stream := range streams {
		for _, typeURL := range snapshot.Types {
			if !s.took(stream, typeURL) {
				return false
			}
		}
	}
	return len(streams) > 0
}

// streams are the ones that are there: those that wait for clusters, or were just answered and will wait again.
func (s *store) streams() map[chan cachev3.DeltaResponse]struct{} {
	streams := map[chan cachev3.DeltaResponse]struct{}{}
	for _, watches := range s.watches {
		for w := range watches {
			streams[w.answers] = struct{}{}
		}
	}
	return streams
}

// took tells whether a stream waits for changes of a type, having what is served. Endpoints it must have asked for: it
// does so once it knows their cluster.
func (s *store) took(stream chan cachev3.DeltaResponse, typeURL string) bool {
	for w := range s.watches[typeURL] {
		if w.answers != stream {
			continue
		}
		has := w.sub.ReturnedResources()
		for name, r := range s.served[typeURL] {
			if v, ok := has[name]; ok && v != r.Version || !ok && (w.sub.IsWildcard() || typeURL == resourcev3.EndpointType) {
				return false
			}
		}
		return true
	}
	return len(s.served[typeURL]) == 0
}

// serve replaces what is served of a type and answers who waits for it.
func (s *store) serve(typeURL string, next resources) {
	s.served[typeURL] = next
	for w := range s.watches[typeURL] {
		if s.answer(w) {
			delete(s.watches[typeURL], w)
		}
	}
}

func byName(all []snapshot.Resource) resources {
	named := make(resources, len(all))
	for _, r := range all {
		named[r.Name] = r
	}
	return named
}

// differ compares lists that are sorted.
func differ(a, b []snapshot.Resource) bool {
	return !slices.EqualFunc(a, b, func(a, b snapshot.Resource) bool { return a.Name == b.Name && a.Version == b.Version })
}

// CreateDeltaWatch answers a stream at once when it does not have what is served, else when that changes.
func (s *store) CreateDeltaWatch(request *cachev3.DeltaRequest, sub cachev3.Subscription, answers chan cachev3.DeltaResponse) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watch{request: request, sub: sub, answers: answers}
	// What a running stream asks for by name it wants sent, though it had it once. A new stream only tells what it has.
	if len(request.GetInitialResourceVersions()) == 0 {
		w.again = request.GetResourceNamesSubscribe()
	}
	if s.next != nil && s.answer(w) {
		return nil, nil
	}
	w.again = nil
	typeURL := request.GetTypeUrl()
	if s.watches[typeURL] == nil {
		s.watches[typeURL] = map[*watch]struct{}{}
	}
	s.watches[typeURL][w] = struct{}{}
	s.advance()
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
	served := s.served[typeURL]
	has := w.sub.ReturnedResources()
	d := &delta{request: w.request, version: s.next.Version, returned: make(map[string]string, len(has))}
	consider := func(name string) {
		if r, ok := served[name]; ok {
			d.returned[name] = r.Version
			if has[name] != r.Version || slices.Contains(w.again, name) {
				d.updated = append(d.updated, r)
			}
		} else if _, ok := has[name]; ok {
			d.removed = append(d.removed, name)
		}
	}
	if w.sub.IsWildcard() {
		for name := range served {
			consider(name)
		}
		for name := range has {
			if _, ok := served[name]; !ok {
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
	slices.SortFunc(d.updated, func(a, b snapshot.Resource) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(d.removed)
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
