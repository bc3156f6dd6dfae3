package edge_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

func TestAdminPort(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.report(t, "a", `{"length":1}`)
	n.nearby(t, "lat", "0", "lng", "0")
	n.get(t, "/v1/nearby").want(t, 400)
	n.get(t, "/some/random/path").want(t, 404)
	n.with(t, n.plain, "PATCH", "/v1/nearby", "").want(t, 405)
	n.with(t, n.plain, "BREW", "/v1/stores/a", "").want(t, 405)

	t.Run("livez", func(t *testing.T) { n.get(t, n.admin+"/livez").want(t, 200) })
	t.Run("readyz", func(t *testing.T) {
		var h struct {
			Status string
			Checks map[string]string
		}
		n.get(t, n.admin+"/readyz").want(t, 200).json(t, &h)
		for _, name := range []string{"snapshot", "feed", "store", "stopping"} {
			if h.Checks[name] != "ok" {
				t.Errorf("%s is %q", name, h.Checks[name])
			}
		}
	})
	t.Run("metrics", func(t *testing.T) {
		text := string(n.get(t, n.admin+"/metrics").want(t, 200).body)
		for _, want := range []string{
			`shortline_http_requests_total{code="200",method="GET",route="/v1/nearby"} 1`,
			`shortline_http_requests_total{code="400",method="GET",route="/v1/nearby"} 1`,
			`shortline_http_requests_total{code="404",method="GET",route="none"} 1`,
			`shortline_http_requests_total{code="405",method="other",route="`,
			`shortline_http_request_seconds_count{method="GET",route="/v1/nearby"} 2`,
			"shortline_http_requests_in_flight 1", "shortline_stores 1", "shortline_queues 1", "shortline_index_bytes ", "shortline_store_commit_seconds_count 2",
			"shortline_store_details_seconds_count 1", "shortline_feed_lag_seconds ", "shortline_nearby_degraded_total 0",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("there is no %s", want)
			}
		}
		for _, no := range []string{"random", "BREW", "PATCH"} {
			if strings.Contains(text, no) {
				t.Errorf("what a client made up, %q, became a label", no)
			}
		}
	})
	t.Run("pprof", func(t *testing.T) {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1", "/debug/pprof/symbol"} {
			n.get(t, n.admin+path).want(t, 200)
		}
	})
	t.Run("keys need no key here", func(t *testing.T) {
		n.get(t, n.admin+"/admin/v1/keys").want(t, 200)
		n.do(t, "POST", n.admin+"/admin/v1/keys", `{"name":"x","scopes":["read"]}`).want(t, 201)
	})
	t.Run("the console and what it reads are here, for operators on this machine", func(t *testing.T) {
		page := n.get(t, n.admin+"/?admin").want(t, 200)
		if !strings.Contains(page.header.Get("Content-Security-Policy"), strings.TrimPrefix(n.admin, "http://")) {
			t.Errorf("the page's policy is %q", page.header.Get("Content-Security-Policy"))
		}
		n.get(t, n.admin+"/v1/nearby?lat=0&lng=0").want(t, 200)
		n.get(t, n.admin+"/v1/nearby?lat=0&lng=0", "Host: evil.example").wantProblem(t, 403, "forbidden")
	})
	t.Run("writes are not", func(t *testing.T) {
		n.do(t, "POST", n.admin+"/v1/stores/a/queue", `{"length":1}`, bearer(n.key)).wantProblem(t, 404, "not-found")
	})
	t.Run("nor is this there", func(t *testing.T) {
		for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/"} {
			n.get(t, path, bearer(n.key)).wantProblem(t, 404, "not-found")
		}
	})
}

func TestAdminGuard(t *testing.T) {
	n := newTestNode(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(n.admin, "http://"))
	const body = `{"name":"x","scopes":["read"]}`
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
	}{
		{"localhost", "GET", "/admin/v1/keys", "", []string{"Host: localhost:" + port}, 200},
		{"localhost without port", "GET", "/admin/v1/keys", "", []string{"Host: LOCALHOST"}, 200},
		{"IPv6", "GET", "/admin/v1/keys", "", []string{"Host: [::1]:" + port}, 200},
		{"a foreign host", "GET", "/admin/v1/keys", "", []string{"Host: evil.example"}, 403},
		{"a host that resolves here", "GET", "/admin/v1/keys", "", []string{"Host: localhost.evil.example:" + port}, 403},
		{"a foreign address", "GET", "/metrics", "", []string{"Host: 192.0.2.1"}, 403},
		{"a foreign host with a key", "GET", "/admin/v1/keys", "", []string{"Host: evil.example", bearer(n.key)}, 403},
		{"its own origin", "POST", "/admin/v1/keys", body, []string{"Origin: http://127.0.0.1:" + port}, 201},
		{"a foreign origin", "GET", "/admin/v1/keys", "", []string{"Origin: https://evil.example"}, 403},
		{"a foreign origin writes", "POST", "/admin/v1/keys", body, []string{"Origin: https://evil.example"}, 403},
		{"a foreign origin that begins like ours", "POST", "/admin/v1/keys", body, []string{"Origin: http://localhost.evil.example"}, 403},
		{"an opaque origin", "POST", "/admin/v1/keys", body, []string{"Origin: null"}, 403},
		{"a form", "POST", "/admin/v1/keys", body, []string{"Content-Type: text/plain"}, 415},
		{"no type", "POST", "/admin/v1/keys", body, []string{"Content-Type: "}, 415},
		{"a type with a parameter", "POST", "/admin/v1/keys", body, []string{"Content-Type: Application/JSON; charset=utf-8"}, 201},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := n.do(t, c.method, n.admin+c.path, c.body, c.headers...).want(t, c.status)
			if c.status >= 400 {
				rep.wantProblem(t, c.status, map[int]string{403: "forbidden", 415: "unsupported-media-type"}[c.status])
			}
		})
	}
}

func TestAdminOffLoopback(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.adminAddr = &net.TCPAddr{IP: net.IPv4zero, Port: 8081} })
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		n.get(t, n.admin+path, "Host: node.example").want(t, 200)
	}
	_, reader := n.newKey(t, "read")
	n.get(t, n.admin+"/v1/nearby?lat=0&lng=0", bearer(n.key)).wantProblem(t, 404, "not-found")
	for _, path := range []string{"/", "/v1/nearby", "/admin/v1/keys", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/../debug/pprof/", "//debug/pprof/", "/metrics/x", "/metrics/../debug/pprof/"} {
		n.get(t, n.admin+path).wantProblem(t, 401, "unauthorized")
		n.get(t, n.admin+path, bearer(reader)).wantProblem(t, 403, "forbidden")
	}
	n.get(t, n.admin+"/admin/v1/keys", bearer(n.key), "Host: node.example").want(t, 200)
}

func TestPublicAdmin(t *testing.T) {
	t.Run("always with a key", func(t *testing.T) {
		n := newTestNode(t)
		n.get(t, "/admin/v1/keys").wantProblem(t, 401, "unauthorized")
		n.write(t, "GET", "/admin/v1/keys", "").want(t, 200)
	})
	t.Run("switched off", func(t *testing.T) {
		n := newTestNode(t, func(s *nodeSetup) { s.edge.NoPublicAdmin = true })
		n.write(t, "GET", "/admin/v1/keys", "").wantProblem(t, 404, "not-found")
		n.write(t, "POST", "/admin/v1/keys", "{}").wantProblem(t, 404, "not-found")
		n.get(t, n.admin+"/admin/v1/keys").want(t, 200)
		var doc struct{ Paths map[string]any }
		if err := json.Unmarshal(n.get(t, "/openapi.json").body, &doc); err != nil || doc.Paths["/v1/nearby"] == nil || doc.Paths["/admin/v1/keys"] != nil {
			t.Errorf("the document speaks of keys: %v", err)
		}
	})
}

func TestHealthz(t *testing.T) {
	n := newTestNode(t)
	n.get(t, "/healthz").want(t, 200)
	n.do(t, http.MethodHead, "/healthz", "").want(t, 200)
}
