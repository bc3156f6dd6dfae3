package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/shortline/shortline/deploy/terraform/internal/schema"
)

// reader reads the two files of a resource. index.js tells names, types and what is a block; index.d.ts what is required and
// which blocks may be repeated. Both are generated, so patterns are enough; what does not fit them is an error.
type reader struct {
	js         string
	interfaces map[string]map[string]property // by TypeScript name, then by Terraform's name
}

// property is a line of an interface of index.d.ts.
type property struct {
	required, many bool
	kind           string
}

var (
	interfacePattern = regexp.MustCompile(`(?ms)^export interface (\w+)[^{]*\{\n(.*?)^\}`)
	propertyPattern  = regexp.MustCompile(`(?s)/\*\*(.*?)\*/\s+readonly \w+(\??): ([^;]+);`)
	namePattern      = regexp.MustCompile(`[A-Z]\w*#(\w+)\}`)
	entryPattern     = regexp.MustCompile(`(?s)\n\s+(\w+): \{\n\s+value: [^\n]+\n\s+isBlock: (true|false),\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)",\n\s+\}`)
	computedPattern  = regexp.MustCompile(`// (\w+) - computed: true, optional: \w+, required: false\n\s+(?:get \w+\(\) \{\n\s+return ([^;]+);|this\._\w+ = new ([\w.]+)\(this, "\w+"(?:, (true|false))?\))`)
)

func interfaces(dts string) map[string]map[string]property {
	out := map[string]map[string]property{}
	for _, m := range interfacePattern.FindAllStringSubmatch(dts, -1) {
		properties := map[string]property{}
		for _, p := range propertyPattern.FindAllStringSubmatch(m[2], -1) {
			names := namePattern.FindAllStringSubmatch(p[1], -1)
			if len(names) == 0 {
				continue // of cdktf, not of the provider
			}
			kind := strings.TrimSpace(strings.TrimSuffix(p[3], "| cdktf.IResolvable"))
			properties[names[len(names)-1][1]] = property{required: p[2] == "", many: strings.HasSuffix(kind, "[]"), kind: strings.TrimSuffix(kind, "[]")}
		}
		out[m[1]] = properties
	}
	return out
}

// between returns what stands after from and before the next to, or "".
func between(text, from, to string) string {
	_, rest, found := strings.Cut(text, from)
	if !found {
		return ""
	}
	body, _, _ := strings.Cut(rest, to)
	return "\n" + body
}

// block makes a block of the entries in body, of the interface that says what is required, and of what is computed in class.
func (r *reader) block(body, of, class string) (*schema.Block, error) {
	b := &schema.Block{Attributes: map[string]schema.Attribute{}, Blocks: map[string]schema.Nested{}}
	properties := r.interfaces[of]
	for _, m := range entryPattern.FindAllStringSubmatch(body, -1) {
		name, isBlock, nesting, storage := m[1], m[2] == "true", m[3], m[4]
		p, known := properties[name]
		if !known {
			return nil, fmt.Errorf("%s has %q in index.js and not in index.d.ts", of, name)
		}
		if !isBlock {
			kind, err := attributeType(nesting, storage)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", of, name, err)
			}
			b.Attributes[name] = schema.Attribute{Type: kind, Required: p.required, Optional: !p.required}
			continue
		}
		n := schema.Nested{Nesting: nesting}
		if nesting == "struct" {
			n.Nesting = "single"
		} else if !p.many {
			n.Max = 1
		}
		if p.required && n.Nesting != "single" {
			n.Min = 1
		}
		var err error
		if n.Block, err = r.nested(p.kind); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", of, name, err)
		}
		b.Blocks[name] = n
	}
	if found := len(b.Attributes) + len(b.Blocks); found != len(properties) {
		return nil, fmt.Errorf("%s: %d arguments in index.js, %d in index.d.ts", of, found, len(properties))
	}
	return b, r.computed(b, class)
}

// nested is the block of an interface.
func (r *reader) nested(name string) (*schema.Block, error) {
	if r.interfaces[name] == nil {
		return nil, fmt.Errorf("there is no interface %s", name)
	}
	function := "function " + strings.ToLower(name[:1]) + name[1:] + "ToHclTerraform(struct) {\n"
	return r.block(between(r.js, function, "\n}\n"), name, name+"OutputReference")
}

// computed adds what class tells and nobody can set.
func (r *reader) computed(b *schema.Block, class string) error {
	for _, m := range computedPattern.FindAllStringSubmatch(between(r.js, "class "+class+" extends ", "\n}\n"), -1) {
		name := m[1]
		if _, set := b.Attributes[name]; set {
			continue
		}
		if _, set := b.Blocks[name]; set {
			continue
		}
		kind, err := r.computedType(m[2], m[3], m[4] == "true")
		if err != nil {
			return fmt.Errorf("%s.%s: %w", class, name, err)
		}
		b.Attributes[name] = schema.Attribute{Type: kind}
	}
	return nil
}

// attributeType is the type of an argument in Terraform's JSON form.
func attributeType(nesting, storage string) (json.RawMessage, error) {
	element := map[string]string{"stringList": `"string"`, "numberList": `"number"`, "stringMap": `"string"`, "numberMap": `"number"`, "booleanMap": `"bool"`}[storage]
	switch {
	case nesting == "simple" && storage == "boolean":
		return json.RawMessage(`"bool"`), nil
	case nesting == "simple" && (storage == "string" || storage == "number"):
		return json.RawMessage(`"` + storage + `"`), nil
	case element != "" && (nesting == "list" || nesting == "set" || nesting == "map"):
		return json.RawMessage(`["` + nesting + `",` + element + `]`), nil
	}
	return nil, fmt.Errorf("type %s of %s is not known", nesting, storage)
}

// computedType is the type of what a getter returns, or of the list class that is made in the constructor.
func (r *reader) computedType(getter, list string, set bool) (json.RawMessage, error) {
	switch list {
	case "":
	case "cdktf.StringMap":
		return json.RawMessage(`["map","string"]`), nil
	case "cdktf.BooleanMap":
		return json.RawMessage(`["map","bool"]`), nil
	default:
		b := &schema.Block{Attributes: map[string]schema.Attribute{}}
		if err := r.computed(b, strings.TrimSuffix(list, "List")+"OutputReference"); err != nil {
			return nil, err
		}
		fields := map[string]json.RawMessage{}
		for name, a := range b.Attributes {
			fields[name] = a.Type
		}
		object, err := json.Marshal([]any{"object", fields})
		if err != nil {
			return nil, err
		}
		return json.Marshal([]any{map[bool]string{true: "set", false: "list"}[set], json.RawMessage(object)})
	}
	for part, kind := range map[string]string{"getStringAttribute(": `"string"`, "getNumberAttribute(": `"number"`, "getBooleanAttribute(": `"bool"`,
		"getStringMapAttribute(": `["map","string"]`, "getNumberListAttribute(": `["list","number"]`} {
		if strings.Contains(getter, part) {
			return json.RawMessage(kind), nil
		}
	}
	if strings.Contains(getter, "getListAttribute(") {
		if strings.Contains(getter, "tolist") {
			return json.RawMessage(`["set","string"]`), nil
		}
		return json.RawMessage(`["list","string"]`), nil
	}
	return nil, fmt.Errorf("what %q returns is not known", getter)
}
