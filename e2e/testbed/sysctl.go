package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls are the machine's own settings that a kubelet changes. The first
// bed saves them, the last one puts them back.
var sysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom",
	"kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

const sysctlFile = "/run/isthmus/sysctls.json"

// savedSysctls says of which boot the values are, should /run outlive one.
type savedSysctls struct {
	Boot   string            `json:"boot"`
	Values map[string]string `json:"values"`
}

func saveSysctls() error {
	if saved, err := readSysctls(); err == nil && saved.Boot == bootID() {
		return nil
	}
	save := savedSysctls{Boot: bootID(), Values: map[string]string{}}
	for _, name := range sysctls {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", name)); err == nil {
			save.Values[name] = strings.TrimSpace(string(value))
		}
	}
	raw, err := json.MarshalIndent(save, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(sysctlFile), 0o755)
	}
	if err == nil {
		err = writeFileAtomic(sysctlFile, raw, 0o644)
	}
	if err != nil {
		return fmt.Errorf("save sysctls: %w", err)
	}
	return nil
}

func restoreSysctls() error {
	saved, err := readSysctls()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore sysctls: %w", err)
	}
	var failed []error
	if saved.Boot == bootID() {
		for _, name := range sysctls {
			if value, ok := saved.Values[name]; ok {
				failed = append(failed, os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644))
			}
		}
	}
	failed = append(failed, os.Remove(sysctlFile))
	_ = os.Remove(filepath.Dir(sysctlFile)) // only when empty
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("restore sysctls: %w", err)
	}
	return nil
}

func readSysctls() (savedSysctls, error) {
	var saved savedSysctls
	raw, err := os.ReadFile(sysctlFile)
	if err == nil {
		err = json.Unmarshal(raw, &saved)
	}
	return saved, err
}
