package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Asked reads the label of a container or a service that is created.
func (Dialect) Asked(req dialect.Request) (from, name string, err error) {
	if !strings.Contains(string(req.Body), dialect.CopyFrom) {
		return "", "", nil
	}
	if err := checkJSON(req); err != nil {
		return "", "", err
	}
	body, err := replica.Parse(req.Body)
	if err != nil {
		return "", "", err
	}
	return replica.Text(body, "Labels", dialect.CopyFrom), replica.Text(body, "Name"), nil
}

// sourceImage is what a client whose command line must name an image names to mean the source's. It is docker's own word
// for no image, and nothing can be run of it.
const sourceImage = "scratch"

// Values that docker's clients send where nobody said anything.
func unsaid(path string, value any) bool {
	switch path {
	case "Image", "TaskTemplate.ContainerSpec.Image":
		name, _ := value.(string)
		name, _, _ = strings.Cut(name, "@")
		return name == sourceImage || name == sourceImage+":latest"
	case "HostConfig.NetworkMode":
		return value == "default" || value == "bridge"
	case "HostConfig.RestartPolicy.Name":
		return value == "no"
	case "HostConfig.Isolation", "TaskTemplate.ContainerSpec.Isolation":
		return value == "default"
	case "HostConfig.MemorySwappiness":
		return number(value) == "-1"
	case "Name", "name", "Tty", "OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr",
		"HostConfig.ConsoleSize", "HostConfig.AutoRemove":
		return false // said, or of the client's own session
	}
	return value == false || number(value) == "0"
}

func number(value any) string {
	n, _ := value.(json.Number)
	return n.String()
}

// elementKey is by what an element of a list is known, for lists that are merged.
func elementKey(path string, element any) string {
	switch path {
	case "Env", "TaskTemplate.ContainerSpec.Env":
		text, _ := element.(string)
		name, _, _ := strings.Cut(text, "=")
		return name
	}
	return ""
}

// sessionMembers are the members by which a client says how it is connected itself. The source's say nothing of that.
var sessionMembers = []string{"Tty", "OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr"}

// Complete fills a create. What it starts by itself, its client starts.
func (Dialect) Complete(req dialect.Request, draft dialect.Draft) (dialect.Request, []dialect.Left, error) {
	body, err := replica.Parse(req.Body)
	if err != nil {
		return req, nil, err
	}
	drafted, _ := replica.Clone(draft.Body).(map[string]any)
	if drafted["TaskTemplate"] == nil {
		for _, key := range sessionMembers {
			delete(drafted, key)
		}
	}
	if replicated, ok := replica.Object(body, "Mode")["Replicated"].(map[string]any); ok && len(replica.Object(body, "Mode")) == 1 && replica.Empty(replicated["Replicas"]) {
		delete(body, "Mode") // which clients send by default
	}
	if !replica.Empty(body["Mode"]) {
		delete(drafted, "Mode") // one mode or the other
	}
	if mode := replica.Object(body, "HostConfig")["NetworkMode"]; unsaid("HostConfig.NetworkMode", mode) && !replica.Empty(replica.Object(drafted, "HostConfig")["NetworkMode"]) {
		delete(replica.Object(body, "NetworkingConfig", "EndpointsConfig"), "default")
	}
	if entrypoint := body["Entrypoint"]; !replica.Empty(entrypoint) && replica.Empty(body["Cmd"]) {
		delete(drafted, "Cmd") // the words are for another program
	}
	delete(drafted, "Name")
	given := environment(body)
	program := map[string]bool{ // what the request says of it
		"Entrypoint":       !replica.Empty(body["Entrypoint"]),
		"Cmd":              !replica.Empty(body["Cmd"]) || !replica.Empty(body["Entrypoint"]),
		"Healthcheck.Test": !replica.Empty(replica.Object(body, "Healthcheck")["Test"]),
	}
	merge := replica.Merge{Key: elementKey, Zero: unsaid}
	merge.Fill("", body, drafted)
	var left []dialect.Left
	for _, l := range draft.Left {
		if _, name, ok := strings.Cut(l.Field, "Env["); ok && slices.Contains(given, strings.TrimSuffix(name, "]")) {
			continue
		}
		if program[l.Field] {
			continue
		}
		left = append(left, l)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return req, nil, fault.Wrap(fault.Internal, err, "the completed request could not be written")
	}
	req.Body, req.Header = raw, req.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", jsonMediaType)
	return req, left, nil
}

// environment are the names of the variables that a body has.
func environment(body map[string]any) []string {
	var names []string
	for _, list := range [][]any{replica.List(body, "Env"), replica.List(body, "TaskTemplate", "ContainerSpec", "Env")} {
		for _, element := range list {
			text, _ := element.(string)
			name, _, _ := strings.Cut(text, "=")
			names = append(names, name)
		}
	}
	return names
}
