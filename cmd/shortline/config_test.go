package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settings are the flags of a command that has one of each kind.
type settings struct {
	listen string
	nodes  int
	wait   time.Duration
	demo   bool
	rate   float64
	tags   []string
	cors   []string
}

// load runs a command with the settings as the program does, and returns what it got.
func load(t *testing.T, args, yaml string, env map[string]string) (settings, error) {
	t.Helper()
	var s settings
	a := &app{getenv: func(k string) string { return env[k] }}
	root := &cobra.Command{Use: "shortline", SilenceErrors: true, SilenceUsage: true}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.loadSettings(cmd) }
	root.PersistentFlags().String("config", "", "")
	cmd := &cobra.Command{Use: "work", RunE: func(*cobra.Command, []string) error { return nil }}
	f := cmd.Flags()
	f.StringVar(&s.listen, "listen", "default", "")
	f.IntVar(&s.nodes, "nodes", 1, "")
	f.DurationVar(&s.wait, "write-hold", time.Second, "")
	f.BoolVar(&s.demo, "demo", false, "")
	f.Float64Var(&s.rate, "rate", 1, "")
	f.StringSliceVar(&s.tags, "tag", []string{"default"}, "")
	f.StringArrayVar(&s.cors, "cors", nil, "")
	other := &cobra.Command{Use: "other", RunE: cmd.RunE}
	other.Flags().String("elsewhere", "", "")
	root.AddCommand(cmd, other)
	all := append([]string{"work"}, strings.Fields(args)...)
	if yaml != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, "--config", path)
	}
	root.SetArgs(all)
	err := root.Execute()
	return s, err
}

func TestSettingsPrecedence(t *testing.T) {
	env := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, tc := range []struct {
		name, args, yaml string
		env              map[string]string
		want             func(settings) bool
	}{
		{"default", "", "", nil, func(s settings) bool { return s.listen == "default" && s.tags[0] == "default" }},
		{"file", "", "listen: file", nil, func(s settings) bool { return s.listen == "file" }},
		{"environment over file", "", "listen: file", env("SHORTLINE_LISTEN", "env"), func(s settings) bool { return s.listen == "env" }},
		{"flag over all", "--listen flag", "listen: file", env("SHORTLINE_LISTEN", "env"), func(s settings) bool { return s.listen == "flag" }},
		{"a flag with its default is a flag", "--listen default", "listen: file", env("SHORTLINE_LISTEN", "env"), func(s settings) bool { return s.listen == "default" }},
		{"an empty variable is none", "", "listen: file", env("SHORTLINE_LISTEN", ""), func(s settings) bool { return s.listen == "file" }},
		{"dashes", "", "", env("SHORTLINE_WRITE_HOLD", "3s"), func(s settings) bool { return s.wait == 3*time.Second }},
		{"kinds", "", "nodes: 3\nwrite-hold: 2m\ndemo: true\nrate: 0.5\n", nil,
			func(s settings) bool { return s.nodes == 3 && s.wait == 2*time.Minute && s.demo && s.rate == .5 }},
		{"a number for a text", "", "listen: 8080", nil, func(s settings) bool { return s.listen == "8080" }},
		{"a list", "", "tag: [a, 'b,c']\ncors:\n- x\n- y,z\n", nil,
			func(s settings) bool {
				return strings.Join(s.tags, "|") == "a|b,c" && strings.Join(s.cors, "|") == "x|y,z"
			}},
		{"one for a list", "", "tag: a", nil, func(s settings) bool { return strings.Join(s.tags, "|") == "a" }},
		{"an empty list", "", "tag: []", nil, func(s settings) bool { return len(s.tags) == 0 }},
		{"a list in the environment", "", "tag: [a]", env("SHORTLINE_TAG", `b,"c,d"`, "SHORTLINE_CORS", "x,y"),
			func(s settings) bool {
				return strings.Join(s.tags, "|") == "b|c,d" && strings.Join(s.cors, "|") == "x|y"
			}},
		{"a list flag is not added to", "--tag f", "tag: [a]", env("SHORTLINE_TAG", "b"), func(s settings) bool { return strings.Join(s.tags, "|") == "f" }},
		{"a setting of another command", "", "elsewhere: x\nnodes: 2", nil, func(s settings) bool { return s.nodes == 2 }},
		{"an empty file", "", "# nothing\n", nil, func(s settings) bool { return s.listen == "default" }},
		{"an anchor", "", "listen: &x a\ncors: *x", nil, func(s settings) bool { return s.listen == "a" && s.cors[0] == "a" }},
	} {
		s, err := load(t, tc.args, tc.yaml, tc.env)
		if err != nil || !tc.want(s) {
			t.Errorf("%s: got %+v, err %v", tc.name, s, err)
		}
	}
}

func TestWrongSettingsTellTheirPlace(t *testing.T) {
	for _, tc := range []struct {
		yaml string
		env  map[string]string
		want []string
	}{
		{"nodes: 1\nlistn: x", nil, []string{`config.yaml line 2: there is no setting "listn"; did you mean "listen"?`}},
		{"write_hold: 1s", nil, []string{`line 1: there is no setting "write_hold"; did you mean "write-hold"?`}},
		{"zzzzzzzz: x", nil, []string{`there is no setting "zzzzzzzz"; settings are named like the flags`}},
		{"config: x", nil, []string{`there is no setting "config"`}},
		{"nodes: many", nil, []string{`config.yaml line 1: nodes: "many" is not a whole number`}},
		{"\ndemo: yes please\nwrite-hold: 10", nil, []string{`line 2: demo: "yes please" is not true or false`, `line 3: write-hold: "10" is not a duration such as 10s`}},
		{"listen: [a, b]", nil, []string{`line 1: listen: takes one value, not a list`}},
		{"listen: {a: b}", nil, []string{`listen must be a single value or a list`}},
		{"listen:", nil, []string{`listen has no value`}},
		{"nodes: 1\nnodes: 2", nil, []string{`line 2: nodes stands on line 1 already`}},
		{"- a", nil, []string{`line 1: expected settings such as`}},
		{"a: b: c", nil, []string{"config.yaml: yaml:"}},
		{"nodes: 1\n---\nnodes: 2", nil, []string{"second YAML document"}},
		{"", map[string]string{"SHORTLINE_NODES": "x", "SHORTLINE_RATE": "y"}, []string{`SHORTLINE_NODES: "x" is not a whole number`, `; SHORTLINE_RATE: "y" is not a number`}},
		{"", map[string]string{"SHORTLINE_CONFIG": "nosuch.yaml"}, []string{"nosuch.yaml: no such file"}},
		{"", map[string]string{"SHORTLINE_TAG": `a"b`}, []string{"SHORTLINE_TAG: ", "not a list with commas"}},
	} {
		_, err := load(t, "", tc.yaml, tc.env)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q %v: %v\nwant %s", tc.yaml, tc.env, err, want)
			}
		}
	}
}

func TestEveryFlagHasAVariable(t *testing.T) {
	seen := map[string]string{}
	eachFlag(newRootCommand(&app{}), func(f *pflag.Flag) {
		if other, ok := seen[envName(f.Name)]; ok && other != f.Name {
			t.Errorf("--%s and --%s have one variable", f.Name, other)
		}
		seen[envName(f.Name)] = f.Name
	})
	if seen["SHORTLINE_ADMIN_SERVER"] == "" || seen["SHORTLINE_KEY"] == "" {
		t.Errorf("flags are missing: %v", seen)
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add([]byte("listen: x\ntag: [a]\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [x]\n: y"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := parseSettings("c", data, map[string]bool{"listen": true, "tag": true})
		for _, s := range out {
			if err == nil && !s.list && len(s.values) != 1 {
				t.Errorf("%q has %d values", s.name, len(s.values))
			}
		}
	})
}
