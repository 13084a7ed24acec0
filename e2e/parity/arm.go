package parity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	stepLimit  = 60 * time.Second
	untilLimit = 60 * time.Second
	untilPause = 150 * time.Millisecond
	slow       = 2 * time.Second
)

// Arm is one of the two ways that a scenario goes: to the client's own orchestrator, or through Isthmus to the other.
type Arm struct {
	Name string
	Dir  string   // steps run in it; the scenario's files are there
	Env  []string // of the steps
	// Slow hears of steps that took long.
	Slow func(step Step, took time.Duration)
}

// Answer is what a command gave.
type Answer struct {
	Code           int
	Stdout, Stderr string
}

func (a Answer) String() string {
	return fmt.Sprintf("exit %d\n%s%s", a.Code, a.Stdout, a.Stderr)
}

// Play runs a scenario's steps and gives the answers of its rows by their names.
func (a Arm) Play(ctx context.Context, s Scenario) (map[string]Answer, error) {
	for _, file := range s.Files {
		path := filepath.Join(a.Dir, file.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, file.Data, 0o644); err != nil {
			return nil, err
		}
	}
	defer func() {
		for _, step := range s.Steps {
			if step.Kind == End { // it may well find nothing to end
				_, _ = a.run(context.WithoutCancel(ctx), step.Command)
			}
		}
	}()
	answers := map[string]Answer{}
	for _, step := range s.Steps {
		var answer Answer
		var err error
		begun := time.Now()
		switch step.Kind {
		case End:
			continue
		case Until:
			answer, err = a.until(ctx, step.Command)
		default:
			answer, err = a.run(ctx, step.Command)
		}
		if took := time.Since(begun); took > slow && a.Slow != nil {
			a.Slow(step, took)
		}
		if err == nil && step.Kind != Compared && answer.Code != 0 {
			err = errors.New(answer.String())
		}
		if err != nil {
			return answers, fmt.Errorf("%s: line %d: %s: %w", a.Name, step.Line, step.Command, err)
		}
		if step.Kind == Compared {
			answers[step.Name] = answer
		}
	}
	return answers, nil
}

// until runs a command until it succeeds, or gives what it said last.
func (a Arm) until(ctx context.Context, command string) (Answer, error) {
	for deadline := time.Now().Add(untilLimit); ; {
		answer, err := a.run(ctx, command)
		if err != nil || answer.Code == 0 || time.Now().After(deadline) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, ctx.Err()
		case <-time.After(untilPause):
		}
	}
}

func (a Arm) run(ctx context.Context, command string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	c.Dir, c.Env, c.Stdout, c.Stderr = a.Dir, a.Env, &stdout, &stderr
	// What the shell began ends with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	err := c.Run()
	answer := Answer{Code: c.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	if ctx.Err() != nil {
		return answer, fmt.Errorf("not within %s: %s", stepLimit, answer)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return answer, err
	}
	return answer, nil
}
