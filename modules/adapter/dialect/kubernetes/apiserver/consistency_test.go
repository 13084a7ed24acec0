package apiserver

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
)

// history is what one watcher knows, held against what a watch may say.
type history struct {
	known map[string]*corev1.ConfigMap
	last  uint64
}

// tell takes one event in, and says what is wrong with it.
func (h *history) tell(e watch.Event) error {
	m, ok := e.Object.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("an event of %T: %v", e.Object, e.Object)
	}
	version, err := strconv.ParseUint(m.ResourceVersion, 10, 64)
	if err != nil {
		return err
	}
	if version <= h.last {
		return fmt.Errorf("version %d came after %d", version, h.last)
	}
	h.last = version
	before := h.known[m.Name]
	switch {
	case e.Type == watch.Added && before != nil:
		return fmt.Errorf("%s was added twice", m.Name)
	case e.Type != watch.Added && before == nil:
		return fmt.Errorf("%s: %s of what is not there", m.Name, e.Type)
	case before != nil && e.Type == watch.Modified && count(m) < count(before):
		return fmt.Errorf("%s counts %d after %d", m.Name, count(m), count(before))
	case before != nil && before.UID != m.UID:
		return fmt.Errorf("%s became another one without a removal", m.Name)
	}
	if e.Type == watch.Deleted {
		delete(h.known, m.Name)
	} else {
		h.known[m.Name] = m
	}
	return nil
}

func count(m *corev1.ConfigMap) int {
	n, _ := strconv.Atoi(m.Data["count"])
	return n
}

// TestConsistency has many write the same few objects, with conflicts, while many watch: no count is lost, and every watcher
// sees one history, whose end is what there is.
func TestConsistency(t *testing.T) {
	const objects, writers, watchers, rounds = 3, 6, 8, 12
	s := stands(t)
	ctx, cancel := context.WithCancel(t.Context())
	maps := s.CoreV1().ConfigMaps("default")
	start := must(maps.List(ctx, metav1.ListOptions{}))(t).ResourceVersion
	name := func(i int) string { return fmt.Sprintf("shared%d", i%objects) }
	for i := range objects {
		must(maps.Create(ctx, configMap(name(i), map[string]string{"count": "0"}), metav1.CreateOptions{}))(t)
	}
	watching, stopped := sync.WaitGroup{}, make(chan struct{})
	histories := make([]*history, watchers)
	for i := range watchers {
		h := &history{known: map[string]*corev1.ConfigMap{}}
		histories[i] = h
		watching.Go(func() {
			version := start
			for done := false; !done; { // each begins anew again and again
				seconds := int64(1)
				w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: version, TimeoutSeconds: &seconds, AllowWatchBookmarks: true})
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stopped: // this one is to see all that there is
					done = true
				default:
				}
				for e := range w.ResultChan() {
					if e.Type == watch.Bookmark {
						version = e.Object.(*corev1.ConfigMap).ResourceVersion
						continue
					}
					if err := h.tell(e); err != nil {
						t.Errorf("watcher %d: %v", i, err)
					}
					version = e.Object.(*corev1.ConfigMap).ResourceVersion
				}
			}
		})
	}
	writing := sync.WaitGroup{}
	for i := range writers {
		writing.Go(func() {
			for round := range rounds {
				err := retry.OnError(retry.DefaultBackoff, apierrors.IsConflict, func() error {
					return retry.RetryOnConflict(retry.DefaultRetry, func() error {
						m, err := maps.Get(ctx, name(i+round), metav1.GetOptions{})
						if err != nil {
							return err
						}
						m.Data["count"] = strconv.Itoa(count(m) + 1)
						_, err = maps.Update(ctx, m, metav1.UpdateOptions{})
						return err
					})
				})
				if err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
				own := fmt.Sprintf("own%d", i)
				if _, err := maps.Create(ctx, configMap(own, nil), metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
				if err := maps.Delete(ctx, own, metav1.DeleteOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(stopped)
	watching.Wait()
	cancel()
	total := 0
	all := must(s.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}))(t)
	for _, m := range all.Items {
		total += count(&m)
	}
	if total != writers*rounds {
		t.Errorf("counted to %d, want %d", total, writers*rounds)
	}
	for i, h := range histories {
		if len(h.known) != len(all.Items) {
			t.Errorf("watcher %d knows %d objects, there are %d", i, len(h.known), len(all.Items))
		}
		for _, m := range all.Items {
			if known := h.known[m.Name]; known == nil || known.ResourceVersion != m.ResourceVersion {
				t.Errorf("watcher %d does not know the last of %s", i, m.Name)
			}
		}
	}
}

// TestSameName has many make the same object: one of them does.
func TestSameName(t *testing.T) {
	s := stands(t)
	made, applied := make(chan bool, 8), sync.WaitGroup{}
	for i := range 8 {
		applied.Go(func() {
			_, err := s.AppsV1().Deployments("default").Create(t.Context(), deployment("web", int32(i)), metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				t.Error(err)
			}
			made <- err == nil
			_, err = s.CoreV1().ConfigMaps("default").Patch(t.Context(), "applied", "application/apply-patch+yaml",
				fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\ndata: {k%d: v}\n", i), metav1.PatchOptions{FieldManager: fmt.Sprint("m", i)})
			if err != nil && !apierrors.IsConflict(err) {
				t.Error(err)
			}
		})
	}
	applied.Wait()
	close(made)
	n := 0
	for one := range made {
		if one {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d made it", n)
	}
	if m := must(s.CoreV1().ConfigMaps("default").Get(t.Context(), "applied", metav1.GetOptions{}))(t); len(m.Data) < 5 {
		t.Errorf("of what eight applied at once there is %v", m.Data)
	}
}
