package kubernetes

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Secret is told when it comes, when what it holds differs, and when it goes.
func TestWatchSecret(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan map[string][]byte, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- f.WatchSecret(ctx, "gateway", "tls", func(data map[string][]byte) { seen <- data })
	}()
	next := func(want string) {
		t.Helper()
		select {
		case data := <-seen:
			if got := string(data["tls.crt"]); got != want || (data == nil) != (want == "") {
				t.Fatalf("told %v, want %q", data, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told of %q", want)
		}
	}
	secrets := f.client.CoreV1().Secrets("gateway")
	secret := func(content string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "gateway", Name: "tls"}, Data: map[string][]byte{"tls.crt": []byte(content)}}
	}
	next("")
	if _, err := secrets.Create(ctx, secret("one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	next("one")
	relabelled := secret("one")
	relabelled.Labels = map[string]string{"a": "b"}
	for _, s := range []*corev1.Secret{relabelled, secret("two")} {
		if _, err := secrets.Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	next("two") // and not "one" again
	if err := secrets.Delete(ctx, "tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	next("")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
