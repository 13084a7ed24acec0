// Package manifest reads the YAML documents that configure a gateway: Gateway, Peer and AccessPolicy. It is strict: what
// it does not know is an error with its file and line, and all errors are reported together.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a file, so that a wrong path is an error and not a full memory.
const maxFile = 4 << 20

// Set is the documents of a gateway, complete with defaults and valid.
type Set struct {
	Gateway  Gateway
	Peers    []Peer         // sorted by name
	Policies []AccessPolicy // sorted by name
	// Warnings are doubtful, yet no errors.
	Warnings Issues

	gateways []Gateway
	paths    []string
	more     func() []Source
	digest   string
}

// Source is documents that were read already.
type Source struct {
	Name string // the file's name, for messages
	Data []byte
}

// Load reads files and, in folders, every *.yaml and *.yml file. Its error is Issues, all that were found.
func Load(paths ...string) (*Set, error) { return LoadWith(nil, paths...) }

// LoadWith does what Load does, with documents that are kept elsewhere: more gives them, whenever the files are looked
// at. Its names must not be those of files.
func LoadWith(more func() []Source, paths ...string) (*Set, error) {
	sources, issues := readWith(more, paths)
	set, err := parse(sources, issues)
	if set != nil {
		set.paths, set.more, set.digest = slices.Clone(paths), more, digest(sources, issues)
	}
	return set, err
}

func readWith(more func() []Source, paths []string) ([]Source, Issues) {
	sources, issues := read(paths)
	if more != nil {
		sources = append(sources, more()...)
	}
	return sources, issues
}

// Parse reads documents from memory. Its error is Issues, all that were found.
func Parse(sources ...Source) (*Set, error) { return parse(sources, nil) }

func parse(sources []Source, issues Issues) (*Set, error) {
	set := &Set{}
	for _, s := range sources {
		decodeFile(s, set, &issues)
	}
	if len(set.gateways) > 0 {
		set.Gateway = set.gateways[0]
	}
	validate(set, sources, &issues)
	if err := issues.err(); err != nil {
		return nil, err
	}
	set.gateways = nil
	set.Warnings = set.Warnings.sorted()
	slices.SortFunc(set.Peers, func(a, b Peer) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	slices.SortFunc(set.Policies, func(a, b AccessPolicy) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	return set, nil
}

func decodeFile(s Source, set *Set, issues *Issues) {
	eachDocument(s, issues, func(d *decoder, root *yaml.Node) { d.decodeDocument(root, set) })
}

// Hash names the content of the documents: equal sets have equal hashes, whatever their files look like.
func (s *Set) Hash() string {
	// Marshal cannot fail: the documents are made of strings, numbers, lists and addresses.
	text, _ := json.Marshal(struct {
		Gateway  Gateway
		Peers    []Peer
		Policies []AccessPolicy
	}{s.Gateway, s.Peers, s.Policies})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Paths are the files and folders that the set was loaded from.
func (s *Set) Paths() []string { return slices.Clone(s.paths) }

// Peer finds a peer by its name.
func (s *Set) Peer(name string) (Peer, bool) {
	for _, p := range s.Peers {
		if p.Metadata.Name == name {
			return p, true
		}
	}
	return Peer{}, false
}

// PeerNames are the names of the peers that are not suspended, sorted.
func (s *Set) PeerNames() []string {
	var names []string
	for _, p := range s.Peers {
		if !p.Spec.Suspended {
			names = append(names, p.Metadata.Name)
		}
	}
	return names
}

// read reads the files that paths stand for.
func read(paths []string) ([]Source, Issues) {
	var sources []Source
	var issues Issues
	seen := map[string]bool{}
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			issues.add(Position{File: path}, "", "%s", reason(err))
			continue
		}
		for _, file := range files {
			if seen[file] {
				continue
			}
			seen[file] = true
			data, err := readFile(file)
			if err != nil {
				issues.add(Position{File: file}, "", "%s", reason(err))
				continue
			}
			sources = append(sources, Source{Name: file, Data: data})
		}
	}
	return sources, issues
}

// filesOf lists the documents of a path. Hidden files are left out: editors keep their swap files and Kubernetes the
// versions of a mounted ConfigMap under such names.
func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{filepath.Clean(path)}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); strings.HasPrefix(name, ".") || (ext != ".yaml" && ext != ".yml") {
			continue
		}
		file := filepath.Join(path, name)
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return nil, errors.New("the folder has no *.yaml file")
	}
	return files, nil
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("is a folder")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("is larger than %d MiB", maxFile>>20)
	}
	return data, nil
}

// reason leaves out the path, which the message begins with already.
func reason(err error) string {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return pathError.Err.Error()
	}
	return err.Error()
}

// digest names what was read, errors included.
func digest(sources []Source, issues Issues) string {
	sum := sha256.New()
	for _, s := range sources {
		fmt.Fprintf(sum, "%d %s %d ", len(s.Name), s.Name, len(s.Data))
		sum.Write(s.Data)
	}
	for _, i := range issues {
		fmt.Fprintln(sum, i.Error())
	}
	return hex.EncodeToString(sum.Sum(nil))
}
