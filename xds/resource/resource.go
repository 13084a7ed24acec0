// Package resource builds Envoy resources from the model: small pure functions, one file per resource type. Nothing
// here knows versions, streams or time.
//
// The peer listener is where requests of other clusters arrive. What a route can decide, a route decides, and the
// request never reaches external processing; all else is refused unless external processing chose a destination:
//
//	mTLS, known peer ── early mutation: routing headers off, HeaderPeer from the certificate
//	  ├─ peering.<cluster>          ─> peering
//	  ├─ <service>... from a permitted peer ─> service/<namespace>/<name>/<port>
//	  └─ anything else ─> ext_proc ─┬─ its own answer
//	                                ├─ HeaderRoute ─> orchestrator | bridge | access
//	                                └─ no decision ─> 503
package resource

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// pack puts a message into an Any, the same bytes for the same message. Only an invalid UTF-8 string in a message can
// fail, which the model's validation excludes.
func pack(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(fmt.Sprintf("pack %T: %v", m, err))
	}
	return a
}

// address is a listener's or an endpoint's address: "host:port" or the absolute path of a Unix socket, which only this
// user may open.
func address(s string) *corev3.Address {
	if strings.HasPrefix(s, "/") {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: s, Mode: 0o600}}}
	}
	host, port := split(s)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// split takes apart what CheckAddress accepted.
func split(s string) (host string, port uint32) {
	host, p, _ := net.SplitHostPort(s)
	n, _ := strconv.ParseUint(p, 10, 16)
	return host, uint32(n)
}

// CheckAddress tells whether s is "host:port" or the absolute path of a Unix socket that fits the kernel's limit.
func CheckAddress(s string) error {
	if strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return fmt.Errorf("address %q has characters that no address has", s)
	}
	if strings.HasPrefix(s, "/") {
		if len(s) > 107 {
			return fmt.Errorf("socket path of %d bytes; the kernel takes 107: %s", len(s), s)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("address %q is not host:port", s)
	}
	return nil
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func extension(name string, m proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(m)}
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

func inlineBytes(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func u32(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

func yes() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func no() *wrapperspb.BoolValue { return wrapperspb.Bool(false) }
