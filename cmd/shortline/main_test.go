package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, tc := range []struct {
		args   string
		code   int
		stderr string // a part of it
	}{
		{"", 0, ""},
		{"--help", 0, ""},
		{"help queue set", 0, ""},
		{"version", 0, ""},
		{"completion bash", 0, ""},
		{"nearby 1,2", 0, ""},
		{"nerby 1,2", 2, `there is no command "nerby"; did you mean "nearby"?`},
		{"queue", 2, "say what to do: get, set, watch"},
		{"queue sett", 2, `did you mean "set"?`},
		{"completion fsh", 2, `did you mean "fish"?`},
		{"nearby", 2, "nearby --help"},
		{"nearby x", 2, `"x" is not a place`},
		{"nearby x,1", 2, `the latitude "x" is not a number of degrees`},
		{"nearby 1,NaN", 2, "not a number of degrees"},
		{"nearby 151.21,-33.87", 2, "look swapped"},
		{"nearby 1,2 --limit 0", 2, "--limit 0"},
		{"nearby 1,2 --limit x", 2, "invalid argument"},
		{"nearby 1,2 --nosuch", 2, "unknown flag: --nosuch (see shortline nearby --help)"},
		{"nearby 1,2 --max-wait -3s", 2, "10m"},
		{"nearby 1,2 --server localhost", 2, "is not an http:// or https:// URL"},
		{"nearby 1,2 --config nosuch.yaml", 2, "no such file"},
		{"queue set a", 2, "a LENGTH after the ID, or --delta N"},
		{"queue set a 7 --delta 1", 2, "not both"},
		{"queue set a -1", 2, "use --delta -1"},
		{"queue set a +1", 2, "use --delta +1"},
		{"queue set a x", 2, `"x" is not a whole number`},
		{"queue set a 1000001", 2, "not between 0 and 1000000"},
		{"queue set a/b 1", 2, "contains '/'"},
		{"queue set a 1 --observed-at today", 2, "not a time"},
		{"queue get ..", 2, "means a folder"},
		{"queue watch", 2, "requires at least 1 arg"},
		{"queue watch a --interval 0s", 2, "--interval"},
		{"keys create --name x", 2, "scopes: at least one of"},
		{"keys create --scope admin", 2, "name: is required"},
		{"keys create --name x --scope nosuch", 2, `"nosuch" is not a scope`},
		{"keys revoke a/b", 2, "not the id of a key"},
		{"import stores.txt", 2, "--format csv, ndjson or geojson"},
		{"import nosuch.csv", 1, "import nosuch.csv: no such file or directory"},
		{"import x.csv --map lng", 2, "not of the form field=column"},
		{"import x.csv --map logitude=x", 2, "there is no field"},
		{"import x.csv --map id=x --map id=y", 2, "two columns for id"},
		{"nearby 1,2 --server " + gone.URL, 1, "cannot reach " + gone.URL + ": connection refused; is `shortline serve` running? set --server"},
		{"keys list --admin-server " + gone.URL, 1, "set --admin-server"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			got := shell(t, map[string]string{"SHORTLINE_SERVER": api.URL, "SHORTLINE_ADMIN_SERVER": api.URL}, "", strings.Fields(tc.args)...)
			if got.code != tc.code || !strings.Contains(got.stderr, tc.stderr) {
				t.Errorf("exit code %d, stderr %q; want %d with %q", got.code, got.stderr, tc.code, tc.stderr)
			}
			if tc.code != 0 && (strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "shortline: ") || got.stdout != "") {
				t.Errorf("not one line on stderr alone: %q, stdout %q", got.stderr, got.stdout)
			}
			if tc.code == 0 && got.stdout == "" {
				t.Error("nothing was printed")
			}
		})
	}
}

func TestNegativeArguments(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	for _, tc := range []struct{ args, want, body string }{
		{"nearby -33.87,151.21", "GET /v1/nearby?lat=-33.87&lng=151.21", ""},
		{"nearby --json -33.87,-151.21", "GET /v1/nearby?lat=-33.87&lng=-151.21", ""},
		{"nearby --limit 3 -.5,1", "GET /v1/nearby?lat=-0.5&limit=3&lng=1", ""},
		{"nearby -33.87 151.21 --limit=3", "GET /v1/nearby?lat=-33.87&limit=3&lng=151.21", ""},
		{"nearby -- -33.87,151.21", "GET /v1/nearby?lat=-33.87&lng=151.21", ""},
		{"queue set a --delta -2", "POST /v1/stores/a/queue", `{"delta":-2}`},
		{"queue set --delta=-2 a", "POST /v1/stores/a/queue", `{"delta":-2}`},
		{"queue set -1 7", "POST /v1/stores/-1/queue", `{"length":7}`},
	} {
		got := shell(t, map[string]string{"SHORTLINE_SERVER": api.URL}, "", strings.Fields(tc.args)...)
		if request, body, _, _ := api.last(); got.code != 0 || request != tc.want || body != tc.body {
			t.Errorf("%s: sent %s %s, exit code %d %s", tc.args, request, body, got.code, got.stderr)
		}
	}
}

func TestNearby(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL}
	got := shell(t, env, "", "nearby", "1,2", "--radius", "1km", "--sort", "distance", "--open-now", "--max-wait", "10m", "--tag", "wifi", "--tag", "a b", "--brand", "B")
	want := `NAME         DISTANCE  LINE     WAIT  OPEN  UPDATED  ID
Café Müller     212 m     4  3-5 min  yes   3 s ago  a
evil [2J        12 km     -        -  ?     never    b
`
	if got.stdout != want {
		t.Errorf("printed\n%s\nwant\n%s%s", got.stdout, want, got.stderr)
	}
	if request, _, auth, _ := api.last(); request != "GET /v1/nearby?brand=B&lat=1&lng=2&max_wait=600&open_now=true&radius=1km&sort=distance&tag=wifi&tag=a+b" || auth != "" {
		t.Errorf("asked %s with %q", request, auth)
	}
	if got := shell(t, env, "", "nearby", "1,2", "--json"); got.stdout != nearbyJSON+"\n" {
		t.Errorf("--json printed %s", got.stdout)
	}
	api.answer = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		reply(w, 200, `{"stores":[]}`)
		return true
	}
	if got := shell(t, env, "", "nearby", "1,2"); got.code != 0 || got.stdout != "" || !strings.Contains(got.stderr, "larger --radius") {
		t.Errorf("nothing near: %+v", got)
	}
}

func TestQueueSetAndGet(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL, "SHORTLINE_KEY": "sl_k"}
	got := shell(t, env, "", "queue", "set", "a", "7", "--observed-at", "2026-11-23T10:00:00+01:00")
	request, body, auth, _ := api.last()
	if got != (ran{0, "a: 7 in line, wait 5-8 min, updated now\n", ""}) || request != "POST /v1/stores/a/queue" ||
		body != `{"length":7,"observed_at":"2026-11-23T09:00:00Z"}` || auth != "Bearer sl_k" {
		t.Errorf("%+v, sent %s %s %s", got, request, body, auth)
	}
	if got := shell(t, env, "", "queue", "get", "a"); got.stdout != "a: 4 in line, wait 3-5 min, updated 3 s ago\n" {
		t.Errorf("%+v", got)
	}
	for _, tc := range []struct {
		name   string
		status int
		body   string
		want   ran
	}{
		{"older", 200, `{"id":"a","length":3,"updated_at":"2026-11-23T09:00:00Z","age_s":60,"applied":false,"reason":"observed_at is older"}`,
			ran{1, "a: 3 in line, no wait, updated 60 s ago\n", "shortline: queue set a: not applied: observed_at is older\n"}},
		{"clamped", 200, `{"id":"a","length":0,"updated_at":"2026-11-23T09:00:00Z","age_s":0,"applied":true,"clamped":true}`,
			ran{0, "a: 0 in line, no wait, updated now (brought back into 0 to 1000000)\n", ""}},
		{"no key", 401, `{"detail":"an API key is needed"}`,
			ran{1, "", "shortline: queue set a: an API key is needed (401 Unauthorized); pass --key or set SHORTLINE_KEY\n"}},
		{"no scope", 403, `{"detail":"the key lacks queue:write"}`,
			ran{1, "", "shortline: queue set a: the key lacks queue:write (403 Forbidden); use a key that may do this: shortline keys create --help\n"}},
		{"unknown", 404, `{"detail":"there is no store a"}`,
			ran{1, "", "shortline: queue set a: there is no store a (404 Not Found)\n"}},
	} {
		api.answer = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool { reply(w, tc.status, tc.body); return true }
		if got := shell(t, env, "", "queue", "set", "a", "--delta", "-3"); got != tc.want {
			t.Errorf("%s:\n%+v\nwant\n%+v", tc.name, got, tc.want)
		}
	}
	api.answer = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		reply(w, 200, `{"id":"a","length":null,"updated_at":null}`)
		return true
	}
	if got := shell(t, env, "", "queue", "get", "a"); got.stdout != "a: has not reported yet\n" {
		t.Errorf("never reported: %+v", got)
	}
}

func TestQueueWatchPrintsChanges(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	ctx, cancel := context.WithCancel(t.Context())
	lengths := []string{"1", "1", "fail", "1", "2", "2", "end"}
	n := 0
	api.answer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		now := lengths[min(n, len(lengths)-1)]
		n++
		switch now {
		case "fail":
			reply(w, 500, `{"detail":"ouch"}`)
		case "end":
			cancel()
			fallthrough
		default:
			reply(w, 200, strings.ReplaceAll(`{"id":"a", "length":L,"updated_at":"2026-11-23T09:00:00Z","age_s":`+string(rune('0'+n))+`}`, "L", strings.Replace(now, "end", "2", 1)))
		}
		return true
	}
	got := shellContext(t, ctx, map[string]string{"SHORTLINE_SERVER": api.URL}, "", "queue", "watch", "a", "--interval", "1ms", "--json")
	want := `{"id":"a","length":1,"updated_at":"2026-11-23T09:00:00Z","age_s":1}
{"id":"a","length":2,"updated_at":"2026-11-23T09:00:00Z","age_s":5}
`
	if got.code != 0 || got.stdout != want || got.stderr != "a: ouch (500 Internal Server Error); trying on\nthe service answers again\n" {
		t.Errorf("%+v", got)
	}
	if request, _, _, _ := api.last(); request != "GET /v1/stores/a/queue?consistency=eventual" {
		t.Errorf("asked %s", request)
	}
	api.answer = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		reply(w, 404, `{"detail":"no store x"}`)
		return true
	}
	if got := shell(t, map[string]string{"SHORTLINE_SERVER": api.URL}, "", "queue", "watch", "x"); got.code != 1 || !strings.Contains(got.stderr, "x: no store x") {
		t.Errorf("an unknown store: %+v", got)
	}
}

func TestKeys(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_ADMIN_SERVER": api.URL}
	got := shell(t, env, "", "keys", "create", "--name", "till", "--scope", "queue:write", "--store", "a,b", "--store", "c")
	if _, body, _, _ := api.last(); got.stdout != "sl_kkkkkkkkkkkkkkkk_secret\n" || !strings.Contains(got.stderr, "will not be shown again") ||
		body != `{"name":"till","scopes":["queue:write"],"stores":["a","b","c"]}` {
		t.Errorf("create: %+v, sent %s", got, body)
	}
	want := "NAME  ID  SCOPES       STORES        CREATED     LAST USED       EXPIRES  REVOKED\ntill  k1  queue:write  a and 1 more  2026-11-23  2026-11-23 17h  -        2026-11-24\n"
	if got := shell(t, env, "", "keys", "list"); got.stdout != want {
		t.Errorf("list: %+v", got)
	}
	if got := shell(t, env, "", "keys", "revoke", "k1"); got.stdout != "revoked k1 (till)\n" {
		t.Errorf("revoke: %+v", got)
	}
	if got := shell(t, env, "", "keys", "revoke", "k2"); got.code != 1 || !strings.Contains(got.stderr, "there is no key k2; see: shortline keys list") {
		t.Errorf("revoke an unknown one: %+v", got)
	}
}

func TestLocalAdminKey(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	api := newFakeAPI(t)
	key := "sl_" + strings.Repeat("a", 16) + "_" + strings.Repeat("b", 32)
	if err := os.MkdirAll(filepath.Join(dir, "shortline-data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "shortline-data", "admin.key"), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SHORTLINE_SERVER": api.URL, "SHORTLINE_ADMIN_SERVER": api.URL}
	for args, want := range map[string]string{
		"queue set a 1":           "Bearer " + key,
		"keys list":               "Bearer " + key,
		"queue set a 1 --key sl1": "Bearer sl1",
		"queue get a":             "", // reading needs none
	} {
		if got := shell(t, env, "", strings.Fields(args)...); got.code != 0 {
			t.Errorf("%s: %+v", args, got)
		}
		if _, _, auth, _ := api.last(); auth != want {
			t.Errorf("%s sent %q, want %q", args, auth, want)
		}
	}
	a := &app{getenv: func(string) string { return "" }}
	for server, want := range map[string]bool{"http://localhost:1": true, "http://[::1]:1": true, "http://127.9.9.9": true,
		"http://example.com": false, "http://localhost.example.com": false, "http://10.0.0.1": false, "http://127.0.0.1@example.com": false} {
		if got := (&target{app: a, server: server, writes: true}).localKey() != ""; got != want {
			t.Errorf("the key is sent to %s: %v", server, got)
		}
	}
}

func TestTableGivesWayToNarrowTerminals(t *testing.T) {
	tab := table{head: []string{"NAME", "ID"}, right: []bool{false, false}}
	tab.add("香港中环交易广场店", "1")
	tab.add("a very long name indeed", "2")
	var out bytes.Buffer
	if err := tab.print(&out, 16, func(s string) string { return s }); err != nil {
		t.Fatal(err)
	}
	if want := "NAME          ID\n香港中环交…   1\na very long…  2\n"; out.String() != want {
		t.Errorf("printed\n%s want\n%s", out.String(), want)
	}
}

func TestWords(t *testing.T) {
	for want, got := range map[string]string{
		"999 m": distance(999.4), "1.0 km": distance(999.6), "9.9 km": distance(9949), "10 km": distance(9951),
		"none": waitRange(0, 0), "1 min": waitRange(20, 40), "1-2 min": waitRange(60, 120), "7 min": waitRange(420, 425), "2.0-3.0 h": waitRange(7200, 10800),
		"now": ago(0), "89 s ago": ago(89 * time.Second), "90 min ago": ago(90*time.Minute - 1), "2 h ago": ago(90 * time.Minute), "3 d ago": ago(72 * time.Hour),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
