package kubernetes

import (
	"strconv"
	"strings"
)

// signals are Linux's by number, without "SIG".
var signals = map[int]string{1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL",
	10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP",
	20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO",
	30: "PWR", 31: "SYS"}

// signalName reads a signal as docker does, by number or name, with or without "SIG".
func signalName(text string) (string, bool) {
	if number, err := strconv.Atoi(text); err == nil {
		name, ok := signals[number]
		if !ok && number >= 34 && number <= 64 {
			return strconv.Itoa(number), true // real-time signals have no portable name
		}
		return name, ok
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if name == "POLL" {
		name = "IO"
	}
	for _, known := range signals {
		if name == known {
			return name, true
		}
	}
	if offset, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, err := strconv.Atoi(offset); err == nil && n >= 0 && n <= 30 {
			return strconv.Itoa(34 + n), true
		}
	}
	return "", false
}
