package neutral

import (
	"io"
	"time"
)

// Result is what came of an operation; the action says which field it is in.
type Result struct {
	ID         string // what was created
	Container  *Container
	Containers []Container
	Workload   *Workload
	Workloads  []Workload
	Task       *Task
	Tasks      []Task
	Node       *Node
	Nodes      []Node
	Image      *Image
	Images     []Image
	Network    *Network
	Networks   []Network
	Volumes    []Volume
	System     *System
	Exec       *ExecState
	Top        *ProcessTable
	Stored     []StoredFile // secrets, configs
	File       *FileStat    // container.stat
	ExitCode   int          // container.wait
	Message    string
	Removed    []string
	Losses     []Loss
}

// ExecState is an exec's outcome.
type ExecState struct {
	ID        string
	Container string // id
	Spec      ExecSpec
	Running   bool
	ExitCode  *int // nil while it runs or when it never started
	PID       int
}

// ProcessTable is the processes of a container.
type ProcessTable struct {
	Titles    []string
	Processes [][]string
}

// Loss is a field that a translation changed or could not carry.
type Loss struct {
	Field  string // in the caller's own terms, "HostConfig.RestartPolicy.MaximumRetryCount"
	Change string // what was done: "dropped", or what it became
	Reason string
}

// String is the loss as a warning to the caller.
func (l Loss) String() string {
	s := l.Field + ": " + l.Change
	if l.Reason != "" {
		s += " (" + l.Reason + ")"
	}
	return s
}

// Stream names the streams of a session.
type Stream int

// The streams of a session.
const (
	Stdin Stream = iota
	Stdout
	Stderr
)

// Chunk is a piece of output. Time and Context are set on log lines only.
type Chunk struct {
	Stream  Stream
	Data    []byte
	Time    time.Time
	Context *Task // workload.logs: whose line it is
}

// Session is the caller's side of a streamed action. The adapter's bridge makes it, an outbound dialect drives it.
// Methods but Stdin are safe for concurrent use.
type Session interface {
	// Accept answers the caller that the stream has begun; an error before it is an ordinary error answer. Later
	// calls do nothing.
	Accept() error
	// Output gives the caller a chunk. It accepts by itself. Data is not kept.
	Output(Chunk) error
	// Event gives the caller an event.
	Event(Event) error
	// Progress gives the caller a line of progress (image.pull).
	Progress(id, status string) error
	// Stdin is what the caller sends; io.EOF is its half-close. Nil when the caller sends nothing.
	Stdin() io.Reader
	// Resizes gives terminal sizes; nil when there is no terminal.
	Resizes() <-chan Size
}
