// Command gen takes the schemas of what the modules use out of the npm package @cdktf/provider-aws and writes them as JSON.
//
// It downloads the package with npm unless -package names a folder that has it. Which resources and data sources are used it
// reads from the .tf files. It promises to fail rather than to leave out what it does not understand.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/shortline/shortline/deploy/terraform/internal/schema"
)

const npmPackage, npmVersion = "@cdktf/provider-aws", "21.22.1"

func main() {
	dir := flag.String("package", "", "`folder` with the unpacked package; default: npm pack "+npmPackage+"@"+npmVersion)
	tf := flag.String("tf", "../..", "`folder` whose .tf files say what is used")
	out := flag.String("o", "aws.json", "`file` to write")
	flag.Parse()
	if err := run(*dir, *tf, *out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(dir, tf, out string) error {
	used, err := usedIn(tf)
	if err != nil {
		return err
	}
	if dir == "" {
		temp, err := os.MkdirTemp("", "provider-aws")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(temp) }()
		if dir, err = download(temp); err != nil {
			return err
		}
	}
	f := schema.File{Package: npmPackage + " " + npmVersion, Resource: map[string]*schema.Block{}, Data: map[string]*schema.Block{}}
	if f.Config, f.Provider, err = read(dir, "provider", ""); err != nil {
		return err
	}
	for _, name := range used {
		folder, into := strings.ReplaceAll(strings.TrimPrefix(name.kind, "aws_"), "_", "-"), f.Resource
		if name.data {
			folder, into = "data-aws-"+folder, f.Data
		}
		if into[name.kind], _, err = read(dir, folder, name.kind); err != nil {
			return fmt.Errorf("%s: %w", name.kind, err)
		}
	}
	text, err := format(&f)
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644)
}

// format writes a line for each resource, so that a change of one is a change of one line.
func format(f *schema.File) ([]byte, error) {
	var b bytes.Buffer
	config, err := json.Marshal(f.Config)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "{\n\"package\": %q,\n\"provider\": %q,\n\"config\": %s", f.Package, f.Provider, config)
	for _, part := range []struct {
		name   string
		blocks map[string]*schema.Block
	}{{"resource", f.Resource}, {"data", f.Data}} {
		fmt.Fprintf(&b, ",\n%q: {", part.name)
		for i, kind := range slices.Sorted(maps.Keys(part.blocks)) {
			line, err := json.Marshal(part.blocks[kind])
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "%s\n %q: %s", map[bool]string{true: "", false: ","}[i == 0], kind, line)
		}
		b.WriteString("\n}")
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}

func download(temp string) (string, error) {
	for _, args := range [][]string{{"npm", "pack", "--silent", npmPackage + "@" + npmVersion}, {"sh", "-c", "tar xzf *.tgz"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Stderr = temp, os.Stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	return filepath.Join(temp, "package"), nil
}

// use is a resource, or a data source.
type use struct {
	kind string
	data bool
}

var usePattern = regexp.MustCompile(`(?m)^(resource|data) "(aws_\w+)"`)

func usedIn(root string) ([]use, error) {
	seen := map[use]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".tf" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range usePattern.FindAllSubmatch(text, -1) {
			seen[use{string(m[2]), string(m[1]) == "data"}] = true
		}
		return err
	})
	var out []use
	for u := range seen {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b use) int { return strings.Compare(a.kind, b.kind) })
	if len(out) == 0 && err == nil {
		err = fmt.Errorf("no resource is used below %s", root)
	}
	return out, err
}

// read reads one folder of the package. want is the resource's name in Terraform.
func read(dir, folder, want string) (*schema.Block, string, error) {
	js, err := os.ReadFile(filepath.Join(dir, "lib", folder, "index.js"))
	if err != nil {
		return nil, "", err
	}
	dts, err := os.ReadFile(filepath.Join(dir, "lib", folder, "index.d.ts"))
	if err != nil {
		return nil, "", err
	}
	m := regexp.MustCompile(`(\w+)\.tfResourceType = "(\w+)"`).FindSubmatch(js)
	if m == nil || want != "" && string(m[2]) != want {
		return nil, "", fmt.Errorf("lib/%s is %s", folder, m)
	}
	version := regexp.MustCompile(`providerVersion: '([0-9.]+)'`).FindSubmatch(js)
	if version == nil {
		return nil, "", fmt.Errorf("lib/%s does not tell the provider's version", folder)
	}
	r := &reader{js: string(js), interfaces: interfaces(string(dts))}
	body := between(r.js, "    synthesizeHclAttributes() {\n", "\n    }\n")
	b, err := r.block(body, string(m[1])+"Config", string(m[1]))
	return b, string(bytes.TrimSpace(version[1])), err
}
