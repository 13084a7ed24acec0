package join

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state"
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
	Parted  time.Time `json:",omitzero"` // the peer of that name was removed
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

// maxInvitations bounds the record; each is an admin's doing.
const maxInvitations = 1000

// Kind is the kind of state that invitations are.
var Kind = state.Kind{Name: "invitations", File: "invitations.json", Secret: true}

// Invitations are kept in one record of the gateway's state, so that an invitation is used once, whichever replica it is
// brought to.
type Invitations struct {
	document *state.Document[[]Invitation] // sorted by time of creation
	now      func() time.Time
}

// OpenInvitations reads what was kept; changed is called after each change.
func OpenInvitations(ctx context.Context, home state.Store, changed func()) (*Invitations, error) {
	document, err := state.OpenDocument(ctx, state.DocumentConfig[[]Invitation]{Store: home, Key: Kind.Only(), Changed: changed})
	if err != nil {
		return nil, fmt.Errorf("invitations: %w", err)
	}
	return &Invitations{document: document, now: time.Now}, nil
}

// Follow takes in what other replicas change, until ctx ends.
func (i *Invitations) Follow(ctx context.Context, log *slog.Logger) { i.document.Follow(ctx, log) }

// Create makes an invitation for a cluster; the secret is nowhere but in its token.
func (i *Invitations) Create(ctx context.Context, cluster string, life time.Duration) (invitation Invitation, secret string, err error) {
	random := make([]byte, 8+secretSize)
	if _, err := rand.Read(random); err != nil {
		return Invitation{}, "", fmt.Errorf("invitations: %w", err)
	}
	secret = hex.EncodeToString(random[8:])
	now := i.now().UTC().Truncate(time.Second)
	invitation = Invitation{
		ID: hex.EncodeToString(random[:8]), For: cluster, Digest: digest(secret), Created: now, Expires: now.Add(life),
	}
	err = i.change(ctx, func(all []Invitation) ([]Invitation, error) {
		all = slices.DeleteFunc(all, func(old Invitation) bool { return now.After(old.Expires.Add(kept)) })
		if len(all) >= maxInvitations {
			return nil, fmt.Errorf("there are %d already", len(all))
		}
		return append(all, invitation), nil
	})
	if err != nil {
		return Invitation{}, "", err
	}
	return invitation, secret, nil
}

// Redeem uses an invitation up for the gateway with this identity and authority, for good: the state says so before
// anything is trusted.
func (i *Invitations) Redeem(ctx context.Context, id, secret string, by peering.Identity, fingerprint string) error {
	return i.change(ctx, func(all []Invitation) ([]Invitation, error) {
		at := slices.IndexFunc(all, func(x Invitation) bool { return x.ID == id })
		if at < 0 || subtle.ConstantTimeCompare([]byte(all[at].Digest), []byte(digest(secret))) != 1 {
			return nil, refuse(Unknown, "this gateway knows no such invitation: it was made elsewhere, or too long ago")
		}
		now := i.now()
		if err := all[at].redeemable(by, fingerprint, now); err != nil {
			return nil, err
		}
		if all[at].Used.IsZero() { // else it is the same gateway again
			all[at].Used, all[at].UsedBy = now.UTC().Truncate(time.Second), fingerprint
		}
		return all, nil
	})
}

// redeemable tells why an invitation is not good for a gateway whose secret is the right one.
func (i Invitation) redeemable(by peering.Identity, fingerprint string, now time.Time) error {
	switch {
	case !i.Revoked.IsZero():
		return refuse(Revoked, "the invitation was revoked at %s", i.Revoked.UTC().Format(time.RFC3339))
	case !i.Used.IsZero() && i.UsedBy != fingerprint:
		return refuse(Used, "the invitation was used at %s; it is good for one gateway", i.Used.UTC().Format(time.RFC3339))
	case !now.Before(i.Expires):
		return refuse(Expired, "the invitation expired at %s; ask for another", i.Expires.UTC().Format(time.RFC3339))
	case i.For != by.Cluster:
		return refuse(ForOther, "the invitation is for a cluster of another name than %q", by.Cluster)
	}
	return nil
}

// ErrNotFound is of an invitation that is not there.
var ErrNotFound = errors.New("no such invitation")

// Revoke voids an invitation. What was used already stays: that is a peer, to be removed as one.
func (i *Invitations) Revoke(ctx context.Context, id string) (revoked Invitation, err error) {
	err = i.change(ctx, func(all []Invitation) ([]Invitation, error) {
		at := slices.IndexFunc(all, func(x Invitation) bool { return x.ID == id })
		if at < 0 {
			return nil, ErrNotFound
		}
		if all[at].Revoked.IsZero() {
			all[at].Revoked = i.now().UTC().Truncate(time.Second)
		}
		revoked = all[at]
		return all, nil
	})
	return revoked, err
}

// Forget voids every invitation of a cluster, the used ones too: who used one could use it again until it expires, and one
// that is being redeemed at this moment stands no longer. It comes before the trust in the cluster is taken away.
func (i *Invitations) Forget(ctx context.Context, cluster string) error {
	return i.change(ctx, func(all []Invitation) ([]Invitation, error) {
		now := i.now()
		for at := range all {
			if all[at].For != cluster {
				continue
			}
			all[at].Parted = now.UTC().Truncate(time.Second)
			if all[at].Open(now) {
				all[at].Revoked = all[at].Parted
			}
		}
		return all, nil
	})
}

// Standing tells whether the peer that redeemed an invitation was removed since, by what the state says now.
func (i *Invitations) Standing(ctx context.Context, id string) error {
	return i.change(ctx, func(all []Invitation) ([]Invitation, error) {
		at := slices.IndexFunc(all, func(x Invitation) bool { return x.ID == id })
		if at < 0 || !all[at].Parted.IsZero() {
			return nil, refuse(Revoked, "the peer was removed while it joined; ask for another invitation")
		}
		return all, nil
	})
}

// List tells all that are remembered.
func (i *Invitations) List() []Invitation { return slices.Clone(i.document.Value()) }

// AnyOpen tells whether some invitation is open.
func (i *Invitations) AnyOpen() bool {
	now := i.now()
	return slices.ContainsFunc(i.List(), func(x Invitation) bool { return x.Open(now) })
}

// change changes the invitations by what they are in the state. A refusal is returned as it is.
func (i *Invitations) change(ctx context.Context, change func([]Invitation) ([]Invitation, error)) error {
	err := i.document.Update(ctx, func(all []Invitation) ([]Invitation, error) { return change(slices.Clone(all)) })
	var refusal *Refusal
	if err == nil || errors.As(err, &refusal) || errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("invitations: %w", err)
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
