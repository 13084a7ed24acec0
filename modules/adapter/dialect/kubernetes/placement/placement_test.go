package placement

import "testing"

func TestNames(t *testing.T) {
	t.Parallel()
	for label, name := range map[string]string{"kubernetes.io/hostname": "node.hostname", "kubernetes.io/os": "node.platform.os",
		"kubernetes.io/arch": "node.platform.arch", "disk": "node.labels.disk"} {
		if got := Name(label); got != name {
			t.Errorf("%s is %s, want %s", label, got, name)
		}
		if got, ok := Label(name); !ok || got != label {
			t.Errorf("%s is %s, %v, want %s", name, got, ok, label)
		}
	}
	if label, ok := Label("engine.labels.disk"); ok {
		t.Errorf("a label of engines is %s", label)
	}
	for machine, architecture := range map[string]string{"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"} {
		if Architecture(machine) != architecture || Machine(architecture) != machine {
			t.Errorf("%s, %s", Architecture(machine), Machine(architecture))
		}
	}
}
