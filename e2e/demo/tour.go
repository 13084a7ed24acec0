package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// step is one command of the tour and what must be seen.
type step struct {
	say  string
	run  []string // the first word is a program, or one of the tour's own: isthmus-west, isthmus-east
	want string   // in the output; "" for anything
	code int      // exit status
	// patience is how long the step may be repeated until it is as wanted.
	patience time.Duration
}

// Tour shows the mission's story: west has a service and nowhere to run it, so it runs it in east, uses it from west,
// reaches into one of its containers, and ends it. It fails with the first step that does not go as told.
func (d *Demo) Tour(ctx context.Context, w io.Writer) error {
	begin := time.Now()
	teller := &teller{demo: d, w: w}
	for _, name := range []string{"west", "east"} {
		teller.follow(name)
	}
	chapters := []struct {
		title string
		steps []step
	}{
		{"Two clusters that know nothing of each other", []step{
			{say: "The docker client in west talks to west's gateway. What answers is a Kubernetes cluster.",
				run: []string{"docker", "version", "--format", "server {{.Server.Version}}, API {{.Server.APIVersion}}"}},
			{say: "The gateways have shaken hands, so west's knows what east is.", run: []string{"isthmus-west", "peers"}, want: "kubernetes"},
		}},
		{"Container operation: west creates its service in east", []step{
			{say: "An ordinary docker service, exported to peers. East makes a Deployment and a Service of it.",
				run: []string{"docker", "service", "create", "--detach", "--quiet", "--name", "shop", "--replicas", "2", "--label", "isthmus.io/export=true",
					"--publish", "8080:8080", Image, "sh", "-c",
					"mkdir -p /www; echo shop, served by $HOSTNAME > /www/index.html; exec httpd -f -p 8080 -h /www"}},
			{say: "Docker sees it run.", run: []string{"docker", "service", "ls"}, want: "2/2", patience: time.Minute},
			{say: "Kubernetes, asked behind Isthmus' back, sees it too.",
				run: []string{"kubectl", "get", "deployment,service", "shop", "--no-headers"}, want: "2/2"},
			{say: "A container beside it: docker run is a Pod.",
				run: []string{"docker", "run", "-d", "--name", "ledger", "--expose", "7070", Image, "sh", "-c", "while true; do echo balance 42 | nc -l -p 7070; done"}},
			{say: "Work inside it.", run: []string{"docker", "exec", "ledger", "sh", "-c", "echo 43 > /tmp/balance && cat /tmp/balance"}, want: "43"},
			{say: "Exit codes are true.", run: []string{"docker", "run", "--rm", Image, "sh", "-c", "exit 3"}, code: 3},
		}},
		{"Service query: west uses the service by its name", []step{
			{say: "It entered east's catalogue with its containers.", run: []string{"isthmus-east", "catalogue"}, want: "shop.default", patience: 20 * time.Second},
			{say: "No address of east is known here. Envoy alone decides this one.",
				run:  []string{"curl", "-sS", "--max-time", "10", "-H", "Host: shop.default.svc.east.isthmus.internal", "http://" + d.Mesh.Gateway("west").Edge + "/"},
				want: "shop, served by", patience: 20 * time.Second},
			{say: "What is not exported stays unknown.",
				run:  []string{"curl", "-sS", "--max-time", "10", "-H", "Host: kubernetes.default.svc.east.isthmus.internal", "http://" + d.Mesh.Gateway("west").Edge + "/"},
				want: "not in the catalogue"},
		}},
		{"Container access: west reaches into one container", []step{
			{say: "A port of west's gateway leads to a port of that container, over the peer link.",
				run: []string{"isthmus-west", "access", "east/default/ledger:7070", "--local", "17070"}, want: "leads to"},
			{say: "Raw TCP, in west.", run: []string{"west", "busybox", "nc", "127.0.0.1", "17070"}, want: "balance 42", patience: 20 * time.Second},
			{say: "It is closed again.", run: []string{"isthmus-west", "access", "close", "17070"}},
		}},
		{"No permission, no passage", []step{
			{say: "West may run containers in east; east's nodes are not for west to touch.",
				run: []string{"docker", "node", "update", "--availability", "drain", "east-node"}, want: "no permission", code: 1},
		}},
		{"West ends it", []step{
			{say: "Stop and destroy.", run: []string{"docker", "rm", "-f", "ledger"}},
			{run: []string{"docker", "service", "rm", "shop"}},
			{say: "With its containers the service left the catalogue.",
				run:  []string{"curl", "-sS", "--max-time", "10", "-H", "Host: shop.default.svc.east.isthmus.internal", "http://" + d.Mesh.Gateway("west").Edge + "/"},
				want: "not in the catalogue", patience: 20 * time.Second},
		}},
	}
	for _, c := range chapters {
		fmt.Fprintf(w, "\n== %s ==\n", c.title)
		for _, s := range c.steps {
			if err := teller.tell(ctx, s); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(w, "\nThe tour took %s.\n", time.Since(begin).Round(time.Second))
	return nil
}

// teller runs steps and shows what the gateways did with each.
type teller struct {
	demo *Demo
	w    io.Writer
	logs []*follower
}

func (t *teller) follow(gateway string) {
	state := filepath.Join(t.demo.Mesh.Gateway(gateway).Dir, "state")
	t.logs = append(t.logs, &follower{gateway: gateway, path: filepath.Join(state, "audit.log"), tell: auditLine},
		&follower{gateway: gateway, path: filepath.Join(state, "access.log"), tell: accessLine})
	for _, f := range t.logs[len(t.logs)-2:] {
		f.lines() // what was before the tour is not of it
	}
}

func (t *teller) tell(ctx context.Context, s step) error {
	if s.say != "" {
		fmt.Fprintf(t.w, "\n# %s\n", s.say)
	}
	fmt.Fprintf(t.w, "$ %s\n", shown(s.run))
	deadline := time.Now().Add(s.patience)
	for {
		for _, f := range t.logs {
			f.lines()
		}
		begin := time.Now()
		output, code, err := t.demo.execute(ctx, s.run)
		took := time.Since(begin)
		if err != nil {
			return err
		}
		if code == s.code && strings.Contains(output, s.want) {
			if text := strings.TrimRight(output, "\n"); text != "" {
				fmt.Fprintln(t.w, text)
			}
			if code != 0 {
				fmt.Fprintf(t.w, "(exit status %d)\n", code)
			}
			t.gateways(took)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: exit status %d, want %d with %q in the output:\n%s", shown(s.run), code, s.code, s.want, output)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// logDelay is how long Envoy may keep a line of its access log, and a little more.
const logDelay = 350 * time.Millisecond

// gateways shows what the gateways wrote of a step.
func (t *teller) gateways(took time.Duration) {
	time.Sleep(logDelay)
	for _, f := range t.logs {
		for _, line := range f.lines() {
			if told := f.tell(line); told != "" {
				fmt.Fprintf(t.w, "    %s: %s\n", f.gateway, told)
			}
		}
	}
	fmt.Fprintf(t.w, "    %s\n", took.Round(time.Millisecond))
}

// execute runs one command of the tour on this machine or in west.
func (d *Demo) execute(ctx context.Context, argv []string) (output string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	program, arguments := argv[0], argv[1:]
	environment := os.Environ()
	switch {
	case program == "docker":
		program = d.Bed.Tools().Docker
		environment = append(environment, "DOCKER_HOST=unix://"+d.Mesh.Gateway("west").Socket("east"))
	case program == "kubectl":
		program = d.Bed.Tools().Kubectl
		environment = append(environment, "KUBECONFIG="+d.Bed.Kubernetes("east").HostKubeconfig)
	case strings.HasPrefix(program, "isthmus-"):
		gateway := d.Mesh.Gateway(strings.TrimPrefix(program, "isthmus-"))
		out, err := gateway.CLI(ctx, arguments...)
		if err != nil {
			return err.Error(), 1, nil
		}
		return out, 0, nil
	case program == "west":
		out, err := d.Bed.Cluster("west").Exec(ctx, arguments...)
		if err != nil {
			return out + err.Error(), 1, nil
		}
		return out, 0, nil
	}
	command := exec.CommandContext(ctx, program, arguments...)
	command.Env = environment
	var buffer bytes.Buffer
	command.Stdout, command.Stderr = &buffer, &buffer
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return buffer.String(), exit.ExitCode(), nil
	}
	return buffer.String(), 0, err
}

// shown is a command as one would type it.
func shown(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = a
		if strings.ContainsAny(a, " ;$>|{}*\"") {
			words[i] = "'" + a + "'"
		}
	}
	return strings.Join(words, " ")
}
