package app

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// APIState is the listener of a peer's orchestrator API as the admin interface tells it.
type APIState struct {
	Orchestrator neutral.Orchestrator `json:"orchestrator"` // whose clients it serves
	Listen       string               `json:"listen"`
	Names        []string             `json:"names"` // by which clients reach it
	// Authority is what clients must trust, PEM; empty where the certificate is from elsewhere.
	Authority string `json:"authority,omitempty"`
	Open      bool   `json:"open"` // callers without a credential may come
}

// api tells of the listener of a peer's API.
func (g *gateway) api(peer string) (APIState, error) {
	set := g.set.Load()
	p, ok := set.Peer(peer)
	if !ok {
		return APIState{}, fault.New(fault.NotFound, "no peer is named %q; isthmus peers shows them", peer)
	}
	if !p.Spec.API.Listen.IsValid() {
		return APIState{}, fault.New(fault.NotFound, "the document of peer %s has no spec.api.listen", peer)
	}
	state := APIState{
		Orchestrator: g.dialect.Orchestrator(), Listen: p.Spec.API.Listen.String(), Names: apiHosts(p, set.Gateway.Spec.Suffix),
		Open: set.Gateway.Spec.Callers.Open(manifest.CallersOfAPI),
	}
	if p.Spec.API.TLS.CertFile == "" {
		authority := g.authority.Load()
		if authority == nil {
			return APIState{}, fault.New(fault.Unavailable, "the gateway has no certificate authority at the moment; isthmus trust show says why")
		}
		state.Authority = string(authority.Export().CertificatesPEM)
	}
	return state, nil
}

// kubeconfigOptions are the flags of isthmus kubeconfig.
type kubeconfigOptions struct {
	server, authority, tokenFile, certificate, key string
}

func kubeconfigCommand() *cobra.Command {
	o := kubeconfigOptions{}
	c := &cobra.Command{
		Use:   "kubeconfig PEER",
		Short: "Print a kubeconfig by which kubectl and other clients use a peer's API through this gateway",
		Long: "Prints a kubeconfig for the listener of the peer's API (spec.api.listen of its document): its address, and the\n" +
			"authority of its certificate. Who the client is, it says with a token or a client certificate of this cluster;\n" +
			"files are named in the kubeconfig, not copied into it.",
		Example: "  isthmus kubeconfig east --token-file /var/run/secrets/kubernetes.io/serviceaccount/token > east.kubeconfig\n" +
			"  isthmus kubeconfig east > east.kubeconfig\n" +
			"  kubectl --kubeconfig east.kubeconfig --token \"$(kubectl create token ci)\" get pods",
		Args: cobra.ExactArgs(1),
	}
	admin := adminFlag(c)
	c.Flags().StringVar(&o.server, "server", "", "https://host:port by which clients reach the listener (default: where it listens)")
	c.Flags().StringVar(&o.authority, "certificate-authority", "", "PEM file of the authority of a certificate from spec.api.tls (default: the system's)")
	c.Flags().StringVar(&o.tokenFile, "token-file", "", "file with the client's bearer token")
	c.Flags().StringVar(&o.certificate, "client-certificate", "", "PEM file with the client's certificate")
	c.Flags().StringVar(&o.key, "client-key", "", "PEM file with its key")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if (o.certificate == "") != (o.key == "") {
			return errors.New("--client-certificate and --client-key go together")
		}
		var api APIState
		if err := ask(cmd.Context(), *admin, http.MethodGet, "/peers/"+url.PathEscape(args[0])+"/api", nil, &api); err != nil {
			return err
		}
		text, err := o.kubeconfig(args[0], api)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return c
}

// kubeconfig is the client's file.
// See https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
func (o kubeconfigOptions) kubeconfig(peer string, api APIState) ([]byte, error) {
	if api.Orchestrator != neutral.Kubernetes {
		return nil, fmt.Errorf("this cluster's clients are docker's: DOCKER_HOST=tcp://%s DOCKER_TLS_VERIFY=1, with ca.pem from "+
			"isthmus trust export and the client's cert.pem and key.pem in DOCKER_CERT_PATH", clientAddress(api))
	}
	server := o.server
	if server == "" {
		server = "https://" + clientAddress(api)
	}
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--server %q is not https://host:port", server)
	}
	cluster := map[string]any{"server": server}
	switch {
	case o.authority != "":
		path, err := filepath.Abs(o.authority)
		if err != nil {
			return nil, err
		}
		cluster["certificate-authority"] = path
	case api.Authority != "":
		cluster["certificate-authority-data"] = base64.StdEncoding.EncodeToString([]byte(api.Authority))
	}
	user := map[string]any{}
	for key, path := range map[string]string{"tokenFile": o.tokenFile, "client-certificate": o.certificate, "client-key": o.key} {
		if path == "" {
			continue
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		user[key] = absolute
	}
	if len(user) == 0 && api.Open {
		// Without anything kubectl asks for a name and a password. The gateway looks at tokens and certificates alone.
		user["username"], user["password"] = "anonymous", "anonymous"
	}
	var b bytes.Buffer
	stream := yaml.NewEncoder(&b)
	stream.SetIndent(2)
	err := stream.Encode(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": peer,
		"clusters": []any{map[string]any{"name": peer, "cluster": cluster}},
		"users":    []any{map[string]any{"name": "caller", "user": user}},
		"contexts": []any{map[string]any{"name": peer, "context": map[string]any{"cluster": peer, "user": "caller"}}},
	})
	if err != nil {
		return nil, fmt.Errorf("write the kubeconfig: %w", err)
	}
	return b.Bytes(), stream.Close()
}

// clientAddress is where a client finds the listener: on all addresses, by a name of its document or on this machine.
func clientAddress(api APIState) string {
	listen, err := netip.ParseAddrPort(api.Listen)
	if err != nil || !listen.Addr().IsUnspecified() {
		return api.Listen
	}
	host := "127.0.0.1"
	for _, name := range api.Names {
		if ip, err := netip.ParseAddr(name); (err != nil && name != "localhost" && !strings.HasPrefix(name, names.APILabel+".")) ||
			(err == nil && !ip.IsLoopback()) {
			host = name
			break
		}
	}
	return net.JoinHostPort(host, portText(listen.Port()))
}
