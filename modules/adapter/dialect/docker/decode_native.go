package docker

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What an engine's own documents ask of its host, for policy's conditions. It is not translated.

func nativeSecurityFromTree(host *tree, security *neutral.Security) {
	for _, option := range host.get("SecurityOpt").items() {
		name, value, ok := strings.Cut(option.text, "=")
		if !ok {
			name, value, _ = strings.Cut(option.text, ":")
		}
		switch name { // of several of one name the last one holds
		case "seccomp":
			security.Seccomp = seccompFrom(value)
		case "apparmor":
			security.AppArmor = appArmorFrom(value)
		default:
			continue
		}
		option.understood()
	}
	masked, readOnly := host.get("MaskedPaths"), host.get("ReadonlyPaths")
	security.UnmaskedPaths = masked != nil && lacks(masked.strs(), maskedPaths) || readOnly != nil && lacks(readOnly.strs(), readOnlyPaths)
	security.Sysctls = host.get("Sysctls").strMap()
	for _, device := range host.get("Devices").items() {
		security.Devices = append(security.Devices, path.Clean(device.get("PathOnHost").str()))
		device.understood()
	}
	for _, rule := range host.get("DeviceCgroupRules").strs() {
		security.Devices = append(security.Devices, "cgroup:"+rule)
	}
	for _, request := range host.get("DeviceRequests").items() {
		asked := container.DeviceRequest{Driver: request.get("Driver").str(), DeviceIDs: request.get("DeviceIDs").strs()}
		for _, all := range request.get("Capabilities").items() {
			asked.Capabilities = append(asked.Capabilities, all.strs())
		}
		security.Devices = append(security.Devices, requestedDevices(asked)...)
		request.understood()
	}
}

func seccompFrom(value string) neutral.Profile {
	switch value {
	case "unconfined":
		return neutral.ProfileUnconfined
	case "builtin", "":
		return neutral.ProfileDefault
	}
	return neutral.ProfileCustom
}

func appArmorFrom(value string) neutral.Profile {
	switch value {
	case "unconfined":
		return neutral.ProfileUnconfined
	case "docker-default", "":
		return neutral.ProfileDefault
	}
	return neutral.Local(value)
}

// maskedPaths and readOnlyPaths are those of every engine; newer ones have more.
var (
	maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"}
	readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func lacks(paths, wanted []string) bool {
	return slices.ContainsFunc(wanted, func(p string) bool { return !slices.Contains(paths, p) })
}

// requestedDevices are devices that are asked of a driver: by name of CDI, else by the driver or what it must be able to.
func requestedDevices(request container.DeviceRequest) []string {
	if request.Driver == "cdi" {
		return request.DeviceIDs
	}
	name := request.Driver
	if name == "" {
		var all []string
		for _, capabilities := range request.Capabilities {
			all = append(all, capabilities...)
		}
		name = strings.Join(all, ",")
	}
	return []string{"driver:" + name}
}

func nativePrivilegesFromTree(spec *tree, security *neutral.Security) {
	privileges := spec.get("Privileges")
	seccomp := privileges.get("Seccomp")
	switch seccomp.get("Mode").str() {
	case "", "default":
	case "unconfined":
		security.Seccomp = neutral.ProfileUnconfined
	default:
		security.Seccomp = neutral.ProfileCustom
		seccomp.understood()
	}
	switch privileges.get("AppArmor").get("Mode").str() {
	case "", "default":
	default: // disabled is all that it can be beside
		security.AppArmor = neutral.ProfileUnconfined
	}
	security.Sysctls = spec.get("Sysctls").strMap()
}

// securityFromInspect is what a container that is there may do to its host.
func securityFromInspect(h *container.HostConfig) neutral.Security {
	security := neutral.Security{
		Privileged: h.Privileged, CapAdd: h.CapAdd, CapDrop: h.CapDrop, ReadOnlyRoot: h.ReadonlyRootfs,
		PIDMode: string(h.PidMode), IPCMode: string(h.IpcMode),
		Seccomp: neutral.ProfileDefault, AppArmor: neutral.ProfileDefault, Sysctls: h.Sysctls,
		UnmaskedPaths: h.MaskedPaths != nil && lacks(h.MaskedPaths, maskedPaths) || h.ReadonlyPaths != nil && lacks(h.ReadonlyPaths, readOnlyPaths),
	}
	for _, option := range h.SecurityOpt {
		name, value, ok := strings.Cut(option, "=")
		if !ok {
			name, value, _ = strings.Cut(option, ":")
		}
		switch name {
		case "seccomp":
			security.Seccomp = seccompFrom(value)
		case "apparmor":
			security.AppArmor = appArmorFrom(value)
		case "no-new-privileges":
			security.NoNewPrivileges = value == "" || value == "true"
		}
	}
	for _, device := range h.Devices {
		security.Devices = append(security.Devices, path.Clean(device.PathOnHost))
	}
	for _, rule := range h.DeviceCgroupRules {
		security.Devices = append(security.Devices, "cgroup:"+rule)
	}
	for _, request := range h.DeviceRequests {
		security.Devices = append(security.Devices, requestedDevices(request)...)
	}
	return security
}
