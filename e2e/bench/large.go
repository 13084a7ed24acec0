package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// LargeOptions say how long lists are measured.
type LargeOptions struct {
	Options
	// Pods and Containers are how many there are; Limit is how long their making may take, each.
	Pods, Containers int
	Limit            time.Duration
}

// eastPolicy is what west allows east.
const eastPolicy = `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: east}
spec:
  from: [{peer: east}]
  allow:
  - verbs: [get, list]
    objects: [{namespace: default}]
`

// makers are how many objects are made at a time.
const makers = 12

// Large measures lists of thousands: Pods of the real Kubernetes for docker, and containers of a real engine for kubectl,
// each against asking the cluster itself.
func Large(ctx context.Context, options LargeOptions, out io.Writer) (err error) {
	root, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, testbed.Down(end, root, options.Log), os.RemoveAll(root))
	}()
	bed, err := testbed.Up(ctx, testbed.Options{Root: root, Name: "bench", Log: options.Log, Docker: []string{"west"},
		Kubernetes: []testbed.KubernetesOptions{{Name: "east", ControlPlaneOnly: true}}, Links: [][2]string{{"west", "east"}}})
	if err != nil {
		return err
	}
	running, err := mesh.Up(ctx, mesh.Options{Bed: bed, Binary: options.Binary, Log: options.Log,
		Policies: map[string]string{"east": policy, "west": eastPolicy}})
	if err != nil {
		return err
	}
	l := &large{options: options, bed: bed, mesh: running, out: out}
	fmt.Fprintf(out, "%-46s %7s %9s %9s %9s  %s\n", "list", "objects", "MB", "first ms", "last ms", "peak RSS over rest, MB")
	return errors.Join(l.pods(ctx), l.containers(ctx))
}

type large struct {
	options LargeOptions
	bed     *testbed.Bed
	mesh    *mesh.Mesh
	out     io.Writer
}

// make makes objects until there are enough or time is up, and tells how many there are.
func (l *large) make(ctx context.Context, what string, count int, one func(ctx context.Context, i int) error) (int, error) {
	begin := time.Now()
	var made atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(makers)
	for i := range count {
		if ctx.Err() != nil || time.Since(begin) > l.options.Limit {
			break
		}
		group.Go(func() error {
			if err := one(ctx, i); err != nil {
				return fmt.Errorf("make %s %d: %w", what, i, err)
			}
			made.Add(1)
			return nil
		})
	}
	err := group.Wait()
	l.options.Log.Info("made", "what", what, "count", made.Load(), "took", time.Since(begin).Round(time.Second))
	return int(made.Load()), err
}

func (l *large) pods(ctx context.Context) error {
	east := l.bed.Kubernetes("east")
	config, err := clientcmd.BuildConfigFromFlags("", east.HostKubeconfig)
	if err != nil {
		return fmt.Errorf("client of east: %w", err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client of east: %w", err)
	}
	count, err := l.make(ctx, "pods", l.options.Pods, func(ctx context.Context, i int) error {
		_, err := client.CoreV1().Pods("default").Create(ctx, pod(objectName+"-"+strconv.Itoa(i)), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	direct, err := l.kubernetes(&east.Cluster, east.Kubeconfig, east.Server())
	if err != nil {
		return err
	}
	socket := l.mesh.Gateway("west").Socket("east")
	through := l.docker(&l.bed.Docker("west").Cluster, socket)
	roles, err := l.roles("east", "west")
	if err != nil {
		return err
	}
	apiServer := map[string]int{roleAPIServer: l.bed.Process("east", "kube-apiserver").PID}
	path := "/api/v1/namespaces/default/pods"
	for _, list := range []list{
		{"kube-apiserver, JSON, all at once", direct, path, "application/json", apiServer},
		{"kube-apiserver, JSON, parts of 500", direct, path + "?limit=500", "application/json", apiServer},
		{"docker ps -a through isthmus", through, "/v1.49/containers/json?all=1", "application/json", roles},
		{"docker ps -a -n 10 through isthmus", through, "/v1.49/containers/json?all=1&limit=10", "application/json", roles},
	} {
		if err := l.measure(ctx, list, count); err != nil {
			return err
		}
	}
	return nil
}

func (l *large) containers(ctx context.Context) error {
	west := l.bed.Docker("west")
	direct := l.docker(&west.Cluster, strings.TrimPrefix(west.Host(), "unix://"))
	count, err := l.make(ctx, "containers", l.options.Containers, func(ctx context.Context, i int) error {
		body, err := json.Marshal(map[string]any{"Image": testbed.Image, "Cmd": []string{"sleep", "600"}, "Labels": map[string]string{"app": objectName, "tier": "web"}})
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, direct.base+"/v1.41/containers/create?name="+objectName+"-"+strconv.Itoa(i), bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		answer, err := direct.http.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusCreated {
			return errors.Join(err, errors.New(answer.Status))
		}
		return nil
	})
	if err != nil {
		return err
	}
	gateway := l.mesh.Gateway("east")
	through, err := l.kubernetes(&l.bed.Kubernetes("east").Cluster, gateway.Kubeconfig("west"), "")
	if err != nil {
		return err
	}
	roles, err := l.roles("west", "east")
	if err != nil {
		return err
	}
	engine := map[string]int{"dockerd": l.bed.Process("west", "dockerd").PID}
	path := "/api/v1/namespaces/default/pods"
	for _, list := range []list{
		{"dockerd, docker ps -a", direct, "/v1.41/containers/json?all=1", "application/json", engine},
		{"kubectl through isthmus, JSON, all at once", through, path, "application/json", roles},
		{"kubectl through isthmus, JSON, parts of 500", through, path + "?limit=500", "application/json", roles},
		{"kubectl through isthmus, table, parts of 500", through, path + "?limit=500", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", roles},
	} {
		if err := l.measure(ctx, list, count); err != nil {
			return err
		}
	}
	return nil
}

// roles are the gateways' processes: of the target, which translates, and of the caller.
func (l *large) roles(target, caller string) (map[string]int, error) {
	roles := map[string]int{}
	for role, name := range map[string]string{"target": target, "caller": caller} {
		envoy, err := l.mesh.Gateway(name).EnvoyPID()
		if err != nil {
			return nil, err
		}
		roles["Envoy "+role], roles["isthmus "+role] = envoy, l.mesh.Gateway(name).Process.PID
	}
	return roles, nil
}

// api is where lists are asked for.
type api struct {
	base string
	http *http.Client
}

func (l *large) docker(cluster *testbed.Cluster, socket string) api {
	return api{"http://docker", &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: makers,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return cluster.DialIn(ctx, "unix", socket) }}}}
}

// kubernetes is an API of a kubeconfig's; address is where it is, "" as the kubeconfig says.
func (l *large) kubernetes(cluster *testbed.Cluster, kubeconfig, address string) (api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return api{}, fmt.Errorf("credential: %w", err)
	}
	host, err := url.Parse(config.Host)
	if err != nil {
		return api{}, fmt.Errorf("credential: %w", err)
	}
	transport := &http.Transport{DisableCompression: true}
	secure, err := rest.TLSConfigFor(config)
	if err != nil {
		return api{}, fmt.Errorf("credential: %w", err)
	}
	if secure == nil {
		secure = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	transport.TLSClientConfig = secure
	transport.DialContext = func(ctx context.Context, _, asked string) (net.Conn, error) {
		if address == "" { // of a gateway, which the machine reaches too
			return (&net.Dialer{}).DialContext(ctx, "tcp", asked)
		}
		return cluster.DialIn(ctx, "tcp", address)
	}
	around, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return api{}, fmt.Errorf("credential: %w", err)
	}
	return api{host.Scheme + "://" + host.Host, &http.Client{Transport: around}}, nil
}

// list is one way of asking for all objects.
type list struct {
	name         string
	api          api
	path, accept string
	processes    map[string]int
}

// rounds of a list.
const largeRounds = 5

// measure asks several times and prints the medians, and how far each process grew beyond what it had before.
func (l *large) measure(ctx context.Context, list list, want int) error {
	var first, last []time.Duration
	var size int64
	grew := map[string]int64{}
	for range largeRounds {
		before := map[string]int64{}
		for role, pid := range list.processes {
			// From here on the peak is counted anew.
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200); err != nil {
				return err
			}
			rss, _, err := memory(pid)
			if err != nil {
				return err
			}
			before[role] = rss
		}
		begin, begun, found := time.Now(), time.Duration(0), 0
		size = 0
		for token := ""; ; {
			path := list.path
			if token != "" {
				path += "&continue=" + url.QueryEscape(token)
			}
			data, at, err := list.api.get(ctx, path, list.accept)
			if err != nil {
				return fmt.Errorf("%s: %w", list.name, err)
			}
			if begun == 0 {
				begun = at.Sub(begin)
			}
			size += int64(len(data))
			n, next, err := counted(data)
			if err != nil {
				return fmt.Errorf("%s: %w", list.name, err)
			}
			found += n
			if token = next; token == "" {
				break
			}
		}
		first, last = append(first, begun), append(last, time.Since(begin))
		if found < want && !strings.Contains(list.path, "limit=10") || found == 0 {
			return fmt.Errorf("%s: %d of %d objects", list.name, found, want)
		}
		for role, pid := range list.processes {
			_, peak, err := memory(pid)
			if err != nil {
				return err
			}
			grew[role] = max(grew[role], peak-before[role])
		}
	}
	var grown []string
	for role, bytes := range grew {
		_, peak, err := memory(list.processes[role])
		if err != nil {
			return err
		}
		grown = append(grown, fmt.Sprintf("%s +%d (%d)", role, bytes>>20, peak>>20))
	}
	slices.Sort(grown)
	slices.Sort(first)
	slices.Sort(last)
	_, err := fmt.Fprintf(l.out, "%-46s %7d %9.1f %9d %9d  %s\n", list.name, want, float64(size)/1e6,
		first[largeRounds/2].Milliseconds(), last[largeRounds/2].Milliseconds(), strings.Join(grown, ", "))
	return err
}

// get reads one answer; at is when its first byte came.
func (a api) get(ctx context.Context, path, accept string) (data []byte, at time.Time, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, at, err
	}
	request.Header.Set("Accept", accept)
	answer, err := a.http.Do(request)
	if err != nil {
		return nil, at, err
	}
	defer answer.Body.Close()
	begin := make([]byte, 1)
	if _, err := io.ReadFull(answer.Body, begin); err != nil {
		return nil, at, err
	}
	at = time.Now()
	rest, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", answer.Status, append(begin, rest...))
	}
	return append(begin, rest...), at, err
}

// counted tells how many objects an answer has, and where the next part begins.
func counted(data []byte) (n int, next string, err error) {
	if len(data) > 0 && data[0] == '[' {
		var all []json.RawMessage
		err = json.Unmarshal(data, &all)
		return len(all), "", err
	}
	var all struct {
		Metadata    struct{ Continue string }
		Items, Rows []json.RawMessage
	}
	err = json.Unmarshal(data, &all)
	return len(all.Items) + len(all.Rows), all.Metadata.Continue, err
}

// memory is what a process has in memory, and the most that it had, in bytes.
func memory(pid int) (rss, peak int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("memory: %w", err)
		}
		if name == "VmRSS" {
			rss = kilobytes << 10
		} else {
			peak = kilobytes << 10
		}
	}
	return rss, peak, nil
}
