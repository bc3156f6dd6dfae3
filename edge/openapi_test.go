package edge_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/shortline/shortline"
)

func TestDocumentIsValid(t *testing.T) {
	for name, publicAdmin := range map[string]bool{"with admin": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(t, func(s *nodeSetup) { s.edge.NoPublicAdmin = !publicAdmin })
			doc := readDocument(t, n)
			if ok, errs := doc.valid(); !ok {
				t.Errorf("the document is not valid: %v", explain("document", errs))
			}
			if doc.model.Version != "3.1.0" {
				t.Errorf("it is OpenAPI %s", doc.model.Version)
			}
		})
	}
}

// undocumented are the paths of the public port that the document leaves out: they serve the document itself, and the console.
var undocumented = []string{"/", "/docs", "/openapi.json", "/shortline.js", "/problems/not-found"}

// TestDocumentHasEveryRoute asks for every call of the document, and with every other method on its path; and for every
// call of the contract whether it is in both or in neither.
func TestDocumentHasEveryRoute(t *testing.T) {
	n := newTestNode(t)
	doc := readDocument(t, n)
	fill := regexp.MustCompile(`\{[^}]*\}`)
	methods := []string{"GET", "PUT", "POST", "DELETE", "PATCH"}
	for pair := doc.model.Paths.PathItems.First(); pair != nil; pair = pair.Next() {
		path := fill.ReplaceAllString(pair.Key(), "x")
		for _, method := range methods {
			rep := n.with(t, n.plain, method, path, "")
			routed := rep.status != 405 && !bytes.Contains(rep.body, []byte("there is nothing at this path"))
			if documented := doc.operation(method, path) != nil; routed != documented {
				t.Errorf("%s %s: routed %v, documented %v", method, pair.Key(), routed, documented)
			}
		}
	}
	for _, call := range []string{
		"GET /v1/nearby", "GET /v1/stores/x", "PUT /v1/stores/x", "DELETE /v1/stores/x", "POST /v1/stores:import", "GET /v1/stores/x/queue", "POST /v1/stores/x/queue", "POST /v1/queues",
		"GET /v1/stores/x/stats", "GET /v1/stores/x/forecast", "GET /v1/accuracy", "GET /v1/heatmap", "GET /v1/route", "GET /v1/regions", "GET /v1/live", "GET /v1/live/sse", "GET /healthz",
		"GET /admin/v1/keys", "POST /admin/v1/keys", "DELETE /admin/v1/keys/x", "GET /admin/v1/cluster", "POST /admin/v1/switchover", "POST /admin/v1/failover", "POST /admin/v1/pause",
		"POST /admin/v1/resume", "GET /admin/v1/history", "POST /admin/v1/ack", "POST /admin/v1/regions/x/drain", "GET /admin/v1/regions/x/explain", "GET /metrics", "GET /livez", "GET /readyz",
	} {
		method, path, _ := strings.Cut(call, " ")
		rep := n.with(t, n.plain, method, path, "")
		routed := rep.status != 405 && !bytes.Contains(rep.body, []byte("there is nothing at this path"))
		if documented := doc.operation(method, path) != nil; routed != documented {
			t.Errorf("%s: routed %v, documented %v", call, routed, documented)
		}
	}
	for _, path := range undocumented {
		if rep := n.with(t, n.plain, "GET", path, ""); rep.status >= 400 {
			t.Errorf("%s answers %d", path, rep.status)
		}
	}
}

// TestDocumentNotices changes one thing at a time in an exchange that is right, and wants every change to be noticed.
func TestDocumentNotices(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", Tags: []string{"t"}})
	n.report(t, "a", `{"length":1}`)
	doc := readDocument(t, n)
	check := func(method, path, sent string, rep reply, header http.Header, got string) []string {
		req, err := http.NewRequest(method, n.api+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+n.key)
		if sent != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		return doc.faults(req, []byte(sent), &http.Response{StatusCode: rep.status, Header: header, Request: req}, []byte(got))
	}
	for _, c := range []struct {
		method, path, sent string
		changes            [][2]string // in the answer
	}{
		{"GET", "/v1/nearby?lat=0&lng=0", "", [][2]string{{`"distance_m":0`, `"distance_m":"0"`}, {`"distance_m":0`, `"distance":0`}, {`"region":"local",`, ``}, {`"next_cursor":null`, `"next_cursor":7`},
			{`"length":1`, `"length":-1`}, {`"length":1`, `"length":1.5`}, {`"usual_length":null,`, ``}, {`"name":"A"`, `"name":5`}, {`"open":null`, `"open":"no"`}, {`"address":{}`, `"address":[]`},
			{`"updated_at":"2026`, `"updated_at":"x2026`}, {`"lag_s":`, `"lag_s":-1`}, {`{"stores"`, `{"extra":1,"stores"`}}},
		{"GET", "/v1/stores/a", "", [][2]string{{`"name":"A",`, ``}, {`"lat":0`, `"lat":null`}, {`"lat":0`, `"latitude":0`}, {`"tags":["t"]`, `"tags":"t"`}, {`"id":"a"`, `"id":"a b"`}}},
		{"GET", "/v1/stores/a/queue", "", [][2]string{{`"length":1`, `"length":true`}, {`"age_s":`, `"age":`}, {`"wait_s":60,`, ``}}},
		{"POST", "/v1/stores/a/queue", `{"length":2}`, [][2]string{{`"applied":true,`, ``}, {`"clamped":false`, `"clamped":0`}}},
		{"POST", "/v1/queues", `{"updates":[{"id":"a","length":2},{"id":"none","length":2}]}`, [][2]string{{`"results":[`, `"results":[7,`}, {`"applied":true,`, ``}, {`"status":404`, `"status":"404"`}, {`"id":"none",`, ``}}},
		{"GET", "/v1/stores/none", "", [][2]string{{`"status":404`, `"status":"404"`}, {`"title":`, `"titel":`}}},
		{"GET", "/healthz", "", [][2]string{{`"status":"ok"`, `"status":1`}}},
	} {
		rep := n.do(t, c.method, c.path, c.sent, bearer(n.key))
		if faults := check(c.method, c.path, c.sent, rep, rep.header, string(rep.body)); len(faults) > 0 {
			t.Errorf("%s %s as it is: %v", c.method, c.path, faults)
		}
		for _, change := range c.changes {
			mutant := strings.Replace(string(rep.body), change[0], change[1], 1)
			if mutant == string(rep.body) {
				t.Errorf("there is no %s in %s", change[0], rep.body)
			} else if len(check(c.method, c.path, c.sent, rep, rep.header, mutant)) == 0 {
				t.Errorf("%s %s: %s instead of %s goes unnoticed", c.method, c.path, change[1], change[0])
			}
		}
		other := rep
		other.status = 418
		if len(check(c.method, c.path, c.sent, other, rep.header, string(rep.body))) == 0 {
			t.Errorf("%s %s: the status 418 goes unnoticed", c.method, c.path)
		}
		header := rep.header.Clone()
		header.Set("Content-Type", "text/html")
		if len(check(c.method, c.path, c.sent, rep, header, string(rep.body))) == 0 {
			t.Errorf("%s %s: text/html goes unnoticed", c.method, c.path)
		}
		header = rep.header.Clone()
		header.Set("Shortline-Secret", "1")
		if len(check(c.method, c.path, c.sent, rep, header, string(rep.body))) == 0 {
			t.Errorf("%s %s: a header that is not promised goes unnoticed", c.method, c.path)
		}
	}
	ok := n.get(t, "/v1/nearby?lat=0&lng=0")
	for _, path := range []string{"/v1/nearby?lat=91&lng=0", "/v1/nearby?lng=0", "/v1/nearby?lat=0&lng=0&limit=101", "/v1/nearby?lat=0&lng=0&sort=name", "/v1/nearby?lat=0&lng=0&what=1"} {
		if len(check("GET", path, "", ok, ok.header, string(ok.body))) == 0 {
			t.Errorf("the request %s goes unnoticed", path)
		}
	}
	wrote := n.write(t, "POST", "/v1/stores/a/queue", `{"length":2}`)
	for _, sent := range []string{`{"length":"2"}`, `{"length":-2}`, `{"size":2}`, `{"length":2,"observed_at":"now"}`, `[]`} {
		if len(check("POST", "/v1/stores/a/queue", sent, wrote, wrote.header, string(wrote.body))) == 0 {
			t.Errorf("the body %s goes unnoticed", sent)
		}
	}
}

// voidElements have no end tag.
var voidElements = []string{"meta", "br", "hr", "img", "link", "input"}

func TestDocsPage(t *testing.T) {
	n := newTestNode(t)
	rep := n.get(t, "/docs").want(t, 200)
	if got := rep.header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := rep.header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || strings.Contains(got, "http") || strings.Contains(got, "*") {
		t.Errorf("Content-Security-Policy is %q", got)
	}
	page := string(rep.body)
	ids, links := map[string]bool{}, []string{}
	var open []string
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			if !errors.Is(z.Err(), io.EOF) {
				t.Fatal(z.Err())
			}
			break
		}
		token := z.Token()
		switch kind {
		case html.StartTagToken:
			if token.Data == "script" || token.Data == "iframe" || token.Data == "object" {
				t.Errorf("there is a <%s>", token.Data)
			}
			if !slices.Contains(voidElements, token.Data) {
				open = append(open, token.Data)
			}
			for _, a := range token.Attr {
				switch {
				case a.Key == "id":
					if ids[a.Val] {
						t.Errorf("the id %s is there twice", a.Val)
					}
					ids[a.Val] = true
				case a.Key == "href":
					links = append(links, a.Val)
				case a.Key == "src" || a.Key == "srcset" || a.Key == "action" || strings.HasPrefix(a.Key, "on"):
					t.Errorf("<%s> has %s=%q", token.Data, a.Key, a.Val)
				}
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("</%s> closes %v", token.Data, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("never closed: %v", open)
	}
	for _, link := range links {
		u, err := url.Parse(link)
		switch {
		case err != nil || u.Scheme != "" || u.Host != "":
			t.Errorf("a link leads outside: %s", link)
		case u.Path == "" && !ids[u.Fragment]:
			t.Errorf("the link %s leads nowhere", link)
		case u.Path != "":
			n.get(t, u.Path).want(t, 200)
		}
	}
	if regexp.MustCompile(`(?i)@import|url\(`).MatchString(page) {
		t.Error("the style sheet loads something")
	}
	if strings.Contains(page, "ZgotmplZ") || strings.Contains(page, "<no value>") || strings.Contains(page, "%!") {
		t.Error("the template has gone wrong")
	}
	doc := readDocument(t, n)
	for pair := doc.model.Paths.PathItems.First(); pair != nil; pair = pair.Next() {
		for op := pair.Value().GetOperations().First(); op != nil; op = op.Next() {
			if id := op.Value().OperationId; !ids[id] || !strings.Contains(page, pair.Key()) {
				t.Errorf("%s %s (%s) is not on the page", op.Key(), pair.Key(), id)
			}
		}
	}
}

func TestProblemPages(t *testing.T) {
	n := newTestNode(t)
	page := string(n.get(t, "/docs").want(t, 200).body)
	kinds := regexp.MustCompile(`id="problem-([a-z-]+)"`).FindAllStringSubmatch(page, -1)
	if len(kinds) < 18 {
		t.Fatalf("the page has only %d kinds of problem", len(kinds))
	}
	for _, kind := range kinds {
		rep := n.get(t, "/problems/"+kind[1]).want(t, 302)
		if got := rep.header.Get("Location"); got != "/docs#problem-"+kind[1] {
			t.Errorf("%s leads to %s", kind[1], got)
		}
	}
	n.get(t, "/problems/boredom").wantProblem(t, 404, "not-found")
	n.get(t, "/problems/").wantProblem(t, 404, "not-found")
}

func TestDocumentsAreCached(t *testing.T) {
	n := newTestNode(t)
	for _, path := range []string{"/docs", "/openapi.json", "/shortline.js"} {
		rep := n.get(t, path).want(t, 200)
		tag := rep.header.Get("ETag")
		if tag == "" || !strings.Contains(rep.header.Get("Cache-Control"), "max-age") {
			t.Errorf("%s: %v", path, rep.header)
		}
		n.get(t, path, "If-None-Match: "+tag).want(t, 304)
	}
}
