package lease_test

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeSwitcher is an orchestrator with one container, whose mode it changes in two steps each way.
type fakeSwitcher struct {
	mu       sync.Mutex
	mode     neutral.NetworkMode
	switches int
	restores int
	keeps    int
	// Of these, what happens at the next call.
	failSwitch  error
	failRestore []error
	hold        chan struct{} // Switch waits for it, between its steps
}

func (f *fakeSwitcher) state() (neutral.NetworkMode, int, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode, f.switches, f.restores
}

func (f *fakeSwitcher) PlanSwitch(context.Context, string, neutral.TargetRef, neutral.NetworkNeed) (neutral.SwitchPlan, error) {
	return neutral.SwitchPlan{}, errors.New("not asked")
}

func (f *fakeSwitcher) Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error) {
	if err := s.Step(ctx, "stop", []byte(`{"was":"none"}`)); err != nil {
		return s.Ref, err
	}
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return s.Ref, ctx.Err()
		}
	}
	if err := s.Step(ctx, "start", nil); err != nil {
		return s.Ref, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.switches++
	if f.failSwitch != nil {
		return s.Ref, f.failSwitch
	}
	f.mode = s.Plan.To
	return s.Ref, nil
}

func (f *fakeSwitcher) Restore(ctx context.Context, s *neutral.Switching) error {
	if err := s.Step(ctx, "back", nil); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restores++
	if len(f.failRestore) > 0 {
		err := f.failRestore[0]
		f.failRestore = f.failRestore[1:]
		return err
	}
	if !strings.Contains(string(s.Plan.Native), "none") && f.switches > 0 {
		return fault.New(fault.Internal, "the journal has lost what was remembered: %s", s.Plan.Native)
	}
	f.mode = s.Plan.From
	return nil
}

func (f *fakeSwitcher) Keep(context.Context, *neutral.Switching) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keeps++
	return nil
}
