package house

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// What docs/security.md says was tried has a test of the name that it says.
func TestSecurityTestsExist(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(string(page), -1)
	if len(names) < 30 {
		t.Fatalf("the page names %d tests: the check looks for them in the wrong way", len(names))
	}
	var code strings.Builder
	err = fs.WalkDir(os.DirFS("../.."), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == "node_modules" || path != "." && d.Name()[0] == '.') {
			return fs.SkipDir
		}
		if err == nil && strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile("../../" + path)
			code.Write(text)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !strings.Contains(code.String(), "\nfunc "+n[1]+"(") {
			t.Errorf("docs/security.md names %s, and there is no such test", n[1])
		}
	}
}
