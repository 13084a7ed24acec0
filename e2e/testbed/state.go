package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kindDocker     = "docker"
	kindKubernetes = "kubernetes"
)

// state is bed.json: what Open needs to attach and Down to end.
type state struct {
	ID        string         `json:"id"`
	PeerPort  int            `json:"peerPort"`
	Boot      string         `json:"boot"`
	Started   time.Time      `json:"started"`
	Clusters  []clusterState `json:"clusters"`
	Links     []linkState    `json:"links,omitempty"`
	Processes []processState `json:"processes,omitempty"`
	Forwards  []forwardState `json:"forwards,omitempty"`
}

type clusterState struct {
	Name             string `json:"name"`
	Kind             string `json:"kind"`
	Index            int    `json:"index"`
	ControlPlaneOnly bool   `json:"controlPlaneOnly,omitempty"`
}

type linkState struct {
	Index int    `json:"index"`
	A     string `json:"a"`
	B     string `json:"b"`
}

type processState struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster,omitempty"`
	PID     int    `json:"pid"`
	// StartTime, in clock ticks since boot, tells the process from a later
	// one with the same id.
	StartTime uint64 `json:"startTime"`
	Log       string `json:"log"`
	Argv0     string `json:"argv0"`
}

type forwardState struct {
	Process string `json:"process"`
	Cluster string `json:"cluster"`
	Listen  string `json:"listen"`
	Target  string `json:"target"`
}

func stateFile(root string) string { return filepath.Join(root, "bed.json") }

func readState(root string) (state, error) {
	var st state
	raw, err := os.ReadFile(stateFile(root))
	if errors.Is(err, fs.ErrNotExist) {
		return st, fmt.Errorf("no bed at %s: %w", root, err)
	}
	if err != nil {
		return st, fmt.Errorf("bed state: %w", err)
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return st, fmt.Errorf("bed state %s: %w", stateFile(root), err)
	}
	return st, nil
}

func writeState(root string, st state) error {
	raw, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("bed state: %w", err)
	}
	if err := writeFileAtomic(stateFile(root), append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("bed state: %w", err)
	}
	return nil
}

// update changes the recorded state. The lock is the file's, not the
// process's: several processes may hold the same bed open.
func (b *Bed) update(change func(*state)) error {
	unlock, err := lockFile(filepath.Join(b.Root, "bed.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	st, err := readState(b.Root)
	if err != nil {
		return err
	}
	change(&st)
	return writeState(b.Root, st)
}

// lockFile takes an exclusive lock and returns what gives it back.
func lockFile(path string) (unlock func(), err error) {
	return lockFileNoting(path, func() {})
}

// lockFileNoting calls waits before it waits for another process.
func lockFileNoting(path string, waits func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	how := unix.LOCK_EX | unix.LOCK_NB
	for {
		err = unix.Flock(int(file.Fd()), how)
		if errors.Is(err, unix.EWOULDBLOCK) {
			waits()
			how = unix.LOCK_EX
			continue
		}
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// writeFileAtomic leaves either the old file or the whole new one.
func writeFileAtomic(path string, data []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
