package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/shortline/shortline"
)

// fakeAPI behaves like the API as far as the command line can tell: enough to see what it asks and how it takes answers.
type fakeAPI struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // method, path and query
	auth     []string
	agents   []string
	bodies   []string
	stores   map[string]string
	chunks   int // of imports
	answer   func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{stores: map[string]string{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

const nearbyJSON = `{"stores":[
 {"id":"a","name":"Café Müller","distance_m":212.4,"open":true,"queue":{"length":4,"wait_s":180,"wait_high_s":300,"usual_length":6.2,"updated_at":"2026-11-23T09:00:00Z","age_s":3}},
 {"id":"b","name":"evil\u001b[2J","distance_m":12345,"open":null,"queue":null}],"region":"local","as_of":"2026-11-23T09:00:03Z","lag_s":0,"next_cursor":null}`

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.requests = append(f.requests, strings.TrimSuffix(r.Method+" "+r.URL.Path+"?"+r.URL.RawQuery, "?"))
	f.auth = append(f.auth, r.Header.Get("Authorization"))
	f.agents = append(f.agents, r.UserAgent())
	f.bodies = append(f.bodies, string(body))
	answer := f.answer
	f.mu.Unlock()
	if answer != nil && answer(w, r, body) {
		return
	}
	switch p := r.URL.Path; {
	case p == "/healthz":
		reply(w, 200, `{"status":"ok"}`)
	case p == "/v1/nearby":
		reply(w, 200, nearbyJSON)
	case p == "/v1/stores:import":
		f.importRows(w, body)
	case p == "/admin/v1/keys" && r.Method == http.MethodPost:
		reply(w, 201, `{"id":"kkkkkkkkkkkkkkkk","name":"till","scopes":["queue:write"],"created_at":"2026-11-23T09:00:00Z","key":"sl_kkkkkkkkkkkkkkkk_secret"}`)
	case p == "/admin/v1/keys":
		reply(w, 200, `{"keys":[{"id":"k1","name":"till","scopes":["queue:write"],"stores":["a","b"],"created_at":"2026-11-23T09:00:00Z","last_used_at":"2026-11-23T17:00:00Z","revoked_at":"2026-11-24T09:00:00Z"}]}`)
	case p == "/admin/v1/keys/k1":
		reply(w, 200, `{"id":"k1","name":"till","scopes":["queue:write"]}`)
	case strings.HasSuffix(p, "/queue") && r.Method == http.MethodGet:
		reply(w, 200, `{"id":"a","length":4,"wait_s":180,"wait_high_s":300,"updated_at":"2026-11-23T09:00:00Z","age_s":3}`)
	case strings.HasSuffix(p, "/queue"):
		reply(w, 200, `{"id":"a","length":7,"wait_s":315,"wait_high_s":500,"updated_at":"2026-11-23T09:00:00Z","age_s":0,"applied":true,"clamped":false}`)
	default:
		reply(w, 404, `{"title":"Not found","detail":"there is nothing here"}`)
	}
}

// importRows refuses stores with the brand "refused", and counts the rest like the API.
func (f *fakeAPI) importRows(w http.ResponseWriter, body []byte) {
	type rejected struct {
		Line   int                    `json:"line"`
		ID     string                 `json:"id"`
		Errors []shortline.FieldError `json:"errors"`
	}
	var a struct {
		Created   int        `json:"created"`
		Updated   int        `json:"updated"`
		Unchanged int        `json:"unchanged"`
		Rejected  int        `json:"rejected"`
		Errors    []rejected `json:"errors"`
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chunks++
	lines := bufio.NewScanner(bytes.NewReader(body))
	for n := 1; lines.Scan(); n++ {
		s, err := shortline.DecodeStore(lines.Bytes())
		if err != nil {
			reply(w, 400, fmt.Sprintf(`{"title":"%v"}`, err))
			return
		}
		text := lines.Text()
		old, known := f.stores[string(s.ID)]
		switch {
		case s.Brand == "refused":
			a.Rejected++
			a.Errors = append(a.Errors, rejected{n, string(s.ID), []shortline.FieldError{{Field: "brand", Detail: "is refused"}}})
			continue
		case old == text:
			a.Unchanged++
		case known:
			a.Updated++
		default:
			a.Created++
		}
		f.stores[string(s.ID)] = text
	}
	b, _ := json.Marshal(a)
	reply(w, 200, string(b))
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// last is the last request, and how many there were.
func (f *fakeAPI) last() (request, body, auth string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n = len(f.requests); n == 0 {
		return "", "", "", 0
	}
	return f.requests[n-1], f.bodies[n-1], f.auth[n-1], n
}

// ran is what one run of the program left.
type ran struct {
	code           int
	stdout, stderr string
}

// shell runs the program in a folder of its own with the environment, like a shell would.
func shell(t *testing.T, env map[string]string, stdin string, args ...string) ran {
	t.Helper()
	return shellContext(t, t.Context(), env, stdin, args...)
}

func shellContext(t *testing.T, ctx context.Context, env map[string]string, stdin string, args ...string) ran {
	t.Helper()
	var stdout, stderr safeBuffer
	err := run(ctx, args, func(k string) string { return env[k] }, strings.NewReader(stdin), &stdout, &stderr)
	code := report(&stderr, err)
	return ran{code, stdout.String(), stderr.String()}
}

// safeBuffer is a bytes.Buffer that several goroutines may write to.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
