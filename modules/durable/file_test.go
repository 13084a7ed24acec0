package durable

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// writer is the environment variable by which the test runs itself as the process that is killed.
const writer = "ISTHMUS_DURABLE_WRITER"

// TestMain is the writer when it is told to be: it replaces a file with ever new contents until it is killed.
func TestMain(m *testing.M) {
	path := os.Getenv(writer)
	if path == "" {
		os.Exit(m.Run())
	}
	for i := 0; ; i++ {
		if err := Replace(path, content(i), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(i) // so much is done, for good
	}
}

// content is whole only if it has the length that it says, and its number in every line.
func content(i int) []byte {
	return append(fmt.Appendf(nil, "%08d\n", i), bytes.Repeat(fmt.Appendf(nil, "%08d\n", i), 1+i%5000)...)
}

// TestKill kills a process that writes, at many moments: what is there is whole, and no older than what it said was done.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	path := filepath.Join(t.TempDir(), "state")
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writer+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8*time.Millisecond + time.Duration(round)*1370*time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		told, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		lines := bytes.Fields(told)
		if len(lines) == 0 {
			continue // killed before its first
		}
		var done, found int
		if _, err := fmt.Sscan(string(lines[len(lines)-1]), &done); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(string(data[:min(8, len(data))]), "%d", &found); err != nil || !bytes.Equal(data, content(found)) {
			t.Fatalf("round %d: the file is not whole: %d bytes", round, len(data))
		}
		if found < done {
			t.Fatalf("round %d: %d is there, %d was done", round, found, done)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestReplaceLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A folder cannot be renamed over.
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if err := Replace(filepath.Join(dir, "no", "such"), []byte("x"), 0o600); err == nil {
		t.Error("a folder that is not there was written to")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x")
	if err := Replace(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.json")
	read := []string{"as it is"}
	if err := ReadJSON(path, &read); err != nil || len(read) != 1 {
		t.Errorf("no file: %v, %v", read, err)
	}
	if err := WriteJSON(path, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(path, &read); err != nil || len(read) != 2 || read[1] != "b" {
		t.Errorf("%v, %v", read, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte(`["a`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(path, &read); err == nil {
		t.Error("half a file was read")
	}
}
