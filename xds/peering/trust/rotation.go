package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
)

// Phase is where the rotation of a gateway's own authority stands:
//
//	Steady ──Begin──► Announced ──all peers trust both, or──► Issuing ──the time to keep the──► Steady
//	                      │       the time is up, or Advance            former one is up, or
//	                      └──Abort──► Steady                            Advance
//
// Each phase is one file, replaced whole, so a process that was killed at any instruction goes on where it was.
type Phase string

// The phases.
const (
	Steady    Phase = ""          // one authority
	Announced Phase = "announced" // peers are told of the next authority; the present one still issues
	Issuing   Phase = "issuing"   // the next one issues; peers still trust the former one
)

// Rotation is how the rotation stands.
type Rotation struct {
	Phase    Phase         `json:"phase"`
	Began    time.Time     `json:"began,omitzero"`
	Switched time.Time     `json:"switched,omitzero"` // when the next one began to issue
	Within   time.Duration `json:"within,omitempty"`  // of Began: how long acknowledgements are waited for; 0 is for ever
	Keep     time.Duration `json:"keep,omitempty"`    // of Switched: how long the former one is trusted
	Serial   uint64        `json:"serial,omitempty"`  // of the bundle
}

// SwitchBy is when the next authority issues at the latest; zero for when all peers have acknowledged it.
func (r Rotation) SwitchBy() time.Time {
	if r.Phase != Announced || r.Within == 0 {
		return time.Time{}
	}
	return r.Began.Add(r.Within)
}

// DropAt is when the former authority is trusted no longer; zero before the next one issues.
func (r Rotation) DropAt() time.Time {
	if r.Phase != Issuing {
		return time.Time{}
	}
	return r.Switched.Add(r.Keep)
}

// rotationFile is a Rotation as it is kept, with what must not leave the folder.
type rotationFile struct {
	Rotation
	Former  string `json:"former,omitempty"` // certificate, PEM
	Next    string `json:"next,omitempty"`   // certificate, PEM
	NextKey string `json:"nextKey,omitempty"`
}

// Files of a rotation, beside the authority's own.
const (
	rotationName = "rotation.json"
	serialName   = "ca.serial"
)

// The limits of what an admin may wish.
const (
	maxWithin = 90 * 24 * time.Hour
	maxKeep   = 90 * 24 * time.Hour
)

// Errors of a rotation that is not where the caller thinks.
var (
	ErrRotating    = errors.New("a rotation is under way")
	ErrNotRotating = errors.New("no rotation is under way")
	ErrMoved       = errors.New("the rotation is in another phase by now")
	ErrSwitched    = errors.New("the next authority issues already, so there is no way back; finish, and rotate again")
)

// Rotator keeps a gateway's own authority through its rotations. One process at a time may have it.
type Rotator struct {
	dir string

	mu        sync.Mutex
	file      rotationFile
	authority *Authority
}

// OpenRotator opens the authority of a folder, and goes on with a rotation that is under way.
func OpenRotator(dir string) (*Rotator, error) {
	file, authority, err := open(dir)
	if err != nil {
		return nil, err
	}
	r := &Rotator{dir: dir, file: file, authority: authority}
	if err := r.tidy(); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return r, nil
}

// tidy does what a process that was killed may have left undone: a key that is out of use goes, and so do halves of
// files.
func (r *Rotator) tidy() error {
	for _, name := range []string{keyFile, certificateFile, serialName, rotationName} {
		halves, err := filepath.Glob(filepath.Join(r.dir, "."+name+".*"))
		if err != nil {
			return err
		}
		for _, half := range halves {
			if err := durable.Remove(half); err != nil {
				return err
			}
		}
	}
	if r.file.Phase == Issuing {
		return writeAuthority(r.dir, []byte(r.file.Next), []byte(r.file.NextKey))
	}
	return nil
}

// Reload takes in what another replica has made of the folder. What cannot be read changes nothing.
func (r *Rotator) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	file, authority, err := open(r.dir)
	if err != nil {
		return err
	}
	r.file, r.authority = file, authority
	return nil
}

// Authority is the authority as it is now.
func (r *Rotator) Authority() *Authority {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.authority
}

// Rotation is how the rotation stands now.
func (r *Rotator) Rotation() Rotation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Rotation
}

// Begin makes the next authority, to be announced to the peers.
func (r *Rotator) Begin(now time.Time, within, keep time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.file.Phase != Steady:
		return ErrRotating
	case within < 0 || within > maxWithin:
		return fmt.Errorf("acknowledgements cannot be waited for for %s: 0 (for ever) to %s", within, maxWithin)
	case keep < time.Second || keep > maxKeep:
		return fmt.Errorf("the former authority cannot be kept for %s: 1s to %s", keep, maxKeep)
	}
	certPEM, keyPEM, err := generate(r.authority.identity, now)
	if err != nil {
		return err
	}
	return r.become(rotationFile{
		Rotation: Rotation{Phase: Announced, Began: now.UTC(), Within: within, Keep: keep, Serial: nextSerial(r.authority.bundle.Serial, now)},
		Former:   string(r.authority.CertificatePEM()), Next: string(certPEM), NextKey: string(keyPEM),
	})
}

// Due tells whether the next phase is due: acknowledged says whether every peer trusts the next authority.
func (r *Rotator) Due(now time.Time, acknowledged bool) bool {
	rotation := r.Rotation()
	switch rotation.Phase {
	case Announced:
		by := rotation.SwitchBy()
		return acknowledged || !by.IsZero() && !now.Before(by)
	case Issuing:
		return !now.Before(rotation.DropAt())
	default:
		return false
	}
}

// Advance enters the phase after from; two who see the same phase at once enter one phase, not two.
func (r *Rotator) Advance(now time.Time, from Phase) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file.Phase != from && r.file.Phase != Steady {
		return ErrMoved
	}
	switch r.file.Phase {
	case Announced:
		next := r.file
		next.Phase, next.Switched, next.Serial = Issuing, now.UTC(), nextSerial(next.Serial, now)
		if err := r.become(next); err != nil {
			return err
		}
		// The former key is out of use, and destroyed. Should this fail, the next start does it.
		if err := r.tidy(); err != nil {
			return fmt.Errorf("trust: %w", err)
		}
		return nil
	case Issuing:
		return r.end(now)
	default:
		return ErrNotRotating
	}
}

// Abort takes back an announced authority that has not issued yet.
func (r *Rotator) Abort(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.file.Phase {
	case Announced:
		return r.end(now)
	case Issuing:
		return ErrSwitched
	default:
		return ErrNotRotating
	}
}

// become enters a phase that has a file. The caller holds mu.
func (r *Rotator) become(next rotationFile) error {
	authority, err := assemble(r.dir, next)
	if err == nil {
		err = durable.WriteJSON(filepath.Join(r.dir, rotationName), next)
	}
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	r.file, r.authority = next, authority
	return nil
}

// end leaves the authority of the present phase alone. The caller holds mu.
func (r *Rotator) end(now time.Time) error {
	// While the rotation's file is there, these two mean nothing.
	err := r.tidy()
	if err == nil {
		serial := strconv.FormatUint(nextSerial(r.file.Serial, now), 10) + "\n"
		err = durable.Replace(filepath.Join(r.dir, serialName), []byte(serial), 0o644)
	}
	if err == nil {
		err = durable.Remove(filepath.Join(r.dir, rotationName))
	}
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	file, authority, err := open(r.dir)
	if err != nil {
		return err
	}
	r.file, r.authority = file, authority
	return nil
}

// nextSerial is above the last one, and above those of a folder that was restored from an old copy.
func nextSerial(last uint64, now time.Time) uint64 { return max(last+1, uint64(max(now.Unix(), 0))) }

func readRotation(dir string) (rotationFile, error) {
	var r rotationFile
	if err := durable.ReadJSON(filepath.Join(dir, rotationName), &r); err != nil {
		return rotationFile{}, err
	}
	switch r.Phase {
	case Steady:
		return rotationFile{}, nil
	case Announced, Issuing:
	default:
		return rotationFile{}, fmt.Errorf("%s: unknown phase %.40q: written by a newer isthmus?", rotationName, r.Phase)
	}
	if _, _, err := parseAuthority([]byte(r.Next), []byte(r.NextKey)); err != nil {
		return rotationFile{}, fmt.Errorf("%s: %w", rotationName, err)
	}
	return r, nil
}

func readSerial(dir string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, serialName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	serial, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s holds no number", serialName)
	}
	return serial, nil
}
