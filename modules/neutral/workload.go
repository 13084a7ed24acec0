package neutral

import "time"

// Mode is how a workload spreads its containers.
type Mode string

// The modes of a workload.
const (
	ModeReplicated Mode = "replicated"
	ModeGlobal     Mode = "global" // one a node
	ModeJob        Mode = "replicated-job"
	ModeGlobalJob  Mode = "global-job"
)

// Workload is what keeps containers running: a Swarm service, a Deployment, a DaemonSet, a Job.
type Workload struct {
	ID        string // 25 characters as Swarm's are
	Name      string
	Namespace string
	Native    string // the orchestrator's own kind, "Deployment"
	Labels    map[string]string
	Mode      Mode
	Replicas  int
	Template  Container
	Placement []string // constraints as Swarm writes them
	Update    *UpdatePolicy
	Headless  bool `json:",omitempty"` // its name is that of its containers' addresses; it has none of its own
	Force     int  // a change restarts every container (Swarm's ForceUpdate)

	Version   string // optimistic lock
	CreatedAt time.Time
	UpdatedAt time.Time
	Running   int
	Desired   int
	Completed int
	// Updating is the state of a rollout: "", updating, completed, paused.
	Updating      string
	UpdateMessage string
	Origin        *Origin
	Losses        []Loss
	Exported      bool // its service is offered to peers
}

// UpdatePolicy is how a workload changes from one template to the next.
type UpdatePolicy struct {
	Parallelism int
	Delay       time.Duration
	Order       string // stop-first, start-first
	OnFailure   string
}

// Task is one container of a workload, running or gone.
type Task struct {
	ID        string
	Name      string
	Workload  string // id
	Slot      int
	Node      string
	NodeID    string
	Desired   string // running, shutdown, complete
	State     string // swarm's words: new, pending, starting, running, complete, failed, shutdown ...
	Message   string
	Err       string
	ExitCode  int
	Container Container
	Created   time.Time
	Updated   time.Time
	Version   string `json:",omitempty"` // grows with every change of the task
}

// Node is a machine of a cluster. Its address never crosses.
type Node struct {
	ID, Name, Hostname string
	Role               string // manager, worker
	Leader             bool
	Ready              bool
	Availability       string // active, pause, drain
	OS, Architecture   string
	Engine             string // runtime and version
	MilliCPU, Memory   int64
	Labels             map[string]string
	CreatedAt          time.Time
}

// Image is an image that a node holds.
type Image struct {
	ID      string
	Tags    []string
	Digests []string
	Size    int64
	Created time.Time
}

// Network is a network that containers can join.
type Network struct {
	ID, Name, Driver, Scope string
	Namespace               string `json:",omitempty"`
	Internal                bool   // nothing outside it is reached from it
	Labels                  map[string]string
	Created                 time.Time
	Members                 []NetworkMember // as far as they are told
}

// NetworkMember is a container of a network, or one that is to join or to leave it.
type NetworkMember struct {
	ID, Name string // of an operation, Name is what the caller calls it
	Aliases  []string
	Force    bool // to leave although it cannot
}

// Volume is storage that outlives a container.
type Volume struct {
	Name, Driver, Scope string
	Namespace           string `json:",omitempty"`
	Labels              map[string]string
	Options             map[string]string // as its maker wrote them
	Anonymous           bool              // made for one container, under a name that nobody chose
	Created             time.Time
}

// VolumeSource is what a volume is of its host.
type VolumeSource struct {
	HostPaths []string
	Unseen    bool // it is not known which paths of the host it is
}

// System is what an orchestrator says of itself.
type System struct {
	Name                                                string // the cluster
	Version                                             string // the orchestrator's
	APIVersion                                          string
	Platform                                            string // "Kubernetes"
	OS, Architecture, Kernel                            string
	Containers, Running, Paused, Stopped, Images, Nodes int
	MilliCPU, Memory                                    int64
	Now                                                 time.Time
	Warnings                                            []string
}

// Event is something that happened to an object.
type Event struct {
	Time       time.Time
	Kind       Kind
	Action     string // docker's word: create, start, die, stop, destroy ...
	ID         string
	Namespace  string `json:",omitempty"`
	Attributes map[string]string
}
