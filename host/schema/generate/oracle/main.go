// Fills in, in ../tests/cases, what Kubernetes' own code answers to each case: strategic merge patches and stories of
// server-side apply. Run as `go run ./oracle` in this folder's parent after changing a case. See README.md.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	clientapply "k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

type patchCase struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"`
	Original json.RawMessage `json:"original"`
	Patch    json.RawMessage `json:"patch"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    bool            `json:"error,omitempty"`
}

type story struct {
	Name   string          `json:"name"`
	Kind   string          `json:"kind"`
	Schema json.RawMessage `json:"schema,omitempty"` // of a custom kind
	Steps  []*step         `json:"steps"`
}

type step struct {
	Verb        string          `json:"verb"` // apply, update; create is an update of nothing
	Manager     string          `json:"manager"`
	Subresource string          `json:"subresource,omitempty"`
	Force       bool            `json:"force,omitempty"`
	Object      json.RawMessage `json:"object,omitempty"`
	Merge       json.RawMessage `json:"merge,omitempty"` // in place of object: a merge patch of the live one
	Answer      json.RawMessage `json:"answer,omitempty"`
	Error       string          `json:"error,omitempty"`
}

func main() {
	var patches []*patchCase
	read("strategic.json", &patches)
	for _, c := range patches {
		kind := parse(c.Kind)
		object, err := scheme.Scheme.New(kind)
		must(err)
		result, err := strategicpatch.StrategicMergePatch(c.Original, c.Patch, object)
		c.Result, c.Error = result, err != nil
		if err != nil {
			c.Result = nil
		}
	}
	write("strategic.json", patches)

	var stories []*story
	read("apply.json", &stories)
	for _, s := range stories {
		tell(s)
	}
	write("apply.json", stories)
}

func tell(s *story) {
	kind := parse(s.Kind)
	var types managedfields.TypeConverter = clientapply.NewTypeConverter(scheme.Scheme)
	custom := len(s.Schema) > 0
	if custom {
		root := &spec.Schema{}
		must(json.Unmarshal(s.Schema, root))
		root.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind}})
		var err error
		types, err = managedfields.NewTypeConverter(map[string]*spec.Schema{"custom": root}, false)
		must(err)
	}
	objects := &converter{custom: custom, kind: kind}
	live, err := objects.New(kind)
	must(err)
	for _, step := range s.Steps {
		resets := "status"
		if step.Subresource == "status" {
			resets = "spec"
		}
		filter := map[fieldpath.APIVersion]fieldpath.Filter{
			fieldpath.APIVersion(kind.GroupVersion().String()): fieldpath.NewExcludeSetFilter(fieldpath.NewSet(fieldpath.MakePathOrDie(resets))),
		}
		build := managedfields.NewDefaultFieldManager
		if custom {
			build = managedfields.NewDefaultCRDFieldManager
		}
		manager, err := build(types, objects, objects, objects, kind, kind.GroupVersion(), step.Subresource, filter)
		must(err)
		body := []byte(step.Object)
		if len(step.Merge) > 0 {
			body, err = jsonpatch.MergePatch(encode(live), step.Merge)
			must(err)
		}
		var done runtime.Object
		if step.Verb == "apply" {
			config := &unstructured.Unstructured{}
			must(config.UnmarshalJSON(body))
			done, err = manager.Apply(live, config, step.Manager, step.Force)
		} else {
			wanted := &unstructured.Unstructured{}
			must(config(body, wanted))
			typed, problem := objects.ConvertToVersion(wanted, nil)
			must(problem)
			done, err = manager.Update(live, typed, step.Manager)
		}
		step.Answer, step.Error = nil, ""
		if err != nil {
			step.Error = err.Error()
			continue
		}
		live = done
		// From here on it exists; a create is told by the uid being absent.
		accessor := live.(metav1.Object)
		accessor.SetUID("u")
		step.Answer = tidy(encode(live))
	}
}

func config(body []byte, into *unstructured.Unstructured) error { return into.UnmarshalJSON(body) }

// Times differ from run to run, and entries are in the order of their times.
func tidy(object []byte) json.RawMessage {
	var value map[string]any
	must(json.Unmarshal(object, &value))
	meta := value["metadata"].(map[string]any)
	delete(meta, "uid")
	entries, _ := meta["managedFields"].([]any)
	key := func(i int) string {
		e := entries[i].(map[string]any)
		return fmt.Sprint(e["operation"], e["manager"], e["apiVersion"], e["subresource"])
	}
	for _, entry := range entries {
		delete(entry.(map[string]any), "time")
	}
	sort.SliceStable(entries, func(i, j int) bool { return key(i) < key(j) })
	tidied, err := json.Marshal(value)
	must(err)
	return tidied
}

// Between bytes, untyped and typed objects of one version.
type converter struct {
	custom bool
	kind   schema.GroupVersionKind
}

func (c *converter) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	if c.custom {
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(kind)
		return object, nil
	}
	object, err := scheme.Scheme.New(kind)
	if err == nil {
		object.GetObjectKind().SetGroupVersionKind(kind)
	}
	return object, err
}

func (c *converter) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	untyped, ok := in.(*unstructured.Unstructured)
	if c.custom || !ok {
		return in, nil
	}
	typed, err := c.New(c.kind)
	if err != nil {
		return nil, err
	}
	return typed, json.Unmarshal(encode(untyped), typed)
}

func (c *converter) Convert(_, _, _ any) error { return fmt.Errorf("not used") }

func (c *converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

func (c *converter) Default(runtime.Object) {}

func encode(object runtime.Object) []byte {
	data, err := json.Marshal(object)
	must(err)
	return data
}

func parse(text string) schema.GroupVersionKind {
	at := strings.LastIndex(text, "/")
	version, err := schema.ParseGroupVersion(text[:at])
	must(err)
	return version.WithKind(text[at+1:])
}

func read(name string, into any) {
	data, err := os.ReadFile("../tests/cases/" + name)
	must(err)
	must(json.Unmarshal(data, into))
}

// One case a line, so that a change is a line to read.
func write[T any](name string, cases []T) {
	var lines []string
	for _, c := range cases {
		line, err := json.Marshal(c)
		must(err)
		lines = append(lines, string(line))
	}
	must(os.WriteFile("../tests/cases/"+name, []byte("[\n"+strings.Join(lines, ",\n")+"\n]\n"), 0o644))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
