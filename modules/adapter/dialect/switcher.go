package dialect

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Switcher is a cluster that changes the network mode of what runs, and changes it back. All it does is looked up anew each
// time and goes on from what is there, so that a call that a crash cut short is made again by whoever comes after.
type Switcher interface {
	// PlanSwitch says what it takes that a need is served, in a peer's name. It touches nothing. What stands against it is in
	// the plan, all of it; an error is that of a plan that could not be made.
	PlanSwitch(ctx context.Context, peer string, ref neutral.TargetRef, need neutral.NetworkNeed) (neutral.SwitchPlan, error)
	// Switch brings the target of a plan into its new mode, and tells where it is from then on. It is done when the
	// orchestrator says that the target runs, in that mode. After an error the caller restores.
	Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error)
	// Restore brings the target back into its old mode, from wherever Switch got to, and takes away all that was made for
	// the switch. What somebody else changed since is left as it is: that is a Conflict fault, and it is over.
	Restore(ctx context.Context, s *neutral.Switching) error
	// Keep makes the new mode the target's own and takes away what was kept for its way back.
	Keep(ctx context.Context, s *neutral.Switching) error
}
