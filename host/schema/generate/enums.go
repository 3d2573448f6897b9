package main

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A package's text constants by name, and its string types that are marked `+enum`: read from its source, since
// reflection knows of no constants and no comments.
type source struct {
	constants map[string]constant
	enums     map[string]bool
}

type constant struct {
	of    string // its type, in its package
	value ast.Expr
	from  map[string]string // the packages that its file imports, by the names it has for them
}

type sources map[string]*source

// The values of a type marked `+enum`, in order, `~` for a space; none for any other type.
func (s sources) values(path, name string) []string {
	of := s.read(path)
	if !of.enums[name] {
		return nil
	}
	var values []string
	for _, constant := range of.constants {
		if constant.of != name {
			continue
		}
		text := s.text(path, constant)
		if strings.ContainsAny(text, ",~") {
			panic(fmt.Sprintf("%s.%s: %q cannot stand in the table", path, name, text))
		}
		values = append(values, strings.ReplaceAll(text, " ", "~"))
	}
	slices.Sort(values)
	return slices.Compact(values)
}

func (s sources) text(path string, of constant) string {
	switch value := of.value.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(value.Value)
		must(err)
		return text
	case *ast.Ident:
		return s.text(path, s.read(path).constants[value.Name])
	case *ast.SelectorExpr:
		there := of.from[value.X.(*ast.Ident).Name]
		return s.text(there, s.read(there).constants[value.Sel.Name])
	}
	panic(fmt.Sprintf("%s: the value of a constant of %s is not understood", path, of.of))
}

func (s sources) read(path string) *source {
	if s[path] != nil {
		return s[path]
	}
	made := &source{constants: map[string]constant{}, enums: map[string]bool{}}
	s[path] = made
	found, err := build.Import(path, ".", build.FindOnly)
	must(err)
	files, err := filepath.Glob(filepath.Join(found.Dir, "*.go"))
	must(err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		must(err)
		from := map[string]string{}
		for _, imported := range file.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			must(err)
			if imported.Name != nil {
				from[imported.Name.Name] = path
			} else {
				from[path[strings.LastIndex(path, "/")+1:]] = path
			}
		}
		for _, declared := range file.Decls {
			if group, ok := declared.(*ast.GenDecl); ok {
				made.take(group, from)
			}
		}
	}
	return made
}

func (s *source) take(group *ast.GenDecl, from map[string]string) {
	for _, spec := range group.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			// An alias is the other type, with that one's constants.
			s.enums[spec.Name.Name] = !spec.Assign.IsValid() && (marked(group.Doc) || marked(spec.Doc))
		case *ast.ValueSpec:
			if group.Tok != token.CONST {
				continue
			}
			for i, value := range spec.Values {
				of := spec.Type
				// `A = T("a")` is `A T = "a"`.
				if call, ok := value.(*ast.CallExpr); ok && of == nil && len(call.Args) == 1 {
					of, value = call.Fun, call.Args[0]
				}
				name, _ := of.(*ast.Ident)
				made := constant{value: value, from: from}
				if name != nil {
					made.of = name.Name
				}
				s.constants[spec.Names[i].Name] = made
			}
		}
	}
}

func marked(comment *ast.CommentGroup) bool {
	if comment == nil {
		return false
	}
	return slices.ContainsFunc(comment.List, func(line *ast.Comment) bool {
		return strings.TrimSpace(strings.TrimPrefix(line.Text, "//")) == "+enum"
	})
}
