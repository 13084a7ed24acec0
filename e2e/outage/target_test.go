package outage

import (
	"context"
	"fmt"
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
	if _, err := s.caller.CLI(ctx, arguments...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = s.caller.Cluster.Exec(ctx, s.bed.Tools().Psql, "-h", "127.0.0.1", "-p", local, "-U", "postgres", "-c", "INSERT INTO written VALUES ("+id+")")
	end, over := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer over()
	if _, closed := s.caller.CLI(end, "access", "close", local); err == nil {
		err = closed
	}
	return err
}

func targetsOf(cluster string) []target {
	if cluster == "west" {
		return []target{dockerContainer("joined", "none", "", "", 26001), dockerContainer("anew", "bridge", "host", "--discard", 26002), swarmService("swarmed", 26003)}
	}
	return []target{kubernetesObject("StatefulSet", 26011, ""), kubernetesObject("Deployment", 26012, ""), kubernetesObject("DaemonSet", 26013, ""),
		kubernetesObject("Pod", 26014, "--discard")}
}

// dockerPassing is what an engine tells of a container that has been started again.
var dockerPassing = []string{"StartedAt", "FinishedAt", "Pid", "SandboxID", "SandboxKey", "EndpointID", "IPAddress", "MacAddress", "IPAMConfig", "Aliases", "DriverOpts"}

// beside is what an engine has beside a target, by name.
func (s *site) beside(ctx context.Context) (string, error) {
	containers, err := s.docker(ctx, "ps", "--all", "--filter", "name=isthmus", "--format", "{{.Names}} {{.State}}")
	if err != nil {
		return "", err
	}
	networks, err := s.docker(ctx, "network", "ls", "--filter", "name=isthmus", "--format", "{{.Name}}")
	return containers + networks, err
}

func dockerContainer(name, from, to, flag string, port int) target {
	return target{kind: "container", name: name, from: from, to: to, flag: flag, port: port,
		make: func(ctx context.Context, s *site) error {
			network := from
			if from == "bridge" { // the id of the default one changes with each start of the engine
				network = name
				if _, err := s.docker(ctx, "network", "create", network); err != nil {
					return err
				}
			}
			_, err := s.docker(ctx, "run", "-d", "--name", name, "--network", network, "--restart", "always", "--label", "com.docker.compose.project=outage",
				"-v", name+":/var/lib/postgresql/data", testbed.PostgresImage, "-p", strconv.Itoa(port))
			return err
		},
		place: func(context.Context, *site) (string, error) { return "outage/" + name, nil },
		described: func(ctx context.Context, s *site) (string, error) {
			raw, err := s.docker(ctx, "inspect", name)
			if err != nil {
				return "", err
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
	}
}

func swarmService(name string, port int) target {
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
			_, err := s.docker(ctx, "service", "create", "--detach", "--name", name, "--network", name, "--mount", "type=volume,source="+name+",target=/var/lib/postgresql/data",
				testbed.PostgresImage, "-p", strconv.Itoa(port))
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
	}
}

// kubernetesPassing is what the API tells of an object that was changed and changed back.
var kubernetesPassing = []string{"resourceVersion", "generation", "uid", "creationTimestamp", "managedFields", "status", "deployment.kubernetes.io/revision",
	"deprecated.daemonset.template.generation"}

func kubernetesObject(kind string, port int, flag string) target {
	name := strings.ToLower(kind)
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
	return target{kind: kind, name: name, from: "pod", to: "host", flag: flag, port: port,
		make: func(ctx context.Context, s *site) error {
			return s.bed.Kubernetes(s.name).Apply(ctx, manifest(kind, name, port))
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
func manifest(kind, name string, port int) string {
	spec := fmt.Sprintf(`{containers: [{name: postgres, image: %q, imagePullPolicy: Never, args: [-p, "%d"], ports: [{containerPort: %[2]d}],
      volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}],
      readinessProbe: {periodSeconds: 1, exec: {command: [pg_isready, -h, 127.0.0.1, -p, "%[2]d"]}}}],
    volumes: [{name: data, persistentVolumeClaim: {claimName: %[3]s}}]}`, testbed.PostgresImage, port, name)
	claim := fmt.Sprintf("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: %s}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 100Mi}}}\n---\n", name)
	if kind == "Pod" {
		return claim + fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %[1]s}, annotations: {example.com/of: an operator}}\nspec: %s\n", name, spec)
	}
	service := ""
	if kind == "StatefulSet" {
		service = "  serviceName: " + name + "\n"
	}
	return claim + fmt.Sprintf("apiVersion: apps/v1\nkind: %s\nmetadata: {name: %s, annotations: {example.com/of: an operator}}\nspec:\n%s  selector: {matchLabels: {app: %[2]s}}\n  template:\n    metadata: {labels: {app: %[2]s}}\n    spec: %[4]s\n",
		kind, name, service, spec)
}
