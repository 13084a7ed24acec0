package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// leaf is one value that a vendor's type can hold, somewhere in a document.
type leaf struct {
	steps []any // string: a field or key; int: a position
	value any
}

func (l leaf) path() string {
	var b strings.Builder
	for _, s := range l.steps {
		switch s := s.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", s)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s)
		}
	}
	return b.String()
}

// leavesOf finds every leaf of a type as encoding/json writes it.
func leavesOf(t reflect.Type, steps []any) []leaf {
	at := func(s any) []any { return append(slices.Clone(steps), s) }
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return []leaf{{steps, "192.0.2.7"}}
	case reflect.TypeFor[network.HardwareAddr]():
		return []leaf{{steps, "02:42:ac:11:00:02"}}
	case reflect.TypeFor[time.Duration]():
		return []leaf{{steps, json.Number("7000000000")}}
	case reflect.TypeFor[[]byte]():
		return []leaf{{steps, "AAAA"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return leavesOf(t.Elem(), steps)
	case reflect.Bool:
		return []leaf{{steps, true}}
	case reflect.String:
		return []leaf{{steps, "value"}}
	case reflect.Slice:
		return leavesOf(t.Elem(), at(0))
	case reflect.Array:
		return []leaf{{steps, []any{json.Number("40"), json.Number("80")}}}
	case reflect.Map:
		key := "key"
		if t.Key() == reflect.TypeFor[network.Port]() {
			key = "80/tcp"
		}
		if last := steps[len(steps)-1]; last == "Volumes" || last == "Tmpfs" {
			key = "/key"
		}
		return leavesOf(t.Elem(), at(key))
	case reflect.Struct:
		if t.NumField() == 0 {
			return []leaf{{steps, map[string]any{}}}
		}
		var all []leaf
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-":
			case f.Anonymous && name == "":
				all = append(all, leavesOf(f.Type, steps)...)
			case name == "":
				all = append(all, leavesOf(f.Type, at(f.Name))...)
			default:
				all = append(all, leavesOf(f.Type, at(name))...)
			}
		}
		return all
	default:
		return []leaf{{steps, json.Number("11000000")}}
	}
}

// setLeaf sets a leaf in a document.
func setLeaf(doc any, steps []any, value any) any {
	if len(steps) == 0 {
		return value
	}
	switch s := steps[0].(type) {
	case string:
		m, _ := doc.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		m[s] = setLeaf(m[s], steps[1:], value)
		return m
	case int:
		list, _ := doc.([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list[0] = setLeaf(list[0], steps[1:], value)
		return list
	}
	return doc
}

// candidate is a vendor type, how documents of it start, values that are valid where "value" is not, and what must stand
// beside a leaf for it to count.
type candidate struct {
	action neutral.Action
	path   string
	kind   reflect.Type
	values map[string]any
	base   map[string]string // leaf path prefix -> JSON of the document that it is put into
	inert  []string          // leaves without an effect beyond the client, or beyond what is said elsewhere
}

var candidates = map[string]candidate{
	"container": {
		action: neutral.ContainerCreate, path: "/v1.49/containers/create", kind: reflect.TypeFor[container.CreateRequest](),
		values: map[string]any{
			"Image": "nginx", "Env[0]": "A=1", "WorkingDir": "/w", "StopSignal": "SIGINT", "Healthcheck.Test[0]": "NONE",
			"HostConfig.RestartPolicy.Name": "always", "HostConfig.Binds[0]": "vol:/v", "HostConfig.ExtraHosts[0]": "h:192.0.2.9",
			"HostConfig.PortBindings.80/tcp[0].HostPort": "8080", "HostConfig.RestartPolicy.MaximumRetryCount": json.Number("3"),
			"HostConfig.Mounts[0].Type": "volume", "HostConfig.Mounts[0].Target": "/m", "HostConfig.Mounts[0].Source": "src",
			"HostConfig.Tmpfs./key": "size=64m", "HostConfig.CpuPeriod": json.Number("50000"),
		},
		base: map[string]string{
			"": `{"Image":"busybox"}`,
			"HostConfig.RestartPolicy.MaximumRetryCount": `{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"on-failure"}}}`,
			"HostConfig.Mounts[0]":                       `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"volume","Source":"vol","Target":"/x"}]}}`,
			"HostConfig.Mounts[0].TmpfsOptions":          `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/x"}]}}`,
			"HostConfig.Mounts[0].Type":                  `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/x"}]}}`,
			"HostConfig.Tmpfs":                           `{"Image":"busybox"}`,
		},
		inert: []string{"AttachStdin", "AttachStdout", "AttachStderr", "NetworkingConfig.EndpointsConfig.key.NetworkID",
			"HostConfig.Mounts[0].ClusterOptions",
			"HostConfig.Mounts[0].VolumeOptions.NoCopy"}, // asks for what the target does anyway
	},
	"workload": {
		action: neutral.WorkloadCreate, path: "/v1.49/services/create", kind: reflect.TypeFor[swarm.ServiceSpec](),
		values: map[string]any{
			"Name": "other", "TaskTemplate.ContainerSpec.Image": "nginx", "TaskTemplate.ContainerSpec.Env[0]": "A=1",
			"TaskTemplate.ContainerSpec.Healthcheck.Test[0]": "NONE", "TaskTemplate.ContainerSpec.Hosts[0]": "192.0.2.9 h",
			"TaskTemplate.RestartPolicy.Condition": "none", "UpdateConfig.Order": "start-first", "UpdateConfig.FailureAction": "continue",
			"EndpointSpec.Ports[0].Protocol": "udp", "EndpointSpec.Ports[0].TargetPort": json.Number("81"),
			"EndpointSpec.Ports[0].PublishedPort": json.Number("8080"), "EndpointSpec.Ports[0].PublishMode": "host",
			"TaskTemplate.ContainerSpec.Mounts[0].Type": "volume", "TaskTemplate.ContainerSpec.Mounts[0].Target": "/m",
			"TaskTemplate.ContainerSpec.Mounts[0].Source": "src",
		},
		base: map[string]string{
			"":                                                  `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`,
			"TaskTemplate.RestartPolicy.MaxAttempts":            `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox"},"RestartPolicy":{"Condition":"on-failure"}}}`,
			"EndpointSpec.Ports[0]":                             `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}},"EndpointSpec":{"Ports":[{"TargetPort":80}]}}`,
			"TaskTemplate.ContainerSpec.Mounts[0]":              `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox","Mounts":[{"Type":"volume","Source":"vol","Target":"/x"}]}}}`,
			"TaskTemplate.ContainerSpec.Secrets[0]":             `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox","Secrets":[{"SecretName":"a"}]}}}`,
			"TaskTemplate.ContainerSpec.Configs[0]":             `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox","Configs":[{"ConfigName":"a"}]}}}`,
			"TaskTemplate.ContainerSpec.Mounts[0].TmpfsOptions": `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox","Mounts":[{"Type":"tmpfs","Target":"/x"}]}}}`,
			"TaskTemplate.ContainerSpec.Mounts[0].Type":         `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox","Mounts":[{"Type":"tmpfs","Target":"/x"}]}}}`,
		},
		// Empty objects: the reference or the mount's type that they stand in is what is refused.
		inert: []string{"TaskTemplate.ContainerSpec.Configs[0].Runtime", "TaskTemplate.ContainerSpec.Mounts[0].ClusterOptions",
			"TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions.NoCopy",
			// The name beside each says which one is meant.
			"TaskTemplate.ContainerSpec.Secrets[0].SecretID", "TaskTemplate.ContainerSpec.Configs[0].ConfigID"},
	},
	"network": {
		action: neutral.NetworkCreate, path: "/v1.49/networks/create", kind: reflect.TypeFor[network.CreateRequest](),
		values: map[string]any{"Name": "other", "Driver": "overlay"},
		base:   map[string]string{"": `{"Name":"front"}`},
		inert:  []string{"EnableIPv4"}, // what every network has
	},
	"member": {
		action: neutral.NetworkJoin, path: "/v1.49/networks/front/connect", kind: reflect.TypeFor[network.ConnectRequest](),
		base:  map[string]string{"": `{"Container":"web"}`},
		inert: []string{"EndpointConfig.NetworkID"},
	},
	"volume": {
		action: neutral.VolumeCreate, path: "/v1.49/volumes/create", kind: reflect.TypeFor[volume.CreateRequest](),
		base: map[string]string{"": `{}`},
	},
	"exec": {
		action: neutral.ExecCreate, path: "/v1.49/containers/c/exec", kind: reflect.TypeFor[container.ExecCreateRequest](),
		values: map[string]any{"Env[0]": "A=1"},
		base:   map[string]string{"": `{"Cmd":["ls"]}`},
	},
	"update": {
		action: neutral.ContainerUpdate, path: "/v1.49/containers/c/update", kind: reflect.TypeFor[container.UpdateConfig](),
		values: map[string]any{"RestartPolicy.Name": "always", "RestartPolicy.MaximumRetryCount": json.Number("3"), "CpuPeriod": json.Number("50000")},
		base:   map[string]string{"": `{}`, "RestartPolicy.MaximumRetryCount": `{"RestartPolicy":{"Name":"on-failure"}}`},
	},
}

// document is what a leaf is put into: that of the longest prefix.
func (c candidate) document(t *testing.T, l leaf) map[string]any {
	t.Helper()
	text, longest := c.base[""], -1
	for prefix, candidate := range c.base {
		if strings.HasPrefix(l.path(), prefix) && len(prefix) > longest {
			text, longest = candidate, len(prefix)
		}
	}
	var doc map[string]any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// outcome is what Decode made of a document, as text: the operation without the caller's own document, and the losses.
func (c candidate) outcome(t *testing.T, doc any) (string, []neutral.Loss, error) {
	t.Helper()
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	req := dialect.Request{Method: "POST", Path: c.path, Body: body}
	op, err := Dialect{}.Classify(req)
	if err != nil {
		t.Fatal(err)
	}
	op, losses, err := Dialect{}.Decode(op, req)
	if err != nil {
		return "", nil, err
	}
	if op.Container != nil {
		op.Container.Origin = nil
	}
	if op.Workload != nil {
		op.Workload.Origin = nil
	}
	text, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), losses, nil
}

func covered(losses []neutral.Loss, path string) bool {
	return slices.ContainsFunc(losses, func(l neutral.Loss) bool {
		return path == l.Field || strings.HasPrefix(path, l.Field+".") || strings.HasPrefix(path, l.Field+"[")
	})
}

// TestNothingIsDroppedSilently sets every field that the vendor's types have, one by one: each is carried, reported as
// lost, or refused by name.
func TestNothingIsDroppedSilently(t *testing.T) {
	t.Parallel()
	for name, c := range candidates {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			carried, lost, refused := 0, 0, 0
			for _, l := range leavesOf(c.kind, nil) {
				if v, ok := c.values[l.path()]; ok {
					l.value = v
				}
				if slices.Contains(c.inert, l.path()) {
					continue
				}
				before, _, err := c.outcome(t, c.document(t, l))
				if err != nil {
					t.Fatalf("%s: the document without it fails: %v", l.path(), err)
				}
				after, losses, err := c.outcome(t, setLeaf(c.document(t, l), l.steps, l.value))
				var f *fault.Error
				switch {
				case errors.As(err, &f):
					refused++
					if f.Kind != fault.Unsupported {
						t.Errorf("%s: a valid value is refused as %v: %v", l.path(), f.Kind, err)
					}
					root, _, _ := strings.Cut(l.path(), "[")
					if !strings.Contains(f.Message, strings.TrimSuffix(root, ".key")) && !strings.HasPrefix(l.path(), f.Field) {
						t.Errorf("%s: the refusal does not name it: %v (%s)", l.path(), err, f.Field)
					}
				case covered(losses, l.path()):
					lost++
				case before != after:
					carried++
				default:
					t.Errorf("%s = %v is dropped silently", l.path(), l.value)
				}
			}
			t.Logf("%d carried, %d reported as lost, %d refused", carried, lost, refused)
			if carried == 0 {
				t.Error("nothing was carried: the test looks at nothing")
			}
		})
	}
}

// TestNothingIsDroppedTogether puts many fields into one document, and takes each out again: that must show.
func TestNothingIsDroppedTogether(t *testing.T) {
	t.Parallel()
	for name, c := range candidates {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			leaves := leavesOf(c.kind, nil)
			shown := 0
			for range 150 {
				var picked []leaf
				doc := any(c.document(t, leaf{}))
				for range 1 + random.IntN(8) {
					l := leaves[random.IntN(len(leaves))]
					if v, ok := c.values[l.path()]; ok {
						l.value = v
					}
					if slices.Contains(c.inert, l.path()) || slices.ContainsFunc(picked, func(p leaf) bool { return p.path() == l.path() }) {
						continue
					}
					with := setLeaf(clone(t, doc), l.steps, l.value)
					if _, _, err := c.outcome(t, with); err == nil {
						doc, picked = with, append(picked, l)
					}
				}
				whole, losses, err := c.outcome(t, doc)
				if err != nil {
					t.Fatal(err)
				}
				for i, out := range picked {
					rest := any(c.document(t, leaf{}))
					for j, l := range picked {
						if i != j {
							rest = setLeaf(rest, l.steps, l.value)
						}
					}
					without, _, err := c.outcome(t, rest)
					if err == nil && without == whole && !covered(losses, out.path()) {
						t.Errorf("%s is dropped silently from %v", out.path(), doc)
					}
					shown++
				}
			}
			if shown < 100 {
				t.Errorf("only %d fields were looked at", shown)
			}
		})
	}
}

func clone(t *testing.T, doc any) any {
	t.Helper()
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	if err := decoder.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
