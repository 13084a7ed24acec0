package snapshot

import (
	"errors"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Consistent tells what refers to something that is not there, or is there and nothing refers to it.
func (s *Snapshot) Consistent() error {
	refs := references{}
	for _, typeURL := range Types {
		for _, r := range s.Resources(typeURL) {
			if err := refs.gather(r.Body); err != nil {
				return fmt.Errorf("%s %q: %w", typeURL, r.Name, err)
			}
		}
	}
	var errs []error
	for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.RouteType, resourcev3.SecretType,
		resourcev3.ExtensionConfigType} {
		has := map[string]bool{}
		for _, r := range s.Resources(typeURL) {
			has[r.Name] = true
			if _, ok := refs[typeURL][r.Name]; !ok {
				errs = append(errs, fmt.Errorf("nothing refers to %s %q", typeURL, r.Name))
			}
		}
		for name := range refs[typeURL] {
			if !has[name] {
				errs = append(errs, fmt.Errorf("there is no %s %q", typeURL, name))
			}
		}
	}
	return errors.Join(errs...)
}

// references are names that are referred to, by type.
type references map[string]map[string]struct{}

func (r references) add(typeURL, name string) {
	if r[typeURL] == nil {
		r[typeURL] = map[string]struct{}{}
	}
	r[typeURL][name] = struct{}{}
}

// gather finds the references in a message by the fields that make them, wherever these are.
func (r references) gather(a *anypb.Any) error {
	if a.GetTypeUrl() == "" { // switches a filter on, and says no more
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return err
	}
	if c, ok := m.(*clusterv3.Cluster); ok && c.GetType() == clusterv3.Cluster_EDS {
		r.add(resourcev3.EndpointType, c.GetName())
	}
	if l, ok := m.(*listenerv3.Listener); ok {
		// rc://<who>@<cluster>:<number>
		if _, at, ok := strings.Cut(l.GetAddress().GetSocketAddress().GetAddress(), "@"); ok {
			r.add(resourcev3.ClusterType, at[:strings.LastIndexByte(at, ':')])
		}
	}
	return r.walk(m.ProtoReflect())
}

// referring are the fields that name another resource, by message.
var referring = map[protoreflect.FullName]struct {
	field   protoreflect.Name
	typeURL string
}{
	"envoy.config.route.v3.RouteAction":                               {"cluster", resourcev3.ClusterType},
	"envoy.config.core.v3.GrpcService.EnvoyGrpc":                      {"cluster_name", resourcev3.ClusterType},
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":          {"cluster", resourcev3.ClusterType},
	"envoy.extensions.filters.network.http_connection_manager.v3.Rds": {"route_config_name", resourcev3.RouteType},
	"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig":       {"name", resourcev3.SecretType},
}

func (r references) walk(m protoreflect.Message) error {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return r.gather(a)
	}
	if f, ok := m.Interface().(*hcmv3.HttpFilter); ok && f.GetConfigDiscovery() != nil {
		r.add(resourcev3.ExtensionConfigType, f.GetName())
	}
	if ref, ok := referring[m.Descriptor().FullName()]; ok {
		field := m.Descriptor().Fields().ByName(ref.field)
		if name := m.Get(field).String(); name != "" {
			r.add(ref.typeURL, name)
		}
	}
	var err error
	visit := func(v protoreflect.Value) {
		err = errors.Join(err, r.walk(v.Message()))
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { visit(v); return true })
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				visit(v.List().Get(i))
			}
		default:
			visit(v)
		}
		return true
	})
	return err
}
