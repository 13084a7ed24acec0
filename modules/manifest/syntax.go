package manifest

import (
	"regexp"
	"strconv"
)

var syntaxForm = regexp.MustCompile(`^yaml: (?:line (\d+): )?((?s:.*))$`)

// parserMessages are those of the YAML package's parser. It counts lines from 0 in them, and from 1 in its scanner's.
var parserMessages = map[string]bool{
	"did not find expected <stream-start>":   true,
	"did not find expected <document start>": true,
	"did not find expected node content":     true,
	"did not find expected '-' indicator":    true,
	"did not find expected key":              true,
	"did not find expected ',' or ']'":       true,
	"did not find expected ',' or '}'":       true,
}

// syntaxError takes apart an error of the YAML package, which has no type for it. The line is 0 when none is told.
func syntaxError(err error) (line int, message string) {
	m := syntaxForm.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, err.Error()
	}
	if m[1] == "" {
		return 0, m[2]
	}
	line, err = strconv.Atoi(m[1])
	if err != nil {
		return 0, m[2]
	}
	if parserMessages[m[2]] {
		line++
	}
	return line, m[2]
}
