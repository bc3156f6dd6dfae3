package edge_test

import (
	"context"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Which hour a key was last used in is shown with the key, and takes one write an hour, however often it is used.
func TestKeyUses(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.KeyUses = time.Millisecond })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	name, used := n.newKey(t, "queue:write")
	id := shortline.KeyID(name)
	_, _ = n.newKey(t, "read") // never used
	lastUse := func() map[shortline.KeyID]string {
		var all struct {
			Keys []struct {
				ID         shortline.KeyID
				LastUsedAt string `json:"last_used_at"`
			}
		}
		n.write(t, "GET", "/admin/v1/keys", "").want(t, 200).json(t, &all)
		if len(all.Keys) != 3 {
			t.Fatalf("there are %d keys", len(all.Keys))
		}
		out := map[shortline.KeyID]string{}
		for _, k := range all.Keys {
			out[k.ID] = k.LastUsedAt
		}
		return out
	}
	use := func(want string) {
		t.Helper()
		for end := time.Now().Add(patience); lastUse()[id] != want; {
			n.do(t, "POST", "/v1/stores/a/queue", `{"length":1}`, bearer(used)).want(t, 200)
			if time.Now().After(end) {
				t.Fatalf("the last use is %q, not %q", lastUse()[id], want)
			}
		}
	}
	if got := lastUse()[id]; got != "" {
		t.Errorf("it was used before it was: %q", got)
	}
	n.clock.advance(25 * time.Minute)
	use("2026-11-23T09:00:00Z")
	for range 100 {
		n.do(t, "POST", "/v1/stores/a/queue", `{"length":1}`, bearer(used)).want(t, 200)
	}
	n.clock.advance(time.Hour)
	use("2026-11-23T10:00:00Z")
	n.write(t, "DELETE", "/admin/v1/keys/"+string(id), "").want(t, 200)
	if got := lastUse()[id]; got != "2026-11-23T10:00:00Z" {
		t.Errorf("when it is revoked its last use is %q", got)
	}
	unused := 0
	for _, at := range lastUse() {
		if at == "" {
			unused++
		}
	}
	page, err := n.store.Changes(context.Background(), replication.Cursor{}, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	for _, ch := range page.Changes {
		if ch.Kind == shortline.KeyPut && ch.Key.ID == id {
			changes++
		}
	}
	if changes != 4 || unused != 1 { // made, two hours of use, revoked
		t.Errorf("the key changed %d times, want 4; %d keys are unused, want 1", changes, unused)
	}
}
