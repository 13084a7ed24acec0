package expansion

import "testing"

func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$": "$", "$x": "$x", "$$": "$", "$$x": "$x", "a$(A)b": "a1b", "$(B)": "$(A)", "$$(A)": "$(A)",
		"$(NOPE)": "$(NOPE)", "$(A": "$(A", "$()": "$()", "$$$(A)": "$1", "x$": "x$", "$$$": "$$",
	} {
		if got := Expand(in, values); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzEscape holds that what a caller writes arrives as it is, whatever Kubernetes would make of it.
func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"", "$", "$$", "$(A)", "$$(A)", "echo $((1+2)) $HOME", "a$$$b$", "$(A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := Expand(Escape(text), map[string]string{"A": "expanded", "": "empty"}); got != text {
			t.Errorf("%q is escaped as %q and arrives as %q", text, Escape(text), got)
		}
	})
}
