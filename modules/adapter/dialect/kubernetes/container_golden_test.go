package kubernetes

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// goldenNow is the clock of the goldens.
var goldenNow = time.Date(2026, 11, 24, 10, 5, 0, 0, time.UTC)

// goldenCase is one archive: its inputs, and what is made of them.
type goldenCase struct {
	t      *testing.T
	inputs map[string][]byte
	out    []txtar.File
}

// goldens runs every archive of a folder. The files named inputs are kept; with -update the rest is written anew.
func goldens(t *testing.T, folder string, inputs []string, run func(*goldenCase)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens in %s: %v", folder, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := &goldenCase{t: t, inputs: map[string][]byte{}}
			made := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				for _, name := range inputs {
					if f.Name == name {
						c.inputs[name] = f.Data
						made.Files = append(made.Files, f)
					}
				}
			}
			run(c)
			made.Files = append(made.Files, c.out...)
			got := txtar.Format(made)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := txtar.Format(archive); !bytes.Equal(got, want) {
				t.Errorf("%s differs (rewrite with -update):\n%s", file, got)
			}
		})
	}
}

// read unmarshals an input, JSON or YAML.
func (c *goldenCase) read(name string, into any) {
	c.t.Helper()
	if err := yaml.UnmarshalStrict(c.inputs[name], into); err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
}

func (c *goldenCase) text(name, text string) {
	c.out = append(c.out, txtar.File{Name: name, Data: []byte(strings.TrimRight(text, "\n") + "\n")})
}

// json writes a value without what is zero in it.
func (c *goldenCase) json(name string, value any) {
	c.t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		c.t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		c.t.Fatal(err)
	}
	raw, err = json.MarshalIndent(prune(tree), "", "  ")
	if err != nil {
		c.t.Fatal(err)
	}
	c.text(name, string(raw))
}

func (c *goldenCase) yaml(name string, value any) {
	c.t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		c.t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		c.t.Fatal(err)
	}
	raw, err = yaml.Marshal(prune(tree))
	if err != nil {
		c.t.Fatal(err)
	}
	c.text(name, string(raw))
}

func (c *goldenCase) losses(losses []neutral.Loss) {
	if len(losses) == 0 {
		return
	}
	var lines []string
	for _, loss := range losses {
		lines = append(lines, loss.String())
	}
	c.text("losses", strings.Join(lines, "\n"))
}

// prune drops zero values from a tree; false stays, for Kubernetes' pointers to it say something.
func prune(tree any) any {
	switch v := tree.(type) {
	case map[string]any:
		for key, value := range v {
			kept := prune(value)
			switch kept := kept.(type) {
			case nil:
				delete(v, key)
				continue
			case string:
				if kept == "" || strings.HasPrefix(kept, "0001-01-01T") {
					delete(v, key)
					continue
				}
			case float64:
				if kept == 0 {
					delete(v, key)
					continue
				}
			case map[string]any:
				if len(kept) == 0 {
					delete(v, key)
					continue
				}
			case []any:
				if len(kept) == 0 {
					delete(v, key)
					continue
				}
			}
			v[key] = kept
		}
		return v
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		return v
	}
	return tree
}

// TestPodFromContainer writes containers as Pods, or refuses them with a reason, and reads back what it wrote.
func TestPodFromContainer(t *testing.T) {
	t.Parallel()
	goldens(t, "container", []string{"in.json"}, func(c *goldenCase) {
		var in neutral.Container
		c.read("in.json", &in)
		pod, losses, err := podFromContainer(&in, "team", "0123456789abcdef")
		if err != nil {
			c.text("error", err.Error())
			return
		}
		c.yaml("pod.yaml", pod)
		c.losses(losses)
		c.json("back.json", containerFromPod("east", pod, 0, goldenNow))
	})
}

// TestContainersFromPod reads Pods of every state and make.
func TestContainersFromPod(t *testing.T) {
	t.Parallel()
	goldens(t, "pod", []string{"pod.yaml"}, func(c *goldenCase) {
		var pod corev1.Pod
		c.read("pod.yaml", &pod)
		c.json("containers.json", containersFromPods("east", []corev1.Pod{pod}, goldenNow))
	})
}

// TestWorkloadToNative writes workloads as what their mode stands for, with their Service, and reads back what it wrote.
func TestWorkloadToNative(t *testing.T) {
	t.Parallel()
	goldens(t, "workload", []string{"in.json"}, func(c *goldenCase) {
		var in neutral.Workload
		c.read("in.json", &in)
		var native *nativeWorkload
		var built *builtWorkload
		var object any
		var err error
		switch in.Mode {
		case neutral.ModeGlobal:
			var d *appsv1.DaemonSet
			if d, built, err = daemonSetFromWorkload(&in, "team"); err == nil {
				object, native = d, workloadFromDaemonSet(d)
			}
		case neutral.ModeJob:
			j, b, jobErr := jobFromWorkload(&in, "team")
			if built, err = b, jobErr; err == nil {
				object, native = j, workloadFromJob(j)
			}
		default:
			var d *appsv1.Deployment
			if d, built, err = deploymentFromWorkload(&in, "team"); err == nil {
				object, native = d, workloadFromDeployment(d)
			}
		}
		if err != nil {
			c.text("error", err.Error())
			return
		}
		c.yaml("workload.yaml", object)
		losses := built.losses
		if len(built.ports) > 0 {
			service, more := serviceFromPorts(*native.meta, built.selector().MatchLabels, built.ports)
			c.yaml("service.yaml", service)
			losses = append(losses, more...)
		}
		c.losses(losses)
		c.json("back.json", workloadFromNative("east", native))
	})
}

// TestChangeWorkload applies a caller's changes to a Deployment that says more than the caller knows.
func TestChangeWorkload(t *testing.T) {
	t.Parallel()
	goldens(t, "update", []string{"live.yaml", "change.json"}, func(c *goldenCase) {
		var live appsv1.Deployment
		c.read("live.yaml", &live)
		before := live.DeepCopy()
		native := workloadFromDeployment(&live)
		was := workloadFromNative("east", native)
		// The caller sends back what it read with its change in it.
		is := workloadFromNative("east", workloadFromDeployment(before.DeepCopy()))
		if err := json.Unmarshal(c.inputs["change.json"], &is); err != nil {
			c.t.Fatal(err)
		}
		losses, err := changeWorkload(native, &was, &is)
		if err != nil {
			c.text("error", err.Error())
			return
		}
		c.text("diff", lineDiff(c.t, before, &live))
		c.losses(losses)
	})
}

// lineDiff gives the lines of YAML that two objects do not share.
func lineDiff(t *testing.T, before, after any) string {
	t.Helper()
	lines := func(object any) []string {
		raw, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	}
	a, b := lines(before), lines(after)
	// The longest common subsequence, which documents of a few hundred lines allow.
	length := make([][]int, len(a)+1)
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || length[i+1][j] >= length[i][j+1]):
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	if len(out) == 0 {
		return "unchanged"
	}
	return strings.Join(out, "\n")
}
