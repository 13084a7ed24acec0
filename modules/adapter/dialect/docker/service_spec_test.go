package docker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func fullWorkload() neutral.Workload {
	grace := 7
	return neutral.Workload{Name: "web", Mode: neutral.ModeReplicated, Replicas: 3, Placement: []string{"node.labels.zone==a"}, Force: 2,
		Update: &neutral.UpdatePolicy{Parallelism: 2, Delay: time.Second, Order: "start-first", OnFailure: "rollback"},
		Template: neutral.Container{
			Image: "web:1", Entrypoint: []string{"/bin/web"}, Command: []string{"-v"}, Env: []string{"A=b"}, WorkingDir: "/srv", User: "1:2",
			Groups: []string{"3"}, Hostname: "h", TTY: true, Stdin: true, Labels: map[string]string{"tier": "front"}, StopSignal: "SIGINT",
			StopTimeout: &grace, Restart: neutral.RestartPolicy{Mode: neutral.RestartOnFailure, Max: 4}, Network: neutral.NetworkBridge,
			Resources: neutral.Resources{MilliCPU: 500, MilliCPUReserved: 100, Memory: 64 << 20, MemoryReserved: 32 << 20},
			Ports:     []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp"}, {Container: 53, Publish: true, Protocol: "udp", HostMode: true}},
			Mounts: []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}, {Type: "bind", Source: "/srv", Target: "/srv", ReadOnly: true},
				{Type: "tmpfs", Target: "/tmp", Size: 1 << 20}, {Type: "volume", Target: "/anonymous"}},
			Files: []neutral.MountedFile{{Kind: neutral.KindSecret, Name: "key", Target: "/run/secrets/key", Mode: 0o400},
				{Kind: neutral.KindConfig, Name: "page", Target: "/www/page", Mode: 0o444}},
			ExtraHosts: []string{"db:10.0.0.1"}, DNS: []string{"10.0.0.2"}, DNSSearch: []string{"example"}, DNSOptions: []string{"ndots:2"},
			Security: neutral.Security{CapAdd: []string{"CAP_NET_ADMIN"}, CapDrop: []string{"ALL"}, ReadOnlyRoot: true, NoNewPrivileges: true,
				Seccomp: neutral.ProfileUnconfined, AppArmor: neutral.ProfileUnconfined, Sysctls: map[string]string{"net.core.somaxconn": "9"}},
			Health: &neutral.HealthCheck{Test: []string{"CMD", "true"}, Interval: time.Second, Timeout: time.Second, StartPeriod: time.Second, Retries: 2},
		}}
}

// written is a workload as a spec, and read again.
func written(t *testing.T, w neutral.Workload, namespace string) (swarm.ServiceSpec, *service, *specBuilder) {
	t.Helper()
	b := &specBuilder{namespace: namespace, version: newestVersion}
	spec := b.serviceSpec(&w)
	b.files(spec.TaskTemplate.ContainerSpec, w.Template.Files, nil)
	if b.err != nil {
		t.Fatal(b.err)
	}
	spec.Labels = labelsIn(namespace, w.Labels)
	s, err := serviceFromSwarm(swarm.Service{Spec: spec}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return spec, s, b
}

// A workload comes back as it was made.
func TestServiceSpecBothWays(t *testing.T) {
	t.Parallel()
	job, global, globalJob := fullWorkload(), fullWorkload(), fullWorkload()
	job.Mode, job.Update = neutral.ModeJob, nil
	global.Mode, global.Replicas = neutral.ModeGlobal, 0
	globalJob.Mode, globalJob.Replicas, globalJob.Update = neutral.ModeGlobalJob, 0, nil
	for name, w := range map[string]neutral.Workload{"replicated": fullWorkload(), "job": job, "global": global, "global job": globalJob} {
		spec, s, b := written(t, w, "shop")
		if spec.Name != "shop_web" || spec.TaskTemplate.ContainerSpec.Mounts[0].Source != "shop_data" ||
			spec.TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions.Labels[labelStack] != "shop" ||
			spec.TaskTemplate.ContainerSpec.Configs[0].ConfigName != "shop_page" {
			t.Errorf("%s: %+v", name, spec)
		}
		want := w
		want.Namespace, want.Native, want.Desired, want.Version = "shop", nativeService, w.Replicas, "0"
		want.Labels = map[string]string{labelStack: "shop"}
		want.Template.Namespace = "shop"
		want.Template.Labels = map[string]string{"tier": "front", labelStack: "shop"}
		if diff := cmp.Diff(want, s.shown(), cmpopts.SortSlices(func(x, y neutral.Port) bool { return x.Container < y.Container })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(b.losses) > 0 {
			t.Errorf("%s loses %v", name, b.losses)
		}
	}
}

func TestServiceSpecRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*neutral.Workload){
		"privileged": func(w *neutral.Workload) { w.Template.Security.Privileged = true },
		"hostPID":    func(w *neutral.Workload) { w.Template.Security.PIDMode = "host" },
		"hostIPC":    func(w *neutral.Workload) { w.Template.Security.IPCMode = "host" },
		"devices":    func(w *neutral.Workload) { w.Template.Security.Devices = []string{"/dev/kvm"} },
		"procMount":  func(w *neutral.Workload) { w.Template.Security.UnmaskedPaths = true },
		"seccomp":    func(w *neutral.Workload) { w.Template.Security.Seccomp = neutral.ProfileCustom },
		"appArmor":   func(w *neutral.Workload) { w.Template.Security.AppArmor = neutral.Local("x") },
		"network":    func(w *neutral.Workload) { w.Template.Network = neutral.NetworkNone },
		"containers": func(w *neutral.Workload) { w.Template.Siblings = 1 },
		"hostIP":     func(w *neutral.Workload) { w.Template.Ports[0].HostIP = "127.0.0.1" },
		"mode":       func(w *neutral.Workload) { w.Mode = "odd" },
	} {
		w := fullWorkload()
		change(&w)
		b := &specBuilder{namespace: "shop", version: newestVersion}
		b.serviceSpec(&w)
		if !fault.Is(b.err, fault.Unsupported) || !strings.Contains(b.err.Error(), name) {
			t.Errorf("%s: %v", name, b.err)
		}
	}
	// An engine that would not read what bounds a container's rights is not asked.
	w := fullWorkload()
	b := &specBuilder{version: apiVersion{1, 41}}
	if b.serviceSpec(&w); !fault.Is(b.err, fault.Unsupported) {
		t.Errorf("an old engine: %v", b.err)
	}
	w.Template.Security.NoNewPrivileges, w.Template.Security.Seccomp, w.Template.Security.AppArmor = false, "", ""
	b = &specBuilder{version: apiVersion{1, 41}}
	if b.serviceSpec(&w); b.err != nil {
		t.Errorf("an old engine: %v", b.err)
	}
	for name, change := range map[string]func(*neutral.Workload){
		"image": func(w *neutral.Workload) { w.Template.Image = "" },
		"dns":   func(w *neutral.Workload) { w.Template.DNS = []string{"x"} },
		"host":  func(w *neutral.Workload) { w.Template.ExtraHosts = []string{"x"} },
	} {
		w := fullWorkload()
		change(&w)
		b := &specBuilder{version: newestVersion}
		if b.serviceSpec(&w); !fault.Is(b.err, fault.Invalid) {
			t.Errorf("%s: %v", name, b.err)
		}
	}
}

// liveSpec is a service that has what no caller knows of.
const liveSpec = `{"Name":"shop_web","Labels":{"com.docker.stack.namespace":"shop","isthmus.io/origin-peer":"east"},
"TaskTemplate":{"ContainerSpec":{"Labels":{"com.docker.stack.namespace":"shop"},"Image":"web:1@sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa","Init":true,
"Ulimits":[{"Name":"nofile","Soft":5,"Hard":5}],"Privileges":{"SELinuxContext":{"Disable":true}},
"Mounts":[{"Type":"volume","Source":"shop_data","Target":"/data","VolumeOptions":{"NoCopy":true}}],
"Secrets":[{"SecretID":"s1","SecretName":"shop_key","File":{"Name":"key","UID":"7","GID":"8","Mode":292}}]},
"Resources":{"Limits":{"Pids":9,"MemoryBytes":67108864}},"RestartPolicy":{"Condition":"any","Delay":7},
"Placement":{"Constraints":["node.role==worker"],"MaxReplicas":2},"Networks":[{"Target":"n1"}],"LogDriver":{"Name":"json-file"},"ForceUpdate":1},
"Mode":{"Replicated":{"Replicas":2}},"UpdateConfig":{"Parallelism":1,"Monitor":9,"Order":"stop-first"},"RollbackConfig":{"Parallelism":3},
"EndpointSpec":{"Mode":"dnsrr","Ports":[{"TargetPort":80,"PublishedPort":8080,"Protocol":"tcp","PublishMode":"host"}]}}`

// changed applies a change to the live service.
func changed(t *testing.T, change func(*neutral.Workload)) (before, after swarm.ServiceSpec, err error) {
	t.Helper()
	for _, to := range []*swarm.ServiceSpec{&before, &after} {
		if err := json.Unmarshal([]byte(liveSpec), to); err != nil {
			t.Fatal(err)
		}
	}
	s, err := serviceFromSwarm(swarm.Service{Spec: before}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := serviceFromSwarm(swarm.Service{Spec: before}, nil)
	if err != nil {
		t.Fatal(err)
	}
	was, is := s.shown(), again.shown()
	change(&is)
	c := &specChange{specBuilder: specBuilder{namespace: "shop", version: newestVersion}, was: &was, is: &is}
	asked := is
	c.narrow(&asked)
	built := c.serviceSpec(&asked)
	c.files(built.TaskTemplate.ContainerSpec, is.Template.Files, map[neutral.MountedFile]string{
		{Kind: neutral.KindSecret, Name: "key"}: "s1", {Kind: neutral.KindSecret, Name: "other"}: "s2"})
	if c.err == nil {
		err = c.apply(&after, built)
	} else {
		err = c.err
	}
	return before, after, err
}

// What a caller does not know of a service stays, and nothing changes that was not changed.
func TestServiceChange(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*neutral.Workload)
		want   func(*swarm.ServiceSpec)
	}{
		"nothing": {func(*neutral.Workload) {}, func(*swarm.ServiceSpec) {}},
		"as another orchestrator writes the same": {func(w *neutral.Workload) {
			w.Template.Restart, w.Update, w.Template.StopTimeout = neutral.RestartPolicy{}, nil, nil
			w.Template.Security.Seccomp, w.Template.Security.AppArmor = "", ""
			w.Template.Env, w.Template.Ports[0].Protocol = []string{}, ""
		}, func(*swarm.ServiceSpec) {}},
		"replicas": {func(w *neutral.Workload) { w.Replicas = 5 }, func(s *swarm.ServiceSpec) { *s.Mode.Replicated.Replicas = 5 }},
		"image": {func(w *neutral.Workload) { w.Template.Image = "web:2" },
			func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "web:2" }},
		"memory": {func(w *neutral.Workload) { w.Template.Resources.Memory = 1 << 30 },
			func(s *swarm.ServiceSpec) {
				s.TaskTemplate.Resources.Limits.MemoryBytes = 1 << 30
				s.TaskTemplate.Resources.Reservations = &swarm.Resources{}
			}},
		"restart": {func(w *neutral.Workload) { w.Template.Restart.Mode = neutral.RestartNo },
			func(s *swarm.ServiceSpec) { s.TaskTemplate.RestartPolicy.Condition = "none" }},
		"placement": {func(w *neutral.Workload) { w.Placement = []string{"a==b"} },
			func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement.Constraints = []string{"a==b"} }},
		"rollout": {func(w *neutral.Workload) { w.Update.Parallelism = 4 }, func(s *swarm.ServiceSpec) { s.UpdateConfig.Parallelism = 4 }},
		"force":   {func(w *neutral.Workload) { w.Force = 2 }, func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate = 2 }},
		"ports": {func(w *neutral.Workload) { w.Template.Ports[0].Published = 81 },
			func(s *swarm.ServiceSpec) { s.EndpointSpec.Ports[0].PublishedPort = 81 }},
		"a file more": {func(w *neutral.Workload) {
			w.Template.Files = append(w.Template.Files, neutral.MountedFile{Kind: neutral.KindSecret, Name: "other", Target: "/o", Mode: 0o444})
		}, func(s *swarm.ServiceSpec) {
			c := s.TaskTemplate.ContainerSpec
			c.Secrets = append(c.Secrets, &swarm.SecretReference{SecretID: "s2", SecretName: "shop_other",
				File: &swarm.SecretReferenceFileTarget{Name: "/o", UID: "0", GID: "0", Mode: 0o444}})
		}},
		"a capability": {func(w *neutral.Workload) { w.Template.Security.CapAdd = []string{"CAP_CHOWN"} },
			func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.CapabilityAdd = []string{"CAP_CHOWN"} }},
		"no new privileges": {func(w *neutral.Workload) { w.Template.Security.NoNewPrivileges = true },
			func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges = true }},
	} {
		want, got, err := changed(t, test.change)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		test.want(&want)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(swarm.PortConfig{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, _, err := changed(t, func(w *neutral.Workload) { w.Template.Security.Privileged = true }); !fault.Is(err, fault.Unsupported) {
		t.Errorf("privileged: %v", err)
	}
}

func TestTaskFromSwarm(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC)
	s, err := serviceFromSwarm(swarm.Service{ID: "svc", Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "shop_web",
		Labels: map[string]string{labelStack: "shop"}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	native := swarm.Task{ID: "t1", ServiceID: "svc", Slot: 2, NodeID: "n1", DesiredState: "shutdown", Meta: swarm.Meta{Version: swarm.Version{Index: 9}, CreatedAt: at},
		Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}},
		Status: swarm.TaskStatus{State: "failed", Timestamp: at, Err: "task: non-zero exit (3)",
			ContainerStatus: &swarm.ContainerStatus{ContainerID: "c1", ExitCode: 3}}}
	got, err := taskFromSwarm(native, s, map[string]string{"n1": "node-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "web.2" || got.Node != "node-1" || got.NodeID != "n1" || got.ExitCode != 3 || got.Version != "9" || got.State != "failed" ||
		got.Container.ID != "c1" || got.Container.State.Status != neutral.StatusExited || !got.Container.State.FinishedAt.Equal(at) ||
		got.Container.Owner.Name != "web" || got.Container.Namespace != "shop" || got.Err == "" {
		t.Errorf("%+v", got.Task)
	}
	native.Slot, native.Status.State = 0, "running"
	if got, err = taskFromSwarm(native, s, nil, nil); err != nil || got.Name != "web.n1" || !got.Container.State.StartedAt.Equal(at) {
		t.Errorf("%v, %+v", err, got.Task)
	}
}
