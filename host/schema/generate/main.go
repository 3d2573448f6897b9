// Writes what Kubernetes' built-in types are made of (names, numbers, keys) to ../src/table.txt. See README.md.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"sort"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapply "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gvk "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	clientapply "k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorapply "k8s.io/kube-aggregator/pkg/client/applyconfiguration"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// The modules whose versions decide what the table says.
var modules = []string{"k8s.io/client-go", "k8s.io/apiextensions-apiserver", "k8s.io/kube-aggregator", "k8s.io/metrics"}

// How a Go type that speaks JSON its own way is written in the table.
var scalars = map[string]string{
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                 "q",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":               "o",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                     "t",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                "u",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                 "d",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                 "a",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                  "a",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON": "a",
}

// A schema or something else, whichever the JSON is: `A` a list of schemas, `B` a flag, `C` a list of texts.
var unions = map[string]string{
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "A",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "B",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "C",
}

type table struct {
	types   map[string]*structure
	written sources
	counts  map[string]int
}

type structure struct {
	goType reflect.Type
	atomic bool
	known  bool // the merge schema has been seen
	fields []*field
}

type field struct {
	name   string
	number string   // protobuf field number; 0: none
	in     []string // numbers of the embedded messages that the field is inside of in protobuf
	shape  string
	flags  []string // from Go's tags
	merge  []string // from the merge schema
}

func main() {
	kinds := map[gvk.GroupVersionKind]reflect.Type{}
	converters := map[string]managedfields.TypeConverter{}
	add := func(s *runtime.Scheme, converter managedfields.TypeConverter) {
		for kind, goType := range s.AllKnownTypes() {
			common := strings.HasSuffix(goType.PkgPath(), "apis/meta/v1")
			if kind.Version == runtime.APIVersionInternal || common && kind.Group != "" && kind.Group != "meta.k8s.io" {
				continue
			}
			if common && kind.Group == "" && kind.Version != "v1" || kind.Kind == "WatchEvent" {
				continue
			}
			kinds[kind] = goType
			converters[kind.String()] = converter
		}
	}
	extensions, registrations, measured := runtime.NewScheme(), runtime.NewScheme(), runtime.NewScheme()
	must(apiextensions.AddToScheme(extensions))
	must(apiregistration.AddToScheme(registrations))
	must(metrics.AddToScheme(measured))
	must(metav1.AddMetaToScheme(scheme.Scheme))
	add(scheme.Scheme, clientapply.NewTypeConverter(scheme.Scheme))
	add(extensions, apiextensionsapply.NewTypeConverter(extensions))
	add(registrations, aggregatorapply.NewTypeConverter(registrations))
	add(measured, nil) // read only

	t := &table{types: map[string]*structure{}, written: sources{}, counts: map[string]int{}}
	var lines []string
	for kind, goType := range kinds {
		t.visit(goType)
		lines = append(lines, fmt.Sprintf("@kind %s/%s %s %s", kind.Group, kind.Version, kind.Kind, name(goType)))
		object, err := scheme.Scheme.New(kind)
		if err != nil {
			object = reflect.New(goType).Interface().(runtime.Object)
		}
		object.GetObjectKind().SetGroupVersionKind(kind)
		converter := converters[kind.String()]
		if converter == nil {
			continue
		}
		typed, err := converter.ObjectToTyped(object)
		if err != nil {
			continue // lists, options and the like are never applied
		}
		t.merge(goType, typed.Schema(), typed.TypeRef(), map[string]bool{})
		t.counts["applied"]++
	}
	sort.Strings(lines)
	t.write(lines)
}

// Records a struct's fields from its Go tags, and those of all structs below it.
func (t *table) visit(goType reflect.Type) {
	if t.types[name(goType)] != nil {
		return
	}
	s := &structure{goType: goType}
	t.types[name(goType)] = s
	t.fields(s, goType, nil, true)
}

// `wire`: the fields are in the protobuf form. Those of an inlined TypeMeta are not.
func (t *table) fields(s *structure, goType reflect.Type, in []string, wire bool) {
	for i := range goType.NumField() {
		f := goType.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		number, repeated := "0", false
		if parts := strings.Split(f.Tag.Get("protobuf"), ","); wire && len(parts) > 1 {
			number = parts[1]
			repeated = slices.Contains(parts, "rep")
		}
		inline := len(tag) > 1 && tag[1] == "inline" || f.Anonymous && tag[0] == ""
		switch {
		case tag[0] == "-" || !f.IsExported():
			continue
		case inline:
			inside := in
			if number != "0" {
				inside = append(append([]string{}, in...), number)
			}
			t.fields(s, deref(f.Type), inside, number != "0")
			continue
		case tag[0] == "":
			panic(fmt.Sprintf("%s.%s has no JSON name", goType, f.Name))
		}
		made := &field{name: tag[0], number: number, in: in, shape: t.shape(f.Type)}
		// A named list is a message only where the field is not said to be repeated.
		if repeated && made.shape[0] == '(' {
			made.shape = "[" + made.shape[1:]
		}
		if f.Type.Kind() == reflect.Pointer {
			made.flags = append(made.flags, "*")
		}
		for _, option := range tag[1:] {
			switch option {
			case "omitempty":
				made.flags = append(made.flags, "?")
			case "omitzero":
				made.flags = append(made.flags, "0")
			default:
				panic(fmt.Sprintf("%s.%s: JSON option %q is new", goType, f.Name, option))
			}
		}
		if values := t.enum(f.Type); len(values) > 0 {
			made.merge = append(made.merge, "enum="+strings.Join(values, ","))
			t.counts["enums"]++
		}
		if key := f.Tag.Get("patchMergeKey"); key != "" {
			made.merge = append(made.merge, "by="+key)
		}
		if strategy := f.Tag.Get("patchStrategy"); strategy != "" {
			made.merge = append(made.merge, "patch="+strategy)
		}
		s.fields = append(s.fields, made)
	}
}

// The shape of a value: a letter, `[` or `{` before that of the elements, or a struct's name.
func (t *table) shape(goType reflect.Type) string {
	goType = deref(goType)
	if letter, ok := scalars[goType.PkgPath()+"."+goType.Name()]; ok {
		return letter
	}
	if letter, ok := unions[goType.PkgPath()+"."+goType.Name()]; ok {
		return letter + t.shape(reflect.TypeFor[apiextensions.JSONSchemaProps]())
	}
	if goType.Kind() != reflect.Interface && reflect.PointerTo(goType).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		panic(fmt.Sprintf("%s has JSON of its own; say in `scalars` what it is", goType))
	}
	switch goType.Kind() {
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int32:
		return "i"
	case reflect.Int64:
		return "l"
	case reflect.Float64:
		return "f"
	case reflect.Interface:
		return "a"
	case reflect.Slice:
		if goType.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		// A named list may be a message of its own in protobuf, with the items as field 1.
		if goType.Name() != "" {
			return "(" + t.shape(goType.Elem())
		}
		return "[" + t.shape(goType.Elem())
	case reflect.Map:
		if goType.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("%s: keys are not strings", goType))
		}
		return "{" + t.shape(goType.Elem())
	case reflect.Struct:
		t.visit(goType)
		return name(goType)
	}
	panic(fmt.Sprintf("%s: no letter for its kind", goType))
}

// What a text, or each of a list or map of texts, may be, if its type is marked `+enum`.
func (t *table) enum(goType reflect.Type) []string {
	goType = deref(goType)
	if goType.Kind() == reflect.Slice || goType.Kind() == reflect.Map {
		goType = deref(goType.Elem())
	}
	if goType.Kind() != reflect.String || goType.PkgPath() == "" {
		return nil
	}
	return t.written.values(goType.PkgPath(), goType.Name())
}

// Adds what the merge schema says of a struct and of everything below it.
func (t *table) merge(goType reflect.Type, s *schema.Schema, ref schema.TypeRef, seen map[string]bool) {
	goType = deref(goType)
	if goType.Kind() == reflect.Slice || goType.Kind() == reflect.Map {
		atom, ok := s.Resolve(ref)
		if ok && atom.List != nil {
			t.merge(goType.Elem(), s, atom.List.ElementType, seen)
		} else if ok && atom.Map != nil {
			t.merge(goType.Elem(), s, atom.Map.ElementType, seen)
		}
		return
	}
	if goType.Kind() != reflect.Struct || t.types[name(goType)] == nil || seen[name(goType)] {
		return
	}
	made := t.types[name(goType)]
	seen[name(goType)] = true
	atom, ok := s.Resolve(schema.TypeRef{NamedType: ref.NamedType, Inlined: ref.Inlined})
	if !ok || atom.Map == nil {
		return
	}
	atomic := atom.Map.ElementRelationship == schema.Atomic
	if made.known && made.atomic != atomic {
		panic(fmt.Sprintf("%s is atomic in one place only", goType))
	}
	first := !made.known
	made.known, made.atomic = true, atomic
	for _, field := range made.fields {
		entry, ok := atom.Map.FindField(field.name)
		if !ok {
			continue
		}
		if first {
			field.merge = append(field.merge, facts(s, entry, field, t)...)
		}
		if goField, ok := find(goType, field.name); ok {
			t.merge(goField, s, entry.Type, seen)
		}
	}
}

func facts(s *schema.Schema, entry schema.StructField, f *field, t *table) []string {
	var out []string
	atom, ok := s.Resolve(entry.Type)
	if !ok {
		panic("unresolved type of " + f.name)
	}
	if atom.List != nil && atom.List.ElementRelationship == schema.Associative {
		if len(atom.List.Keys) > 0 {
			out = append(out, "keys="+strings.Join(atom.List.Keys, ","))
			t.counts["maplists"]++
		} else {
			out = append(out, "set")
			t.counts["setlists"]++
		}
	}
	own, _ := s.Resolve(schema.TypeRef{NamedType: entry.Type.NamedType, Inlined: entry.Type.Inlined})
	switch {
	case atom.Map == nil:
	case entry.Type.NamedType == nil && atom.Map.ElementRelationship == schema.Atomic:
		out = append(out, "atomic")
	// The field says otherwise than its type.
	case own.Map != nil && own.Map.ElementRelationship != schema.Atomic && atom.Map.ElementRelationship == schema.Atomic:
		out = append(out, "atomic")
	case own.Map != nil && own.Map.ElementRelationship == schema.Atomic && atom.Map.ElementRelationship != schema.Atomic:
		out = append(out, "granular")
	}
	// A zero value or `{}` is what Go writes anyway.
	value := reflect.ValueOf(entry.Default)
	if entry.Default != nil && value.Kind() != reflect.Map && !value.IsZero() {
		text, err := json.Marshal(entry.Default)
		must(err)
		out = append(out, "default="+string(text))
	}
	return out
}

func find(goType reflect.Type, jsonName string) (reflect.Type, bool) {
	for i := range goType.NumField() {
		f := goType.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		if tag[0] == jsonName {
			return f.Type, true
		}
		if tag[0] == "" && (f.Anonymous || len(tag) > 1 && tag[1] == "inline") {
			if found, ok := find(deref(f.Type), jsonName); ok {
				return found, true
			}
		}
	}
	return nil, false
}

func (t *table) write(kinds []string) {
	file, err := os.Create("../src/table.txt")
	must(err)
	out := bufio.NewWriter(file)
	names, fields := []string{}, 0
	for name, s := range t.types {
		names = append(names, name)
		fields += len(s.fields)
	}
	sort.Strings(names)
	fmt.Fprintln(out, "# What Kubernetes' built-in types are made of. Made by host/schema/generate (its README says how); not for hands.")
	info, _ := debug.ReadBuildInfo()
	for _, source := range modules {
		for _, module := range info.Deps {
			if module.Path == source {
				fmt.Fprintf(out, "# from %s %s\n", module.Path, module.Version)
			}
		}
	}
	fmt.Fprintf(out, "# kinds %d types %d fields %d maplists %d setlists %d enums %d\n",
		len(kinds), len(names), fields, t.counts["maplists"], t.counts["setlists"], t.counts["enums"])
	for _, kind := range kinds {
		fmt.Fprintln(out, kind)
	}
	for _, name := range names {
		s := t.types[name]
		fmt.Fprint(out, "@type ", name)
		if s.atomic {
			fmt.Fprint(out, " atomic")
		}
		fmt.Fprintln(out)
		here := name[:strings.Index(name, ".")]
		for _, f := range s.fields {
			number := strings.Join(append(append([]string{}, f.in...), f.number), ".")
			// A type of the same package is written without it.
			shape := strings.Replace(f.shape, here+".", ".", 1)
			fmt.Fprintln(out, strings.Join(append([]string{f.name, number, shape + strings.Join(f.flags, "")}, f.merge...), " "))
		}
	}
	must(out.Flush())
	must(file.Close())
	fmt.Printf("%d kinds, %d types, %d fields, %v\n", len(kinds), len(names), fields, t.counts)
}

// `core/v1.Pod`, `meta/v1.ObjectMeta`, `apiextensions/v1.JSONSchemaProps`.
func name(goType reflect.Type) string {
	parts := strings.Split(goType.PkgPath(), "/")
	return strings.Join(parts[len(parts)-2:], "/") + "." + goType.Name()
}

func deref(goType reflect.Type) reflect.Type {
	for goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	return goType
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
