package join

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Invitation is what the inviting side keeps of a token: not its secret, but the secret's digest.
type Invitation struct {
	ID      string
	For     string // the cluster that may redeem it
	Digest  string // SHA-256 of the secret, in hexadecimal digits
	Created time.Time
	Expires time.Time
	Used    time.Time `json:",omitzero"`
	UsedBy  string    `json:",omitempty"` // fingerprint of the authority that redeemed it
	Revoked time.Time `json:",omitzero"`
}

// Open tells whether the invitation can still be redeemed. A used one can, by who used it, until it expires: the answer
// may have been lost.
func (i Invitation) Open(now time.Time) bool { return i.Revoked.IsZero() && now.Before(i.Expires) }

// State says in a word how it is with the invitation.
func (i Invitation) State(now time.Time) string {
	switch {
	case !i.Revoked.IsZero():
		return "revoked"
	case !i.Used.IsZero():
		return "used"
	case !now.Before(i.Expires):
		return "expired"
	}
	return "open"
}

// Reason is why an invitation was not redeemed.
type Reason string

// The reasons. One with the wrong secret is unknown: only who holds a token hears more about it.
const (
	Unknown  Reason = "unknown"
	Expired  Reason = "expired"
	Used     Reason = "used"
	Revoked  Reason = "revoked"
	ForOther Reason = "for-another"
	Rejected Reason = "rejected" // the joining gateway's bundle or name is not acceptable
)

// Refusal is the error of a token that cannot be redeemed.
type Refusal struct {
	Reason  Reason
	Message string
}

func (r *Refusal) Error() string { return r.Message }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// kept is how long an invitation is remembered after it expired, so that its token is told apart from a foreign one.
const kept = 7 * 24 * time.Hour

// maxInvitations bounds the file; each is an admin's doing.
const maxInvitations = 1000

// Invitations are kept in one file, whole at any moment, readable by its owner alone.
type Invitations struct {
	path    string
	now     func() time.Time
	changed func()

	mu  sync.Mutex
	all []Invitation // sorted by time of creation
}

// OpenInvitations reads what was kept; changed is called after each change.
func OpenInvitations(stateDir string, changed func()) (*Invitations, error) {
	i := &Invitations{path: filepath.Join(stateDir, "invitations.json"), now: time.Now, changed: changed}
	if err := durable.ReadJSON(i.path, &i.all); err != nil {
		return nil, fmt.Errorf("invitations: %w", err)
	}
	return i, nil
}

// Create makes an invitation for a cluster; the secret is nowhere but in its token.
func (i *Invitations) Create(cluster string, life time.Duration) (invitation Invitation, secret string, err error) {
	random := make([]byte, 8+secretSize)
	if _, err := rand.Read(random); err != nil {
		return Invitation{}, "", fmt.Errorf("invitations: %w", err)
	}
	secret = hex.EncodeToString(random[8:])
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now().UTC().Truncate(time.Second)
	invitation = Invitation{
		ID: hex.EncodeToString(random[:8]), For: cluster, Digest: digest(secret), Created: now, Expires: now.Add(life),
	}
	all := slices.DeleteFunc(slices.Clone(i.all), func(old Invitation) bool { return now.After(old.Expires.Add(kept)) })
	if len(all) >= maxInvitations {
		return Invitation{}, "", fmt.Errorf("invitations: there are %d already", len(all))
	}
	if err := i.save(append(all, invitation)); err != nil {
		return Invitation{}, "", err
	}
	return invitation, secret, nil
}

// Redeem uses an invitation up for the gateway with this identity and authority, for good: the file says so before
// anything is trusted.
func (i *Invitations) Redeem(id, secret string, by peering.Identity, fingerprint string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := slices.IndexFunc(i.all, func(x Invitation) bool { return x.ID == id })
	if at < 0 || subtle.ConstantTimeCompare([]byte(i.all[at].Digest), []byte(digest(secret))) != 1 {
		return refuse(Unknown, "this gateway knows no such invitation: it was made elsewhere, or too long ago")
	}
	invitation, now := i.all[at], i.now()
	switch {
	case !invitation.Revoked.IsZero():
		return refuse(Revoked, "the invitation was revoked at %s", invitation.Revoked.UTC().Format(time.RFC3339))
	case !invitation.Used.IsZero() && invitation.UsedBy != fingerprint:
		return refuse(Used, "the invitation was used at %s; it is good for one gateway", invitation.Used.UTC().Format(time.RFC3339))
	case !now.Before(invitation.Expires):
		return refuse(Expired, "the invitation expired at %s; ask for another", invitation.Expires.UTC().Format(time.RFC3339))
	case invitation.For != by.Cluster:
		return refuse(ForOther, "the invitation is for a cluster of another name than %q", by.Cluster)
	case !invitation.Used.IsZero():
		return nil // the same gateway again
	}
	all := slices.Clone(i.all)
	all[at].Used, all[at].UsedBy = now.UTC().Truncate(time.Second), fingerprint
	return i.save(all)
}

// ErrNotFound is of an invitation that is not there.
var ErrNotFound = errors.New("no such invitation")

// Revoke voids an invitation. What was used already stays: that is a peer, to be removed as one.
func (i *Invitations) Revoke(id string) (Invitation, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := slices.IndexFunc(i.all, func(x Invitation) bool { return x.ID == id })
	if at < 0 {
		return Invitation{}, ErrNotFound
	}
	all := slices.Clone(i.all)
	if all[at].Revoked.IsZero() {
		all[at].Revoked = i.now().UTC().Truncate(time.Second)
	}
	return all[at], i.save(all)
}

// List tells all that are remembered.
func (i *Invitations) List() []Invitation {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.all)
}

// AnyOpen tells whether some invitation is open.
func (i *Invitations) AnyOpen() bool {
	now := i.now()
	return slices.ContainsFunc(i.List(), func(x Invitation) bool { return x.Open(now) })
}

func (i *Invitations) save(all []Invitation) error {
	if err := durable.WriteJSON(i.path, all); err != nil {
		return fmt.Errorf("invitations: %w", err)
	}
	i.all = all
	i.changed()
	return nil
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
