// Fills in, in ../tests/cases/definitions.json and ../tests/cases/customs.json, what apiextensions-apiserver answers: the complaints
// about each definition, and what each object of a custom kind becomes and what is wrong with it. Run as `go run ./custom`
// in this folder's parent after adding a case. See README.md.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	crdcel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	apiservervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/common"
)

type definition struct {
	Name   string          `json:"name"`
	CRD    json.RawMessage `json:"crd"`
	Old    json.RawMessage `json:"old,omitempty"`
	Causes []string        `json:"causes"`
}

type custom struct {
	Name   string          `json:"name"`
	Schema json.RawMessage `json:"schema"`
	Object json.RawMessage `json:"object"`
	Old    json.RawMessage `json:"old,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Causes []string        `json:"causes"`
}

var scheme = runtime.NewScheme()

func main() {
	install.Install(scheme)
	var definitions []*definition
	read("definitions.json", &definitions)
	for _, d := range definitions {
		crd := parse(d.CRD)
		if len(crd.Status.StoredVersions) == 0 {
			for _, version := range crd.Spec.Versions {
				if version.Storage {
					crd.Status.StoredVersions = append(crd.Status.StoredVersions, version.Name)
				}
			}
		}
		var found field.ErrorList
		if d.Old == nil {
			found = validation.ValidateCustomResourceDefinition(context.TODO(), crd)
		} else {
			old := parse(d.Old)
			crd.ResourceVersion, old.ResourceVersion = "1", "1"
			found = validation.ValidateCustomResourceDefinitionUpdate(context.TODO(), crd, old)
		}
		d.Causes = tell(found)
	}
	write("definitions.json", definitions)

	var customs []*custom
	read("customs.json", &customs)
	for _, c := range customs {
		var v1 apiextensionsv1.JSONSchemaProps
		must(json.Unmarshal(c.Schema, &v1))
		var internal apiextensions.JSONSchemaProps
		must(apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&v1, &internal, nil))
		shape, err := structural.NewStructural(&internal)
		must(err)
		validator, _, err := apiservervalidation.NewSchemaValidator(&internal)
		must(err)
		ready := func(text json.RawMessage) map[string]interface{} {
			if text == nil {
				return nil
			}
			object := map[string]interface{}{}
			must(utiljson.Unmarshal(text, &object))
			pruning.Prune(object, shape, true)
			if err, _ := objectmeta.CoerceWithOptions(nil, object, shape, true, objectmeta.CoerceOptions{DropInvalidFields: true}); err != nil {
				c.Causes = append(c.Causes, err.Error())
			}
			defaulting.PruneNonNullableNullsWithoutDefaults(object, shape)
			defaulting.Default(object, shape)
			return object
		}
		object, old := ready(c.Object), ready(c.Old)
		c.Result, err = json.Marshal(object)
		must(err)
		var found field.ErrorList
		rules := crdcel.NewValidator(shape, true, 1000000)
		if old == nil {
			found = append(found, apiservervalidation.ValidateCustomResource(nil, object, validator)...)
			found = append(found, listtype.ValidateListSetsAndMaps(nil, shape, object)...)
			if !blocked(&found, rules) {
				rest, _ := rules.Validate(context.TODO(), nil, shape, object, nil, 10000000)
				found = append(found, rest...)
			}
		} else {
			correlation := common.NewCorrelatedObject(object, old, &model.Structural{Structural: shape})
			found = append(found, apiservervalidation.ValidateCustomResourceUpdate(nil, object, old, validator, apiservervalidation.WithRatcheting(correlation))...)
			if before := listtype.ValidateListSetsAndMaps(nil, shape, old); len(before) == 0 {
				found = append(found, listtype.ValidateListSetsAndMaps(nil, shape, object)...)
			}
			if !blocked(&found, rules) {
				rest, _ := rules.Validate(context.TODO(), nil, shape, object, old, 10000000, crdcel.WithRatcheting(correlation))
				found = append(found, rest...)
			}
		}
		c.Causes = tell(found)
	}
	write("customs.json", customs)
}

// blocked tells as the strategy of custom resources does whether rules can be held against the object.
func blocked(found *field.ErrorList, rules *crdcel.Validator) bool {
	for _, cause := range *found {
		switch cause.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			if rules != nil {
				says := "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
				*found = append(*found, field.Invalid(nil, nil, says))
			}
			return true
		}
	}
	return false
}

func parse(text json.RawMessage) *apiextensions.CustomResourceDefinition {
	var v1 apiextensionsv1.CustomResourceDefinition
	must(json.Unmarshal(text, &v1))
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
	var internal apiextensions.CustomResourceDefinition
	must(scheme.Convert(&v1, &internal, nil))
	return &internal
}

func tell(found field.ErrorList) []string {
	causes := []string{}
	for _, cause := range found {
		causes = append(causes, fmt.Sprintf("%s %s: %s", cause.Type, cause.Field, cause.ErrorBody()))
	}
	// Upstream walks maps in no order.
	sort.Strings(causes)
	return causes
}

func read(name string, into interface{}) {
	text, err := os.ReadFile("../tests/cases/" + name)
	must(err)
	must(json.Unmarshal(text, into))
}

func write[T any](name string, cases []*T) {
	var out bytes.Buffer
	out.WriteString("[\n")
	for i, c := range cases {
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		must(encoder.Encode(c))
		out.Write(bytes.TrimSpace(line.Bytes()))
		if i < len(cases)-1 {
			out.WriteString(",")
		}
		out.WriteString("\n")
	}
	out.WriteString("]\n")
	must(os.WriteFile("../tests/cases/"+name, out.Bytes(), 0o644))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
