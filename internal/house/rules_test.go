package house

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const module = "github.com/shortline/shortline"

// pkg is one folder of Go files as the rules see it.
type pkg struct {
	dir   string // slash-separated, below the module; "." is the root package
	name  string // of the files that are not tests; of the tests where there are no others
	files []file
}

// file is one Go file of a package, the external tests (package x_test) included.
type file struct {
	name    string
	test    bool
	doc     string   // the package comment
	imports []string // paths
	uses    []string // what it takes from packages and calls on values: "echo/v4/middleware.Proxy", "echo.JSONP()"
}

// rule says what a package may import. Tests may import any package of ours but commands, and any library that is not
// reserved; the root package's tests may not even that.
type rule struct {
	own     []string // folders of this module; "*" means all but commands
	stdOnly bool     // no other module at all
	only    []string // if set, the only other modules
}

// rules has an entry for every package that may exist: a new one needs a reason, and its entry here.
var rules = map[string]rule{
	".":                      {stdOnly: true},
	"geo":                    {own: []string{".", "internal/memory"}, only: []string{"github.com/uber/h3-go", "github.com/oschwald/maxminddb-golang"}},
	"replication":            {own: []string{".", "geo", "internal/span"}},
	"replication/postgres":   {own: adapter},
	"replication/sqlite":     {own: adapter},
	"replication/rediscache": {own: adapter},
	"replication/storetest":  {own: adapter},
	"regions":                {own: []string{".", "geo"}},
	"regions/gossip":         {own: []string{".", "geo", "regions", "internal/peer"}},
	"regions/dnsserver":      {own: []string{".", "geo", "regions"}},
	"regions/control":        {own: []string{".", "geo", "regions", "internal/peer", "internal/pki"}},
	"regions/agent":          {own: []string{".", "geo", "regions", "internal/peer"}},
	"regions/failover":       {own: []string{".", "geo", "regions", "internal/peer"}},
	"insight":                {own: []string{".", "geo"}},
	"edge":                   {own: []string{".", "geo", "replication", "regions", "insight", "edge/client", "edge/console", "storefile", "internal/peer", "internal/pki", "internal/span", "internal/memory"}},
	"edge/client":            {own: []string{"."}},
	"edge/console":           {own: []string{"."}},
	"storefile":              {own: []string{"."}, stdOnly: true},
	"internal/browser":       {only: []string{"github.com/chromedp"}},
	"internal/demo":          {own: []string{"."}, stdOnly: true},
	"internal/demo/gen":      {own: []string{".", "internal/demo"}},
	"internal/house":         {stdOnly: true},
	"internal/memory":        {stdOnly: true},
	"internal/peer":          {own: []string{"internal/pki", "internal/span"}, only: []string{"go.opentelemetry.io/otel"}},
	"internal/pki":           {stdOnly: true},
	"internal/span":          {only: []string{"go.opentelemetry.io/otel"}},
	"internal/plan":          {only: []string{"go.yaml.in/yaml"}},
	"internal/planet":        {own: []string{".", "geo", "replication", "regions", "edge/client", "internal/pki"}},
	"bench":                  {own: []string{"*"}},
	"cmd/shortline":          {own: []string{"*"}},
}

var adapter = []string{".", "geo", "replication"}

// reserved modules are imported by the packages named and by no other, so that an engine can be replaced in one place.
// Tests of those packages may import them too.
var reserved = []struct {
	module string
	by     []string
}{
	{"github.com/uber/h3-go", []string{"geo"}},
	{"github.com/oschwald/maxminddb-golang", []string{"geo"}},
	{"github.com/labstack/echo", []string{"edge", "bench"}}, // bench compares with a bare handler
	{"github.com/danielgtaylor/huma", []string{"edge"}},
	{"github.com/mattn/go-sqlite3", []string{"replication/sqlite"}},
	{"github.com/jackc/pgx", []string{"replication/postgres", "regions/agent", "internal/planet", "bench"}},
	{"github.com/redis/go-redis", []string{"replication/rediscache", "internal/planet", "bench"}},
	{"github.com/hashicorp/raft", []string{"regions/control"}},
	{"github.com/hashicorp/raft-boltdb", []string{"regions/control"}},
	{"github.com/hashicorp/memberlist", []string{"regions/gossip"}},
	{"github.com/hashicorp/serf", []string{"regions/gossip"}},
	{"github.com/gobwas/ws", []string{"edge", "edge/client", "bench", "cmd/shortline"}},
	{"github.com/miekg/dns", []string{"regions/dnsserver", "cmd/shortline"}}, // there in a test alone, which answers an ACME authority
	{"github.com/letsencrypt/pebble", []string{"cmd/shortline"}},
	{"github.com/spf13/cobra", []string{"cmd/shortline"}},
	{"github.com/vbauerster/mpb", []string{"cmd/shortline"}},
}

// onlyFile narrows a reserved module down to one file of its package.
var onlyFile = map[string]string{"github.com/uber/h3-go": "geo/cell.go", "github.com/oschwald/maxminddb-golang": "geo/geoip.go"}

// noNames say nothing about what is inside.
var noNames = []string{"util", "utils", "common", "helper", "helpers", "model", "models"}

// banned are parts of echo that have open security advisories in the version that go.mod pins, or that are a trap at
// all times. Why, and when an entry may go: docs/decisions/0004-echo.md.
var banned = []string{
	"middleware.Proxy", "middleware.ProxyWithConfig", // CVE-2026-118264, CVE-2026-118262
	"middleware.BodyDump", "middleware.BodyDumpWithConfig", // CVE-2026-118260
	"middleware.Decompress", "middleware.DecompressWithConfig", // CVE-2026-118261
	"middleware.AddTrailingSlash", "middleware.AddTrailingSlashWithConfig", // CVE-2026-118656
	"middleware.RemoveTrailingSlash", "middleware.RemoveTrailingSlashWithConfig",
	"middleware.MethodOverride", "middleware.MethodOverrideWithConfig", // GHSA-r7w9-592q-9vg4
	"middleware.HTTPSRedirect", "middleware.HTTPSRedirectWithConfig", // CVE-2026-118657, as is Scheme
	"middleware.HTTPSWWWRedirect", "middleware.HTTPSWWWRedirectWithConfig",
	"middleware.HTTPSNonWWWRedirect", "middleware.HTTPSNonWWWRedirectWithConfig",
	"middleware.Static", "middleware.StaticWithConfig", // GHSA-375p-5qhx-8wq4, GHSA-3pmx-cf9f-34xr
	"echo.StaticDirectoryHandler", "Static()", "StaticFS()",
	"JSONP()", "JSONPBlob()", // CVE-2026-118652
	"Scheme()",
}

// violations tells everything in which the packages break the rules, sorted, one line each.
func violations(pkgs []pkg) []string {
	var all []string
	for _, p := range pkgs {
		r, known := rules[p.dir]
		if !known {
			all = append(all, fmt.Sprintf("%s: a new package needs a reason: put the code into a package that exists, "+
				"or give this one a rule in internal/house/rules_test.go and a line in docs/architecture.md", p.dir))
		}
		all = append(all, nameFaults(p)...)
		all = append(all, docFaults(p)...)
		for _, f := range p.files {
			for _, imp := range f.imports {
				if why := importFault(p.dir, r, known, f, imp); why != "" {
					all = append(all, fmt.Sprintf("%s imports %s: %s", path.Join(p.dir, f.name), imp, why))
				}
			}
			for _, use := range f.uses {
				if slices.Contains(banned, use) {
					all = append(all, fmt.Sprintf("%s uses %s: it is barred, see docs/decisions/0004-echo.md", path.Join(p.dir, f.name), use))
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

func nameFaults(p pkg) []string {
	for _, name := range []string{path.Base(p.dir), strings.TrimSuffix(p.name, "_test")} {
		if slices.Contains(noNames, name) {
			return []string{fmt.Sprintf("%s: no package is called %s; name it after what it is about", p.dir, name)}
		}
	}
	return nil
}

// docFaults asks for one package comment. A package of tests alone needs none, a command's begins with "Command".
func docFaults(p pkg) []string {
	want := "Package " + p.name + " "
	if p.name == "main" {
		want = "Command " + path.Base(p.dir) + " "
	}
	real := false
	for _, f := range p.files {
		if f.test {
			continue
		}
		real = true
		if strings.HasPrefix(f.doc, want) {
			return nil
		}
	}
	if !real {
		return nil
	}
	return []string{fmt.Sprintf("%s: no package comment beginning %q: say what it is for, what it promises, what it must not know", p.dir, want)}
}

// importFault tells why the file may not import imp, or "".
func importFault(dir string, r rule, known bool, f file, imp string) string {
	if own, ok := ownFolder(imp); ok {
		switch {
		case within(own, "cmd"):
			return "nobody imports a command"
		case own == dir: // the external test
			return ""
		case f.test && dir != ".":
			return ""
		case known && !slices.Contains(r.own, own) && !slices.Contains(r.own, "*"):
			return fmt.Sprintf("%s may import %s", title(dir), listOr(r.own, "no other package of ours"))
		}
		return ""
	}
	if isStd(imp) {
		return ""
	}
	for _, m := range reserved {
		if !within(imp, m.module) {
			continue
		}
		if !slices.Contains(m.by, dir) {
			return "only " + strings.Join(m.by, ", ") + " may"
		}
		if only := onlyFile[m.module]; only != "" && !f.test && path.Join(dir, f.name) != only {
			return "only " + only + " may"
		}
	}
	switch {
	case r.stdOnly && (dir == "." || !f.test):
		return title(dir) + " imports the standard library only"
	case r.only != nil && !f.test && !slices.ContainsFunc(r.only, func(m string) bool { return within(imp, m) }):
		return title(dir) + " may import " + strings.Join(r.only, ", ") + " of other modules"
	}
	return ""
}

// ownFolder turns an import path of this module into its folder.
func ownFolder(imp string) (string, bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}

// isStd goes by the first element: a module's has a dot. C is none of the standard library.
func isStd(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".") && imp != "C"
}

// within tells whether the path is the folder or lies below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func title(dir string) string {
	if dir == "." {
		return "the root package"
	}
	return dir
}

func listOr(folders []string, none string) string {
	if len(folders) == 0 {
		return none
	}
	named := make([]string, len(folders))
	for i, f := range folders {
		named[i] = title(f)
	}
	return "only " + strings.Join(named, ", ")
}
