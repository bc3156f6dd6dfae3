package house

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/licensecheck"
)

// allowed are the licences of what the program contains: those that let it be given on under Apache-2.0. MPL-2.0 binds its own files
// alone, which stay as they are.
var allowed = []string{"Apache-2.0", "MIT", "MIT-0", "ISC", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Unlicense", "MPL-2.0", "CC0-1.0", "Zlib", "BlueOak-1.0.0"}

// Every module of which something is in the program has a licence that is allowed.
func TestLicences(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-json=Module", "./cmd/shortline")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	type listed struct {
		Module *struct {
			Path, Dir string
			Main      bool
			Replace   *struct{ Path, Dir string }
		}
	}
	dirs := map[string]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if m := p.Module; m != nil && !m.Main {
			dirs[m.Path] = m.Dir
			if m.Replace != nil {
				dirs[m.Path] = m.Replace.Dir
			}
		}
	}
	if len(dirs) < 30 {
		t.Fatalf("only %d modules are in the program", len(dirs))
	}
	for module, dir := range dirs {
		if found := licences(t, dir); len(found) == 0 {
			t.Errorf("%s: no licence that is known, in %s", module, dir)
		} else if bad := barred(found); len(bad) > 0 {
			t.Errorf("%s is under %v: choose another, or say in docs/decisions why it may be", module, bad)
		}
	}
}

// licences names what the files in dir say that they are.
func licences(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || strings.HasSuffix(name, ".GO") || !(strings.HasPrefix(name, "LICEN") || strings.HasPrefix(name, "COPYING") || strings.HasPrefix(name, "UNLICENSE")) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range licensecheck.Scan(text).Match {
			if !m.IsURL {
				found = append(found, m.ID)
			}
		}
	}
	return found
}

func barred(found []string) (bad []string) {
	for _, id := range found {
		if !slices.Contains(allowed, id) {
			bad = append(bad, id)
		}
	}
	return bad
}

// The check can fail: it knows a licence that binds what it is linked into.
func TestLicencesAreToldApart(t *testing.T) {
	dir := t.TempDir()
	text := "GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007\n\nThis program is free software: you can redistribute it and/or modify it under the terms of the " +
		"GNU Affero General Public License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.\n"
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := licences(t, dir); len(barred(found)) == 0 {
		t.Errorf("%v passes", found)
	}
	if found := licences(t, "../.."); !slices.Equal(found, []string{"Apache-2.0"}) {
		t.Errorf("Shortline itself is under %v", found)
	}
}
