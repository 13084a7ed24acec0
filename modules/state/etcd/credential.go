package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// tls is how the servers are reached; nil on plain HTTP. The client's certificate is read again for each connection.
func (c Config) tls() (*tls.Config, error) {
	secure := false
	for _, endpoint := range c.Endpoints {
		secure = secure || strings.HasPrefix(endpoint, "https://")
	}
	switch {
	case !secure && (c.CA != "" || c.Certificate != ""):
		return nil, errors.New("certificates are given and no endpoint is https://")
	case (c.Certificate == "") != (c.Key == ""):
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	case !secure:
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority: %s holds no certificate", c.CA)
		}
	}
	if c.Certificate != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
			if err != nil {
				return nil, fmt.Errorf("client certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

func (c Config) password() (string, error) {
	if (c.Username == "") != (c.PasswordFile == "") {
		return "", errors.New("a user name needs its password's file, and the file its user name")
	}
	if c.Username == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("password: %s is empty", c.PasswordFile)
	}
	return password, nil
}
