package shortline

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var keyTime = time.Date(2026, 11, 23, 10, 0, 0, 123, time.FixedZone("CET", 3600))

func TestNewKeyParseKey(t *testing.T) {
	seen := map[KeyID]bool{}
	for range 100 {
		k, secret, err := NewKey(" till 3 ", []Scope{ScopeRead, ScopeQueueWrite, ScopeRead}, []StoreID{"b", "a", "b"}, keyTime)
		if err != nil {
			t.Fatal(err)
		}
		if k.Name != "till 3" || !slices.Equal(k.Scopes, []Scope{ScopeQueueWrite, ScopeRead}) || !slices.Equal(k.Stores, []StoreID{"a", "b"}) {
			t.Fatalf("%+v is not normalised", k)
		}
		if want := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC); k.CreatedAt != want {
			t.Fatalf("created %v, want %v", k.CreatedAt, want)
		}
		id, hash, err := ParseKey(secret)
		if err != nil || id != k.ID || !k.Matches(hash) {
			t.Fatalf("ParseKey(%q) = %q, %v; matches: %v", secret, id, err, k.Matches(hash))
		}
		if seen[id] {
			t.Fatalf("%s was drawn twice", id)
		}
		seen[id] = true
		data, err := json.Marshal(k)
		if err != nil || strings.Contains(string(data), secret[20:]) || strings.Contains(strings.ToLower(string(data)), "hash") {
			t.Fatalf("JSON form %s tells of the secret: %v", data, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", k, k), secret[20:]) {
			t.Fatal("the printed key tells the secret")
		}
	}
}

func TestNewKeyLeavesArgumentsAlone(t *testing.T) {
	scopes, stores := []Scope{ScopeRead, ScopeQueueWrite}, []StoreID{"b", "a"}
	k, _, err := NewKey("n", scopes, stores, keyTime)
	if err != nil {
		t.Fatal(err)
	}
	if scopes[0] != ScopeRead || stores[0] != "b" {
		t.Error("NewKey sorted the caller's slices")
	}
	scopes[1], stores[1] = ScopeAdmin, "z"
	if k.Allows(ScopeAdmin) || k.AllowsQueue("z") {
		t.Error("the key shares the caller's slices")
	}
}

func TestParseKeyRefuses(t *testing.T) {
	id, secret := strings.Repeat("a", 16), strings.Repeat("b", 32)
	if _, _, err := ParseKey("sl_" + id + "_" + secret); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"", "sl_", "sl__", id + "_" + secret, "SL_" + id + "_" + secret, "sl-" + id + "-" + secret, " sl_" + id + "_" + secret, "sl_" + id + "_" + secret + " ",
		"sl_" + id + secret, "sl_" + id, "sl_" + id[1:] + "_" + secret, "sl_" + id + "a_" + secret, "sl_" + id + "_" + secret[1:], "sl_" + id + "_" + secret + "b",
		"sl_" + id[1:] + "\n_" + secret, "sl_" + id[1:] + "\x00_" + secret, "sl_" + id[1:] + "\xff_" + secret, "sl_" + id + "_" + secret[1:] + "\x00",
		"sl_" + strings.ToUpper(id) + "_" + secret, "sl_" + id + "_" + secret[1:] + "_", "sl_" + id[2:] + "é_" + secret, "sl_" + id[1:] + "l_" + secret,
	} {
		got, hash, err := ParseKey(text)
		if !errors.Is(err, ErrBadKey) || got != "" || hash != [32]byte{} {
			t.Errorf("ParseKey(%q) = %q, %x, %v", text, got, hash, err)
		}
	}
}

func TestKeyMatches(t *testing.T) {
	k, secret, err := NewKey("n", []Scope{ScopeRead}, nil, keyTime)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := NewKey("n", []Scope{ScopeRead}, nil, keyTime)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, _ := ParseKey(secret)
	_, wrong, _ := ParseKey(other)
	if !k.Matches(hash) || k.Matches(wrong) || k.Matches([32]byte{}) {
		t.Error("the key does not match its own secret, and that alone")
	}
	now := keyTime
	k.RevokedAt = &now
	if k.Matches(hash) {
		t.Error("a revoked key matches")
	}
}

func TestKeyAllows(t *testing.T) {
	for _, c := range []struct {
		scopes  []Scope
		stores  []StoreID
		allowed []Scope
		queueA  bool
		queueB  bool
	}{
		{nil, nil, nil, false, false},
		{[]Scope{ScopeRead}, nil, []Scope{ScopeRead}, false, false},
		{[]Scope{ScopeStoresWrite}, nil, []Scope{ScopeStoresWrite}, false, false},
		{[]Scope{ScopeQueueWrite}, nil, []Scope{ScopeQueueWrite}, true, true},
		{[]Scope{ScopeQueueWrite}, []StoreID{"a"}, []Scope{ScopeQueueWrite}, true, false},
		{[]Scope{ScopeRead}, []StoreID{"a"}, []Scope{ScopeRead}, false, false},
		{[]Scope{ScopeAdmin}, nil, Scopes(), true, true},
		{[]Scope{ScopeAdmin, ScopeQueueWrite}, []StoreID{"a"}, Scopes(), true, true},
	} {
		k := Key{Scopes: c.scopes, Stores: c.stores}
		for _, s := range Scopes() {
			if got := k.Allows(s); got != slices.Contains(c.allowed, s) {
				t.Errorf("%v allows %s: %v", c.scopes, s, got)
			}
		}
		if a, b := k.AllowsQueue("a"), k.AllowsQueue("b"); a != c.queueA || b != c.queueB {
			t.Errorf("%v of %v allows the queue of a: %v, of b: %v", c.scopes, c.stores, a, b)
		}
	}
}

func TestKeyValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		key    Key
		fields []string
		detail string
	}{
		{"fine", Key{Name: "n", Scopes: Scopes(), Stores: []StoreID{"a"}}, nil, ""},
		{"no name", Key{Scopes: Scopes()}, []string{"name"}, "is required; say who or what"},
		{"long name", Key{Name: strings.Repeat("n", MaxNameBytes+1), Scopes: Scopes()}, []string{"name"}, ""},
		{"control character in name", Key{Name: "a\x1b[0m", Scopes: Scopes()}, []string{"name"}, ""},
		{"no scope", Key{Name: "n"}, []string{"scopes"}, "at least one of queue:write, stores:write, read, admin"},
		{"unknown scope", Key{Name: "n", Scopes: []Scope{ScopeRead, "write"}}, []string{"scopes[1]"}, `"write" is not a scope; there are queue:write`},
		{"stores without queue:write", Key{Name: "n", Scopes: []Scope{ScopeRead}, Stores: []StoreID{"a"}}, []string{"stores"}, ""},
		{"bad store", Key{Name: "n", Scopes: []Scope{ScopeQueueWrite}, Stores: []StoreID{"a", "/"}}, []string{"stores[1]"}, ""},
		{"most stores", Key{Name: "n", Scopes: []Scope{ScopeQueueWrite}, Stores: slices.Repeat([]StoreID{"a"}, 1000)}, nil, ""},
		{"many stores", Key{Name: "n", Scopes: []Scope{ScopeQueueWrite}, Stores: slices.Repeat([]StoreID{"a"}, 1001)}, []string{"stores"}, "names 1001 stores"},
		{"all at once", Key{Scopes: []Scope{"x"}, Stores: []StoreID{""}}, []string{"name", "scopes[0]", "stores", "stores[0]"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { checkFaults(t, c.key.Validate(), c.fields, c.detail) })
	}
	_, secret, err := NewKey("", nil, nil, keyTime)
	checkFaults(t, err, []string{"name", "scopes"})
	if secret == "" {
		t.Error("no secret beside the fault")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("sl_aaaaaaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	f.Add("sl_aaaaaaaaaaaaaaa\n_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	f.Add("sl__")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, hash, err := ParseKey(text)
		if err != nil {
			if !errors.Is(err, ErrBadKey) || id != "" {
				t.Fatalf("ParseKey(%q) = %q, %v", text, id, err)
			}
			return
		}
		if len(text) != 52 || text[:20] != "sl_"+string(id)+"_" || strings.Trim(string(id), "abcdefghijkmnpqrstuvwxyz23456789") != "" {
			t.Fatalf("ParseKey(%q) accepts the id %q", text, id)
		}
		k := Key{ID: id, Hash: hash}
		if !k.Matches(hash) {
			t.Fatal("the key does not match its own hash")
		}
	})
}

func TestKeyFollow(t *testing.T) {
	at := func(h int) *time.Time { t := keyTime.Add(time.Duration(h) * time.Hour); return &t }
	for _, c := range []struct {
		name           string
		old, next, out Key
	}{
		{"nothing of it", Key{}, Key{Name: "new"}, Key{Name: "new"}},
		{"what is new counts", Key{}, Key{RevokedAt: at(1), ExpiresAt: at(2), LastUsedAt: at(3)}, Key{RevokedAt: at(1), ExpiresAt: at(2), LastUsedAt: at(3)}},
		{"it stays revoked", Key{RevokedAt: at(1)}, Key{}, Key{RevokedAt: at(1)}},
		{"since the first time", Key{RevokedAt: at(1)}, Key{RevokedAt: at(2)}, Key{RevokedAt: at(1)}},
		{"it still ends", Key{ExpiresAt: at(2)}, Key{}, Key{ExpiresAt: at(2)}},
		{"not later", Key{ExpiresAt: at(2)}, Key{ExpiresAt: at(3)}, Key{ExpiresAt: at(2)}},
		{"but sooner", Key{ExpiresAt: at(2)}, Key{ExpiresAt: at(1)}, Key{ExpiresAt: at(1)}},
		{"a use is not forgotten", Key{LastUsedAt: at(2)}, Key{}, Key{LastUsedAt: at(2)}},
		{"nor an older one newer", Key{LastUsedAt: at(2)}, Key{LastUsedAt: at(1)}, Key{LastUsedAt: at(2)}},
	} {
		c.next.Follow(&c.old)
		if got, want := fmt.Sprint(c.next.Name, c.next.RevokedAt, c.next.ExpiresAt, c.next.LastUsedAt), fmt.Sprint(c.out.Name, c.out.RevokedAt, c.out.ExpiresAt, c.out.LastUsedAt); got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}
