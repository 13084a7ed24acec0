// Package endpoint says what an endpoint of etcd looks like, without a client of etcd.
package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Check tells what is wrong with an endpoint. Secrets cross no network in the clear.
func Check(text string) error {
	u, err := url.Parse(text)
	if err == nil && u.User != nil {
		return errors.New("an endpoint holds no user name and no password")
	}
	if err != nil || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is no endpoint: write https://host:port", text)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if ip, err := netip.ParseAddr(u.Hostname()); (err == nil && ip.IsLoopback()) || u.Hostname() == "localhost" {
			return nil
		}
		return fmt.Errorf("%q would carry secrets in the clear: https:// is needed but on loopback", text)
	}
	return fmt.Errorf("%q is no endpoint: write https://host:port", text)
}
