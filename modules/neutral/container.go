package neutral

import "time"

// Status is a container's state in the words that docker uses; every orchestrator's state maps to one of them.
type Status string

// The states of a container.
const (
	StatusCreated    Status = "created"
	StatusRunning    Status = "running"
	StatusPaused     Status = "paused"
	StatusRestarting Status = "restarting"
	StatusRemoving   Status = "removing"
	StatusExited     Status = "exited"
	StatusDead       Status = "dead"
)

// Container is one container: what was asked for and what is so.
type Container struct {
	ID        string // 64 hex digits, stable over stop and start
	Name      string // as the caller's orchestrator would name it
	Namespace string
	Pod       string // Kubernetes: the pod it lives in; equal to Name unless the pod has several containers

	Image      string
	ImageID    string
	Entrypoint []string // replaces the image's entrypoint; nil keeps it
	Command    []string // arguments; nil keeps the image's
	Env        []string // K=V
	WorkingDir string
	User       string
	Groups     []string
	Hostname   string
	Domain     string
	TTY        bool
	Stdin      bool // stdin is kept open
	StdinOnce  bool // stdin closes with the first attached session

	Labels      map[string]string
	Restart     RestartPolicy
	AutoRemove  bool
	StopSignal  string
	StopTimeout *int // seconds
	Resources   Resources
	Ports       []Port
	Mounts      []Mount
	Files       []MountedFile // secrets and configs, in the order of the caller
	// UnseenMounts are volumes, by name, of which it is not known what of the host they are.
	UnseenMounts []string
	Network      NetworkMode
	Networks     []NetworkAttachment
	ExtraHosts   []string // name:address
	DNS          []string
	DNSSearch    []string
	DNSOptions   []string
	Security     Security
	Health       *HealthCheck

	CreatedAt time.Time
	State     State
	Owner     *Owner // the controller that an orchestrator keeps it by; nil for none
	Node      string
	Siblings  int // other containers that live and die with it

	// Origin is the caller's own document, kept beside the object so that the caller reads back what it wrote.
	Origin *Origin
	// Losses are those of the translation that created it.
	Losses []Loss
}

// Origin is the document that an object was created from.
type Origin struct {
	Dialect Orchestrator
	Spec    []byte
	Peer    string // whose caller wrote it; "" where that is not known
}

// State is what the orchestrator says of a container now.
type State struct {
	Status       Status
	ExitCode     int
	OOMKilled    bool
	Reason       string // the orchestrator's own word, "ImagePullBackOff"
	Error        string
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int
	Health       string // "", starting, healthy, unhealthy
	Address      string // reachable from this gateway; never crosses
}

// Owner is the controller of a container.
type Owner struct{ Kind, Namespace, Name string }

// RestartPolicy says when a container that ended starts again.
type RestartPolicy struct {
	Mode RestartMode
	Max  int // of on-failure; 0 is no limit
}

// RestartMode is a restart policy's name.
type RestartMode string

// The restart modes.
const (
	RestartNo            RestartMode = "no"
	RestartOnFailure     RestartMode = "on-failure"
	RestartAlways        RestartMode = "always"
	RestartUnlessStopped RestartMode = "unless-stopped"
)

// Resources are a container's limits and reservations. Zero is none.
type Resources struct {
	MilliCPU, MilliCPUReserved int64
	Memory, MemoryReserved     int64 // bytes
}

// Port is a port that a container listens on and, where Published is not 0 or Publish is true, one that its host
// offers. Publish with Published 0 lets the orchestrator choose.
type Port struct {
	Name      string
	Container uint16
	Published uint16
	Publish   bool
	Protocol  string // tcp, udp, sctp
	HostMode  bool   // published on the node that runs it, not cluster-wide
	HostIP    string
}

// Mount is one mount of a container.
type Mount struct {
	Type     string // bind, volume, tmpfs
	Source   string // host path or volume name; "" is a volume that nobody named
	Target   string
	ReadOnly bool
	Size     int64  // tmpfs, bytes; 0 is the default
	Subpath  string // the folder of a volume that is mounted; "" is all of it
}

// NetworkMode is the network namespace that a container runs in.
type NetworkMode string

// The network modes. A user-defined network reads NetworkBridge with the networks named beside it; another
// container's namespace reads "container:<id>".
const (
	NetworkBridge NetworkMode = "bridge"
	NetworkHost   NetworkMode = "host"
	NetworkNone   NetworkMode = "none"
	NetworkPod    NetworkMode = "pod" // Kubernetes' pod network
)

// NetworkAttachment is one user network of a container.
type NetworkAttachment struct {
	ID      string `json:",omitempty"` // as a network that is listed has it; "" where that is not known
	Name    string
	Aliases []string
}

// Security is what a container may do to its host.
type Security struct {
	Privileged       bool
	CapAdd, CapDrop  []string
	ReadOnlyRoot     bool
	NoNewPrivileges  bool
	PIDMode, IPCMode string // "", host
	Seccomp          Profile
	AppArmor         Profile
	// UnmaskedPaths are the system's, in /proc and /sys, that are hidden from containers or cannot be written by them.
	UnmaskedPaths bool
	Sysctls       map[string]string
	Devices       []string // of the host: by path, by a rule of its cgroup, or as its driver is asked for it
}

// Profile is what restricts a container: ProfileDefault, ProfileUnconfined, or another one by its name. "" is not known.
type Profile string

// The profiles that every orchestrator has.
const (
	ProfileDefault    Profile = "default"    // what the orchestrator gives without being asked
	ProfileUnconfined Profile = "unconfined" // none
)

// Local is a profile that a host has, by its name there.
func Local(name string) Profile { return Profile("localhost/" + name) }

// ProfileCustom is one that the request itself brings.
const ProfileCustom Profile = "custom"

// HealthCheck is a command that tells whether a container is well.
type HealthCheck struct {
	Test                           []string // as docker has it: NONE, CMD ..., CMD-SHELL ...
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}
