// Package mask takes addresses and credentials out of a native answer on its way to a peer. An address becomes a
// stand-in: an address of the same family that leads nowhere, the same one each time, so that clients which parse and
// compare addresses go on working. A credential becomes a constant. Everything else stays as it is, byte for byte.
package mask

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/netip"
	"sync"
)

// KeySize is how long a key is, in bytes.
const KeySize = 32

// Hidden stands for a credential.
const Hidden = "hidden-by-isthmus"

// Mask makes the stand-ins of one gateway. Without its key nobody can tell which address one stands for. Safe for use by
// several goroutines.
type Mask struct{ hashes sync.Pool }

// New makes the mask of a key.
func New(key []byte) *Mask {
	return &Mask{hashes: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// digest is the keyed hash of something of a sort.
func (m *Mask) digest(sort byte, of []byte) (sum [sha256.Size]byte) {
	h := m.hashes.Get().(hash.Hash)
	defer m.hashes.Put(h)
	h.Reset()
	h.Write([]byte{sort})
	h.Write(of)
	h.Sum(sum[:0])
	return sum
}

// Stand-ins of IPv4 are in 240.0.0.0/4, which is of no use on the Internet and has room enough that two addresses of a
// large cluster rarely share one; those of IPv6 are in the documentation's 2001:db8::/32.
var (
	standIns4 = netip.MustParsePrefix("240.0.0.0/4")
	standIns6 = netip.MustParsePrefix("2001:db8::/32")
)

// Address is the stand-in of an address, and whether it needs one: what means the same on every machine does not.
func (m *Mask) Address(a netip.Addr) (netip.Addr, bool) {
	a = a.WithZone("")
	switch {
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast():
		return a, false
	case a.Is4In6():
		inner, hidden := m.Address(a.Unmap())
		return netip.AddrFrom16(inner.As16()), hidden
	case a.Is4():
		raw := a.As4()
		if raw[0] == 0 || raw[0] == 255 { // no host's: masks of networks, and the broadcast
			return a, false
		}
		sum := m.digest('4', raw[:])
		return netip.AddrFrom4([4]byte{240 + sum[0]%15, sum[1], sum[2], sum[3]}), true
	}
	raw := a.As16()
	sum := m.digest('6', raw[:])
	prefix := standIns6.Addr().As16()
	copy(raw[:4], prefix[:4])
	copy(raw[4:], sum[:12])
	return netip.AddrFrom16(raw), true
}

// mac is the stand-in of a hardware address, which often holds the IP address of its interface.
func (m *Mask) mac(raw [6]byte) ([6]byte, bool) {
	if raw == [6]byte{} || raw[0]&1 != 0 { // none, or a group's
		return raw, false
	}
	sum := m.digest('m', raw[:])
	return [6]byte{0x06, 0x00, sum[0], sum[1], sum[2], sum[3]}, true
}

// hiddenNames is the domain of names that stand for names of hosts.
const hiddenNames = ".hidden.invalid"

// Name is the stand-in of a host's name.
func (m *Mask) Name(name string) string {
	sum := m.digest('n', []byte(name))
	return "h-" + hex.EncodeToString(sum[:6]) + hiddenNames
}
