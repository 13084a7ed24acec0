package kubernetes

import "testing"

func TestSignalName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"9": "KILL", "KILL": "KILL", "SIGKILL": "KILL", "sigterm": "TERM", "hup": "HUP", "10": "USR1", "SIGIO": "IO", "SIGPOLL": "IO",
		"35": "35", "SIGRTMIN+3": "37", "0": "", "-1": "", "65": "", "33": "", "NOSUCH": "", "": "", "SIGRTMIN+99": "", "1;reboot": "",
	} {
		if got, ok := signalName(in); got != want || ok != (want != "") {
			t.Errorf("signalName(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}
