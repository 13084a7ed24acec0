package manifest

import "time"

// The limits of a gateway's certificate: short enough to need no revocation, long enough to be renewed in peace.
const (
	minLifetime = 10 * time.Minute
	maxLifetime = 365 * 24 * time.Hour
	minRenewal  = time.Minute
)

// validateAuthority holds the parts of spec.trust against each other.
func validateAuthority(g Gateway, issues *Issues) {
	trust := g.Spec.Trust
	for _, part := range []struct {
		of     AuthorityKind
		fields [][2]string
	}{
		{AuthorityFiles, [][2]string{{"caFile", trust.Files.CAFile}, {"certFile", trust.Files.CertFile}, {"keyFile", trust.Files.KeyFile}}},
		{AuthoritySecret, [][2]string{{"namespace", trust.Secret.Namespace}, {"name", trust.Secret.Name}}},
	} {
		path := "spec.trust." + string(part.of)
		_, written := g.fields[path]
		if trust.Authority != part.of {
			if written && trust.Authority != "" {
				issues.add(g.At(path), path, "the authority is %s", trust.Authority)
			}
			continue
		}
		for _, field := range part.fields {
			_, there := g.fields[path+"."+field[0]] // and wrong, which was said
			if field[1] == "" && !there {
				issues.add(g.At(path), path+"."+field[0], "is required with authority %s", part.of)
			}
		}
	}
	if trust.Authority == AuthoritySecret && g.Spec.Orchestrator.Type == Docker {
		issues.add(g.At("spec.trust.authority"), "spec.trust.authority", "a Secret can be read on Kubernetes only; use files")
	}
	life, err := time.ParseDuration(trust.Lifetime)
	if err != nil {
		return // said already
	}
	if life < minLifetime || life > maxLifetime {
		issues.add(g.At("spec.trust.lifetime"), "spec.trust.lifetime", "must be from %s to %s", minLifetime, maxLifetime)
	}
	before, err := time.ParseDuration(trust.RenewBefore)
	if err == nil && (before < minRenewal || before >= life) {
		issues.add(g.At("spec.trust.renewBefore"), "spec.trust.renewBefore", "must be from %s to less than lifetime, %s", minRenewal, trust.Lifetime)
	}
}
