package kubernetes

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What isolates a container from its host and its neighbours: user, network, mounts, names, security. What cannot be
// carried exactly is refused here, never approximated.

func (t *podTemplate) user() error {
	if user := t.in.User; user != "" {
		name, group, both := strings.Cut(user, ":")
		uid, err := numericID(name)
		if err != nil {
			return refuse("User", "Kubernetes takes numbers only, and which number %q is, only the image knows", name)
		}
		t.container.SecurityContext.RunAsUser = &uid
		if both {
			gid, err := numericID(group)
			if err != nil {
				return refuse("User", "Kubernetes takes numbers only, and which number the group %q is, only the image knows", group)
			}
			t.container.SecurityContext.RunAsGroup = &gid
		}
	}
	for _, group := range t.in.Groups {
		gid, err := numericID(group)
		if err != nil {
			return refuse("HostConfig.GroupAdd",
				"Kubernetes takes numbers only, and which number the group %q is, only the image knows", group)
		}
		t.out.Spec.SecurityContext.SupplementalGroups = append(t.out.Spec.SecurityContext.SupplementalGroups, gid)
	}
	return nil
}

// numericID reads a user or group; root is 0 in every image.
func numericID(text string) (int64, error) {
	if text == "root" {
		return 0, nil
	}
	id, err := strconv.ParseUint(text, 10, 31)
	return int64(id), err
}

func (t *podTemplate) network() error {
	const field = "HostConfig.NetworkMode"
	switch mode := t.in.Network; {
	case mode == "" || mode == "default" || mode == neutral.NetworkBridge || mode == neutral.NetworkPod:
	case mode == neutral.NetworkHost:
		t.out.Spec.HostNetwork = true
		t.out.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	case mode == neutral.NetworkNone:
		return refuse(field, "every Pod has a network; none has no form in Kubernetes")
	case strings.HasPrefix(string(mode), "container:"):
		return refuse(field, "a Pod cannot join the network of another")
	default:
		return refuse(field, "the network %q is not one of this cluster", string(mode))
	}
	var users []neutral.NetworkAttachment
	for _, network := range t.in.Networks {
		switch {
		case !predefined(network.Name):
			users = append(users, neutral.NetworkAttachment{Name: network.Name, Aliases: network.Aliases})
		case len(network.Aliases) > 0:
			return refuse("NetworkingConfig.EndpointsConfig.Aliases", "an alias needs a user network")
		}
		for _, alias := range network.Aliases {
			if len(validation.IsDNS1123Label(strings.ToLower(alias))) > 0 {
				t.lose("NetworkingConfig.EndpointsConfig.Aliases", fmt.Sprintf("%q is not resolved", alias),
					"name servers know names of letters, digits and '-'")
			}
		}
	}
	if len(users) > 0 && t.out.Spec.HostNetwork {
		return invalid(field, "conflicting options: the host's network and user networks")
	}
	if len(users) > 0 && len(t.in.DNS) > 0 {
		t.lose("NetworkingConfig.EndpointsConfig", "its names are not resolved", "the container has name servers of its own (Dns)")
	}
	return noteNetworks(&t.out.ObjectMeta, users)
}

func (t *podTemplate) mounts() error {
	for i, m := range t.in.Mounts {
		switch m.Type {
		case "tmpfs", "volume", "":
		case "bind":
			return refuse("HostConfig.Binds", "the path %q of the caller's host is not on the node that runs the container", m.Source)
		default:
			return refuse("HostConfig.Mounts", "mounts of type %q have no form in Kubernetes", m.Type)
		}
		if !path.IsAbs(m.Target) || strings.Contains(m.Target, ":") {
			return invalid("HostConfig.Mounts", "invalid mount path: %q", m.Target)
		}
		if m.Type != "tmpfs" {
			if err := t.volume(m); err != nil {
				return err
			}
			continue
		}
		name := "tmpfs-" + strconv.Itoa(i)
		source := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
		if m.Size > 0 {
			source.SizeLimit = resource.NewQuantity(m.Size, resource.BinarySI)
		}
		t.out.Spec.Volumes = append(t.out.Spec.Volumes, corev1.Volume{Name: name,
			VolumeSource: corev1.VolumeSource{EmptyDir: source}})
		t.container.VolumeMounts = append(t.container.VolumeMounts, corev1.VolumeMount{Name: name,
			MountPath: path.Clean(m.Target), ReadOnly: m.ReadOnly})
	}
	return nil
}

// names are what the container can resolve.
func (t *podTemplate) names() error {
	for _, pair := range t.in.ExtraHosts {
		name, address, ok := strings.Cut(pair, ":")
		if !ok {
			name, address, ok = strings.Cut(pair, "=")
		}
		if !ok || name == "" {
			return invalid("HostConfig.ExtraHosts", "bad format for add-host: %q", pair)
		}
		if address == "host-gateway" {
			return refuse("HostConfig.ExtraHosts", "host-gateway is an address of docker's own host")
		}
		address = strings.Trim(address, "[]")
		if _, err := netip.ParseAddr(address); err != nil {
			return invalid("HostConfig.ExtraHosts", "invalid IP address in add-host: %q", address)
		}
		if len(validation.IsDNS1123Subdomain(strings.ToLower(name))) > 0 {
			return refuse("HostConfig.ExtraHosts", "Kubernetes takes no host of the name %q", name)
		}
		t.out.Spec.HostAliases = append(t.out.Spec.HostAliases, corev1.HostAlias{IP: address, Hostnames: []string{name}})
	}
	if len(t.in.DNS)+len(t.in.DNSSearch)+len(t.in.DNSOptions) == 0 {
		return nil
	}
	config := &corev1.PodDNSConfig{Nameservers: t.in.DNS}
	for _, server := range t.in.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return invalid("HostConfig.Dns", "%s is not an ip address", server)
		}
	}
	if len(t.in.DNS) > 0 {
		t.out.Spec.DNSPolicy = corev1.DNSNone
	}
	for _, domain := range t.in.DNSSearch {
		if domain != "." { // docker's "no search domain at all"
			config.Searches = append(config.Searches, domain)
		}
	}
	for _, option := range t.in.DNSOptions {
		name, value, ok := strings.Cut(option, ":")
		native := corev1.PodDNSConfigOption{Name: name}
		if ok {
			native.Value = &value
		}
		config.Options = append(config.Options, native)
	}
	t.out.Spec.DNSConfig = config
	return nil
}

func (t *podTemplate) security() error {
	in, out := t.in.Security, t.container.SecurityContext
	yes, no := true, false
	if in.Privileged {
		out.Privileged = &yes
	} else {
		// Docker filters system calls by default; Kubernetes does so on request.
		t.out.Spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	if in.ReadOnlyRoot {
		out.ReadOnlyRootFilesystem = &yes
	}
	if in.NoNewPrivileges {
		if in.Privileged {
			return refuse("HostConfig.SecurityOpt", "Kubernetes has no privileged container without new privileges")
		}
		out.AllowPrivilegeEscalation = &no
	}
	if len(in.CapAdd)+len(in.CapDrop) > 0 {
		out.Capabilities = &corev1.Capabilities{Add: capabilities(in.CapAdd), Drop: capabilities(in.CapDrop)}
	}
	for _, mode := range []struct {
		field, value string
		host         *bool
	}{{"HostConfig.PidMode", in.PIDMode, &t.out.Spec.HostPID}, {"HostConfig.IpcMode", in.IPCMode, &t.out.Spec.HostIPC}} {
		switch mode.value {
		case "", "private", "shareable", "none":
		case "host":
			*mode.host = true
		default:
			return refuse(mode.field, "a Pod cannot join a namespace of another (%s)", mode.value)
		}
	}
	return nil
}

// capabilities drops docker's optional prefix.
func capabilities(names []string) []corev1.Capability {
	var list []corev1.Capability
	for _, name := range names {
		list = append(list, corev1.Capability(strings.TrimPrefix(strings.ToUpper(name), "CAP_")))
	}
	return list
}
