package kubernetes

import (
	"context"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// userOfExec gives the user that a command runs as, as far as an exec's own wish for one makes it matter. Neither the
// Pod's spec nor every runtime tells the user of an image, so the image's own id is asked at last.
func (a *action) userOfExec(ctx context.Context, wanted string, found *located) (string, error) {
	return effectiveUser(wanted, &found.Container, containerStatus(found.pod, found.native()), func(option string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		output, code, err := a.capture(ctx, found, []string{"id", option})
		if code != 0 {
			output = ""
		}
		return output, err
	})
}

// effectiveUser gives the user of a container, "" where nothing tells it: what the runtime says that it is, else what
// the spec wants it to be, else what id prints inside. ask runs id with one option; "" is no answer.
func effectiveUser(wanted string, c *neutral.Container, status *corev1.ContainerStatus, ask func(option string) (string, error)) (string, error) {
	known := c.User
	if status != nil && status.User != nil && status.User.Linux != nil {
		known = strconv.FormatInt(status.User.Linux.UID, 10) + ":" + strconv.FormatInt(status.User.Linux.GID, 10)
	}
	uid, gid, both := strings.Cut(wanted, ":")
	if _, err := numericID(uid); wanted == "" || err != nil {
		return known, nil //nolint:nilerr // a name that is no number: there is nothing to compare
	}
	ownUID, ownGID, _ := strings.Cut(known, ":")
	if ownUID == "" {
		var err error
		if ownUID, err = askID("-u", ask); err != nil || ownUID == "" {
			return "", err
		}
	}
	if both && gid != "" && ownGID == "" {
		var err error
		if ownGID, err = askID("-g", ask); err != nil {
			return "", err
		}
	}
	if ownGID == "" {
		return ownUID, nil
	}
	return ownUID + ":" + ownGID, nil
}

// askID takes only a number for an answer: whatever else is printed is a program's that is called id too.
func askID(option string, ask func(string) (string, error)) (string, error) {
	text, err := ask(option)
	if err != nil {
		return "", err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31)
	if err != nil {
		return "", nil //nolint:nilerr // no number is no answer, and no failure
	}
	return strconv.FormatUint(id, 10), nil
}

// refuseUser says why a command cannot run as the user that an exec wants.
func refuseUser(wanted, own string) error {
	for name := range strings.SplitSeq(wanted, ":") {
		if _, err := numericID(name); name != "" && err != nil {
			return refuse("User", "Kubernetes runs commands as the container's own user, and which number %q is, only the image knows", name)
		}
	}
	if own == "" {
		return refuse("User", "Kubernetes runs commands as the container's own user, and nothing tells which one that is: "+
			"not the Pod, not its node, not an id in the image")
	}
	return refuse("User", "Kubernetes runs commands as the container's own user, which is %s", own)
}

// sameUser compares an exec's user with the container's; root has one number in every image, other names do not.
func sameUser(wanted, own string) bool {
	uid, gid, both := strings.Cut(wanted, ":")
	ownUID, ownGID, _ := strings.Cut(own, ":")
	return sameID(uid, ownUID) && (!both || gid == ownGID || sameID(gid, ownGID))
}

func sameID(wanted, own string) bool {
	a, errA := numericID(wanted)
	b, errB := numericID(own)
	return errA == nil && errB == nil && a == b
}
