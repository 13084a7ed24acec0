// Package demo brings up the demonstration: a Docker cluster west, a Kubernetes cluster east, one more of each for
// requests between clusters of the same type, and the gateways of all four; and it gives the guided tour.
package demo

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// Image is a busybox that every engine of the testbed holds.
const Image = "isthmus.local/busybox:1"

// Policies are what the demo's clusters allow each other.
var Policies = map[string]string{
	"east": `# West may run its containers in namespace default, reach into them, and query what is exported there.
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: west}
spec:
  from: [{peer: west}]
  allow:
  - verbs: [list, get, watch, start, stop, restart, pause, resume, destroy, logs, exec, attach, copy, access, query]
    objects: [{namespace: default}]
  - verbs: [create, update, scale]
    objects: [{namespace: default, kind: container}, {namespace: default, kind: workload}]
    when: "!object.privileged && !object.hostNetwork && !object.hostPID && size(object.capAdd) == 0"
  - verbs: [get, list, watch]
    objects: [{kind: system}, {kind: node}, {kind: image}, {kind: network}, {kind: volume}, {kind: event}]
  - verbs: [create]
    objects: [{kind: image}, {namespace: default, kind: volume}, {namespace: default, kind: network},
      {namespace: default, kind: secret}, {namespace: default, kind: config}]
  - verbs: [update]
    objects: [{namespace: default, kind: network}, {namespace: default, kind: volume}, {namespace: default, kind: secret},
      {namespace: default, kind: config}]
---
# North is of east's own type: its calls pass untouched.
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: north}
spec:
  from: [{peer: north}]
  allow:
  - verbs: ["*"]
    objects: [{}]
`,
	"west": `# South is of west's own type: its calls pass untouched.
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: south}
spec:
  from: [{peer: south}]
  allow:
  - verbs: ["*"]
    objects: [{}]
---
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: east}
spec:
  from: [{peer: east}]
  allow:
  - verbs: [query, access]
    objects: [{namespace: default}]
  - verbs: [list, get, watch, scale, restart, destroy, logs, exec, attach]
    objects: [{namespace: default}, {namespace: shop}]
  - verbs: [create, update]
    objects: [{namespace: default}, {namespace: shop}]
    when: "!object.privileged && !object.hostNetwork && !object.hostPID && size(object.capAdd) == 0"
  - verbs: [create, update]
    objects: [{namespace: default, kind: config}, {namespace: default, kind: secret}, {namespace: default, kind: service},
      {namespace: default, kind: volume}, {namespace: shop, kind: config}, {namespace: shop, kind: secret},
      {namespace: shop, kind: service}, {namespace: shop, kind: volume}]
  - verbs: [list, get, watch]
    objects: [{kind: other, namespace: default}, {kind: other, namespace: shop}]
  - verbs: [get, list, watch]
    objects: [{kind: system}, {kind: node}, {kind: namespace}]
  - verbs: [create, destroy]
    objects: [{kind: namespace, name: shop}]
`,
}

// Rights are what the demo's Kubernetes clusters give beside the ordinary rights of a peer: north's kubectl may do in
// east what its policy allows, which is everything; and so may east's own admin, by isthmus copy.
var Rights = map[string]string{"east": `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "isthmus:peer:north:admin"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "isthmus:peer:north"}, {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "isthmus:peer:east"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "isthmus:act-as:east"}
rules:
- apiGroups: [""]
  resources: [users]
  verbs: [impersonate]
  resourceNames: ["isthmus:peer:east"]
- apiGroups: [""]
  resources: [groups]
  verbs: [impersonate]
  resourceNames: ["isthmus:peers", "isthmus:peer:east"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "isthmus:act-as:east"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "isthmus:act-as:east"}
subjects: [{kind: ServiceAccount, name: isthmus, namespace: isthmus}]
`}

// Clusters is the bed of the demo.
func Clusters(root string, log *slog.Logger) testbed.Options {
	return testbed.Options{
		Root: root, Name: "demo", Log: log,
		Docker:     []string{"west", "south"},
		Kubernetes: []testbed.KubernetesOptions{{Name: "east"}, {Name: "north", ControlPlaneOnly: true}},
		Links:      [][2]string{{"west", "east"}, {"north", "east"}, {"south", "west"}},
	}
}

// Demo is the running demonstration.
type Demo struct {
	Bed     *testbed.Bed
	Mesh    *mesh.Mesh
	Service string // a service of east, as west's callers name it
	Access  string // host:port on this machine that leads to a container of east
}

// Up starts everything under root and writes root/env. Bed, policies and rights of the mesh are the demo's own.
func Up(ctx context.Context, root string, options mesh.Options) (*Demo, error) {
	bed, err := testbed.Up(ctx, Clusters(root, options.Log))
	if err != nil {
		return nil, err
	}
	d := &Demo{Bed: bed}
	options.Bed, options.Policies, options.Rights = bed, Policies, Rights
	if d.Mesh, err = mesh.Up(ctx, options); err != nil {
		return d, err
	}
	return d, d.example(ctx, options.Log)
}

// example is a service and a container to try things on.
const example = `
apiVersion: v1
kind: Pod
metadata: {name: hello, labels: {app: hello}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: hello
    image: ` + Image + `
    command: [sh, -c, "mkdir -p /www && echo hello from east > /www/index.html && exec httpd -f -p 8080 -h /www"]
    ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: hello}
`

func (d *Demo) example(ctx context.Context, log *slog.Logger) error {
	begin := time.Now()
	east := d.Bed.Kubernetes("east")
	if err := east.ApplyServiceExportCRD(ctx); err != nil {
		return err
	}
	if err := east.Apply(ctx, example); err != nil {
		return err
	}
	if _, err := east.Kubectl(ctx, "wait", "--for=condition=Ready", "pod/hello", "--timeout=60s"); err != nil {
		return err
	}
	d.Service = "hello.default.svc.east.isthmus.internal"
	west := d.Mesh.Gateway("west")
	if _, err := west.CLI(ctx, "access", "east/default/hello:8080", "--local", "18080"); err != nil {
		return err
	}
	var err error
	if d.Access, err = west.Forward(ctx, "127.0.0.1:18080"); err != nil {
		return err
	}
	log.Info("an exported service and an access are there", "service", d.Service, "took", time.Since(begin).Round(100*time.Millisecond))
	return d.writeEnv()
}

// writeEnv writes what a shell needs to use the demo.
func (d *Demo) writeEnv() error {
	east, west := d.Bed.Kubernetes("east"), d.Bed.Docker("west")
	gateway := d.Mesh.Gateway
	lines := []string{
		"# Source this file: . " + filepath.Join(d.Bed.Root, "env"),
		"# docker: this is west's edge; it reaches the Kubernetes cluster east.",
		"export DOCKER_HOST=unix://" + gateway("west").Socket("east"),
		"# kubectl: this is east's edge; it reaches the Swarm west.",
		"export KUBECONFIG=" + gateway("east").Kubeconfig("west"),
		"# The real engines behind, for comparison.",
		"export DOCKER_HOST_WEST=" + west.Host(),
		"export DOCKER_HOST_SOUTH=" + d.Bed.Docker("south").Host(),
		"export KUBECONFIG_EAST=" + east.HostKubeconfig,
		"export KUBECTL=" + d.Bed.Tools().Kubectl,
		"# Same type: kubectl --kubeconfig $KUBE_NORTH_EAST is north's edge to east; docker -H $DOCKER_SOUTH_WEST is south's to west.",
		"export KUBE_NORTH_EAST=" + gateway("north").Kubeconfig("east"),
		"export DOCKER_SOUTH_WEST=unix://" + gateway("south").Socket("west"),
		"# Admin addresses, for isthmus --admin.",
		"export ISTHMUS_WEST=" + gateway("west").Admin,
		"export ISTHMUS_EAST=" + gateway("east").Admin,
		"export ISTHMUS_NORTH=" + gateway("north").Admin,
		"export ISTHMUS_SOUTH=" + gateway("south").Admin,
		"# curl -H \"Host: $SERVICE\" http://$EDGE_WEST/ queries the service; curl http://$ACCESS/ reaches into its container.",
		"export SERVICE=" + d.Service,
		"export EDGE_WEST=" + gateway("west").Edge,
		"export ACCESS=" + d.Access,
		"export DEMO_IMAGE=" + Image,
		"# Each cluster has a network namespace of its own; what isthmus access opens in west is there: $IN_WEST curl ...",
		"export IN_WEST=\"nsenter --net=/run/netns/" + d.Bed.Cluster("west").Namespace + " --\"",
		"export IN_EAST=\"nsenter --net=/run/netns/" + d.Bed.Cluster("east").Namespace + " --\"",
	}
	return os.WriteFile(filepath.Join(d.Bed.Root, "env"), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// Down ends what Up started, also from another process.
func Down(ctx context.Context, root string, log *slog.Logger) error {
	if err := testbed.Down(ctx, root, log); err != nil {
		return fmt.Errorf("end the demo: %w", err)
	}
	if err := os.Remove(filepath.Join(root, "env")); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
