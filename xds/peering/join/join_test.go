package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// inviting is a gateway that invites, behind TLS as Envoy ends it.
type inviting struct {
	authority   *trust.Authority
	invitations *Invitations
	address     string

	mu      sync.Mutex
	joiners []Joiner
	fail    error
}

func authority(t testing.TB, cluster string) *trust.Authority {
	t.Helper()
	a, err := trust.Init(t.TempDir(), cluster+".isthmus.internal", cluster)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newInviting(t *testing.T) *inviting {
	t.Helper()
	e := &inviting{authority: authority(t, "east")}
	var err error
	if e.invitations, err = OpenInvitations(t.Context(), file.Open(file.Config{Dir: t.TempDir()}), func() {}); err != nil {
		t.Fatal(err)
	}
	pair, err := e.authority.Issue(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&Server{
		Invitations: e.invitations, Self: e.authority.Export, Log: slog.New(slog.DiscardHandler),
		Accept: func(_ context.Context, j Joiner) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.fail != nil {
				return e.fail
			}
			e.joiners = append(e.joiners, j)
			return nil
		},
	})
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	e.address = server.Listener.Addr().String()
	return e
}

func (e *inviting) token(t *testing.T, cluster string, life time.Duration) Token {
	t.Helper()
	invitation, secret, err := e.invitations.Create(t.Context(), cluster, life)
	if err != nil {
		t.Fatal(err)
	}
	return Token{
		Address: e.address, Suffix: "isthmus.internal", Identity: e.authority.Identity(), Fingerprint: e.authority.Fingerprint(),
		Invitation: invitation.ID, Secret: secret, Expires: invitation.Expires,
	}
}

func reason(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func TestRedeem(t *testing.T) {
	t.Parallel()
	e, west := newInviting(t), authority(t, "west")
	token := e.token(t, "west", time.Minute)
	text, err := token.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseToken(text + "\n")
	if err != nil || read != token {
		t.Fatalf("read %#v (%v), want %#v", read, err, token)
	}
	for range 2 { // the second as if the first answer had been lost
		bundle, err := Redeem(t.Context(), read, Joiner{Bundle: west.Export(), Addresses: []string{"west.example:15443"}})
		if err != nil || bundle.Fingerprint != e.authority.Fingerprint() {
			t.Fatalf("%v, %v", bundle.Identity, err)
		}
	}
	if j := e.joiners; len(j) != 2 || j[0].Bundle.Fingerprint != west.Fingerprint() || j[0].Addresses[0] != "west.example:15443" {
		t.Errorf("joined: %v", j)
	}
	if _, err := Redeem(t.Context(), token, Joiner{Bundle: authority(t, "west").Export()}); reason(err) != Used {
		t.Errorf("a second gateway of the name: %v", err)
	}
}

// A gateway that cannot be dialled says so, and cannot have addresses.
func TestBehindNAT(t *testing.T) {
	t.Parallel()
	e, west := newInviting(t), authority(t, "west")
	token := e.token(t, "west", time.Minute)
	both := Joiner{Bundle: west.Export(), Addresses: []string{"west.example:15443"}, BehindNAT: true}
	if _, err := Redeem(t.Context(), token, both); reason(err) != Rejected {
		t.Errorf("behind NAT with an address: %v", err)
	}
	if _, err := Redeem(t.Context(), token, Joiner{Bundle: west.Export(), BehindNAT: true}); err != nil {
		t.Fatal(err)
	}
	if j := e.joiners; len(j) != 1 || !j[0].BehindNAT || len(j[0].Addresses) != 0 {
		t.Errorf("joined: %v", j)
	}
}

// TestBadTokens has a clear error for each, and nobody joins.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	e, other, west := newInviting(t), newInviting(t), authority(t, "west")
	revoked := e.token(t, "west", time.Minute)
	if _, err := e.invitations.Revoke(t.Context(), revoked.Invitation); err != nil {
		t.Fatal(err)
	}
	short := e.token(t, "west", time.Minute)
	short.Secret = strings.Repeat("00", secretSize)
	foreign := other.token(t, "west", time.Minute) // the address of another gateway's token was changed
	foreign.Address = e.address
	moved := e.token(t, "west", time.Minute) // made by this one, shown to the other
	moved.Address = other.address
	unknown := e.token(t, "west", time.Minute)
	unknown.Invitation = "0123456789abcdef"
	nobody := e.token(t, "west", time.Minute)
	nobody.Address = "127.0.0.1:1"
	late := e.token(t, "west", time.Minute)
	old := late
	old.Expires = time.Now().Add(-time.Second)
	for name, c := range map[string]struct {
		token  Token
		joiner *trust.Authority
		reason Reason
		says   string
	}{
		"revoked":                  {revoked, west, Revoked, "revoked at"},
		"wrong secret":             {short, west, Unknown, "no such invitation"},
		"unknown":                  {unknown, west, Unknown, "no such invitation"},
		"for another":              {e.token(t, "north", time.Minute), west, ForOther, "another name"},
		"expired by its own words": {old, west, Expired, "expired at"},
		"foreign":                  {foreign, west, "", "another fingerprint"},
		"moved":                    {moved, west, "", "another fingerprint"},
		"nobody there":             {nobody, west, "", "connection refused"},
		"itself":                   {late, e.authority, Rejected, "join itself"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Redeem(t.Context(), c.token, Joiner{Bundle: c.joiner.Export()})
			if reason(err) != c.reason || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v (reason %q)", err, reason(err))
			}
			if err != nil && strings.Contains(err.Error(), c.token.Secret) {
				t.Error("the error shows the secret")
			}
		})
	}
	// The clock of who joins does not decide.
	e.invitations.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := Redeem(t.Context(), late, Joiner{Bundle: west.Export()}); reason(err) != Expired {
		t.Errorf("expired: %v", err)
	}
	if len(e.joiners)+len(other.joiners) != 0 {
		t.Errorf("joined: %v", e.joiners)
	}
}

func TestAcceptFails(t *testing.T) {
	t.Parallel()
	e, west := newInviting(t), authority(t, "west")
	token := e.token(t, "west", time.Minute)
	e.fail = errors.New("disk full at /secret/place")
	if _, err := Redeem(t.Context(), token, Joiner{Bundle: west.Export()}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an inner error: %v", err)
	}
	e.fail = Reject(errors.New("there is a peer of this name"))
	if _, err := Redeem(t.Context(), token, Joiner{Bundle: west.Export()}); reason(err) != Rejected {
		t.Errorf("a refusal: %v", err)
	}
	e.fail = nil
	if _, err := Redeem(t.Context(), token, Joiner{Bundle: west.Export()}); err != nil {
		t.Errorf("the same gateway may try again: %v", err)
	}
}

// TestOneOfMany lets many gateways race for one token.
func TestOneOfMany(t *testing.T) {
	t.Parallel()
	e := newInviting(t)
	token := e.token(t, "west", time.Minute)
	var group sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		a := authority(t, "west")
		group.Go(func() { _, results[i] = Redeem(t.Context(), token, Joiner{Bundle: a.Export()}) })
	}
	group.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if reason(err) != Used {
			t.Error(err)
		}
	}
	if won != 1 || len(e.joiners) != 1 {
		t.Errorf("%d joined", won)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	e := newInviting(t)
	s := &Server{Invitations: e.invitations, Self: e.authority.Export, Log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodGet, names.JoinPath, "", http.StatusMethodNotAllowed},
		{http.MethodPost, "/", "{}", http.StatusNotFound},
		{http.MethodPost, names.JoinPath, "", http.StatusBadRequest},
		{http.MethodPost, names.JoinPath, "[1]", http.StatusBadRequest},
		{http.MethodPost, names.JoinPath, `{"bundle":"` + strings.Repeat("x", maxMessage) + `"}`, http.StatusBadRequest},
		{http.MethodPost, names.JoinPath, `{}`, http.StatusForbidden},
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.want || !strings.HasPrefix(w.Body.String(), `{"`) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

func TestInvitationsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home := file.Open(file.Config{Dir: dir})
	changes := 0
	i, err := OpenInvitations(t.Context(), home, func() { changes++ })
	if err != nil {
		t.Fatal(err)
	}
	a, secret, err := i.Create(t.Context(), "west", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "invitations.json"))
	if err != nil || strings.Contains(string(data), secret) {
		t.Errorf("the file holds the secret, or is not there: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "invitations.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	again, err := OpenInvitations(t.Context(), home, func() {})
	if err != nil || len(again.List()) != 1 || again.List()[0] != a {
		t.Fatalf("%v, %v", again, err)
	}
	if !again.AnyOpen() {
		t.Error("no invitation is open")
	}
	again.now = func() time.Time { return a.Expires }
	if again.AnyOpen() || a.State(a.Expires) != "expired" {
		t.Error("an expired invitation is open")
	}
	if _, err := again.Revoke(t.Context(), "nosuch"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// Much later it is forgotten.
	again.now = func() time.Time { return a.Expires.Add(kept + time.Hour) }
	if _, _, err := again.Create(t.Context(), "north", time.Hour); err != nil || len(again.List()) != 1 || changes != 1 {
		t.Errorf("%v, %v, %d changes", again.List(), err, changes)
	}
	if err := os.WriteFile(filepath.Join(dir, "invitations.json"), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenInvitations(t.Context(), home, func() {}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Error(err)
	}
}

// Two replicas that share their state redeem a token once, for whichever gateway is the first.
func TestRedeemedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var replicas []*Invitations
	for range 3 {
		i, err := OpenInvitations(t.Context(), file.Open(file.Config{Dir: dir}), func() {})
		if err != nil {
			t.Fatal(err)
		}
		replicas = append(replicas, i)
	}
	invitation, secret, err := replicas[0].Create(t.Context(), "west", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	by := peering.Identity{TrustDomain: "west.isthmus.internal", Cluster: "west"}
	var group sync.WaitGroup
	var won atomic.Int32
	for n := range 9 {
		group.Go(func() {
			err := replicas[n%len(replicas)].Redeem(t.Context(), invitation.ID, secret, by, fmt.Sprint("authority ", n))
			var refusal *Refusal
			switch {
			case err == nil:
				won.Add(1)
			case !errors.As(err, &refusal) || refusal.Reason != Used:
				t.Errorf("%v", err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d gateways have redeemed the token", won.Load())
	}
}

// A peer that was removed does not come back by the token that it came with, nor by another one of its name.
func TestForget(t *testing.T) {
	t.Parallel()
	i, err := OpenInvitations(t.Context(), file.Open(file.Config{Dir: t.TempDir()}), func() {})
	if err != nil {
		t.Fatal(err)
	}
	by := peering.Identity{TrustDomain: "west.isthmus.internal", Cluster: "west"}
	var tokens [3][2]string
	for n, cluster := range []string{"west", "west", "north"} {
		invitation, secret, err := i.Create(t.Context(), cluster, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tokens[n] = [2]string{invitation.ID, secret}
	}
	for range 2 {
		if err := i.Redeem(t.Context(), tokens[0][0], tokens[0][1], by, "authority"); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.Forget(t.Context(), "west"); err != nil {
		t.Fatal(err)
	}
	for n, cluster := range []string{"west", "west", "north"} {
		by.Cluster = cluster
		err := i.Redeem(t.Context(), tokens[n][0], tokens[n][1], by, "authority")
		var refusal *Refusal
		if cluster == "west" && (!errors.As(err, &refusal) || refusal.Reason != Revoked) || cluster == "north" && err != nil {
			t.Errorf("invitation %d of %s: %v", n, cluster, err)
		}
	}
}

func TestParseToken(t *testing.T) {
	t.Parallel()
	e := newInviting(t)
	good, err := e.token(t, "west", time.Minute).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, says string }{
		"empty":        {" \n", "it is empty"},
		"no token":     {"hello", "isthmus peer invite prints one"},
		"newer":        {strings.Replace(good, "-1.", "-2.", 1), "of a version"},
		"truncated":    {good[:len(good)-3], "cut off or mistyped"},
		"very short":   {tokenTitle, "cut off or mistyped"},
		"mistyped":     {good[:40] + strings.Map(func(r rune) rune { return map[bool]rune{true: 'B', false: 'A'}[r == 'A'] }, good[40:41]) + good[41:], "cut off or mistyped"},
		"two in a row": {good + good, "cut off or mistyped"},
		"very long":    {good + strings.Repeat("A", maxToken), "longer than"},
	} {
		if _, err := ParseToken(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	token, err := ParseToken(good)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", token, token, token); strings.Contains(text, token.Secret) {
		t.Error("printed, a token shows its secret")
	}
}

func FuzzParseToken(f *testing.F) {
	a := authority(f, "east")
	good, err := Token{
		Address: "east.example:15443", Suffix: "isthmus.internal", Identity: a.Identity(), Fingerprint: a.Fingerprint(),
		Invitation: "0123456789abcdef", Secret: strings.Repeat("ab", secretSize), Expires: time.Unix(2e9, 0),
	}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(tokenTitle + "AAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := token.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if read, err := ParseToken(again); err != nil || read != token {
			t.Fatalf("%#v, %v", read, err)
		}
	})
}
