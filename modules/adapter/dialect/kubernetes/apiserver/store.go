package apiserver

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strconv"
	"sync"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// object is what every kind of object is.
type object interface {
	runtime.Object
	metav1.Object
}

// entry is one object as it is now. It is never changed: what changes is another entry.
type entry struct {
	object  object
	version uint64
	native  native
	sum     sum
}

// native is what an object is in the orchestrator.
type native struct {
	id        string            // of the workload, the task, the container, the stored file
	container string            // of a Pod: the container that runs, "" for none yet; of several, the one that holds them
	members   map[string]string // of a Pod of several containers: their ids, by their names
	version   string            // the orchestrator's lock
	task      bool              // of a Pod: a workload keeps it
	waiting   bool              // of a workload: what it refers to is not there
	own       bool              // it was made as the orchestrator's own, and has no document of the API beside it
}

type key struct{ namespace, name string }

func keyOf(o metav1.Object) key { return key{o.GetNamespace(), o.GetName()} }

// change is one step of a kind's history: an entry came (old nil), became another, or went (new nil).
type change struct {
	kind     schema.GroupResource
	version  uint64
	old, new *entry
}

// How far a watch may lag behind: so many changes, of so many bytes.
const (
	historyLimit = 10000
	historyBytes = 64 << 20
)

// store is the objects as they were read last, and the changes that led to them. Versions are those of the whole store, as
// the API's are. They begin at the time of the start, in microseconds, so that those of a process before are all older.
type store struct {
	mu      sync.RWMutex
	version uint64
	objects map[schema.GroupResource]map[key]*entry
	history []change
	oldest  uint64 // nothing is known of the changes up to this one
	moved   chan struct{}
}

func newStore(now time.Time) *store {
	version := uint64(now.UnixMicro())
	return &store{version: version, oldest: version, objects: map[schema.GroupResource]map[key]*entry{}, moved: make(chan struct{})}
}

// replace takes in all objects of a kind as they are now.
func (s *store) replace(kind schema.GroupResource, now []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.objects[kind]
	next := make(map[key]*entry, len(now))
	length := len(s.history)
	for i := range now {
		fresh := &now[i]
		k := keyOf(fresh.object)
		if _, double := next[k]; double {
			continue // two natives of one name: the first one has it
		}
		fresh.sum = sumOf(fresh.object)
		old := before[k]
		if old != nil && old.object.GetUID() == fresh.object.GetUID() {
			if same(old, fresh) {
				// A watch has nothing to say; what it is in the orchestrator may have moved on.
				next[k] = &entry{object: old.object, version: old.version, native: fresh.native, sum: fresh.sum}
				continue
			}
		} else if old != nil { // another one of the same name
			s.record(change{kind: kind, old: old})
			old = nil
		}
		fresh.version = s.record(change{kind: kind, old: old, new: fresh})
		fresh.object.SetResourceVersion(strconv.FormatUint(fresh.version, 10))
		next[k] = fresh
	}
	for _, k := range sortedKeys(before) {
		if _, there := next[k]; !there {
			s.record(change{kind: kind, old: before[k]})
		}
	}
	s.objects[kind] = next
	if !known { // nobody can ask for what was before the first reading
		s.history, s.oldest = s.history[:length], s.version
		return
	}
	if len(s.history) == length {
		return
	}
	over := max(len(s.history)-historyLimit, 0)
	bytes := 0
	for i := len(s.history) - 1; i >= over; i-- {
		if bytes += s.history[i].size(); bytes > historyBytes {
			over = i + 1
			break
		}
	}
	if over > 0 {
		s.oldest = s.history[over-1].version
		s.history = slices.Clone(s.history[over:])
	}
	close(s.moved)
	s.moved = make(chan struct{})
}

// sum tells objects apart, their versions aside.
type sum struct {
	of   [sha256.Size]byte
	made bool
	size int // of the encoding
}

// size is about what a change keeps in memory.
func (c change) size() int {
	total := 0
	for _, e := range []*entry{c.old, c.new} {
		if e != nil {
			total += e.sum.size
		}
	}
	return total
}

// sumOf is by the encoding of an object without a version, which is made in a tenth of the time that comparing takes.
func sumOf(o object) sum {
	encoder, ok := o.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return sum{}
	}
	encoded, err := encoder.Marshal()
	if err != nil {
		return sum{}
	}
	return sum{of: sha256.Sum256(encoded), made: true, size: len(encoded)}
}

// same tells whether nothing has changed. The fresh one has no version yet.
func same(old, fresh *entry) bool {
	if fresh.sum.made && old.sum == fresh.sum {
		return true
	}
	fresh.object.SetResourceVersion(old.object.GetResourceVersion())
	return apiequality.Semantic.DeepEqual(old.object, fresh.object)
}

func (s *store) record(c change) uint64 {
	s.version++
	c.version = s.version
	s.history = append(s.history, c)
	return c.version
}

func sortedKeys(m map[key]*entry) []key {
	keys := make([]key, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// get gives one object, nil when there is none.
func (s *store) get(kind schema.GroupResource, k key) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.objects[kind][k]
}

// list gives all objects of a kind by namespace and name, and the version of the store that they are of.
func (s *store) list(kind schema.GroupResource, namespace string) ([]*entry, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*entry, 0, len(s.objects[kind]))
	for _, k := range sortedKeys(s.objects[kind]) {
		if namespace == "" || k.namespace == namespace {
			all = append(all, s.objects[kind][k])
		}
	}
	return all, s.version
}

// since gives the changes of a kind after a version, the version up to which they are all there are, and what is closed
// when there are more. ok false says that they are not known any more.
func (s *store) since(kind schema.GroupResource, version uint64) (changes []change, upto uint64, moved <-chan struct{}, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if version < s.oldest || version > s.version {
		return nil, s.version, s.moved, false
	}
	first, _ := slices.BinarySearchFunc(s.history, version+1, func(c change, v uint64) int { return cmp.Compare(c.version, v) })
	for _, c := range s.history[first:] {
		if c.kind == kind {
			changes = append(changes, c)
		}
	}
	return changes, s.version, s.moved, true
}
