package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a cluster's own certificate authority.
type authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// keyPair is a certificate and its key, as PEM and as files.
type keyPair struct {
	certificate, key         []byte
	certificateFile, keyFile string
}

const certificateLife = 30 * 24 * time.Hour

func newAuthority(dir, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	template := certificateTemplate(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a := &authority{dir: dir, certificate: certificate, key: key}
	pair, err := a.write("ca", der, key)
	if err != nil {
		return nil, err
	}
	a.pem = pair.certificate
	return a, nil
}

// server issues a serving certificate for IP addresses and DNS names.
func (a *authority) server(file, name string, hosts ...string) (*keyPair, error) {
	template := certificateTemplate(pkix.Name{CommonName: name})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.issue(file, template)
}

// client issues a client certificate for a Kubernetes user and its groups.
func (a *authority) client(file, user string, groups ...string) (*keyPair, error) {
	template := certificateTemplate(pkix.Name{CommonName: user, Organization: groups})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(file, template)
}

// CallerCertificates makes an authority of callers in a folder, and certificates of callers by it: ca.crt, and for each
// name its .crt and .key.
func CallerCertificates(dir string, names ...string) error {
	ca, err := newAuthority(dir, "callers")
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := ca.client(name, name); err != nil {
			return err
		}
	}
	return nil
}

func (a *authority) issue(file string, template *x509.Certificate) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	return a.write(file, der, key)
}

func (a *authority) write(file string, der []byte, key *ecdsa.PrivateKey) (*keyPair, error) {
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	pair := &keyPair{
		certificate:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:             pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		certificateFile: filepath.Join(a.dir, file+".crt"),
		keyFile:         filepath.Join(a.dir, file+".key"),
	}
	err = errors.Join(
		os.MkdirAll(a.dir, 0o700),
		os.WriteFile(pair.certificateFile, pair.certificate, 0o644),
		os.WriteFile(pair.keyFile, pair.key, 0o600))
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	return pair, nil
}

func certificateTemplate(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand never fails on Linux
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}
