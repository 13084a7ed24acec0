package docker

import (
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// decodeExecCreate reads https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Exec/operation/ContainerExec.
func decodeExecCreate(op *neutral.Operation, t *tree) ([]neutral.Loss, error) {
	spec := &neutral.ExecSpec{
		Command:    t.get("Cmd").words(),
		Env:        t.get("Env").strs(),
		WorkingDir: t.get("WorkingDir").str(),
		User:       t.get("User").str(),
		TTY:        t.get("Tty").boolean(),
		Stdin:      t.get("AttachStdin").boolean(),
		Stdout:     t.get("AttachStdout").boolean(),
		Stderr:     t.get("AttachStderr").boolean(),
		Privileged: t.get("Privileged").boolean(),
		DetachKeys: t.get("DetachKeys").str(),
		Size:       t.get("ConsoleSize").size(),
	}
	t.get("Container").understood() // old clients name the container here too
	t.get("Detach").understood()    // old clients say here what exec.start says
	losses, err := settle(t, nil, string(op.Action))
	if err != nil {
		return nil, err
	}
	if len(spec.Command) == 0 {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Cmd", Message: "no exec command specified"}
	}
	if err := checkEnv(spec.Env, "Env"); err != nil {
		return nil, err
	}
	op.Exec = spec
	return losses, nil
}

// size reads a terminal's size given as [height, width]; nil for none and for zeros.
func (t *tree) size() *neutral.Size {
	items := t.items()
	if len(items) == 0 {
		return nil
	}
	if len(items) != 2 {
		t.fail(fault.Invalid, "invalid JSON: %s wants a height and a width", t.path())
		return nil
	}
	rows, columns := items[0].count(), items[1].count()
	if rows == 0 && columns == 0 {
		return nil
	}
	if rows > 1<<16-1 || columns > 1<<16-1 {
		t.fail(fault.Invalid, "%s is out of range", t.path())
		return nil
	}
	return &neutral.Size{Rows: uint16(rows), Columns: uint16(columns)}
}

// decodeAttach reads which streams an attach carries.
func decodeAttach(op *neutral.Operation, q *query) {
	op.Attach = &neutral.AttachOptions{Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Stream: q.flag("stream"), Logs: q.flag("logs")}
	op.Extra = map[string]string{extraDetachKeys: q.text("detachKeys")}
	if _, err := detachSequence(q.text("detachKeys")); err != nil && q.err == nil {
		q.err = err
	}
	if op.Attach.Logs {
		op.Logs = &neutral.LogOptions{Stdout: op.Attach.Stdout, Stderr: op.Attach.Stderr, Tail: -1, Follow: op.Attach.Stream}
	}
}

// decodeExecStart reads how an exec starts; a client that says nothing wants it attached.
func decodeExecStart(op *neutral.Operation, q *query, body []byte) []neutral.Loss {
	op.Attach = &neutral.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true}
	if len(body) == 0 {
		return nil
	}
	t, err := parseTree(body)
	if err != nil {
		q.err = err
		return nil
	}
	op.Attach.Detach = t.get("Detach").boolean()
	op.Attach.TTY = t.get("Tty").boolean()
	op.Attach.Size = t.get("ConsoleSize").size()
	for _, repeated := range []string{"User", "Privileged", "Container", "Cmd", "AttachStdin", "AttachStdout", "AttachStderr",
		"DetachKeys", "Env", "WorkingDir"} {
		t.get(repeated).understood() // old clients repeat the exec's own fields; the exec was made with them
	}
	losses, err := settle(t, nil, string(op.Action))
	if err != nil {
		q.err = err
		return nil
	}
	if op.Attach.Detach {
		op.Attach.Stdin, op.Attach.Stdout, op.Attach.Stderr, op.Attach.Stream = false, false, false, false
	}
	return losses
}
