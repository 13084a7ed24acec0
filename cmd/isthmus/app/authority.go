package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// The keys of a Secret of cert-manager's, by which the parts of what an admin supplies are named everywhere.
const (
	keyCA          = "ca.crt"
	keyCertificate = "tls.crt"
	keyPrivate     = "tls.key"
)

// materialPoll is how often the files of an admin's authority are looked at.
const materialPoll = time.Second

// openAuthority opens what vouches for the gateway, as far as it is here: a Secret comes later.
func (g *gateway) openAuthority(ctx context.Context, set *manifest.Set) error {
	spec := set.Gateway.Spec.Trust
	renewer := trust.RenewerConfig{Logger: g.log.With("part", "trust")}
	var err error
	if renewer.Lifetime, err = time.ParseDuration(spec.Lifetime); err != nil {
		return fmt.Errorf("spec.trust.lifetime: %w", err)
	}
	if spec.RenewBefore != "" {
		if renewer.Before, err = time.ParseDuration(spec.RenewBefore); err != nil {
			return fmt.Errorf("spec.trust.renewBefore: %w", err)
		}
	}
	switch spec.Authority {
	case manifest.AuthorityFiles:
		material, err := readMaterial(spec.Files)
		if err != nil {
			return err
		}
		if renewer.Authority, err = g.recordSupplied(ctx, material); err != nil {
			return err
		}
	case manifest.AuthoritySecret:
		if _, ok := g.target.(dialect.SecretWatcher); !ok {
			return fmt.Errorf("spec.trust: an orchestrator of type %s keeps no secret that could be read", g.dialect.Orchestrator())
		}
		g.material.Store(new("the Secret " + spec.Secret.Namespace + "/" + spec.Secret.Name + " was not read yet"))
	default:
		if g.rotator, err = trust.OpenRotator(g.vault.dir); err != nil {
			return fmt.Errorf("%w (isthmus trust init makes the certificate authority)", err)
		}
		renewer.Authority = g.rotator.Authority()
		if id := renewer.Authority.Identity(); id != g.self {
			return fmt.Errorf("the certificate authority in %s is of %s, the documents name %s", g.vault.dir, id, g.self)
		}
	}
	g.renewer = trust.NewRenewer(renewer)
	g.authority.Store(renewer.Authority)
	return nil
}

// vouch makes another authority the gateway's: the certificate is of it from now on, and peers are told of its bundle.
func (g *gateway) vouch(a *trust.Authority) {
	g.authority.Store(a)
	g.renewer.Use(a)
	if err := g.node.SetLocal(g.configuration()); err != nil {
		g.log.Error("peers could not be told of the authority", "err", err)
	}
	g.touch()
}

// errInSecret is of an authority that only the running gateway reads.
var errInSecret = errors.New("the authority is in a Secret, which only the running gateway reads: isthmus trust show tells of it")

// storedAuthority is what vouches for a gateway, as it is on this machine, for commands that ask no gateway.
func storedAuthority(ctx context.Context, set *manifest.Set, self peering.Identity) (a *trust.Authority, err error) {
	err = withVault(ctx, set, func(own *vault) error {
		switch set.Gateway.Spec.Trust.Authority {
		case manifest.AuthorityFiles:
			material, err := readMaterial(set.Gateway.Spec.Trust.Files)
			if err != nil {
				return err
			}
			a, err = supplied(own, self, material)
			return err
		case manifest.AuthoritySecret:
			return errInSecret
		default:
			a, err = trust.Open(own.dir)
			return err
		}
	})
	return a, err
}

func supplied(own *vault, self peering.Identity, material trust.Material) (*trust.Authority, error) {
	a, err := trust.Supplied(material, self, time.Now())
	if err != nil {
		return nil, fmt.Errorf("spec.trust: %w", err)
	}
	return a.Number(own.dir, time.Now())
}

// recordSupplied makes an authority of what the admin supplies and has it remembered. When another replica was first,
// what that one remembers is taken.
func (g *gateway) recordSupplied(ctx context.Context, material trust.Material) (a *trust.Authority, err error) {
	for range 2 {
		err = g.vault.change(ctx, func() error {
			if a, err = supplied(g.vault, g.self, material); err != nil {
				return err
			}
			return a.Record(g.vault.dir)
		})
		if !fault.Is(err, fault.Conflict) {
			break
		}
	}
	return a, err
}

func readMaterial(files manifest.TrustFiles) (trust.Material, error) {
	var m trust.Material
	var errs []error
	for _, f := range []struct {
		field, path string
		into        *[]byte
	}{{"caFile", files.CAFile, &m.CA}, {"certFile", files.CertFile, &m.Certificate}, {"keyFile", files.KeyFile, &m.Key}} {
		data, err := os.ReadFile(f.path)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.trust.files.%s: %w", f.field, err))
		}
		*f.into = data
	}
	return m, errors.Join(errs...)
}

// followAuthority takes what the admin supplies anew whenever it changes, until ctx ends. What is wrong is told, and
// what was before stays in use.
func (g *gateway) followAuthority(ctx context.Context) error {
	spec := g.started.Gateway.Spec.Trust
	switch spec.Authority {
	case manifest.AuthorityFiles:
		g.followFiles(ctx, spec.Files)
	case manifest.AuthoritySecret:
		where := "the Secret " + spec.Secret.Namespace + "/" + spec.Secret.Name
		return g.target.(dialect.SecretWatcher).WatchSecret(ctx, spec.Secret.Namespace, spec.Secret.Name, func(data map[string][]byte) {
			if data == nil {
				g.refuseMaterial(errors.New(where + " is not there"))
				return
			}
			g.takeMaterial(ctx, trust.Material{CA: data[keyCA], Certificate: data[keyCertificate], Key: data[keyPrivate]})
		})
	default: // its own changes by rotation only
	}
	return nil
}

// followFiles judges a content when it was seen twice in a row: one of three files may have been written and another not.
func (g *gateway) followFiles(ctx context.Context, files manifest.TrustFiles) {
	var judged, pending trust.Material
	ticker := time.NewTicker(materialPoll)
	defer ticker.Stop()
	for first := true; ; first = false {
		material, err := readMaterial(files)
		switch {
		case err != nil:
			g.refuseMaterial(err)
		case first:
			judged = material
		case material.Equal(pending) && !material.Equal(judged):
			judged = material
			g.takeMaterial(ctx, material)
		case material.Equal(judged) && material.Equal(pending) && g.material.Load() != nil && g.taken.Equal(material):
			g.material.Store(nil) // a file was away, and is as before
		}
		pending = material
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// takeMaterial makes what the admin supplies vouch for the gateway.
func (g *gateway) takeMaterial(ctx context.Context, material trust.Material) {
	a, err := g.recordSupplied(ctx, material)
	if err != nil {
		g.refuseMaterial(err)
		return
	}
	g.taken = material
	g.material.Store(nil)
	g.log.Info("the supplied authority is in use", "fingerprint", a.Fingerprint(), "until", a.NotAfter(), "renews", a.Renews())
	g.vouch(a)
}

func (g *gateway) refuseMaterial(err error) {
	text := err.Error()
	if old := g.material.Swap(&text); old != nil && *old == text {
		return
	}
	g.log.Error("the supplied authority is not taken; the one before stays", "err", err)
}
