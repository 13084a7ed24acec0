package docker

import "maps"

const (
	reasonTuning   = "a setting of one host's kernel or engine, which the target cluster makes itself"
	reasonWindows  = "a setting of Windows hosts"
	reasonDevice   = "a device of a host cannot be given to a container of another cluster"
	reasonJoined   = "it joins a namespace or files of another container, which may run on another host there"
	reasonProfile  = "a security profile or label of a host has no equal on the target"
	reasonPaths    = "which system paths are masked or read-only cannot be chosen on the target"
	reasonDriver   = "a volume driver of an engine is not there on the target"
	reasonLogging  = "the target keeps logs in its own way; docker logs reads them"
	reasonOptions  = "the target sets options of a mount itself"
	reasonEndpoint = "endpoint settings of an engine's network driver; the target has its own network"
	reasonAddress  = "an address of the target's network cannot be chosen by the caller"
	reasonOwner    = "the files of secrets and configs are root's there, and the mode says who else may read them"
	reasonKernel   = "a kernel parameter may change what the container is allowed or protected from"
)

// resourceDisposals are the fields of Resources that the neutral model does not carry.
var resourceDisposals = map[string]disposal{
	"CpuShares":            {reason: reasonTuning},
	"CgroupParent":         {refuse: true, reason: "a cgroup of a host cannot be named across clusters"},
	"BlkioWeight":          {reason: reasonTuning},
	"BlkioWeightDevice":    {reason: reasonTuning},
	"BlkioDeviceReadBps":   {reason: reasonTuning},
	"BlkioDeviceWriteBps":  {reason: reasonTuning},
	"BlkioDeviceReadIOps":  {reason: reasonTuning},
	"BlkioDeviceWriteIOps": {reason: reasonTuning},
	"CpuPeriod":            {reason: "without a quota it has no effect"},
	"CpuQuota":             {reason: reasonTuning, plain: []string{"-1"}},
	"CpuRealtimePeriod":    {reason: reasonTuning},
	"CpuRealtimeRuntime":   {reason: reasonTuning},
	"CpusetCpus":           {reason: reasonTuning},
	"CpusetMems":           {reason: reasonTuning},
	"Devices":              {refuse: true, reason: reasonDevice},
	"DeviceCgroupRules":    {refuse: true, reason: reasonDevice},
	"DeviceRequests":       {refuse: true, reason: reasonDevice},
	"KernelMemory":         {reason: reasonTuning},
	"KernelMemoryTCP":      {reason: reasonTuning},
	"MemorySwap":           {reason: reasonTuning},
	"MemorySwappiness":     {reason: reasonTuning, plain: []string{"-1"}},
	"OomKillDisable":       {reason: reasonTuning},
	"PidsLimit":            {reason: "the target limits processes for each node, not for each container", plain: []string{"-1"}},
	"Ulimits":              {reason: reasonTuning},
	"CpuCount":             {reason: reasonWindows},
	"CpuPercent":           {reason: reasonWindows},
	"IOMaximumIOps":        {reason: reasonWindows},
	"IOMaximumBandwidth":   {reason: reasonWindows},
}

// updateDisposals settle POST /containers/{id}/update.
var updateDisposals = resourceDisposals

// containerDisposals settle POST /containers/create.
var containerDisposals = func() map[string]disposal {
	table := map[string]disposal{
		"ArgsEscaped":               {reason: reasonWindows},
		"OnBuild":                   {reason: "it matters to image builds only"},
		"Shell":                     {reason: "it matters to image builds and to the image's own health check only"},
		"MacAddress":                {refuse: true, reason: reasonAddress},
		"Healthcheck.StartInterval": {reason: "the target has one interval for a health check"},

		"HostConfig.ContainerIDFile": {reason: "the client writes it by itself"},
		"HostConfig.LogConfig":       {reason: reasonLogging, plain: []string{"json-file"}},
		"HostConfig.LogConfig.Type":  {reason: reasonLogging, plain: []string{"json-file"}},
		"HostConfig.VolumeDriver":    {refuse: true, reason: reasonDriver, plain: []string{"local"}},
		"HostConfig.VolumesFrom":     {refuse: true, reason: reasonJoined},
		"HostConfig.Annotations":     {reason: "they are meant for an engine's runtime"},
		"HostConfig.CgroupnsMode":    {refuse: true, reason: "the cgroup namespace of a host cannot be shared across clusters", plain: []string{"private"}},
		"HostConfig.IpcMode":         {refuse: true, reason: reasonJoined, plain: []string{"private", "shareable"}},
		"HostConfig.Cgroup":          {refuse: true, reason: reasonJoined},
		"HostConfig.Links":           {refuse: true, reason: "links are of an engine's default bridge; use a user network with aliases"},
		"HostConfig.OomScoreAdj":     {reason: reasonTuning},
		"HostConfig.PidMode":         {refuse: true, reason: reasonJoined},
		"HostConfig.SecurityOpt":     {refuse: true, reason: reasonProfile},
		"HostConfig.StorageOpt":      {reason: "options of an engine's storage driver"},
		"HostConfig.UTSMode":         {refuse: true, reason: "the host's name cannot be shared across clusters"},
		"HostConfig.UsernsMode":      {refuse: true, reason: "the user namespace of a host cannot be chosen across clusters"},
		"HostConfig.Sysctls":         {refuse: true, reason: reasonKernel},
		"HostConfig.Runtime":         {refuse: true, reason: "a runtime isolates a container in its own way, and its name is an engine's", plain: []string{"runc", "io.containerd.runc.v2"}},
		"HostConfig.Umask":           {refuse: true, reason: "it decides who may read what the container writes"},
		"HostConfig.Isolation":       {refuse: true, reason: reasonWindows, plain: []string{"default"}},
		"HostConfig.MaskedPaths":     {refuse: true, reason: reasonPaths},
		"HostConfig.ReadonlyPaths":   {refuse: true, reason: reasonPaths},
		"HostConfig.Init":            {reason: "the target starts the container's own process first, which then has to collect its children"},

		"NetworkingConfig.EndpointsConfig{}":            {reason: reasonEndpoint},
		"NetworkingConfig.EndpointsConfig{}.Links":      {refuse: true, reason: "links are of an engine's network; use aliases"},
		"NetworkingConfig.EndpointsConfig{}.MacAddress": {refuse: true, reason: reasonAddress},
		"NetworkingConfig.EndpointsConfig{}.IPAMConfig": {refuse: true, reason: reasonAddress},
		"NetworkingConfig.EndpointsConfig{}.IPAddress":  {reason: "it tells where an endpoint is, and asks for nothing"},
		"NetworkingConfig.EndpointsConfig{}.Gateway":    {reason: "it tells where an endpoint is, and asks for nothing"},
	}
	for name, d := range resourceDisposals {
		table["HostConfig."+name] = d
	}
	maps.Copy(table, mountDisposals("HostConfig.Mounts[]"))
	return table
}()

// mountDisposals are what a mount has beyond the neutral one.
func mountDisposals(at string) map[string]disposal {
	return map[string]disposal{
		at + ".Consistency":                     {reason: reasonOptions, plain: []string{"default", "consistent"}},
		at + ".BindOptions":                     {reason: reasonOptions},
		at + ".VolumeOptions":                   {reason: reasonOptions},
		at + ".VolumeOptions.Labels":            {reason: "a volume's labels are its maker's"},
		at + ".VolumeOptions.Subpath":           {refuse: true, reason: "a part of a volume is mounted for single containers only"},
		at + ".VolumeOptions.DriverConfig":      {refuse: true, reason: reasonDriver},
		at + ".VolumeOptions.DriverConfig.Name": {refuse: true, reason: reasonDriver},
		at + ".ImageOptions":                    {refuse: true, reason: "an image cannot be mounted across orchestrators"},
		at + ".TmpfsOptions":                    {reason: reasonOptions},
		at + ".TmpfsOptions.Mode":               {reason: reasonOptions},
		at + ".TmpfsOptions.Options":            {reason: reasonOptions},
		at + ".ClusterOptions":                  {refuse: true, reason: "cluster volumes belong to a swarm"},
	}
}

// workloadDisposals settle a service's spec.
var workloadDisposals = func() map[string]disposal {
	const (
		task   = "TaskTemplate."
		spec   = task + "ContainerSpec."
		rights = spec + "Privileges."
	)
	table := map[string]disposal{
		spec + "Init":                                    {reason: "the target starts the container's own process first, which then has to collect its children"},
		spec + "Healthcheck.StartInterval":               {reason: "the target has one interval for a health check"},
		spec + "Secrets[].File.UID":                      {refuse: true, reason: reasonOwner, plain: []string{"0"}},
		spec + "Secrets[].File.GID":                      {refuse: true, reason: reasonOwner, plain: []string{"0"}},
		spec + "Configs[].File.UID":                      {refuse: true, reason: reasonOwner, plain: []string{"0"}},
		spec + "Configs[].File.GID":                      {refuse: true, reason: reasonOwner, plain: []string{"0"}},
		spec + "Configs[].Runtime":                       {refuse: true, reason: "a credential spec is of Windows hosts"},
		spec + "Isolation":                               {refuse: true, reason: reasonWindows, plain: []string{"default"}},
		spec + "Sysctls":                                 {refuse: true, reason: reasonKernel},
		spec + "Ulimits":                                 {reason: reasonTuning},
		spec + "OomScoreAdj":                             {reason: reasonTuning},
		rights + "CredentialSpec":                        {refuse: true, reason: reasonProfile},
		rights + "SELinuxContext":                        {refuse: true, reason: reasonProfile},
		rights + "Seccomp":                               {refuse: true, reason: reasonProfile},
		rights + "AppArmor":                              {refuse: true, reason: reasonProfile},
		task + "PluginSpec":                              {refuse: true, reason: reasonPlugin},
		task + "NetworkAttachmentSpec":                   {refuse: true, reason: "it belongs to a swarm's own networks"},
		task + "Resources.Limits.Pids":                   {reason: "the target limits processes for each node, not for each container"},
		task + "Resources.Reservations.GenericResources": {refuse: true, reason: "a resource that a swarm's node offers by name is not there on the target"},
		task + "Resources.SwapBytes":                     {reason: reasonTuning},
		task + "Resources.MemorySwappiness":              {reason: reasonTuning, plain: []string{"-1"}},
		task + "RestartPolicy.Delay":                     {reason: "the target spaces restarts in its own way"},
		task + "RestartPolicy.MaxAttempts":               {reason: "only a policy on-failure is bounded there"},
		task + "RestartPolicy.Window":                    {reason: "the target spaces restarts in its own way"},
		task + "Placement.Preferences":                   {reason: "the target spreads tasks in its own way"},
		task + "Placement.MaxReplicas":                   {reason: "the target spreads tasks in its own way"},
		task + "Placement.Platforms":                     {reason: "the target picks nodes that can run the image in its own way"},
		task + "Networks[].DriverOpts":                   {reason: reasonEndpoint},
		task + "LogDriver":                               {reason: reasonLogging},
		task + "Runtime":                                 {refuse: true, reason: "only containers run on the target"},
		"Networks":                                       {refuse: true, reason: "networks of a service belong in TaskTemplate.Networks since API v1.25"},
		"UpdateConfig.Monitor":                           {reason: "the target watches a rollout in its own way"},
		"UpdateConfig.MaxFailureRatio":                   {reason: "the target watches a rollout in its own way"},
		"RollbackConfig":                                 {reason: "the target rolls back in its own way"},
		"EndpointSpec.Mode":                              {reason: "the target names a service in its own way", plain: []string{"vip"}},
	}
	maps.Copy(table, mountDisposals(spec+"Mounts[]"))
	return table
}()
