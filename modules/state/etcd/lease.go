package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isthmus-mesh/isthmus/modules/state"
)

// lease is a key that holds its holder's name and lives as long as a lease of etcd. The number of its last term is in a
// key beside it, which stays.
type lease struct {
	home           *Home
	holder, number string // keys
}

// Lease is a lease of etcd.
func (h *Home) Lease(name string) state.Lease {
	return lease{home: h, holder: h.root + "leases/" + name, number: h.root + "terms/" + name}
}

// Acquire takes the lease if nobody has it, or an earlier life of this replica.
func (l lease) Acquire(ctx context.Context) (*state.Term, error) {
	h := l.home
	ctx, cancel := h.limit(ctx)
	defer cancel()
	now, err := h.client.Txn(ctx).Then(clientv3.OpGet(l.holder), clientv3.OpGet(l.number)).Commit()
	if err != nil {
		return nil, h.failed(err)
	}
	holder, number := now.Responses[0].GetResponseRange().Kvs, now.Responses[1].GetResponseRange().Kvs
	var holderRevision, numberRevision int64
	var before clientv3.LeaseID
	if len(holder) > 0 {
		if by := string(holder[0].Value); by != h.config.Holder {
			return nil, &state.HeldError{Holder: by}
		}
		holderRevision, before = holder[0].ModRevision, clientv3.LeaseID(holder[0].Lease)
	}
	last := uint64(0)
	if len(number) > 0 {
		if last, err = strconv.ParseUint(string(number[0].Value), 10, 64); err != nil {
			return nil, fmt.Errorf("etcd: key %s holds no number (remove it to begin anew)", l.number)
		}
		numberRevision = number[0].ModRevision
	}
	term := state.NextNumber(last)
	begun := time.Now()
	granted, err := h.client.Grant(ctx, int64(h.config.Lifetime/time.Second))
	if err != nil {
		return nil, h.failed(err)
	}
	taken, err := h.client.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(l.holder), "=", holderRevision),
		clientv3.Compare(clientv3.ModRevision(l.number), "=", numberRevision),
	).Then(
		clientv3.OpPut(l.holder, h.config.Holder, clientv3.WithLease(granted.ID)),
		clientv3.OpPut(l.number, strconv.FormatUint(term, 10)),
	).Else(clientv3.OpGet(l.holder)).Commit()
	if err != nil {
		// It may have been done all the same; then it ends by itself, or is this replica's at the next try.
		return nil, h.failed(err)
	}
	if !taken.Succeeded {
		_ = l.revoke(ctx, granted.ID) // or it ends by itself
		held := &state.HeldError{Holder: "another replica"}
		if kvs := taken.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			held.Holder = string(kvs[0].Value)
		}
		return nil, held
	}
	if before != 0 {
		_ = l.revoke(ctx, before) // the key is no longer its; it ends by itself as well
	}
	at := taken.Header.Revision
	return state.NewTerm(state.TermConfig{
		Number: term, Lifetime: time.Duration(granted.TTL) * time.Second, Begun: begun, Alive: h.alive,
		Renew:   func(ctx context.Context) error { return l.renew(ctx, granted.ID, at) },
		Release: func(ctx context.Context) error { return l.revoke(ctx, granted.ID) },
	}), nil
}

// renew keeps etcd's lease alive while the key is still the one of the term.
func (l lease) renew(ctx context.Context, id clientv3.LeaseID, at int64) error {
	now, err := l.home.client.Get(ctx, l.holder)
	if err != nil {
		return l.home.failed(err)
	}
	if len(now.Kvs) == 0 || now.Kvs[0].ModRevision != at {
		return state.ErrLost
	}
	_, err = l.home.client.KeepAliveOnce(ctx, id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return state.ErrLost
	}
	if err != nil {
		return l.home.failed(err)
	}
	return nil
}

func (l lease) revoke(ctx context.Context, id clientv3.LeaseID) error {
	ctx, cancel := l.home.limit(ctx)
	defer cancel()
	if _, err := l.home.client.Revoke(ctx, id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return l.home.failed(err)
	}
	return nil
}
