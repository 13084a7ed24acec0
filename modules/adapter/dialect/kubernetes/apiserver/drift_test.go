package apiserver

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// mightier are changes that somebody makes to what runs, by the orchestrator's own client, and how the API tells them.
var mightier = map[string]struct {
	change func(*neutral.Container)
	told   func(*corev1.PodSpec) bool
}{
	"privileged": {func(c *neutral.Container) { c.Security.Privileged = true }, func(s *corev1.PodSpec) bool {
		p := securityOf(s).Privileged
		return p != nil && *p
	}},
	"a capability": {func(c *neutral.Container) { c.Security.CapAdd = []string{"CAP_SYS_ADMIN"} }, func(s *corev1.PodSpec) bool {
		caps := securityOf(s).Capabilities
		return caps != nil && slices.Contains(caps.Add, "SYS_ADMIN")
	}},
	"a path of the host": {func(c *neutral.Container) {
		c.Mounts = append(c.Mounts, neutral.Mount{Type: "bind", Source: "/etc", Target: "/host"})
	}, func(s *corev1.PodSpec) bool {
		return slices.ContainsFunc(s.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == "/etc" })
	}},
	"the host's network":   {func(c *neutral.Container) { c.Network = neutral.NetworkHost }, func(s *corev1.PodSpec) bool { return s.HostNetwork }},
	"the host's processes": {func(c *neutral.Container) { c.Security.PIDMode = "host" }, func(s *corev1.PodSpec) bool { return s.HostPID }},
	"a device": {func(c *neutral.Container) { c.Security.Devices = []string{"/dev/sda"} }, func(s *corev1.PodSpec) bool {
		_, ok := s.Containers[0].Resources.Limits["devices.isthmus.io/dev-sda"]
		return ok
	}},
	"another user": {func(c *neutral.Container) { c.User = "0" }, func(s *corev1.PodSpec) bool {
		user := securityOf(s).RunAsUser
		return user != nil && *user == 0
	}},
	"no filter of system calls": {func(c *neutral.Container) { c.Security.Seccomp = neutral.ProfileUnconfined }, func(s *corev1.PodSpec) bool {
		profile := securityOf(s).SeccompProfile
		return profile != nil && profile.Type == corev1.SeccompProfileTypeUnconfined
	}},
}

func securityOf(s *corev1.PodSpec) *corev1.SecurityContext {
	if context := s.Containers[0].SecurityContext; context != nil {
		return context
	}
	return &corev1.SecurityContext{}
}

// TestDrift tells of a container what runs, whatever its document says: policy judges by it.
func TestDrift(t *testing.T) {
	t.Parallel()
	user := int64(1000)
	spec := corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "busybox", SecurityContext: &corev1.SecurityContext{RunAsUser: &user},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}}}}
	for name, c := range mightier {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stands(t)
			pods := s.CoreV1().Pods("default")
			must(pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "alone"}, Spec: spec}, metav1.CreateOptions{}))(t)
			d := deployment("web", 1)
			d.Spec.Template.Spec = *spec.DeepCopy()
			must(s.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{}))(t)
			shown := func(want bool) {
				t.Helper()
				list := must(pods.List(t.Context(), metav1.ListOptions{}))(t)
				if len(list.Items) != 2 {
					t.Fatalf("%d Pods", len(list.Items))
				}
				for _, p := range list.Items {
					if c.told(&p.Spec) != want || p.Spec.Containers[0].Name != "web" {
						t.Errorf("Pod %s: %+v", p.Name, p.Spec)
					}
				}
				now := must(s.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{}))(t)
				if c.told(&now.Spec.Template.Spec) != want || now.Spec.Template.Labels["app"] != "web" {
					t.Errorf("Deployment: %+v", now.Spec.Template)
				}
			}
			shown(false)
			s.fake.mu.Lock()
			c.change(&s.fake.containers[0])
			c.change(&s.fake.tasks[0].Container)
			c.change(&s.fake.workloads[0].Template)
			s.fake.mu.Unlock()
			shown(true)
		})
	}
}
