package manifest

// AccessPolicy allows operations to peers and their callers. Nothing is allowed that no policy allows.
type AccessPolicy struct {
	Metadata Metadata         `yaml:"metadata" required:"true" doc:"The name stands in audit lines, as <name>/<rule's index>."`
	Spec     AccessPolicySpec `yaml:"spec" required:"true" doc:"Who may do what."`

	origin
}

// AccessPolicySpec is an AccessPolicy's body. Policies are asked in the order of their names, rules in the order
// written; the first that allows a request decides, with its policy's pause, networkMode, networkSwitch and addresses.
type AccessPolicySpec struct {
	From          []Subject   `yaml:"from" required:"true" doc:"Whom the policy is for: any of these."`
	Allow         []Rule      `yaml:"allow" required:"true" doc:"What they may do. Policies are asked in the order of their names, rules in the order written; the first that allows decides."`
	Pause         PauseMode   `yaml:"pause" values:"freeze|quiesce|refuse" default:"freeze" doc:"What pause does: freeze the processes (refused where the target cannot, as a node of Kubernetes without an agent), scale to none and remember (quiesce), or refuse."`
	NetworkMode   AccessMode  `yaml:"networkMode" values:"any|bridge|host|pod" default:"any" doc:"The network mode in which containers are accessed: an access in another one is refused, and a container that runs in another one is switched, where networkSwitch lets it be. bridge and pod are both a network of the container's own."`
	NetworkSwitch SwitchMode  `yaml:"networkSwitch" values:"never|restore|keep" default:"never" doc:"Whether a container's network mode may be switched for an access, and whether it is switched back."`
	Addresses     AddressMode `yaml:"addresses" values:"hide|show" default:"hide" doc:"Whether addresses of this cluster, and credentials in environments, may reach a peer whose orchestrator is of the same type. A translated answer has none."`
}

// PauseMode is what pause does.
type PauseMode string

// The pause modes.
const (
	PauseFreeze  PauseMode = "freeze"
	PauseQuiesce PauseMode = "quiesce"
	PauseRefuse  PauseMode = "refuse"
)

// AccessMode is the network mode in which containers are accessed.
type AccessMode string

// AccessAny is any mode in which the port is reached. The other modes are those of neutral.NetworkMode.
const AccessAny AccessMode = "any"

// SwitchMode is whether a network mode may be switched.
type SwitchMode string

// The switch modes.
const (
	SwitchNever   SwitchMode = "never"
	SwitchRestore SwitchMode = "restore"
	SwitchKeep    SwitchMode = "keep"
)

// AddressMode is whether addresses reach a peer.
type AddressMode string

// The address modes.
const (
	AddressesHide AddressMode = "hide"
	AddressesShow AddressMode = "show"
)

// Subject is whom a policy is for. All that is written must match; the fields are patterns of * and ?.
type Subject struct {
	Peer   string `yaml:"peer" format:"glob" required:"true" doc:"A peer's name, or a pattern of * and ?."`
	Caller string `yaml:"caller" format:"glob" doc:"Who the peer says the caller is, or a pattern of * and ?. Left out, anyone, also a caller that the peer does not name."`
	Group  string `yaml:"group" format:"glob" doc:"A group that the peer says the caller is in, such as system:serviceaccounts:shop, or a pattern of * and ?. Left out, anyone."`
}

// Rule allows verbs on objects.
type Rule struct {
	Verbs   []string        `yaml:"verbs" format:"verb" required:"true" doc:"Neutral verbs, or \"*\" for all of them."`
	Objects []ObjectMatcher `yaml:"objects" required:"true" doc:"The objects: any of these. {} is any object."`
	When    string          `yaml:"when" format:"cel" doc:"A CEL condition that must hold as well. One that cannot be evaluated does not hold."`
}

// ObjectMatcher says which objects a rule is about. All that is written must match; what is left out is any.
type ObjectMatcher struct {
	Kind      string            `yaml:"kind" format:"kind" doc:"A neutral kind, or \"*\". Left out, any kind."`
	Namespace string            `yaml:"namespace" format:"glob" doc:"A namespace, or a pattern of * and ?. Left out, any, and objects without one. What spans all namespaces is matched only when it is left out or \"*\"."`
	Name      string            `yaml:"name" format:"glob" doc:"A name, or a pattern of * and ?. Left out, any."`
	Labels    map[string]string `yaml:"labels" format:"value" doc:"Labels that the object must have, each with its value or a pattern of * and ?."`
	Resource  string            `yaml:"resource" format:"glob" doc:"The native resource of a raw call, such as apps/statefulsets, or a pattern of * and ?."`
}
