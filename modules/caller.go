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

// Groups are the groups that a caller is in, as they cross to the peer: joined by commas, sorted, none twice. A comma before
// them says that the caller is in others too, which cannot be told. They are one word, so that what holds them can be compared.
type Groups string

// untold is before groups that are not all.
const untold = ","

// What a caller's groups may be at most.
const (
	maxGroups      = 128
	maxGroupsBytes = 4096
)

// JoinGroups makes Groups of names. It leaves out what cannot stand in a header as it is, or has a comma, and what is too
// much; left tells how many, and the groups are then not Whole.
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
	joined = Groups(strings.Join(kept, ","))
	if left > 0 {
		joined = untold + joined
	}
	return joined, left
}

// Whole tells whether these are all groups of the caller. What is asked of them is otherwise not known where it is not told.
func (g Groups) Whole() bool { return !strings.HasPrefix(string(g), untold) }

// Told are the names alone, joined by commas.
func (g Groups) Told() string { return strings.TrimPrefix(string(g), untold) }

// All are the names, in their order.
func (g Groups) All() iter.Seq[string] {
	if g.Told() == "" {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(g.Told(), ",")
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
	groups := Groups(header[0])
	if groups == untold {
		return groups, nil
	}
	if told, left := JoinGroups(strings.Split(groups.Told(), ",")); left == 0 && string(told) == groups.Told() {
		return groups, nil
	}
	return "", fault.New(fault.Invalid, how)
}
