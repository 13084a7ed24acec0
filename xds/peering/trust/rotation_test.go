package trust

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

// gateway is one side of a peering as far as trust goes.
type gateway struct {
	dir     string
	rotator *Rotator
	peers   *Peers
}

func newGateway(t testing.TB, cluster string) *gateway {
	t.Helper()
	g := &gateway{dir: t.TempDir()}
	initialize(t, g.dir, "", cluster)
	g.reopen(t)
	return g
}

// reopen is what a restart does.
func (g *gateway) reopen(t testing.TB) {
	t.Helper()
	var err error
	if g.rotator, err = OpenRotator(g.dir); err != nil {
		t.Fatal(err)
	}
	g.peers = OpenPeers(file.Open(file.Config{Dir: g.dir}), g.rotator.Authority().Identity())
}

func (g *gateway) imports(t testing.TB, other *gateway) {
	t.Helper()
	b, err := ParseBundle(export(t, other.rotator.Authority()))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.peers.Import(b.Identity.Cluster, b); err != nil {
		t.Fatal(err)
	}
}

// hears takes what the other sends over the link, and gives the fingerprints that are trusted then.
func (g *gateway) hears(t *testing.T, other *gateway) []string {
	t.Helper()
	a := other.rotator.Authority()
	if sent := a.Signed(); sent.Text != "" {
		if _, err := g.peers.Renew(a.Identity().Cluster, sent, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return g.trusts(t, a.Identity().Cluster)
}

func (g *gateway) trusts(t testing.TB, peer string) []string {
	t.Helper()
	all, err := g.peers.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.Peer == peer {
			return b.Bundle.Fingerprints()
		}
	}
	return nil
}

// accepts tells whether a certificate passes by what is trusted of a peer.
func (g *gateway) accepts(t *testing.T, peer string, pair Pair) bool {
	t.Helper()
	all, err := g.peers.List()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for _, b := range all {
		if b.Peer == peer {
			roots.AppendCertsFromPEM(b.Bundle.CertificatesPEM)
		}
	}
	_, err = parse(t, pair).Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func (g *gateway) issue(t *testing.T) Pair {
	t.Helper()
	pair, err := g.rotator.Authority().Issue(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// A whole rotation, the process restarted between any two steps: at every moment the peer accepts what is issued, and at
// the end it accepts nothing of the former authority.
func TestRotation(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	east.imports(t, west)
	former := west.rotator.Authority().Fingerprint()
	old := west.issue(t)
	check := func(when string, trusted ...string) {
		t.Helper()
		west.reopen(t)
		if got := east.hears(t, west); !slices.Equal(got, trusted) {
			t.Errorf("%s: trusted %v, want %v", when, got, trusted)
		}
		if !east.accepts(t, "west", west.issue(t)) {
			t.Errorf("%s: what is issued is refused", when)
		}
		if offline, err := Open(west.dir); err != nil || !slices.Equal(offline.Export().Fingerprints(), west.rotator.Authority().Export().Fingerprints()) ||
			offline.Export().Serial != west.rotator.Authority().Export().Serial {
			t.Errorf("%s: another process sees another authority (%v)", when, err)
		}
	}
	check("before", former)
	now := time.Now()
	if err := west.rotator.Begin(now, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	next := west.rotator.Authority().Export().Fingerprints()[1]
	if next == former || west.rotator.Authority().Fingerprint() != former {
		t.Fatal("the next authority issues before anybody knows it")
	}
	check("announced", former, next)
	if err := west.rotator.Begin(now, 0, time.Hour); !errors.Is(err, ErrRotating) {
		t.Errorf("a second rotation: %v", err)
	}
	if west.rotator.Due(now.Add(1000*time.Hour), false) {
		t.Error("it goes on without an acknowledgement")
	}
	if !west.rotator.Due(now, true) {
		t.Error("it does not go on once acknowledged")
	}
	oldKey := read(t, filepath.Join(west.dir, keyFile))
	if err := west.rotator.Advance(now, Announced); err != nil {
		t.Fatal(err)
	}
	check("issuing", next, former)
	if key := read(t, filepath.Join(west.dir, keyFile)); string(key) == string(oldKey) {
		t.Error("the former key is there still")
	}
	if err := west.rotator.Advance(now, Announced); !errors.Is(err, ErrMoved) {
		t.Errorf("a second who saw the same phase: %v", err)
	}
	if err := west.rotator.Abort(now); !errors.Is(err, ErrSwitched) {
		t.Errorf("abort: %v", err)
	}
	if west.rotator.Due(now.Add(59*time.Minute), true) || !west.rotator.Due(now.Add(time.Hour), false) {
		t.Error("the former authority is not kept for the hour")
	}
	if !east.accepts(t, "west", old) {
		t.Error("a certificate of the former authority is refused before the end")
	}
	if err := west.rotator.Advance(now.Add(time.Hour), Issuing); err != nil {
		t.Fatal(err)
	}
	check("steady", next)
	if east.accepts(t, "west", old) {
		t.Error("a certificate of the former authority passes after the end")
	}
	if _, err := os.Stat(filepath.Join(west.dir, rotationName)); err == nil {
		t.Error("the rotation's file stays")
	}
	for _, f := range []func(*Rotator) error{advance(now), func(r *Rotator) error { return r.Abort(now) }} {
		if err := f(west.rotator); !errors.Is(err, ErrNotRotating) {
			t.Errorf("without a rotation: %v", err)
		}
	}
	// A second one, that is aborted: peers forget the next authority.
	if err := west.rotator.Begin(now, time.Minute, time.Hour); err != nil {
		t.Fatal(err)
	}
	again := west.rotator.Authority().Export().Fingerprints()[1]
	check("announced again", next, again)
	if !west.rotator.Due(now.Add(time.Minute), false) {
		t.Error("it waits for longer than was said")
	}
	if err := west.rotator.Abort(now); err != nil {
		t.Fatal(err)
	}
	check("aborted", next)
}

func TestRotationTerms(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "west")
	for _, terms := range [][2]time.Duration{{-1, time.Hour}, {maxWithin + 1, time.Hour}, {0, 0}, {0, maxKeep + 1}} {
		if err := g.rotator.Begin(time.Now(), terms[0], terms[1]); err == nil {
			t.Errorf("%v: accepted", terms)
		}
	}
	if r := g.rotator.Rotation(); r.Phase != Steady {
		t.Errorf("%+v", r)
	}
}

// A process that is killed between any two changes of files leaves a folder that goes on: either in the phase before or
// in the one after, and never with what issues and what is announced apart.
func TestRotationKilled(t *testing.T) {
	t.Parallel()
	now := time.Now()
	// prefixes runs a step in a copy of the folder for each number of file changes after which it is killed, by taking
	// back the later ones: every change replaces or removes one whole file, in a fixed order.
	for name, c := range map[string]struct {
		before []func(*Rotator) error
		step   func(*Rotator) error
		order  []string
	}{
		"begin":   {step: begin(now), order: []string{rotationName}},
		"advance": {before: []func(*Rotator) error{begin(now)}, step: advance(now), order: []string{rotationName, keyFile, certificateFile}},
		"end": {before: []func(*Rotator) error{begin(now), advance(now)}, step: advance(now),
			order: []string{keyFile, certificateFile, serialName, rotationName}},
		"abort": {before: []func(*Rotator) error{begin(now)}, step: func(r *Rotator) error { return r.Abort(now) }, order: []string{serialName, rotationName}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, "west")
			for _, do := range c.before {
				if err := do(g.rotator); err != nil {
					t.Fatal(err)
				}
			}
			before := folder(t, g.dir)
			issuing := g.rotator.Authority().Fingerprint()
			if err := c.step(g.rotator); err != nil {
				t.Fatal(err)
			}
			after := folder(t, g.dir)
			for done := range len(c.order) + 1 {
				dir := t.TempDir()
				files := map[string]string{}
				for file, content := range before {
					files[file] = content
				}
				for _, file := range c.order[:done] {
					delete(files, file)
					if content, ok := after[file]; ok {
						files[file] = content
					}
				}
				for file, content := range files {
					if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if done < len(c.order) {
					half := filepath.Join(dir, "."+c.order[done]+".1234567")
					if err := os.WriteFile(half, []byte("PRIVATE"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				r, err := OpenRotator(dir)
				if err != nil {
					t.Fatalf("killed after %d files: %v", done, err)
				}
				a := r.Authority()
				if fp := a.Fingerprint(); fp != issuing && fp != g.rotator.Authority().Fingerprint() {
					t.Errorf("killed after %d files: %s issues", done, fp)
				}
				pair, err := a.Issue(now, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(a.Export().CertificatesPEM)
				if _, err := parse(t, pair).Verify(x509.VerifyOptions{Roots: roots}); err != nil {
					t.Errorf("killed after %d files: what is issued does not pass by what is announced: %v", done, err)
				}
				left, err := filepath.Glob(filepath.Join(dir, ".*"))
				if err != nil || len(left) > 0 {
					t.Errorf("killed after %d files: halves stay: %v %v", done, left, err)
				}
				// It goes on from there to its end.
				for r.Rotation().Phase != Steady {
					if err := r.Advance(now, r.Rotation().Phase); err != nil {
						t.Fatalf("killed after %d files: %v", done, err)
					}
				}
				if again, err := OpenRotator(dir); err != nil || again.Authority().Fingerprint() != r.Authority().Fingerprint() {
					t.Errorf("killed after %d files: the end is not kept (%v)", done, err)
				}
			}
		})
	}
}

func begin(now time.Time) func(*Rotator) error {
	return func(r *Rotator) error { return r.Begin(now, 0, time.Hour) }
}

func advance(now time.Time) func(*Rotator) error {
	return func(r *Rotator) error { return r.Advance(now, r.Rotation().Phase) }
}

// folder is the content of a folder's files.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if !e.IsDir() {
			files[e.Name()] = string(read(t, filepath.Join(dir, e.Name())))
		}
	}
	return files
}

// What a rotation leaves on disk is for its owner alone.
func TestRotationSecret(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "west")
	if err := begin(time.Now())(g.rotator); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(g.dir, rotationName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if text := string(export(t, g.rotator.Authority())); strings.Contains(text, "PRIVATE") || strings.Contains(g.rotator.Authority().Signed().Text, "PRIVATE") {
		t.Error("a bundle holds a key")
	}
}

func TestRotationBroken(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"garbage": "{", "a newer phase": `{"phase": "dancing"}`, "no authority": `{"phase": "announced", "serial": 3}`,
	} {
		g := newGateway(t, "west")
		if err := os.WriteFile(filepath.Join(g.dir, rotationName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRotator(g.dir); err == nil || !strings.Contains(err.Error(), rotationName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g := newGateway(t, "west")
	if err := os.WriteFile(filepath.Join(g.dir, serialName), []byte("many"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(g.dir); err == nil || !strings.Contains(err.Error(), serialName) {
		t.Error(err)
	}
}

// A rotation of another gateway's authority in the file does not make this one another gateway.
func TestRotationOfAnother(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	if err := begin(time.Now())(east.rotator); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(filepath.Join(west.dir, rotationName), read(t, filepath.Join(east.dir, rotationName)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRotator(west.dir); err == nil || !strings.Contains(err.Error(), "authorities of") {
		t.Error(err)
	}
}
