package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/manifest/suggestion"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// explainBody bounds a request's body that is read to explain it, in bytes.
const explainBody = 8 << 20

// explainPatience is how long a client may take for the requests that it is run for.
const explainPatience = 30 * time.Second

// explainOptions are the flags of isthmus explain.
type explainOptions struct {
	config                   *[]string
	peer, peerType, caller   string
	method, path, host, body string
	headers, groups          []string
	labels                   map[string]string
	exists, rights           bool
	output                   string
	clientPatience           time.Duration
	stdin                    io.Reader
	environment              []string
	commandLine              []string
}

func explainCommand() *cobra.Command {
	o := &explainOptions{clientPatience: explainPatience}
	c := &cobra.Command{
		Use:   "explain [flags] -- docker|kubectl|curl ARGUMENTS",
		Short: "Say what would become of one request, and why, without doing it",
		Long: "Says of one request of a peer's caller: its class, who asks, what every policy says to it rule by rule, how it\n" +
			"would be carried out, and what its translation loses. It asks the documents of the TARGET's gateway (--config),\n" +
			"works offline, and does nothing.\n\n" +
			"To learn the request, it runs the client that is named, the real one, with its server replaced by one that\n" +
			"isthmus opens for it on a temporary Unix socket (docker, curl) or on loopback (kubectl): DOCKER_HOST, a kubeconfig\n" +
			"file, or --unix-socket is set for it, and the client's own configuration is not read. That server answers what\n" +
			"clients ask first (ping, discovery, the inspection of what they act on), explains each further request, and\n" +
			"stops the client at the first that it would have to do. Without a client, give --method, --path and --body.\n\n" +
			"With --rights the target's API server is asked whether it would let the peer make the native calls; nothing is\n" +
			"done there either.\n\n" +
			"Other live state is not asked. Where a decision depends on an object that exists (its labels, its spec), explain says\n" +
			"so; --exists and --labels suppose what the object is.",
		Example: "  isthmus explain --config east.yaml --peer west -- docker run -d --privileged nginx\n" +
			"  isthmus explain --config east.yaml --peer west --labels team=a -- docker stop web\n" +
			"  isthmus explain --config east.yaml --peer west -- curl http://shop.default.svc.east.isthmus.internal/\n" +
			"  isthmus explain --config east.yaml --method POST --path /v1.49/containers/create --body create.json",
	}
	o.config = configFlag(c)
	f := c.Flags()
	f.StringVar(&o.peer, "peer", "", "the peer that asks, by its name in the documents (default: the only one)")
	f.StringVar(&o.peerType, "peer-type", "", "docker or kubernetes: the peer's orchestrator (default: the client's)")
	f.StringVar(&o.caller, "caller", "", "who the peer says the caller is")
	f.StringArrayVar(&o.groups, "group", nil, "a group that the peer says the caller is in; may be given several times")
	f.BoolVar(&o.exists, "exists", false, "suppose that the object exists under the name that is given, without labels")
	f.StringToStringVar(&o.labels, "labels", nil, "suppose that the object exists and has these labels: KEY=VALUE,...")
	f.BoolVar(&o.rights, "rights", false, "ask the target's orchestrator whether its own rights let the peer do it (Kubernetes: RBAC)")
	f.StringVar(&o.method, "method", "", "the request's method, in place of a client")
	f.StringVar(&o.path, "path", "", "the request's path with its query, in place of a client")
	f.StringVar(&o.host, "host", "", "the request's host (default: the target's orchestrator API)")
	f.StringVar(&o.body, "body", "", "a file with the request's body, or - for standard input")
	f.StringArrayVar(&o.headers, "header", nil, "a header of the request, 'Name: value'; may be given several times")
	f.StringVar(&o.output, "output", "text", "text or json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(o.output); err != nil {
			return err
		}
		o.stdin, o.environment, o.commandLine = cmd.InOrStdin(), os.Environ(), args
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*explainPatience)
		defer cancel()
		explanation, err := o.explain(ctx)
		if err != nil {
			return err
		}
		return explanation.print(cmd.OutOrStdout(), o.output)
	}
	return c
}

// explain learns the requests and explains them.
func (o *explainOptions) explain(ctx context.Context) (*Explanation, error) {
	manual := o.method != "" || o.path != ""
	switch {
	case manual && len(o.commandLine) > 0:
		return nil, errors.New("give either a client's command line or --method and --path")
	case manual && (o.method == "" || !strings.HasPrefix(o.path, "/")):
		return nil, errors.New("--method and --path belong together, and a path begins with /")
	case !manual && len(o.commandLine) == 0:
		return nil, errors.New("what is to be explained? Give a client's command line after --, such as -- docker ps, or --method and --path")
	case !manual && (o.body != "" || o.host != "" || len(o.headers) > 0):
		return nil, errors.New("--body, --host and --header are of a request by --method and --path; a client makes its own")
	}
	set, err := loadDocuments(ctx, *o.config) // peers that joined ask as well
	if err != nil {
		return nil, err
	}
	peer, err := o.peerOf(set)
	if err != nil {
		return nil, err
	}
	x, err := newExplainer(ctx, set, peer, o)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if !manual {
		return x.run(ctx, o)
	}
	captured, err := o.captured()
	if err != nil {
		return nil, err
	}
	x.setType(typeOfPath(captured.Path))
	return &Explanation{Requests: []Explained{x.explain(ctx, captured)}}, nil
}

// peerOf is the peer that asks.
func (o *explainOptions) peerOf(set *manifest.Set) (manifest.Peer, error) {
	var names []string
	for _, p := range set.Peers {
		names = append(names, p.Metadata.Name)
	}
	if o.peer == "" {
		if len(set.Peers) == 1 {
			return set.Peers[0], nil
		}
		return manifest.Peer{}, fmt.Errorf("--peer is required: which of the peers asks (%s)", dash(strings.Join(names, ", ")))
	}
	peer, ok := set.Peer(o.peer)
	if !ok {
		return peer, fmt.Errorf("the documents of %s have no Peer %q%s", set.Gateway.Metadata.Name, o.peer, suggestion.DidYouMean(o.peer, names))
	}
	return peer, nil
}

// captured is the request that the flags make.
func (o *explainOptions) captured() (captured, error) {
	c := captured{Method: strings.ToUpper(o.method), Path: o.path, Host: o.host, Header: http.Header{}, API: o.host == ""}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return c, fmt.Errorf("--header %q does not read 'Name: value'", h)
		}
		c.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if o.body == "" {
		return c, nil
	}
	source := o.stdin
	if o.body != "-" {
		file, err := os.Open(o.body)
		if err != nil {
			return c, fmt.Errorf("--body: %w", err)
		}
		defer file.Close()
		source = file
	}
	body, err := io.ReadAll(io.LimitReader(source, explainBody+1))
	if err != nil {
		return c, fmt.Errorf("--body: %w", err)
	}
	if len(body) > explainBody {
		return c, fmt.Errorf("--body is larger than %d MiB", explainBody>>20)
	}
	c.Body = body
	if c.Header.Get("Content-Type") == "" {
		c.Header.Set("Content-Type", "application/json")
	}
	return c, nil
}

// typeOfPath tells whose API a path is of.
func typeOfPath(path string) neutral.Orchestrator {
	for _, root := range []string{"/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz"} {
		if rest, ok := strings.CutPrefix(path, root); ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
			return neutral.Kubernetes
		}
	}
	return neutral.Docker
}

// Explanation is what isthmus explain says.
type Explanation struct {
	Client      string                 `json:"client,omitempty"` // what was run, without its arguments' values
	Preliminary []ExplainedPreliminary `json:"preliminary,omitempty"`
	Requests    []Explained            `json:"requests"`
	Notes       []string               `json:"notes,omitempty"`
}

// ExplainedPreliminary is a request that clients send before the one that they are for.
type ExplainedPreliminary struct {
	Request  string `json:"request"`
	Decision string `json:"decision"`
	Reason   string `json:"reason,omitempty"`
}

// Explained is one request, explained.
type Explained struct {
	Request   string              `json:"request"`
	Class     modules.Class       `json:"class"`
	Authority string              `json:"authority"`
	Target    string              `json:"target"`
	Peer      string              `json:"peer"`
	PeerType  string              `json:"peerType,omitempty"`
	Caller    string              `json:"caller"`
	Groups    []string            `json:"groups,omitempty"`
	Action    string              `json:"action,omitempty"`
	Verb      string              `json:"verb,omitempty"`
	Object    string              `json:"object,omitempty"`
	Decision  string              `json:"decision"` // allow, deny, refuse or depends
	Rule      string              `json:"rule,omitempty"`
	Reason    string              `json:"reason,omitempty"`
	Questions []ExplainedQuestion `json:"questions"`
	Plan      string              `json:"plan,omitempty"`
	Upstream  string              `json:"upstream,omitempty"`
	Call      string              `json:"call,omitempty"`
	Losses    []string            `json:"losses"`
	Rights    *ExplainedRights    `json:"rights,omitempty"`
	Notes     []string            `json:"notes,omitempty"`

	operation neutral.Operation
	native    *dialect.Request // the one native call that it becomes
	refusal   *modules.Answer  // what the caller reads when an operation is denied or refused
}

// ExplainedRights are what the target's orchestrator says to the native calls of a request.
type ExplainedRights struct {
	As      string           `json:"as"`      // whom the orchestrator takes the peer for
	Allowed []ExplainedRight `json:"allowed"` // what it may
	Missing []ExplainedRight `json:"missing"` // what it may not
	Error   string           `json:"error,omitempty"`
}

// ExplainedRight is one right that a request takes.
type ExplainedRight struct {
	Right string `json:"right"`
	When  string `json:"when,omitempty"` // it is needed; always, where nothing is written
}

func (r *ExplainedRights) print(line func(name, text string)) {
	if r == nil {
		return
	}
	switch {
	case r.Error != "":
		line("rights", r.Error)
	case len(r.Missing) == 0 && len(r.Allowed) == 0:
		line("rights", "none are needed: the orchestrator is not asked")
	case len(r.Missing) == 0:
		line("rights", r.As+" has all that this takes")
	default:
		line("rights", r.As+" lacks what this takes")
	}
	for _, m := range r.Missing {
		text := m.Right
		if m.When != "" {
			text += " (" + m.When + ")"
		}
		line("missing", text)
	}
}

// ExplainedQuestion is one question that the gateway asks its policies.
type ExplainedQuestion struct {
	Question string            `json:"question"`
	Object   string            `json:"object"` // known, or unknown: before it is looked up
	Outcome  string            `json:"outcome"`
	Rule     string            `json:"rule,omitempty"` // the one that allows
	Reason   string            `json:"reason"`
	Policies []ExplainedPolicy `json:"policies"`
}

// ExplainedPolicy is what one policy says to a question.
type ExplainedPolicy struct {
	Policy string          `json:"policy"`
	Rules  []ExplainedRule `json:"rules"`
}

// ExplainedRule is what one rule says to a question.
type ExplainedRule struct {
	Rule    string `json:"rule"`
	Outcome string `json:"outcome"`
	Why     string `json:"why"`
}

func (e *Explanation) print(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(e)
	}
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, text)
		}
	}
	line("client", e.Client)
	for _, p := range e.Preliminary {
		line("preliminary", joined(p.Request+": "+p.Decision, p.Reason))
	}
	for i, r := range e.Requests {
		if i > 0 || e.Client != "" {
			fmt.Fprintln(w)
		}
		line("request", r.Request)
		line("class", string(r.Class)+" ("+r.Authority+")")
		line("target", r.Target)
		line("peer", joinedType(r.Peer, r.PeerType))
		line("caller", dash(r.Caller))
		line("groups", strings.Join(r.Groups, ", "))
		line("operation", strings.TrimSpace(r.Action+" "+r.Verb+" "+r.Object))
		line("decision", joined(r.Decision, r.Reason))
		for _, q := range r.Questions {
			line("question", fmt.Sprintf("%s (object %s): %s", q.Question, q.Object, joined(q.Outcome, q.Reason)))
			printPolicies(w, "  ", q.Policies)
		}
		line("plan", r.Plan)
		line("upstream", r.Upstream)
		line("call", r.Call)
		for _, l := range r.Losses {
			line("loss", l)
		}
		r.Rights.print(line)
		for _, n := range r.Notes {
			line("note", n)
		}
	}
	for _, n := range e.Notes {
		line("note", n)
	}
	return nil
}

func printPolicies(w io.Writer, indent string, policies []ExplainedPolicy) {
	for _, p := range policies {
		fmt.Fprintf(w, "%spolicy %s\n", indent, p.Policy)
		for _, r := range p.Rules {
			fmt.Fprintf(w, "%s  rule %s %s: %s\n", indent, r.Rule, r.Outcome, r.Why)
		}
	}
}

func joined(word, reason string) string {
	if reason == "" {
		return word
	}
	return word + ": " + reason
}

func joinedType(peer, of string) string {
	if of == "" {
		return peer
	}
	return peer + " (" + of + ")"
}
