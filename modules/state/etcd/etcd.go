// Package etcd is the home of state in an etcd that replicas of a gateway share. Keys read
//
//	<prefix>/<gateway>/records/<kind>/<name>
//	<prefix>/<gateway>/secrets/<kind>/<name>
//	<prefix>/<gateway>/leases/<name>
//	<prefix>/<gateway>/terms/<name>
//
// so that a role of etcd can be given the one without the other.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/etcd/endpoint"
)

// Config is what a Home needs.
type Config struct {
	Endpoints []string // https://host:port; http:// on loopback only
	Prefix    string   // of every key
	Gateway   string   // the gateway's cluster: gateways that share an etcd are apart
	Holder    string   // names this replica in leases
	// Files of PEM: the authority of the servers (else the system's), and the client's certificate with its key.
	CA, Certificate, Key string
	// Username is that of etcd's own authentication; PasswordFile holds its password.
	Username, PasswordFile string
	// Lifetime of leases; 0 is state.Lifetime. Etcd counts in seconds.
	Lifetime time.Duration
}

// Home is an etcd.
type Home struct {
	client   *clientv3.Client
	config   Config
	root     string
	alive    context.Context // ends with Close
	stop     context.CancelFunc
	deadline time.Duration
}

var _ state.Home = (*Home)(nil)

const (
	// callDeadline bounds a call whose context allows more: a gateway must know soon that its home is away.
	callDeadline = 5 * time.Second
	keepAlive    = 10 * time.Second
	watchPause   = time.Second
)

// Open connects. With a user name the etcd must answer; else it may be away for now.
func Open(c Config) (*Home, error) {
	if c.Lifetime == 0 {
		c.Lifetime = state.Lifetime
	}
	if len(c.Endpoints) == 0 {
		return nil, errors.New("etcd: no endpoint is given")
	}
	for _, one := range c.Endpoints {
		if err := endpoint.Check(one); err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
	}
	transport, err := c.tls()
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	password, err := c.password()
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	h := &Home{config: c, root: strings.TrimSuffix(c.Prefix, "/") + "/" + c.Gateway + "/", deadline: callDeadline}
	h.alive, h.stop = context.WithCancel(context.Background())
	h.client, err = clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: transport, Username: c.Username, Password: password, Context: h.alive,
		DialTimeout: callDeadline, DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: callDeadline,
		// Half of etcd's own limit for a request is left for what etcd adds.
		MaxCallSendMsgSize: 2 * state.MaxValue, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithUserAgent("isthmus")},
	})
	if err != nil {
		h.stop()
		return nil, h.failed(err)
	}
	return h, nil
}

func (h *Home) String() string { return "etcd" }

// Close ends the connection and the terms of the home's leases.
func (h *Home) Close() error {
	h.stop()
	if err := h.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (h *Home) folder(kind state.Kind) string {
	if kind.Secret {
		return h.root + "secrets/" + kind.Name + "/"
	}
	return h.root + "records/" + kind.Name + "/"
}

// Place is the key.
func (h *Home) Place(key state.Key) string { return "etcd key " + h.path(key) }

func (h *Home) path(key state.Key) string { return h.folder(key.Kind) + key.Name }

func (h *Home) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.deadline)
}

// Get reads a key.
func (h *Home) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := key.Check(); err != nil {
		return state.Record{}, err
	}
	ctx, cancel := h.limit(ctx)
	defer cancel()
	answer, err := h.client.Get(ctx, h.path(key))
	if err != nil {
		return state.Record{}, h.failed(err)
	}
	if len(answer.Kvs) == 0 {
		return state.Record{}, fmt.Errorf("%s: %w", key, state.ErrNotFound)
	}
	return state.Record{Key: key, Value: answer.Kvs[0].Value, Revision: revision(answer.Kvs[0].ModRevision)}, nil
}

func revision(of int64) string { return strconv.FormatInt(of, 10) }

// expected is the condition that a key still has a revision; none is that of a key that is not there.
func (h *Home) expected(key state.Key, revision string) (clientv3.Cmp, error) {
	of := int64(0)
	if revision != "" {
		var err error
		if of, err = strconv.ParseInt(revision, 10, 64); err != nil || of <= 0 {
			return clientv3.Cmp{}, fmt.Errorf("%s: %w", key, state.ErrConflict) // it is another home's
		}
	}
	return clientv3.Compare(clientv3.ModRevision(h.path(key)), "=", of), nil
}

// List reads the keys of a kind, as of one revision.
func (h *Home) List(ctx context.Context, kind state.Kind) ([]state.Record, error) {
	ctx, cancel := h.limit(ctx)
	defer cancel()
	folder := h.folder(kind)
	answer, err := h.client.Get(ctx, folder, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	if err != nil {
		return nil, h.failed(err)
	}
	var records []state.Record
	for _, kv := range answer.Kvs {
		key := kind.Key(strings.TrimPrefix(string(kv.Key), folder))
		if key.Check() == nil {
			records = append(records, state.Record{Key: key, Value: kv.Value, Revision: revision(kv.ModRevision)})
		}
	}
	return records, nil
}

// Put writes a key in a transaction.
func (h *Home) Put(ctx context.Context, r state.Record) (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	expected, err := h.expected(r.Key, r.Revision)
	if err != nil {
		return "", err
	}
	return h.commit(ctx, r.Key, expected, clientv3.OpPut(h.path(r.Key), string(r.Value)))
}

// Delete removes a key, in a transaction when it is a revision's.
func (h *Home) Delete(ctx context.Context, key state.Key, revision string) error {
	if err := key.Check(); err != nil {
		return err
	}
	if revision == "" {
		ctx, cancel := h.limit(ctx)
		defer cancel()
		if _, err := h.client.Delete(ctx, h.path(key)); err != nil {
			return h.failed(err)
		}
		return nil
	}
	expected, err := h.expected(key, revision)
	if err != nil {
		return err
	}
	_, err = h.commit(ctx, key, expected, clientv3.OpDelete(h.path(key)))
	return err
}

func (h *Home) commit(ctx context.Context, key state.Key, expected clientv3.Cmp, change clientv3.Op) (string, error) {
	ctx, cancel := h.limit(ctx)
	defer cancel()
	answer, err := h.client.Txn(ctx).If(expected).Then(change).Commit()
	if err != nil {
		return "", h.failed(err)
	}
	if !answer.Succeeded {
		return "", fmt.Errorf("%s: %w", key, state.ErrConflict)
	}
	return revision(answer.Header.Revision), nil
}

// Watch follows the keys of a kind. A watch that broke may have missed something, so its successor begins with a call.
func (h *Home) Watch(ctx context.Context, kind state.Kind, changed func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.alive, cancel)()
	for ctx.Err() == nil {
		// A member that is cut off from the others would say nothing for ever.
		for answer := range h.client.Watch(clientv3.WithRequireLeader(ctx), h.folder(kind), clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
			if answer.Err() != nil {
				break
			}
			changed()
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// failed says what an error of etcd means.
func (h *Home) failed(err error) error {
	var known rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &known) {
		switch {
		case errors.Is(known, rpctypes.ErrPermissionDenied), errors.Is(known, rpctypes.ErrAuthFailed),
			errors.Is(known, rpctypes.ErrUserEmpty), errors.Is(known, rpctypes.ErrInvalidAuthToken), errors.Is(known, rpctypes.ErrAuthNotEnabled):
			return fault.Wrap(fault.Denied, err, "etcd does not let the gateway use its state")
		case errors.Is(known, rpctypes.ErrRequestTooLarge):
			return fault.Wrap(fault.TooLarge, err, "etcd's limit for a request is too low for the gateway's state")
		}
	}
	var wrong net.Error
	if errors.As(err, &wrong) && wrong.Timeout() {
		err = errors.Join(err, context.DeadlineExceeded)
	}
	return state.Unavailable(h, err)
}
