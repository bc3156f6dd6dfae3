package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestHouse(t *testing.T) {
	pkgs, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 3 {
		t.Fatalf("only %d packages found: the test looks in the wrong place", len(pkgs))
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
}

// load reads every Go file of the module, whatever its build constraints, sorted by folder. Like the go command it
// passes over testdata, vendor, nested modules and whatever begins with a dot or an underscore.
func load(tree fs.FS) ([]pkg, error) {
	var pkgs []pkg
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if p != "." {
			base := path.Base(p)
			if base == "testdata" || base == "vendor" || base == "node_modules" || base[0] == '.' || base[0] == '_' {
				return fs.SkipDir
			}
			if _, err := fs.Stat(tree, path.Join(p, "go.mod")); err == nil {
				return fs.SkipDir
			}
		}
		one, err := loadFolder(tree, p)
		if err != nil {
			return err
		}
		if len(one.files) > 0 {
			pkgs = append(pkgs, one)
		}
		return nil
	})
	return pkgs, err
}

func loadFolder(tree fs.FS, dir string) (pkg, error) {
	p := pkg{dir: dir}
	entries, err := fs.ReadDir(tree, dir)
	if err != nil {
		return pkg{}, err
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || !strings.HasSuffix(name, ".go") || name[0] == '.' || name[0] == '_' {
			continue
		}
		src, err := fs.ReadFile(tree, path.Join(dir, name))
		if err != nil {
			return pkg{}, err
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), path.Join(dir, name), src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return pkg{}, fmt.Errorf("parse: %w", err)
		}
		f, err := read(name, syntax)
		if err != nil {
			return pkg{}, err
		}
		if p.name == "" || !f.test {
			p.name = syntax.Name.Name
		}
		p.files = append(p.files, f)
	}
	return p, nil
}

func read(name string, syntax *ast.File) (file, error) {
	f := file{name: name, test: strings.HasSuffix(name, "_test.go"), doc: syntax.Doc.Text()}
	names := map[string]string{} // what a package of echo is called in this file
	for _, spec := range syntax.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		f.imports = append(f.imports, imp)
		if short, ok := echoPackage(imp); ok {
			local := short
			if spec.Name != nil {
				local = spec.Name.Name
			}
			names[local] = short
		}
	}
	if len(names) > 0 {
		f.uses = echoUses(syntax, names)
	}
	return f, nil
}

// echoPackage tells whether the import is echo or its middleware, and its usual name.
func echoPackage(imp string) (string, bool) {
	rest, ok := strings.CutPrefix(imp, "github.com/labstack/echo/")
	if !ok {
		return "", false
	}
	_, sub, _ := strings.Cut(rest, "/")
	switch sub {
	case "":
		return "echo", true
	case "middleware":
		return "middleware", true
	}
	return "", false
}

// echoUses lists what a file takes from echo: "middleware.Proxy" by its usual name, and calls of methods on whatever
// value as "JSONP()", since without types nobody can tell whose they are. A dot import shows as bare calls.
func echoUses(syntax *ast.File, names map[string]string) []string {
	var uses []string
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && names[x.Name] != "" {
				uses = append(uses, names[x.Name]+"."+n.Sel.Name)
			}
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				uses = append(uses, sel.Sel.Name+"()")
			}
		case *ast.Ident:
			if short := names["."]; short != "" {
				uses = append(uses, short+"."+n.Name)
			}
		}
		return true
	})
	slices.Sort(uses)
	return slices.Compact(uses)
}
