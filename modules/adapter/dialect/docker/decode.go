package docker

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// notSupported begins the refusal of a route: where the CLI tries one kind of object after the other (docker inspect),
// it passes over answers that say so.
const notSupported = "not supported: "

// Decode completes op from the whole request. Routes that no other orchestrator can answer are refused here, each with
// its reason, and not in Classify, which serves callers of the same type as well.
func (d Dialect) Decode(op neutral.Operation, req dialect.Request) (neutral.Operation, []neutral.Loss, error) {
	return decode(op, req, false)
}

// decode reads a request that is translated, or one that an engine does as it says.
func decode(op neutral.Operation, req dialect.Request, native bool) (neutral.Operation, []neutral.Loss, error) {
	if reason := untranslated(req); reason != "" {
		return op, nil, &fault.Error{Kind: fault.Unsupported, Op: string(op.Action), Message: notSupported + reason}
	}
	q, err := parseQuery(req)
	if err != nil {
		return op, nil, err
	}
	var losses []neutral.Loss
	if needsJSON[op.Action] {
		if err := checkJSON(req); err != nil {
			return op, nil, err
		}
		losses, err = decodeBody(&op, q, req, native)
		if err != nil {
			return op, nil, err
		}
	} else {
		losses = decodeHead(&op, q, req)
	}
	if q.err != nil {
		return op, nil, q.err
	}
	return op, losses, nil
}

// untranslated is the reason why a request's route is not translated; "" when it is.
func untranslated(req dialect.Request) string {
	target, err := req.URL()
	if err != nil {
		return ""
	}
	_, rest, err := splitVersion(target.Path)
	if err != nil {
		return ""
	}
	route, _, ok := findRoute(req.Method, rest)
	if !ok {
		return ""
	}
	if route.action == neutral.ImagePull && target.Query().Get("fromImage") == "" {
		return "import: " + reasonImage
	}
	return route.reason
}

// needsJSON are the actions whose request is in a JSON body.
var needsJSON = map[neutral.Action]bool{
	neutral.ContainerCreate: true, neutral.ContainerUpdate: true, neutral.ExecCreate: true,
	neutral.WorkloadCreate: true, neutral.WorkloadUpdate: true, neutral.VolumeCreate: true,
	neutral.NetworkCreate: true, neutral.NetworkJoin: true, neutral.NetworkLeave: true,
	neutral.SecretCreate: true, neutral.ConfigCreate: true, neutral.SecretUpdate: true, neutral.ConfigUpdate: true,
}

func decodeBody(op *neutral.Operation, q *query, req dialect.Request, native bool) ([]neutral.Loss, error) {
	t, err := parseTree(req.Body)
	if err != nil {
		return nil, err
	}
	t.root.native = native
	switch op.Action {
	case neutral.ContainerCreate:
		return decodeContainerCreate(op, q, t, req.Body)
	case neutral.ContainerUpdate:
		return decodeContainerUpdate(op, t)
	case neutral.ExecCreate:
		return decodeExecCreate(op, t)
	case neutral.VolumeCreate:
		return decodeVolumeCreate(op, t)
	case neutral.SecretCreate, neutral.ConfigCreate:
		return decodeStoredFile(op, t)
	case neutral.SecretUpdate, neutral.ConfigUpdate:
		return decodeStoredUpdate(op, q, t)
	case neutral.NetworkCreate:
		return decodeNetworkCreate(op, t)
	case neutral.NetworkJoin, neutral.NetworkLeave:
		return decodeNetworkMember(op, t)
	default: // of a service
		losses, err := decodeWorkload(op, q, t, req.Body)
		if err == nil && carriesCredentials(req.Header.Get("X-Registry-Auth")) {
			losses = append(losses, lossAuth)
		}
		return losses, err
	}
}

// checkJSON wants a JSON body to say so, as an engine does. A body without a type is taken, for old clients.
func checkJSON(req dialect.Request) error {
	text := req.Header.Get("Content-Type")
	if text == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(text)
	if err != nil || media != jsonMediaType {
		return fault.New(fault.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", shorten(text))
	}
	return nil
}

// decodeHead reads what stands in the query, and the small body of exec.start.
func decodeHead(op *neutral.Operation, q *query, req dialect.Request) []neutral.Loss {
	switch op.Action {
	case neutral.ContainerList:
		op.Filter = q.containers(op.Action)
	case neutral.ContainerPrune:
		set := q.filters(op.Action)
		op.Filter.Labels = set["label"]
		op.Until = q.until(set)
	case neutral.ContainerLogs, neutral.WorkloadLogs, neutral.TaskLogs:
		op.Logs = q.logs()
	case neutral.ContainerStop, neutral.ContainerRestart:
		op.Stop = q.stop()
	case neutral.ContainerKill:
		op.Stop = q.stop()
		if op.Stop.Signal == "" {
			op.Stop.Signal = "SIGKILL"
		}
	case neutral.ContainerWait:
		op.Wait = q.wait()
	case neutral.ContainerRemove:
		op.Remove = &neutral.RemoveOptions{Force: q.flag("force"), Volumes: q.flag("v"), Link: q.flag("link")}
		if op.Remove.Link {
			q.err = fault.New(fault.Unsupported, "links between containers are not carried to another orchestrator")
		}
	case neutral.ContainerResize, neutral.ExecResize:
		op.Size = q.size()
	case neutral.ContainerRename:
		op.NewName = strings.TrimPrefix(q.text("name"), "/")
		if !validName(op.NewName) {
			q.fail("name", "Invalid container name (%s), only %s are allowed", shorten(op.NewName), nameCharacters)
		}
	case neutral.ContainerCopyOut, neutral.ContainerCopyIn, neutral.ContainerStat:
		return decodeCopy(op, q)
	case neutral.ContainerStats:
		op.Usage = &neutral.UsageOptions{Stream: q.text("stream") == "" || q.flag("stream"), Once: q.flag("one-shot")}
		if op.Usage.Stream && op.Usage.Once {
			q.fail("one-shot", "cannot have stream=true and one-shot=true")
		}
	case neutral.ContainerTop:
		op.Extra = map[string]string{"ps_args": q.text("ps_args")}
	case neutral.ContainerStart:
		checkStart(q, req)
	case neutral.ContainerAttach:
		decodeAttach(op, q)
	case neutral.ExecStart:
		return decodeExecStart(op, q, req.Body)
	case neutral.WorkloadList:
		op.Filter = q.workloads()
	case neutral.TaskList:
		op.Filter = q.tasks()
	case neutral.VolumeList:
		op.Filter = q.volumes()
	case neutral.SecretList, neutral.ConfigList:
		q.filters(op.Action) // the answer is filtered by them
	case neutral.VolumePrune:
		op.Filter = q.prunedVolumes()
	case neutral.NetworkPrune:
		set := q.filters(op.Action)
		op.Filter.Labels = set["label"]
		op.Until = q.until(set)
	case neutral.VolumeRemove:
		op.Remove = &neutral.RemoveOptions{Force: q.flag("force")}
	case neutral.NodeList, neutral.ImageList, neutral.NetworkList:
		set := q.filters(op.Action) // the answer is filtered by them, see encode_filter.go
		op.Filter.Labels = set["label"]
	case neutral.EventWatch:
		op.Filter = q.events()
		op.Since, op.Until = q.moment("since"), q.moment("until")
	case neutral.ImagePull:
		return decodePull(op, q, req)
	default: // the path says it all
	}
	return nil
}

// checkStart refuses what a start may say beyond a name.
func checkStart(q *query, req dialect.Request) {
	if len(req.Body) > len("null\n")+2 {
		q.fail("", "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if q.text("checkpoint") != "" && q.err == nil {
		q.err = fault.New(fault.Unsupported, "%s", reasonSnapshot)
	}
}

// wait reads what a wait waits for.
func (q *query) wait() neutral.WaitCondition {
	switch condition := neutral.WaitCondition(q.text("condition")); condition {
	case "":
		return neutral.WaitNotRunning
	case neutral.WaitNotRunning, neutral.WaitNextExit, neutral.WaitRemoved:
		return condition
	default:
		q.fail("condition", "invalid condition: %q", shorten(string(condition)))
		return neutral.WaitNotRunning
	}
}

// decodePull checks the image's name. Credentials are not handed on: the nodes of the target pull with their own.
func decodePull(op *neutral.Operation, q *query, req dialect.Request) []neutral.Loss {
	if err := checkImage(op.Image); err != nil && q.err == nil {
		q.err = err
	}
	var losses []neutral.Loss
	if platform := q.text("platform"); platform != "" {
		losses = append(losses, neutral.Loss{Field: "platform", Change: "dropped", Reason: "each node pulls for its own platform"})
	}
	if carriesCredentials(req.Header.Get("X-Registry-Auth")) {
		losses = append(losses, lossAuth)
	}
	return losses
}

var lossAuth = neutral.Loss{Field: "X-Registry-Auth", Change: "dropped",
	Reason: "credentials are not handed to another cluster, whose nodes pull with their own"}

// carriesCredentials tells whether a registry header holds more than an empty object. Its content is looked at nowhere
// else.
func carriesCredentials(header string) bool {
	if header == "" {
		return false
	}
	raw, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		return true
	}
	var fields map[string]string
	if json.Unmarshal(raw, &fields) != nil {
		return true
	}
	for key, value := range fields {
		if value != "" && key != "serveraddress" {
			return true
		}
	}
	return false
}

// checkImage wants an image's name to be well-formed.
func checkImage(name string) error {
	if name == "" {
		return &fault.Error{Kind: fault.Invalid, Field: "Image", Message: "no image is named"}
	}
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		return &fault.Error{Kind: fault.Invalid, Field: "Image", Message: "invalid reference format: " + shorten(name), Cause: err}
	}
	return nil
}

const nameCharacters = "[a-zA-Z0-9][a-zA-Z0-9_.-]"

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func validName(name string) bool { return namePattern.MatchString(name) }
