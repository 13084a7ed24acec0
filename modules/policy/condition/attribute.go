package condition

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"github.com/isthmus-mesh/isthmus/modules/manifest/suggestion"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Attribute is one name that conditions can use.
type Attribute struct {
	Name    string
	Type    string
	Meaning string

	celType *cel.Type
	needs   Known
	value   func(*Input) any
	unknown *types.Unknown // what it is while it is not known
}

// Attributes are all names that conditions can use. Each is a variable of its own, the dotted ones too: a mistyped one
// is then an error of compilation, and only those that are used are computed.
var Attributes = []Attribute{
	text("peer", 0, "The peer that the request came from.", func(in *Input) string { return in.Peer }),
	text("caller", Caller, "Who the peer says the caller is; empty when it does not say.",
		func(in *Input) string { return in.Caller }),
	{Name: "groups", Type: "list(string)", Meaning: "The groups that the peer says the caller is in. Where it could not tell all of them, a condition " +
		"that depends on them does not hold.",
		celType: cel.ListType(cel.StringType), needs: Caller, value: groups},
	text("verb", 0, "The neutral verb.", func(in *Input) string { return string(in.Verb) }),

	text("object.kind", 0, "The neutral kind.", func(in *Input) string { return string(in.Object.Kind) }),
	text("object.resource", 0, "The native resource of a raw call, such as apps/statefulsets.",
		func(in *Input) string { return in.Object.Resource }),
	text("object.namespace", Namespace, "The namespace; a stack on Swarm.",
		func(in *Input) string { return in.Object.Namespace }),
	text("object.name", Name, "The name.", func(in *Input) string { return in.Object.Name }),
	{Name: "object.labels", Type: "map(string, string)", Meaning: "The labels.",
		celType: cel.MapType(cel.StringType, cel.StringType), needs: Labels,
		value: func(in *Input) any { return in.Object.Labels }},

	text("object.image", Container, "The image as the caller wrote it.",
		func(in *Input) string { return in.Object.Container.Image }),
	text("object.user", Container, "The user that the container runs as; empty for the image's own.",
		func(in *Input) string { return in.Object.Container.User }),
	flag("object.privileged", "The container has all rights of its host.",
		func(c *neutral.Container) bool { return c.Security.Privileged }),
	flag("object.readOnlyRoot", "The container cannot write to its root file system.",
		func(c *neutral.Container) bool { return c.Security.ReadOnlyRoot }),
	text("object.networkMode", Container, "The network mode: bridge, host, none, pod or container:<id>.",
		func(in *Input) string { return string(in.Object.Container.Network) }),
	flag("object.hostNetwork", "The container shares its host's network.",
		func(c *neutral.Container) bool { return c.Network == neutral.NetworkHost }),
	flag("object.hostPID", "The container sees its host's processes.",
		func(c *neutral.Container) bool { return c.Security.PIDMode == "host" }),
	flag("object.hostIPC", "The container shares its host's IPC.",
		func(c *neutral.Container) bool { return c.Security.IPCMode == "host" }),
	{Name: "object.hostMounts", Type: "list(string)", Meaning: "The host's paths that are mounted, cleaned of . and .., also by " +
		"way of a volume; of a volume, those that it is.", celType: cel.ListType(cel.StringType), needs: Mounts,
		value: func(in *Input) any { return hostMounts(&in.Object) }},
	words("object.capAdd", "The capabilities added, in capitals and without CAP_; ALL is one of them.", capAdd),
	profile("object.seccomp", "Which system calls are filtered: default, unconfined (also of what is privileged), custom (a "+
		"profile that the request brings), or localhost/<file>. Kubernetes filters none unless asked to, which reads unconfined.",
		func(c *neutral.Container) neutral.Profile { return c.Security.Seccomp }),
	profile("object.appArmor", "The AppArmor profile asked for: default, unconfined (also of what is privileged), or localhost/<name>.",
		func(c *neutral.Container) neutral.Profile { return c.Security.AppArmor }),
	flag("object.unmaskedPaths", "Paths in /proc and /sys that containers cannot read or write by default are open to it.",
		func(c *neutral.Container) bool { return c.Security.UnmaskedPaths || c.Security.Privileged }),
	{Name: "object.sysctls", Type: "map(string, string)", Meaning: "The kernel parameters that it sets.",
		celType: cel.MapType(cel.StringType, cel.StringType), needs: Container,
		value: func(in *Input) any { return in.Object.Container.Security.Sysctls }},
	words("object.devices", "The host's devices given to it: a path, cgroup:<rule>, or what a driver is asked for, such as "+
		"nvidia.com/gpu, driver:nvidia or claim:<name>.", func(c *neutral.Container) []string { return c.Security.Devices }),
	words("object.env", "The names of the environment variables; values are never seen by a condition.", envNames),
	number("object.memory", "The memory limit in bytes; 0 is no limit.",
		func(c *neutral.Container) int64 { return c.Resources.Memory }),
	number("object.milliCPU", "The CPU limit in thousandths of a CPU; 0 is no limit.",
		func(c *neutral.Container) int64 { return c.Resources.MilliCPU }),
	{Name: "object.hostPorts", Type: "list(int)", Meaning: "The ports that the container's host offers; 0 is one that " +
		"the orchestrator chooses.", celType: cel.ListType(cel.IntType), needs: Container, value: hostPorts},
}

func text(name string, needs Known, meaning string, value func(*Input) string) Attribute {
	return Attribute{Name: name, Type: "string", Meaning: meaning, celType: cel.StringType, needs: needs,
		value: func(in *Input) any { return value(in) }}
}

func flag(name, meaning string, value func(*neutral.Container) bool) Attribute {
	return Attribute{Name: name, Type: "bool", Meaning: meaning, celType: cel.BoolType, needs: Container,
		value: func(in *Input) any { return value(in.Object.Container) }}
}

// profile is a text that is not known while the container has none.
func profile(name, meaning string, value func(*neutral.Container) neutral.Profile) Attribute {
	return Attribute{Name: name, Type: "string", Meaning: meaning, celType: cel.StringType, needs: Container, value: func(in *Input) any {
		switch p := value(in.Object.Container); {
		case p == "":
			return nil
		case p == neutral.ProfileDefault && in.Object.Container.Security.Privileged:
			return string(neutral.ProfileUnconfined)
		default:
			return string(p)
		}
	}}
}

func number(name, meaning string, value func(*neutral.Container) int64) Attribute {
	return Attribute{Name: name, Type: "int", Meaning: meaning, celType: cel.IntType, needs: Container,
		value: func(in *Input) any { return value(in.Object.Container) }}
}

func words(name, meaning string, value func(*neutral.Container) []string) Attribute {
	return Attribute{Name: name, Type: "list(string)", Meaning: meaning, celType: cel.ListType(cel.StringType),
		needs: Container, value: func(in *Input) any { return value(in.Object.Container) }}
}

// hostMounts cleans the paths, or /var/run/../run/docker.sock would pass a comparison with the socket's own path.
func hostMounts(o *neutral.Object) []string {
	var paths []string
	if o.Volume != nil {
		for _, p := range o.Volume.HostPaths {
			paths = append(paths, path.Clean(p))
		}
	}
	if o.Container == nil {
		return paths
	}
	for _, m := range o.Container.Mounts {
		if m.Type == "bind" {
			paths = append(paths, path.Clean(m.Source))
		}
	}
	return paths
}

// capAdd gives every capability its one name; docker takes several spellings of each.
func capAdd(c *neutral.Container) []string {
	capabilities := make([]string, len(c.Security.CapAdd))
	for i, name := range c.Security.CapAdd {
		capabilities[i] = strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "CAP_")
	}
	return capabilities
}

func envNames(c *neutral.Container) []string {
	names := make([]string, len(c.Env))
	for i, entry := range c.Env {
		names[i], _, _ = strings.Cut(entry, "=")
	}
	return names
}

func hostPorts(in *Input) any {
	ports := []int64{}
	for _, p := range in.Object.Container.Ports {
		if p.Publish || p.Published != 0 {
			ports = append(ports, int64(p.Published))
		}
	}
	return ports
}

// groups that are not all say nothing: whoever is not in one may be.
func groups(in *Input) any {
	if !in.Groups.Whole() {
		return types.NewErr("the peer could not tell all groups of the caller")
	}
	return in.Groups.List()
}

var attributes = func() map[string]*Attribute {
	byName := make(map[string]*Attribute, len(Attributes))
	for i := range Attributes {
		a := &Attributes[i]
		a.unknown = types.NewUnknown(0, types.NewAttributeTrail(a.Name))
		byName[a.Name] = a
	}
	return byName
}()

// activation gives a program its variables. A variable that needs what is not known is CEL's unknown, which the
// logical operators carry through: false && unknown is false.
type activation struct{ in *Input }

// ResolveName implements cel.Activation.
func (a activation) ResolveName(name string) (any, bool) {
	attribute, ok := attributes[name]
	if !ok {
		return nil, false
	}
	if !a.in.Known.Has(attribute.needs) || (attribute.needs == Container && a.in.Object.Container == nil) {
		return attribute.unknown, true
	}
	if value := attribute.value(a.in); value != nil {
		return value, true
	}
	return attribute.unknown, true
}

// Parent implements cel.Activation.
func (activation) Parent() cel.Activation { return nil }

// unknownAttributes finds object.x where no such attribute is, for a better message than the checker's, which knows no
// object at all.
func unknownAttributes(parsed *cel.Ast) Problems {
	var problems Problems
	native := parsed.NativeRep()
	ast.PostOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind || e.AsSelect().Operand().Kind() != ast.IdentKind ||
			e.AsSelect().Operand().AsIdent() != "object" {
			return
		}
		field := e.AsSelect().FieldName()
		if _, ok := attributes["object."+field]; ok && !e.AsSelect().IsTestOnly() {
			return
		}
		at := native.SourceInfo().GetStartLocation(e.AsSelect().Operand().ID())
		p := Problem{Line: max(1, at.Line()), Column: max(1, at.Column()+1)}
		if e.AsSelect().IsTestOnly() {
			p.Message = fmt.Sprintf("has(object.%s) says nothing: every attribute is always there, empty when unset", field)
		} else {
			p.Message = fmt.Sprintf("unknown attribute object.%s%s", field, suggestion.DidYouMean(field, objectFields()))
		}
		problems = append(problems, p)
	}))
	return problems
}

func objectFields() []string {
	var fields []string
	for _, a := range Attributes {
		if field, ok := strings.CutPrefix(a.Name, "object."); ok {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}
