package trust

import (
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// A peer changes its own bundle only, with the word of an authority that is trusted as its own, and never back.
func TestRenewRefuses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	west, east, north := newGateway(t, "west"), newGateway(t, "east"), newGateway(t, "north")
	east.imports(t, west)
	east.imports(t, north)
	rotated := func(g *gateway) peering.SignedBundle {
		if err := begin(now)(g.rotator); err != nil {
			t.Fatal(err)
		}
		return g.rotator.Authority().Signed()
	}
	good, norths := rotated(west), rotated(north)

	// A namesake with an authority of its own, who signs a bundle in which west's real authority stands too.
	liar := newGateway(t, "west")
	forged := liar.rotator.Authority()
	forged.bundle.certificates = append(forged.bundle.certificates, west.rotator.Authority().bundle.certificates...)
	forged.bundle = bundleOf(forged.identity, forged.bundle.certificates)
	forged.bundle.Serial = nextSerial(good0(t, good), now) + 1000
	if err := forged.sign(); err != nil {
		t.Fatal(err)
	}
	alone := rotated(newGateway(t, "west"))

	edit := func(s peering.SignedBundle, from, to string) peering.SignedBundle {
		s.Text = strings.Replace(s.Text, from, to, 1)
		return s
	}
	for name, c := range map[string]struct {
		peer string
		sent peering.SignedBundle
		why  string
	}{
		"garbage":                    {"west", peering.SignedBundle{Text: "hello", Signature: []byte{1}}, "it is none"},
		"no signature":               {"west", peering.SignedBundle{Text: good.Text}, "signed by no authority"},
		"another signature":          {"west", peering.SignedBundle{Text: good.Text, Signature: norths.Signature}, "signed by no authority"},
		"a changed serial":           {"west", edit(good, "Serial: ", "Serial: 9"), "signed by no authority"},
		"another's":                  {"west", norths, "the one in place is of"},
		"a stranger's":               {"south", good, "no bundle of peer south is trusted"},
		"a path":                     {"../west", good, "no cluster name"},
		"signed by a namesake":       {"west", forged.signed, "signed by no authority"},
		"a namesake's":               {"west", alone, "none of the authorities"},
		"with a signer that is none": {"west", peering.SignedBundle{Text: good.Text, Signature: good.Signature, Signers: [][]byte{{1, 2}}}, "cannot be read"},
		"with a leaf as its signer": {"west", peering.SignedBundle{Text: good.Text, Signature: good.Signature,
			Signers: [][]byte{parse(t, west.issue(t)).Raw}}, "may not sign others"},
		"with a namesake as its signer": {"west", peering.SignedBundle{Text: forged.signed.Text, Signature: forged.signed.Signature,
			Signers: [][]byte{liar.rotator.Authority().certificate.Raw}}, "not of an authority that is trusted"},
	} {
		if changed, err := east.peers.Renew(c.peer, c.sent, now); err == nil || changed || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v %v", name, changed, err)
		}
	}
	if got := east.trusts(t, "west"); len(got) != 1 {
		t.Fatalf("trusted of west: %v", got)
	}
	if changed, err := east.peers.Renew("west", good, now); err != nil || !changed {
		t.Fatalf("the good one: %v %v", changed, err)
	}
	if changed, err := east.peers.Renew("west", good, now); err != nil || changed {
		t.Errorf("the same again: %v %v", changed, err)
	}

	// The rotation goes to its end; then nothing older is taken, though its signature is good.
	if err := advance(now)(west.rotator); err != nil {
		t.Fatal(err)
	}
	issuing := west.rotator.Authority().Signed()
	east.hears(t, west)
	if err := advance(now)(west.rotator); err != nil {
		t.Fatal(err)
	}
	if got := east.hears(t, west); len(got) != 1 {
		t.Fatalf("trusted of west: %v", got)
	}
	for _, older := range []peering.SignedBundle{good, issuing} {
		if changed, err := east.peers.Renew("west", older, now); err == nil || changed || !strings.Contains(err.Error(), "it is older") {
			t.Errorf("an older one: %v %v", changed, err)
		}
	}
}

func good0(t *testing.T, s peering.SignedBundle) uint64 {
	t.Helper()
	b, err := ParseBundle([]byte(s.Text))
	if err != nil {
		t.Fatal(err)
	}
	return b.Serial
}

// A peer cannot put another peer's key among its own, though it signs it.
func TestRenewWithAnothersKey(t *testing.T) {
	t.Parallel()
	now := time.Now()
	west, east, north := newGateway(t, "west"), newGateway(t, "east"), newGateway(t, "north")
	east.imports(t, north)
	supply := newSupply(t, "spiffe://west.isthmus.internal")
	a := supply.authority(t, west.rotator.Authority().Identity())
	if err := east.peers.Import("west", a.Export()); err != nil {
		t.Fatal(err)
	}
	// North's key in a root that west's admin lists: only north could make it, so it is north's own certificate, whose
	// name tells whose it is; a root without a name of north's key is made here for the test.
	root := newRootOf(t, north.rotator.Authority().key)
	a.bundle = bundleOf(a.identity, append(a.bundle.certificates, root))
	a.bundle.External, a.bundle.Serial = true, 1
	if err := a.sign(); err != nil {
		t.Fatal(err)
	}
	if changed, err := east.peers.Renew("west", a.Signed(), now); err == nil || changed || !strings.Contains(err.Error(), "key is that of peer north") {
		t.Errorf("%v %v", changed, err)
	}
}

// FuzzRenew gives a peer whatever another could send: what is not signed by its authority never changes anything.
func FuzzRenew(f *testing.F) {
	f.Add("", []byte{}, []byte{})
	f.Add("Isthmus trust bundle 1\nCluster: west\n", []byte{0x30, 6, 2, 1, 1, 2, 1, 1}, []byte{0x30})
	west, east := newGateway(f, "west"), newGateway(f, "east")
	east.imports(f, west)
	before := east.trusts(f, "west")
	if err := begin(time.Now())(west.rotator); err != nil {
		f.Fatal(err)
	}
	good := west.rotator.Authority().Signed()
	f.Add(good.Text, good.Signature[:8], west.rotator.Authority().certificate.Raw[:40])
	f.Fuzz(func(t *testing.T, text string, signature, signer []byte) {
		for _, sent := range []peering.SignedBundle{
			{Text: text, Signature: signature}, {Text: text, Signature: good.Signature}, {Text: good.Text, Signature: signature},
			{Text: text, Signature: signature, Signers: [][]byte{signer}}, {Text: good.Text, Signature: good.Signature, Signers: [][]byte{signer}},
		} {
			if sent.Same(good) {
				continue
			}
			if changed, err := east.peers.Renew("west", sent, time.Now()); changed {
				t.Fatalf("%q was taken (%v)", sent.Text, err)
			}
		}
		if after := east.trusts(t, "west"); len(after) != 1 || after[0] != before[0] {
			t.Fatalf("trusted %v, then %v", before, after)
		}
	})
}
