// Package schema holds the argument schemas of the parts of the AWS provider that the modules use, taken from the npm package
// @cdktf/provider-aws. It promises to tell which arguments there are, of which type and which are required, as far as that
// package tells; it knows nothing of what AWS accepts as values.
package schema

import (
	_ "embed"
	"encoding/json"
)

//go:generate go run ./gen -o aws.json

//go:embed aws.json
var text []byte

// File is what the generator writes.
type File struct {
	// Package is where it is from, Provider the version of the provider that has these schemas.
	Package  string            `json:"package"`
	Provider string            `json:"provider"`
	Config   *Block            `json:"config"` // of the provider itself
	Resource map[string]*Block `json:"resource"`
	Data     map[string]*Block `json:"data"`
}

// Block is the arguments of a resource or of a block in it.
type Block struct {
	Attributes map[string]Attribute `json:"attributes,omitempty"`
	Blocks     map[string]Nested    `json:"blocks,omitempty"`
}

// Attribute is an argument (required, or optional), or what the provider tells afterwards (neither).
type Attribute struct {
	// Type is in Terraform's JSON form: "string", ["list","string"], ["map","number"], ["list",["object",{…}]].
	Type     json.RawMessage `json:"type"`
	Required bool            `json:"required,omitempty"`
	Optional bool            `json:"optional,omitempty"`
}

// Nested is a block in a block.
type Nested struct {
	Nesting string `json:"nesting"` // list, set or single
	Min     int    `json:"min,omitempty"`
	Max     int    `json:"max,omitempty"` // 0: any number
	Block   *Block `json:"block"`
}

// Read returns the schemas.
func Read() (*File, error) {
	var f File
	return &f, json.Unmarshal(text, &f)
}
