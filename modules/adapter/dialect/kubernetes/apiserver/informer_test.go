package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// story is what an informer told, an object at a time.
type story struct {
	mu   sync.Mutex
	told []string
}

func (s *story) add(what string, o any) {
	if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
		what, o = what+" unseen", last.Obj
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, what+" "+o.(metav1.Object).GetName())
}

func (s *story) has(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.told, line)
}

func (s *story) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { s.add("added", o) },
		UpdateFunc: func(old, o any) {
			if old.(metav1.Object).GetResourceVersion() != o.(metav1.Object).GetResourceVersion() {
				s.add("changed", o)
			}
		},
		DeleteFunc: func(o any) { s.add("removed", o) },
	}
}

// TestInformers has shared informers, typed and dynamic, see what happens, also what docker does by itself.
func TestInformers(t *testing.T) {
	s := stands(t)
	ctx, cancel := context.WithCancel(t.Context())
	typed := informers.NewSharedInformerFactory(s.Clientset, 0)
	loose := dynamicinformer.NewDynamicSharedInformerFactory(s.dynamic(t), 0)
	defer typed.Shutdown()
	defer loose.Shutdown()
	defer cancel()
	deployments, pods, maps := &story{}, &story{}, &story{}
	must(typed.Apps().V1().Deployments().Informer().AddEventHandler(deployments.handler()))(t)
	must(typed.Core().V1().Pods().Informer().AddEventHandler(pods.handler()))(t)
	must(loose.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps")).Informer().AddEventHandler(maps.handler()))(t)
	typed.Start(ctx.Done())
	loose.Start(ctx.Done())
	for kind, synced := range typed.WaitForCacheSync(ctx.Done()) {
		if !synced {
			t.Fatalf("%s never synced", kind)
		}
	}
	loose.WaitForCacheSync(ctx.Done())

	must(s.AppsV1().Deployments("default").Create(ctx, deployment("web", 2), metav1.CreateOptions{}))(t)
	must(s.CoreV1().ConfigMaps("default").Create(ctx, configMap("one", nil), metav1.CreateOptions{}))(t)
	eventually(t, "the creations are told", func() bool { return deployments.has("added web") && maps.has("added one") })
	eventually(t, "its pods are told", func() bool {
		all, err := typed.Core().V1().Pods().Lister().List(everything)
		return err == nil && len(all) == 2
	})
	if _, err := s.CoreV1().ConfigMaps("default").Update(ctx, configMap("one", map[string]string{"a": "1"}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.fake.mu.Lock() // as docker service scale would
	s.fake.workloads[0].Replicas = 5
	s.fake.schedule(&s.fake.workloads[0])
	s.fake.mu.Unlock()
	eventually(t, "what docker did is told", func() bool {
		all, err := typed.Core().V1().Pods().Lister().List(everything)
		return err == nil && len(all) == 5 && deployments.has("changed web") && maps.has("changed one")
	})
	if err := s.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.CoreV1().ConfigMaps("default").Delete(ctx, "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removals are told", func() bool {
		all, err := typed.Core().V1().Pods().Lister().List(everything)
		return err == nil && len(all) == 0 && deployments.has("removed web") && maps.has("removed one")
	})
}

// TestHistoryLost has a watch that stood still for longer than the history is, and one of another process.
func TestHistoryLost(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	first := must(maps.Create(ctx, configMap("first", nil), metav1.CreateOptions{}))(t)
	s.api.store.mu.Lock() // so many changes that the first is forgotten
	for range historyLimit + 1 {
		s.api.store.record(change{kind: nodeResource})
	}
	s.api.store.mu.Unlock()
	must(maps.Create(ctx, configMap("second", nil), metav1.CreateOptions{}))(t)
	version := must(strconv.ParseUint(first.ResourceVersion, 10, 64))(t)
	for _, old := range []string{first.ResourceVersion, "1", strconv.FormatUint(version+1e9, 10)} {
		if _, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: old}); !apierrors.IsResourceExpired(err) {
			t.Errorf("watched from %s on: %v", old, err)
		}
	}
	// An informer lists anew, and finds all.
	all := &story{}
	factory := informers.NewSharedInformerFactory(s.Clientset, 0)
	must(factory.Core().V1().ConfigMaps().Informer().AddEventHandler(all.handler()))(t)
	stop := make(chan struct{})
	factory.Start(stop)
	eventually(t, "both are found", func() bool { return all.has("added first") && all.has("added second") })

	s.server.CloseClientConnections() // while it is away, its place in history is lost
	s.api.store.mu.Lock()
	for range historyLimit + 1 {
		s.api.store.record(change{kind: nodeResource})
	}
	s.api.store.history, s.api.store.oldest = nil, s.api.store.version
	s.api.store.mu.Unlock()
	must(maps.Create(ctx, configMap("third", nil), metav1.CreateOptions{}))(t)
	if err := maps.Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the informer goes on", func() bool {
		return all.has("added third") && (all.has("removed first") || all.has("removed unseen first"))
	})
	close(stop)
	factory.Shutdown()
}

// next is the next event of a watch.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case event, open := <-w.ResultChan():
		if !open {
			t.Fatal("the watch ended")
		}
		return event
	case <-time.After(10 * time.Second):
		t.Fatal("the watch says nothing")
	}
	return watch.Event{}
}

func told(t *testing.T, w watch.Interface) string {
	t.Helper()
	event := next(t, w)
	return fmt.Sprintf("%s %s", event.Type, event.Object.(metav1.Object).GetName())
}

// TestWatchList streams a list and what comes after it, in one request, and goes on from where it was.
func TestWatchList(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	must(maps.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))(t)
	must(maps.Create(ctx, configMap("b", nil), metav1.CreateOptions{}))(t)
	yes, no := true, false
	initial := metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true}
	w := must(maps.Watch(ctx, initial))(t)
	if one, two := told(t, w), told(t, w); one != "ADDED a" || two != "ADDED b" {
		t.Error(one, two)
	}
	mark := next(t, w)
	m, ok := mark.Object.(*corev1.ConfigMap)
	if mark.Type != watch.Bookmark || !ok || m.Annotations[metav1.InitialEventsAnnotationKey] != "true" || m.ResourceVersion == "" {
		t.Fatalf("the end of the list is %v", mark)
	}
	must(maps.Create(ctx, configMap("c", nil), metav1.CreateOptions{}))(t)
	if line := told(t, w); line != "ADDED c" {
		t.Error(line)
	}
	w.Stop()
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w = must(maps.Watch(ctx, metav1.ListOptions{ResourceVersion: m.ResourceVersion}))(t)
	if one, two := told(t, w), told(t, w); one != "ADDED c" || two != "DELETED a" {
		t.Error("resumed:", one, two)
	}
	w.Stop()
	for _, version := range []string{"", "0"} { // what comes from now on alone
		w = must(maps.Watch(ctx, metav1.ListOptions{SendInitialEvents: &no, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, ResourceVersion: version}))(t)
		must(maps.Create(ctx, configMap("new"+version, nil), metav1.CreateOptions{}))(t)
		if line := told(t, w); line != "ADDED new"+version {
			t.Error(line)
		}
		w.Stop()
	}
	if _, err := maps.Watch(ctx, metav1.ListOptions{SendInitialEvents: &yes}); err == nil {
		t.Error("initial events without what they may be older than")
	}
	// One whose time is up ends, with a bookmark to go on from.
	second := int64(1)
	w = must(maps.Watch(ctx, metav1.ListOptions{ResourceVersion: m.ResourceVersion, TimeoutSeconds: &second, AllowWatchBookmarks: true}))(t)
	var last watch.Event
	for event := range w.ResultChan() {
		last = event
	}
	if last.Type != watch.Bookmark {
		t.Errorf("the last of a watch is %v", last)
	}
	forever := int64(1) << 62
	w = must(maps.Watch(ctx, metav1.ListOptions{TimeoutSeconds: &forever, ResourceVersion: last.Object.(*corev1.ConfigMap).ResourceVersion}))(t)
	defer w.Stop()
	must(maps.Create(ctx, configMap("late", nil), metav1.CreateOptions{}))(t)
	if line := told(t, w); line != "ADDED late" {
		t.Error(line)
	}
}

// TestWatchSelected sees objects come into what it selected, and leave it.
func TestWatchSelected(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	w := must(maps.Watch(ctx, metav1.ListOptions{LabelSelector: "tier in (front)"}))(t)
	defer w.Stop()
	byName := must(maps.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=one"}))(t)
	defer byName.Stop()
	must(maps.Create(ctx, configMap("other", nil), metav1.CreateOptions{}))(t)
	must(maps.Create(ctx, configMap("one", nil), metav1.CreateOptions{}))(t)
	m := configMap("one", nil)
	m.Labels = map[string]string{"tier": "front"}
	must(maps.Update(ctx, m, metav1.UpdateOptions{}))(t)
	m.Data = map[string]string{"a": "1"}
	must(maps.Update(ctx, m, metav1.UpdateOptions{}))(t)
	m.Labels = nil
	gone := must(maps.Update(ctx, m, metav1.UpdateOptions{}))(t)
	for _, want := range []string{"ADDED one", "MODIFIED one"} {
		if line := told(t, w); line != want {
			t.Errorf("%s, want %s", line, want)
		}
	}
	if event := next(t, w); event.Type != watch.Deleted || event.Object.(*corev1.ConfigMap).ResourceVersion != gone.ResourceVersion {
		t.Errorf("what left the selection: %v", event)
	}
	for _, want := range []string{"ADDED one", "MODIFIED one", "MODIFIED one", "MODIFIED one"} {
		if line := told(t, byName); line != want {
			t.Errorf("by name: %s, want %s", line, want)
		}
	}
}

// TestForms watches and lists tables and metadata, over the forms of bodies.
func TestForms(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	must(s.AppsV1().Deployments("default").Create(ctx, deployment("web", 2), metav1.CreateOptions{}))(t)
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	list := must(s.metadata(t).Resource(pods).Namespace("default").List(ctx, metav1.ListOptions{}))(t)
	if len(list.Items) != 2 || list.ResourceVersion == "" || list.Items[0].Labels["app"] != "web" {
		t.Errorf("metadata %v", list)
	}
	one := must(s.metadata(t).Resource(pods).Namespace("default").Get(ctx, list.Items[0].Name, metav1.GetOptions{}))(t)
	if one.UID != list.Items[0].UID {
		t.Errorf("metadata of one: %v", one)
	}
	w := must(s.metadata(t).Resource(pods).Namespace("default").Watch(ctx, metav1.ListOptions{}))(t)
	if event := next(t, w); event.Object.(*metav1.PartialObjectMetadata).Name == "" {
		t.Errorf("metadata watched: %v", event)
	}
	w.Stop()
	// A client of protobuf reads, writes and watches.
	binary := client(t, s.media("application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf")).AppsV1().Deployments("default")
	made := must(binary.Create(ctx, deployment("binary", 1), metav1.CreateOptions{}))(t)
	binaryWatch := must(binary.Watch(ctx, metav1.ListOptions{ResourceVersion: made.ResourceVersion}))(t)
	defer binaryWatch.Stop()
	three := int32(3)
	made.Spec.Replicas = &three
	must(binary.Update(ctx, made, metav1.UpdateOptions{}))(t)
	if line := told(t, binaryWatch); line != "MODIFIED binary" {
		t.Error(line)
	}
	if all := must(binary.List(ctx, metav1.ListOptions{}))(t); len(all.Items) != 2 || all.Items[0].Name != "binary" || *all.Items[0].Spec.Replicas != 3 {
		t.Errorf("a list in protobuf: %v", all)
	}
	if _, err := binary.Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an error in protobuf: %v", err)
	}
	if err := binary.Delete(ctx, "binary", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if line := told(t, binaryWatch); line != "DELETED binary" {
		t.Error(line)
	}
	// YAML goes in and comes out.
	code, body := s.ask(t, "POST", "/api/v1/namespaces/default/configmaps", "application/yaml", "metadata:\n  name: written\ndata: {a: \"1\"}\n")
	if code != 201 {
		t.Error(code, body)
	}
	response := s.response(t, "GET", "/api/v1/namespaces/default/configmaps/written", map[string][]string{"Accept": {"application/yaml"}}, "")
	read := make([]byte, 1000)
	n, _ := response.Body.Read(read)
	_ = response.Body.Close()
	if !strings.Contains(string(read[:n]), "kind: ConfigMap\n") {
		t.Errorf("YAML: %s", read[:n])
	}
	response = s.response(t, "GET", "/api/v1/namespaces/default/configmaps/written", map[string][]string{"Accept": {"text/html"}}, "")
	_ = response.Body.Close()
	if response.StatusCode != http.StatusNotAcceptable {
		t.Errorf("HTML: %d", response.StatusCode)
	}
}

// TestTables lists and watches as kubectl does.
func TestTables(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	must(s.AppsV1().Deployments("default").Create(ctx, deployment("web", 2), metav1.CreateOptions{}))(t)
	table := func(query string) *metav1.Table {
		into := &metav1.Table{}
		err := s.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/default/pods"+query).
			SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").Do(ctx).Into(into)
		if err != nil {
			t.Fatal(err)
		}
		return into
	}
	all := table("")
	if len(all.Rows) != 2 || all.ResourceVersion == "" || len(all.ColumnDefinitions) < 5 || all.Rows[0].Cells[1] != "1/1" {
		t.Errorf("%+v", all)
	}
	var meta metav1.PartialObjectMetadata
	if err := json.Unmarshal(all.Rows[0].Object.Raw, &meta); err != nil || meta.Kind != "PartialObjectMetadata" || meta.Name == "" {
		t.Errorf("%s: %v", all.Rows[0].Object.Raw, err)
	}
	response := s.response(t, "GET", "/api/v1/namespaces/default/pods?watch=true&includeObject=None&timeoutSeconds=1",
		map[string][]string{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}}, "")
	defer response.Body.Close()
	events := decodeAll[struct {
		Type   string
		Object metav1.Table
	}](t, response.Body)
	if len(events) != 2 || len(events[0].Object.ColumnDefinitions) == 0 || len(events[1].Object.ColumnDefinitions) != 0 ||
		events[0].Object.Rows[0].Object.Raw != nil {
		t.Errorf("%+v", events)
	}
}

// TestContinue reads a list in parts while it changes.
func TestContinue(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	for i := range 10 {
		must(maps.Create(ctx, configMap(fmt.Sprintf("m%02d", i), nil), metav1.CreateOptions{}))(t)
	}
	part := must(maps.List(ctx, metav1.ListOptions{Limit: 4}))(t)
	if len(part.Items) != 4 || part.RemainingItemCount == nil || *part.RemainingItemCount != 6 {
		t.Fatalf("the first part: %d, %v", len(part.Items), part.ListMeta)
	}
	version := part.ResourceVersion
	if err := maps.Delete(ctx, "m07", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(maps.Create(ctx, configMap("m055", nil), metav1.CreateOptions{}))(t)
	var names []string
	for _, m := range part.Items {
		names = append(names, m.Name)
	}
	token := part.Continue
	for next := token; next != ""; {
		more := must(maps.List(ctx, metav1.ListOptions{Limit: 4, Continue: next}))(t)
		if more.ResourceVersion != version {
			t.Errorf("a part is of version %s, the first was of %s", more.ResourceVersion, version)
		}
		for _, m := range more.Items {
			names = append(names, m.Name)
		}
		next = more.Continue
	}
	if want := "m00 m01 m02 m03 m04 m05 m06 m07 m08 m09"; strings.Join(names, " ") != want {
		t.Errorf("%v", names)
	}
	if again := must(maps.List(ctx, metav1.ListOptions{Limit: 4, Continue: token}))(t); again.Items[0].Name != "m04" {
		t.Errorf("asked twice: %v", again.Items[0].Name)
	}
	if _, err := s.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{Continue: token}); !apierrors.IsBadRequest(err) {
		t.Errorf("another kind's list goes on: %v", err)
	}
	if _, err := s.CoreV1().ConfigMaps("kube-system").List(ctx, metav1.ListOptions{Continue: token}); !apierrors.IsBadRequest(err) {
		t.Errorf("another namespace's list goes on: %v", err)
	}
	if _, err := maps.List(ctx, metav1.ListOptions{Continue: "nonsense"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a list that never was goes on: %v", err)
	}
	for _, options := range []metav1.ListOptions{{LabelSelector: "a=="}, {LabelSelector: "-=b"}, {FieldSelector: "spec.none=1"}, {FieldSelector: "nonsense"},
		{Limit: -1}, {ResourceVersion: "x"}} {
		if _, err := maps.List(ctx, options); options.LabelSelector != "a==" && !apierrors.IsBadRequest(err) {
			t.Errorf("%+v: %v", options, err)
		}
	}
	// A list of any version is of one that somebody keeps abreast, or of now.
	must(maps.Create(ctx, configMap("newest", nil), metav1.CreateOptions{}))(t)
	s.fake.mu.Lock()
	s.fake.workloads = nil
	s.fake.mu.Unlock()
	if all := must(maps.List(ctx, metav1.ListOptions{ResourceVersion: "0"}))(t); len(all.Items) != 11 {
		t.Errorf("of any version: %d", len(all.Items))
	}
	fresh := stands(t)
	if _, err := fresh.CoreV1().Nodes().Get(ctx, "west-1", metav1.GetOptions{ResourceVersion: "0"}); err != nil {
		t.Errorf("the first that is read, of any version: %v", err)
	}
}

// TestDynamic writes without types.
func TestDynamic(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.dynamic(t).Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace("default")
	made := must(maps.Create(ctx, loose(t, configMap("one", map[string]string{"a": "1"}), corev1.SchemeGroupVersion.WithKind("ConfigMap")), metav1.CreateOptions{}))(t)
	if err := unstructured.SetNestedField(made.Object, "2", "data", "a"); err != nil {
		t.Fatal(err)
	}
	changed := must(maps.Update(ctx, made, metav1.UpdateOptions{}))(t)
	if value, _, _ := unstructured.NestedString(changed.Object, "data", "a"); value != "2" {
		t.Errorf("%v", changed)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "!none"}); err != nil {
		t.Fatal(err)
	}
	if list := must(maps.List(ctx, metav1.ListOptions{}))(t); len(list.Items) != 0 {
		t.Errorf("%v", list)
	}
}
