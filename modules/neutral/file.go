package neutral

import (
	"io/fs"
	"time"
)

// CopyOptions say which files of a container are copied, or where to.
type CopyOptions struct {
	Path string // as the caller wrote it; "/" or "/." at its end says what is in the folder
	// Owner makes the container's own user the owner of what is copied in.
	Owner bool
}

// FileStat is what is told of one file.
type FileStat struct {
	Name     string
	Size     int64
	Mode     fs.FileMode
	Modified time.Time
	Target   string // of a symbolic link, within the container
}

// Stat tells a session, before Accept, which file it is about. A session whose answer differs by it has a method
// Stat(FileStat); a session that wraps another passes it on.
func Stat(s Session, stat FileStat) {
	if t, ok := s.(interface{ Stat(stat FileStat) }); ok {
		t.Stat(stat)
	}
}
