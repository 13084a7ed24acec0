// Package caller tells who this cluster's own callers are: by bearer tokens of a file or of the cluster's orchestrator,
// by client certificates, and by the owner of the process at the other end of a Unix socket. The name that it gives
// crosses to the peer, whose policies and audit log use it.
package caller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Prefixes of names that one method alone may give.
const (
	PrefixUnix           = "unix:"
	prefixServiceAccount = "system:serviceaccount:"
)

// Identity is who a caller is; the zero Identity is nobody.
type Identity struct {
	Name   string
	Groups modules.Groups
}

// Tell writes the identity into the headers of a request to a peer.
func (i Identity) Tell(header http.Header) {
	if i.Name != "" {
		header.Set(names.HeaderCaller, i.Name)
	}
	if i.Groups != "" {
		header.Set(names.HeaderGroups, string(i.Groups))
	}
}

// Config is how callers are known. The zero Config knows nobody and lets nobody in but the owners of Unix sockets.
type Config struct {
	Tokens   string // file of bearer tokens; "" for none
	ClientCA string // PEM file of the authorities of client certificates; "" for none
	Reviewer Reviewer
	// Audiences are those that a reviewed token must be for; none are the orchestrator's own.
	Audiences []string
	// Open are the kinds of request that callers without a credential may make.
	Open []modules.Class
	Log  *slog.Logger
}

// Credentials are what a caller has shown. The zero Credentials are nobody's.
type Credentials struct {
	Token string
	// User is the name that the token must be of, for clients that send a name with a password; "" is any.
	User string
	// Certificates are the client's chain, its own first. Authenticator verifies it.
	Certificates []*x509.Certificate
	// Owner is who runs the process at the other end of a Unix socket.
	Owner Identity
}

// Authenticator tells who callers are. It is safe for concurrent use.
type Authenticator struct {
	config  Config
	tokens  *file[tokens]
	clients *file[Authorities]
	reviews *reviews
}

// New makes an authenticator. It fails when a file cannot be used as it is now; later, a file is read again when it
// changes.
func New(config Config) (*Authenticator, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authenticator{config: config}
	if config.Tokens != "" {
		a.tokens = &file[tokens]{path: config.Tokens, parse: parseTokens, secret: true, log: config.Log}
		if _, err := a.tokens.get(); err != nil {
			return nil, fmt.Errorf("callers' tokens: %w", err)
		}
	}
	if config.ClientCA != "" {
		a.clients = &file[Authorities]{path: config.ClientCA, parse: parseAuthorities, log: config.Log}
		if _, err := a.clients.get(); err != nil {
			return nil, fmt.Errorf("authorities of callers: %w", err)
		}
	}
	if config.Reviewer != nil {
		a.reviews = newReviews(config.Reviewer, config.Audiences, config.Log)
	}
	return a, nil
}

// Admit names the caller of a request of that class. The name is empty where callers without a credential may come. A
// credential that is shown and is not good is refused there too; one of a kind that is not looked at here is none.
//
// Of several credentials the most deliberate counts: a token, then a certificate, then the owner of the process.
func (a *Authenticator) Admit(ctx context.Context, class modules.Class, c Credentials) (Identity, error) {
	switch {
	case c.Token != "" && (a.tokens != nil || a.reviews != nil):
		return a.byToken(ctx, c)
	case len(c.Certificates) > 0 && a.clients != nil:
		return a.byCertificate(c.Certificates)
	case c.Owner.Name != "":
		return c.Owner, nil
	case slices.Contains(a.config.Open, class):
		return Identity{}, nil
	}
	return Identity{}, fault.New(fault.Unauthenticated, "this gateway wants to know who asks: %s", a.asked())
}

// asked says which credentials are looked at.
func (a *Authenticator) asked() string {
	var ways []string
	if a.tokens != nil || a.reviews != nil {
		ways = append(ways, "a bearer token")
	}
	if a.clients != nil {
		ways = append(ways, "a client certificate")
	}
	if len(ways) == 0 {
		return "its admin has not said how (spec.callers of the Gateway document)"
	}
	return strings.Join(ways, " or ") + " is missing"
}

// tooLong bounds tokens; those of service accounts have about a kilobyte.
const tooLong = 16 << 10

var errToken = fault.New(fault.Unauthenticated, "the bearer token is not good for this gateway")

func (a *Authenticator) byToken(ctx context.Context, c Credentials) (Identity, error) {
	if len(c.Token) > tooLong {
		return Identity{}, errToken
	}
	var who Identity
	if a.tokens != nil {
		known, err := a.tokens.get()
		if err != nil {
			return Identity{}, fault.Wrap(fault.Unavailable, err, "the gateway cannot check bearer tokens at the moment")
		}
		who = known.owner(c.Token)
	}
	if who.Name == "" && a.reviews != nil {
		var err error
		if who, err = a.reviews.owner(ctx, c.Token); err != nil {
			return Identity{}, err
		}
	}
	if who.Name == "" || (c.User != "" && c.User != who.Name) {
		return Identity{}, errToken
	}
	return who, nil
}

func (a *Authenticator) byCertificate(chain []*x509.Certificate) (Identity, error) {
	known, err := a.clients.get()
	if err != nil {
		return Identity{}, fault.Wrap(fault.Unavailable, err, "the gateway cannot check client certificates at the moment")
	}
	if err := known.verify(chain); err != nil {
		return Identity{}, fault.Wrap(fault.Unauthenticated, err, "the client certificate is not good for this gateway")
	}
	name, err := nameOf(chain[0])
	if err != nil {
		return Identity{}, fault.Wrap(fault.Unauthenticated, err, "the client certificate names nobody: %v", err)
	}
	return Identity{Name: name, Groups: groupsOf(chain[0])}, nil
}

// Authorities are those of client certificates as they are now; ok is false where none are asked for.
func (a *Authenticator) Authorities() (authorities Authorities, ok bool) {
	if a.clients == nil {
		return Authorities{}, false
	}
	known, err := a.clients.get()
	return known, err == nil
}

// groupReserved tells groups that the orchestrator alone, or this machine, says somebody is in.
func groupReserved(group string) bool {
	return strings.HasPrefix(group, PrefixUnix) || group == "system:authenticated" || group == "system:unauthenticated" || strings.HasPrefix(group, "system:serviceaccounts")
}

// checkName holds a name against what a method other than its own may give.
func checkName(name string) error {
	if err := modules.CheckCaller(name); err != nil {
		return err
	}
	for _, prefix := range []string{PrefixUnix, prefixServiceAccount} {
		if strings.HasPrefix(name, prefix) {
			return errors.New("names that begin with " + prefix + " are for callers that are known in another way")
		}
	}
	return nil
}
