// Fills in, in ../../cel/tests/cases.json, what Kubernetes' own CEL environment makes of each expression: its type or why it
// does not compile, the estimated cost, the value or the error, and the cost of the call. Run as `go run ./cel` in this
// folder's parent after adding a case (a line with `rule`, and `schema` and `self` where it needs them). See README.md.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	crdcel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/version"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

const file = "../../cel/tests/cases.json"

type expression struct {
	Rule     string          `json:"rule"`
	Schema   json.RawMessage `json:"schema,omitempty"`
	Self     json.RawMessage `json:"self,omitempty"`
	Refused  string          `json:"refused,omitempty"`
	Type     string          `json:"type,omitempty"`
	Estimate []uint64        `json:"estimate,omitempty"`
	Value    string          `json:"value,omitempty"`
	Fault    string          `json:"fault,omitempty"`
	Cost     *uint64         `json:"cost,omitempty"`
}

func main() {
	text, err := os.ReadFile(file)
	must(err)
	var cases []*expression
	must(json.Unmarshal(text, &cases))
	var out bytes.Buffer
	out.WriteString("[\n")
	for i, c := range cases {
		answer(c)
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
	must(os.WriteFile(file, out.Bytes(), 0o644))
}

func answer(c *expression) {
	c.Refused, c.Type, c.Estimate, c.Value, c.Fault, c.Cost = "", "", nil, "", "", nil
	schema := c.Schema
	if schema == nil {
		schema = json.RawMessage(`{"type":"object"}`)
	}
	var v1 apiextensionsv1.JSONSchemaProps
	must(json.Unmarshal(schema, &v1))
	var internal apiextensions.JSONSchemaProps
	must(apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&v1, &internal, nil))
	shape, err := structural.NewStructural(&internal)
	must(err)
	decl := model.SchemaDeclType(shape, false).MaybeAssignTypeName("selfType")
	set, err := environment.MustBaseEnvSet(version.MajorMinor(1, 35)).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions:        []cel.EnvOption{cel.Variable("self", decl.CelType())},
		DeclTypes:         []*apiservercel.DeclType{decl},
	})
	must(err)
	env := set.StoredExpressionsEnv()
	ast, issues := env.Compile(c.Rule)
	if issues != nil {
		c.Refused = issues.String()
		return
	}
	c.Type = checker.FormatCELType(ast.OutputType())
	estimator := &library.CostEstimator{SizeEstimator: &sizes{decl}}
	estimate, err := env.EstimateCost(ast, estimator)
	must(err)
	c.Estimate = []uint64{estimate.Min, estimate.Max}
	program, err := env.Program(ast, cel.CostLimit(1000000), cel.CostTracking(estimator))
	if err != nil {
		c.Refused = "program instantiation failed: " + err.Error()
		return
	}
	var self interface{} = map[string]interface{}{}
	if c.Self != nil {
		must(utiljson.Unmarshal(c.Self, &self))
	}
	value, details, err := program.Eval(map[string]interface{}{"self": crdcel.UnstructuredToVal(self, shape)})
	if details != nil {
		c.Cost = details.ActualCost()
	}
	if err != nil {
		c.Fault = err.Error()
		return
	}
	c.Value = show(value)
}

type sizes struct{ root *apiservercel.DeclType }

func (s *sizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	path := element.Path()
	if len(path) == 0 {
		return nil
	}
	at := s.root
	for _, step := range path[1:] {
		var next *apiservercel.DeclType
		switch step {
		case "@items", "@values":
			next = at.ElemType
		case "@keys":
			next = at.KeyType
		default:
			if field := at.Fields[step]; field != nil {
				next = field.Type
			}
		}
		if next == nil {
			return nil
		}
		at = next
	}
	return &checker.SizeEstimate{Min: 0, Max: uint64(at.MaxElements)}
}

func (*sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// show writes a value so that its type can be told.
func show(value ref.Val) string {
	switch v := value.(type) {
	case types.Null:
		return "null"
	case types.Bool:
		return fmt.Sprint(bool(v))
	case types.Int:
		return fmt.Sprint(int64(v))
	case types.Uint:
		return fmt.Sprintf("%du", uint64(v))
	case types.Double:
		return fmt.Sprintf("double(%v)", float64(v))
	case types.String:
		return fmt.Sprintf("%q", string(v))
	case types.Bytes:
		return fmt.Sprintf("bytes(%x)", []byte(v))
	case types.Timestamp:
		return "timestamp(" + v.UTC().Format("2006-01-02T15:04:05.999999999Z07:00") + ")"
	case types.Duration:
		return fmt.Sprintf("duration(%ds,%dns)", int64(v.Seconds()), v.Nanoseconds()%1000000000)
	case *types.Optional:
		if !v.HasValue() {
			return "optional.none()"
		}
		return "optional.of(" + show(v.GetValue()) + ")"
	case traits.Mapper:
		var parts []string
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			parts = append(parts, show(key)+": "+show(v.Get(key)))
		}
		sort.Strings(parts)
		return "{" + strings.Join(parts, ", ") + "}"
	case traits.Lister:
		var parts []string
		for it := v.Iterator(); it.HasNext() == types.True; {
			parts = append(parts, show(it.Next()))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	if kind, ok := value.(ref.Type); ok {
		return "type(" + kind.TypeName() + ")"
	}
	return value.Type().TypeName()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
