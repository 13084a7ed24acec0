package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestUpdateOfUnlimited is what Kubernetes cannot do: what its Pod's class follows from is fixed when it is created.
func TestUpdateOfUnlimited(t *testing.T) {
	t.Parallel()
	pod := newPod("web", "10.0.0.5")
	pod.Namespace, pod.Status.QOSClass = "default", corev1.PodQOSBestEffort
	f := newIdleCluster(t, pod)
	_, err := f.run(t, neutral.Operation{Action: neutral.ContainerUpdate, Ref: "web",
		Container: &neutral.Container{Resources: neutral.Resources{Memory: 64 << 20}}})
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "it was made without limits of CPU and memory") {
		t.Errorf("%v", err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.ContainerUpdate, Ref: "web", Container: &neutral.Container{}}); err != nil {
		t.Errorf("an update of nothing: %v", err)
	}
}

func TestResized(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	now := corev1.ResourceRequirements{Limits: list("1", "64Mi"), Requests: list("1", "32Mi")}
	now.Limits[corev1.ResourceEphemeralStorage] = resource.MustParse("1Gi")
	for name, c := range map[string]struct {
		wanted           neutral.Resources
		changed          bool
		limits, requests corev1.ResourceList
	}{
		"nothing":        {neutral.Resources{}, false, list("1", "64Mi"), list("1", "32Mi")},
		"the same":       {neutral.Resources{MilliCPU: 1000, Memory: 64 << 20}, false, list("1", "64Mi"), list("1", "32Mi")},
		"equal pair":     {neutral.Resources{MilliCPU: 2000}, true, list("2", "64Mi"), list("2", "32Mi")},
		"unequal pair":   {neutral.Resources{Memory: 128 << 20}, true, list("1", "128Mi"), list("1", "32Mi")},
		"reservation":    {neutral.Resources{MemoryReserved: 16 << 20}, true, list("1", "64Mi"), list("1", "16Mi")},
		"both of a pair": {neutral.Resources{MilliCPU: 2000, MilliCPUReserved: 500}, true, list("2", "64Mi"), list("500m", "32Mi")},
	} {
		got, changed := resized(now, c.wanted)
		if changed != c.changed {
			t.Errorf("%s: changed %v", name, changed)
		}
		for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := got.Limits[resource], got.Requests[resource]
			if limit.Cmp(c.limits[resource]) != 0 || request.Cmp(c.requests[resource]) != 0 {
				t.Errorf("%s: %s is limited to %s and reserved %s", name, resource, &limit, &request)
			}
		}
		if _, ok := got.Limits[corev1.ResourceEphemeralStorage]; !ok {
			t.Errorf("%s: what docker cannot name is gone", name)
		}
	}
	if now.Limits.Cpu().Value() != 1 {
		t.Error("the former resources were changed")
	}

	// A Pod that reserves and has no limit of it goes on in its class.
	now = corev1.ResourceRequirements{Limits: list("", "64Mi"), Requests: list("", "64Mi")}
	got, _ := resized(now, neutral.Resources{MilliCPU: 500})
	if limit, request := got.Limits[corev1.ResourceCPU], got.Requests[corev1.ResourceCPU]; limit.String() != "500m" || request.String() != "1m" {
		t.Errorf("a first limit of the processor: %s, reserved %s", &limit, &request)
	}
}
