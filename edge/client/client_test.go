package client

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// serve starts a server that answers with h, and a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Config{Server: srv.URL + "/", AdminServer: srv.URL, Key: "sl_test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer writes JSON as the API does.
func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.Header().Set("Shortline-Region", "local")
	w.Header().Set("X-Request-Id", "r-1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func TestNearbySendsTheQueryAndReadsTheAnswer(t *testing.T) {
	const body = `{"stores":[{"id":"a","name":"A","lat":1,"lng":2,"distance_m":12.5,"open":true,
		"queue":{"length":4,"wait_s":180,"wait_high_s":300,"usual_length":6.2,"updated_at":"2026-11-23T09:00:00Z","age_s":3}},
		{"id":"b","name":"B","lat":1,"lng":2,"distance_m":13,"open":null,"queue":null}],
		"region":"local","as_of":"2026-11-23T09:00:03Z","lag_s":0.08,"next_cursor":"n"}`
	var got *http.Request
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { got = r; answer(w, 200, body) })
	wait := 10 * time.Minute
	a, err := c.Nearby(t.Context(), NearbyQuery{Lat: -33.87, Lng: 151.21, Radius: "1km", Limit: 3, Sort: "distance", OpenNow: true,
		MaxWait: &wait, Tags: []string{"wifi", "drive through"}, Brand: "B&B"})
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"lat": {"-33.87"}, "lng": {"151.21"}, "radius": {"1km"}, "limit": {"3"}, "sort": {"distance"}, "open_now": {"true"},
		"max_wait": {"600"}, "tag": {"wifi", "drive through"}, "brand": {"B&B"}}
	if got.URL.Path != "/v1/nearby" || !reflect.DeepEqual(got.URL.Query(), want) {
		t.Errorf("asked %s %v, want %v", got.URL.Path, got.URL.Query(), want)
	}
	if h := got.Header.Get("Authorization"); h != "Bearer sl_test" {
		t.Errorf("Authorization %q", h)
	}
	if string(a.Raw) != body || a.Answer.Region != "local" || a.RequestID != "r-1" {
		t.Errorf("answer %+v", a.Answer)
	}
	if s := a.Stores; len(s) != 2 || s[0].Queue.Length != 4 || *s[0].Queue.UsualLength != 6.2 || s[1].Queue != nil || s[1].Open != nil || *a.NextCursor != "n" {
		t.Errorf("stores %+v", a.Stores)
	}
}

func TestWritesAndTheirPaths(t *testing.T) {
	type seen struct{ method, path, body, kind string }
	var got seen
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.URL.Path, string(b), r.Header.Get("Content-Type")}
		switch r.URL.Path {
		case "/v1/stores/a.b-1":
			w.Header().Set("ETag", `"7"`)
			answer(w, 201, `{"id":"a.b-1","name":"A","lat":1,"lng":2}`)
		case "/v1/stores/a.b-1/queue":
			answer(w, 200, `{"id":"a.b-1","length":7,"wait_s":1,"wait_high_s":2,"updated_at":"2026-11-23T09:00:00Z","age_s":0,"applied":true,"clamped":true}`)
		case "/v1/queues":
			answer(w, 200, `{"results":[{"id":"a","length":1,"applied":false,"reason":"old","clamped":false},{"id":"b","error":{"title":"Not Found","status":404}}]}`)
		case "/v1/stores:import":
			answer(w, 200, `{"imported":1,"created":1,"rejected":1,"errors":[{"line":2,"id":"x","errors":[{"field":"lat","detail":"bad"}]}]}`)
		case "/admin/v1/keys":
			answer(w, 201, `{"id":"k","name":"n","scopes":["queue:write"],"key":"sl_k_s"}`)
		case "/admin/v1/keys/a/b":
			answer(w, 404, `{"title":"Not Found","status":404}`)
		default:
			answer(w, 404, `{}`)
		}
	})
	ctx := t.Context()
	check := func(want seen, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("sent %+v, want %+v (err %v)", got, want, err)
		}
	}
	st, err := c.PutStore(ctx, shortline.Store{ID: "a.b-1", Name: "A", Lat: 1, Lng: 2})
	check(seen{"PUT", "/v1/stores/a.b-1", `{"id":"a.b-1","name":"A","lat":1,"lng":2}`, "application/json"}, err)
	if !st.Created() || st.ETag != `"7"` || st.Name != "A" {
		t.Errorf("store %+v", st)
	}
	delta := -2
	q, err := c.SetQueue(ctx, shortline.QueueUpdate{ID: "a.b-1", Delta: &delta, ObservedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, WriteOptions{})
	check(seen{"POST", "/v1/stores/a.b-1/queue", `{"delta":-2,"observed_at":"2026-01-02T03:04:05Z"}`, "application/json"}, err)
	if !q.Applied || !q.Clamped || q.Length != 7 {
		t.Errorf("queue %+v", q)
	}
	n := 1
	qs, err := c.SetQueues(ctx, []shortline.QueueUpdate{{ID: "a", Length: &n}, {ID: "b", Length: &n}}, WriteOptions{})
	check(seen{"POST", "/v1/queues", `{"updates":[{"id":"a","length":1},{"id":"b","length":1}]}`, "application/json"}, err)
	if qs.Results[0].Reason != "old" || qs.Results[1].Error == nil || qs.Results[1].Error.Status != 404 {
		t.Errorf("queues %+v", qs.Results)
	}
	im, err := c.Import(ctx, NDJSON, strings.NewReader("{}\n{}\n"))
	check(seen{"POST", "/v1/stores:import", "{}\n{}\n", "application/x-ndjson"}, err)
	if im.Created != 1 || im.Errors[0].Line != 2 || im.Errors[0].Errors[0].Field != "lat" {
		t.Errorf("import %+v", im)
	}
	k, err := c.CreateKey(ctx, KeySpec{Name: "n", Scopes: []shortline.Scope{shortline.ScopeQueueWrite}})
	check(seen{"POST", "/admin/v1/keys", `{"name":"n","scopes":["queue:write"]}`, "application/json"}, err)
	if k.Secret != "sl_k_s" || k.Name != "n" {
		t.Errorf("key %+v", k)
	}
	if _, err := c.RevokeKey(ctx, "a/b"); !errors.Is(err, shortline.ErrNotFound) || got.path != "/admin/v1/keys/a/b" {
		t.Errorf("revoke: %v, sent %+v", err, got)
	}
}

func TestIdsThatLeadElsewhereAreNotSent(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for _, id := range []shortline.StoreID{"", "..", "a/b", "a?b", "a b"} {
		var invalid *shortline.InvalidError
		if _, err := c.Store(t.Context(), id, ReadOptions{}); !errors.As(err, &invalid) {
			t.Errorf("Store(%q): %v", id, err)
		}
		if err := c.DeleteStore(t.Context(), id); !errors.As(err, &invalid) {
			t.Errorf("DeleteStore(%q): %v", id, err)
		}
	}
	if _, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: "a"}, WriteOptions{}); err == nil {
		t.Error("an update of nothing was accepted")
	}
}

func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name, kind, body string
		status           int
		want             string
	}{
		{"fields", "application/problem+json", `{"title":"Unprocessable Entity","detail":"the query is wrong","errors":[{"field":"lat","detail":"95 is too much"},{"field":"radius","detail":"is negative"}]}`, 422,
			"the query is wrong: lat: 95 is too much; radius: is negative (422 Unprocessable Entity)"},
		{"fields told in the detail already", "application/problem+json", `{"detail":"lat: 95 is too much","errors":[{"field":"lat","detail":"95 is too much"}]}`, 422,
			"lat: 95 is too much (422 Unprocessable Entity)"},
		{"title only", "application/problem+json; charset=utf-8", `{"title":"No such store"}`, 404, "No such store (404 Not Found)"},
		{"escape codes", "application/problem+json", `{"detail":"a\u001b[31m\nb"}`, 400, "a [31m b (400 Bad Request)"},
		{"a proxy's page", "text/html", "<html>", 403, "Forbidden (403 Forbidden)"},
		{"plain text", "text/plain", "go\naway", 403, "go away (403 Forbidden)"},
		{"broken JSON", "application/problem+json", `{"title":`, 400, "Bad Request (400 Bad Request)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.kind)
				w.Header().Set("X-Request-Id", "r-9")
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			})
			_, err := c.Store(t.Context(), "a", ReadOptions{})
			var p *Problem
			if !errors.As(err, &p) || p.Error() != tc.want || p.RequestID != "r-9" {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if errors.Is(err, shortline.ErrNotFound) != (tc.status == 404) {
				t.Errorf("ErrNotFound: %v", err)
			}
		})
	}
}

func TestAnswersOfSomethingElse(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/stores/html":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<h1>hi</h1>")
		case "/v1/stores/list":
			answer(w, 200, `[]`)
		case "/v1/stores/bomb":
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_ = json.NewEncoder(z).Encode(strings.Repeat("a", 1<<20))
			_ = z.Close()
		}
	})
	c.cfg.MaxAnswerBytes = 1 << 16
	for id, want := range map[shortline.StoreID]string{"html": `"text/html" instead of JSON`, "list": "JSON of another form", "bomb": "more than 65536 bytes"} {
		if _, err := c.Store(t.Context(), id, ReadOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", id, err, want)
		}
	}
}

func TestUnreachable(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := New(Config{Server: srv.URL, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Store(t.Context(), "a", ReadOptions{})
	var u *UnreachableError
	if !errors.As(err, &u) || err.Error() != "cannot reach "+srv.URL+": connection refused" || !u.neverSent() {
		t.Errorf("%v", err)
	}
	if _, err := c.Keys(t.Context()); err == nil || !strings.Contains(err.Error(), "no admin server") {
		t.Errorf("%v", err)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := New(Config{Server: "localhost:8080", AdminServer: "http://u:p@h", Key: "a b", Attempts: -1})
	for _, want := range []string{"server: \"localhost:8080\" is not an http", "admin server: ", "key: ", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %s", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "u:p") {
		t.Errorf("the password is shown: %v", err)
	}
}
