// Writes ../tests/cases/protobuf.txt: an object of every kind in the table, as JSON and as Kubernetes' own serializer
// encodes it. See ../README.md.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

func main() {
	must(apiextensions.AddToScheme(scheme.Scheme))
	must(apiregistration.AddToScheme(scheme.Scheme))
	must(metrics.AddToScheme(scheme.Scheme))
	must(metav1.AddMetaToScheme(scheme.Scheme))
	table, err := os.Open("../src/table.txt")
	must(err)
	file, err := os.Create("../tests/cases/protobuf.txt")
	must(err)
	out := bufio.NewWriter(file)
	fmt.Fprintln(out, "# API version, kind, JSON, protobuf in base64 (`-`: the kind has none). Made by host/schema/generate; not for hands.")
	encoder := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	fill := filler{seen: map[reflect.Type]bool{}}
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		words := strings.Split(lines.Text(), " ")
		if words[0] != "@kind" {
			continue
		}
		version, err := schema.ParseGroupVersion(strings.TrimPrefix(words[1], "/"))
		must(err)
		kind := version.WithKind(words[2])
		empty, err := scheme.Scheme.New(kind)
		must(err)
		full, err := scheme.Scheme.New(kind)
		must(err)
		fill.value(reflect.ValueOf(full).Elem())
		for _, object := range []runtime.Object{empty, full} {
			object.GetObjectKind().SetGroupVersionKind(kind)
			text, err := json.Marshal(object)
			must(err)
			// As JSON leaves it: some values in memory have no JSON of their own.
			object = reflect.New(reflect.TypeOf(object).Elem()).Interface().(runtime.Object)
			must(json.Unmarshal(text, object))
			encoded := "-"
			var wire bytes.Buffer
			if err := encoder.Encode(object, &wire); err == nil {
				encoded = base64.StdEncoding.EncodeToString(wire.Bytes())
			} else if !protobuf.IsNotMarshalable(err) {
				panic(err)
			}
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", version, kind.Kind, text, encoded)
			if encoded == "-" {
				break
			}
		}
	}
	must(lines.Err())
	must(out.Flush())
	must(file.Close())
}

// Fills values with something; each struct type in full where it is met first and left empty after that, so that every
// field of the table is there once and the file stays small.
type filler struct {
	seen map[reflect.Type]bool
	next int
}

func (f *filler) turn(of int) int {
	f.next++
	return f.next % of
}

func (f *filler) value(v reflect.Value) {
	switch special := v.Addr().Interface().(type) {
	case *metav1.TypeMeta:
		return
	case *resource.Quantity:
		*special = resource.MustParse([]string{"0", "1500m", "1Gi", "3", "-2k"}[f.turn(5)])
		return
	case *intstr.IntOrString:
		*special = []intstr.IntOrString{intstr.FromInt32(-8), intstr.FromString("25%"), intstr.FromInt32(0)}[f.turn(3)]
		return
	case *metav1.Time:
		*special = metav1.Unix(int64(1700000000+f.turn(1000)), 0)
		return
	case *metav1.MicroTime:
		*special = metav1.NewMicroTime(time.Unix(int64(1700000000+f.turn(1000)), int64(f.turn(2))*5000))
		return
	case *metav1.Duration:
		special.Duration = []time.Duration{0, time.Hour + 1500*time.Millisecond, -time.Second}[f.turn(3)]
		return
	case *metav1.FieldsV1:
		special.Raw = []byte(`{"f:metadata":{"f:labels":{"f:a":{}}}}`)
		return
	case *runtime.RawExtension:
		special.Raw = []byte(`{"apiVersion":"v1","kind":"X","n":[1,null,"é"]}`)
		return
	case *apiextensions.JSON:
		special.Raw = []byte([]string{`"text"`, `{"a":[1,2.5]}`, `null`}[f.turn(3)])
		return
	case *apiextensions.JSONSchemaPropsOrArray:
		if f.turn(2) == 0 {
			special.JSONSchemas = []apiextensions.JSONSchemaProps{{Type: "string"}, {}}
		} else {
			special.Schema = &apiextensions.JSONSchemaProps{Type: "integer"}
		}
		return
	case *apiextensions.JSONSchemaPropsOrBool:
		if special.Allows = f.turn(2) == 0; special.Allows {
			special.Schema = &apiextensions.JSONSchemaProps{Type: "integer"}
		}
		return
	case *apiextensions.JSONSchemaPropsOrStringArray:
		if f.turn(2) == 0 {
			special.Property = []string{"a", "b"}
		} else {
			special.Schema = &apiextensions.JSONSchemaProps{Type: "integer"}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if f.seen[v.Type()] {
			return
		}
		f.seen[v.Type()] = true
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Tag.Get("json") != "-" {
				f.value(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		// Every third stays at its zero value: there, and empty.
		if v.Elem().Kind() == reflect.Struct || f.turn(3) > 0 {
			f.value(v.Elem())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{0, 0xff, byte(f.turn(256))})
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1+f.turn(2), 2))
		for i := range v.Len() {
			f.value(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		keys := []string{"b", "a", ""}[:1+f.turn(3)]
		sort.Strings(keys)
		for _, key := range keys {
			value := reflect.New(v.Type().Elem()).Elem()
			f.value(value)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
		}
	case reflect.String:
		v.SetString([]string{"a", "b é", "x-1"}[f.turn(3)])
	case reflect.Bool:
		v.SetBool(f.turn(2) == 0)
	case reflect.Int32:
		v.SetInt([]int64{1, -1, 1 << 30, 300}[f.turn(4)])
	case reflect.Int64:
		v.SetInt([]int64{1, -1, 1 << 60, 300}[f.turn(4)])
	case reflect.Float64:
		v.SetFloat([]float64{0.5, -3, 1e9}[f.turn(3)])
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf("cell"))
		}
	default:
		panic(fmt.Sprintf("%s: nothing to fill it with", v.Type()))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
