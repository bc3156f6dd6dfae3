package edge

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var pageTemplate string

// pageCall is one call as the page shows it.
type pageCall struct {
	Method, Path, Class string
	*huma.Operation
	Answers []pageAnswer
	Bodies  []pageBody
}

type pageAnswer struct {
	Status string
	*huma.Response
	Schema string
}

type pageBody struct{ Type, Schema string }

type pageTag struct {
	*huma.Tag
	Calls []pageCall
}

// renderPage makes the readable form of the document: one HTML page without scripts that needs nothing from outside.
func renderPage(doc *huma.OpenAPI, routes []route) ([]byte, error) {
	funcs := template.FuncMap{"code": codeSpans, "paragraphs": func(s string) []string { return strings.Split(s, "\n\n") }}
	page, err := template.New("docs").Funcs(funcs).Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	tags := make([]pageTag, len(doc.Tags))
	for i, tag := range doc.Tags {
		tags[i].Tag = tag
		for _, r := range routes {
			if r.doc.tag == tag.Name {
				tags[i].Calls = append(tags[i].Calls, newPageCall(doc, r))
			}
		}
	}
	type namedSchema struct{ Name, Schema string }
	var schemas []namedSchema
	all := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		schemas = append(schemas, namedSchema{name, describe(all[name], doc.Components.Schemas, 0)})
	}
	type kind struct {
		Name, Title, Remedy string
		Status              int
	}
	var kinds []kind
	for _, k := range problemKinds() {
		kinds = append(kinds, kind{k.name, k.title, k.remedy, k.status})
	}
	var out bytes.Buffer
	err = page.Execute(&out, map[string]any{"Info": doc.Info, "Tags": tags, "Schemas": schemas, "Problems": kinds})
	return out.Bytes(), err
}

func newPageCall(doc *huma.OpenAPI, r route) pageCall {
	path := openAPIPath(r.path)
	item := doc.Paths[path]
	op := map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete}[r.method]
	call := pageCall{Method: r.method, Path: path, Class: strings.ToLower(r.method), Operation: op}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		answer := pageAnswer{Status: status, Response: op.Responses[status]}
		if media := answer.Content["application/json"]; media != nil && status < "300" {
			answer.Schema = describe(media.Schema, doc.Components.Schemas, 0)
		}
		call.Answers = append(call.Answers, answer)
	}
	if op.RequestBody != nil {
		for _, kind := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			call.Bodies = append(call.Bodies, pageBody{kind, describe(op.RequestBody.Content[kind].Schema, doc.Components.Schemas, 0)})
		}
	}
	return call
}

// describe writes a schema as people write JSON by example: members with their types, a note behind each.
func describe(s *huma.Schema, registry huma.Registry, depth int) string {
	indent := strings.Repeat("  ", depth)
	if s.Ref != "" {
		s = registry.SchemaFromRef(s.Ref)
	}
	switch {
	case s == nil || depth > 6:
		return "…"
	case len(s.OneOf) > 0:
		var forms []string
		for _, form := range s.OneOf {
			forms = append(forms, describe(form, registry, depth))
		}
		return strings.Join(forms, " or ")
	case s.Type == huma.TypeArray:
		return "[" + describe(s.Items, registry, depth) + ", …]"
	case s.Type != huma.TypeObject || len(s.Properties) == 0:
		text := s.Type
		if s.Format != "" && s.Format != "double" && s.Format != "int64" && s.Format != "int32" {
			text += " (" + s.Format + ")"
		}
		if len(s.Enum) > 0 {
			options, _ := json.Marshal(s.Enum)
			text = string(options)
		}
		if s.Nullable {
			text += " or null"
		}
		return text
	}
	var b strings.Builder
	b.WriteString("{\n")
	for _, name := range propertyOrder(s) {
		p := s.Properties[name]
		b.WriteString(indent + `  "` + name + `": ` + describe(p, registry, depth+1))
		if slices.Contains(s.Required, name) {
			b.WriteString(" *")
		}
		if p.Description != "" {
			b.WriteString("   — " + p.Description)
		}
		b.WriteString("\n")
	}
	return b.String() + indent + "}"
}

// propertyOrder puts the id and name first; the registry does not keep the order of the Go type.
func propertyOrder(s *huma.Schema) []string {
	names := slices.Sorted(maps.Keys(s.Properties))
	rank := func(n string) int { return slices.Index([]string{"name", "id"}, n) }
	slices.SortStableFunc(names, func(a, b string) int { return rank(b) - rank(a) })
	return names
}

// codeSpans turns `code` into <code>code</code> and escapes the rest.
func codeSpans(s string) template.HTML {
	parts := strings.Split(template.HTMLEscapeString(s), "`")
	for i := 1; i+1 < len(parts); i += 2 {
		parts[i] = "<code>" + parts[i] + "</code>"
	}
	return template.HTML(strings.Join(parts, "")) // #nosec: escaped above
}
