package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
	"github.com/isthmus-mesh/isthmus/modules/policy/glob"
)

// problem is what is wrong with a text; line counts within it and is 0 when it has but one.
type problem struct {
	line    int
	message string
}

func wrong(format string, args ...any) []problem {
	return []problem{{message: fmt.Sprintf(format, args...)}}
}

// format is what a field's text must be.
type format struct {
	doc     string // in the reference's column of types
	example string // said where the field is missing
	check   func(string) []problem
}

var formats = map[string]format{
	"label":          {"DNS label", "a DNS label, such as west", checkLabel},
	"domain":         {"DNS name", "a DNS name", checkDomain},
	"path":           {"absolute path", "an absolute path", checkPath},
	"path-or-stdout": {"absolute path, or `stdout`", "an absolute path, or stdout", checkPathOrStdout},
	"endpoint":       {"`unix:///path` or `tcp://host:port`", "unix:///path or tcp://host:port", checkEndpoint},
	"etcd":           {"`https://host:port`", "https://host:port", checkEtcd},
	"listen":         {"`ip:port`", "ip:port", checkListen},
	"dial":           {"`host:port`", "host:port", checkDial},
	"host":           {"DNS name or IP address", "a DNS name or an IP address", checkHost},
	"hostport":       {"`host:port`", "host:port", checkDial},
	"duration":       {"duration", "a duration, such as 24h", checkDuration},
	"glob":           {"pattern", `a name, or a pattern of * and ?`, checkGlob},
	"value":          {"pattern", `a value, or a pattern of * and ?`, checkValue},
	"verb":           {"verb", `neutral verbs, or "*"`, checkVerb},
	"kind":           {"kind", `a neutral kind, or "*"`, checkKind},
	"cel":            {"CEL", "a CEL expression", checkCondition},
}

var (
	labelForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	domainForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

func checkLabel(text string) []problem {
	if labelForm.MatchString(text) {
		return nil
	}
	return wrong("%q is no DNS label: at most 63 of a-z, 0-9 and -, neither first nor last a -", text)
}

func checkDomain(text string) []problem {
	if len(text) <= 253 && domainForm.MatchString(text) {
		for part := range strings.SplitSeq(text, ".") {
			if len(part) > 63 {
				return wrong("%q is no DNS name: a part has at most 63 characters", text)
			}
		}
		return nil
	}
	return wrong("%q is no DNS name: a-z, 0-9 and - in parts separated by single dots", text)
}

func checkPath(text string) []problem {
	switch {
	case strings.ContainsRune(text, 0):
		return wrong("a path has no NUL")
	case !filepath.IsAbs(text):
		return wrong("%q is no absolute path", text)
	}
	return nil
}

func checkPathOrStdout(text string) []problem {
	if text == AuditStdout {
		return nil
	}
	if p := checkPath(text); p != nil {
		return wrong("%s, nor stdout", p[0].message)
	}
	return nil
}

func checkEndpoint(text string) []problem {
	u, err := url.Parse(text)
	if err != nil {
		return wrong("%q is no endpoint: write unix:///path or tcp://host:port", text)
	}
	switch u.Scheme {
	case "unix":
		if u.Host == "" && filepath.IsAbs(u.Path) && u.RawQuery == "" && u.Fragment == "" {
			return nil
		}
		return wrong("%q is no Unix socket: write unix:///path, with three slashes", text)
	case "tcp":
		if u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return wrong("%q has more than tcp://host:port", text)
		}
		return checkDial(u.Host)
	}
	return wrong("%q is no endpoint: write unix:///path or tcp://host:port", text)
}

func checkListen(text string) []problem {
	if address, err := netip.ParseAddrPort(text); err == nil {
		if address.Addr().Zone() != "" {
			return wrong("%q has a zone, which a listener cannot have", text)
		}
		return nil
	}
	switch host, port, ok := cutPort(text); {
	case ok && host == "" && port != "":
		return wrong("%q is no ip:port; for every address write 0.0.0.0:%s", text, port)
	case ok && host != "":
		return wrong("%q is no ip:port: a listener needs an IP address, with an IPv6 one in brackets", text)
	}
	return wrong("%q is no ip:port", text)
}

func checkDial(text string) []problem {
	if scheme, _, ok := strings.Cut(text, "://"); ok {
		return wrong("%q is no host:port; leave out %s://", text, scheme)
	}
	host, port, ok := cutPort(text)
	if !ok || host == "" {
		return wrong("%q is no host:port", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return wrong("%q: the port must be from 1 to 65535", text)
	}
	if strings.HasPrefix(host, "[") {
		address, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		if err != nil || !address.Is6() || address.Zone() != "" || !strings.HasSuffix(host, "]") {
			return wrong("%q: no IPv6 address in the brackets", text)
		}
		return checkReachable(text, address)
	}
	if strings.Contains(host, ":") {
		return wrong("%q: write an IPv6 address in brackets", text)
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return checkReachable(text, address)
	}
	if strings.Trim(host, "0123456789.") == "" {
		return wrong("%q: no such IPv4 address", text)
	}
	if p := checkDomain(strings.ToLower(host)); p != nil {
		return wrong("%q: the host is neither an IP address nor a DNS name", text)
	}
	return nil
}

func checkHost(text string) []problem {
	if address, err := netip.ParseAddr(text); err == nil {
		if address.Zone() != "" {
			return wrong("%q has a zone, which no name of a listener has", text)
		}
		return checkReachable(text, address)
	}
	if p := checkDomain(text); p != nil {
		return wrong("%q is neither an IP address nor a DNS name in small letters", text)
	}
	return nil
}

func checkReachable(text string, address netip.Addr) []problem {
	if address.IsUnspecified() || address.IsMulticast() {
		return wrong("%q: nothing can be dialled at %s", text, address)
	}
	return nil
}

// cutPort splits host:port without looking into either.
func cutPort(text string) (host, port string, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 || strings.HasSuffix(text, "]") {
		return "", "", false
	}
	return text[:i], text[i+1:], true
}

func checkDuration(text string) []problem {
	if d, err := time.ParseDuration(text); err != nil || d <= 0 {
		return wrong("%q is no duration: a number with ms, s, m or h, such as 90m or 24h", text)
	}
	return nil
}

func checkGlob(text string) []problem {
	if _, err := glob.Compile(text); err != nil {
		return wrong("%v", err)
	}
	return nil
}

// checkValue takes an empty value too: a label may have one.
func checkValue(text string) []problem {
	if text == "" {
		return nil
	}
	return checkGlob(text)
}

func checkVerb(text string) []problem { return checkWord("verb", text, neutral.Verbs) }

func checkKind(text string) []problem { return checkWord("kind", text, neutral.Kinds) }

func checkWord[W ~string](what, text string, known []W) []problem {
	words := []string{"*"}
	for _, w := range known {
		words = append(words, string(w))
	}
	if has(words, text) {
		return nil
	}
	if strings.ContainsAny(text, "*?") {
		return wrong(`%q: a %s is written out, or "*" for all of them`, text, what)
	}
	if ours, ok := theirs[strings.ToLower(text)]; ok && has(words, ours) {
		return wrong("unknown %s %q; did you mean %q?", what, text, ours)
	}
	return wrong("unknown %s %q%s", what, text, orOneOf(text, words))
}

// theirs are words of the orchestrators for which policies have a neutral one.
var theirs = map[string]string{
	"delete": "destroy", "remove": "destroy", "rm": "destroy", "kill": "stop", "inspect": "get", "read": "get",
	"run": "create", "patch": "update", "write": "update", "ps": "list", "ls": "list", "log": "logs", "unpause": "resume",
	"port-forward": "access", "portforward": "access", "proxy": "access", "connect": "access",
	"pod": "container", "pods": "container", "deployment": "workload", "deployments": "workload",
	"daemonset": "workload", "job": "workload", "configmap": "config", "pvc": "volume", "stack": "namespace",
}

func checkCondition(text string) []problem {
	_, err := condition.Compile(text)
	if err == nil {
		return nil
	}
	var found condition.Problems
	if !errors.As(err, &found) {
		return wrong("%v", err)
	}
	problems := make([]problem, len(found))
	for i, p := range found {
		problems[i] = problem{line: p.Line, message: p.Error()}
	}
	return problems
}
