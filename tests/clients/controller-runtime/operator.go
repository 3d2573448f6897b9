package main

import (
	"context"
	"fmt"
	"os"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	lease     = "gardeners"
	fence     = "controller-runtime.pilotis.test/fence"
	soilIndex = "spec.soil"
)

// gardener keeps a ConfigMap `harvest-NAME` for each Garden.
type gardener struct {
	client.Client
	name string
}

// operate runs until the context ends, or leadership is lost.
func operate(ctx context.Context, name string) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	namespace := os.Getenv("NAMESPACE")
	mgr, err := ctrl.NewManager(config, manager.Options{
		Scheme:                  scheme,
		Cache:                   cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
		Metrics:                 server.Options{BindAddress: "0"},
		LeaderElection:          true,
		LeaderElectionID:        lease,
		LeaderElectionNamespace: namespace,
		LeaseDuration:           ptr(4 * time.Second),
		RenewDeadline:           ptr(3 * time.Second),
		RetryPeriod:             ptr(500 * time.Millisecond),
	})
	if err != nil {
		return err
	}
	soilOf := func(object client.Object) []string {
		if soil := object.(*Garden).Spec.Soil; soil != "" {
			return []string{soil}
		}
		return nil
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &Garden{}, soilIndex, soilOf); err != nil {
		return err
	}
	g := &gardener{mgr.GetClient(), name}
	err = ctrl.NewControllerManagedBy(mgr).
		For(&Garden{}).
		Owns(&core.ConfigMap{}).
		Watches(&core.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(g.inSoil)).
		Complete(g)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// inSoil answers the gardens that grow in a ConfigMap.
func (g *gardener) inSoil(ctx context.Context, soil client.Object) []reconcile.Request {
	var found GardenList
	err := g.List(ctx, &found, client.InNamespace(soil.GetNamespace()), client.MatchingFields{soilIndex: soil.GetName()})
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "cannot find gardens")
	}
	var requests []reconcile.Request
	for _, garden := range found.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&garden)})
	}
	return requests
}

func (g *gardener) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var garden Garden
	if err := g.Get(ctx, request.NamespacedName, &garden); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !garden.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, g.clear(ctx, &garden)
	}
	if controllerutil.AddFinalizer(&garden, fence) {
		return ctrl.Result{}, g.Update(ctx, &garden)
	}
	harvest := &core.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "harvest-" + garden.Name, Namespace: garden.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, g.Client, harvest, func() error {
		harvest.Data = map[string]string{"plants": fmt.Sprint(garden.Spec.Seeds)}
		return controllerutil.SetControllerReference(&garden, harvest, g.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	soil := ""
	if garden.Spec.Soil != "" {
		var found core.ConfigMap
		err := g.Get(ctx, types.NamespacedName{Namespace: garden.Namespace, Name: garden.Spec.Soil}, &found)
		if client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, err
		}
		soil = found.Data["kind"]
	}
	garden.Status.Grown, garden.Status.Soil, garden.Status.Gardener = garden.Spec.Seeds, soil, g.name
	meta.SetStatusCondition(&garden.Status.Conditions, metav1.Condition{
		Type: "Grown", Status: metav1.ConditionTrue, Reason: "Watered", ObservedGeneration: garden.Generation,
	})
	return ctrl.Result{}, g.Status().Update(ctx, &garden)
}

// clear is what the finalizer is for: it leaves a ConfigMap behind that nobody owns.
func (g *gardener) clear(ctx context.Context, garden *Garden) error {
	compost := &core.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "compost-" + garden.Name, Namespace: garden.Namespace}}
	if err := client.IgnoreAlreadyExists(g.Create(ctx, compost)); err != nil {
		return err
	}
	if controllerutil.RemoveFinalizer(garden, fence) {
		return client.IgnoreNotFound(g.Update(ctx, garden))
	}
	return nil
}
