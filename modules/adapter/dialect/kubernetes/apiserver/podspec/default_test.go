package podspec

import (
	"bytes"
	"flag"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

var kubeconfig = flag.String("kubeconfig", "", "with -update, goldens of what an API server says are asked of this one")

// server is a client of the API server that goldens are asked of; nil where they are only compared.
func server(t *testing.T) kubernetes.Interface {
	t.Helper()
	if *kubeconfig == "" {
		return nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestDefault compares with what a real API server (1.34) made of the same specs, in a template and in a Pod. Admission
// adds to a Pod what is taken off again here: an account with its token, tolerations, and a priority.
func TestDefault(t *testing.T) {
	t.Parallel()
	client := server(t)
	goldens(t, "default", func(t *testing.T, in []byte) []txtar.File {
		template, pod := corev1.PodSpec{}, corev1.PodSpec{}
		unmarshal(t, in, &template)
		unmarshal(t, in, &pod)
		if client == nil {
			Default(&template)
			DefaultPod(&pod)
			return []txtar.File{{Name: "template.yaml", Data: yamlOf(t, template)}, {Name: "pod.yaml", Data: yamlOf(t, pod)}}
		}
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		meta := metav1.ObjectMeta{Name: "defaults", Namespace: "default", Labels: map[string]string{"a": "b"}}
		madeTemplate, err := client.CoreV1().PodTemplates("default").Create(t.Context(), &corev1.PodTemplate{ObjectMeta: meta,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: template}}, dry)
		if err != nil {
			t.Fatal(err)
		}
		admitted := pod.DeepCopy()
		if admitted.AutomountServiceAccountToken == nil {
			no := false // or a volume is added
			admitted.AutomountServiceAccountToken = &no
		}
		madePod, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: meta, Spec: *admitted}, dry)
		if err != nil {
			t.Fatal(err)
		}
		got := &madePod.Spec
		got.AutomountServiceAccountToken = pod.AutomountServiceAccountToken
		got.Tolerations, got.Priority, got.PreemptionPolicy = pod.Tolerations, pod.Priority, pod.PreemptionPolicy
		if pod.ServiceAccountName == "" && pod.DeprecatedServiceAccount == "" {
			got.ServiceAccountName, got.DeprecatedServiceAccount = "", ""
		}
		return []txtar.File{{Name: "template.yaml", Data: yamlOf(t, madeTemplate.Template.Spec)}, {Name: "pod.yaml", Data: yamlOf(t, *got)}}
	})
}

// TestDefaultTwice holds that defaults stay as they are.
func TestDefaultTwice(t *testing.T) {
	t.Parallel()
	goldens(t, "default", func(t *testing.T, in []byte) []txtar.File {
		var once, twice corev1.PodSpec
		unmarshal(t, in, &once)
		DefaultPod(&once)
		once.DeepCopyInto(&twice)
		DefaultPod(&twice)
		if !bytes.Equal(yamlOf(t, once), yamlOf(t, twice)) {
			t.Error("defaults have defaults")
		}
		Default(&once)
		var template corev1.PodSpec
		unmarshal(t, in, &template)
		Default(&template)
		return []txtar.File{{Name: "template.yaml", Data: yamlOf(t, template)}, {Name: "pod.yaml", Data: yamlOf(t, once)}}
	})
}

func yamlOf(t *testing.T, v any) []byte {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
