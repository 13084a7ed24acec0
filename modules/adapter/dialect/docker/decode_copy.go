package docker

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// decodeCopy reads https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Container/operation/ContainerArchive
// and its two sisters.
func decodeCopy(op *neutral.Operation, q *query) []neutral.Loss {
	op.Copy = &neutral.CopyOptions{Path: q.text("path"), Owner: q.flag("copyUIDGID")}
	switch {
	case op.Copy.Path == "":
		q.fail("path", "bad parameter: missing path")
	case strings.ContainsRune(op.Copy.Path, 0):
		q.fail("path", "bad parameter: the path holds a NUL")
	}
	// noOverwriteDirNonDir asks for what every tar does: a folder is not replaced by a file, nor a file by a folder.
	if op.Action == neutral.ContainerCopyIn && !q.flag("noOverwriteDirNonDir") {
		return []neutral.Loss{{Field: "noOverwriteDirNonDir", Change: "taken as said",
			Reason: "the image's tar replaces no folder by a file"}}
	}
	return nil
}
