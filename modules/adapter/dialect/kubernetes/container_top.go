package kubernetes

import (
	"context"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// extraPS is where a caller's arguments of ps ride.
const extraPS = "ps_args"

// topContainer asks the ps of the image.
func (a *action) topContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := found.takes("top"); err != nil {
		return neutral.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	commands := [][]string{{"ps", "-ef"}, {"ps"}}
	if args := strings.Fields(a.op.Extra[extraPS]); len(args) > 0 {
		commands = [][]string{append([]string{"ps"}, args...)}
	}
	for _, command := range commands {
		output, code, err := a.capture(ctx, found, command)
		switch {
		case err != nil:
			return neutral.Result{}, err
		case code == 0:
			table := parseProcesses(output)
			return neutral.Result{Top: &table}, nil
		case code == exitNotFound || code == exitForbidden:
			return neutral.Result{}, fault.New(fault.Unsupported,
				"top is refused: Kubernetes does not list processes, and the image has no ps to ask from inside")
		}
	}
	return neutral.Result{}, fault.New(fault.Invalid, "ps in the container does not take these arguments")
}

// parseProcesses reads ps's table; the last column is the rest of the line.
func parseProcesses(output string) neutral.ProcessTable {
	lines := strings.Split(output, "\n")
	table := neutral.ProcessTable{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) == 0 || len(table.Titles) == 0 {
			continue
		}
		if last := len(table.Titles) - 1; len(fields) > last {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		table.Processes = append(table.Processes, fields)
	}
	return table
}
