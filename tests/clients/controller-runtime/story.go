package main

import (
	"context"
	"fmt"
	"strings"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

func (w *world) garden(name string, seeds int32, soil string) *Garden {
	return &Garden{ObjectMeta: w.named(name), Spec: GardenSpec{Seeds: seeds, Soil: soil}}
}

func definition(ctx context.Context, w *world) {
	made := gardens()
	must(w.Create(ctx, made))
	established := func(found *apiextensions.CustomResourceDefinition) bool {
		for _, condition := range found.Status.Conditions {
			if condition.Type == apiextensions.Established && condition.Status == apiextensions.ConditionTrue {
				return true
			}
		}
		return false
	}
	all := &world{Client: w.Client}
	until(ctx, all, made.Name, &apiextensions.CustomResourceDefinition{}, established)
	must(w.Create(ctx, w.garden("plain", 1, "")))
	path := fmt.Sprintf("/apis/%s/namespaces/%s/gardens", group, w.namespace)
	same("what was answered", w.spoken.answered[path], "application/json")
	refused(w.Create(ctx, w.garden("bad", -1, "")), metav1.StatusReasonInvalid, "FieldValueInvalid spec.seeds")
}

func subresources(ctx context.Context, w *world) {
	var plain Garden
	must(w.get(ctx, "plain", &plain))
	plain.Spec.Seeds, plain.Status.Grown = 7, 7
	must(w.Status().Update(ctx, &plain))
	same("seeds", plain.Spec.Seeds, 1)
	same("grown", plain.Status.Grown, 7)
	same("generation", plain.Generation, 1)
	controllerutil.AddFinalizer(&plain, "controller-runtime.pilotis.test/hold")
	plain.Spec.Seeds, plain.Status.Grown = 2, 0
	must(w.Update(ctx, &plain))
	same("seeds", plain.Spec.Seeds, 2)
	same("grown", plain.Status.Grown, 7)
	same("generation", plain.Generation, 2)
	must(w.Delete(ctx, &plain))
	must(w.get(ctx, "plain", &plain))
	if plain.DeletionTimestamp.IsZero() {
		panic(fmt.Sprintf("not being deleted: %+v", plain))
	}
	old := plain.DeepCopy()
	controllerutil.RemoveFinalizer(&plain, "controller-runtime.pilotis.test/hold")
	must(w.Patch(ctx, &plain, client.MergeFrom(old)))
	refused(w.get(ctx, "plain", &plain), metav1.StatusReasonNotFound)
}

func grown(seeds int32, soil string) func(*Garden) bool {
	return func(garden *Garden) bool {
		return garden != nil && garden.Status.Grown == seeds && garden.Status.Soil == soil &&
			meta.IsStatusConditionTrue(garden.Status.Conditions, "Grown")
	}
}

func grows(ctx context.Context, w *world) {
	w.start("anna")
	must(w.Create(ctx, w.garden("roses", 3, "clay")))
	var roses Garden
	until(ctx, w, "roses", &roses, grown(3, ""))
	var harvest core.ConfigMap
	must(w.get(ctx, "harvest-roses", &harvest))
	owner := metav1.GetControllerOf(&harvest)
	if owner == nil || owner.UID != roses.UID {
		panic(fmt.Sprintf("the harvest is not the roses': %+v", harvest.OwnerReferences))
	}
	uid := harvest.UID
	restored := func(found *core.ConfigMap) bool {
		return found != nil && found.UID != uid && found.Data["plants"] == "3"
	}
	same("plants", harvest.Data["plants"], "3")
	must(w.Create(ctx, w.configMap("clay", map[string]string{"kind": "heavy"})))
	until(ctx, w, "roses", &roses, grown(3, "heavy"))
	must(w.Delete(ctx, &harvest))
	until(ctx, w, "harvest-roses", &core.ConfigMap{}, restored)
	old := roses.DeepCopy()
	roses.Spec.Seeds = 4
	must(w.Patch(ctx, &roses, client.MergeFrom(old)))
	until(ctx, w, "roses", &roses, grown(4, "heavy"))
	same("gardener", roses.Status.Gardener, "anna")
}

func handover(ctx context.Context, w *world) {
	w.start("bert")
	var before, after coordination.Lease
	must(w.get(ctx, lease, &before))
	w.operators["anna"].kill()
	must(w.Create(ctx, w.garden("tulips", 2, "")))
	var tulips Garden
	until(ctx, w, "tulips", &tulips, grown(2, ""))
	must(w.get(ctx, lease, &after))
	if *before.Spec.HolderIdentity == *after.Spec.HolderIdentity || !strings.Contains(*after.Spec.HolderIdentity, "_") {
		panic("the lease is still held by " + *after.Spec.HolderIdentity)
	}
	same("gardener", tulips.Status.Gardener, "bert")
	same("transitions", *after.Spec.LeaseTransitions, *before.Spec.LeaseTransitions+1)
}

func withers(ctx context.Context, w *world) {
	var roses Garden
	must(w.get(ctx, "roses", &roses))
	same("finalizers", roses.Finalizers, []string{fence})
	must(w.Delete(ctx, &roses))
	goneGarden := func(found *Garden) bool { return found == nil }
	goneMap := func(found *core.ConfigMap) bool { return found == nil }
	until(ctx, w, "roses", &Garden{}, goneGarden)
	must(w.get(ctx, "compost-roses", &core.ConfigMap{}))
	until(ctx, w, "harvest-roses", &core.ConfigMap{}, goneMap)
	must(w.Delete(ctx, w.garden("tulips", 0, "")))
	until(ctx, w, "tulips", &Garden{}, goneGarden)
	for _, operator := range w.operators {
		operator.kill()
	}
	clear(w.operators)
	must(w.Delete(ctx, gardens()))
}
