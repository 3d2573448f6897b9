package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// world is what the steps share: the client, the namespace NAMESPACE, the image IMAGE, the operators.
type world struct {
	client.Client
	namespace, image string
	spoken           spoken
	operators        map[string]*operator
}

func openWorld() *world {
	scheme, err := newScheme()
	must(err)
	config, err := ctrl.GetConfig()
	must(err)
	w := &world{namespace: os.Getenv("NAMESPACE"), image: os.Getenv("IMAGE"), operators: map[string]*operator{}}
	config.Wrap(w.spoken.hear)
	w.Client, err = client.New(config, client.Options{Scheme: scheme})
	must(err)
	return w
}

// close ends what the steps have left, and shows what the operators said if the last step failed.
func (w *world) close() {
	for name, operator := range w.operators {
		operator.kill()
		fmt.Fprintf(os.Stderr, "---- operator %s\n%s", name, operator.log.String())
	}
}

func (w *world) named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: w.namespace, Labels: map[string]string{"app": name}}
}

func (w *world) configMap(name string, data map[string]string) *core.ConfigMap {
	return &core.ConfigMap{ObjectMeta: w.named(name), Data: data}
}

func (w *world) get(ctx context.Context, name string, into client.Object) error {
	return w.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, into)
}

// until reads the object of that name again and again until the condition holds; an object that is not there is nil.
func until[T client.Object](ctx context.Context, w *world, name string, object T, condition func(T) bool) {
	var last error
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		fresh := reflect.New(reflect.TypeOf(object).Elem()).Interface().(T)
		last = w.get(ctx, name, fresh)
		if errors.IsNotFound(last) {
			var none T
			return condition(none), nil
		}
		reflect.ValueOf(object).Elem().Set(reflect.ValueOf(fresh).Elem())
		return last == nil && condition(fresh), nil
	})
	if err != nil {
		panic(fmt.Sprintf("%T %s did not come to be as wanted: last %+v, %v", object, name, object, last))
	}
}

// spoken are the media types of requests and answers, by path.
type spoken struct {
	sync.Mutex
	asked, answered map[string]string
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) { return t(request) }

func (s *spoken) hear(next http.RoundTripper) http.RoundTripper {
	return transport(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil {
			s.Lock()
			defer s.Unlock()
			if s.asked == nil {
				s.asked, s.answered = map[string]string{}, map[string]string{}
			}
			s.asked[request.URL.Path] = request.Header.Get("Content-Type")
			s.answered[request.URL.Path] = response.Header.Get("Content-Type")
		}
		return response, err
	})
}

// operator is a process of this program that runs the operator.
type operator struct {
	*exec.Cmd
	log bytes.Buffer
}

func (w *world) start(name string) {
	program, err := os.Executable()
	must(err)
	o := &operator{Cmd: exec.Command(program, "operator", name)}
	o.Stdout, o.Stderr = &o.log, &o.log
	must(o.Start())
	w.operators[name] = o
}

// kill is `kill -9`: the lease is not given back.
func (o *operator) kill() {
	_ = o.Process.Kill()
	_ = o.Wait()
}

// must ends the step with an error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// same ends the step when two values differ.
func same[T any](what string, found, wanted T) {
	if !reflect.DeepEqual(found, wanted) {
		panic(fmt.Sprintf("%s: found %+v, wanted %+v", what, found, wanted))
	}
}

// refused ends the step unless a request was refused for this reason, with these reasons and fields of its causes.
func refused(err error, reason metav1.StatusReason, causes ...string) {
	status, ok := err.(errors.APIStatus)
	if !ok || status.Status().Reason != reason {
		panic(fmt.Sprintf("%s was expected, not %v", reason, err))
	}
	if len(causes) == 0 {
		return
	}
	var found []string
	for _, cause := range status.Status().Details.Causes {
		found = append(found, fmt.Sprintf("%s %s", cause.Type, cause.Field))
	}
	same("causes", found, causes)
}
