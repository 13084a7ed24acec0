package docker

import (
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// The Engine API versions that are served. APIVersion is advertised, and what an unversioned path means.
const (
	APIVersion    = "1.49"
	MinAPIVersion = "1.24"
)

// apiVersion is an Engine API version.
type apiVersion struct{ major, minor int }

var (
	newestVersion = apiVersion{1, 49}
	oldestVersion = apiVersion{1, 24}
)

func (v apiVersion) less(o apiVersion) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

// splitVersion takes the version prefix off a path. The second result is the path without it.
func splitVersion(path string) (apiVersion, string, error) {
	rest, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return newestVersion, path, nil
	}
	digits := 0
	for digits < len(rest) && (rest[digits] == '.' || rest[digits] >= '0' && rest[digits] <= '9') {
		digits++
	}
	if digits == 0 || digits < len(rest) && rest[digits] != '/' {
		return newestVersion, path, nil // "/version", "/volumes"
	}
	text := rest[:digits]
	version, ok := parseVersion(text)
	if !ok {
		return apiVersion{}, "", fault.New(fault.Invalid, "invalid API version %q in the path", text)
	}
	switch {
	case version.less(oldestVersion):
		return version, "", fault.New(fault.Invalid, "client version %s is too old. Minimum supported API version is %s, "+
			"please upgrade your client to a newer version", text, MinAPIVersion)
	case newestVersion.less(version):
		return version, "", fault.New(fault.Invalid, "client version %s is too new. Maximum supported API version is %s",
			text, APIVersion)
	}
	return version, rest[digits:], nil
}

func parseVersion(text string) (apiVersion, bool) {
	major, minor, ok := strings.Cut(text, ".")
	if !ok {
		minor = "0"
	}
	x, err := strconv.Atoi(major)
	if err != nil {
		return apiVersion{}, false
	}
	y, err := strconv.Atoi(minor)
	if err != nil {
		return apiVersion{}, false
	}
	return apiVersion{x, y}, true
}
