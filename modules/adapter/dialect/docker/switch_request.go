package docker

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// remade is what a container is made by once more, in another network mode.
type remade struct {
	body map[string]any
	lost []string
}

func (r *remade) lose(format string, args ...any) {
	r.lost = append(r.lost, fmt.Sprintf(format, args...))
}

// remake writes the request for a container in the place of another, from the whole of its inspect: what an engine told of a
// container it is asked for again, also what this code does not know.
func remake(inspect map[string]any, to neutral.NetworkMode, lease, image string) (*remade, error) {
	config, okConfig := replica.Clone(inspect["Config"]).(map[string]any)
	host, okHost := replica.Clone(inspect["HostConfig"]).(map[string]any)
	id := replica.Text(inspect, "Id")
	if !okConfig || !okHost || id == "" {
		return nil, fault.New(fault.Internal, "the orchestrator gave an answer that cannot be read")
	}
	r := &remade{body: config}
	config["Image"] = image
	labels := maps.Clone(replica.Object(config, "Labels"))
	if labels == nil {
		labels = map[string]any{}
	}
	labels[labelSwitch], labels[labelSwitchOf] = lease, id
	config["Labels"] = labels
	if replica.Empty(config["Entrypoint"]) {
		config["Entrypoint"] = []any{""} // or the image's would come back
	}
	if host["UTSMode"] == "host" {
		delete(config, "Hostname") // it has the host's, and may ask for none
	}
	host["NetworkMode"] = string(to)
	host["RestartPolicy"] = map[string]any{"Name": "no", "MaximumRetryCount": 0} // until it is seen to run
	r.volumes(inspect, host)
	r.endpoints(inspect)
	if to == neutral.NetworkHost {
		r.intoHost(inspect, host)
	} else {
		r.lose("what it reaches at the host's own addresses, localhost among them, it does not reach there; ports on which it listens are no ports of the host, but for those that it publishes")
	}
	config["HostConfig"] = host
	return r, nil
}

// intoHost takes out what the host's network refuses or overrules.
func (r *remade) intoHost(inspect, host map[string]any) {
	if mac := r.body["MacAddress"]; !replica.Empty(mac) {
		r.lose("its MAC address")
	}
	delete(r.body, "MacAddress")
	sysctls := replica.Object(host, "Sysctls")
	for _, key := range slices.Sorted(maps.Keys(sysctls)) {
		if strings.HasPrefix(key, "net.") {
			r.lose("its sysctl %s: in the host's network the host's holds", key)
			delete(sysctls, key)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(replica.Object(host, "PortBindings"))) {
		r.lose("its published port %s: in the host's network it is reached at the port on which it listens itself", port)
	}
	if host["PublishAllPorts"] == true && len(replica.Object(inspect, "Config", "ExposedPorts")) > 0 {
		r.lose("its exposed ports are published at no other port of the host: in the host's network it is reached at those on which it listens itself")
	}
	r.lose("it is on the host's network: it may connect to all that listens on the host and to all that the host reaches, and what it listens on is open to whoever reaches the host")
}

// endpoints tells of the networks that a container leaves. The old one comes back to them.
func (r *remade) endpoints(inspect map[string]any) {
	networks := replica.Object(inspect, "NetworkSettings", "Networks")
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		if name == "host" || name == networkNone {
			continue
		}
		endpoint := replica.Object(networks, name)
		text := "network " + name + ": what is on it does not reach the container there"
		id := replica.Text(inspect, "Id")
		var aliases []string
		for _, alias := range replica.List(endpoint, "Aliases") {
			if alias, _ := alias.(string); alias != "" && !strings.HasPrefix(id, alias) {
				aliases = append(aliases, alias)
			}
		}
		if len(aliases) > 0 {
			text += ", nor as " + strings.Join(aliases, ", ")
		}
		ipam := replica.Object(endpoint, "IPAMConfig")
		if !replica.Empty(ipam["IPv4Address"]) || !replica.Empty(ipam["IPv6Address"]) || !replica.Empty(ipam["LinkLocalIPs"]) {
			text += "; its static address is free until it comes back, and where somebody else takes it, it does not come back"
		} else {
			text += "; it may come back with another address"
		}
		if len(replica.Object(endpoint, "DriverOpts")) > 0 {
			text += "; its options of the network's driver hold again then"
		}
		r.lose("%s", text)
	}
}

// volumes binds each volume by its name, those without a name that anybody gave among them. None is filled from the image
// again: a volume that its container emptied stays empty.
func (r *remade) volumes(inspect, host map[string]any) {
	covered := map[string]bool{}
	binds := slices.Clone(replica.List(host, "Binds"))
	for i, bind := range binds {
		text, _ := bind.(string)
		parts := strings.Split(text, ":")
		if len(parts) < 2 {
			continue
		}
		covered[parts[1]] = true
		if !strings.HasPrefix(parts[0], "/") {
			binds[i] = unfilled(text, len(parts) > 2)
		}
	}
	var mounts []any
	for _, element := range replica.List(host, "Mounts") {
		mount, _ := element.(map[string]any)
		target := replica.Text(mount, "Target")
		covered[target] = true
		if mount["Type"] == "volume" {
			if name := volumeAt(inspect, target); replica.Empty(mount["Source"]) && name != "" {
				mount["Source"] = name
			}
			options := replica.Object(mount, "VolumeOptions")
			if options == nil {
				options = map[string]any{}
				mount["VolumeOptions"] = options
			}
			options["NoCopy"] = true
		}
		mounts = append(mounts, mount)
	}
	for _, element := range replica.List(inspect, "Mounts") {
		mount, _ := element.(map[string]any)
		target, name := replica.Text(mount, "Destination"), replica.Text(mount, "Name")
		if mount["Type"] != "volume" || name == "" || covered[target] {
			continue
		}
		bind := name + ":" + target
		if mount["RW"] == false {
			bind = unfilled(bind+":ro", true)
		} else {
			bind = unfilled(bind, false)
		}
		binds = append(binds, bind)
	}
	if len(binds) > 0 {
		host["Binds"] = binds
	}
	if len(mounts) > 0 {
		host["Mounts"] = mounts
	}
}

// unfilled adds the option by which a volume is not filled from the image.
func unfilled(bind string, options bool) string {
	switch {
	case !options:
		return bind + ":nocopy"
	case slices.Contains(strings.Split(bind[strings.LastIndex(bind, ":")+1:], ","), "nocopy"):
		return bind
	}
	return bind + ",nocopy"
}

// volumeAt is the name of the volume that is mounted at a path.
func volumeAt(inspect map[string]any, target string) string {
	for _, element := range replica.List(inspect, "Mounts") {
		mount, _ := element.(map[string]any)
		if mount["Type"] == "volume" && replica.Text(mount, "Destination") == target {
			return replica.Text(mount, "Name")
		}
	}
	return ""
}
