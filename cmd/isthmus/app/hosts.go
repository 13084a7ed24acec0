package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/front"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/proxy"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// hostLimit is how many containers one list of hosts holds at most.
const hostLimit = 20 * proxy.HostPage

func hostsCommand() *cobra.Command {
	var namespace, output string
	c := &cobra.Command{
		Use:   "hosts [PEER]",
		Short: "Show which host runs each container, and in which network mode",
		Long: "Asks a peer, or the gateway's own cluster where no peer is named, for its containers: namespace, name, host,\n" +
			"network mode, and whether they run. A peer tells what its policy lets this cluster list or access, and gives hosts\n" +
			"whose names hold addresses other names; --node of isthmus access takes those as well.",
		Example: "  isthmus hosts east\n  isthmus hosts east --namespace shop -o json",
		Args:    cobra.MaximumNArgs(1),
	}
	admin := adminFlag(c)
	c.Flags().StringVar(&namespace, "namespace", "", "the only namespace that is listed (default: all)")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		query := url.Values{"namespace": {namespace}, "peer": {strings.Join(args, "")}}
		var list proxy.HostList
		if err := ask(cmd.Context(), *admin, http.MethodGet, "/hosts?"+query.Encode(), nil, &list); err != nil {
			return err
		}
		if list.Next != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s has more containers than these %d; --namespace lists those of one namespace\n",
				printable(list.Cluster), len(list.Containers))
		}
		if output == "json" {
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetEscapeHTML(false)
			encoder.SetIndent("", "  ")
			return encoder.Encode(list)
		}
		return printHosts(cmd.OutOrStdout(), list)
	}
	return c
}

func printHosts(w io.Writer, list proxy.HostList) error {
	pods := false
	for _, p := range list.Containers {
		pods = pods || p.Pod != ""
	}
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(namespace, pod string, rest ...string) {
		cells := []string{namespace}
		if pods {
			cells = append(cells, pod)
		}
		fmt.Fprintln(table, strings.Join(append(cells, rest...), "\t"))
	}
	row("NAMESPACE", "POD", "CONTAINER", "HOST", "NETWORK MODE", "STATE")
	for _, p := range list.Containers {
		state := "running"
		if !p.Running {
			state = "not running"
		}
		row(printable(p.Namespace), printable(p.Pod), printable(p.Container), dash(printable(p.Host)), printable(p.NetworkMode), state)
	}
	return table.Flush()
}

func (a *admin) hosts(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	peer := query.Get("peer")
	if peer == "" || peer == a.gateway.self.Cluster {
		a.outcome(w)(a.gateway.ownHosts(r.Context(), query.Get("namespace")))
		return
	}
	a.outcome(w)(a.gateway.peerHosts(r.Context(), peer, query.Get("namespace")))
}

// ownHosts are all containers of this cluster: who asks its own gateway may know them.
func (g *gateway) ownHosts(ctx context.Context, namespace string) (proxy.HostList, error) {
	lister, ok := g.target.(dialect.TargetLister)
	if !ok {
		return proxy.HostList{}, fault.New(fault.Unsupported, "a gateway of %s does not list its containers", g.dialect.Orchestrator())
	}
	targets, err := lister.Targets(ctx, namespace)
	if err != nil {
		return proxy.HostList{}, err
	}
	list := proxy.HostList{Cluster: g.self.Cluster, Containers: proxy.Placements(targets, func(*neutral.Target) bool { return true })}
	if len(list.Containers) > hostLimit {
		list.Containers = list.Containers[:hostLimit]
		list.Next = list.Containers[hostLimit-1].Key()
	}
	return list, nil
}

// peerHosts are the containers of a peer that its policy lets this cluster list or access.
func (g *gateway) peerHosts(ctx context.Context, peer, namespace string) (proxy.HostList, error) {
	list := proxy.HostList{Cluster: peer, Containers: []proxy.Placement{}}
	for {
		query := url.Values{}
		if namespace != "" {
			query.Set(proxy.QueryNamespace, namespace)
		}
		if list.Next != "" {
			query.Set(proxy.QueryAfter, list.Next)
		}
		body, err := g.askAccess(ctx, peer, names.AccessZone(peer, g.started.Gateway.Spec.Suffix), dialect.Request{
			Method: http.MethodGet, Path: (&url.URL{Path: "/", RawQuery: query.Encode()}).String(),
		})
		if err != nil {
			return list, err
		}
		var page proxy.HostList
		if err := json.Unmarshal(body, &page); err != nil || page.Next != "" && page.Next <= list.Next {
			return list, fault.New(fault.Unavailable, "peer %s gave a list of hosts that cannot be read", peer)
		}
		list.Containers, list.Next = append(list.Containers, page.Containers...), page.Next
		if list.Next == "" || len(list.Containers) >= hostLimit {
			return list, nil
		}
	}
}

// askAccess asks a peer by a name of its containers, as a caller that shows no credential, and gives the answer's body.
func (g *gateway) askAccess(ctx context.Context, peer, authority string, req dialect.Request) ([]byte, error) {
	if !g.knows(peer) {
		return nil, fault.New(fault.NotFound, "no peer is named %q; isthmus peers shows them", peer)
	}
	if !g.set.Load().Gateway.Spec.Callers.Open(manifest.CallersOfAccesses) {
		return nil, fault.New(fault.Denied, "what is asked here shows %s no credential, and spec.callers.unauthenticated of the Gateway document has "+
			"no accesses", peer)
	}
	if _, err := g.reachable(ctx, peer); err != nil {
		return nil, err
	}
	transport := front.Transport(g.socket(names.EdgeSocket))
	defer transport.CloseIdleConnections()
	answer, err := exchangeHTTP(ctx, transport, authority, req)
	if err != nil {
		return nil, err
	}
	if answer.Status/100 == 2 {
		return answer.Body, nil
	}
	var refusal struct{ Message string }
	if json.Unmarshal(answer.Body, &refusal) != nil || refusal.Message == "" {
		refusal.Message = fmt.Sprintf("the answer of %s has status %d", peer, answer.Status)
	}
	return nil, fault.New(fault.FromStatus(answer.Status), "%s", printable(refusal.Message))
}
