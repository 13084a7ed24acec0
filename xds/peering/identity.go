package peering

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Identity is who a gateway is: the cluster it stands for, and the trust domain that vouches for it. Its form on the
// wire and in a certificate is a SPIFFE id, spiffe://<trust domain>/cluster/<name>.
type Identity struct {
	TrustDomain string
	Cluster     string
}

var (
	clusterPattern     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	trustDomainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$`)
)

const (
	spiffeScheme  = "spiffe://"
	spiffeCluster = "/cluster/"
)

// DefaultTrustDomain is the trust domain of a cluster whose admin chose none.
func DefaultTrustDomain(cluster string) string { return cluster + "." + names.DefaultSuffix }

// NewIdentity checks both parts.
func NewIdentity(trustDomain, cluster string) (Identity, error) {
	if !trustDomainPattern.MatchString(trustDomain) {
		return Identity{}, fmt.Errorf("%q is no SPIFFE trust domain: lower-case letters, digits, dots, dashes and underscores", trustDomain)
	}
	if !clusterPattern.MatchString(cluster) {
		return Identity{}, fmt.Errorf("%q is no cluster name: lower-case letters, digits and dashes, at most 63", cluster)
	}
	return Identity{TrustDomain: trustDomain, Cluster: cluster}, nil
}

// ParseIdentity reads a SPIFFE id of a gateway. Exactly one id is accepted: what else a header may carry (a list, a
// query, another path) is an error.
func ParseIdentity(id string) (Identity, error) {
	rest, ok := strings.CutPrefix(id, spiffeScheme)
	domain, cluster, found := strings.Cut(rest, spiffeCluster)
	if !ok || !found {
		return Identity{}, fmt.Errorf("%.256q is no gateway identity: want spiffe://<trust domain>/cluster/<name>", id)
	}
	identity, err := NewIdentity(domain, cluster)
	if err != nil {
		return Identity{}, fmt.Errorf("%.256q is no gateway identity: %w", id, err)
	}
	return identity, nil
}

// String is the SPIFFE id; empty for no identity.
func (i Identity) String() string {
	if i == (Identity{}) {
		return ""
	}
	return spiffeScheme + i.TrustDomain + spiffeCluster + i.Cluster
}

// MarshalText writes the SPIFFE id.
func (i Identity) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads a SPIFFE id; empty is no identity.
func (i *Identity) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*i = Identity{}
		return nil
	}
	identity, err := ParseIdentity(string(text))
	if err != nil {
		return err
	}
	*i = identity
	return nil
}
