package kubernetes

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// asked is one request as an API server got it.
type asked struct {
	line   string
	user   []string
	groups []string
	other  bool // it carries another header of impersonation
}

// accountServer is an API server that writes down who asks what, and knows no object. rights tells what its
// SelfSubjectAccessReviews allow.
type accountServer struct {
	*httptest.Server
	mu     sync.Mutex
	all    []asked
	rights func(user string, what authorizationv1.ResourceAttributes) bool
}

func newAccountServer(t *testing.T) *accountServer {
	t.Helper()
	s := &accountServer{}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *accountServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/api/v1/pods" { // the cache
		if r.URL.Query().Get("watch") != "" {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
		return
	}
	a := asked{line: r.Method + " " + r.URL.Path, user: r.Header.Values("Impersonate-User"), groups: r.Header.Values("Impersonate-Group")}
	for key := range r.Header {
		a.other = a.other || strings.HasPrefix(key, "Impersonate-") && key != "Impersonate-User" && key != "Impersonate-Group"
	}
	s.mu.Lock()
	s.all = append(s.all, a)
	s.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
		var review authorizationv1.SelfSubjectAccessReview
		body, _ := io.ReadAll(r.Body)
		if _, _, err := protobufCodec.Decode(body, nil, &review); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		review.TypeMeta = metav1.TypeMeta{Kind: "SelfSubjectAccessReview", APIVersion: "authorization.k8s.io/v1"}
		review.Status.Allowed = s.rights(strings.Join(a.user, ","), *review.Spec.ResourceAttributes)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(review)
		return
	}
	w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no"}`)
}

func (s *accountServer) last(t *testing.T) asked {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		t.Fatal("nothing was asked")
	}
	return s.all[len(s.all)-1]
}

func (s *accountServer) connect(t *testing.T, impersonate bool) *Cluster {
	t.Helper()
	kubeconfig := writeKubeconfig(t, clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: serverCA(s.Server)},
		clientcmdapi.AuthInfo{Token: "own"})
	c, err := Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "east", Kubeconfig: kubeconfig, Context: "x", Impersonate: impersonate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.(*Cluster)
}

// TestActsAsThePeer holds that whatever the clients send with a peer's context is sent in its name, streams included,
// and that no change goes out for nobody.
func TestActsAsThePeer(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t)
	c := s.connect(t, true)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Labels: map[string]string{labelAutoRemove: "true"}}}
	west := dialect.WithActor(t.Context(), dialect.Actor{Peer: "west"})
	for what, ask := range map[string]func(context.Context) error{
		"a change": func(ctx context.Context) error { return c.deletePod(ctx, pod, 0) },
		"a dynamic client": func(ctx context.Context) error {
			return c.dynamic.Resource(exportVersions[0]).Namespace("default").Delete(ctx, "web", metav1.DeleteOptions{})
		},
		"metadata": func(ctx context.Context) error {
			_, err := c.Lookup(ctx, neutral.Operation{Object: neutral.Object{Kind: neutral.KindConfig, Resource: "core/configmaps", Namespace: "a", Name: "b"},
				Extra: map[string]string{extraVersion: "v1"}})
			return err
		},
		"an exec": func(ctx context.Context) error {
			_, _, err := c.capture(ctx, &located{pod: execPod(), index: 0}, []string{"id"})
			if !fault.Is(err, fault.Denied) {
				t.Errorf("an exec that the API refuses: %v", err)
			}
			return err
		},
		"a call that is handed on": func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://any/api/v1/namespaces", http.NoBody)
			if err != nil {
				return err
			}
			r.Header.Set("Impersonate-User", "root")
			r.Header.Set("Impersonate-Extra-Scopes", "all")
			response, err := c.Transport().RoundTrip(r)
			if err == nil {
				err = response.Body.Close()
			}
			return err
		},
	} {
		_ = ask(west) // the server refuses everything
		got := s.last(t)
		if !slices.Equal(got.user, []string{"isthmus:peer:west"}) || !slices.Equal(got.groups, []string{"isthmus:peers", "isthmus:peer:west"}) || got.other {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if err := c.deletePod(t.Context(), pod, 0); err == nil || s.last(t).user == nil {
		t.Errorf("a change for nobody: %v", err)
	}
	if _, err := c.Locate(t.Context(), neutral.TargetRef{Namespace: "default", Container: "web"}); err == nil {
		t.Error("the server refuses everything")
	}
	if got := s.last(t); got.user != nil {
		t.Errorf("where a container is, the gateway asks for itself: %+v", got)
	}
	if _, _, err := c.ReviewToken(t.Context(), "token", nil); err == nil || s.last(t).user != nil || !strings.HasSuffix(s.last(t).line, "/tokenreviews") {
		t.Errorf("whose a token is, the gateway asks for itself: %v", err)
	}
	if header := c.Impersonation(dialect.Actor{Peer: "west"}); header.Get("Impersonate-User") != "isthmus:peer:west" {
		t.Errorf("headers of what is handed on: %v", header)
	}
}

func execPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: containerName}}}}
}

// TestActsForItself holds that a gateway that is told not to impersonate does everything as its own account.
func TestActsForItself(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t)
	c := s.connect(t, false)
	_ = c.deletePod(dialect.WithActor(t.Context(), dialect.Actor{Peer: "west"}), execPod(), 0) // the server refuses everything
	if got := s.last(t); got.user != nil || got.groups != nil {
		t.Errorf("%+v", got)
	}
	if header := c.Impersonation(dialect.Actor{Peer: "west"}); header != nil {
		t.Errorf("headers of what is handed on: %v", header)
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t)
	c := s.connect(t, true)
	least := func(user string, what authorizationv1.ResourceAttributes) bool {
		switch {
		case user != "":
			return false // the gateway asks about itself
		case what.Verb == "impersonate":
			return slices.Contains([]string{"isthmus:peers", "isthmus:peer:west"}, what.Name)
		}
		return what.Namespace == "" && what.Resource != "*" && (what.Verb == "list" || what.Verb == "watch" || what.Verb == "get" && what.Resource == "pods")
	}
	s.rights = least
	found, err := c.Rights(t.Context(), []string{"west"})
	if err != nil || len(found.Missing)+len(found.Needless) > 0 {
		t.Errorf("least rights: %+v, %v", found, err)
	}
	found, err = c.Rights(t.Context(), []string{"west", "south"})
	if err != nil || len(found.Missing) != 2 || !strings.Contains(found.Missing[0], `impersonate users "isthmus:peer:south" in the whole cluster`) {
		t.Errorf("another peer: %+v, %v", found, err)
	}
	s.rights = func(string, authorizationv1.ResourceAttributes) bool { return true }
	if found, err = c.Rights(t.Context(), nil); err != nil || len(found.Missing) > 0 || len(found.Needless) != 5 {
		t.Errorf("a cluster admin: %+v, %v", found, err)
	}
	s.rights = func(_ string, what authorizationv1.ResourceAttributes) bool {
		return least("", what) && what.Resource != "endpointslices"
	}
	if found, err = c.Rights(t.Context(), nil); err != nil || len(found.Missing) != 2 ||
		!strings.HasPrefix(found.Missing[0], "list endpointslices.discovery.k8s.io in the whole cluster") {
		t.Errorf("too few: %+v, %v", found, err)
	}
	s.rights, c.reviews = least, true
	if found, err = c.Rights(t.Context(), nil); err != nil || len(found.Missing) != 1 ||
		found.Missing[0] != "create tokenreviews.authentication.k8s.io in the whole cluster (callers' tokens)" {
		t.Errorf("no reviews: %+v, %v", found, err)
	}
}

// TestReapsAsThePeer holds that what a peer left is done in its name, and of one that is no more nothing.
func TestReapsAsThePeer(t *testing.T) {
	t.Parallel()
	left := func(name, peer string) *corev1.Pod {
		p := madePod(t, neutral.Container{Name: name, Image: "busybox", AutoRemove: true}, 0, exited(0))
		p.Namespace = "default"
		p.Annotations[annotationPeer] = peer
		p.Status.ContainerStatuses[0].State.Terminated.FinishedAt = metav1.NewTime(time.Now().Add(-time.Hour))
		return &p
	}
	f := newIdleCluster(t, left("of-west", "west"), left("of-gone", "gone"), left("of-nobody", ""))
	f.impersonate = true
	if err := f.reapOnce(t.Context(), []string{"west"}); err != nil {
		t.Fatal(err)
	}
	list, err := f.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Errorf("left after the reaper: %d, %v", len(list.Items), err)
	}
	as, ok := f.actingFor(t.Context(), left("later", "west").ObjectMeta, []string{"west"})
	if actor, named := dialect.ActorOf(as); !ok || !named || actor.Peer != "west" {
		t.Errorf("acting as %+v", actor)
	}
	secret := &corev1.Secret{}
	leftBy(as, &secret.ObjectMeta)
	if secret.Annotations[annotationPeer] != "west" {
		t.Errorf("a journal is left by %v", secret.Annotations)
	}
}
