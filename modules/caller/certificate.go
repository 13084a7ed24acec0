package caller

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
)

// Authorities sign the certificates of callers.
type Authorities struct {
	PEM  []byte
	Pool *x509.CertPool
}

func parseAuthorities(data []byte) (Authorities, error) {
	a := Authorities{Pool: x509.NewCertPool()}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Authorities{}, err
		}
		a.Pool.AddCert(certificate)
		a.PEM = append(a.PEM, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(a.PEM) == 0 {
		return Authorities{}, errors.New("holds no certificate in PEM")
	}
	return a, nil
}

// verify holds a chain against the authorities as they are now: a connection can be older than they are.
func (a Authorities) verify(chain []*x509.Certificate) error {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.Pool, Intermediates: intermediates, CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// nameOf is whom a certificate names: its SPIFFE ID where it has one, else its common name, else its one DNS name.
func nameOf(c *x509.Certificate) (string, error) {
	name := ""
	for _, u := range c.URIs {
		if u.Scheme != "spiffe" {
			continue
		}
		if name != "" {
			return "", errors.New("it has more than one SPIFFE ID")
		}
		name = u.String()
	}
	switch {
	case name != "":
	case c.Subject.CommonName != "":
		name = c.Subject.CommonName
	case len(c.DNSNames) == 1:
		name = c.DNSNames[0]
	default:
		return "", errors.New("it has no SPIFFE ID, no common name and not one DNS name")
	}
	return name, checkName(name)
}

// groupsOf are the organizations of a certificate's subject, as Kubernetes reads them. One that cannot be told, as a
// company's in other letters, leaves them not whole.
func groupsOf(c *x509.Certificate) modules.Groups {
	groups, _ := modules.JoinGroups(slices.DeleteFunc(slices.Clone(c.Subject.Organization), groupReserved))
	return groups
}
