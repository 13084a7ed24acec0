package freezer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const podUID = "a-pod"

// fakeRuntime is one container as a runtime has it, and who paused it.
type fakeRuntime struct {
	task   Task
	mark   Mark
	ours   bool // the pause is the agent's
	calls  int  // that change something
	crash  int  // the agent dies at this call; 0 is never
	before bool // before the call has done anything, else after
	broken []string
}

var errCrash = errors.New("the agent was killed")

func (r *fakeRuntime) Look(context.Context, string) (Sight, error) {
	if r.task == Gone {
		return Sight{}, nil
	}
	return Sight{Task: r.task, Mark: r.mark, Pod: podUID}, nil
}

// do runs one call, or dies at it.
func (r *fakeRuntime) do(effect func() error) error {
	r.calls++
	dies := r.crash == r.calls
	if dies && r.before {
		return errCrash
	}
	err := effect()
	if dies {
		return errCrash
	}
	return err
}

func (r *fakeRuntime) Note(_ context.Context, _ string, mark Mark) error {
	return r.do(func() error { r.mark = mark; return nil })
}

func (r *fakeRuntime) Erase(context.Context, string) error {
	return r.do(func() error { r.mark = Mark{}; return nil })
}

func (r *fakeRuntime) Pause(context.Context, string) error {
	return r.do(func() error {
		if r.task != Running {
			return ErrUnchanged
		}
		r.task, r.ours = Paused, true
		return nil
	})
}

func (r *fakeRuntime) Resume(context.Context, string) error {
	return r.do(func() error {
		if r.task != Paused {
			return ErrUnchanged
		}
		if !r.ours {
			r.broken = append(r.broken, "it resumed what somebody else had paused")
		}
		r.task, r.ours = Running, false
		return nil
	})
}

// doubtful tells whether a foreign pause could not be told from the agent's own, whoever looks: the mark says that the
// agent has paused it or was about to, and no agent has looked since it runs all the same. An agent that lives looks at
// once, so it takes one that died between two calls, or during whose absence somebody resumed and paused it again.
func (r *fakeRuntime) doubtful() bool { return r.mark.Phase == Begun || r.mark.Phase == Held }

// history is what happened, for whoever reads a failure.
type history []string

func (h *history) add(format string, args ...any) { *h = append(*h, fmt.Sprintf(format, args...)) }

// live plays one life of a container, with wishes, deaths of the agent at any call, restarts and somebody else who pauses
// and resumes it. The answer is what went wrong, "" for nothing.
func live(random *rand.Rand, steps int) (wrong string, past history) {
	ctx := context.Background()
	r := &fakeRuntime{task: Running}
	wish, wishes, refusal := "", 0, ""
	foreign := false // somebody else had a hand in it since the wish
	for range steps {
		switch random.IntN(9) {
		case 0:
			wishes++
			wish, foreign = fmt.Sprintf("wish-%d", wishes), r.task == Paused && !r.ours
			past.add("%s", wish)
		case 1:
			wish = ""
			past.add("no wish")
		case 2:
			if r.task == Running && !r.doubtful() {
				r.task, r.ours, foreign = Paused, false, true
				past.add("somebody pauses")
			}
		case 3:
			if r.task == Paused {
				r.task, r.ours, foreign = Running, false, true
				past.add("somebody resumes")
			}
		case 4:
			*r = fakeRuntime{task: Running}
			wish, foreign, refusal = "", false, ""
			past.add("restart")
		case 5:
			if random.IntN(4) == 0 {
				r.task, r.mark, r.ours = Gone, Mark{}, false
				past.add("gone")
			}
		case 6, 7:
			r.crash, r.before = r.calls+1+random.IntN(4), random.IntN(2) == 0
			_, _, err := Settle(ctx, r, Target{ID: "c", Pod: podUID, Wish: wish, Refusal: refusal})
			past.add("settle, killed at %d before %t: %v -> %v %v", r.crash-r.calls, r.before, err, r.task, r.mark)
			r.crash = 0
		default:
			state, _, err := Settle(ctx, r, Target{ID: "c", Pod: podUID, Wish: wish, Refusal: refusal})
			past.add("settle: %s %v -> %v %v", state, err, r.task, r.mark)
			switch calls := r.calls; {
			case err != nil:
				return err.Error(), past
			case state == Frozen && (r.task != Paused || !r.ours):
				return "it says that it froze what it did not", past
			case wish == "" && r.task == Paused && r.ours:
				return "it froze what nobody wishes", past
			case wish == "" && r.mark.Phase != None && r.task != Gone:
				return "a mark is left", past
			case wish != "" && !foreign && r.task != Gone && state != Frozen:
				return "it did not freeze", past
			default:
				again, _, err := Settle(ctx, r, Target{ID: "c", Pod: podUID, Wish: wish, Refusal: refusal})
				if again != state || err != nil || r.calls != calls {
					return fmt.Sprintf("it does not rest: %s, then %s, %v", state, again, err), past
				}
			}
		}
		if len(r.broken) > 0 {
			return r.broken[0], past
		}
	}
	return "", past
}

// TestLives plays many of them.
func TestLives(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20000) {
		if wrong, past := live(rand.New(rand.NewPCG(seed, 1)), 60); wrong != "" {
			t.Fatalf("seed %d: %s\n%s", seed, wrong, strings.Join(past, "\n"))
		}
	}
}

func FuzzLives(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, one, two uint64) {
		if wrong, past := live(rand.New(rand.NewPCG(one, two)), 200); wrong != "" {
			t.Fatalf("%s\n%s", wrong, strings.Join(past, "\n"))
		}
	})
}

// TestDecide holds each decision there is to what may never be done.
func TestDecide(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, wish := range []string{"", "a", "b"} {
		for _, refusal := range []string{"", "no"} {
			for _, phase := range []Phase{None, Begun, Held, Released} {
				for _, marked := range []string{"a", "b"} {
					for _, task := range []Task{Gone, Running, Paused, Changing} {
						v := View{Wish: wish, Refusal: refusal, Task: task}
						if phase != None {
							v.Mark = Mark{phase, marked}
						}
						seen++
						wanted, move := wish != "" && refusal == "", Decide(v)
						if move.Deed == Pause && (!wanted || task != Running || v.Mark != Mark{Begun, wish}) {
							t.Errorf("%+v: it pauses", v)
						}
						if move.Deed == Resume && (wanted || task != Paused || phase == None || phase == Released) {
							t.Errorf("%+v: it resumes", v)
						}
						if move.Deed == Rest && (move.State == Frozen) != (wanted && task == Paused && v.Mark == Mark{Held, wish}) {
							t.Errorf("%+v: %+v", v, move)
						}
						if move.Deed == Rest && (move.State == Refused) != (move.Reason != "") {
							t.Errorf("%+v: %+v", v, move)
						}
					}
				}
			}
		}
	}
	if seen != 3*2*4*2*4 {
		t.Fatal(seen)
	}
}

// TestSettleForeign is the pause by somebody else that falls between the agent's look and its pause.
func TestSettleForeign(t *testing.T) {
	t.Parallel()
	r := &racedRuntime{fakeRuntime{task: Running}}
	state, reason, err := Settle(t.Context(), r, Target{ID: "c", Pod: podUID, Wish: "a"})
	if err != nil || state != Refused || reason == "" || r.mark != (Mark{}) {
		t.Fatal(state, reason, err, r.mark)
	}
	if state, _, err := Settle(t.Context(), r, Target{ID: "c", Pod: podUID}); err != nil || state != "" || r.task != Paused {
		t.Fatal("it is thawed:", state, err, r.task)
	}
	if state, _, _ := Settle(t.Context(), r, Target{ID: "c", Pod: "another", Wish: "a"}); state != Refused {
		t.Fatal("another Pod's container:", state)
	}
}

type racedRuntime struct{ fakeRuntime }

func (r *racedRuntime) Pause(ctx context.Context, id string) error {
	r.task, r.ours = Paused, false
	return r.fakeRuntime.Pause(ctx, id)
}

func TestText(t *testing.T) {
	t.Parallel()
	id, in := strings.Repeat("ab", 16), "containerd://"+strings.Repeat("0f", 32)
	wishes := Wishes{"main": {ID: id, Instance: in, At: time.Unix(1, 0).UTC()}}
	back, err := ParseWishes(wishes.String())
	if err != nil || back["main"] != wishes["main"] {
		t.Fatal(back, err)
	}
	for name, text := range map[string]string{
		"no JSON": "x", "no id": `{"main":{"instance":"` + in + `"}}`, "an id of another runtime": `{"main":{"id":"` + id + `","instance":"cri-o://1"}}`,
		"a path for an id": `{"main":{"id":"` + id + `","instance":"containerd://../../x"}}`,
		"a name":           `{"../x":{"id":"` + id + `","instance":"` + in + `"}}`, "too long": `{"a":"` + strings.Repeat("x", limit) + `"}`,
	} {
		if _, err := ParseWishes(text); err == nil {
			t.Errorf("%s: is read", name)
		}
	}
	report := Report{"main": {Wish: id, Instance: in, State: Frozen, Since: time.Unix(2, 0).UTC()}}
	again, err := ParseReport(report.String())
	if err != nil || !again.Equal(report) || !again.Frozen() {
		t.Fatal(again, err)
	}
	later := Report{"main": {Wish: id, Instance: in, State: Frozen, Since: time.Unix(9, 0).UTC()}}
	if !later.After(report).Equal(report) || later.Equal(report) {
		t.Error("the time of an unchanged answer changes")
	}
	if _, err := ParseReport(`{"main":{"state":"odd"}}`); err == nil {
		t.Error("an odd state is read")
	}
	if Report(nil).String() != "{}" || Wishes(nil).String() != "" {
		t.Error("nothing has a text")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"main":{"id":"` + strings.Repeat("ab", 16) + `","instance":"containerd://` + strings.Repeat("0f", 32) + `","at":"2026-01-01T00:00:00Z"}}`)
	f.Add(`{"main":{"wish":"a","instance":"b","state":"frozen","since":"2026-01-01T00:00:00Z"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if wishes, err := ParseWishes(text); err == nil {
			if back, err := ParseWishes(wishes.String()); err != nil || len(back) != len(wishes) {
				t.Errorf("%q: %v", wishes.String(), err)
			}
		}
		if report, err := ParseReport(text); err == nil {
			if back, err := ParseReport(report.String()); err != nil || !back.Equal(report) {
				t.Errorf("%q: %v", report.String(), err)
			}
		}
	})
}
