// Package testbed installs and runs real clusters on one machine: Docker
// engines with Swarm and Kubernetes clusters, each in a network namespace of
// its own, joined by links that let only the gateways' peer traffic pass.
//
// A bed lives under one root folder and outlives the process that made it.
// Everything it started is recorded in <root>/bed.json and held in one cgroup,
// so that Down ends it all, from any process and after any crash.
package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Image is the busybox image that every engine of a bed holds.
const Image = "isthmus.local/busybox:1"

// PeerPort is the only port that a link lets through, unless Options say
// otherwise.
const PeerPort = 15443

// maxRoot keeps the Unix sockets of the engines below the kernel's limit of
// 108 bytes.
const maxRoot = 56

var clusterName = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)

// Options says what a bed consists of.
type Options struct {
	// Root is the folder of the bed. A bed that is still there is ended first.
	Root string
	// Name starts the names of namespaces and cgroups; "bed" when empty. Beds
	// of different roots live side by side whatever their names.
	Name string
	// Log receives the progress; nil means slog.Default().
	Log *slog.Logger

	Docker []string
	// Plain are those of Docker that are engines without a Swarm.
	Plain      []string
	Kubernetes []KubernetesOptions
	// Links are pairs of cluster names.
	Links [][2]string
	// PeerPort is the TCP port that links let through; PeerPort when zero.
	PeerPort int
	// Keep leaves a bed that failed to start as it is, to be looked at.
	Keep bool
}

// Cluster is what Docker and Kubernetes clusters have in common: a name, a
// folder and a network namespace.
type Cluster struct {
	Name string
	// Dir holds the cluster's files: sockets, keys, data, logs.
	Dir string
	// Namespace is the name under /run/netns.
	Namespace string

	index int
	bed   *Bed
}

// Bed is a running set of clusters.
type Bed struct {
	Root string
	// ID is the prefix of every namespace and cgroup of this bed.
	ID       string
	PeerPort int

	log     *slog.Logger
	tools   *Tools
	started time.Time

	mu         sync.Mutex
	docker     map[string]*DockerCluster
	kubernetes map[string]*KubernetesCluster
	links      []*Link
	children   map[int]*child
}

// Up installs what is missing, ends what an earlier bed left at the root, and
// starts the clusters in parallel.
func Up(ctx context.Context, options Options) (*Bed, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	if err := requireRoot(); err != nil {
		return nil, err
	}
	tools, err := Install(ctx, options.Log)
	if err != nil {
		return nil, err
	}
	if err := purge(ctx, options.Root, options.Log); err != nil {
		return nil, fmt.Errorf("end the bed that was at %s: %w", options.Root, err)
	}
	if err := os.MkdirAll(options.Root, 0o755); err != nil {
		return nil, fmt.Errorf("bed root: %w", err)
	}
	bed := newBed(options.Root, options.Name+"-"+rootHash(options.Root), options.PeerPort, options.Log, tools)
	if err := bed.start(ctx, options); err != nil {
		if options.Keep {
			return nil, err
		}
		// The caller's context may be over; what was started must end anyway.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(err, bed.Down(down))
	}
	bed.log.Info("bed is up", "root", bed.Root, "took", since(bed.started))
	return bed, nil
}

// Open attaches to the bed that another process left running at the root.
func Open(root string) (*Bed, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("bed root: %w", err)
	}
	st, err := readState(root)
	if err != nil {
		return nil, err
	}
	tools, err := installed()
	if err != nil {
		return nil, err
	}
	bed := newBed(root, st.ID, st.PeerPort, slog.Default(), tools)
	for _, c := range st.Clusters {
		bed.add(c)
	}
	for _, l := range st.Links {
		bed.links = append(bed.links, &Link{linkState: l, bed: bed})
	}
	return bed, nil
}

// Down ends the bed at the root, whoever made it and however far it came. It
// does nothing when there is none.
func Down(ctx context.Context, root string, log *slog.Logger) error {
	if err := requireRoot(); err != nil {
		return err
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("bed root: %w", err)
	}
	if log == nil {
		log = slog.Default()
	}
	return purge(ctx, root, log)
}

// Down ends everything the bed started and removes its files.
func (b *Bed) Down(ctx context.Context) error {
	err := Down(ctx, b.Root, b.log)
	b.reap()
	return err
}

// Tools are the programs the bed runs.
func (b *Bed) Tools() *Tools { return b.tools }

// Docker returns a Docker cluster by name, nil when there is none.
func (b *Bed) Docker(name string) *DockerCluster { return b.docker[name] }

// Kubernetes returns a Kubernetes cluster by name, nil when there is none.
func (b *Bed) Kubernetes(name string) *KubernetesCluster { return b.kubernetes[name] }

// Cluster returns a cluster of either kind by name, nil when there is none.
func (b *Bed) Cluster(name string) *Cluster {
	if c, ok := b.docker[name]; ok {
		return &c.Cluster
	}
	if c, ok := b.kubernetes[name]; ok {
		return &c.Cluster
	}
	return nil
}

// Clusters returns the names of all clusters, sorted.
func (b *Bed) Clusters() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(b.docker) {
			if !yield(name) {
				return
			}
		}
		for name := range maps.Keys(b.kubernetes) {
			if !yield(name) {
				return
			}
		}
	})
}

func newBed(root, id string, peerPort int, log *slog.Logger, tools *Tools) *Bed {
	return &Bed{
		Root: root, ID: id, PeerPort: peerPort,
		log: log, tools: tools, started: time.Now(),
		docker:     map[string]*DockerCluster{},
		kubernetes: map[string]*KubernetesCluster{},
		children:   map[int]*child{},
	}
}

// add makes the in-memory cluster of a recorded one.
func (b *Bed) add(c clusterState) {
	cluster := Cluster{
		Name: c.Name, Dir: filepath.Join(b.Root, c.Name),
		Namespace: b.ID + "-" + c.Name, index: c.Index, bed: b,
	}
	switch c.Kind {
	case kindDocker:
		b.docker[c.Name] = newDockerCluster(cluster)
	case kindKubernetes:
		b.kubernetes[c.Name] = newKubernetesCluster(cluster, c.ControlPlaneOnly)
	}
}

// start brings up namespaces, links and clusters, recording each before it is
// made: what is recorded and does not exist costs nothing to end.
func (b *Bed) start(ctx context.Context, options Options) error {
	st := state{ID: b.ID, PeerPort: b.PeerPort, Boot: bootID(), Started: b.started}
	for _, name := range options.Docker {
		st.Clusters = append(st.Clusters, clusterState{Name: name, Kind: kindDocker, Index: len(st.Clusters)})
	}
	for _, k := range options.Kubernetes {
		st.Clusters = append(st.Clusters, clusterState{Name: k.Name, Kind: kindKubernetes, Index: len(st.Clusters), ControlPlaneOnly: k.ControlPlaneOnly})
	}
	if err := writeState(b.Root, st); err != nil {
		return err
	}
	if err := saveSysctls(); err != nil {
		return err
	}
	if err := makeCgroups(b.ID); err != nil {
		return err
	}
	for _, c := range st.Clusters {
		b.add(c)
		if err := b.Cluster(c.Name).makeNamespace(ctx); err != nil {
			return err
		}
	}
	for _, pair := range options.Links {
		if _, err := b.AddLink(ctx, pair[0], pair[1]); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		failed []error
	)
	run := func(name string, start func(context.Context) error) {
		group.Go(func() {
			if err := start(ctx); err != nil {
				mu.Lock()
				failed = append(failed, fmt.Errorf("cluster %s: %w", name, err))
				mu.Unlock()
				cancel()
			}
		})
	}
	for name, c := range b.docker {
		c.plain = slices.Contains(options.Plain, name)
		run(name, c.start)
	}
	for name, c := range b.kubernetes {
		run(name, c.start)
	}
	group.Wait()
	if len(failed) > 0 {
		// The first failure cancelled the others; theirs say nothing.
		return failed[0]
	}
	return nil
}

func (o *Options) complete() error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Name == "" {
		o.Name = "bed"
	}
	if o.PeerPort == 0 {
		o.PeerPort = PeerPort
	}
	if !clusterName.MatchString(o.Name) {
		return fmt.Errorf("bed name %q: want 1 to 15 lower-case letters and digits", o.Name)
	}
	root, err := filepath.Abs(o.Root)
	if err != nil || o.Root == "" {
		return fmt.Errorf("bed root %q: want a folder", o.Root)
	}
	// Mounts and command lines show the real path.
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	}
	if len(root) > maxRoot {
		return fmt.Errorf("bed root %s: %d bytes are too many, Unix sockets below it allow %d", root, len(root), maxRoot)
	}
	o.Root = root
	seen := map[string]bool{}
	names := slices.Clone(o.Docker)
	for _, k := range o.Kubernetes {
		names = append(names, k.Name)
	}
	for _, name := range names {
		if !clusterName.MatchString(name) {
			return fmt.Errorf("cluster name %q: want 1 to 15 lower-case letters and digits", name)
		}
		if seen[name] {
			return fmt.Errorf("cluster name %q is given twice", name)
		}
		seen[name] = true
	}
	for _, name := range o.Plain {
		if !slices.Contains(o.Docker, name) {
			return fmt.Errorf("%q is to be plain, and is no Docker cluster", name)
		}
	}
	if len(names) > 50 {
		return fmt.Errorf("%d clusters are too many for the address plan", len(names))
	}
	for _, pair := range o.Links {
		if !seen[pair[0]] || !seen[pair[1]] || pair[0] == pair[1] {
			return fmt.Errorf("link %s-%s: want two clusters of the bed", pair[0], pair[1])
		}
	}
	return nil
}

func requireRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("the testbed makes network namespaces, mounts and cgroups: run it as root, not as uid %d", uid)
	}
	return nil
}

// rootHash tells the beds of two roots apart.
func rootHash(root string) string {
	sum := sha256.Sum256([]byte(root))
	return hex.EncodeToString(sum[:3])
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func since(start time.Time) string {
	return time.Since(start).Round(100 * time.Millisecond).String()
}
