package apiserver

import (
	"net/http/httptest"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// served is an API over a fake orchestrator, with a client of its own.
func served(t *testing.T) (*kubernetes.Clientset, *fakeOrchestrator) {
	t.Helper()
	same := func(b []byte) ([]byte, error) { return b, nil }
	fake := newFakeOrchestrator()
	api := New(Config{Cluster: "west", Orchestrator: fake, Seal: same, Unseal: same})
	server := httptest.NewServer(api)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		api.Close()
	})
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1, WarningHandler: rest.NoWarnings{}})
	if err != nil {
		t.Fatal(err)
	}
	return client, fake
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx:1"}}}}}}
}

// TestDeployment makes one, changes it by an old version and by the present one, and watches what comes of it.
func TestDeployment(t *testing.T) {
	client, fake := served(t)
	ctx := t.Context()
	deployments := client.AppsV1().Deployments("default")
	made, err := deployments.Create(ctx, deployment("web", 2), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if made.Status.ReadyReplicas != 2 || made.Generation != 1 || made.UID == "" || made.ResourceVersion == "" {
		t.Errorf("made %+v", made)
	}
	if _, err := deployments.Create(ctx, deployment("web", 2), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("made twice: %v", err)
	}
	watch, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: made.ResourceVersion, LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()

	three := int32(3)
	next := made.DeepCopy()
	next.Spec.Replicas = &three
	changed, err := deployments.Update(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if changed.Generation != 2 || changed.Status.Replicas != 3 || changed.UID != made.UID {
		t.Errorf("changed %+v", changed)
	}
	if _, err := deployments.Update(ctx, next, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("changed by an old version: %v", err)
	}
	for event := range watch.ResultChan() {
		if event.Type != "ADDED" {
			continue
		}
		if pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); err != nil || len(pods.Items) != 3 {
			t.Errorf("pods %v, %v", pods, err)
		}
		break
	}

	same, err := deployments.Patch(ctx, "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"web"}}}`), metav1.PatchOptions{})
	if err != nil || same.ResourceVersion != changed.ResourceVersion {
		t.Errorf("a patch that changes nothing: %v, %v", same, err)
	}
	if dry, err := deployments.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":9}}`), metav1.PatchOptions{DryRun: []string{"All"}}); err != nil ||
		*dry.Spec.Replicas != 9 || fake.workloads[0].Replicas != 3 {
		t.Errorf("a dry run: %v, %v", dry, err)
	}
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := deployments.Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}
