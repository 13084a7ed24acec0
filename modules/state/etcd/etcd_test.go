package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/etcd"
	"github.com/isthmus-mesh/isthmus/modules/state/etcd/endpoint"
	"github.com/isthmus-mesh/isthmus/modules/state/statetest"
)

func open(t *testing.T, c etcd.Config) *etcd.Home {
	t.Helper()
	if c.Prefix == "" {
		c.Prefix = "/isthmus"
	}
	c.Lifetime = 2 * time.Second
	h, err := etcd.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHome(t *testing.T) {
	t.Parallel()
	server := statetest.Etcd(t, "http")
	var gateways atomic.Int32
	statetest.Run(t, 2*time.Second, func(t *testing.T) statetest.Open {
		gateway := fmt.Sprint("gateway-", gateways.Add(1))
		return func(replica string) state.Home {
			return open(t, etcd.Config{Endpoints: []string{server.URL}, Gateway: gateway, Holder: replica})
		}
	})
}

// Keys are where the admin's roles expect them, secrets apart from the rest and gateways apart from each other.
func TestKeys(t *testing.T) {
	t.Parallel()
	server := statetest.Etcd(t, "http")
	ctx := t.Context()
	for _, gateway := range []string{"east", "west"} {
		h := open(t, etcd.Config{Endpoints: []string{server.URL}, Gateway: gateway, Holder: "a", Prefix: "/some/where/"})
		defer h.Close()
		for _, key := range []state.Key{statetest.Plain.Key("x"), statetest.Secret.Key("x"), statetest.Single.Only()} {
			if _, err := h.Put(ctx, state.Record{Key: key, Value: []byte(gateway)}); err != nil {
				t.Fatal(err)
			}
		}
		term, err := h.Lease("peering").Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer term.Release(ctx)
	}
	client := connect(t, server.URL)
	answer, err := client.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range answer.Kvs {
		keys = append(keys, string(kv.Key))
	}
	want := ""
	for _, gateway := range []string{"east", "west"} {
		for _, key := range []string{"leases/peering", "records/test-plain/x", "records/test-single/only", "secrets/test-secret/x", "terms/peering"} {
			want += "/some/where/" + gateway + "/" + key + "\n"
		}
	}
	if got := strings.Join(keys, "\n") + "\n"; got != want {
		t.Errorf("keys\n%s\nwant\n%s", got, want)
	}
}

func connect(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// An etcd that is away is told within the deadline, and the home works on when it is back. One that hangs, too.
func TestAway(t *testing.T) {
	t.Parallel()
	server := statetest.Etcd(t, "http")
	h := open(t, etcd.Config{Endpoints: []string{server.URL}, Gateway: "east", Holder: "a"})
	defer h.Close()
	key := statetest.Plain.Key("x")
	revision, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	term, err := h.Lease("x").Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	watched := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Watch(ctx, statetest.Plain, func() { watched <- struct{}{} })
	}()
	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"killed", server.Kill, func() { server.Start(t) }},
		{"stopped", func() { server.Signal(t, syscall.SIGSTOP) }, func() { server.Signal(t, syscall.SIGCONT) }},
	} {
		outage.begin()
		var group sync.WaitGroup
		for what, call := range map[string]func() error{
			"get":  func() error { _, err := h.Get(t.Context(), key); return err },
			"list": func() error { _, err := h.List(t.Context(), statetest.Plain); return err },
			"put": func() error {
				_, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("lost"), Revision: "1"})
				return err
			},
			"lease": func() error { _, err := h.Lease("y").Acquire(t.Context()); return err },
		} {
			group.Go(func() {
				began := time.Now()
				err := call()
				if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Timeout) {
					t.Errorf("%s of an etcd that is %s: %v", what, outage.name, err)
					return
				}
				if took := time.Since(began); took > 7*time.Second {
					t.Errorf("%s of an etcd that is %s took %s", what, outage.name, took)
				}
				if message := fault.Of(err).Message; !strings.Contains(message, "state, in etcd") || strings.Contains(message, "127.0.0.1") {
					t.Errorf("it says %q", message)
				}
			})
		}
		group.Wait()
		outage.end()
		deadline := time.Now().Add(20 * time.Second)
		for {
			_, err := h.Get(t.Context(), key)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after it was %s: %v", outage.name, err)
			}
		}
	}
	select {
	case <-term.Lost():
	default:
		t.Error("the lease outlived its home's absence")
	}
	for len(watched) > 0 {
		<-watched
	}
	for told := false; !told; {
		if revision, err = h.Put(t.Context(), state.Record{Key: key, Value: []byte("2"), Revision: revision}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-watched:
			told = true
		case <-time.After(time.Second):
		}
	}
	stop()
	<-done
}

// With TLS, client certificates and etcd's users: a gateway's user sees its own keys alone.
func TestCredentials(t *testing.T) {
	t.Parallel()
	keys := newPKI(t)
	server := statetest.Etcd(t, "https", "--cert-file", keys.file("server.crt"), "--key-file", keys.file("server.key"),
		"--trusted-ca-file", keys.file("ca.crt"), "--client-cert-auth")
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{server.URL}, TLS: keys.client(t), DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx := t.Context()
	for _, err := range []error{
		second(admin.UserAdd(ctx, "root", "root-password")), second(admin.UserGrantRole(ctx, "root", "root")),
		second(admin.RoleAdd(ctx, "east")), second(admin.UserAdd(ctx, "east", "pass word")), second(admin.UserGrantRole(ctx, "east", "east")),
		second(admin.RoleGrantPermission(ctx, "east", "/isthmus/east/", clientv3.GetPrefixRangeEnd("/isthmus/east/"), clientv3.PermissionType(clientv3.PermReadWrite))),
		second(admin.AuthEnable(ctx)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("pass word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := etcd.Config{Endpoints: []string{server.URL}, Prefix: "/isthmus", Gateway: "east", Holder: "a",
		CA: keys.file("ca.crt"), Certificate: keys.file("client.crt"), Key: keys.file("client.key"), Username: "east", PasswordFile: password}
	east := open(t, config)
	defer east.Close()
	record := state.Record{Key: statetest.Secret.Key("x"), Value: []byte("1")}
	if _, err := east.Put(ctx, record); err != nil {
		t.Fatal(err)
	}
	term, err := east.Lease("x").Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Release(ctx); err != nil {
		t.Error(err)
	}
	west := config
	west.Gateway = "west"
	other := open(t, west)
	defer other.Close()
	if _, err := other.Get(ctx, record.Key); !fault.Is(err, fault.Denied) {
		t.Errorf("another gateway's keys: %v", err)
	}
	if _, err := other.Put(ctx, record); !fault.Is(err, fault.Denied) {
		t.Errorf("another gateway's keys: %v", err)
	}
	if err := os.WriteFile(password, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Open(config); !fault.Is(err, fault.Denied) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	for name, change := range map[string]func(*etcd.Config){
		"a stranger's authority": func(c *etcd.Config) { c.CA = newPKI(t).file("ca.crt") },
		"no client certificate":  func(c *etcd.Config) { c.Certificate, c.Key = "", "" },
	} {
		c := config
		c.Username, c.PasswordFile = "", ""
		change(&c)
		h := open(t, c)
		defer h.Close()
		if _, err := h.Get(ctx, record.Key); !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Timeout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for want, c := range map[string]etcd.Config{
		"no endpoint is given":         {},
		"write https://host:port":      {Endpoints: []string{"etcd.example:2379"}},
		"would carry secrets":          {Endpoints: []string{"http://etcd.example:2379"}},
		"no endpoint is https://":      {Endpoints: []string{"http://127.0.0.1:1"}, CA: file("a", "")},
		"a certificate needs its key":  {Endpoints: []string{"https://etcd.example:1"}, Certificate: file("b", "")},
		"holds no certificate":         {Endpoints: []string{"https://etcd.example:1"}, CA: file("c", "x")},
		"client certificate":           {Endpoints: []string{"https://etcd.example:1"}, Certificate: file("d", "x"), Key: file("e", "x")},
		"a user name needs":            {Endpoints: []string{"https://etcd.example:1"}, Username: "u"},
		"is empty":                     {Endpoints: []string{"https://etcd.example:1"}, Username: "u", PasswordFile: file("f", "\n")},
		"no such file or directory":    {Endpoints: []string{"https://etcd.example:1"}, Username: "u", PasswordFile: filepath.Join(dir, "none")},
		"no user name and no password": {Endpoints: []string{"https://u:p@etcd.example:2379"}},
	} {
		h, err := etcd.Open(c)
		if err == nil {
			h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if err := errors.Join(endpoint.Check("https://etcd.example:2379"), endpoint.Check("http://[::1]:2379"), endpoint.Check("http://localhost:2379/")); err != nil {
		t.Error(err)
	}
}
