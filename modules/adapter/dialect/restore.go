package dialect

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Restore puts into what a caller sends the texts and the credentials of what it read that it was told in other words or
// not at all. told is how it is told a text; nil tells all as it is.
func Restore(is, was *neutral.Container, told func(string) string) error {
	if told != nil {
		restoreTold(is, was, told)
	}
	return restoreEnv(is, was)
}

// restoreTold puts back what a caller was told in other words, and sent as it was told.
func restoreTold(is, was *neutral.Container, told func(string) string) {
	restore := func(is, was []string) []string {
		restored := slices.Clone(is)
		for i, text := range restored {
			if at := slices.IndexFunc(was, func(original string) bool { return original != text && told(original) == text }); at >= 0 {
				restored[i] = was[at]
			}
		}
		return restored
	}
	is.Env, is.DNS, is.ExtraHosts = restore(is.Env, was.Env), restore(is.DNS, was.DNS), restore(is.ExtraHosts, was.ExtraHosts)
	is.Entrypoint, is.Command = restore(is.Entrypoint, was.Entrypoint), restore(is.Command, was.Command)
	if is.Health != nil && was.Health != nil {
		health := *is.Health
		health.Test = restore(health.Test, was.Health.Test)
		is.Health = &health
	}
}

// restoreEnv puts the credentials back for which what a caller was told has stand-ins.
func restoreEnv(is, was *neutral.Container) error {
	for i, variable := range is.Env {
		name, value, _ := strings.Cut(variable, "=")
		if value != mask.Hidden {
			continue
		}
		at := slices.IndexFunc(was.Env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if at < 0 {
			return fault.New(fault.Invalid, "the environment variable %s has the value %s, which stands for a credential that is not "+
				"told, and the service has none of this name", name, mask.Hidden)
		}
		is.Env = slices.Clone(is.Env)
		is.Env[i] = was.Env[at]
	}
	return nil
}
