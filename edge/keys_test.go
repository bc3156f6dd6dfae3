package edge_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

func TestKeys(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	var made struct {
		shortline.Key
		Secret string `json:"key"`
	}
	rep := n.write(t, "POST", "/admin/v1/keys", `{"name":"till 3","scopes":["stores:write","queue:write","queue:write"],"stores":["a"]}`).want(t, 201)
	rep.json(t, &made)
	rep.token(t)
	if made.Name != "till 3" || !slices.Equal(made.Scopes, []shortline.Scope{"queue:write", "stores:write"}) || !slices.Equal(made.Stores, []shortline.StoreID{"a"}) ||
		!strings.HasPrefix(made.Secret, "sl_"+string(made.ID)+"_") || !made.CreatedAt.Equal(morning) || made.RevokedAt != nil {
		t.Errorf("made %+v", made)
	}
	if got := rep.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("a secret goes out with Cache-Control: %s", got)
	}
	n.do(t, "POST", "/v1/stores/a/queue", `{"length":1}`, bearer(made.Secret)).want(t, 200)

	t.Run("list", func(t *testing.T) {
		var all struct{ Keys []shortline.Key }
		rep := n.write(t, "GET", "/admin/v1/keys", "").want(t, 200)
		rep.json(t, &all)
		if len(all.Keys) != 2 || all.Keys[0].Name+all.Keys[1].Name != "first admin keytill 3" && all.Keys[0].Name+all.Keys[1].Name != "till 3first admin key" {
			t.Errorf("there are %+v", all.Keys)
		}
		_, secret, _ := strings.Cut(strings.TrimPrefix(made.Secret, "sl_"), "_")
		if strings.Contains(string(rep.body), secret) || strings.Contains(strings.ToLower(string(rep.body)), "hash") {
			t.Errorf("a secret is shown: %s", rep.body)
		}
	})
	t.Run("revoke", func(t *testing.T) {
		path := "/admin/v1/keys/" + string(made.ID)
		var gone shortline.Key
		first := n.write(t, "DELETE", path, "").want(t, 200)
		if first.json(t, &gone); gone.RevokedAt == nil || !gone.RevokedAt.Equal(morning) {
			t.Errorf("revoked is %+v", gone)
		}
		first.token(t)
		n.do(t, "POST", "/v1/stores/a/queue", `{"length":1}`, bearer(made.Secret)).wantProblem(t, 401, "unauthorized")
		n.clock.advance(1e9)
		if again := n.write(t, "DELETE", path, "").want(t, 200); string(again.body) != string(first.body) {
			t.Errorf("revoked again it is %s, before %s", again.body, first.body)
		} else {
			again.token(t)
		}
		n.write(t, "DELETE", "/admin/v1/keys/none", "").wantProblem(t, 404, "not-found")
		if rep := n.write(t, "GET", "/admin/v1/keys", "").want(t, 200); !strings.Contains(string(rep.body), "revoked_at") {
			t.Errorf("the list forgot the revoked key: %s", rep.body)
		}
	})
	for _, c := range []struct {
		name, body, field string
		status            int
	}{
		{"no name", `{"name":" ","scopes":["read"]}`, "name", 422},
		{"no scope", `{"name":"x","scopes":[]}`, "scopes", 422},
		{"no scopes", `{"name":"x"}`, "scopes", 422},
		{"an odd scope", `{"name":"x","scopes":["root"]}`, "scopes[0]", 422},
		{"stores without queue:write", `{"name":"x","scopes":["read"],"stores":["a"]}`, "stores", 422},
		{"an odd store", `{"name":"x","scopes":["queue:write"],"stores":["a b"]}`, "stores[0]", 422},
		{"scopes is a string", `{"name":"x","scopes":"read"}`, "scopes", 422},
		{"a scope is a number", `{"name":"x","scopes":[1]}`, "scopes", 422},
		{"unknown", `{"name":"x","scopes":["read"],"id":"mine"}`, "id", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := n.write(t, "POST", "/admin/v1/keys", c.body)
			var p problem
			if rep.want(t, c.status); c.status == 400 {
				p = rep.wantProblem(t, 400, "malformed-request")
			} else {
				p = rep.wantProblem(t, 422, "invalid-request")
			}
			if !slices.Equal(p.fields(), []string{c.field}) {
				t.Errorf("the fields at fault are %v, want %s", p.fields(), c.field)
			}
		})
	}
}

// TestScopes asks every call for which a key is needed with every kind of key.
func TestScopes(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.RequireKeyForReads = true })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.put(t, shortline.Store{ID: "b", Name: "B"})
	keys := map[string]string{"admin": n.key}
	for _, scope := range []string{"queue:write", "stores:write", "read"} {
		_, keys[scope] = n.newKey(t, scope)
	}
	_, keys["queue:write of a"] = n.newKey(t, "queue:write", "a")
	for _, c := range []struct {
		method, path, body, contentType string
		may                             []string // besides admin
	}{
		{"GET", "/v1/nearby?lat=0&lng=0", "", "", []string{"read"}},
		{"GET", "/v1/stores/a", "", "", []string{"read"}},
		{"GET", "/v1/stores/a/queue", "", "", []string{"read"}},
		{"PUT", "/v1/stores/c", `{"name":"C","lat":1,"lng":1}`, "", []string{"stores:write"}},
		{"POST", "/v1/stores:import", "", "text/csv", []string{"stores:write"}},
		{"DELETE", "/v1/stores/none", "", "", []string{"stores:write"}},
		{"POST", "/v1/stores/a/queue", `{"length":1}`, "", []string{"queue:write", "queue:write of a"}},
		{"POST", "/v1/stores/b/queue", `{"length":1}`, "", []string{"queue:write"}},
		{"POST", "/v1/queues", `{"updates":[{"id":"a","length":1}]}`, "", []string{"queue:write", "queue:write of a"}},
		{"GET", "/admin/v1/keys", "", "", nil},
		{"POST", "/admin/v1/keys", `{}`, "", nil},
		{"DELETE", "/admin/v1/keys/none", "", "", nil},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			for name, key := range keys {
				headers := []string{bearer(key)}
				if c.contentType != "" {
					headers = append(headers, "Content-Type: "+c.contentType)
				}
				rep := n.do(t, c.method, c.path, c.body, headers...)
				if may := name == "admin" || slices.Contains(c.may, name); may == (rep.status == 401 || rep.status == 403) {
					t.Errorf("with %s it answers %d %s", name, rep.status, rep.body)
				} else if !may {
					rep.wantProblem(t, 403, "forbidden")
				}
			}
			_, secret, _ := strings.Cut(strings.TrimPrefix(n.key, "sl_"), "_")
			for _, bad := range []string{"", "Authorization: Bearer", "Authorization: Basic " + n.key, "Authorization: Bearer nonsense", "Authorization: Bearer sl_aaaaaaaaaaaaaaaa_" + secret,
				"Authorization: " + n.key, bearer(n.key[:len(n.key)-1] + map[bool]string{true: "b", false: "a"}[n.key[len(n.key)-1] == 'a'])} {
				rep := n.do(t, c.method, c.path, c.body, bad)
				rep.wantProblem(t, 401, "unauthorized")
				if !strings.HasPrefix(rep.header.Get("WWW-Authenticate"), "Bearer") {
					t.Errorf("%q: WWW-Authenticate is %q", bad, rep.header.Get("WWW-Authenticate"))
				}
			}
		})
	}
	t.Run("the scheme in any case", func(t *testing.T) {
		n.do(t, http.MethodGet, "/v1/stores/a", "", "Authorization: bearer "+n.key).want(t, 200)
	})
	t.Run("health needs none", func(t *testing.T) { n.get(t, "/healthz").want(t, 200) })
}

func TestReadsAreOpen(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	for _, read := range reads {
		n.get(t, read).want(t, 200)
	}
}
