package main

import (
	"context"
	"fmt"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const protobufType = "application/vnd.kubernetes.protobuf"

func protobuf(ctx context.Context, w *world) {
	path := "/api/v1/namespaces/" + w.namespace + "/configmaps"
	made := w.configMap("spoken", map[string]string{"a": "1"})
	must(w.Create(ctx, made))
	var found core.ConfigMap
	must(w.get(ctx, "spoken", &found))
	same("what was asked", w.spoken.asked[path], protobufType)
	same("what was answered", w.spoken.answered[path], protobufType)
	same("what a read was answered", w.spoken.answered[path+"/spoken"], protobufType)
	same("data", found.Data, made.Data)
	same("uid", found.UID, made.UID)
	same("fields kept as managed", found.ManagedFields, made.ManagedFields)
}

func refusals(ctx context.Context, w *world) {
	must(w.Create(ctx, w.configMap("twice", nil)))
	refused(w.Create(ctx, w.configMap("twice", nil)), metav1.StatusReasonAlreadyExists)
	var one, other core.ConfigMap
	must(w.get(ctx, "twice", &one))
	must(w.get(ctx, "twice", &other))
	one.Data, other.Data = map[string]string{"a": "1"}, map[string]string{"a": "2"}
	must(w.Update(ctx, &one))
	pod := &core.Pod{ObjectMeta: w.named("bad"), Spec: core.PodSpec{Containers: []core.Container{{Name: "Main", Image: w.image}}}}
	var unknown metav1.PartialObjectMetadata
	unknown.SetGroupVersionKind(group.WithKind("Desert"))
	none := w.get(ctx, "none", &unknown)
	if !meta.IsNoMatchError(none) {
		panic(fmt.Sprintf("an unknown kind: %v", none))
	}
	refused(w.Update(ctx, &other), metav1.StatusReasonConflict)
	refused(w.get(ctx, "none", &core.Secret{}), metav1.StatusReasonNotFound)
	refused(w.Create(ctx, pod), metav1.StatusReasonInvalid, "FieldValueInvalid spec.containers[0].name")
	refused(w.Delete(ctx, &one, client.Preconditions{UID: ptr(other.UID + "x")}), metav1.StatusReasonConflict)
	refused(w.Create(ctx, w.configMap("", nil)), metav1.StatusReasonInvalid, "FieldValueRequired metadata.name")
}

func lists(ctx context.Context, w *world) {
	for n := range 5 {
		paged := w.configMap(fmt.Sprintf("paged-%d", n), nil)
		paged.Labels = map[string]string{"app": "paged", "n": fmt.Sprint(n)}
		must(w.Create(ctx, paged))
	}
	selected := []client.ListOption{client.InNamespace(w.namespace), client.MatchingLabels{"app": "paged"}, client.Limit(2)}
	var names []string
	for more := ""; ; {
		var page core.ConfigMapList
		must(w.List(ctx, &page, append(selected, client.Continue(more))...))
		for _, item := range page.Items {
			names = append(names, item.Name)
		}
		if more = page.Continue; more == "" {
			break
		}
	}
	var one metav1.PartialObjectMetadataList
	one.SetGroupVersionKind(core.SchemeGroupVersion.WithKind("ConfigMapList"))
	byName := client.MatchingFields{"metadata.name": "paged-3"}
	must(w.List(ctx, &one, client.InNamespace(w.namespace), byName))
	var left core.ConfigMapList
	same("names", names, []string{"paged-0", "paged-1", "paged-2", "paged-3", "paged-4"})
	same("found by name", len(one.Items), 1)
	same("its label", one.Items[0].Labels["n"], "3")
	must(w.DeleteAllOf(ctx, &core.ConfigMap{}, client.InNamespace(w.namespace), client.MatchingLabels{"app": "paged"}))
	must(w.List(ctx, &left, client.InNamespace(w.namespace), client.MatchingLabels{"app": "paged"}))
	same("left", len(left.Items), 0)
}

func patches(ctx context.Context, w *world) {
	labels := map[string]string{"app": "patched"}
	deployment := &apps.Deployment{ObjectMeta: w.named("patched"), Spec: apps.DeploymentSpec{
		Replicas: ptr(int32(0)),
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: core.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       core.PodSpec{Containers: []core.Container{{Name: "main", Image: w.image}}},
		},
	}}
	must(w.Create(ctx, deployment))
	old := deployment.DeepCopy()
	deployment.Spec.Template.Spec.Containers = append(deployment.Spec.Template.Spec.Containers, core.Container{Name: "side", Image: w.image})
	must(w.Patch(ctx, deployment, client.StrategicMergeFrom(old)))
	late := old.DeepCopy()
	late.Annotations = map[string]string{"late": "yes"}
	locked := client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})
	refused(w.Patch(ctx, late, locked), metav1.StatusReasonConflict)
	// The deployment's controller writes its status meanwhile.
	must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var scale autoscaling.Scale
		must(w.SubResource("scale").Get(ctx, deployment, &scale))
		scale.Spec.Replicas = 0
		return w.SubResource("scale").Update(ctx, deployment, client.WithSubResourceBody(&scale))
	}))
	apply := func(owner client.FieldOwner, data map[string]string, how ...client.ApplyOption) error {
		return w.Apply(ctx, coreapply.ConfigMap("applied", w.namespace).WithData(data), append(how, owner)...)
	}
	var applied core.ConfigMap
	same("containers", len(deployment.Spec.Template.Spec.Containers), 2)
	must(w.Delete(ctx, deployment, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	must(apply("one", map[string]string{"a": "1", "b": "1"}))
	refused(apply("two", map[string]string{"a": "2"}), metav1.StatusReasonConflict, "FieldManagerConflict .data.a")
	must(apply("two", map[string]string{"a": "2"}, client.ForceOwnership))
	must(w.get(ctx, "applied", &applied))
	same("data", applied.Data, map[string]string{"a": "2", "b": "1"})
}
