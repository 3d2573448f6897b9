// What authors of operators on controller-runtime rely on, asked of the cluster that KUBECONFIG names.
//
// Prints `ok WHAT` for each step, and ends with status 1 at the first that went wrong. `operator NAME` is the operator
// itself: the story runs two of them as processes of their own, so that it can kill one.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// For anything; the machines of CI are slow.
const limit = 90 * time.Second

func main() {
	ctrl.SetLogger(klog.NewKlogr())
	if len(os.Args) == 3 && os.Args[1] == "operator" {
		if err := operate(ctrl.SetupSignalHandler(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	w := openWorld()
	defer w.close()
	for _, step := range []struct {
		what string
		do   func(context.Context, *world)
	}{
		{"built-in kinds are spoken of in protobuf, both ways", protobuf},
		{"AlreadyExists, Conflict, Invalid with its causes, NotFound, an unknown kind", refusals},
		{"pages, selectors and DeleteAllOf", lists},
		{"merge patches with a lock, strategic merge, apply and its conflict, scale", patches},
		{"a definition is made, and its kind is served in JSON", definition},
		{"status and finalizers are apart from the rest", subresources},
		{"an operator makes children, and status of what it finds by an index", grows},
		{"the next leads when the leader is killed", handover},
		{"the finalizer runs, and children go with their owner", withers},
	} {
		if err := tried(step.do, w); err != nil {
			w.close()
			fmt.Fprintf(os.Stderr, "failed: %s: %v\n", step.what, err)
			os.Exit(1)
		}
		fmt.Printf("ok %s\n", step.what)
	}
}

// tried is what a step failed with.
func tried(step func(context.Context, *world), w *world) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	defer func() {
		if failed := recover(); failed != nil {
			err = fmt.Errorf("%v\n%s", failed, debug.Stack())
		}
	}()
	step(ctx, w)
	return nil
}
