package caller

import (
	"io/fs"
	"os/user"
	"strconv"
	"syscall"

	"github.com/isthmus-mesh/isthmus/modules"
)

// Process is what the kernel knows of who runs a process on this machine.
type Process struct {
	User   uint32
	Groups []uint32
	// Part says that it may be in other groups too.
	Part bool
}

// Owner is the user and the groups that a process runs as: "unix:alice", or "unix:1000" where this machine has no name.
func Owner(p Process) Identity {
	name := func(id uint32, lookup func(string) (string, error)) string {
		text := strconv.FormatUint(uint64(id), 10)
		if found, err := lookup(text); err == nil && checkName(found) == nil {
			return PrefixUnix + found
		}
		return PrefixUnix + text
	}
	var groups []string
	for _, group := range p.Groups {
		groups = append(groups, name(group, func(id string) (string, error) {
			g, err := user.LookupGroupId(id)
			if err != nil {
				return "", err
			}
			return g.Name, nil
		}))
	}
	if p.Part {
		groups = append(groups, "") // which cannot be told
	}
	joined, _ := modules.JoinGroups(groups)
	return Identity{Groups: joined, Name: name(p.User, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})}
}

// inode tells a file from the one that took its place.
func inode(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
