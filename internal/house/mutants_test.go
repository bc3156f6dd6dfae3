package house

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const header = "// Package %s is for a test.\npackage %s\n"

// house is a small tree that breaks no rule and uses every freedom that there is.
func house() map[string]string {
	doc := func(name, rest string) string { return strings.ReplaceAll(header, "%s", name) + rest }
	own := func(dirs ...string) string {
		var b strings.Builder
		for _, d := range dirs {
			b.WriteString("import _ \"" + strings.TrimSuffix(module+"/"+d, "/") + "\"\n")
		}
		return b.String()
	}
	return map[string]string{
		"go.mod":                                "module " + module,
		"shortline.go":                          doc("shortline", `import _ "strings"`),
		"shortline_test.go":                     "package shortline_test\nimport _ \"testing\"\n" + own(""),
		"geo/point.go":                          doc("geo", own("")),
		"geo/cell.go":                           "package geo\nimport _ \"github.com/uber/h3-go/v4\"",
		"geo/index_test.go":                     "package geo\nimport _ \"github.com/uber/h3-go/v4\"\nimport _ \"go.uber.org/goleak\"",
		"replication/store.go":                  doc("replication", own("", "geo")+`import _ "github.com/VictoriaMetrics/fastcache"`),
		"replication/feed_test.go":              "package replication_test\n" + own("replication", "replication/sqlite", "replication/storetest"),
		"replication/sqlite/sqlite.go":          doc("sqlite", own("", "replication")+`import _ "github.com/mattn/go-sqlite3"`),
		"replication/sqlite/sqlite_test.go":     "package sqlite\n" + own("replication/storetest", "replication/rediscache"),
		"replication/postgres/postgres.go":      doc("postgres", own("geo", "replication")+`import _ "github.com/jackc/pgx/v5/pgxpool"`),
		"replication/rediscache/rediscache.go":  doc("rediscache", own("replication")+`import _ "github.com/redis/go-redis/v9"`),
		"replication/storetest/storetest.go":    doc("storetest", own("", "replication")),
		"regions/control/raft.go":               doc("control", own("regions")+`import _ "github.com/hashicorp/raft"`),
		"regions/view.go":                       doc("regions", own("geo")),
		"regions/gossip/list.go":                doc("gossip", own("regions")+`import _ "github.com/hashicorp/memberlist"`),
		"insight/profile.go":                    doc("insight", own("", "geo")+`import _ "github.com/hashicorp/rafting"`),
		"edge/server.go":                        doc("edge", own("", "geo", "replication", "regions", "insight", "edge/client")+"import (\n\"github.com/labstack/echo/v4\"\n\"github.com/labstack/echo/v4/middleware\"\n_ \"github.com/danielgtaylor/huma/v2\"\n)\nvar _ = echo.New()\nvar _ = middleware.RequestID()"),
		"edge/server_test.go":                   "package edge_test\n" + own("edge", "replication/sqlite"),
		"edge/client/client.go":                 doc("client", own("")+`import _ "golang.org/x/sync/errgroup"`),
		"storefile/csv.go":                      doc("storefile", own("")),
		"internal/demo/demo.go":                 doc("demo", own("")+`import _ "embed"`),
		"internal/demo/testdata/x.go":           "package models",
		"bench/main.go":                         "// Command bench measures.\npackage main\n" + own("edge", "replication/sqlite") + `import _ "github.com/labstack/echo/v4"`,
		"cmd/shortline/main.go":                 "// Command shortline is the program.\npackage main\n" + own("", "edge", "regions", "replication/postgres") + `import _ "github.com/spf13/cobra"`,
		"internal/house/tools/go.mod":           "module elsewhere",
		"internal/house/tools/anything/util.go": "package util",
	}
}

func check(t *testing.T, files map[string]string) []string {
	t.Helper()
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	pkgs, err := load(tree)
	if err != nil {
		t.Fatal(err)
	}
	return violations(pkgs)
}

func TestGoodHouseHasNoViolation(t *testing.T) {
	if got := check(t, house()); len(got) > 0 {
		t.Errorf("violations in a good tree:\n%s", strings.Join(got, "\n"))
	}
}

// TestMutants breaks each rule once, by adding a file to the good tree, and wants exactly that violation.
func TestMutants(t *testing.T) {
	imports := func(name, imp string) string { return "package " + name + "\nimport _ \"" + imp + "\"" }
	own := func(name, dir string) string { return imports(name, module+"/"+dir) }
	edge := func(imp, body string) string { return "package edge\nimport " + imp + "\n" + body }
	const mw = `"github.com/labstack/echo/v4/middleware"`

	tests := []struct{ name, file, text, want string }{
		{"root imports a library", "x.go", imports("shortline", "golang.org/x/text"), "the root package imports the standard library only"},
		{"root imports C", "x.go", imports("shortline", "C"), "the root package imports the standard library only"},
		{"root imports geo", "x.go", own("shortline", "geo"), "the root package may import no other"},
		{"root's test imports a library", "x_test.go", imports("shortline", "go.uber.org/goleak"), "standard library only"},
		{"root's external test imports geo", "x_test.go", own("shortline_test", "geo"), "the root package may import no other"},
		{"geo imports another library", "geo/x.go", imports("geo", "golang.org/x/sync"), "geo may import github.com/uber/h3-go, github.com/oschwald/maxminddb-golang of other modules"},
		{"geo imports replication", "geo/x.go", own("geo", "replication"), "geo may import only the root package"},
		{"h3 in another file of geo", "geo/x.go", imports("geo", "github.com/uber/h3-go/v4"), "only geo/cell.go may"},
		{"h3 outside geo", "replication/x.go", imports("replication", "github.com/uber/h3-go/v4"), "only geo may"},
		{"h3 in another's test", "edge/x_test.go", imports("edge", "github.com/uber/h3-go/v4"), "only geo may"},
		{"replication imports an adapter", "replication/x.go", own("replication", "replication/sqlite"), "replication may import only"},
		{"regions imports replication", "regions/x.go", own("regions", "replication"), "regions may import only"},
		{"insight imports edge", "insight/x.go", own("insight", "edge"), "insight may import only"},
		{"adapter imports adapter", "replication/sqlite/x.go", own("sqlite", "replication/postgres"), "replication/sqlite may import only"},
		{"adapter imports edge", "replication/rediscache/x.go", own("rediscache", "edge"), "replication/rediscache may import only"},
		{"adapter imports the suite", "replication/postgres/x.go", own("postgres", "replication/storetest"), "replication/postgres may import only"},
		{"suite imports an adapter", "replication/storetest/x.go", own("storetest", "replication/sqlite"), "replication/storetest may import only"},
		{"adapter imports another's engine", "replication/sqlite/x.go", imports("sqlite", "github.com/jackc/pgx/v5"), "only replication/postgres"},
		{"edge imports an adapter", "edge/x.go", own("edge", "replication/sqlite"), "edge may import only"},
		{"edge imports raft", "edge/x.go", imports("edge", "github.com/hashicorp/raft"), "only regions/control may"},
		{"edge imports memberlist", "edge/x.go", imports("edge", "github.com/hashicorp/memberlist"), "only regions/gossip may"},
		{"edge imports sqlite", "edge/x.go", imports("edge", "github.com/mattn/go-sqlite3"), "only replication/sqlite may"},
		{"edge imports pgx", "edge/x.go", imports("edge", "github.com/jackc/pgx/v5"), "only replication/postgres"},
		{"edge imports redis", "edge/x.go", imports("edge", "github.com/redis/go-redis/v9"), "only replication/rediscache"},
		{"client imports edge", "edge/client/x.go", own("client", "edge"), "edge/client may import only the root package"},
		{"client imports echo", "edge/client/x.go", imports("client", "github.com/labstack/echo/v4"), "only edge, bench may"},
		{"storefile imports a library", "storefile/x.go", imports("storefile", "golang.org/x/text"), "storefile imports the standard library only"},
		{"storefile imports geo", "storefile/x.go", own("storefile", "geo"), "storefile may import only the root package"},
		{"demo imports a library", "internal/demo/x.go", imports("demo", "golang.org/x/text"), "internal/demo imports the standard library only"},
		{"someone imports a command", "bench/x.go", own("main", "cmd/shortline"), "nobody imports a command"},
		{"a test imports a command", "edge/x_test.go", own("edge", "cmd/shortline"), "nobody imports a command"},
		{"echo in cmd", "cmd/shortline/x.go", imports("main", "github.com/labstack/echo/v4"), "only edge, bench may"},
		{"cobra outside cmd", "edge/x.go", imports("edge", "github.com/spf13/cobra"), "only cmd/shortline may"},
		{"behind a build constraint", "edge/x_plan9.go", own("edge", "replication/sqlite"), "edge may import only"},
		{"new package", "maps/x.go", "// Package maps is new.\npackage maps", "maps: a new package needs a reason"},
		{"new package below another", "edge/ws/x.go", "// Package ws is new.\npackage ws", "edge/ws: a new package needs a reason"},
		{"new internal package", "internal/x/x.go", "// Package x is new.\npackage x", "internal/x: a new package needs a reason"},
		{"no package comment", "edge/console/x.go", "package console", `edge/console: no package comment beginning "Package console "`},
		{"another's package comment", "edge/console/x.go", "// Console is nice.\npackage console", "edge/console: no package comment"},
		{"proxy", "edge/x.go", edge(mw, "var _ = middleware.Proxy"), "edge/x.go uses middleware.Proxy:"},
		{"proxy with config", "edge/x.go", edge(mw, "func f() { middleware.ProxyWithConfig(c) }"), "uses middleware.ProxyWithConfig:"},
		{"proxy under another name", "edge/x.go", edge("m "+mw, "var _ = m.Proxy(nil)"), "uses middleware.Proxy:"},
		{"proxy by dot import", "edge/x.go", edge(". "+mw, "var _ = Proxy(nil)"), "uses middleware.Proxy:"},
		{"proxy of a later echo", "edge/x.go", edge(`"github.com/labstack/echo/v5/middleware"`, "var _ = middleware.Proxy(nil)"), "uses middleware.Proxy:"},
		{"unbounded decompression", "edge/x.go", edge(mw, "var _ = middleware.Decompress()"), "uses middleware.Decompress:"},
		{"scheme from any client", "edge/x.go", edge(`"github.com/labstack/echo/v4"`, "func f(c echo.Context) { c.Scheme() }"), "uses Scheme():"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := house()
			files[tt.file] = tt.text
			got := check(t, files)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("got %q, want one violation with %q", got, tt.want)
			}
		})
	}
	for _, name := range noNames {
		t.Run("called "+name, func(t *testing.T) {
			files := house()
			files["edge/"+name+"/x.go"] = "// Package " + name + " is anything.\npackage " + name
			if !slices.ContainsFunc(check(t, files), func(v string) bool { return strings.Contains(v, "no package is called "+name) }) {
				t.Errorf("a package called %s is not caught", name)
			}
		})
	}
}

func TestLoadRefusesWhatItCannotRead(t *testing.T) {
	if _, err := load(fstest.MapFS{"x.go": {Data: []byte("package shortline\nfunc {")}}); err == nil {
		t.Error("a file that does not parse was judged all the same")
	}
}
