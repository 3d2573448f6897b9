package main

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

var group = schema.GroupVersion{Group: "controller-runtime.pilotis.test", Version: "v1"}

// Garden is the operator's kind: it grows in the soil of a ConfigMap.
type Garden struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GardenSpec   `json:"spec"`
	Status            GardenStatus `json:"status,omitempty"`
}

type GardenSpec struct {
	Seeds int32 `json:"seeds"`
	// The name of a ConfigMap.
	Soil string `json:"soil,omitempty"`
}

type GardenStatus struct {
	Grown      int32              `json:"grown,omitempty"`
	Soil       string             `json:"soil,omitempty"`
	Gardener   string             `json:"gardener,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

type GardenList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Garden `json:"items"`
}

func (in *Garden) DeepCopyObject() runtime.Object { return in.DeepCopy() }

func (in *Garden) DeepCopy() *Garden {
	out := *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Status.Conditions = append([]metav1.Condition(nil), in.Status.Conditions...)
	return &out
}

func (in *GardenList) DeepCopyObject() runtime.Object {
	out := *in
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Garden, len(in.Items))
	for i := range in.Items {
		out.Items[i] = *in.Items[i].DeepCopy()
	}
	return &out
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(group, &Garden{}, &GardenList{})
	metav1.AddToGroupVersion(scheme, group)
	if err := clientscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, apiextensions.AddToScheme(scheme)
}

func gardens() *apiextensions.CustomResourceDefinition {
	none := 0.0
	preserve := true
	text, number := apiextensions.JSONSchemaProps{Type: "string"}, apiextensions.JSONSchemaProps{Type: "integer", Format: "int32"}
	seeds := number
	seeds.Minimum = &none
	return &apiextensions.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "gardens." + group.Group},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: group.Group,
			Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Plural: "gardens", Singular: "garden", Kind: "Garden", ListKind: "GardenList"},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: group.Version, Served: true, Storage: true,
				Subresources: &apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}},
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{
					Type:     "object",
					Required: []string{"spec"},
					Properties: map[string]apiextensions.JSONSchemaProps{
						"spec": {
							Type: "object", Required: []string{"seeds"},
							Properties: map[string]apiextensions.JSONSchemaProps{"seeds": seeds, "soil": text},
						},
						"status": {
							Type: "object",
							Properties: map[string]apiextensions.JSONSchemaProps{
								"grown": number, "soil": text, "gardener": text,
								"conditions": {
									Type:         "array",
									XListType:    ptr("map"),
									XListMapKeys: []string{"type"},
									Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &apiextensions.JSONSchemaProps{
										Type: "object", Required: []string{"type"},
										Properties:             map[string]apiextensions.JSONSchemaProps{"type": text},
										XPreserveUnknownFields: &preserve,
									}},
								},
							},
						},
					},
				}},
			}},
		},
	}
}

func ptr[T any](of T) *T { return &of }
