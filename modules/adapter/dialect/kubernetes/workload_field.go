package kubernetes

import (
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// serviceFields are the places in a service's spec of what a container's spec has elsewhere. A template is one for
// both; who sent a service reads of its own fields.
var serviceFields = map[string]string{
	"Cmd":                     "TaskTemplate.ContainerSpec.Args",
	"Domainname":              "TaskTemplate.ContainerSpec.Hostname",
	"Env":                     "TaskTemplate.ContainerSpec.Env",
	"ExposedPorts":            "EndpointSpec.Ports",
	"Healthcheck.Interval":    "TaskTemplate.ContainerSpec.Healthcheck.Interval",
	"Healthcheck.Test":        "TaskTemplate.ContainerSpec.Healthcheck.Test",
	"Healthcheck.Timeout":     "TaskTemplate.ContainerSpec.Healthcheck.Timeout",
	"HostConfig.Binds":        "TaskTemplate.ContainerSpec.Mounts",
	"HostConfig.Dns":          "TaskTemplate.ContainerSpec.DNSConfig.Nameservers",
	"HostConfig.ExtraHosts":   "TaskTemplate.ContainerSpec.Hosts",
	"HostConfig.GroupAdd":     "TaskTemplate.ContainerSpec.Groups",
	"HostConfig.Mounts":       "TaskTemplate.ContainerSpec.Mounts",
	"HostConfig.NetworkMode":  "TaskTemplate.Networks",
	"HostConfig.PortBindings": "EndpointSpec.Ports",
	"HostConfig.RestartPolicy.MaximumRetryCount": "TaskTemplate.RestartPolicy.MaxAttempts",
	"HostConfig.SecurityOpt":                     "TaskTemplate.ContainerSpec.Privileges",
	"Hostname":                                   "TaskTemplate.ContainerSpec.Hostname",
	"NetworkingConfig.EndpointsConfig":           "TaskTemplate.Networks",
	"NetworkingConfig.EndpointsConfig.Aliases":   "TaskTemplate.Networks.Aliases",
	"StopSignal":                                 "TaskTemplate.ContainerSpec.StopSignal",
	"StopTimeout":                                "TaskTemplate.ContainerSpec.StopGracePeriod",
	"User":                                       "TaskTemplate.ContainerSpec.User",
}

// serviceTemplate is templateFromContainer for a service's tasks.
func serviceTemplate(c *neutral.Container, nonce string) (*corev1.PodTemplateSpec, []neutral.Loss, error) {
	template, losses, err := templateFromContainer(c, nonce)
	if err != nil {
		return nil, nil, serviceFault(err)
	}
	return template, serviceLosses(append(losses, unnamedVolumes(template)...)), nil
}

func serviceLosses(losses []neutral.Loss) []neutral.Loss {
	for i := range losses {
		if field, ok := serviceFields[losses[i].Field]; ok {
			losses[i].Field = field
		}
	}
	return losses
}

func serviceFault(err error) error {
	var known *fault.Error
	if !errors.As(err, &known) {
		return err
	}
	field, ok := serviceFields[known.Field]
	if !ok {
		return err
	}
	named := *known
	if rest, ok := strings.CutPrefix(known.Message, known.Field); ok {
		named.Message = field + rest
	}
	named.Field = field
	return &named
}
