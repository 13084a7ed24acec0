package caller

import (
	"crypto/x509"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
)

func TestHeaders(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"": "", "Bearer x": "x", "bearer  x ": "x", "Bearer": "", "Bearer ": "", "Basic eDp5": "", "Bearerx": "", "BEARER a b": "a b",
	} {
		if got := Bearer(header); got != want {
			t.Errorf("%q has the token %q", header, got)
		}
	}
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for header, want := range map[string]Credentials{
		"": {}, "Bearer x": {Token: "x"}, basic("ci:x:y"): {User: "ci", Token: "x:y"}, basic("ci"): {User: "ci"}, "Basic ???": {}, "Digest x": {},
		strings.ToLower("BASIC") + basic(":x")[5:]: {Token: "x"},
	} {
		if got := Proxy(header); got.User != want.User || got.Token != want.Token {
			t.Errorf("%q has %+v", header, got)
		}
	}
	token, rest := WebSocket("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0,v4.channel.k8s.io")
	if token != "secret" || rest != "v5.channel.k8s.io, v4.channel.k8s.io" {
		t.Errorf("%q, %q", token, rest)
	}
	// One that is not read is taken out all the same.
	if token, rest := WebSocket("base64url.bearer.authorization.k8s.io.!!, a"); token != "" || rest != "a" {
		t.Errorf("%q, %q", token, rest)
	}
}

func TestForwarded(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	alice := ca.client(named("alice"))
	chain := url.PathEscape(pemOf(alice) + pemOf(ca.cert))
	header := `Hash=1;Chain="` + strings.ReplaceAll(chain, "+", "%2B") + `"`
	got, err := Forwarded(header)
	if err != nil || len(got) != 2 || !got[0].Equal(alice) || !got[1].Equal(ca.cert) {
		t.Errorf("%d certificates, %v", len(got), err)
	}
	if got, err := Forwarded(""); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"Hash=1", `Chain="`, `Chain=""`, `Chain="%zz"`, `Chain="x"`, `Chain="` + strings.Repeat(url.PathEscape(pemOf(alice)), maxChain+1) + `"`} {
		if got, err := Forwarded(bad); err == nil {
			t.Errorf("%.40q gives %v", bad, got)
		}
	}
}

// FuzzHeaders holds that no header gives a token that it does not hold, nor a certificate of nobody.
func FuzzHeaders(f *testing.F) {
	f.Add("Bearer x")
	f.Add("Basic Y2k6eA==")
	f.Add(`Hash=1;Chain="-----BEGIN CERTIFICATE-----%0AAAAA%0A-----END CERTIFICATE-----%0A"`)
	f.Add("a, base64url.bearer.authorization.k8s.io.c2VjcmV0, b")
	f.Fuzz(func(t *testing.T, header string) {
		if token := Bearer(header); !strings.Contains(header, token) || strings.TrimSpace(token) != token {
			t.Errorf("%q has the token %q", header, token)
		}
		Proxy(header)
		if _, rest := WebSocket(header); strings.Contains(rest, bearerProtocol) && !strings.Contains(rest, "."+bearerProtocol) {
			for protocol := range strings.SplitSeq(rest, ",") {
				if strings.HasPrefix(strings.TrimSpace(protocol), bearerProtocol) {
					t.Errorf("a token is left in %q", rest)
				}
			}
		}
		chain, err := Forwarded(header)
		if err == nil && header != "" && len(chain) == 0 {
			t.Error("a chain of nobody")
		}
		for _, c := range chain {
			if _, err := x509.ParseCertificate(c.Raw); err != nil {
				t.Error(err)
			}
			_, _ = nameOf(c)
		}
	})
}
