package testbed

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// PostgresImage is PostgreSQL 15 as Debian 12 has it: a data folder in a volume, and everybody let in. Beds do not load it
// by themselves.
const PostgresImage = "isthmus.local/postgres:15"

const (
	// postgresFormat changes when the image is made differently.
	postgresFormat = "1"
	postgresUser   = 999
	postgresHome   = "usr/lib/postgresql/15"
	postgresData   = "/var/lib/postgresql/data"
)

//go:embed postgres/entrypoint.sh
var postgresEntrypoint []byte

// postgresPackages are PostgreSQL and what its programs are linked with. None of them is installed: the package of the
// server would make a database on this machine, and start it.
var postgresPackages = []string{
	"libaudit1", "libc-bin", "libc6", "libcap-ng0", "libcap2", "libcom-err2", "libffi8", "libgcc-s1", "libgcrypt20", "libgmp10",
	"libgnutls30", "libgpg-error0", "libgssapi-krb5-2", "libhogweed6", "libicu72", "libidn2-0", "libk5crypto3", "libkeyutils1",
	"libkrb5-3", "libkrb5support0", "libldap-2.5-0", "liblz4-1", "liblzma5", "libnettle8", "libp11-kit0", "libpam0g", "libpq5",
	"libreadline8", "libsasl2-2", "libssl3", "libstdc++6", "libsystemd0", "libtasn1-6", "libtinfo6", "libunistring2", "libxml2",
	"libzstd1", "postgresql-15", "postgresql-client-15", "zlib1g",
}

func postgresDir(cache string) string {
	sum := sha256.New()
	busybox, _ := os.ReadFile(busyboxProgram)
	for _, part := range [][]byte{postgresEntrypoint, busybox, []byte(strings.Join(postgresPackages, " ")), []byte(runtime.GOARCH), []byte(imageFormat + postgresFormat)} {
		fmt.Fprintf(sum, "%d\n%s", len(part), part)
	}
	return filepath.Join(cache, "postgres-15-"+hex.EncodeToString(sum.Sum(nil)[:6]))
}

// installPostgres makes the image, and a psql for this machine.
func installPostgres(ctx context.Context, cache string, log *slog.Logger) error {
	dir := postgresDir(cache)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	begin := time.Now()
	work, err := os.MkdirTemp(cache, ".postgres-*")
	if err != nil {
		return fmt.Errorf("install PostgreSQL: %w", err)
	}
	err = fillPostgres(ctx, work)
	if err == nil {
		err = os.Rename(filepath.Join(work, "made"), dir)
	}
	if err = errors.Join(err, os.RemoveAll(work)); err != nil {
		return fmt.Errorf("install PostgreSQL: %w", err)
	}
	log.Info("PostgreSQL's image is built", "took", since(begin))
	return nil
}

func fillPostgres(ctx context.Context, work string) error {
	debs, root, made := filepath.Join(work, "debs"), filepath.Join(work, "root"), filepath.Join(work, "made")
	for _, dir := range []string{debs, root, filepath.Join(made, "bin")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := run(ctx, "apt-get", "-qq", "update"); err != nil {
		return err
	}
	// apt-get puts what it downloads into the folder in which it runs.
	download := append([]string{"sh", "-c", `cd "$0" && exec apt-get -qq -o APT::Sandbox::User=root download "$@"`, debs}, postgresPackages...)
	if _, err := run(ctx, download...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := run(ctx, "dpkg-deb", "--extract", file, root); err != nil {
			return err
		}
	}
	layer, libraries, err := postgresRoot(ctx, root)
	if err != nil {
		return err
	}
	if err := writeImage(filepath.Join(made, "postgres.tar"), PostgresImage, imageConfig{
		Entrypoint: []string{"/usr/local/bin/entrypoint"},
		Env:        []string{"PATH=/" + postgresHome + "/bin:/usr/local/bin:/bin", "PGDATA=" + postgresData, "LANG=C.UTF-8"},
		Volumes:    map[string]struct{}{postgresData: {}},
		// Clients do not hold it up.
		StopSignal: "SIGINT",
	}, layer); err != nil {
		return err
	}
	return postgresClient(root, made, libraries)
}

// postgresRoot is the file system of the image, without documentation and what compiles queries. It tells where its shared
// libraries are as well, by their names.
func postgresRoot(ctx context.Context, root string) ([]byte, map[string]string, error) {
	l, err := busyboxLayer(ctx)
	if err != nil {
		return nil, nil, err
	}
	var programs []string
	for _, name := range []string{"postgres", "initdb", "pg_isready", "psql"} {
		programs = append(programs, filepath.Join(postgresHome, "bin", name))
	}
	for _, pattern := range []string{"plpgsql", "dict_snowball", "libpqwalreceiver", "pgoutput", "*_and_*"} {
		found, err := filepath.Glob(filepath.Join(root, postgresHome, "lib", pattern+".so"))
		if err != nil {
			return nil, nil, err
		}
		for _, path := range found {
			programs = append(programs, strings.TrimPrefix(path, root+"/"))
		}
	}
	for _, program := range programs {
		if err := l.copy(root, program); err != nil {
			return nil, nil, err
		}
	}
	libraries, loader, err := linked(root, programs)
	if err != nil {
		return nil, nil, err
	}
	for name, path := range libraries {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		l.file("lib/"+name, 0o755, content)
	}
	if name := filepath.Base(loader); loader != "/lib/"+name {
		l.link(strings.TrimPrefix(loader, "/"), "/lib/"+name)
	}
	for _, dir := range []string{"usr/share/postgresql/15", "usr/lib/locale/C.utf8"} {
		if err := l.copy(root, dir); err != nil {
			return nil, nil, err
		}
	}
	l.file("usr/local/bin/entrypoint", 0o755, postgresEntrypoint)
	l.file("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/root:/bin/sh\npostgres:x:%d:%[1]d:postgres:/var/lib/postgresql:/bin/sh\n", postgresUser))
	l.file("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\npostgres:x:%d:\n", postgresUser))
	l.dir("usr/share/zoneinfo", 0o755) // empty: times are UTC
	l.ownedDir("var/lib/postgresql", 0o755, postgresUser)
	l.ownedDir("var/lib/postgresql/data", 0o700, postgresUser)
	l.ownedDir("var/run/postgresql", 0o1777, postgresUser) // also of a tmpfs there, which is root's
	content, err := l.bytes()
	return content, libraries, err
}

// linked finds the shared libraries of programs below a root, and of those libraries, by name, and the loader of all.
func linked(root string, programs []string) (libraries map[string]string, loader string, err error) {
	libraries = map[string]string{}
	var todo []string
	for _, program := range programs {
		todo = append(todo, filepath.Join(root, program))
	}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		names, interpreter, err := needed(path)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", path, err)
		}
		if loader == "" {
			loader = interpreter
		}
		if interpreter != "" {
			names = append(names, filepath.Base(interpreter))
		}
		for _, name := range names {
			if libraries[name] != "" {
				continue
			}
			found, _ := filepath.Glob(filepath.Join(root, "lib", "*", name))
			if len(found) == 0 {
				found, _ = filepath.Glob(filepath.Join(root, "usr/lib", "*", name))
			}
			if len(found) == 0 {
				return nil, "", fmt.Errorf("%s: library %s: %w", path, name, fs.ErrNotExist)
			}
			libraries[name] = found[0]
			todo = append(todo, found[0])
		}
	}
	return libraries, loader, nil
}

// needed tells which libraries a program or library names, and its loader.
func needed(path string) (names []string, loader string, err error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = file.Close() }()
	if names, err = file.ImportedLibraries(); err != nil {
		return nil, "", err
	}
	for _, program := range file.Progs {
		if program.Type == elf.PT_INTERP {
			text := make([]byte, program.Filesz)
			if _, err := program.ReadAt(text, 0); err != nil {
				return nil, "", err
			}
			loader = strings.TrimRight(string(text), "\x00")
		}
	}
	return names, loader, nil
}

// postgresClient makes a psql for this machine, with libraries of its own.
func postgresClient(root, made string, libraries map[string]string) error {
	program := filepath.Join(root, postgresHome, "bin", "psql")
	names, loader, err := linked(root, []string{filepath.Join(postgresHome, "bin", "psql")})
	if err != nil {
		return err
	}
	files := map[string]string{"psql": program}
	for name := range names {
		files[name] = libraries[name]
	}
	lib := filepath.Join(made, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return err
	}
	for name, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(lib, name), content, 0o755); err != nil {
			return err
		}
	}
	script := fmt.Sprintf("#!/bin/sh\nlib=$(dirname \"$0\")/../lib\nexec \"$lib/%s\" --library-path \"$lib\" \"$lib/psql\" \"$@\"\n", filepath.Base(loader))
	return os.WriteFile(filepath.Join(made, "bin", "psql"), []byte(script), 0o755)
}
