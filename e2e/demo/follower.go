package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// follower reads what a log gained.
type follower struct {
	gateway string
	path    string
	offset  int64
	tell    func(line []byte) string
}

// lines gives the whole lines since the last call.
func (f *follower) lines() [][]byte {
	file, err := os.Open(f.path)
	if err != nil {
		return nil // not written yet
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() <= f.offset {
		return nil
	}
	data := make([]byte, info.Size()-f.offset)
	n, err := file.ReadAt(data, f.offset)
	if err != nil && n == 0 {
		return nil
	}
	end := bytes.LastIndexByte(data[:n], '\n') + 1
	f.offset += int64(end)
	return bytes.Split(bytes.TrimSuffix(data[:end], []byte("\n")), []byte("\n"))
}

// auditLine tells a decision that isthmus made.
func auditLine(line []byte) string {
	var e struct {
		Phase, Class, Verb, Action, Kind, Namespace, Name, Decision, Rule, Reason, Upstream string
		Losses                                                                              []string
	}
	if json.Unmarshal(line, &e) != nil || e.Phase != "decided" || e.Action == "system.ping" {
		return ""
	}
	told := fmt.Sprintf("%s, %s %s", e.Class, e.Verb, object(e.Kind, e.Namespace, e.Name))
	if e.Decision == "allow" {
		told += fmt.Sprintf(": allowed by policy %s, answered through %s", e.Rule, e.Upstream)
	} else {
		told += ": denied, " + e.Reason
	}
	if len(e.Losses) > 0 {
		told += "; losses: " + strings.Join(e.Losses, "; ")
	}
	return told
}

func object(kind, namespace, name string) string {
	if namespace == "" && name == "" {
		return kind
	}
	return kind + " " + namespace + "/" + name
}

// accessLine tells a request that Envoy's routes decided without isthmus.
func accessLine(line []byte) string {
	var e map[string]any
	if json.Unmarshal(line, &e) != nil || e["kind"] != "service-query" || e["decision"] != "allow" {
		return ""
	}
	return fmt.Sprintf("%v, %v %v: allowed by its route, no Go in the path, status %v", e["kind"], e["verb"], e["object"], e["code"])
}
