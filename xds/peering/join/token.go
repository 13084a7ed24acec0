// Package join brings two gateways together that have never met: one invites with a token that is good for a single use
// and a short time, the other redeems it, and each then holds the other's trust bundle.
package join

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Token is all that the invited side needs. Who holds it may join in its invitation's name: it is a secret.
type Token struct {
	Address     string           // host:port of the inviting gateway's peer listener
	Suffix      string           // of the inviting gateway's names
	Identity    peering.Identity // the inviting gateway
	Fingerprint string           // SHA-256 of its authority's certificate, in hexadecimal digits
	Invitation  string           // its id
	Secret      string           // in hexadecimal digits
	Expires     time.Time
}

const (
	tokenTitle  = "isthmus-join-1."
	tokenFamily = "isthmus-join-"
	maxToken    = 4096
	secretSize  = 32 // bytes
)

// wireToken is a token's body, JSON with short names: a token is pasted by people.
type wireToken struct {
	Address     string `json:"a"`
	Suffix      string `json:"s"`
	TrustDomain string `json:"t"`
	Cluster     string `json:"c"`
	Fingerprint []byte `json:"f"`
	Invitation  string `json:"i"`
	Secret      []byte `json:"k"`
	Expires     int64  `json:"e"` // seconds since 1970
}

// String keeps the secret out of whatever prints a Token.
func (t Token) String() string { return "invitation " + t.Invitation + " of " + t.Identity.String() }

var _ fmt.GoStringer = Token{}

// GoString does the same for %#v.
func (t Token) GoString() string { return t.String() }

// Encode writes the token as one word. A checksum at its end finds out a token that was cut or mistyped.
func (t Token) Encode() (string, error) {
	fingerprint, err := hex.DecodeString(t.Fingerprint)
	if err != nil {
		return "", fmt.Errorf("token: fingerprint: %w", err)
	}
	secret, err := hex.DecodeString(t.Secret)
	if err != nil {
		return "", errors.New("token: the secret is not hexadecimal")
	}
	body, err := json.Marshal(wireToken{
		Address: t.Address, Suffix: t.Suffix, TrustDomain: t.Identity.TrustDomain, Cluster: t.Identity.Cluster,
		Fingerprint: fingerprint, Invitation: t.Invitation, Secret: secret, Expires: t.Expires.Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	body = binary.BigEndian.AppendUint32(body, crc32.ChecksumIEEE(body))
	return tokenTitle + base64.RawURLEncoding.EncodeToString(body), nil
}

// ParseToken reads what Encode wrote, and says what is wrong with anything else. It never repeats the token.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(strings.TrimSpace(text))
	if err != nil {
		return Token{}, fmt.Errorf("token: %w", err)
	}
	return t, nil
}

func parseToken(text string) (Token, error) {
	rest, ok := strings.CutPrefix(text, tokenTitle)
	switch {
	case text == "":
		return Token{}, errors.New("it is empty")
	case len(text) > maxToken:
		return Token{}, fmt.Errorf("it is longer than %d characters", maxToken)
	case !ok && strings.HasPrefix(text, tokenFamily):
		return Token{}, errors.New("it is of a version that this software does not know")
	case !ok:
		return Token{}, fmt.Errorf("it is none: it does not begin with %q (isthmus peer invite prints one)", tokenTitle)
	}
	cut := errors.New("it was cut off or mistyped: its checksum does not hold; copy it again, whole")
	body, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(body) < 4 {
		return Token{}, cut
	}
	body, sum := body[:len(body)-4], body[len(body)-4:]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(body) {
		return Token{}, cut
	}
	var w wireToken
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&w); err != nil {
		return Token{}, errors.New("it is damaged: its body is no invitation")
	}
	id, err := peering.NewIdentity(w.TrustDomain, w.Cluster)
	if err != nil {
		return Token{}, fmt.Errorf("it is damaged: %w", err)
	}
	if _, _, err := net.SplitHostPort(w.Address); err != nil || len(w.Fingerprint) != 32 || len(w.Secret) != secretSize || w.Invitation == "" {
		return Token{}, errors.New("it is damaged: it lacks an address, a fingerprint or a secret")
	}
	return Token{
		Address: w.Address, Suffix: w.Suffix, Identity: id, Fingerprint: hex.EncodeToString(w.Fingerprint),
		Invitation: w.Invitation, Secret: hex.EncodeToString(w.Secret), Expires: time.Unix(w.Expires, 0).UTC(),
	}, nil
}
