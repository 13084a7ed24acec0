package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CopyLogs copies what all processes of the bed printed to a folder, where it
// outlives the bed: a log a process, in a folder a cluster.
func (b *Bed) CopyLogs(dir string) error {
	var failed []error
	for _, p := range b.Processes() {
		cluster := p.Cluster
		if cluster == "" {
			cluster = "machine"
		}
		content, err := os.ReadFile(p.Log)
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, cluster), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, cluster, p.Name+".log"), content, 0o644)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("copy log of %s: %w", p.Name, err))
		}
	}
	return errors.Join(failed...)
}
