package edge_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestConsoleIsBuilt compares the hash of the console's sources with the one noted when it was built, as scripts/hash.mjs makes it.
func TestConsoleIsBuilt(t *testing.T) {
	var names []string
	for _, root := range []string{"index.html", "package-lock.json", "package.json", "scripts", "src", "tsconfig.json", "vite.config.ts"} {
		err := fs.WalkDir(os.DirFS("console"), root, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	all := sha256.New()
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("console", name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(all, "%s\x00%x\n", name, sha256.Sum256(text))
	}
	noted, err := os.ReadFile("console/dist/sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(all.Sum(nil)); got != strings.TrimSpace(string(noted)) {
		t.Errorf("the console was changed but not built: run make console and commit edge/console/dist\nsources %s, built from %s", got, noted)
	}
	lock, err := os.ReadFile("console/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Error("package-lock.json says where packages were fetched from; .npmrc keeps that out")
	}
}

func TestConsoleIsServed(t *testing.T) {
	n := newTestNode(t)
	get := func(method, path string, header ...string) reply {
		t.Helper()
		return n.with(t, n.plain, method, path, "", header...)
	}
	page := get("GET", "/")
	page.want(t, 200)
	policy := page.header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none';", "script-src 'self';", "style-src 'self';", "connect-src 'self' " + n.api + " ws" + strings.TrimPrefix(n.api, "http") + ";", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("%q is not in the policy %s", part, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || page.header.Get("Cache-Control") != "no-cache" || page.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the page comes with %v", page.header)
	}
	assets := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllSubmatch(page.body, -1)
	if len(assets) < 3 {
		t.Fatalf("the page has %d assets", len(assets))
	}
	for _, m := range assets {
		path := string(m[1])
		plain := get("GET", path, "Accept-Encoding: identity")
		plain.want(t, 200)
		if !strings.Contains(plain.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s may be kept: %q", path, plain.header.Get("Cache-Control"))
		}
		packed := get("GET", path, "Accept-Encoding: br, gzip;q=0.8")
		packed.want(t, 200)
		if packed.header.Get("Content-Encoding") == "gzip" {
			r, err := gzip.NewReader(bytes.NewReader(packed.body))
			if err != nil {
				t.Fatal(err)
			}
			if unpacked, err := io.ReadAll(r); err != nil || !bytes.Equal(unpacked, plain.body) {
				t.Errorf("%s: packed and plain are not the same (%v)", path, err)
			}
			if packed.header.Get("ETag") == plain.header.Get("ETag") {
				t.Errorf("%s: packed and plain have one ETag", path)
			}
		}
		for _, accepted := range []string{"identity", "gzip;q=0", "br"} {
			if rep := get("GET", path, "Accept-Encoding: "+accepted); !bytes.Equal(rep.body, plain.body) || rep.header.Get("Content-Encoding") != "" {
				t.Errorf("%s with Accept-Encoding %s is packed", path, accepted)
			}
		}
		get("GET", path, "If-None-Match: "+plain.header.Get("ETag"), "Accept-Encoding: identity").want(t, 304)
		if head := get("HEAD", path); head.status != 200 || len(head.body) > 0 || head.header.Get("Content-Type") != plain.header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d, %d bytes, %v", path, head.status, len(head.body), head.header)
		}
		get("POST", path).want(t, 405)
	}
	if head := get("HEAD", "/"); head.status != 200 || len(head.body) > 0 || head.header.Get("Content-Security-Policy") == "" {
		t.Errorf("HEAD /: %d, %d bytes", head.status, len(head.body))
	}
	for _, path := range []string{"/assets/", "/assets/none.js", "/assets/index.html", "/assets/../index.html", "/assets/..%2findex.html", "/assets/%2e%2e/sources.sha256", "/assets/..%5c..%5cserver.go", "/assets/sources.sha256", "/index.html", "/src/main.tsx"} {
		get("GET", path).want(t, 404)
	}
	get("GET", "/?utm_source=x").want(t, 200)
}
