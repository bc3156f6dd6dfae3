package edge_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// reads are the calls that take a token and a level of consistency, for the store a.
var reads = []string{"/v1/nearby?lat=0&lng=0", "/v1/stores/a?", "/v1/stores/a/queue?"}

func TestTokens(t *testing.T) {
	n := newTestNode(t)
	wrote := n.put(t, shortline.Store{ID: "a", Name: "A"}).token(t)
	for _, read := range reads {
		t.Run(read, func(t *testing.T) {
			send := "Shortline-Token: " + wrote.String()
			for _, level := range []string{"", "&consistency=eventual", "&consistency=session", "&consistency=strong"} {
				if got := n.get(t, read+level, send).want(t, 200).token(t); got.Less(wrote) {
					t.Errorf("%s: the answer's token is older than the one that was sent", level)
				}
				n.get(t, read+level).want(t, 200).token(t)
			}
			n.get(t, read+"&consistency=best").wantProblem(t, 400, "malformed-request")
			for _, garbage := range []string{"x", "!", strings.Repeat("A", 100), "AQ", "AgEBAQ", wrote.String() + "AA"} {
				p := n.get(t, read, "Shortline-Token: "+garbage).wantProblem(t, 400, "malformed-request")
				if !slices.Equal(p.fields(), []string{"Shortline-Token"}) {
					t.Errorf("%q: the fields at fault are %v", garbage, p.fields())
				}
			}
			p := n.get(t, read, send, send).wantProblem(t, 400, "malformed-request")
			if !slices.Equal(p.fields(), []string{"Shortline-Token"}) {
				t.Errorf("two tokens: the fields at fault are %v", p.fields())
			}

			future := replication.Token{Epoch: wrote.Epoch, XID: wrote.XID + 1_000_000}
			other := replication.Token{Epoch: wrote.Epoch + 1, XID: 1}
			for _, lost := range []replication.Token{future, other} {
				send := "Shortline-Token: " + lost.String()
				n.get(t, read, send).wantProblem(t, 409, "token-lost")
				n.get(t, read+"&consistency=session", send).wantProblem(t, 409, "token-lost")
				n.get(t, read+"&consistency=strong", send).wantProblem(t, 409, "token-lost")
				if got := n.get(t, read+"&consistency=eventual", send).want(t, 200).token(t); got != lost {
					t.Errorf("an eventual read answers with the token %v, want the newer one that was sent, %v", got, lost)
				}
			}
		})
	}
}

// TestFeedStalls holds the feed up: what was written is durable but not in memory, and every level of consistency says so
// in its own way until the feed goes on.
func TestFeedStalls(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.SessionWait = 20 * time.Millisecond })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.store.changes.set(broken)
	wrote := n.write(t, http.MethodPost, "/v1/stores/a/queue", `{"length":3}`).want(t, 200).token(t)
	send := "Shortline-Token: " + wrote.String()
	for _, read := range reads {
		if got := n.get(t, read+"&consistency=eventual").want(t, 200).token(t); !got.Less(wrote) {
			t.Errorf("%s: the token %v claims the write %v", read, got, wrote)
		}
		n.get(t, read+"&consistency=session").want(t, 200) // of no token
		n.get(t, read, send).wantProblem(t, 503, "behind-token")
		n.get(t, read+"&consistency=session", send).wantProblem(t, 503, "behind-token")
		n.get(t, read+"&consistency=strong").wantProblem(t, 503, "behind-token")
	}
	if got := n.nearby(t, "lat", "0", "lng", "0"); got.Stores[0].Queue != nil {
		t.Errorf("memory has %+v", got.Stores[0].Queue)
	}
	n.store.changes.set(nil)
	n.caughtUp(t, wrote)
	for _, read := range reads {
		rep := n.get(t, read, send).want(t, 200)
		if !strings.HasPrefix(read, "/v1/stores/a?") && !strings.Contains(string(rep.body), `"length":3`) {
			t.Errorf("%s does not hold the write: %s", read, rep.body)
		}
	}
	t.Run("the head cannot be read", func(t *testing.T) {
		n.store.head.set(broken)
		defer n.store.head.set(nil)
		n.get(t, reads[0]+"&consistency=strong").wantProblem(t, 503, "behind-token")
		ahead := replication.Token{Epoch: wrote.Epoch, XID: wrote.XID + 9}
		n.get(t, reads[0], "Shortline-Token: "+ahead.String()).wantProblem(t, 503, "behind-token")
		n.get(t, reads[0]).want(t, 200)
	})
}

// TestReadYourWrites has many sessions write and read back at once.
func TestReadYourWrites(t *testing.T) {
	n := newTestNode(t)
	for i := range 4 {
		n.put(t, shortline.Store{ID: shortline.StoreID(fmt.Sprintf("s%d", i)), Name: "S", Lng: float64(i)})
	}
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for length := range 25 {
				path := fmt.Sprintf("/v1/stores/s%d/queue", i)
				token := n.write(t, http.MethodPost, path, fmt.Sprintf(`{"length":%d}`, length)).want(t, 200).token(t)
				var q queueAnswer
				n.get(t, path, "Shortline-Token: "+token.String()).want(t, 200).json(t, &q)
				if *q.Length != length {
					t.Errorf("read %d after writing %d", *q.Length, length)
				}
				near := n.nearby(t, "lat", "0", "lng", fmt.Sprint(i), "consistency", "strong", "fields", "queue")
				if got := near.Stores[0].Queue.Length; got != length {
					t.Errorf("nearby has %d after writing %d", got, length)
				}
			}
		})
	}
}
