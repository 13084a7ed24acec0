package kubernetes

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A workload is switched by one patch of its template:
//
//	as it was --patch--> as we wrote --patch--> as it was
//
// Whatever else its template is, somebody else has made it so since.

// standing is what a workload is to its switch.
type standing int

const (
	standingGone   standing = iota // it is no more, or another one of its name
	standingBefore                 // as it was
	standingOurs                   // as it was written
	standingOthers                 // as somebody else made it
)

func (r *switchRun) standing(live *unstructured.Unstructured) standing {
	if live == nil || string(live.GetUID()) != r.note.UID || live.GetDeletionTimestamp() != nil {
		return standingGone
	}
	template := replica.Object(live.Object, "spec", "template")
	switch {
	case sameNative(template, r.note.Template):
		return standingBefore
	case sameNative(template, r.note.Wrote):
		return standingOurs
	}
	return standingOthers
}

func (r *switchRun) removed() error {
	return fault.New(fault.Conflict, "%s was removed by somebody else meanwhile", r.note.described())
}

// switchWorkload brings a workload into its new mode.
func (r *switchRun) switchWorkload(ctx context.Context) (*corev1.Pod, error) {
	for patched := false; !patched; {
		live, err := r.current(ctx)
		if err != nil {
			return nil, err
		}
		switch r.standing(live) {
		case standingGone:
			return nil, r.removed()
		case standingOurs:
			if !r.ours(live) {
				return nil, fault.New(fault.Conflict, "%s was brought into the network mode %s by somebody else meanwhile", r.note.described(), r.switching.Plan.To)
			}
			patched = true
			continue
		case standingOthers:
			return nil, fault.New(fault.Conflict, "%s was changed by somebody else since its switch was planned", r.note.described())
		}
		if lease := live.GetAnnotations()[annotationSwitch]; lease != "" && !r.ours(live) {
			return nil, fault.New(fault.Conflict, "%s is in a switch already (lease %s)", r.note.described(), lease)
		}
		if err := r.step(ctx, "template of "+r.note.described()+" in the network mode "+string(r.switching.Plan.To), false); err != nil {
			return nil, err
		}
		next, err := r.cluster.patchNative(ctx, live, switchOps(live, r.note.Wrote, r.note.WroteStrategy, r.switching.ID), false)
		switch {
		case fault.Is(err, fault.Conflict): // its status has changed, or it has
			continue
		case err != nil:
			return nil, err
		}
		patched = true
		if wrote := replica.Object(next.Object, "spec", "template"); !sameNative(wrote, r.note.Wrote) {
			r.note.Wrote = wrote // admission did not say so in the dry run
			if err := r.step(ctx, "rollout of "+r.note.described(), true); err != nil {
				return nil, err
			}
		}
	}
	return r.awaitRollout(ctx, r.switching.Plan.To, false)
}

// awaitRollout waits until all Pods of the workload are in a mode and ready, and gives the one that is the target.
func (r *switchRun) awaitRollout(ctx context.Context, mode neutral.NetworkMode, back bool) (*corev1.Pod, error) {
	var target *corev1.Pod
	expected := standingOurs
	if back {
		expected = standingBefore
	}
	err := r.await(ctx, back, func(ctx context.Context) (look, error) {
		live, err := r.current(ctx)
		if err != nil {
			return look{}, err
		}
		switch now := r.standing(live); {
		case now == standingGone:
			return look{}, r.removed()
		case now != expected:
			return look{}, fault.New(fault.Conflict, "%s was changed by somebody else meanwhile", r.note.described())
		}
		pods, err := r.cluster.podsOf(ctx, live)
		if err != nil {
			return look{}, err
		}
		done, state := rolledOut(live)
		if back && done {
			done, state = restored(pods, mode, wantedPods(live))
		}
		if done {
			target = chosen(pods, r.note, mode)
			return look{done: back || target != nil, why: "none of its Pods is ready"}, nil
		}
		l := look{why: state}
		if why, final := stalledRollout(live); why != "" {
			l.why, l.lasting, l.final = why, true, final
		}
		going := slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
		for i := range pods {
			if podMode(&pods[i]) != mode || pods[i].DeletionTimestamp != nil {
				continue
			}
			why, lasting := podHindrance(&pods[i])
			if lasting = lasting && (!going || pods[i].Spec.NodeName != ""); why != "" && (lasting || !l.lasting) {
				l.why, l.lasting = why, lasting // a port may be free when the old Pod has gone
			}
		}
		if back {
			return l, r.clearBroken(ctx, pods, mode)
		}
		return l, nil
	})
	return target, err
}

// clearBroken ends the Pods of a StatefulSet that did not come up in the new mode: its controller waits for them to, also
// when its template is another one by then.
//
// https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
func (r *switchRun) clearBroken(ctx context.Context, pods []corev1.Pod, mode neutral.NetworkMode) error {
	if r.note.Kind != kindStatefulSet {
		return nil
	}
	for i := range pods {
		pod := &pods[i]
		if podMode(pod) == mode || pod.DeletionTimestamp != nil || podReady(pod) {
			continue
		}
		if err := r.step(ctx, "deletion of pod "+pod.Name+", which did not come up", false); err != nil {
			return err
		}
		if err := r.cluster.deletePod(ctx, pod, int64(gracePeriod(pod).Seconds())); err != nil {
			return err
		}
	}
	return nil
}

// restoreWorkload brings a workload back into its old mode.
func (r *switchRun) restoreWorkload(ctx context.Context) error {
	for {
		live, err := r.current(ctx)
		if err != nil {
			return err
		}
		field := switchedKinds[r.note.Kind].strategy
		var ops []patchOp
		where := r.standing(live)
		switch where {
		case standingGone:
			return r.removed()
		case standingOurs:
			ops = append(ops, patchOp{Op: "replace", Path: "/spec/template", Value: r.note.Template})
		case standingOthers:
			if !r.ours(live) {
				return r.changed()
			}
		}
		if where != standingOthers && r.ours(live) && !sameNative(r.note.Strategy, r.note.WroteStrategy) &&
			sameNative(replica.Object(live.Object, "spec", field), r.note.WroteStrategy) {
			ops = append(ops, patchOp{Op: "replace", Path: "/spec/" + field, Value: r.note.Strategy})
		}
		if r.ours(live) {
			ops = append(ops, leaseOps(live, "")...)
		}
		if len(ops) > 0 {
			name := "template of " + r.note.described() + " as it was"
			if where == standingOthers {
				name = "annotation of " + r.note.described()
			}
			if err := r.step(ctx, name, false); err != nil {
				return err
			}
			_, err := r.cluster.patchNative(ctx, live, ops, false)
			switch {
			case fault.Is(err, fault.Conflict):
				continue
			case err != nil:
				return err
			}
		}
		if where == standingOthers {
			return r.changed()
		}
		_, err = r.awaitRollout(ctx, r.switching.Plan.From, true)
		return err
	}
}

func (r *switchRun) changed() error {
	return fault.New(fault.Conflict, "%s was changed by somebody else since it was switched, and is left so", r.note.described())
}

// keep makes the new mode the object's own. Pods of one host's network go on to replace each other with the old one first.
func (r *switchRun) keep(ctx context.Context) error {
	for {
		live, err := r.current(ctx)
		switch {
		case err != nil:
			return err
		case live == nil:
			return r.removed()
		case !r.ours(live):
			return nil
		}
		ops := leaseOps(live, "")
		field := switchedKinds[r.note.Kind].strategy
		if field != "" && r.switching.Plan.To != neutral.NetworkHost && !sameNative(r.note.Strategy, r.note.WroteStrategy) &&
			sameNative(replica.Object(live.Object, "spec", field), r.note.WroteStrategy) {
			ops = append(ops, patchOp{Op: "replace", Path: "/spec/" + field, Value: r.note.Strategy})
		}
		if _, marked := live.GetAnnotations()[annotationReplacing]; marked && field == "" {
			ops = append(ops, patchOp{Op: "remove", Path: replacingPath})
		}
		if err := r.step(ctx, r.note.described()+" kept in the network mode "+string(r.switching.Plan.To), false); err != nil {
			return err
		}
		if _, err = r.cluster.patchNative(ctx, live, ops, false); !fault.Is(err, fault.Conflict) {
			return err
		}
	}
}
