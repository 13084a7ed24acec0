package outage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// target is a database that is accessed in another network mode than it has.
type target struct {
	kind     string // as its orchestrator calls it
	name     string
	from, to string // to is what the access asks for; "" where it asks for none
	flag     string
	port     int
	make     func(ctx context.Context, s *site) error
	// place is what an access names, behind the cluster.
	place func(ctx context.Context, s *site) (string, error)
	// described is all that its orchestrator tells of it that a switch must give back, and of what is beside it.
	described func(ctx context.Context, s *site) (string, error)
	// query asks the database from within its container.
	query func(ctx context.Context, s *site, sql string) (string, error)
	// restart is the orchestrator's own way to have it started again, and restarts what that is called.
	restart  func(ctx context.Context, s *site) error
	restarts string
}

func (t target) title() string {
	to := t.to
	if to == "" {
		to = "reached"
	}
	return fmt.Sprintf("%s, %s to %s", t.kind, t.from, to)
}

// write writes a row by psql, from the caller's cluster.
func (t target) write(ctx context.Context, s *site, id string) error {
	if err := t.open(ctx, s); err != nil {
		return err
	}
	err := t.psql(ctx, s, "INSERT INTO written VALUES ("+id+")")
	if closed := t.close(ctx, s); err == nil {
		err = closed
	}
	return err
}

// open opens a port of the caller's cluster that leads to the target; what connects to it has the target switched.
func (t target) open(ctx context.Context, s *site) error {
	place, err := t.place(ctx, s)
	if err != nil {
		return err
	}
	local := strconv.Itoa(t.port)
	arguments := []string{"access", s.name + "/" + place + ":" + local, "--local", local}
	if t.to != "" {
		arguments = append(arguments, "--network-mode", t.to)
	}
	if t.flag != "" {
		arguments = append(arguments, t.flag)
	}
	_, err = s.caller.CLI(ctx, arguments...)
	return err
}

// psql runs a command at the port that open opened.
func (t target) psql(ctx context.Context, s *site, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.caller.Cluster.Exec(ctx, s.bed.Tools().Psql, "-h", "127.0.0.1", "-p", strconv.Itoa(t.port), "-U", "postgres", "-c", sql)
	return err
}

func (t target) close(ctx context.Context, s *site) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, err := s.caller.CLI(ctx, "access", "close", strconv.Itoa(t.port))
	return err
}

func targetsOf(cluster string) []target {
	if cluster == "west" {
		return []target{dockerContainer("joined", "none", "", "", 26001, plainly(26001)), dockerContainer("anew", "bridge", "host", "--discard", 26002, plainly(26002)),
			swarmService("swarmed", 26003, plainly(26003))}
	}
	return []target{kubernetesObject("StatefulSet", "statefulset", 26011, "", plainly(26011)), kubernetesObject("Deployment", "deployment", 26012, "", plainly(26012)),
		kubernetesObject("DaemonSet", "daemonset", 26013, "", plainly(26013)), kubernetesObject("Pod", "pod", 26014, "--discard", plainly(26014))}
}

// program is what runs a database.
type program struct {
	image      string
	entrypoint []string // in the place of the image's
	arguments  []string
	health     string // a command; "" for none
}

func plainly(port int) program {
	return program{image: testbed.PostgresImage, arguments: []string{"-p", strconv.Itoa(port)}}
}

// docker is what an engine's commands take for it, at their end.
func (p program) docker() []string {
	var all []string
	if p.health != "" {
		all = append(all, "--health-cmd", p.health, "--health-interval", "500ms", "--health-retries", "16")
	}
	if len(p.entrypoint) > 0 {
		return slices.Concat(all, []string{"--entrypoint", p.entrypoint[0], p.image}, p.entrypoint[1:], p.arguments)
	}
	return slices.Concat(all, []string{p.image}, p.arguments)
}

// dockerPassing is what an engine tells of a container that has been started again.
var dockerPassing = []string{"StartedAt", "FinishedAt", "Pid", "SandboxID", "SandboxKey", "EndpointID", "IPAddress", "MacAddress", "IPAMConfig", "Aliases", "DriverOpts",
	"Log", "ExecIDs"} // these two of its health check

// beside is what an engine has beside a target, by name.
func (s *site) beside(ctx context.Context) (string, error) {
	containers, err := s.docker(ctx, "ps", "--all", "--filter", "name=isthmus", "--format", "{{.Names}} {{.State}}")
	if err != nil {
		return "", err
	}
	networks, err := s.docker(ctx, "network", "ls", "--filter", "name=isthmus", "--format", "{{.Name}}")
	return containers + networks, err
}

func dockerContainer(name, from, to, flag string, port int, runs program) target {
	return target{kind: "container", name: name, from: from, to: to, flag: flag, port: port,
		make: func(ctx context.Context, s *site) error {
			network := from
			if from == "bridge" { // the id of the default one changes with each start of the engine
				network = name
				if _, err := s.docker(ctx, "network", "create", network); err != nil {
					return err
				}
			}
			_, err := s.docker(ctx, append([]string{"run", "-d", "--name", name, "--network", network, "--restart", "always", "--label", "com.docker.compose.project=outage",
				"-v", name + ":/var/lib/postgresql/data"}, runs.docker()...)...)
			return err
		},
		place: func(context.Context, *site) (string, error) { return "outage/" + name, nil },
		described: func(ctx context.Context, s *site) (string, error) {
			raw, err := s.docker(ctx, "inspect", name)
			if err != nil {
				return "", err
			}
			if strings.Contains(raw, `"Status": "starting"`) {
				return "", errors.New("its health is not known yet")
			}
			beside, err := s.beside(ctx)
			if err != nil {
				return "", err
			}
			told, err := object(raw, dockerPassing...)
			return told + beside, err
		},
		query: func(ctx context.Context, s *site, sql string) (string, error) {
			return s.docker(ctx, "exec", name, "psql", "-p", strconv.Itoa(port), "-U", "postgres", "-tAc", sql)
		},
		restarts: "docker restart",
		restart: func(ctx context.Context, s *site) error {
			_, err := s.docker(ctx, "restart", name)
			return err
		},
	}
}

func swarmService(name string, port int, runs program) target {
	container := func(ctx context.Context, s *site) (string, error) {
		said, err := s.docker(ctx, "ps", "--filter", "label=com.docker.swarm.service.name="+name, "--format", "{{.Names}}")
		if err != nil {
			return "", err
		}
		if names := strings.Fields(said); len(names) == 1 {
			return names[0], nil
		}
		return "", fmt.Errorf("containers %q", said)
	}
	return target{kind: "service", name: name, from: "overlay", to: "host", flag: "--discard", port: port,
		make: func(ctx context.Context, s *site) error {
			if _, err := s.docker(ctx, "network", "create", "--driver", "overlay", name); err != nil {
				return err
			}
			_, err := s.docker(ctx, append([]string{"service", "create", "--detach", "--name", name, "--network", name,
				"--mount", "type=volume,source=" + name + ",target=/var/lib/postgresql/data"}, runs.docker()...)...)
			return err
		},
		place: func(ctx context.Context, s *site) (string, error) {
			found, err := container(ctx, s)
			return "default/" + found, err
		},
		described: func(ctx context.Context, s *site) (string, error) {
			raw, err := s.docker(ctx, "service", "inspect", "--format", "{{json .Spec}}", name)
			if err != nil {
				return "", err
			}
			if _, err := container(ctx, s); err != nil {
				return "", err
			}
			beside, err := s.beside(ctx)
			return raw + beside, err
		},
		query: func(ctx context.Context, s *site, sql string) (string, error) {
			found, err := container(ctx, s)
			if err != nil {
				return "", err
			}
			return s.docker(ctx, "exec", found, "psql", "-p", strconv.Itoa(port), "-U", "postgres", "-tAc", sql)
		},
		restarts: "docker service update --force",
		restart: func(ctx context.Context, s *site) error {
			_, err := s.docker(ctx, "service", "update", "--force", name)
			return err
		},
	}
}

// kubernetesPassing is what the API tells of an object that was changed and changed back.
var kubernetesPassing = []string{"resourceVersion", "generation", "uid", "creationTimestamp", "managedFields", "status", "deployment.kubernetes.io/revision",
	"deprecated.daemonset.template.generation"}

func kubernetesObject(kind, name string, port int, flag string, runs program) target {
	pod := func(ctx context.Context, s *site) (string, error) {
		said, err := s.kubectl(ctx, "get", "pods", "-l", "app="+name, "-o", "go-template={{range .items}}{{.metadata.name}}{{if .spec.hostNetwork}}/host{{end}}{{if .metadata.deletionTimestamp}}/going{{end}} {{end}}")
		if err != nil {
			return "", err
		}
		if names := strings.Fields(said); len(names) == 1 && !strings.Contains(names[0], "/") {
			return names[0], nil
		}
		return "", fmt.Errorf("pods %q", said)
	}
	restarts, restart := "kubectl rollout restart", func(ctx context.Context, s *site) error {
		_, err := s.kubectl(ctx, "rollout", "restart", kind+"/"+name)
		if err == nil {
			_, err = s.kubectl(ctx, "rollout", "status", kind+"/"+name)
		}
		return err
	}
	if kind == "Pod" {
		restarts, restart = "kubectl replace --force", func(ctx context.Context, s *site) error {
			raw, err := s.kubectl(ctx, "get", kind, name, "-o", "json")
			if err == nil {
				err = s.bed.Kubernetes(s.name).Replace(ctx, raw)
			}
			return err
		}
	}
	return target{kind: kind, name: name, from: "pod", to: "host", flag: flag, port: port, restarts: restarts, restart: restart,
		make: func(ctx context.Context, s *site) error {
			return s.bed.Kubernetes(s.name).Apply(ctx, manifest(kind, name, port, runs))
		},
		place: func(ctx context.Context, s *site) (string, error) {
			found, err := pod(ctx, s)
			return "default/" + found, err
		},
		described: func(ctx context.Context, s *site) (string, error) {
			raw, err := s.kubectl(ctx, "get", kind, name, "-o", "json")
			if err != nil {
				return "", err
			}
			if _, err := pod(ctx, s); err != nil {
				return "", err
			}
			return object(raw, kubernetesPassing...)
		},
		query: func(ctx context.Context, s *site, sql string) (string, error) {
			found, err := pod(ctx, s)
			if err != nil {
				return "", err
			}
			return s.kubectl(ctx, "exec", found, "--", "psql", "-p", strconv.Itoa(port), "-U", "postgres", "-tAc", sql)
		},
	}
}

// manifest is a database of a kind, with its files in a claim.
func manifest(kind, name string, port int, runs program) string {
	command, _ := json.Marshal(runs.entrypoint) // null is the image's own
	arguments, _ := json.Marshal(runs.arguments)
	spec := fmt.Sprintf(`{containers: [{name: postgres, image: %q, imagePullPolicy: Never, command: %[4]s, args: %[5]s, ports: [{containerPort: %[2]d}],
      volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}],
      startupProbe: {periodSeconds: 1, failureThreshold: 300, exec: {command: [pg_isready, -h, 127.0.0.1, -p, "%[2]d"]}},
      readinessProbe: {periodSeconds: 1, tcpSocket: {port: %[2]d}}}],
    volumes: [{name: data, persistentVolumeClaim: {claimName: %[3]s}}]}`, runs.image, port, name, command, arguments)
	claim := fmt.Sprintf("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: %s}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 100Mi}}}\n---\n", name)
	if kind == "Pod" {
		return claim + fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %[1]s}, annotations: {example.com/of: an operator}}\nspec: %s\n", name, spec)
	}
	own := ""
	switch kind {
	case "StatefulSet":
		own = "  serviceName: " + name + "\n"
	case "Deployment": // two databases do not share their files
		own = "  strategy: {type: Recreate}\n"
	}
	return claim + fmt.Sprintf("apiVersion: apps/v1\nkind: %s\nmetadata: {name: %s, annotations: {example.com/of: an operator}}\nspec:\n%s  selector: {matchLabels: {app: %[2]s}}\n  template:\n    metadata: {labels: {app: %[2]s}}\n    spec: %[4]s\n",
		kind, name, own, spec)
}
