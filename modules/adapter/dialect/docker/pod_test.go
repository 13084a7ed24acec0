package docker

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakePods is an engine that keeps the containers that it is asked for. After as many writes as left says it does nothing
// any more, as for a gateway that was killed. The real one is in the end-to-end tests.
type fakePods struct {
	mu         sync.Mutex
	containers map[string]map[string]any // as an inspect tells them, by id
	image      string                    // the layer of the holder's
	volumes    map[string]bool
	next       int
	left       int // -1 is for ever
	asked      []string
}

func (f *fakePods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	path := versionPrefix.ReplaceAllString(r.URL.Path, "")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if f.left == 0 {
			answer(w, http.StatusInternalServerError, map[string]any{"message": "killed"})
			return
		}
		f.left--
		f.asked = append(f.asked, r.Method+" "+path)
	}
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case path == "/_ping":
	case path == "/version":
		answer(w, http.StatusOK, map[string]any{"Arch": "amd64", "Version": "20.10", "ApiVersion": "1.41"})
	case path == "/info":
		answer(w, http.StatusOK, map[string]any{"Name": "node-1", "Swarm": map[string]any{"LocalNodeState": "inactive"}})
	case path == "/volumes":
		answer(w, http.StatusOK, map[string]any{"Volumes": []any{}})
	case path == "/networks":
		answer(w, http.StatusOK, []any{map[string]any{"Id": "n0", "Name": "shop_default", "Driver": "bridge", "Labels": map[string]string{labelStack: "shop"}}})
	case parts[0] == "images" && r.Method == http.MethodGet:
		if f.image == "" {
			answer(w, http.StatusNotFound, map[string]any{"message": "No such image"})
			return
		}
		answer(w, http.StatusOK, map[string]any{"Id": "sha256:holder", "RootFS": map[string]any{"Layers": []string{f.image}},
			"Config": map[string]any{"Entrypoint": []string{holderProgram}}})
	case path == "/images/create":
		body, _ := io.ReadAll(r.Body)
		sum := sha256.Sum256(body)
		f.image = "sha256:" + hex.EncodeToString(sum[:])
		answer(w, http.StatusOK, map[string]any{"status": "sha256:holder"})
	case path == "/containers/create":
		f.create(w, r)
	case path == "/containers/json":
		all := []any{}
		for id, c := range f.containers {
			config, host := c["Config"].(map[string]any), c["HostConfig"].(map[string]any)
			all = append(all, map[string]any{"Id": id, "Names": []string{c["Name"].(string)}, "Labels": config["Labels"], "State": "running",
				"HostConfig": map[string]any{"NetworkMode": host["NetworkMode"]}})
		}
		answer(w, http.StatusOK, all)
	case parts[0] == "containers":
		f.one(w, r, parts)
	default:
		answer(w, http.StatusNotFound, map[string]any{"message": "not known: " + path})
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func (f *fakePods) find(ref string) string {
	for id, c := range f.containers {
		if id == ref || c["Name"] == "/"+ref {
			return id
		}
	}
	return ""
}

func (f *fakePods) create(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if f.find(name) != "" {
		answer(w, http.StatusConflict, map[string]any{"message": "the name is in use"})
		return
	}
	var config map[string]any
	_ = json.NewDecoder(r.Body).Decode(&config)
	host, _ := config["HostConfig"].(map[string]any)
	f.next++
	id := fmt.Sprintf("c%d", f.next)
	var mounts []any
	asked, _ := host["Mounts"].([]any)
	for _, m := range asked {
		m := m.(map[string]any)
		source, _ := m["Source"].(string)
		if source == "" {
			source = fmt.Sprintf("anonymous-%s-%s", id, m["Target"])
			f.volumes[source] = true
		}
		mounts = append(mounts, map[string]any{"Type": "volume", "Name": source, "Destination": m["Target"], "RW": true})
	}
	f.containers[id] = map[string]any{"Id": id, "Name": "/" + name, "Config": config, "HostConfig": host, "Mounts": mounts,
		"State": map[string]any{"Status": "created"}, "NetworkSettings": map[string]any{}}
	answer(w, http.StatusCreated, map[string]any{"Id": id})
}

func (f *fakePods) one(w http.ResponseWriter, r *http.Request, parts []string) {
	id := f.find(parts[1])
	c := f.containers[id]
	switch {
	case id == "":
		answer(w, http.StatusNotFound, map[string]any{"message": "No such container"})
	case r.Method == http.MethodDelete:
		delete(f.containers, id)
		for name := range f.volumes {
			if r.URL.Query().Get("v") == "1" && strings.HasPrefix(name, "anonymous-"+id+"-") {
				delete(f.volumes, name)
			}
		}
		w.WriteHeader(http.StatusNoContent)
	case parts[2] == "json":
		answer(w, http.StatusOK, c)
	case parts[2] == "kill" || parts[2] == "start":
		c["State"] = map[string]any{"Status": map[string]string{"kill": "exited", "start": "running"}[parts[2]]}
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, http.StatusNotFound, map[string]any{"message": "not known"})
	}
}

// names are those of all containers.
func (f *fakePods) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := []string{}
	for _, c := range f.containers {
		names = append(names, strings.TrimPrefix(c["Name"].(string), "/"))
	}
	slices.Sort(names)
	return names
}

func (f *fakePods) allow(writes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.asked = writes, nil
}

func newFakePods(t *testing.T) (*fakePods, *Cluster) {
	t.Helper()
	f := &fakePods{containers: map[string]map[string]any{}, volumes: map[string]bool{}, left: -1}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c, err := Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "west", Endpoint: "tcp://" + strings.TrimPrefix(server.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return f, c.(*Cluster)
}

// duo is a Pod of two containers and one before them.
func duo() neutral.Operation {
	share := neutral.Security{IPCMode: neutral.ShareHolder, PIDMode: neutral.ShareHolder}
	shared := []neutral.Mount{{Type: neutral.MountShared, Source: "/cache", Target: "/c", ReadOnly: true}}
	return neutral.Operation{Action: neutral.ContainerCreate, Object: neutral.Object{Namespace: "shop"}, Container: &neutral.Container{
		Name: "web", Hostname: "web", Labels: map[string]string{"app": "web", labelMember: "forged"},
		Restart: neutral.RestartPolicy{Mode: neutral.RestartUnlessStopped}, Origin: &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(`{"object":{}}`)},
		Networks: []neutral.NetworkAttachment{{Name: "default", Aliases: []string{"www"}}},
		Ports:    []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp"}},
		Mounts:   []neutral.Mount{{Type: "tmpfs", Target: "/mem", Size: 1 << 20}, {Type: "volume", Target: "/cache"}},
		Members: []neutral.Container{
			{Name: "first", Image: "a:1", Initial: true, Network: neutral.NetworkPod, Security: share, Mounts: shared},
			{Name: "app", Image: "a:1", Network: neutral.NetworkPod, Security: share, Mounts: append(shared, neutral.Mount{Type: "volume", Source: "data", Target: "/d"})},
			{Name: "log", Image: "b:1", Network: neutral.NetworkPod, Security: neutral.Security{IPCMode: "host"}},
		}}}
}

func everyone(neutral.Object) bool { return true }

func TestPodIsMade(t *testing.T) {
	t.Parallel()
	f, c := newFakePods(t)
	result, asked, err := ask(t, c, duo(), everyone)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"shop_web", "shop_web.app", "shop_web.first", "shop_web.log"}, f.names()); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	for _, o := range asked { // policy knows the Pod
		if o.Kind == neutral.KindContainer && (o.Name != "web" || o.Labels["app"] != "web" || o.Labels[labelMember] != "") {
			t.Errorf("policy is asked about %s with %v", o.Name, o.Labels)
		}
	}
	native := func(name string) (config container.Config, host container.HostConfig) {
		raw, err := json.Marshal(f.containers[f.find(name)])
		into := struct {
			Config     *container.Config
			HostConfig *container.HostConfig
		}{&config, &host}
		if err != nil || json.Unmarshal(raw, &into) != nil {
			t.Fatal(err)
		}
		return config, host
	}
	config, host := native("shop_web")
	if config.StopSignal != "SIGKILL" || config.Image != "sha256:holder" || config.Hostname != "web" || host.NetworkMode != "shop_default" || host.IpcMode != "shareable" ||
		len(host.PortBindings) != 1 || config.Labels[labelLasting] != "2" || config.Labels[labelMember] != "" || config.Labels[labelStack] != "shop" ||
		host.Mounts[0].VolumeOptions.DriverConfig.Options["o"] != "mode=1777,size=1048576" || host.Mounts[1].Target != "/volumes/1" || host.Mounts[1].VolumeOptions != nil {
		t.Errorf("holder %+v %+v", config, host)
	}
	id := result.ID
	config, host = native("shop_web.app")
	if string(host.NetworkMode) != "container:"+id || string(host.PidMode) != "container:"+id || string(host.IpcMode) != "container:"+id || config.Hostname != "" ||
		host.Mounts[1].Source != "anonymous-"+id+"-/volumes/1" || !host.Mounts[1].VolumeOptions.NoCopy || !host.Mounts[1].ReadOnly || host.Mounts[0].Source != "shop_data" ||
		config.Labels[labelMember] != "app" || config.Labels["app"] != "web" || config.Labels[labelOrigin] != "" || config.Labels["io.kubernetes.container.name"] != "app" {
		t.Errorf("member %+v %+v", config, host)
	}
	if _, host := native("shop_web.log"); host.IpcMode != "host" || host.PidMode != "" {
		t.Errorf("member %+v", host)
	}
	var members []string
	for _, m := range result.Container.Members {
		members = append(members, fmt.Sprint(m.Pod, " ", m.Name, " ", m.Initial))
	}
	if diff := cmp.Diff([]string{"web first true", "web app false", "web log false"}, members); diff != "" || result.Container.Name != "web" || result.Container.Siblings != 3 {
		t.Errorf("%s (-want +got):\n%s", result.Container.Name, diff)
	}
	list, _, err := ask(t, c, neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true}}, everyone)
	if err != nil || len(list.Containers) != 1 || len(list.Containers[0].Members) != 3 || list.Containers[0].Origin == nil {
		t.Errorf("list %+v, %v", list.Containers, err)
	}
	if _, _, err := ask(t, c, duo(), everyone); !fault.Is(err, fault.Conflict) {
		t.Errorf("once more: %v", err)
	}
	other := duo()
	other.Container.Origin.Spec = []byte(`{"object":{"other":true}}`)
	if _, _, err := ask(t, c, other, everyone); !fault.Is(err, fault.Conflict) {
		t.Errorf("another Pod of the name: %v", err)
	}
}

// TestPodKilled kills the gateway after each of its calls. What is done next ends in a whole Pod, or in none.
func TestPodKilled(t *testing.T) {
	t.Parallel()
	whole := []string{"shop_web", "shop_web.app", "shop_web.first", "shop_web.log"}
	remove := func(ref string) neutral.Operation {
		return neutral.Operation{Action: neutral.ContainerRemove, Ref: ref, Object: neutral.Object{Namespace: "shop"}, Remove: &neutral.RemoveOptions{Force: true, Volumes: true}}
	}
	for _, next := range []string{"create", "remove"} {
		for writes := 0; ; writes++ {
			f, c := newFakePods(t)
			f.allow(writes)
			_, _, err := ask(t, c, duo(), everyone)
			f.allow(-1)
			if err == nil {
				if writes != 5 { // the image, the holder, three members
					t.Errorf("it takes %d calls", writes)
				}
				break
			}
			if next == "create" {
				if _, _, err := ask(t, c, duo(), everyone); err != nil || !slices.Equal(f.names(), whole) {
					t.Errorf("killed after %d calls, then made: %v, %v", writes, f.names(), err)
				}
				continue
			}
			if _, _, err := ask(t, c, remove("web"), everyone); err != nil && !fault.Is(err, fault.NotFound) || len(f.names()) > 0 || len(f.volumes) > 0 {
				t.Errorf("killed after %d calls, then removed: %v, %v, %v", writes, f.names(), f.volumes, err)
			}
		}
	}
	for writes := 0; ; writes++ { // its removal
		f, c := newFakePods(t)
		if _, _, err := ask(t, c, duo(), everyone); err != nil {
			t.Fatal(err)
		}
		f.allow(writes)
		_, _, err := ask(t, c, remove("web"), everyone)
		f.allow(-1)
		if err == nil {
			break
		}
		if !slices.Contains(f.names(), "shop_web") {
			t.Errorf("killed after %d calls its holder is gone before the others: %v", writes, f.names())
		}
		if list, _, err := ask(t, c, neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true}}, everyone); err != nil || len(list.Containers) != 1 ||
			writes > 0 && list.Containers[0].State.Status != neutral.StatusExited {
			t.Errorf("killed after %d calls there are %+v, %v", writes, list.Containers, err)
		}
		if _, _, err := ask(t, c, remove("web"), everyone); err != nil || len(f.names()) > 0 || len(f.volumes) > 0 {
			t.Errorf("killed after %d calls, then removed again: %v, %v", writes, f.names(), err)
		}
	}
}

// A container that has a Pod's name and a copy of its document holds nothing, and gets no members.
func TestPodOfAnother(t *testing.T) {
	t.Parallel()
	f, c := newFakePods(t)
	if _, _, err := ask(t, c, duo(), everyone); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.containers[f.find("shop_web")]["Config"].(map[string]any)["Image"] = "busybox"
	delete(f.containers, f.find("shop_web.log"))
	f.mu.Unlock()
	if _, _, err := ask(t, c, duo(), everyone); !fault.Is(err, fault.Unprocessable) || slices.Contains(f.names(), "shop_web.log") {
		t.Errorf("%v, %v", f.names(), err)
	}
}

// A step that fails takes back what was made, and containers of a Pod that is gone make way.
func TestPodUndoes(t *testing.T) {
	t.Parallel()
	f, c := newFakePods(t)
	f.containers["x"] = map[string]any{"Id": "x", "Name": "/shop_web.log", "State": map[string]any{}, "Config": map[string]any{}, "HostConfig": map[string]any{}, "NetworkSettings": map[string]any{}}
	if _, _, err := ask(t, c, duo(), everyone); !fault.Is(err, fault.Conflict) || !slices.Equal(f.names(), []string{"shop_web.log"}) || len(f.volumes) > 0 {
		t.Errorf("%v, %v, %v", f.names(), f.volumes, err)
	}
	f.containers["x"]["Config"] = map[string]any{"Labels": map[string]string{labelMember: "log"}}
	f.containers["x"]["HostConfig"] = map[string]any{"NetworkMode": "container:gone"}
	if _, _, err := ask(t, c, duo(), everyone); err != nil || len(f.names()) != 4 || f.find("x") != "" {
		t.Errorf("%v, %v", f.names(), err)
	}
}

// TestHolderImage reads the program as the kernel does.
func TestHolderImage(t *testing.T) {
	t.Parallel()
	for architecture, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		archive, err := holderArchive(architecture)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := holderArchive(architecture)
		if !bytes.Equal(archive, again) {
			t.Errorf("%s: two images differ", architecture)
		}
		r := tar.NewReader(bytes.NewReader(archive))
		header, err := r.Next()
		program, readErr := io.ReadAll(r)
		if err != nil || readErr != nil || header.Name != "holder" || header.Mode != 0o755 {
			t.Fatalf("%+v, %v, %v", header, err, readErr)
		}
		places := 0
		for header, err := r.Next(); err == nil; header, err = r.Next() {
			if header.Typeflag == tar.TypeDir && header.Mode == 0o777 {
				places++
			}
		}
		if places != holderPlaces {
			t.Errorf("%d places", places)
		}
		file, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if p := file.Progs[0]; file.Machine != machine || file.Type != elf.ET_EXEC || len(file.Progs) != 1 || p.Type != elf.PT_LOAD || p.Flags != elf.PF_R|elf.PF_X ||
			p.Filesz != uint64(len(program)) || file.Entry != p.Vaddr+120 || p.Vaddr%p.Align != p.Off%p.Align {
			t.Errorf("%s: %+v", architecture, file.FileHeader)
		}
		code := program[120:]
		if handler := code[len(code)-32:]; (len(code)-32)%8 != 0 || handler[0] != 1 || !bytes.Equal(handler[1:], make([]byte, 31)) {
			t.Errorf("%s: the signal's action is %x", architecture, handler)
		}
	}
	if _, err := holderArchive("s390x"); !fault.Is(err, fault.Unsupported) {
		t.Errorf("another architecture: %v", err)
	}
	for answer, want := range map[string]string{`{"status":"Importing"}{"status":"sha256:a"}`: "sha256:a", `{"error":"full"}`: "", ``: "", `{`: ""} {
		if got, err := importedImage(strings.NewReader(answer)); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", answer, got, err)
		}
	}
}
