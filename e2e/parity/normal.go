package parity

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Normaliser takes out of an answer what differs from run to run.
type Normaliser struct {
	names []replacement
}

// replacement is what stands in the place of what.
type replacement struct {
	from *regexp.Regexp
	to   string
}

// NewNormaliser makes one that also replaces names of the arm, given in pairs: a name, and what stands for it.
func NewNormaliser(pairs ...string) Normaliser {
	var n Normaliser
	for i := 0; i+1 < len(pairs); i += 2 {
		n.names = append(n.names, replacement{regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(pairs[i]) + `\b`), "${1}" + pairs[i+1]})
	}
	return n
}

const (
	// safe are the characters of which Kubernetes makes suffixes.
	safe = "[bcdfghjklmnpqrstvwxz2456789]"
	age  = `(?:\d+(?:\.\d+)?(?:d|h|m|s|ms|µs))`
)

// patterns are replaced in their order.
var patterns = []replacement{
	{regexp.MustCompile(`sha256:[0-9a-f]{12,64}`), "<digest>"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<uid>"},
	{regexp.MustCompile(`\b[0-9a-z]{25}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`^[0-9a-z]{12}(  | \*|$)`), "<id>$1"}, // of Swarm, as tables shorten it
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| ?[+-]\d\d:?\d\d)?(?: UTC)?`), "<time>"},
	{regexp.MustCompile(`(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`), "<time>"},
	{regexp.MustCompile(`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?:/\d+)?\b`), "<address>"},
	{regexp.MustCompile(`\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "<address>"},
	{regexp.MustCompile(`(?i)\b(?:about )?(?:less than )?(?:\d+|an?) (?:second|minute|hour)s?\b(?: ago)?`), "<age>"},
	{regexp.MustCompile(`-` + safe + `{8,10}-[a-z0-9]{5}\b`), "-<hash>-<suffix>"},
	{regexp.MustCompile(`-` + safe + `{8,10}\b`), "-<hash>"},
	{regexp.MustCompile(`(pod/[a-z0-9-]+|^[a-z0-9-]+)-` + safe + `{5}\b`), "$1-<suffix>"},
	{regexp.MustCompile(`\b` + age + age + `?\b`), "<age>"},
	{regexp.MustCompile(`(?i)(resource-?version"?(?:[:=]| =) ?)"?\d+"?`), "$1<version>"},
	{regexp.MustCompile(`(pod-template-hash(?:=| = "))[a-z0-9]+`), "${1}<hash>"},
	{regexp.MustCompile(`(kube-api-access-|Created pod: [a-z0-9-]+-)[a-z0-9]{5}\b`), "${1}<suffix>"},
	{regexp.MustCompile(`(\.Version\.Index = )\d+`), "$1<version>"},
	{regexp.MustCompile(`(\.Pid = )[1-9]\d*`), "$1<pid>"},
	{regexp.MustCompile(` {2,}`), "  "},
	{regexp.MustCompile(`\t+`), "  "},
}

// Lines are the normal form of an answer: its exit code, what it printed, and after `2> ` what it printed as an error.
// A document of JSON or YAML that describes objects has a line for each leaf.
func (n Normaliser) Lines(a Answer) []string {
	lines := []string{fmt.Sprintf("exit %d", a.Code)}
	if leaves := documents(a.Stdout); leaves != nil {
		lines = append(lines, n.texts("", strings.Join(leaves, "\n"))...)
		slices.Sort(lines[1:])
	} else {
		lines = append(lines, n.texts("", a.Stdout)...)
	}
	return append(lines, n.texts("2> ", a.Stderr)...)
}

func (n Normaliser) texts(prefix, text string) []string {
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		line = strings.TrimRight(line, "\n")
		for _, r := range slices.Concat(n.names, patterns) {
			line = r.from.ReplaceAllString(line, r.to)
		}
		if line = strings.TrimRight(line, " "); line != "" {
			lines = append(lines, prefix+line)
		}
	}
	return lines
}

// documents gives the leaves of a text that is one document, or nil.
func documents(text string) []string {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "apiVersion:") {
		return nil
	}
	var document any
	if json.Unmarshal([]byte(text), &document) != nil && yaml.Unmarshal([]byte(text), &document) != nil {
		return nil
	}
	if _, scalar := document.(string); scalar {
		return nil
	}
	return leaves(nil, "", document)
}

// leaves says what is where in a document.
func leaves(all []string, path string, value any) []string {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return append(all, path+" = {}")
		}
		for key, item := range v {
			all = leaves(all, path+"."+key, item)
		}
		return all
	case []any:
		if len(v) == 0 {
			return append(all, path+" = []")
		}
		for i, item := range v {
			all = leaves(all, path+"["+strconv.Itoa(i)+"]", item)
		}
		return all
	default:
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte(err.Error())
		}
		return append(all, path+" = "+string(text))
	}
}
