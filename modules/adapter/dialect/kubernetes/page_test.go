package kubernetes

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// paging makes the fake API answer lists of Pods in pages, as a real one does, and counts them.
func (f *fakeCluster) paging(pods []runtime.Object, pages *int) {
	f.react("list", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		list, ok := action.(clienttesting.ListActionImpl)
		if !ok || list.ListOptions.Limit == 0 {
			return false, nil, nil
		}
		*pages++
		from, _ := strconv.Atoi(list.ListOptions.Continue)
		to := min(from+int(list.ListOptions.Limit), len(pods))
		page := &corev1.PodList{}
		for _, pod := range pods[from:to] {
			page.Items = append(page.Items, *pod.(*corev1.Pod))
		}
		if to < len(pods) {
			page.Continue = strconv.Itoa(to)
		}
		return true, page, nil
	})
}

// TestManyPods is a list that is too long for one answer: what it tells, in what order, and what of it a caller may not
// see; and how one of many is found.
func TestManyPods(t *testing.T) {
	t.Parallel()
	const count = 1234
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	pods := make([]runtime.Object, count)
	for i := range pods {
		pod := newPod(fmt.Sprintf("p-%04d", i), "10.0.0.5")
		pod.Namespace, pod.UID = "default", types.UID(fmt.Sprintf("uid-%d", i))
		pod.CreationTimestamp = metav1.NewTime(begin.Add(time.Duration(i*7%count) * time.Second))
		pods[i] = pod
	}
	f := newIdleCluster(t)
	for _, pod := range pods { // as if they were followed
		if err := f.pods.informer.GetStore().Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	pages := 0
	f.paging(pods, &pages)
	list := func(filter neutral.Filter) []neutral.Container {
		t.Helper()
		result, err := f.runAs(t, hides("p-0100"), neutral.Operation{Action: neutral.ContainerList, Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		return result.Containers
	}
	all := list(neutral.Filter{All: true})
	if len(all) != count-1 || pages != 3 {
		t.Fatalf("%d containers in %d pages", len(all), pages)
	}
	for i := 1; i < len(all); i++ {
		if all[i].CreatedAt.After(all[i-1].CreatedAt) {
			t.Fatalf("%s is newer than %s before it", all[i].Name, all[i-1].Name)
		}
	}
	if few := list(neutral.Filter{All: true, Limit: 5}); len(few) != 5 || few[0].ID != all[0].ID || few[4].ID != all[4].ID {
		t.Errorf("the last five are %+v", few)
	}
	if one := list(neutral.Filter{Names: []string{"^/p-1200$"}}); len(one) != 1 || one[0].Name != "p-1200" {
		t.Errorf("by name: %+v", one)
	}
	if newer := list(neutral.Filter{All: true, Since: all[10].ID}); len(newer) != 10 {
		t.Errorf("%d are newer than the eleventh", len(newer))
	}
	if _, err := f.runAs(t, allowAll, neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{Before: "nobody"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("before nobody: %v", err)
	}

	it := all[700]
	pages = 0
	for _, ref := range []string{it.ID, it.ID[:12], it.Name, "/" + it.Name} {
		result, err := f.runAs(t, allowAll, neutral.Operation{Action: neutral.ContainerInspect, Ref: ref})
		if err != nil || result.Container.Name != it.Name || result.Container.ID != it.ID {
			t.Errorf("inspect %s: %+v, %v", ref, result.Container, err)
		}
	}
	if _, err := f.runAs(t, hides(it.Name), neutral.Operation{Action: neutral.ContainerInspect, Ref: it.ID}); !fault.Is(err, fault.NotFound) {
		t.Errorf("inspect of what is hidden: %v", err)
	}
	if _, err := f.runAs(t, allowAll, neutral.Operation{Action: neutral.ContainerInspect, Ref: "nobody"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("inspect of nobody: %v", err)
	}
}
