package edge_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

func TestHead(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	for _, path := range []string{"/v1/nearby?lat=0&lng=0", "/v1/stores/a", "/v1/stores/a/queue", "/healthz", "/openapi.json", "/docs"} {
		got, head := n.get(t, path).want(t, 200), n.do(t, "HEAD", path, "").want(t, 200)
		if len(head.body) != 0 || head.header.Get("Content-Type") != got.header.Get("Content-Type") || head.header.Get("ETag") != got.header.Get("ETag") {
			t.Errorf("HEAD %s: %v %q", path, head.header, head.body)
		}
	}
	n.do(t, "HEAD", "/v1/stores/none", "").want(t, 404)
	n.do(t, "HEAD", "/v1/nearby", "").want(t, 400)
}

func TestCORS(t *testing.T) {
	n := newTestNode(t)
	const origin = "Origin: https://shop.example"
	rep := n.with(t, n.plain, "OPTIONS", "/v1/stores/a/queue", "", origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type,idempotency-key").want(t, 204)
	if rep.header.Get("Access-Control-Allow-Origin") != "*" || rep.header.Get("Access-Control-Max-Age") == "" || rep.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %v", rep.header)
	}
	for header, names := range map[string][]string{
		"Access-Control-Allow-Methods": {"GET", "HEAD", "PUT", "POST", "DELETE"},
		"Access-Control-Allow-Headers": {"Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Shortline-Token", "X-Request-Id"},
	} {
		for _, name := range names {
			if !strings.Contains(","+strings.ReplaceAll(rep.header.Get(header), " ", "")+",", ","+name+",") {
				t.Errorf("%s lacks %s: %s", header, name, rep.header.Get(header))
			}
		}
	}
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	for _, path := range []string{"/v1/nearby?lat=0&lng=0", "/v1/stores/a", "/v1/stores/none", "/v1/nearby", "/nowhere"} {
		rep := n.get(t, path, origin)
		exposed := "," + strings.ReplaceAll(rep.header.Get("Access-Control-Expose-Headers"), " ", "") + ","
		for _, name := range []string{"Shortline-Token", "Shortline-Region", "X-Request-Id", "ETag", "Retry-After", "Idempotent-Replayed"} {
			if rep.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(exposed, ","+name+",") {
				t.Errorf("%s does not expose %s: %s", path, name, exposed)
			}
		}
	}
}

func TestGzip(t *testing.T) {
	n := newTestNode(t)
	n.load(t, someStores(300))
	n.put(t, shortline.Store{ID: "small", Name: "S"})
	n.put(t, shortline.Store{ID: "large", Name: "L", Hours: strings.TrimSuffix(strings.Repeat("Mo 08:00-09:00; ", 60), "; "), Phone: strings.Repeat("1", 200), Brand: strings.Repeat("b", 200)})
	const accept = "Accept-Encoding: gzip"
	for _, path := range []string{"/v1/nearby?lat=51.5&lng=0&limit=100", "/v1/stores/large", "/openapi.json", "/docs"} {
		t.Run(path, func(t *testing.T) {
			plain, packed := n.get(t, path).want(t, 200), n.get(t, path, accept).want(t, 200)
			if packed.header.Get("Content-Encoding") != "gzip" || !slices.Contains(packed.header.Values("Vary"), "Accept-Encoding") {
				t.Fatalf("the headers are %v", packed.header)
			}
			z, err := gzip.NewReader(bytes.NewReader(packed.body))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			cut := func(b []byte) string { s, _, _ := strings.Cut(string(b), `"as_of"`); return s } // the rest moves with time
			if cut(text) != cut(plain.body) || len(packed.body) >= len(plain.body) {
				t.Errorf("%d bytes packed, %d not, and they are not the same", len(packed.body), len(plain.body))
			}
			if packed.header.Get("Content-Type") != plain.header.Get("Content-Type") {
				t.Errorf("Content-Type is %q", packed.header.Get("Content-Type"))
			}
			tag := packed.header.Get("ETag")
			if tag == "" {
				return
			}
			if tag == plain.header.Get("ETag") && !strings.HasPrefix(tag, "W/") {
				t.Errorf("two forms have the same strong ETag %s", tag)
			}
			for _, given := range []string{tag, plain.header.Get("ETag")} {
				for _, header := range []string{accept, "Accept-Encoding: identity"} {
					if rep := n.get(t, path, header, "If-None-Match: "+given).want(t, 304); len(rep.body) != 0 {
						t.Errorf("304 with a body of %d bytes", len(rep.body))
					}
				}
			}
		})
	}
	t.Run("small answers are not worth it", func(t *testing.T) {
		if rep := n.get(t, "/v1/stores/small", accept).want(t, 200); rep.header.Get("Content-Encoding") != "" {
			t.Errorf("%d bytes are packed", len(rep.body))
		}
	})
	t.Run("not where it is refused", func(t *testing.T) {
		if rep := n.get(t, "/docs", "Accept-Encoding: gzip;q=0, identity").want(t, 200); rep.header.Get("Content-Encoding") != "" {
			t.Error("it is packed")
		}
	})
	t.Run("errors and writes", func(t *testing.T) {
		n.get(t, "/v1/nearby", accept).wantProblem(t, 400, "malformed-request")
		n.write(t, "DELETE", "/v1/stores/small", "", accept).want(t, 204)
		n.write(t, "POST", "/v1/stores:import", "id,name,lat,lng\nz,Z,1,1\n", "Content-Type: text/csv", accept).want(t, 200)
	})
}

func TestRequestID(t *testing.T) {
	n := newTestNode(t)
	for _, good := range []string{"a", "7f9c-1:2/3", strings.Repeat("x", 128)} {
		for _, target := range []string{"/healthz", "/v1/nearby", "/nowhere", n.admin + "/livez", n.admin + "/nowhere"} {
			if got := n.get(t, target, "X-Request-Id: "+good).header.Get("X-Request-Id"); got != good {
				t.Errorf("%s: %q became %q", target, good, got)
			}
		}
	}
	seen := map[string]bool{}
	for _, evil := range []string{"", "with blank", "tab\there", "ümlaut", "\xff", strings.Repeat("x", 129), "a\u0085b"} {
		got := n.get(t, "/healthz", "X-Request-Id: "+evil).header.Values("X-Request-Id")
		if len(got) != 1 || got[0] == evil || got[0] == "" || seen[got[0]] {
			t.Errorf("%q became %q", evil, got)
		}
		seen[got[0]] = true
	}
	if got := n.get(t, "/healthz", "X-Request-Id: a", "X-Request-Id: b").header.Values("X-Request-Id"); len(got) != 1 || got[0] == "a" || got[0] == "b" {
		t.Errorf("two ids became %q", got)
	}
}

// TestEveryAnswer looks for the headers of every answer on answers of every kind, on both ports.
func TestEveryAnswer(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	for _, base := range []string{n.api, n.admin} {
		for _, c := range []struct {
			method, path string
			status       int
		}{
			{"GET", "/nowhere", 404}, {"POST", "/nowhere", 404}, {"GET", "/v1/", 404}, {"GET", "/v1/stores/a/", 404}, {"GET", "//v1/stores/a", 404}, {"GET", "/admin/v1/", 404}, {"GET", "/admin/v1/clusters", 404},
		} {
			n.with(t, n.plain, c.method, base+c.path, "").wantProblem(t, c.status, "not-found")
		}
	}
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/v1/nearby", "GET HEAD"}, {"PATCH", "/v1/stores/a", "DELETE GET HEAD PUT"}, {"POST", "/v1/stores/a", "DELETE GET HEAD PUT"},
		{"GET", "/v1/stores:import", "POST"}, {"GET", "/v1/queues", "POST"}, {"DELETE", "/v1/stores/a/queue", "GET HEAD POST"}, {"PUT", "/healthz", "GET HEAD"},
		{"PUT", "/admin/v1/keys", "GET HEAD POST"}, {"GET", "/admin/v1/keys/x", "DELETE"}, {"POST", "/docs", "GET HEAD"}, {"TRACE", "/v1/nearby", "GET HEAD"},
	} {
		rep := n.with(t, n.plain, c.method, c.path, "")
		rep.wantProblem(t, 405, "method-not-allowed")
		allow := strings.FieldsFunc(rep.header.Get("Allow"), func(r rune) bool { return r == ',' || r == ' ' })
		allow = slices.DeleteFunc(allow, func(m string) bool { return m == "OPTIONS" })
		slices.Sort(allow)
		if got := strings.Join(allow, " "); got != c.allow {
			t.Errorf("%s %s: Allow is %q, want %q", c.method, c.path, rep.header.Get("Allow"), c.allow)
		}
	}
	n.with(t, n.plain, "POST", n.admin+"/livez", "").wantProblem(t, 405, "method-not-allowed")
	for _, path := range []string{"/v1/stores/a", "/docs", "/openapi.json", "/problems/not-found"} {
		if rep := n.get(t, path); rep.header.Get("Shortline-Region") != "local" || rep.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %v", path, rep.header)
		}
	}
	n.with(t, n.plain, "OPTIONS", "/v1/nearby", "").want(t, 204)
}

// TestRawRequests sends what no client library would, and wants an answer with a status below 500 to each.
func TestRawRequests(t *testing.T) {
	n := newTestNode(t)
	for _, text := range []string{
		"GET /v1/nearby?lat=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/nearby?%ff=%fe HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/nearby?lat=1;lng=2 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/stores/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/stores/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/stores/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://elsewhere/v1/stores/a HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/nearby HTTP/1.0\r\n\r\n",
		"GET /v1/stores/a HTTP/1.1\r\nHost: x\r\nShortline-Token: \r\n\r\n",
		"POST /v1/stores/a/queue HTTP/1.1\r\nHost: x\r\n" + bearer(n.key) + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /v1/stores/a/queue HTTP/1.1\r\nHost: x\r\n" + bearer(n.key) + "\r\nContent-Type: application/json\r\nContent-Length: 5\r\nExpect: something\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + strings.Repeat("x", 40<<10) + "\r\n\r\n",
		"nonsense\r\n\r\n",
	} {
		var status int
		answer := n.raw(t, text)
		if _, err := fmt.Sscanf(answer, "HTTP/1.%d %d", new(int), &status); err != nil || status >= 500 {
			t.Errorf("%.60q: %.200q", text, answer)
		}
	}
}
