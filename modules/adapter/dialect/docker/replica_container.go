package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
)

// Members of an inspected container that are its own, and no part of what it was made by. Config, HostConfig and the
// networks are what the copy is made of; what is in none of the three is told.
var ownOfContainer = []string{"Id", "Created", "Path", "Args", "State", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Name",
	"RestartCount", "Driver", "Platform", "MountLabel", "ProcessLabel", "AppArmorProfile", "ExecIDs", "GraphDriver", "Storage", "SizeRw",
	"SizeRootFs", "Mounts", "ImageManifestDescriptor", "NetworkSettings"}

// container reads a container, and its image for the digest.
func (r *replicator) container(ctx context.Context, name string) error {
	inspect, err := r.get(ctx, "/containers/"+url.PathEscape(name)+"/json")
	if err != nil {
		return err
	}
	image := replica.Text(inspect, "Config", "Image")
	if err := r.containerDraft(inspect); err != nil {
		return err
	}
	r.draft.Body["Image"] = r.image(ctx, "Config.Image", image)
	pulled := url.Values{"fromImage": {r.draft.Body["Image"].(string)}}
	r.draft.Pull = &dialect.Request{Method: http.MethodPost, Path: "/images/create?" + pulled.Encode()}
	return nil
}

// containerDraft is the pure part: what a container that was inspected is made by.
func (r *replicator) containerDraft(inspect map[string]any) error {
	config, okConfig := replica.Clone(inspect["Config"]).(map[string]any)
	host, okHost := replica.Clone(inspect["HostConfig"]).(map[string]any)
	if !okConfig || !okHost {
		return unlike("container")
	}
	for _, key := range slices.Sorted(maps.Keys(inspect)) {
		if key != "Config" && key != "HostConfig" && !slices.Contains(ownOfContainer, key) && !replica.Empty(inspect[key]) {
			r.left(key, "it is not known what this is")
		}
	}
	id, _ := inspect["Id"].(string)
	if hostname, _ := config["Hostname"].(string); hostname != "" && strings.HasPrefix(id, hostname) {
		delete(config, "Hostname") // of the id
	}
	if !replica.Empty(config["MacAddress"]) {
		r.left("Config.MacAddress", "an address is the source's own")
		delete(config, "MacAddress")
	}
	r.labels("Config.Labels", config)
	r.host(host)
	config["HostConfig"] = host
	config["NetworkingConfig"] = map[string]any{"EndpointsConfig": r.endpoints(replica.Object(inspect, "NetworkSettings", "Networks"), replica.Text(host, "NetworkMode"), id)}
	r.draft.Body = config
	r.requests("containers", "?"+url.Values{"name": {r.target()}}.Encode())
	r.draft.Remove.Path += "?force=1&v=1"
	if running, _ := replica.Object(inspect, "State")["Running"].(bool); running {
		r.draft.After = []dialect.Request{{Method: http.MethodPost, Path: "/containers/" + url.PathEscape(r.target()) + "/start"}}
	}
	return nil
}

// Members of HostConfig that engines set by themselves where nobody said anything. Such a value is left to the target.
var hostDefaults = map[string]func(any) bool{
	"ContainerIDFile": func(any) bool { return true },
	"ConsoleSize":     func(any) bool { return true },
	"ShmSize":         func(v any) bool { return fmt.Sprint(v) == "67108864" },
	"CgroupnsMode":    is("private"), "IpcMode": is("private"), "Runtime": is("runc"), "Isolation": is("default"),
	"MaskedPaths": nothingBut("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/interrupts",
		"/sys/devices/system/cpu/*/thermal_throttle"),
	"ReadonlyPaths": nothingBut("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
	"LogConfig": func(v any) bool {
		log, _ := v.(map[string]any)
		return log["Type"] == "json-file" && replica.Empty(log["Config"])
	},
}

func is(text string) func(any) bool { return func(v any) bool { return v == text } }

// nothingBut tells lists of nothing but some texts; engines of one version have more of them than others.
func nothingBut(texts ...string) func(any) bool {
	return func(v any) bool {
		list, _ := v.([]any)
		for _, element := range list {
			if text, ok := element.(string); !ok || !slices.Contains(texts, text) &&
				!strings.HasPrefix(text, "/sys/devices/system/cpu/") {
				return false
			}
		}
		return len(list) > 0
	}
}

// host takes out of a HostConfig what is the host's.
func (r *replicator) host(host map[string]any) {
	for key, byDefault := range hostDefaults {
		if value, ok := host[key]; ok && byDefault(value) {
			delete(host, key)
		}
	}
	r.binds(host)
	host["Mounts"] = r.mounts("HostConfig.Mounts", replica.List(host, "Mounts"))
	r.bindings(replica.Object(host, "PortBindings"))
	for _, key := range []string{"NetworkMode", "IpcMode", "PidMode", "UTSMode", "UsernsMode", "Cgroup"} {
		if mode, _ := host[key].(string); strings.HasPrefix(mode, "container:") {
			r.needed("HostConfig."+key, "it shares this with another container, "+strings.TrimPrefix(mode, "container:"))
			delete(host, key)
		}
	}
	if r.same() {
		return
	}
	r.powers(host)
	for _, of := range [][2]string{ // what engines of hosts with cgroups of version 1 set by themselves is not told from a wish
		{"CgroupParent", "it is of the source's host"}, {"CgroupnsMode", "the source's host has it so by default"},
		{"Dns", "addresses are the source's cluster's"}, {"ExtraHosts", "addresses are the source's cluster's"},
	} {
		if !replica.Empty(host[of[0]]) {
			r.left("HostConfig."+of[0], of[1])
			delete(host, of[0])
		}
	}
	for _, key := range []string{"VolumesFrom", "Links"} {
		if !replica.Empty(host[key]) {
			r.needed("HostConfig."+key, "it names other containers of the source's cluster")
			delete(host, key)
		}
	}
}

// powers tells what a copy takes along by which it may do more at its new host than other containers.
func (r *replicator) powers(host map[string]any) {
	for _, key := range []string{"CapAdd", "DeviceCgroupRules", "DeviceRequests", "Devices", "IpcMode", "NetworkMode", "PidMode", "Privileged",
		"SecurityOpt", "UTSMode", "UsernsMode"} {
		value := host[key]
		_, mode := value.(string)
		if replica.Empty(value) || value == false || mode && value != "host" {
			continue
		}
		text, err := json.Marshal(value)
		if err != nil { // it was read from JSON
			text = []byte("what cannot be written")
		}
		r.left("HostConfig."+key, "the copy has it too: "+string(text))
	}
}

const (
	volumeData   = "the data in volume %s stays where it is: the copy begins with an empty volume of this name"
	volumeShared = "the copy uses the same volume %s as its source"
	volumeDriven = "volume %s is made by options of its driver, which mean something of the source's host"
	bindHost     = "%s is a path of the source's host"
)

// binds reads mounts in docker's short form, source:target[:options].
func (r *replicator) binds(host map[string]any) {
	var kept []any
	for i, bind := range replica.List(host, "Binds") {
		text, _ := bind.(string)
		source, _, _ := strings.Cut(text, ":")
		if r.mounted(fmt.Sprintf("HostConfig.Binds[%d]", i), source, strings.HasPrefix(source, "/")) {
			kept = append(kept, bind)
		}
	}
	host["Binds"] = kept
}

// mounts reads mounts in their long form, of a container or a service.
func (r *replicator) mounts(field string, mounts []any) []any {
	var kept []any
	for i, element := range mounts {
		mount, _ := element.(map[string]any)
		source, _ := mount["Source"].(string)
		at := fmt.Sprintf("%s[%d]", field, i)
		switch mount["Type"] {
		case "bind", "npipe":
			if !r.mounted(at, source, true) {
				continue
			}
		case "volume":
			if driven(replica.Object(mount, "VolumeOptions", "DriverConfig")) && !r.same() {
				r.needed(at, fmt.Sprintf(volumeDriven, source))
				continue
			}
			if source != "" {
				r.mounted(at, source, false)
			}
		}
		kept = append(kept, element)
	}
	return kept
}

// driven tells whether a volume is more than a folder that the engine makes: by its options, even the driver local mounts
// any path of the host.
func driven(driver map[string]any) bool {
	name, _ := driver["Name"].(string)
	return name != "" && name != "local" || !replica.Empty(driver["Options"])
}

// mounted tells whether a mount goes with the copy, and says what does not.
func (r *replicator) mounted(field, source string, bind bool) bool {
	switch {
	case bind && !r.same():
		r.needed(field, fmt.Sprintf(bindHost, source))
		return false
	case bind:
	case r.same():
		r.left(field, fmt.Sprintf(volumeShared, source))
	default:
		r.left(field, fmt.Sprintf(volumeData, source))
	}
	return true
}

// bindings reads published ports: a port of the host is taken where the source has it, an address is the host's.
func (r *replicator) bindings(ports map[string]any) {
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		list, _ := ports[port].([]any)
		for _, element := range list {
			binding, _ := element.(map[string]any)
			field := "HostConfig.PortBindings[" + port + "]"
			if at, _ := binding["HostPort"].(string); at != "" && at != "0" && r.same() {
				r.left(field, "port "+at+" of the host is the source's: the copy gets one that is free")
				delete(binding, "HostPort")
			}
			if ip, _ := binding["HostIp"].(string); ip != "" && ip != "0.0.0.0" && ip != "::" && ip != "127.0.0.1" && !r.same() {
				r.left(field, "an address is the source's host's: the copy is published on all")
				delete(binding, "HostIp")
			}
		}
	}
}

// Members of an endpoint that a caller says; the others are what became of it.
var (
	saidOfEndpoint = []string{"Links", "Aliases", "DriverOpts", "GwPriority"}
	ownOfEndpoint  = []string{"NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address",
		"GlobalIPv6PrefixLen", "MacAddress", "DNSNames"}
)

// endpoints are the networks that the copy is on.
func (r *replicator) endpoints(networks map[string]any, mode, id string) map[string]any {
	endpoints := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		if _, predefined := predefinedNetwork(name); predefined || name == "none" {
			continue // which the mode says
		}
		endpoint, said := replica.Object(networks, name), map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(endpoint)) {
			field := "NetworkSettings.Networks[" + name + "]." + key
			switch {
			case replica.Empty(endpoint[key]) || slices.Contains(ownOfEndpoint, key):
			case key == "IPAMConfig":
				r.left(field, "an address is the source's own")
			case key == "Aliases":
				var kept []any
				for _, alias := range replica.List(endpoint, key) {
					if text, _ := alias.(string); text != "" && !strings.HasPrefix(id, text) {
						kept = append(kept, alias)
					}
				}
				if r.same() && len(kept) > 0 {
					r.left(field, "callers of these names mean the source")
					continue
				}
				said[key] = kept
			case slices.Contains(saidOfEndpoint, key):
				said[key] = replica.Clone(endpoint[key])
			default:
				r.left(field, "it is not known what this is")
			}
		}
		replica.Prune(said)
		endpoints[name] = said
		r.needNetwork(name)
	}
	if _, ok := endpoints[mode]; ok && len(endpoints) == 1 && replica.Empty(endpoints[mode]) {
		return nil // the mode says it
	}
	return endpoints
}

// needNetwork is a network that must be there.
func (r *replicator) needNetwork(name string) {
	if !r.same() {
		r.draft.Needs = append(r.draft.Needs, dialect.Need{ObjectRef: dialect.ObjectRef{Cluster: r.from.Cluster, Namespace: defaultNamespace, Kind: "network", Name: name}})
	}
}
