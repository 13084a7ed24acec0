// Package neutral is the model that all dialects share: what a caller asks (Operation), what it asks it of (Object,
// Container, Workload ...), and what came of it (Result). It imports only the standard library. A field exists because
// two dialects need it.
package neutral

import "time"

// Orchestrator is a type of orchestrator, which names its dialect as well.
type Orchestrator string

// The orchestrators. Docker covers the engine and Swarm, which share one API.
const (
	Docker     Orchestrator = "docker"
	Kubernetes Orchestrator = "kubernetes"
	Rancher    Orchestrator = "rancher"
)

// Verb is what policy speaks of.
type Verb string

// The verbs of policy.
const (
	Query         Verb = "query"
	List          Verb = "list"
	Get           Verb = "get"
	Watch         Verb = "watch"
	Create        Verb = "create"
	Update        Verb = "update"
	Scale         Verb = "scale"
	Start         Verb = "start"
	Stop          Verb = "stop"
	Pause         Verb = "pause"
	Resume        Verb = "resume"
	Restart       Verb = "restart"
	Copy          Verb = "copy"
	Destroy       Verb = "destroy"
	Logs          Verb = "logs"
	Exec          Verb = "exec"
	Attach        Verb = "attach"
	Access        Verb = "access"
	SwitchNetwork Verb = "switch-network"
	Raw           Verb = "raw" // a same-type call outside the neutral model
)

// Verbs lists every verb, for validation and help.
var Verbs = []Verb{Query, List, Get, Watch, Create, Update, Scale, Start, Stop, Pause, Resume, Restart, Copy, Destroy,
	Logs, Exec, Attach, Access, SwitchNetwork, Raw}

// Kind is the kind of object that an operation is about.
type Kind string

// The kinds. A Workload is what keeps containers running (a Swarm service, a Deployment); a Service is what the
// catalogue offers to query.
const (
	KindSystem    Kind = "system" // ping, version, info, discovery documents
	KindContainer Kind = "container"
	KindWorkload  Kind = "workload"
	KindTask      Kind = "task"
	KindService   Kind = "service"
	KindImage     Kind = "image"
	KindNetwork   Kind = "network"
	KindVolume    Kind = "volume"
	KindSecret    Kind = "secret"
	KindConfig    Kind = "config"
	KindNode      Kind = "node"
	KindNamespace Kind = "namespace"
	KindEvent     Kind = "event"
	KindOther     Kind = "other" // outside the model; Object.Resource names it
)

// Kinds lists every kind, for validation and help.
var Kinds = []Kind{KindSystem, KindContainer, KindWorkload, KindTask, KindService, KindImage, KindNetwork, KindVolume,
	KindSecret, KindConfig, KindNode, KindNamespace, KindEvent, KindOther}

// Object is what policy and audit see of the target of an operation. Labels are nil until the object was looked up.
type Object struct {
	Kind      Kind
	Resource  string // native resource for KindOther and raw calls, "apps/statefulsets"
	Namespace string
	Name      string
	Labels    map[string]string
	// Container is the spec where the operation carries or found one; conditions are evaluated over it.
	Container *Container
	// Volume is what a volume is of its host, where that was looked up.
	Volume *VolumeSource
	// Asks are words of policies' conditions ("object.devices"): a rule with a condition that says nothing of one of them
	// does not allow it.
	Asks []string
}

// Operation is one request, freed of its dialect. Payload fields are nil unless the action has them.
type Operation struct {
	Action Action
	// Verb is what policy decides by, together with Object. Classify sets Verb and Object.Kind always: Action.Verb()
	// and Action.Kind() where the action says it all, better ones for ObjectRaw ("kubectl logs" is Logs of a container).
	Verb Verb
	// Also are verbs that the request may come to as well; policy must allow each of them. Server-side apply updates,
	// and creates what is not there.
	Also []Verb
	// Beyond says that it acts on more than Object names: on another object that its body names, or under a new name.
	// Only a rule that holds for every object of the kind allows it.
	Beyond bool
	Peer   string // for whom it is done; "" while nobody asked
	// Told gives a text of an object as its caller is told it, who may send it back so. Nil tells all as it is.
	Told   func(text string) string `json:"-"`
	Object Object
	Ref    string // the object as the caller named it: name, id or unique id prefix

	Container *Container        // container.create
	Volume    *Volume           // volume.create
	Network   *Network          // network.create
	File      *StoredFile       // secret and config: create, update
	Member    *NetworkMember    // network.connect, disconnect
	Workload  *Workload         // workload.create, workload.update: the whole spec
	Version   string            // workload.update, secret and config: the caller's optimistic lock
	Rollback  bool              // workload.update: back to what was before the last change; of Workload only the name counts
	Filter    Filter            // lists, events, prune
	Logs      *LogOptions       // container.logs, workload.logs, container.attach
	Stop      *StopOptions      // container.stop, kill, restart
	Wait      WaitCondition     // container.wait
	Remove    *RemoveOptions    // container.remove, volume.remove
	Exec      *ExecSpec         // exec.create
	Usage     *UsageOptions     // container.stats
	Copy      *CopyOptions      // container.copy-in, copy-out, stat
	Attach    *AttachOptions    // container.attach, exec.start
	Size      *Size             // resize
	Since     time.Time         // events
	Until     time.Time         // events
	NewName   string            // container.rename
	Image     string            // image.pull, image.inspect, distribution
	Extra     map[string]string // what only one dialect needs to answer in its own form, by its own keys
}

// PauseMode is what a pause does; "" is PauseFreeze.
type PauseMode string

// The modes of a pause.
const (
	PauseFreeze  PauseMode = "freeze"  // its processes stand still
	PauseQuiesce PauseMode = "quiesce" // they end, and what they ran in is kept for the resume
	PauseRefuse  PauseMode = "refuse"
)

// Filter restricts a list as docker's filters and Kubernetes' selectors do. A nil slice does not restrict.
type Filter struct {
	All        bool     // stopped containers too
	Limit      int      // 0 is no limit
	Names      []string // name contains
	IDs        []string // id or id prefix
	Labels     []string // "key" or "key=value", all must match
	Status     []Status
	Ancestors  []string // image
	ExitCodes  []int
	Before     string // container reference
	Since      string // container reference
	Health     []string
	Networks   []string
	Volumes    []string
	Publish    []string
	Expose     []string
	Workloads  []string // tasks: of these workloads, by name or id
	Nodes      []string
	States     []string // tasks: desired-state
	Current    bool     // tasks: only those of their workload's newest template
	Kinds      []Kind   // events
	Actions    []string // events: native action names of the caller
	Containers []string // events: of these containers
	Modes      []string // workloads: replicated, global
	Size       bool     // sizes wanted
	Drivers    []string // volumes
	Dangling   *bool    // volumes: those that no container has, or those that one has
	Anonymous  bool     // volume.prune: only those that nobody named
}

// LogOptions says which part of a log is wanted.
type LogOptions struct {
	Follow, Stdout, Stderr, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int // -1 is everything
}

// StopOptions says how a container ends.
type StopOptions struct {
	Timeout *int   // seconds; nil is the container's own
	Signal  string // "" is the container's own
}

// WaitCondition says what a wait waits for.
type WaitCondition string

// The conditions of container.wait.
const (
	WaitNotRunning WaitCondition = "not-running"
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// RemoveOptions says how a container is destroyed.
type RemoveOptions struct{ Force, Volumes, Link bool }

// ExecSpec is a command to run in a container.
type ExecSpec struct {
	Command                    []string
	Env                        []string // K=V
	WorkingDir, User           string
	TTY, Stdin, Stdout, Stderr bool
	Privileged                 bool
	DetachKeys                 string
	Size                       *Size
}

// AttachOptions says which streams a session carries.
type AttachOptions struct {
	Stdin, Stdout, Stderr, Stream, Logs, Detach, TTY bool
	Size                                             *Size
}

// Size is a terminal's size in characters.
type Size struct{ Rows, Columns uint16 }
