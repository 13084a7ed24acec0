package caller

import (
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// Owner names the user that a process on this machine runs as: "unix:alice", or "unix:1000" where the user has no name
// here.
func Owner(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil && checkName(u.Username) == nil {
		return PrefixUnix + u.Username
	}
	return PrefixUnix + id
}

// inode tells a file from the one that took its place.
func inode(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
