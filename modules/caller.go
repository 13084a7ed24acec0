package modules

import (
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// maxCaller bounds the name of a caller; a SPIFFE ID and a service account's name are shorter.
const maxCaller = 512

// CheckCaller tells what is wrong with the name of a caller: it has to stand in a header and in a line of a log as it is.
func CheckCaller(name string) error {
	switch {
	case name == "":
		return errors.New("a caller's name is empty")
	case len(name) > maxCaller:
		return errors.New("a caller's name is longer than 512 bytes")
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return errors.New("a caller's name begins or ends with a space")
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return errors.New("a caller's name has characters that are not printable ASCII")
		}
	}
	return nil
}

// CallerOf is the caller that a peer's header names; "" where it names none.
func CallerOf(header []string) (string, error) {
	switch len(header) {
	case 0:
		return "", nil
	case 1:
		if err := CheckCaller(header[0]); err != nil {
			return "", fault.Wrap(fault.Invalid, err, "the peer's gateway names its caller in a way that cannot be: %v", err)
		}
		return header[0], nil
	}
	return "", fault.New(fault.Invalid, "the peer's gateway names more than one caller")
}

// Groups are the groups that a caller is in, as they cross to the peer: joined by commas, sorted, none twice. They are one
// word, so that what holds them can be compared.
type Groups string

// What a caller's groups may be at most. A group only ever allows something, so what is left out is denied.
const (
	maxGroups      = 128
	maxGroupsBytes = 4096
)

// JoinGroups makes Groups of names. It leaves out what cannot stand in a header as it is, or has a comma, and what is too
// much; left tells how many.
func JoinGroups(groups []string) (joined Groups, left int) {
	groups = slices.Clone(groups)
	slices.Sort(groups)
	groups = slices.Compact(groups)
	var kept []string
	size := 0
	for _, group := range groups {
		if CheckCaller(group) != nil || strings.Contains(group, ",") || len(kept) == maxGroups || size+len(group)+1 > maxGroupsBytes {
			left++
			continue
		}
		kept = append(kept, group)
		size += len(group) + 1
	}
	return Groups(strings.Join(kept, ",")), left
}

// All are the names, in their order.
func (g Groups) All() iter.Seq[string] {
	if g == "" {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(string(g), ",")
}

// List are the names; nil for none.
func (g Groups) List() []string { return slices.Collect(g.All()) }

// GroupsOf are the groups that a peer's header names of its caller.
func GroupsOf(header []string, caller string) (Groups, error) {
	const how = "the peer's gateway names groups of its caller in a way that cannot be"
	switch {
	case len(header) == 0:
		return "", nil
	case len(header) > 1, caller == "":
		return "", fault.New(fault.Invalid, how)
	}
	if groups, left := JoinGroups(strings.Split(header[0], ",")); left == 0 && groups == Groups(header[0]) {
		return groups, nil
	}
	return "", fault.New(fault.Invalid, how)
}
