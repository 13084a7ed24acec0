package kubernetes

import (
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestContainerID(t *testing.T) {
	t.Parallel()
	pod := func(name, nonce, uid string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID(uid)}}
		if nonce != "" {
			p.Annotations = map[string]string{annotationNonce: nonce}
		}
		return p
	}
	id := containerID("east", pod("web", "n", "1"), "")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
		t.Errorf("%q is no id", id)
	}
	if containerID("east", pod("web", "n", "2"), "") != id {
		t.Error("a Pod that took another's place has another id")
	}
	if containerID("east", pod("web", "", "n"), "") != id {
		t.Error("the nonce of a Pod that others made is its uid")
	}
	seen := map[string]string{id: "the first"}
	for what, other := range map[string]string{
		"another cluster": containerID("west", pod("web", "n", "1"), ""), "another nonce": containerID("east", pod("web", "m", "1"), ""),
		"another name": containerID("east", pod("we", "bn", "1"), ""), "a container": containerID("east", pod("web", "n", "1"), "c"),
		"another uid": containerID("east", pod("web", "", "2"), ""),
	} {
		if former, ok := seen[other]; ok {
			t.Errorf("%s and %s share an id", what, former)
		}
		seen[other] = what
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, name := range []string{"web", "We", "my_app", "my-app", "My_App", "a..b", "9lives", "1.2", "x" + strings.Repeat("y", 80),
		"x" + strings.Repeat("y", 81), "__", "trailing-", "a.b"} {
		legal, kept, err := podName(name)
		if name == "__" {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q is a name: %v", name, err)
			}
			continue
		}
		if err != nil || len(validation.IsDNS1123Subdomain(legal)) > 0 || len(legal) > 63 || kept != (legal == name) {
			t.Errorf("%q becomes %q (%v, %v)", name, legal, kept, err)
		}
		if former, ok := names[legal]; ok {
			t.Errorf("%q and %q share the name %q", name, former, legal)
		}
		names[legal] = name
		service, _ := workloadName(name)
		if len(validation.IsDNS1035Label(service)) > 0 {
			t.Errorf("%q becomes the service %q", name, service)
		}
	}
	made := map[string]bool{}
	for range 200 {
		nonce, err := newNonce()
		if err != nil {
			t.Fatal(err)
		}
		name := randomName(nonce)
		if _, kept, err := podName(name); err != nil || !kept || made[name] || name != randomName(nonce) {
			t.Errorf("the random name %q is not good: %v", name, err)
		}
		made[name] = true
	}
}

func TestShortID(t *testing.T) {
	t.Parallel()
	if id := shortID("workload", "east", "uid"); !regexp.MustCompile(`^[0-9a-z]{25}$`).MatchString(id) || id == shortID("task", "east", "uid") {
		t.Errorf("%q is no id of Swarm's form", id)
	}
}

func TestResolveContainer(t *testing.T) {
	t.Parallel()
	long := func(s string) string { return s + strings.Repeat("0", 64-len(s)) }
	all := []neutral.Container{
		{ID: long("abc1"), Name: "web", Pod: "web"}, {ID: long("abc2"), Name: "db", Pod: "db"}, {ID: long("dd"), Name: "abc", Pod: "abc"},
		{ID: long("e1"), Name: "duo.a", Pod: "duo", Siblings: 1}, {ID: long("e2"), Name: "duo.b", Pod: "duo", Siblings: 1},
	}
	for ref, want := range map[string]string{"web": "web", "/web": "web", long("abc2"): "db", "abc2": "db", "abc": "abc", "dd": "abc",
		"duo.b": "duo.b", "e1": "duo.a"} {
		if got, err := resolveContainer(all, ref); err != nil || got.Name != want {
			t.Errorf("%s is %v, %v; want %s", ref, got, err, want)
		}
	}
	for ref, want := range map[string]string{
		"ab": "Multiple IDs found with provided prefix: ab", "nobody": "No such container: nobody", "": "No such container",
		"we": "No such container: we", "duo": "the Pod of that name has several: duo.a, duo.b",
	} {
		if got, err := resolveContainer(all, ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %v, %v; want %s", ref, got, err, want)
		}
	}
}
