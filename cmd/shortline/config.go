package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// loadSettings gives every flag of cmd that is not on the command line its value from the environment, else from the
// file of --config, else leaves its default. The error is a *usageError that tells every wrong value and where it stands.
func (a *app) loadSettings(cmd *cobra.Command) error {
	if !takesSettings(cmd) {
		return nil
	}
	path := cmd.Flags().Lookup("config").Value.String()
	if path == "" {
		path = a.getenv(envName("config"))
	}
	var file []setting
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return &usageError{err: fmt.Errorf("read the settings of --config: %w", err)}
		}
		known := map[string]bool{}
		eachFlag(cmd.Root(), func(f *pflag.Flag) { known[f.Name] = f.Name != "config" && f.Name != "help" })
		if file, err = parseSettings(path, data, known); err != nil {
			return &usageError{err: err}
		}
	}
	if err := applySettings(cmd.Flags(), a.getenv, file); err != nil {
		return &usageError{err: err}
	}
	return nil
}

// takesSettings is false for commands that must work whatever the settings, or that tell what is wrong with them.
func takesSettings(cmd *cobra.Command) bool {
	for c := cmd; c.HasParent(); c = c.Parent() {
		if n := c.Name(); n == "completion" || n == "help" || n == "version" || n == "config" || n == "doctor" || strings.HasPrefix(n, "__") {
			return false
		}
	}
	return true
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "SHORTLINE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setting is one line of a settings file.
type setting struct {
	name   string
	where  string // "config.yaml line 3"
	values []string
	list   bool
}

// parseSettings reads a settings file: a flat YAML mapping with flag names as keys, and lists for flags that may be given
// several times. A key that is not in known is an error, for it would silently do nothing. Flags of other commands are
// fine: one file serves them all. Every fault is told at once.
func parseSettings(path string, data []byte, known map[string]bool) ([]setting, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: has a second YAML document; only one is read", path)
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s line %d: expected settings such as \"listen: 127.0.0.1:8080\"", path, top.Line)
	}
	var out []setting
	var faults []error
	seen := map[string]int{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		where := fmt.Sprintf("%s line %d", path, key.Line)
		s, err := oneSetting(key.Value, where, value, known)
		if before := seen[key.Value]; err == nil && before != 0 {
			err = fmt.Errorf("%s: %s stands on line %d already", where, key.Value, before)
		}
		seen[key.Value] = key.Line
		if err != nil {
			faults = append(faults, err)
			continue
		}
		out = append(out, s)
	}
	return out, joinFaults(faults)
}

func oneSetting(name, where string, value *yaml.Node, known map[string]bool) (setting, error) {
	s := setting{name: name, where: where}
	if !known[name] {
		var names []string
		for n, ok := range known {
			if ok {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		if near := nearest(name, names); near != "" {
			return s, fmt.Errorf("%s: there is no setting %q; did you mean %q?", where, name, near)
		}
		return s, fmt.Errorf("%s: there is no setting %q; settings are named like the flags", where, name)
	}
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	nodes := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		nodes, s.list = value.Content, true
	}
	for _, n := range nodes {
		switch {
		case n.Kind != yaml.ScalarNode:
			return s, fmt.Errorf("%s: %s must be a single value or a list of them", where, name)
		case n.Tag == "!!null":
			return s, fmt.Errorf("%s: %s has no value; give one or remove the line", where, name)
		}
		s.values = append(s.values, n.Value)
	}
	return s, nil
}

// applySettings sets the flags that are not set yet: from the environment, where an empty variable is as none, else from
// the file.
func applySettings(flags *pflag.FlagSet, getenv func(string) string, file []setting) error {
	fromFile := map[string]setting{}
	for _, s := range file {
		fromFile[s.name] = s
	}
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" {
			return
		}
		s, ok := fromFile[f.Name]
		if v := getenv(envName(f.Name)); v != "" {
			var err error
			if s, err = envSetting(f, v); err != nil {
				faults = append(faults, err)
				return
			}
			ok = true
		}
		if ok {
			if err := setFlag(f, s); err != nil {
				faults = append(faults, err)
			}
		}
	})
	return joinFaults(faults)
}

// envSetting reads a variable; for a flag that may be given several times it is a list with commas, quoted like CSV.
func envSetting(f *pflag.Flag, v string) (setting, error) {
	s := setting{name: f.Name, where: envName(f.Name), values: []string{v}}
	if _, many := f.Value.(pflag.SliceValue); many {
		s.list = true
		var err error
		if s.values, err = csv.NewReader(strings.NewReader(v)).Read(); err != nil {
			return s, fmt.Errorf("%s: %q is not a list with commas", s.where, v)
		}
	}
	return s, nil
}

func setFlag(f *pflag.Flag, s setting) error {
	what := s.where
	if s.where != envName(f.Name) {
		what += ": " + f.Name
	}
	many, isMany := f.Value.(pflag.SliceValue)
	switch {
	case isMany:
		if err := many.Replace(s.values); err != nil {
			return fmt.Errorf("%s: %w", what, valueError(f, strings.Join(s.values, ","), err))
		}
		f.Changed = true
	case s.list:
		return fmt.Errorf("%s: takes one value, not a list", what)
	default:
		if err := f.Value.Set(s.values[0]); err != nil {
			return fmt.Errorf("%s: %w", what, valueError(f, s.values[0], err))
		}
		f.Changed = true
	}
	return nil
}

// valueError says in words what kind of value a flag wants.
func valueError(f *pflag.Flag, v string, err error) error {
	switch kind := f.Value.Type(); {
	case kind == "bool":
		return fmt.Errorf("%q is not true or false", v)
	case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint") || kind == "count":
		return fmt.Errorf("%q is not a whole number that fits", v)
	case strings.HasPrefix(kind, "float"):
		return fmt.Errorf("%q is not a number", v)
	case strings.HasPrefix(kind, "duration"):
		return fmt.Errorf("%q is not a duration such as 10s or 1m30s", v)
	}
	return fmt.Errorf("%q: %w", v, err)
}

// joinFaults makes one line of several faults.
func joinFaults(faults []error) error {
	if len(faults) < 2 {
		return errors.Join(faults...)
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = f.Error()
	}
	return errors.New(strings.Join(lines, "; "))
}

// nearest returns the name that is most like s, or "" where none is like it.
func nearest(s string, names []string) string {
	best, bestAt := "", max(2, len(s)/3)+1
	for _, n := range names {
		if d := editDistance(strings.ToLower(strings.ReplaceAll(s, "_", "-")), n); d < bestAt {
			best, bestAt = n, d
		}
	}
	return best
}

// editDistance is the number of bytes to insert, delete or replace to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
