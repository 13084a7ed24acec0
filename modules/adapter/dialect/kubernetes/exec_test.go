package kubernetes

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	utilexec "k8s.io/client-go/util/exec"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestExecCommand(t *testing.T) {
	t.Parallel()
	c := &neutral.Container{User: "1000:1000", WorkingDir: "/srv"}
	for name, x := range map[string]struct {
		spec   neutral.ExecSpec
		want   []string
		losses int
		kind   fault.Kind
	}{
		"plain":           {spec: neutral.ExecSpec{Command: []string{"ls", "-l"}}, want: []string{"ls", "-l"}},
		"same user":       {spec: neutral.ExecSpec{Command: []string{"id"}, User: "1000"}, want: []string{"id"}},
		"same user group": {spec: neutral.ExecSpec{Command: []string{"id"}, User: "1000:1000"}, want: []string{"id"}},
		"same directory":  {spec: neutral.ExecSpec{Command: []string{"id"}, WorkingDir: "/srv"}, want: []string{"id"}},
		"environment":     {spec: neutral.ExecSpec{Command: []string{"a b", "$x"}, Env: []string{"A=1", "B= 2"}}, want: []string{"env", "A=1", "B= 2", "a b", "$x"}, losses: 1},
		"both": {spec: neutral.ExecSpec{Command: []string{"x"}, Env: []string{"A=1"}, WorkingDir: "/t p"}, losses: 2,
			want: []string{"/bin/sh", "-c", `cd -- "$1" || exit 126; shift; exec "$@"`, "sh", "/t p", "env", "A=1", "x"}},
		"another user":  {spec: neutral.ExecSpec{Command: []string{"id"}, User: "0"}, kind: fault.Unsupported},
		"another group": {spec: neutral.ExecSpec{Command: []string{"id"}, User: "1000:5"}, kind: fault.Unsupported},
		"named user":    {spec: neutral.ExecSpec{Command: []string{"id"}, User: "nobody"}, kind: fault.Unsupported},
		"privileged":    {spec: neutral.ExecSpec{Command: []string{"id"}, Privileged: true}, kind: fault.Unsupported},
		"option":        {spec: neutral.ExecSpec{Command: []string{"id"}, Env: []string{"-i=x"}}, kind: fault.Invalid},
		"no value":      {spec: neutral.ExecSpec{Command: []string{"id"}, Env: []string{"A"}}, kind: fault.Invalid},
	} {
		got, losses, err := execCommand(&x.spec, c, c.User)
		if x.kind != 0 {
			if !fault.Is(err, x.kind) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, x.want) || len(losses) != x.losses {
			t.Errorf("%s: %q, %v, %v", name, got, losses, err)
		}
	}
}

func TestReadOutcome(t *testing.T) {
	t.Parallel()
	runtime := `Internal error occurred: error executing command in container: failed to exec in container: failed to start exec "c0ffee": OCI runtime exec failed: exec failed: unable to start container process: `
	for name, c := range map[string]struct {
		err     error
		code    int
		message string
		kind    fault.Kind
	}{
		"good":      {},
		"code":      {err: utilexec.CodeExitError{Err: errors.New("x"), Code: 5}, code: 5},
		"not found": {err: errors.New(runtime + `exec: "nosuch": executable file not found in $PATH: unknown`), code: 127, message: `OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown`},
		"forbidden": {err: errors.New(runtime + `exec: "/etc": permission denied: unknown`), code: 126, message: `OCI runtime exec failed: exec failed: unable to start container process: exec: "/etc": permission denied: unknown`},
		"broken":    {err: errors.New("read tcp 10.0.0.1:443: connection reset"), kind: fault.Unavailable},
	} {
		code, message, err := readOutcome(c.err)
		if code != c.code || message != c.message || (err != nil) != (c.kind != 0) {
			t.Errorf("%s: %d %q %v", name, code, message, err)
		}
		if c.kind != 0 && (!fault.Is(err, c.kind) || fault.Of(err).Message != "the stream to the container broke") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := readOutcome(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that went: %v", err)
	}
}

func TestSizeQueue(t *testing.T) {
	t.Parallel()
	sizes := make(chan neutral.Size, 1)
	q := newSizeQueue(t.Context(), sizes, true)
	sizes <- neutral.Size{Rows: 24, Columns: 80}
	if a, b := q.Next(), q.Next(); a.Height != 23 || b.Height != 24 || a.Width != 80 || b.Width != 80 {
		t.Errorf("a terminal is not made to draw again: %v %v", a, b)
	}
	sizes <- neutral.Size{Rows: 10, Columns: 20}
	if s := q.Next(); s.Height != 10 || s.Width != 20 {
		t.Errorf("the next size is %v", s)
	}
	close(sizes)
	if s := q.Next(); s != nil {
		t.Errorf("after the last size: %v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if s := newSizeQueue(ctx, nil, false).Next(); s != nil {
		t.Errorf("without a terminal: %v", s)
	}
}

func TestParseProcesses(t *testing.T) {
	t.Parallel()
	table := parseProcesses("PID   USER     COMMAND\n    1 root     sh -c  sleep 1\n    7 root     ps\n\n")
	if !slices.Equal(table.Titles, []string{"PID", "USER", "COMMAND"}) || len(table.Processes) != 2 ||
		!slices.Equal(table.Processes[0], []string{"1", "root", "sh -c sleep 1"}) {
		t.Errorf("%+v", table)
	}
}
