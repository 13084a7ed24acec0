package neutral

// Action is one operation exactly; many actions share a Verb, which is what policy speaks of.
type Action string

// The actions. Their names are stable: metrics, audit lines and the published matrix carry them.
const (
	SystemPing    Action = "system.ping"
	SystemVersion Action = "system.version"
	SystemInfo    Action = "system.info"
	SystemUsage   Action = "system.usage"
	SystemAuth    Action = "system.auth"
	EventWatch    Action = "event.watch"

	ContainerList    Action = "container.list"
	ContainerInspect Action = "container.inspect"
	ContainerCreate  Action = "container.create"
	ContainerStart   Action = "container.start"
	ContainerStop    Action = "container.stop"
	ContainerKill    Action = "container.kill"
	ContainerRestart Action = "container.restart"
	ContainerRemove  Action = "container.remove"
	ContainerWait    Action = "container.wait"
	ContainerLogs    Action = "container.logs"
	ContainerAttach  Action = "container.attach"
	ContainerResize  Action = "container.resize"
	ContainerRename  Action = "container.rename"
	ContainerPause   Action = "container.pause"
	ContainerUnpause Action = "container.unpause"
	ContainerUpdate  Action = "container.update"
	ContainerTop     Action = "container.top"
	ContainerStats   Action = "container.stats"
	ContainerChanges Action = "container.changes"
	ContainerExport  Action = "container.export"
	ContainerCommit  Action = "container.commit"
	ContainerCopyOut Action = "container.copy-out"
	ContainerCopyIn  Action = "container.copy-in"
	ContainerStat    Action = "container.stat" // of one file
	ContainerPrune   Action = "container.prune"

	ExecCreate  Action = "exec.create"
	ExecStart   Action = "exec.start"
	ExecInspect Action = "exec.inspect"
	ExecResize  Action = "exec.resize"

	WorkloadList    Action = "workload.list"
	WorkloadInspect Action = "workload.inspect"
	WorkloadCreate  Action = "workload.create"
	WorkloadUpdate  Action = "workload.update"
	WorkloadRemove  Action = "workload.remove"
	WorkloadLogs    Action = "workload.logs"
	TaskList        Action = "task.list"
	TaskInspect     Action = "task.inspect"
	TaskLogs        Action = "task.logs"

	ImageList     Action = "image.list"
	ImageInspect  Action = "image.inspect"
	ImagePull     Action = "image.pull"
	ImageBuild    Action = "image.build"  // build, import, load
	ImageExport   Action = "image.export" // save, push: the image leaves the cluster
	ImageRemove   Action = "image.remove" // one, or all that are unused
	ImageOther    Action = "image.other"  // tag, history, search ...: never translated
	NetworkList   Action = "network.list"
	NetworkGet    Action = "network.inspect"
	NetworkCreate Action = "network.create"
	NetworkRemove Action = "network.remove"
	NetworkPrune  Action = "network.prune"   // all that are unused
	NetworkJoin   Action = "network.connect" // of a container
	NetworkLeave  Action = "network.disconnect"
	VolumeList    Action = "volume.list"
	VolumeGet     Action = "volume.inspect"
	VolumeCreate  Action = "volume.create"
	VolumeRemove  Action = "volume.remove"
	VolumePrune   Action = "volume.prune" // all that are unused
	VolumeOther   Action = "volume.other"
	NodeList      Action = "node.list"
	NodeInspect   Action = "node.inspect"
	NodeUpdate    Action = "node.update"
	NodeRemove    Action = "node.remove"
	SwarmInspect  Action = "swarm.inspect"
	SwarmOther    Action = "swarm.other"
	SecretList    Action = "secret.list"
	SecretGet     Action = "secret.inspect"
	SecretCreate  Action = "secret.create"
	SecretRemove  Action = "secret.remove"
	SecretUpdate  Action = "secret.update" // of its labels; what is in it stays
	ConfigList    Action = "config.list"
	ConfigGet     Action = "config.inspect"
	ConfigCreate  Action = "config.create"
	ConfigRemove  Action = "config.remove"
	ConfigUpdate  Action = "config.update" // of its labels; what is in it stays

	// ObjectRaw is a same-type call outside the model above; its verb is Raw unless the dialect says better.
	ObjectRaw Action = "object.raw"
)

// actions says of each action which verb and kind policy sees, whether the request's body is needed to plan it, and
// whether its answer is a stream in another framing on each side.
var actions = map[Action]struct {
	verb   Verb
	kind   Kind
	body   bool
	stream bool
}{
	SystemPing:    {verb: Get, kind: KindSystem},
	SystemVersion: {verb: Get, kind: KindSystem},
	SystemInfo:    {verb: Get, kind: KindSystem},
	SystemUsage:   {verb: Get, kind: KindSystem},
	SystemAuth:    {verb: Get, kind: KindSystem, body: true},
	EventWatch:    {verb: Watch, kind: KindEvent, stream: true},

	ContainerList:    {verb: List, kind: KindContainer},
	ContainerInspect: {verb: Get, kind: KindContainer},
	ContainerCreate:  {verb: Create, kind: KindContainer, body: true},
	ContainerStart:   {verb: Start, kind: KindContainer},
	ContainerStop:    {verb: Stop, kind: KindContainer},
	ContainerKill:    {verb: Stop, kind: KindContainer},
	ContainerRestart: {verb: Restart, kind: KindContainer},
	ContainerRemove:  {verb: Destroy, kind: KindContainer},
	ContainerWait:    {verb: Get, kind: KindContainer, stream: true},
	ContainerLogs:    {verb: Logs, kind: KindContainer, stream: true},
	ContainerAttach:  {verb: Attach, kind: KindContainer, stream: true},
	ContainerResize:  {verb: Attach, kind: KindContainer},
	ContainerRename:  {verb: Update, kind: KindContainer},
	ContainerPause:   {verb: Pause, kind: KindContainer},
	ContainerUnpause: {verb: Resume, kind: KindContainer},
	ContainerUpdate:  {verb: Update, kind: KindContainer, body: true},
	ContainerTop:     {verb: Get, kind: KindContainer},
	ContainerStats:   {verb: Get, kind: KindContainer, stream: true},
	ContainerChanges: {verb: Get, kind: KindContainer},
	ContainerExport:  {verb: Copy, kind: KindContainer, stream: true},
	ContainerCommit:  {verb: Copy, kind: KindContainer, body: true},
	ContainerCopyOut: {verb: Exec, kind: KindContainer, stream: true},
	ContainerCopyIn:  {verb: Exec, kind: KindContainer, stream: true},
	ContainerStat:    {verb: Exec, kind: KindContainer},
	ContainerPrune:   {verb: Destroy, kind: KindContainer},

	ExecCreate:  {verb: Exec, kind: KindContainer, body: true},
	ExecStart:   {verb: Exec, kind: KindContainer, stream: true},
	ExecInspect: {verb: Exec, kind: KindContainer},
	ExecResize:  {verb: Exec, kind: KindContainer},

	WorkloadList:    {verb: List, kind: KindWorkload},
	WorkloadInspect: {verb: Get, kind: KindWorkload},
	WorkloadCreate:  {verb: Create, kind: KindWorkload, body: true},
	WorkloadUpdate:  {verb: Update, kind: KindWorkload, body: true},
	WorkloadRemove:  {verb: Destroy, kind: KindWorkload},
	WorkloadLogs:    {verb: Logs, kind: KindWorkload, stream: true},
	TaskList:        {verb: List, kind: KindTask},
	TaskInspect:     {verb: Get, kind: KindTask},
	TaskLogs:        {verb: Logs, kind: KindTask, stream: true},

	ImageList:     {verb: List, kind: KindImage},
	ImageInspect:  {verb: Get, kind: KindImage},
	ImagePull:     {verb: Create, kind: KindImage, stream: true},
	ImageBuild:    {verb: Create, kind: KindImage, stream: true},
	ImageExport:   {verb: Copy, kind: KindImage, stream: true},
	ImageRemove:   {verb: Destroy, kind: KindImage},
	ImageOther:    {verb: Update, kind: KindImage},
	NetworkList:   {verb: List, kind: KindNetwork},
	NetworkGet:    {verb: Get, kind: KindNetwork},
	NetworkCreate: {verb: Create, kind: KindNetwork, body: true},
	NetworkRemove: {verb: Destroy, kind: KindNetwork},
	NetworkPrune:  {verb: Destroy, kind: KindNetwork},
	NetworkJoin:   {verb: Update, kind: KindNetwork, body: true},
	NetworkLeave:  {verb: Update, kind: KindNetwork, body: true},
	VolumeList:    {verb: List, kind: KindVolume},
	VolumeGet:     {verb: Get, kind: KindVolume},
	VolumeCreate:  {verb: Create, kind: KindVolume, body: true},
	VolumeRemove:  {verb: Destroy, kind: KindVolume},
	VolumePrune:   {verb: Destroy, kind: KindVolume},
	VolumeOther:   {verb: Update, kind: KindVolume},
	NodeList:      {verb: List, kind: KindNode},
	NodeInspect:   {verb: Get, kind: KindNode},
	NodeUpdate:    {verb: Update, kind: KindNode},
	NodeRemove:    {verb: Destroy, kind: KindNode},
	SwarmInspect:  {verb: Get, kind: KindSystem},
	SwarmOther:    {verb: Update, kind: KindSystem},
	SecretList:    {verb: List, kind: KindSecret},
	SecretGet:     {verb: Get, kind: KindSecret},
	SecretCreate:  {verb: Create, kind: KindSecret, body: true},
	SecretRemove:  {verb: Destroy, kind: KindSecret},
	SecretUpdate:  {verb: Update, kind: KindSecret, body: true},
	ConfigList:    {verb: List, kind: KindConfig},
	ConfigGet:     {verb: Get, kind: KindConfig},
	ConfigCreate:  {verb: Create, kind: KindConfig, body: true},
	ConfigRemove:  {verb: Destroy, kind: KindConfig},
	ConfigUpdate:  {verb: Update, kind: KindConfig, body: true},
	ObjectRaw:     {verb: Raw, kind: KindOther},
}

// Verb is what policy calls the action.
func (a Action) Verb() Verb {
	if e, ok := actions[a]; ok {
		return e.verb
	}
	return Raw
}

// Kind is what policy calls the action's object.
func (a Action) Kind() Kind {
	if e, ok := actions[a]; ok {
		return e.kind
	}
	return KindOther
}

// Body tells whether the request's body must be read before the action can be planned.
func (a Action) Body() bool { return actions[a].body }

// Stream tells whether request or answer is a stream when the action is translated.
func (a Action) Stream() bool { return actions[a].stream }

// Actions lists every action that is known, in no order.
func Actions() []Action {
	all := make([]Action, 0, len(actions))
	for a := range actions {
		all = append(all, a)
	}
	return all
}
