package docker

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func decodeCreate(body string) (neutral.Operation, []neutral.Loss, error) {
	req := dialect.Request{Method: "POST", Path: "/v1.49/containers/create?name=web", Body: []byte(body)}
	op, err := Dialect{}.Classify(req)
	if err != nil {
		return op, nil, err
	}
	return Dialect{}.Decode(op, req)
}

func TestDecodeFaults(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		kind  fault.Kind
		field string
	}{
		`{"Image":"a","Env":"A=1"}`:                                                 {fault.Invalid, "Env"},
		`{"Image":"a","Env":[1]}`:                                                   {fault.Invalid, "Env[0]"},
		`{"Image":"a","Env":["=x"]}`:                                                {fault.Invalid, "Env"},
		`{"Image":"a","Tty":"yes"}`:                                                 {fault.Invalid, "Tty"},
		`{"Image":"a","Labels":["x"]}`:                                              {fault.Invalid, "Labels"},
		`{"Image":"a","Labels":{"x":1}}`:                                            {fault.Invalid, "Labels.x"},
		`{"Image":"a","HostConfig":[]}`:                                             {fault.Invalid, "HostConfig"},
		`{"Image":"a","HostConfig":{"Memory":1.5}}`:                                 {fault.Invalid, "HostConfig.Memory"},
		`{"Image":"a","HostConfig":{"Memory":1e99}}`:                                {fault.Invalid, "HostConfig.Memory"},
		`{"Image":"a","HostConfig":{"Memory":4096}}`:                                {fault.Invalid, "HostConfig.Memory"},
		`{"Image":"a","HostConfig":{"NanoCpus":-1000000}}`:                          {fault.Invalid, "HostConfig.NanoCpus"},
		`{"Image":"a","HostConfig":{"PortBindings":{"http/tcp":[{}]}}}`:             {fault.Invalid, "HostConfig.PortBindings.http/tcp"},
		`{"Image":"a","HostConfig":{"PortBindings":{"80/icmp":[{}]}}}`:              {fault.Invalid, "HostConfig.PortBindings.80/icmp"},
		`{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}}`: {fault.Invalid, "HostConfig.PortBindings.80/tcp[0].HostPort"},
		`{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}}`:   {fault.Invalid, "HostConfig.PortBindings.80/tcp[0].HostIp"},
		`{"Image":"a","HostConfig":{"NetworkMode":"host"},"NetworkingConfig":{"EndpointsConfig":{"front":{}}}}`: {fault.Invalid, "HostConfig.NetworkMode"},
		`{"Image":"a","HostConfig":{"Binds":["a"]}}`:                                                            {fault.Invalid, "HostConfig.Binds[0]"},
		`{"Image":"a","HostConfig":{"Binds":["data:/a:rwx"]}}`:                                                  {fault.Invalid, "HostConfig.Binds[0]"},
		`{"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","Target":"a"}]}}`:                                {fault.Invalid, "HostConfig"},
		`{"Image":"a","HostConfig":{"Mounts":[{"Type":"magic","Target":"/a"}]}}`:                                {fault.Invalid, "HostConfig.Mounts[0]"},
		`{"Image":"a","HostConfig":{"Mounts":[{"Type":"npipe","Target":"/a"}]}}`:                                {fault.Unsupported, "HostConfig.Mounts[0]"},
		`{"Image":"a","HostConfig":{"VolumesFrom":["b"]}}`:                                                      {fault.Unsupported, "HostConfig.VolumesFrom"},
		`{"Image":"a","HostConfig":{"NetworkMode":"container:"}}`:                                               {fault.Invalid, "HostConfig.NetworkMode"},
		`{"Image":"a","HostConfig":{"SecurityOpt":["no-new-privileges=maybe"]}}`:                                {fault.Invalid, "HostConfig.SecurityOpt[0]"},
		`{"Image":"a","HostConfig":{"SecurityOpt":["no-new-privileges=false","label=disable"]}}`:                {fault.Unsupported, "HostConfig.SecurityOpt[1]"},
		`{"Image":"a","Healthcheck":{"Test":["true"]}}`:                                                         {fault.Invalid, "Healthcheck.Test"},
		`{"Image":"a","Healthcheck":{"Test":["NONE"],"Interval":5}}`:                                            {fault.Invalid, "Healthcheck.Interval"},
		`{"Image":"UPPER CASE"}`:            {fault.Invalid, "Image"},
		`{"Image":"a","WorkingDir":"w"}`:    {fault.Invalid, "WorkingDir"},
		`{"Image":"a","StopSignal":"LOUD"}`: {fault.Invalid, "StopSignal"},
		`{}`:                                {fault.Invalid, ""},
		`[]`:                                {fault.Invalid, ""},
		`"x"`:                               {fault.Invalid, ""},
		`null`:                              {fault.Invalid, ""},
		`nonsense`:                          {fault.Invalid, ""},
	} {
		_, _, err := decodeCreate(body)
		f := fault.Of(err)
		if err == nil || f.Kind != want.kind || f.Field != want.field {
			t.Errorf("%s: %v, kind %v field %q; want %v %q", body, err, f.Kind, f.Field, want.kind, want.field)
		}
	}
}

// TestDefaultsAreNoLosses sends what says the same as nothing.
func TestDefaultsAreNoLosses(t *testing.T) {
	t.Parallel()
	_, losses, err := decodeCreate(`{"Image":"a","StopTimeout":null,"Domainname":"","NetworkDisabled":false,"MacAddress":"",
		"HostConfig":{"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":-1,"ShmSize":67108864,"CgroupnsMode":"private",
		"IpcMode":"private","Isolation":"default","Runtime":"runc","LogConfig":{"Type":"json-file","Config":{}},"Init":false,
		"VolumeDriver":"local","Ulimits":[],"Devices":[],"MaskedPaths":null,"ConsoleSize":[0,0],"CpuQuota":-1,
		"Mounts":[{"Type":"volume","Source":"data","Target":"/a","Consistency":"default","VolumeOptions":{"NoCopy":true,"DriverConfig":{"Name":"local","Options":{}}}}]},
		"NetworkingConfig":{"EndpointsConfig":{"bridge":null}}}`)
	if err != nil || len(losses) > 0 {
		t.Errorf("%v %v", losses, err)
	}
}

func TestDecodeKeepsOrigin(t *testing.T) {
	t.Parallel()
	body := `{"Image":"busybox",  "HostConfig":{"CpuShares":512}}`
	op, _, err := decodeCreate(body)
	if err != nil || op.Container.Origin == nil || op.Container.Origin.Dialect != neutral.Docker || string(op.Container.Origin.Spec) != body {
		t.Errorf("%+v %v", op.Container, err)
	}
	if op.Object.Container != op.Container {
		t.Error("policy does not see the spec")
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "KILL": "SIGKILL", "sigterm": "SIGTERM", "9": "SIGKILL", "0": "", "64": "",
		"RTMIN+3": "SIGRTMIN+3", "SIGRTMAX-2": "SIGRTMAX-2", "RTMIN": "SIGRTMIN", "RTMIN-1": "", "RTMAX+1": "", "kil": "", "-9": ""} {
		if got := signal(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestMoments(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"1795516979": "2026-11-24T10:42:59Z", "1795516979.000000001": "2026-11-24T10:42:59.000000001Z",
		"1795516979.5": "2026-11-24T10:42:59.5Z", "2026-11-24T10:42:59+01:00": "2026-11-24T09:42:59Z", "-1": "1969-12-31T23:59:59Z",
		"x": "", "1.x": "", "1.-5": "", "": ""} {
		at, ok := parseMoment(text)
		if ok != (want != "") || ok && at.Format("2006-01-02T15:04:05.999999999Z07:00") != want {
			t.Errorf("%q is %v %v, want %q", text, at, ok, want)
		}
	}
}

func TestDetachSequence(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "\x10\x11", "a": "a", "ctrl-a,b": "\x01b", "ctrl-@,ctrl-_": "\x00\x1f", "ctrl-[": "\x1b",
		"ctrl-": "!", "ctrl-A,xx": "!", ",": "!"} {
		keys, err := detachSequence(text)
		if err != nil {
			keys = []byte("!")
		}
		if string(keys) != want {
			t.Errorf("%q is %q, want %q", text, keys, want)
		}
	}
}

// FuzzDecode wants a spec or a fault of every body, and the same of the same body again.
func FuzzDecode(f *testing.F) {
	f.Add("/v1.49/containers/create?name=web", `{"Image":"busybox","HostConfig":{"Binds":["data:/data:ro,z"],"PortBindings":{"80/tcp":[{"HostPort":"80-81"}]}}}`)
	f.Add("/v1.49/services/create", `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"a","Hosts":["1 b"]}},"Mode":{"ReplicatedJob":{}}}`)
	f.Add("/v1.49/services/s/update?version=1", `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"a"}}}`)
	f.Add("/v1.49/containers/c/exec", `{"Cmd":["ls"],"ConsoleSize":[1,2]}`)
	f.Add("/v1.49/containers/c/update", `{"NanoCpus":1}`)
	f.Add("/v1.49/exec/e/start", `{"Detach":true}`)
	f.Add("/v1.49/networks/create", `{"Name":"front","IPAM":{"Config":[{"Subnet":"10.0.0.0/8"}]},"Internal":true}`)
	f.Add("/v1.49/networks/front/connect", `{"Container":"web","EndpointConfig":{"Aliases":["a"]}}`)
	f.Add("/v1.49/secrets/create", `{"Name":"key","Data":"aGVsbG8="}`)
	f.Add("/v1.49/volumes/create", `{"Name":"data","Driver":"local","DriverOpts":{"size":"1Gi"},"Labels":{"a":"b"}}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		req := dialect.Request{Method: "POST", Path: path, Body: []byte(body)}
		op, err := Dialect{}.Classify(req)
		if err != nil {
			return
		}
		once, losses, err := Dialect{}.Decode(op, req)
		again, lossesAgain, errAgain := Dialect{}.Decode(op, req)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || !slices.Equal(losses, lossesAgain) {
			t.Errorf("%s %q: %v %v, then %v %v", path, body, err, losses, errAgain, lossesAgain)
		}
		if err != nil {
			if f := fault.Of(err); f.Kind == fault.Internal {
				t.Errorf("%s %q: internal error %v", path, body, err)
			}
			return
		}
		a, errA := json.Marshal(once)
		b, errB := json.Marshal(again)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("%s %q: %s, then %s", path, body, a, b)
		}
		if needsJSON[op.Action] && !json.Valid(req.Body) {
			t.Errorf("%s: %q is no JSON and was taken", path, body)
		}
	})
}

// FuzzFilters wants filters or a fault.
func FuzzFilters(f *testing.F) {
	f.Add(`{"label":{"a=b":true}}`)
	f.Add(`{"name":["^/web$"],"status":["running"]}`)
	f.Add(`{"exited":["x"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, path := range []string{"/containers/json", "/services", "/tasks", "/nodes", "/images/json", "/networks", "/volumes", "/events"} {
			req := dialect.Request{Method: "GET", Path: path + "?filters=" + url.QueryEscape(text)}
			op, err := Dialect{}.Classify(req)
			if err != nil {
				t.Fatal(err)
			}
			op, _, err = Dialect{}.Decode(op, req)
			if err != nil {
				if k := fault.Of(err).Kind; k != fault.Invalid && k != fault.Unsupported {
					t.Errorf("%s %q: %v", path, text, err)
				}
				continue
			}
			if op.Action.Stream() {
				continue
			}
			if _, err := (Dialect{}).Encode(op, req, neutral.Result{}); err != nil {
				t.Errorf("%s %q: %v", path, text, err)
			}
		}
	})
}

// FuzzTree compares the tree with encoding/json: both take a document, or neither does but for what is stricter here.
func FuzzTree(f *testing.F) {
	f.Add(`{"a":[1,true,null,"x",{"b":1.5e3}]}`)
	f.Add(`{"a":1,"a":2}`)
	f.Add(`[[[[]]]]`)
	f.Fuzz(func(t *testing.T, text string) {
		root, err := parseTree([]byte(text))
		valid := json.Valid([]byte(text))
		switch {
		case err == nil && !valid:
			t.Errorf("%q is no JSON and was taken", text)
		case err != nil && valid && !strings.Contains(err.Error(), "twice") && !strings.Contains(err.Error(), "deeper"):
			t.Errorf("%q is JSON and was refused: %v", text, err)
		case err == nil:
			left := 0
			root.leftover(func(*tree) { left++ })
			if zero := root.zero(); zero != (left == 0) {
				t.Errorf("%q: zero %v, %d left", text, zero, left)
			}
		}
	})
}
