package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// authorityKind is the own authority in a home other than files: its files by name, in one record, so that what is
// changed in several files at once is changed whole.
var authorityKind = state.Kind{Name: "authority", File: "trust/authority.json", Secret: true}

// vault is a folder that holds the gateway's own authority: the one of the files' home, or a copy of what another home
// keeps, readable by the gateway's user alone.
type vault struct {
	dir  string
	home state.Store // nil where the folder is the home

	mu       sync.Mutex // holds what follows, and the folder against pull
	revision string
}

// openVault gives the folder of a gateway's authority; scratch is where a copy may be.
func openVault(ctx context.Context, home state.Store, set *manifest.Set, scratch string) (*vault, error) {
	if set.Gateway.Spec.State.Home == manifest.StateFile {
		return &vault{dir: trustDir(set)}, nil
	}
	v := &vault{dir: filepath.Join(scratch, "trust"), home: home}
	if err := v.pull(ctx); err != nil {
		return nil, fmt.Errorf("the own authority: %w", err)
	}
	return v, nil
}

// withVault opens a vault for as long as do takes, for a command.
func withVault(ctx context.Context, set *manifest.Set, do func(*vault) error) (err error) {
	home, err := openHome(set, "")
	if err != nil {
		return err
	}
	defer home.Close()
	scratch, err := os.MkdirTemp("", "isthmus-trust-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	v, err := openVault(ctx, home, set, scratch)
	if err != nil {
		return err
	}
	return do(v)
}

// change has the folder changed, and the home keep that; else the folder is as it was.
func (v *vault) change(ctx context.Context, do func() error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.home == nil {
		return do()
	}
	before, err := pack(v.dir)
	if err != nil {
		return err
	}
	if err = do(); err == nil {
		err = v.keep(ctx)
	}
	if err != nil && !fault.Is(err, fault.Conflict) {
		err = errors.Join(err, unpack(v.dir, before))
	}
	return err
}

// pull makes the folder be what the home keeps.
func (v *vault) pull(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fetch(ctx)
}

func (v *vault) fetch(ctx context.Context) error {
	if v.home == nil {
		return nil
	}
	files := map[string]string{}
	record, err := v.home.Get(ctx, authorityKind.Only())
	if err == nil {
		if err := json.Unmarshal(record.Value, &files); err != nil {
			return fmt.Errorf("%s is damaged: %w", v.home.Place(authorityKind.Only()), err)
		}
	} else if !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if err := unpack(v.dir, files); err != nil {
		return err
	}
	v.revision = record.Revision
	return nil
}

// keep makes the home keep what is in the folder now. Where another replica has changed it meanwhile, that one's stays,
// and is in the folder then. The caller holds mu.
func (v *vault) keep(ctx context.Context) error {
	if v.home == nil {
		return nil
	}
	files, err := pack(v.dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(files)
	if err != nil {
		return err
	}
	revision, err := v.home.Put(ctx, state.Record{Key: authorityKind.Only(), Value: text, Revision: v.revision})
	if errors.Is(err, state.ErrConflict) {
		err = errors.Join(fault.New(fault.Conflict, "another replica has changed the gateway's authority meanwhile"), v.fetch(ctx))
	}
	if err != nil {
		return err
	}
	v.revision = revision
	return nil
}

// pack reads the files of a folder; of one that is not there, none.
func pack(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := map[string]string{}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || entry.Name()[0] == '.' {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		files[entry.Name()] = string(text)
	}
	return files, nil
}

// unpack makes a folder hold these files and no others.
func unpack(dir string, files map[string]string) error {
	there, err := pack(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name := range there {
		if _, stays := files[name]; !stays {
			if err := durable.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for name, text := range files {
		if !fs.ValidPath(name) || filepath.Base(name) != name || name[0] == '.' {
			return fmt.Errorf("%.100q is no name of a file", name)
		}
		if had, ok := there[name]; ok && had == text {
			continue
		}
		if err := durable.Replace(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
