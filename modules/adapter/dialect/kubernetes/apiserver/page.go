package apiserver

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	pageAge   = 5 * time.Minute // how long a list can be continued, as with the API itself
	pageCount = 64              // how many lists can be
)

// pages are lists of which callers have had a part. What is left of one is as it was when the list began.
type pages struct {
	mu   sync.Mutex
	left map[string]remainder
}

type remainder struct {
	of        schema.GroupResource
	namespace string
	entries   []*entry
	version   uint64
	until     time.Time
}

// optionsVersion is the version that the scheme has the options of requests in.
var optionsVersion = schema.GroupVersion{Version: "v1"}

func listOptions(c *call) (metav1.ListOptions, error) {
	var options metav1.ListOptions
	if err := scheme.ParameterCodec.DecodeParameters(c.URL.Query(), optionsVersion, &options); err != nil {
		return options, apierrors.NewBadRequest(err.Error())
	}
	if options.Limit < 0 {
		return options, apierrors.NewBadRequest("limit must not be negative")
	}
	return options, nil
}

// page gives the part of a list that is asked for.
func (s *Server) page(c *call, options metav1.ListOptions) (part []*entry, remains *int64, version uint64, next string, err error) {
	if options.Continue != "" {
		left, ok := s.pages.take(options.Continue, s.now())
		if !ok {
			return nil, nil, 0, "", apierrors.NewResourceExpired("the list of which this is the continuation is not kept any more; begin it anew")
		}
		if left.of != c.resource.GroupResource() || left.namespace != c.namespace {
			return nil, nil, 0, "", apierrors.NewBadRequest("continue: the list of which this is the continuation is another one")
		}
		part, version = left.entries, left.version
	} else {
		chosen, err := selectionOf(c)
		if err != nil {
			return nil, nil, 0, "", err
		}
		if options.ResourceVersion != "0" || s.behind() {
			if err := s.refresh(c.Context()); err != nil {
				return nil, nil, 0, "", err
			}
		}
		var all []*entry
		all, version = s.store.list(c.resource.GroupResource(), c.namespace)
		part = all[:0]
		for _, e := range all {
			if chosen.matches(e.object) {
				part = append(part, e)
			}
		}
		if err := s.tooNew(options, version); err != nil {
			return nil, nil, 0, "", err
		}
	}
	if options.Limit == 0 || int64(len(part)) <= options.Limit {
		return part, nil, version, "", nil
	}
	left := int64(len(part)) - options.Limit
	next, err = s.pages.keep(remainder{of: c.resource.GroupResource(), namespace: c.namespace, entries: part[options.Limit:], version: version, until: s.now().Add(pageAge)})
	return part[:options.Limit], &left, version, next, err
}

// tooNew refuses a list of a version that there has not been.
func (s *Server) tooNew(options metav1.ListOptions, version uint64) error {
	if options.ResourceVersion == "" || options.ResourceVersion == "0" {
		return nil
	}
	wanted, err := parseVersion(options.ResourceVersion)
	if err != nil {
		return err
	}
	if wanted > version {
		return apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", wanted, version), 1)
	}
	if options.ResourceVersionMatch == metav1.ResourceVersionMatchExact && wanted != version {
		return apierrors.NewResourceExpired("the objects are not known any more as they were at that version")
	}
	return nil
}

func parseVersion(text string) (uint64, error) {
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, apierrors.NewBadRequest("Invalid value: " + strconv.Quote(text) + ": a resource version is a number")
	}
	return version, nil
}

func formatVersion(version uint64) string { return strconv.FormatUint(version, 10) }

// behind tells that the store is no cache of the orchestrator now: nobody watches, and so nobody keeps it abreast.
func (s *Server) behind() bool { return s.follower.idle() || s.unread() }

// unread tells that the orchestrator was never read.
func (s *Server) unread() bool { return s.read.Load() == nil }

// ticket is what a caller holds of a list that goes on: what the API has as well, so that clients which look see a version.
type ticket struct {
	Version string `json:"rv"`
	Key     string `json:"start"`
}

func (p *pages) keep(r remainder) (string, error) {
	name, err := json.Marshal(ticket{Version: formatVersion(r.version), Key: rand.Text()})
	if err != nil {
		return "", err
	}
	token := base64.RawURLEncoding.EncodeToString(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == nil {
		p.left = map[string]remainder{}
	}
	if len(p.left) >= pageCount {
		oldest := ""
		for token, r := range p.left {
			if oldest == "" || r.until.Before(p.left[oldest].until) {
				oldest = token
			}
		}
		delete(p.left, oldest)
	}
	p.left[token] = r
	return token, nil
}

// take gives what is left of a list. It stays: a caller whose answer was lost asks again.
func (p *pages) take(token string, now time.Time) (remainder, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.left[token]
	if ok && now.After(r.until) {
		delete(p.left, token)
		ok = false
	}
	return r, ok
}
