package bench

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

//go:embed plain.yaml
var plainText string

var plainTemplate = template.Must(template.New("plain.yaml").Parse(plainText))

// plainEnvoy is what an Envoy of E or S is told. The far one is in east and takes the near one's connections.
type plainEnvoy struct {
	Address    string
	Port       int
	OutAddress string
	OutPort    int

	Far                         bool
	Certificate, Key, Authority string // files
	Peer                        string // the other's SPIFFE id
	Processor                   string // socket of external processing; "" for none
}

func (e plainEnvoy) write(path string) error {
	var text bytes.Buffer
	if err := plainTemplate.Execute(&text, e); err != nil {
		return fmt.Errorf("configuration of a plain Envoy: %w", err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("configuration of a plain Envoy: %w", err)
	}
	return nil
}

// Identities of the plain Envoys.
const (
	westID = "spiffe://bench.test/west"
	eastID = "spiffe://bench.test/east"
)

// keyFiles are the certificates and keys of the plain Envoys.
type keyFiles struct {
	authority, west, westKey, east, eastKey string
}

// writeKeys makes keys of the same kind as the gateways'.
func writeKeys(dir string) (keyFiles, error) {
	files := keyFiles{
		authority: filepath.Join(dir, "authority.pem"),
		west:      filepath.Join(dir, "west.pem"), westKey: filepath.Join(dir, "west.key"),
		east: filepath.Join(dir, "east.pem"), eastKey: filepath.Join(dir, "east.key"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files, fmt.Errorf("keys of plain Envoys: %w", err)
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, fmt.Errorf("keys of plain Envoys: %w", err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	if err := issue(files.authority, "", authority, authority, authorityKey, authorityKey); err != nil {
		return files, err
	}
	for i, leaf := range []struct{ id, certificate, key string }{
		{westID, files.west, files.westKey}, {eastID, files.east, files.eastKey},
	} {
		id, err := url.Parse(leaf.id)
		if err != nil {
			return files, fmt.Errorf("keys of plain Envoys: %w", err)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return files, fmt.Errorf("keys of plain Envoys: %w", err)
		}
		if err := issue(leaf.certificate, leaf.key, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), URIs: []*url.URL{id}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}, authority, key, authorityKey); err != nil {
			return files, err
		}
	}
	return files, nil
}

// issue writes a certificate and, where it has a file, its key.
func issue(certificateFile, keyFile string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("keys of plain Envoys: %w", err)
	}
	if err := os.WriteFile(certificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return fmt.Errorf("keys of plain Envoys: %w", err)
	}
	if keyFile == "" {
		return nil
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("keys of plain Envoys: %w", err)
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		return fmt.Errorf("keys of plain Envoys: %w", err)
	}
	return nil
}
