package freezer

// Phase is how far an agent has come with a container.
type Phase string

// The phases. None is no mark at all.
const (
	None Phase = ""
	// Begun says that the agent is about to pause: whether it did, the task tells.
	Begun Phase = "begun"
	// Held says that the agent paused it. A task that runs all the same was made to by somebody else.
	Held Phase = "held"
	// Released says that somebody else did, and that the wish is over for that.
	Released Phase = "released"
)

// Mark is what an agent keeps with a container, where it outlives the agent.
type Mark struct {
	Phase Phase
	Wish  string
}

// Task is what the runtime says of a container's processes.
type Task int

// The tasks.
const (
	Gone     Task = iota // there is none, or it has ended
	Running              //
	Paused               //
	Changing             // on the way from one to another
)

// View is all that a decision is made from.
type View struct {
	Wish    string // that asks for this very container to be frozen; "" is none
	Refusal string // why it will not be, whatever the wish; "" is no reason
	Mark    Mark
	Task    Task
}

// Deed is what an agent does next.
type Deed int

// The deeds.
const (
	Rest   Deed = iota // nothing; the answer says how it is
	Note               // keep the mark
	Erase              // drop the mark
	Pause              //
	Resume             //
	Await              // look again soon
)

// Move is a deed, and what it takes or tells.
type Move struct {
	Deed   Deed
	Mark   Mark   // for Note
	State  State  // for Rest; "" where it runs on as it should
	Reason string // for Rest
}

// elsewhere is why a container is not frozen that stands still already.
const elsewhere = "somebody else than isthmus has paused it on its node"

// Decide says what to do with a container. Each deed is one call to the runtime, after which it is looked at again, so an
// agent that dies between any two of them goes on where it was:
//
//	wished:    ─▶ Note begun ─▶ Pause ─▶ Note held ─▶ Rest frozen
//	not:       ─▶ Resume ─▶ Erase ─▶ Rest
//	runs, held (somebody else resumed it): ─▶ Note released ─▶ Rest resumed
//	paused, no mark (somebody else paused it): ─▶ Rest refused, and no thaw ever
func Decide(v View) Move {
	switch {
	case v.Task == Gone && v.Wish != "":
		return Move{Deed: Rest, State: Ended}
	case v.Task == Gone:
		return Move{Deed: Rest}
	case v.Task == Changing:
		return Move{Deed: Await}
	case v.Wish == "" || v.Refusal != "":
		return thaw(v)
	case v.Task == Paused:
		return keep(v)
	}
	return freeze(v)
}

// freeze is for what is wished and runs.
func freeze(v View) Move {
	same := v.Mark.Wish == v.Wish
	switch {
	case same && v.Mark.Phase == Begun:
		return Move{Deed: Pause}
	case same && v.Mark.Phase == Held:
		return Move{Deed: Note, Mark: Mark{Released, v.Wish}}
	case same && v.Mark.Phase == Released:
		return Move{Deed: Rest, State: Resumed}
	}
	return Move{Deed: Note, Mark: Mark{Begun, v.Wish}}
}

// keep is for what is wished and stands still.
func keep(v View) Move {
	switch v.Mark.Phase {
	case Begun, Held:
		if v.Mark == (Mark{Held, v.Wish}) {
			return Move{Deed: Rest, State: Frozen}
		}
		return Move{Deed: Note, Mark: Mark{Held, v.Wish}}
	}
	return Move{Deed: Rest, State: Refused, Reason: elsewhere}
}

// thaw is for what shall run.
func thaw(v View) Move {
	switch {
	case v.Mark.Phase == None && v.Refusal != "" && v.Wish != "":
		return Move{Deed: Rest, State: Refused, Reason: v.Refusal}
	case v.Mark.Phase == None:
		return Move{Deed: Rest}
	case v.Task == Paused && (v.Mark.Phase == Begun || v.Mark.Phase == Held):
		return Move{Deed: Resume}
	}
	return Move{Deed: Erase}
}
