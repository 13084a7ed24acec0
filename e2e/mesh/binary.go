package mesh

import (
	"fmt"
	"os"
	"path/filepath"
)

// RaceBinary is the isthmus under test, built with the race detector: that of ISTHMUS_RACE_BINARY, or the one in bin of the
// project's folder.
func RaceBinary(project string) (string, error) {
	if path := os.Getenv("ISTHMUS_RACE_BINARY"); path != "" {
		return path, nil
	}
	path, err := filepath.Abs(filepath.Join(project, "bin", "isthmus-race"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; make test builds it", err)
	}
	return path, nil
}
