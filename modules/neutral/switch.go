package neutral

import (
	"context"
	"encoding/json"
	"time"
)

// SwitchMode is what a policy says of switching network modes.
type SwitchMode string

// The modes.
const (
	SwitchNever   SwitchMode = "never"
	SwitchRestore SwitchMode = "restore" // and back, when the access has ended
	SwitchKeep    SwitchMode = "keep"    // for good
)

// NetworkNeed is what an access needs of its target's network.
type NetworkNeed struct {
	Mode NetworkMode `json:"mode,omitempty"` // "" is any in which the gateway reaches the port
	Port uint16      `json:"port"`
	// Layer says what becomes of files that a container changed beside its volumes.
	Layer LayerMode `json:"layer,omitempty"`
}

// LayerMode is what becomes of a container's writable layer when the container is made anew.
type LayerMode string

// The modes.
const (
	LayerRefuse  LayerMode = ""        // a container that has changed files is not made anew
	LayerCommit  LayerMode = "commit"  // the new container has them
	LayerDiscard LayerMode = "discard" // the new container begins without them; the old one has them again
)

// SwitchPlan is what a change of the network mode takes. What it says is for the caller, and holds no addresses, but for
// Native.
type SwitchPlan struct {
	// Object is what is changed: the container itself, or the workload that keeps it. Two targets with the same Object are
	// switched together.
	Object Object      `json:"object"`
	From   NetworkMode `json:"from"`
	To     NetworkMode `json:"to"`
	// Live tells that nothing is restarted.
	Live bool `json:"live"`
	// Recreated are the containers that are ended and made anew, as the caller knows them.
	Recreated []string `json:"recreated,omitempty"`
	// Lost is what the switch costs, a sentence each: files, addresses, dependents.
	Lost []string `json:"lost,omitempty"`
	// Refusals are all reasons why it is not done, a sentence each.
	Refusals []string `json:"refusals,omitempty"`
	// Away is about how long the target does not answer, each way.
	Away time.Duration `json:"away"`
	// Keep tells that the target stays in the new mode. Policy says so, not the orchestrator.
	Keep bool `json:"keep,omitempty"`
	// Native is what the orchestrator's dialect must remember; the journal keeps it.
	Native json.RawMessage `json:"native,omitempty"`
}

// Switching is a switch under way, as the journal has it.
type Switching struct {
	ID   string // of the lease: lower case letters and digits, at most 12
	Peer string // in whose name it is done
	Ref  TargetRef
	Need NetworkNeed
	Plan SwitchPlan
	// Step writes the journal: the name of what is about to be done, and, unless it is nil, what must be remembered of it in
	// the place of Plan.Native. It is called before each touch of the orchestrator. Its error ends the switch before that
	// touch: the journal cannot be written, or another replica has taken the switch over.
	Step func(ctx context.Context, step string, native json.RawMessage) error
}
