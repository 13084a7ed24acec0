package podspec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes"
)

// TestValidate compares with what a real API server (1.34) said to the same specs of Pods, word for word.
func TestValidate(t *testing.T) {
	t.Parallel()
	client := server(t)
	goldens(t, "validate", func(t *testing.T, in []byte) []txtar.File {
		var spec corev1.PodSpec
		unmarshal(t, in, &spec)
		var causes []string
		if client == nil {
			DefaultPod(&spec)
			for _, err := range Validate(&spec, field.NewPath("spec")) {
				causes = append(causes, fmt.Sprintf("%s: %s: %s", err.Field, string(err.Type), shortened(err.ErrorBody())))
			}
		} else {
			causes = asked(t, client, spec)
		}
		slices.Sort(causes)
		return []txtar.File{{Name: "causes", Data: []byte(strings.Join(append(causes, ""), "\n"))}}
	})
}

// asked is what a server says. Where admission refuses a Pod before anybody looks at it, a template says the same.
func asked(t *testing.T, client kubernetes.Interface, spec corev1.PodSpec) []string {
	t.Helper()
	no := false // or a volume is added
	spec.AutomountServiceAccountToken = &no
	meta, dry := metav1.ObjectMeta{Name: "validated", Namespace: "default"}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	_, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: meta, Spec: spec}, dry)
	if apierrors.IsForbidden(err) {
		_, err = client.CoreV1().PodTemplates("default").Create(t.Context(), &corev1.PodTemplate{ObjectMeta: meta,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: spec}}, dry)
	}
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		t.Fatal(err)
	}
	var causes []string
	for _, cause := range status.Status().Details.Causes {
		causes = append(causes, fmt.Sprintf("%s: %s: %s", strings.TrimPrefix(cause.Field, "template."), cause.Type, shortened(cause.Message)))
	}
	return causes
}

// shortened leaves out a value that is a whole object: servers write their own form of it.
func shortened(message string) string {
	if value, rest, ok := strings.Cut(message, "}: "); ok && strings.HasPrefix(value, "Invalid value: {") {
		return "Invalid value: {...}: " + rest
	}
	return message
}
