package manifest

import "net/netip"

// APIVersion is the version of every document.
const APIVersion = "isthmus.io/v1alpha1"

// Metadata is what every document begins with.
type Metadata struct {
	Name   string            `yaml:"name" format:"label" required:"true" doc:"The document's name, unique among its kind."`
	Labels map[string]string `yaml:"labels" doc:"Free labels. Isthmus does not read them."`
}

// Gateway says what this gateway is. Its name is the cluster's.
type Gateway struct {
	Metadata Metadata    `yaml:"metadata" required:"true" doc:"The name is the cluster's name, as its peers know it."`
	Spec     GatewaySpec `yaml:"spec" required:"true" doc:"What this gateway is and where it listens."`

	origin
}

// GatewaySpec is a Gateway's body.
type GatewaySpec struct {
	Suffix      string `yaml:"suffix" format:"domain" default:"isthmus.internal" doc:"The DNS suffix of all names that the gateways give."`
	TrustDomain string `yaml:"trustDomain" format:"domain" derived:"<name>.<suffix>" doc:"The SPIFFE trust domain of this gateway's certificate."`
	StateDir    string `yaml:"stateDir" format:"path" default:"/var/lib/isthmus" doc:"Where logs are kept, and state that outlives the process unless state says otherwise."`
	RunDir      string `yaml:"runDir" format:"path" default:"/run/isthmus" doc:"Where Unix sockets are made."`

	Orchestrator Orchestrator `yaml:"orchestrator" required:"true" doc:"The cluster that this gateway stands for."`
	Listeners    Listeners    `yaml:"listeners" doc:"Where the gateway listens."`
	Trust        Trust        `yaml:"trust" doc:"Who vouches for this gateway, and how long its certificates live."`
	Admin        Admin        `yaml:"admin" doc:"What the admin interface may be asked to do."`
	Callers      Callers      `yaml:"callers" doc:"Who of this cluster may use the gateway. Left out, nobody but users of its Unix sockets."`
	Envoy        Envoy        `yaml:"envoy" doc:"The Envoy that the gateway starts and supervises with --envoy."`
	Leases       Leases       `yaml:"leases" doc:"How long containers run in a network mode into which they were switched for an access."`
	Audit        Audit        `yaml:"audit" doc:"Where decisions are recorded."`
	State        State        `yaml:"state" doc:"Where state that outlives the process is kept."`
	Tracing      Tracing      `yaml:"tracing" doc:"Where traces go. Left out, no traces are made."`
}

// OrchestratorType is the type of a cluster's orchestrator.
type OrchestratorType string

// The types.
const (
	Docker     OrchestratorType = "docker"
	Kubernetes OrchestratorType = "kubernetes"
)

// Orchestrator says how the cluster's orchestrator is reached. Only the part of its type may be written.
type Orchestrator struct {
	Type       OrchestratorType       `yaml:"type" values:"docker|kubernetes" required:"true" doc:"The orchestrator's type. docker is the engine and Swarm."`
	Docker     DockerOrchestrator     `yaml:"docker" doc:"How to reach a Docker engine. Only with type docker."`
	Kubernetes KubernetesOrchestrator `yaml:"kubernetes" doc:"How to reach a Kubernetes cluster. Only with type kubernetes."`
}

// DockerOrchestrator is a Docker engine.
type DockerOrchestrator struct {
	Endpoint string `yaml:"endpoint" format:"endpoint" default:"unix:///var/run/docker.sock" doc:"The engine's API: unix:///path or tcp://host:port."`
}

// KubernetesOrchestrator is a Kubernetes cluster.
type KubernetesOrchestrator struct {
	Kubeconfig string `yaml:"kubeconfig" format:"path" doc:"A kubeconfig file. Left out, the pod's own service account."`
	Context    string `yaml:"context" doc:"A context of the kubeconfig. Left out, its current one."`
	Namespace  string `yaml:"namespace" format:"label" default:"default" doc:"Where containers land that callers of another orchestrator create."`
	// Impersonate is the least rights of the gateway: the cluster itself holds peers to what they may do.
	Impersonate bool `yaml:"impersonate" default:"true" doc:"Whether what is done for a peer is done in its name: the user isthmus:peer:<name> in the groups isthmus:peers and isthmus:peer:<name>, to which the cluster gives rights. Else everything is done by the gateway's own account, with its rights."`
	// AgentNamespace is where the agents of nodes are found.
	AgentNamespace string `yaml:"agentNamespace" format:"label" default:"isthmus-agent" doc:"Where the agents of the nodes, isthmus agent, say that they are there. Only with them is a container frozen by docker pause."`
}

// Listeners are the addresses that a gateway listens on.
type Listeners struct {
	Peer   netip.AddrPort `yaml:"peer" format:"listen" default:"0.0.0.0:15443" doc:"For peers: mutual TLS, the only way in from outside."`
	HTTP   netip.AddrPort `yaml:"http" format:"listen" default:"127.0.0.1:15080" doc:"For this cluster's own callers: HTTP to services and containers of peers, by name."`
	Admin  netip.AddrPort `yaml:"admin" format:"listen" default:"127.0.0.1:15000" doc:"For the admin: metrics, health, the dashboard. Keep it on loopback."`
	Health netip.AddrPort `yaml:"health" format:"listen" doc:"For probes and Prometheus: /healthz, /readyz and /metrics, without login and with nothing else. Left out, only the admin interface has them."`
}

// Admin says what the admin interface may be asked to do. Whoever reaches its listener may ask.
type Admin struct {
	Copies bool `yaml:"copies" default:"false" doc:"Whether isthmus copy is served. A copy is read and made in this cluster with the gateway's own rights there, for every process that reaches the admin interface."`
}

// AuthorityKind is where a gateway's certificates come from.
type AuthorityKind string

// The kinds of authority.
const (
	AuthorityOwn    AuthorityKind = "own"
	AuthorityFiles  AuthorityKind = "files"
	AuthoritySecret AuthorityKind = "secret"
)

// Trust says who vouches for a gateway. Only the part of its authority may be written.
type Trust struct {
	Authority   AuthorityKind `yaml:"authority" values:"own|files|secret" default:"own" doc:"own is a certificate authority that isthmus trust init makes. files and secret are what you supply, in cert-manager's layout: the certificate of an issuing authority, from which the gateway's are issued, or the gateway's certificate itself. It is followed, and a change is in force within seconds."`
	Files       TrustFiles    `yaml:"files" doc:"Only with authority files."`
	Secret      TrustSecret   `yaml:"secret" doc:"Only with authority secret, on Kubernetes: keys tls.crt, tls.key and ca.crt."`
	Lifetime    string        `yaml:"lifetime" format:"duration" default:"24h" doc:"How long a certificate lives that the gateway is issued: 10m to 8760h."`
	RenewBefore string        `yaml:"renewBefore" format:"duration" derived:"a third of lifetime" doc:"How long before its end a certificate is renewed. Less than lifetime."`
}

// TrustFiles are PEM files.
type TrustFiles struct {
	CAFile   string `yaml:"caFile" format:"path" doc:"The roots, which peers trust. Required with authority files."`
	CertFile string `yaml:"certFile" format:"path" doc:"The certificate, then those between it and a root. Required with authority files."`
	KeyFile  string `yaml:"keyFile" format:"path" doc:"Its private key, not encrypted. Required with authority files."`
}

// TrustSecret is a Secret of the gateway's own Kubernetes cluster.
type TrustSecret struct {
	Namespace string `yaml:"namespace" format:"label" doc:"The Secret's namespace. Required with authority secret."`
	Name      string `yaml:"name" format:"domain" doc:"The Secret's name. Required with authority secret."`
}

// Envoy is the Envoy process of a gateway.
type Envoy struct {
	Path        string `yaml:"path" doc:"The Envoy binary, a path or a name in PATH. --envoy overrides it. Left out and without --envoy, Envoy is started by someone else."`
	Concurrency int    `yaml:"concurrency" default:"2" min:"1" max:"1024" doc:"Worker threads of Envoy."`
}

// Leases are the times of switched network modes.
type Leases struct {
	Linger  string `yaml:"linger" format:"duration" default:"15s" doc:"How long a container stays in the mode into which it was switched after the last access has ended, or after the gateway has: 1s to 1h."`
	Longest string `yaml:"longest" format:"duration" default:"1h" doc:"How long it stays at most after an access began, however long that lasts: from linger to 168h."`
}

// AuditStdout is the audit path that stands for standard output.
const AuditStdout = "stdout"

// FailureMode is what becomes of an operation whose audit line cannot be written.
type FailureMode string

// The failure modes.
const (
	FailureRefuse FailureMode = "refuse"
	FailureAllow  FailureMode = "allow"
)

// Audit says where the audit log is.
type Audit struct {
	Path      string      `yaml:"path" format:"path-or-stdout" derived:"<stateDir>/audit.log" doc:"A file, or stdout."`
	MaxSize   int         `yaml:"maxSize" default:"100" min:"1" max:"1048576" doc:"The size in MiB at which the file is rotated; the access log of Envoy as well."`
	Keep      int         `yaml:"keep" default:"10" min:"1" max:"10000" doc:"How many rotated files are kept, as path.1 (the newest), path.2 ..."`
	OnFailure FailureMode `yaml:"onFailure" values:"refuse|allow" default:"refuse" doc:"What becomes of an operation whose line cannot be written: refuse it, or allow it unrecorded."`
}

// Tracing says where traces go.
type Tracing struct {
	OTLP string `yaml:"otlp" format:"hostport" doc:"host:port of an OpenTelemetry collector that speaks OTLP over gRPC."`
}
