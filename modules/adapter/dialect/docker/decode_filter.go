package docker

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// filters are a request's filters, sorted within each key.
type filters map[string][]string

// filterKeys are the filters that each list takes, as dockerd has them; anything else is an error there too.
var filterKeys = map[neutral.Action][]string{
	neutral.ContainerList: {"ancestor", "annotation", "before", "exited", "expose", "health", "id", "isolation", "is-task",
		"label", "name", "network", "publish", "since", "status", "volume"},
	neutral.ContainerPrune: {"label", "label!", "until"},
	neutral.WorkloadList:   {"id", "label", "mode", "name", "runtime"},
	neutral.TaskList:       {"_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"},
	neutral.NodeList:       {"id", "label", "membership", "name", "node.label", "role"},
	neutral.ImageList:      {"before", "dangling", "label", "reference", "since", "until"},
	neutral.NetworkList:    {"dangling", "driver", "id", "label", "name", "scope", "type"},
	neutral.VolumeList:     {"dangling", "driver", "label", "name"},
	neutral.SecretList:     {"id", "label", "name", "names"},
	neutral.ConfigList:     {"id", "label", "name", "names"},
	neutral.NetworkPrune:   {"label", "label!", "until"},
	neutral.VolumePrune:    {"all", "label", "label!"},
	neutral.EventWatch: {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope",
		"secret", "service", "type", "volume"},
}

// untranslatedFilters would change what a list holds, and no other orchestrator can answer them.
var untranslatedFilters = map[neutral.Action][]string{
	neutral.ContainerList:  {"annotation", "isolation", "is-task"},
	neutral.ContainerPrune: {"label!"},
	neutral.VolumePrune:    {"label!"},
	neutral.NetworkPrune:   {"label!"},
}

// filters reads and checks the filters of an action.
func (q *query) filters(action neutral.Action) filters {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		if q.err == nil {
			q.err = err
		}
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		switch {
		case !slices.Contains(filterKeys[action], key):
			q.fail("filter", "invalid filter '%s'", shorten(key))
		case slices.Contains(untranslatedFilters[action], key) && q.err == nil:
			q.err = fault.New(fault.Unsupported, "filter '%s' cannot be answered by another orchestrator", key)
		}
	}
	return set
}

// parseFilters reads both forms of filters: {"label":{"a=b":true}}, and {"label":["a=b"]} of old clients. A
// value that is false in the first form still counts, as for most of an engine's filters.
func parseFilters(text string) (filters, error) {
	set := filters{}
	if text == "" {
		return set, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &sets); err == nil {
		for key, values := range sets {
			if len(values) > 0 {
				set[key] = slices.Sorted(maps.Keys(values))
			}
		}
		return set, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(text), &lists); err != nil {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "filters", Message: "invalid filter: filters are not a JSON object of names " +
			"and values", Cause: err}
	}
	for key, values := range lists {
		if len(values) > 0 {
			sorted := slices.Clone(values)
			slices.Sort(sorted)
			set[key] = slices.Compact(sorted)
		}
	}
	return set, nil
}

// one gives the only value of a filter that takes one.
func (q *query) one(set filters, key string) string {
	values := set[key]
	switch len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	}
	q.fail("filter", "invalid filter '%s=%v': only one value is taken", key, values)
	return ""
}

// until reads the filter of a prune that spares what is younger.
func (q *query) until(set filters) time.Time {
	text := q.one(set, "until")
	if text == "" {
		return time.Time{}
	}
	at, ok := parseMoment(text)
	if !ok {
		q.fail("filter", "invalid filter 'until=%s': give a time as RFC 3339 or seconds since 1970", shorten(text))
	}
	return at
}

// containers reads the filter of a container list.
func (q *query) containers(action neutral.Action) neutral.Filter {
	set := q.filters(action)
	filter := neutral.Filter{
		All: q.flag("all"), Size: q.flag("size"),
		IDs: set["id"], Labels: set["label"], Ancestors: set["ancestor"], Networks: set["network"], Volumes: set["volume"],
		Publish: set["publish"], Expose: set["expose"], Before: q.one(set, "before"), Since: q.one(set, "since"),
	}
	if filter.Before == "" {
		filter.Before = q.text("before")
	}
	if filter.Since == "" {
		filter.Since = q.text("since")
	}
	if limit, ok := q.number("limit"); ok && limit > 0 {
		filter.Limit, filter.All = limit, true
	}
	filter.Names = q.plainNames(set)
	if len(set["name"]) > 0 && len(filter.Names) == 0 {
		filter.Limit = 0 // the names are expressions, which the answer is filtered by; so the limit is applied after
	}
	for _, status := range set["status"] {
		filter.Status = append(filter.Status, neutral.Status(status))
		filter.All = true
		if !slices.Contains(containerStatuses, neutral.Status(status)) {
			q.fail("filter", "invalid filter 'status=%s'", shorten(status))
		}
	}
	for _, code := range set["exited"] {
		n, err := strconv.Atoi(code)
		if err != nil {
			q.fail("filter", "invalid filter 'exited=%s'", shorten(code))
		}
		filter.ExitCodes, filter.All = append(filter.ExitCodes, n), true
	}
	for _, health := range set["health"] {
		if !slices.Contains([]string{"none", "starting", "healthy", "unhealthy"}, health) {
			q.fail("filter", "invalid filter 'health=%s'", shorten(health))
		}
		filter.Health = append(filter.Health, health)
	}
	return filter
}

var containerStatuses = []neutral.Status{neutral.StatusCreated, neutral.StatusRunning, neutral.StatusPaused,
	neutral.StatusRestarting, neutral.StatusRemoving, neutral.StatusExited, neutral.StatusDead}

// plainNames gives the name filters when all of them are plain names; an engine takes regular expressions, and where
// one is used the answer is filtered by nameMatcher instead.
func (q *query) plainNames(set filters) []string {
	for _, name := range set["name"] {
		if _, err := regexp.Compile(name); err != nil {
			q.fail("filter", "invalid filter 'name=%s'", shorten(name))
			return nil
		}
		if regexp.QuoteMeta(name) != name {
			return nil
		}
	}
	return set["name"]
}

// nameMatcher tells whether a container's name passes name filters, with or without its slash.
func nameMatcher(set filters) func(name string) bool {
	var expressions []*regexp.Regexp
	for _, text := range set["name"] {
		if re, err := regexp.Compile(text); err == nil { // Decode refused others
			expressions = append(expressions, re)
		}
	}
	return func(name string) bool {
		return len(set["name"]) == 0 || slices.ContainsFunc(expressions, func(re *regexp.Regexp) bool {
			return re.MatchString(name) || re.MatchString("/"+name)
		})
	}
}

// workloads, tasks and the like read the filters of the other lists.
func (q *query) workloads() neutral.Filter {
	set := q.filters(neutral.WorkloadList)
	if runtime := set["runtime"]; len(runtime) > 0 && !slices.Contains(runtime, "container") {
		q.fail("filter", "invalid filter 'runtime=%s'", shorten(runtime[0]))
	}
	return neutral.Filter{Names: set["name"], IDs: set["id"], Labels: set["label"], Modes: set["mode"]}
}

func (q *query) tasks() neutral.Filter {
	set := q.filters(neutral.TaskList)
	filter := neutral.Filter{Names: set["name"], IDs: set["id"], Labels: set["label"], Workloads: set["service"],
		Nodes: set["node"], States: set["desired-state"], Current: slices.Contains(set["_up-to-date"], "true")}
	for _, state := range filter.States {
		if !slices.Contains([]string{"running", "shutdown", "accepted", "ready", "complete", "remove"}, state) {
			q.fail("filter", "invalid filter 'desired-state=%s'", shorten(state))
		}
	}
	return filter
}

// eventKinds are the types of events in docker's words.
var eventKinds = map[string]neutral.Kind{
	"container": neutral.KindContainer, "service": neutral.KindWorkload, "node": neutral.KindNode,
	"image": neutral.KindImage, "network": neutral.KindNetwork, "volume": neutral.KindVolume,
	"secret": neutral.KindSecret, "config": neutral.KindConfig, "daemon": neutral.KindSystem,
	"plugin": neutral.KindOther, "builder": neutral.KindOther,
}

func (q *query) events() neutral.Filter {
	set := q.filters(neutral.EventWatch)
	filter := neutral.Filter{Labels: set["label"], Actions: set["event"], Containers: set["container"],
		Workloads: set["service"], Nodes: set["node"]}
	for _, name := range set["type"] {
		kind, ok := eventKinds[name]
		if !ok {
			q.fail("filter", "invalid filter 'type=%s'", shorten(name))
		}
		filter.Kinds = append(filter.Kinds, kind)
	}
	return filter
}
