package page

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("a\n<!-- x -->\nold\n<!-- /x -->\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, "x", "new\n"); err != nil {
		t.Fatal(err)
	}
	said, err := Section(path, "x")
	if err != nil || said != "new\n" {
		t.Errorf("%q, %v", said, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := Section(path, "y"); err == nil {
		t.Error("a section that is not there")
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	if got := Columns("| a | b | 1.5 |\n|---|---|---|\n| c | d | 2 |\n", 2); got != " a | b \n---|---\n c | d \n" {
		t.Errorf("%q", got)
	}
}
