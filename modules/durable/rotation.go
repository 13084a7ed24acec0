package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Rotate moves path to path.1, path.1 to path.2 and so on, and drops what is beyond keep. Who has the file open goes on
// writing to what is path.1 then.
func Rotate(path string, keep int) error {
	if keep < 1 {
		return os.Remove(path)
	}
	rotated := func(i int) string { return fmt.Sprintf("%s.%d", path, i) }
	for i := keep - 1; i >= 1; i-- {
		if err := os.Rename(rotated(i), rotated(i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(path, rotated(1))
}
