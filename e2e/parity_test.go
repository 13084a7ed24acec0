package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/e2e/parity"
)

var update = flag.Bool("update", false, "write down the verdicts and differences that TestParity meets")

const (
	parityScenarios = "testdata/parity"
	parityAccepted  = "testdata/parity/accepted.yaml"
)

// TestParity compares the answers to the same commands: of a real orchestrator, and of a foreign one through Isthmus.
func TestParity(t *testing.T) {
	scripting(t)
	scenarios, err := parity.Scenarios(parityScenarios)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := parity.ReadAccepted(parityAccepted)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		accepted.Forget(scenarios)
	}
	if err := admit(t); err != nil {
		t.Fatal(err)
	}
	var met sync.Mutex
	t.Run("rows", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.Direction+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				defer turn("parity")()
				begun := time.Now()
				defer func() { t.Logf("took %s", time.Since(begun).Round(100*time.Millisecond)) }()
				problems := judged(t, s, accepted, &met)
				if len(problems) > 0 && !*update { // two clusters were asked at different moments: what is so is so again
					t.Logf("played again, because of:\n%s", strings.Join(problems, "\n"))
					problems = judged(t, s, accepted, &met)
				}
				for _, problem := range problems {
					t.Error(problem)
				}
				met.Lock()
				defer met.Unlock()
				if *update { // at once, for a run that is broken off
					if err := accepted.Write(parityAccepted); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
}

// judged plays a scenario on both arms and says what nobody accepted; with -update it notes what there was.
func judged(t *testing.T, s parity.Scenario, accepted parity.Accepted, met *sync.Mutex) (problems []string) {
	t.Helper()
	direct, through, err := compared(t, s)
	if err != nil {
		problems = append(problems, err.Error())
	}
	met.Lock()
	defer met.Unlock()
	for _, step := range s.Rows() {
		a, ok := direct[step.Name]
		b, told := through[step.Name]
		if !ok || !told {
			continue // the scenario ended before, and failed
		}
		verdict, difference := parity.Compare(a, b)
		if *update {
			accepted.Take(s.Row(step), verdict, difference)
			continue
		}
		if err := accepted.Judge(s.Row(step), verdict, difference); err != nil {
			problems = append(problems, fmt.Sprintf("%s:%d: %s: %v", s.Name, step.Line, step.Name, err))
		}
	}
	return problems
}

// admit lets east's callers into the namespaces of the scenarios in west, for the time of the test.
func admit(t *testing.T) error {
	defer turn("parity")()
	west := running.Mesh.Gateway("west")
	if err := west.Write("parity.yaml", parityPolicy); err != nil {
		return err
	}
	t.Cleanup(func() { os.Remove(filepath.Join(west.Config(), "parity.yaml")) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, running.Bed.Tools().Kubectl, "--kubeconfig", running.Mesh.Gateway("east").Kubeconfig("west"),
			"auth", "can-i", "create", "deployments.apps", "-n", "k-any").CombinedOutput()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the policy of the scenarios does not hold: %w: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

const parityPolicy = `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: parity}
spec:
  from: [{peer: east}]
  allow:
  - verbs: ["*"]
    objects: [{namespace: "k-*"}]
  - verbs: ["*"]
    objects: [{kind: namespace, name: "k-*"}]
`

// compared plays a scenario on both arms at once and gives the normal form of each row's answers.
func compared(t *testing.T, s parity.Scenario) (direct, through map[string][]string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	host, err := os.Hostname() // west's node goes by it
	if err != nil {
		return nil, nil, err
	}
	answers := make([]map[string][]string, 2)
	errs := make([]error, 2)
	var wait sync.WaitGroup
	for i, name := range []string{"direct", "through"} {
		wait.Go(func() {
			var arm parity.Arm
			if arm, errs[i] = newArm(t, s, name); errs[i] != nil {
				return
			}
			arm.Slow = func(step parity.Step, took time.Duration) {
				t.Logf("%s:%d: %s %s took %s", s.Name, step.Line, name, step.Name, took.Round(100*time.Millisecond))
			}
			var got map[string]parity.Answer
			got, errs[i] = arm.Play(ctx, s)
			n := parity.NewNormaliser(arm.Dir, "<dir>", running.Bed.Root, "<root>", "east-node", "<node>", host, "<node>")
			answers[i] = map[string][]string{}
			for row, answer := range got {
				answers[i][row] = n.Lines(answer)
			}
		})
	}
	wait.Wait()
	return answers[0], answers[1], errors.Join(errs...)
}

// newArm makes the folder and the environment of an arm.
func newArm(t *testing.T, s parity.Scenario, name string) (parity.Arm, error) {
	tools, east, west := running.Bed.Tools(), running.Mesh.Gateway("east"), running.Mesh.Gateway("west")
	home, dir := t.TempDir(), t.TempDir()
	host, kubeconfig := running.Bed.Docker("west").Host(), running.Bed.Kubernetes("east").HostKubeconfig
	if name == "through" {
		host, kubeconfig = "unix://"+west.Socket("east"), east.Kubeconfig("west")
	}
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return parity.Arm{}, err
	}
	own := filepath.Join(home, "kubeconfig")
	if err := os.WriteFile(own, text, 0o600); err != nil {
		return parity.Arm{}, err
	}
	if s.Direction == "kubectl" {
		if out, err := exec.CommandContext(t.Context(), tools.Kubectl, "--kubeconfig", own, "config", "set-context", "--current",
			"--namespace", s.ID()).CombinedOutput(); err != nil {
			return parity.Arm{}, fmt.Errorf("%w: %s", err, out)
		}
	}
	plugins := filepath.Join(home, ".docker", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return parity.Arm{}, err
	}
	if err := os.Symlink(tools.Compose, filepath.Join(plugins, "docker-compose")); err != nil {
		return parity.Arm{}, err
	}
	arm := parity.Arm{Name: name, Dir: dir}
	for key, value := range map[string]string{
		"PATH":        strings.Join([]string{filepath.Dir(tools.Kubectl), filepath.Dir(tools.Docker), os.Getenv("PATH")}, ":"),
		"HOME":        home,
		"DOCKER_HOST": host,
		"KUBECONFIG":  own,
		"ID":          s.ID(),
		"IMAGE":       demo.Image,
		"TERM":        "dumb",
		"LC_ALL":      "C.UTF-8",
		"TZ":          "UTC",
	} {
		arm.Env = append(arm.Env, key+"="+value)
	}
	return arm, nil
}
