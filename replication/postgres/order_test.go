package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// early is a transaction that has its number, and what it writes comes later.
type early struct {
	*testing.T
	conn *pgx.Conn
	c    commit
	xid  uint64
}

func begin(t *testing.T, s *Store) *early {
	t.Helper()
	conn, err := s.writes.Acquire(deadline(t))
	check(t, err)
	t.Cleanup(conn.Release)
	e := &early{T: t, conn: conn.Conn(), c: commit{conn: conn.Conn()}}
	exec(t, e.conn, sqlBegin)
	check(t, e.conn.QueryRow(deadline(t), "SELECT pg_current_xact_id()").Scan(&e.xid))
	return e
}

// commit is Store.once on the transaction that is open already.
func (e *early) commit(items ...replication.Item) replication.Result {
	e.Helper()
	w := replication.Write{Items: items}
	check(e, e.c.load(deadline(e), []replication.Write{w}))
	e.c.b.Now = time.Now().Truncate(time.Millisecond)
	result, err := e.c.b.Apply(&w)
	check(e, err)
	token, err := e.c.store(deadline(e))
	check(e, err)
	if token.XID != e.xid {
		e.Fatalf("the token has xid %d, the transaction %d", token.XID, e.xid)
	}
	return result
}

func page(t testing.TB, s *Store, after replication.Cursor) replication.Page {
	t.Helper()
	p, err := s.Changes(deadline(t), after, 100_000)
	check(t, err)
	return p
}

func head(t testing.TB, s *Store) replication.Head {
	t.Helper()
	h, err := s.Head(deadline(t))
	check(t, err)
	return h
}

// Two transactions write one store and commit against the order of their numbers: the feed has them by number, and rev
// tells which was last.
func TestRevDecides(t *testing.T) {
	p := sharedServer(t)
	s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p))}, mutantNone)
	start := replication.Cursor{XID: head(t, s).Horizon}
	a := begin(t, s)
	_, b := commitAll(t, s, put("x", "B"), length("x", 1))
	if b.XID <= a.xid {
		t.Fatalf("the second transaction has number %d, the first %d", b.XID, a.xid)
	}
	a.commit(put("x", "A"), length("x", 2))
	got := page(t, s, start)
	var seen []string
	for _, ch := range got.Changes {
		seen = append(seen, fmt.Sprintf("%d: kind %d rev %d", ch.XID, ch.Kind, ch.Rev))
	}
	want := []string{
		fmt.Sprintf("%d: kind 1 rev 2", a.xid), fmt.Sprintf("%d: kind 3 rev 2", a.xid),
		fmt.Sprintf("%d: kind 1 rev 1", b.XID), fmt.Sprintf("%d: kind 3 rev 1", b.XID),
	}
	if !slices.Equal(seen, want) {
		t.Errorf("the feed is %q, want %q", seen, want)
	}
	rows, err := s.Rows(deadline(t), []shortline.StoreID{"x"})
	check(t, err)
	if len(rows) != 1 || rows[0].Store.Name != "A" || rows[0].Rev != 2 || rows[0].Queue.Length != 2 || rows[0].Queue.Rev != 2 {
		t.Errorf("the store is %+v", rows)
	}
}

// An update that is too old to be applied is answered with what another transaction of a greater number has written: the token
// stands for that, too.
func TestTokenOfWhatOthersWrote(t *testing.T) {
	for _, c := range []struct {
		mutant mutant
		covers bool
	}{{mutantNone, true}, {mutantOwnToken, false}} {
		p := sharedServer(t)
		s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p))}, mutantNone)
		commitAll(t, s, put("a", "A"), put("x", "X"))
		own := begin(t, s)
		_, theirs := commitAll(t, s, length("x", 7))
		n := 3
		old := replication.Item{Queue: &shortline.QueueUpdate{ID: "x", Length: &n, ObservedAt: time.Now().Add(-time.Hour)}}
		w := replication.Write{Items: []replication.Item{length("a", 1), old}}
		own.c.mutant = c.mutant
		check(t, own.c.load(deadline(t), []replication.Write{w}))
		own.c.b.Now = time.Now().Truncate(time.Millisecond)
		result, err := own.c.b.Apply(&w)
		check(t, err)
		if q := result.Items[1].Queue; q.Applied || q.Queue.Length != 7 {
			t.Fatalf("the old update is %+v", q)
		}
		own.c.results = []replication.Result{result}
		token, err := own.c.store(deadline(t))
		check(t, err)
		if covers := token.XID >= theirs.XID; covers != c.covers {
			t.Errorf("mutant %d: the token has %d, what it shows is of %d", c.mutant, token.XID, theirs.XID)
		}
	}
}

// A delete below the cursor of a reader that begins now, after a put above it: decision 0013.
func TestTombstoneBelowCursor(t *testing.T) {
	for _, c := range []struct {
		mutant mutant
		gone   bool
	}{{mutantNone, true}, {mutantHidesTombstones, false}} {
		p := sharedServer(t)
		s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p))}, c.mutant)
		deletes, holds := begin(t, s), begin(t, s)
		commitAll(t, s, put("x", "X"))
		if res := deletes.commit(replication.Item{Delete: "x"}); res.Items[0].Status != replication.StatusDeleted {
			t.Fatalf("the delete is %+v", res)
		}
		revs, there := map[string]uint64{}, map[string]bool{}
		cursor := replication.Cursor{XID: head(t, s).Horizon}
		if cursor.XID != holds.xid {
			t.Fatalf("the horizon is %d, want that of the open transaction, %d", cursor.XID, holds.xid)
		}
		rows, err := s.Snapshot(deadline(t), "", 10)
		check(t, err)
		for _, r := range rows {
			revs[string(r.Store.ID)], there[string(r.Store.ID)] = r.Rev, !r.Deleted
		}
		exec(t, holds.conn, "ROLLBACK")
		for _, ch := range page(t, s, cursor).Changes {
			if ch.Rev > revs[ch.Subject] {
				revs[ch.Subject], there[ch.Subject] = ch.Rev, ch.Kind == shortline.StorePut
			}
		}
		if there["x"] == c.gone {
			t.Errorf("mutant %d: a reader that begins now has the store: %v", c.mutant, there["x"])
		}
	}
}

// An open transaction holds the horizon; without it its change would appear behind the reader.
func TestHorizon(t *testing.T) {
	for _, c := range []struct {
		mutant mutant
		missed bool
	}{{mutantNone, false}, {mutantNoHorizon, true}} {
		p := sharedServer(t)
		s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p))}, c.mutant)
		cursor := replication.Cursor{XID: head(t, s).Horizon}
		a := begin(t, s)
		_, b := commitAll(t, s, put("b", "B"))
		first := page(t, s, cursor)
		if c.mutant == mutantNone && (len(first.Changes) != 0 || first.Head.Horizon != a.xid || first.Head.XMax <= b.XID) {
			t.Errorf("with transaction %d open and %d committed, a page is %+v", a.xid, b.XID, first)
		}
		seen := map[string]bool{}
		for _, ch := range first.Changes {
			seen[ch.Subject] = true
			cursor = replication.Cursor{XID: ch.XID, ID: ch.ID}
		}
		a.commit(put("a", "A"))
		last := page(t, s, cursor)
		for _, ch := range last.Changes {
			seen[ch.Subject] = true
		}
		if last.Head.Horizon <= b.XID || !seen["b"] || seen["a"] == c.missed {
			t.Errorf("mutant %d: the reader saw %v, at horizon %d", c.mutant, seen, last.Head.Horizon)
		}
	}
}

// A change of epoch waits for commits under way, and later commits are in the new one.
func TestEpoch(t *testing.T) {
	for _, c := range []struct {
		mutant mutant
		epoch  uint64
	}{{mutantNone, 2}, {mutantNoEpochLock, 1}} {
		p := sharedServer(t)
		name := newDatabase(t, p)
		s := openStore(t, Config{Write: p.DSN(owner, name)}, c.mutant)
		admin, watch := connect(t, p, name), connect(t, p, name)
		exec(t, admin, "BEGIN")
		exec(t, admin, "SELECT pg_advisory_xact_lock($1)", lockEpoch)
		exec(t, admin, "UPDATE shortline.control SET epoch = 2")
		done := make(chan replication.Token, 1)
		go func() {
			_, token, err := s.Commit(context.Background(), write(put("x", "X")))
			if err != nil {
				t.Error(err)
			}
			done <- token
		}()
		var token replication.Token
		if c.mutant == mutantNone {
			eventually(t, "the commit waits", func() bool { return waits(t, watch, name, "Lock", "advisory") != 0 })
			exec(t, admin, "COMMIT")
			token = <-done
		} else {
			token = <-done
			exec(t, admin, "COMMIT")
		}
		if ch := page(t, s, replication.Cursor{}).Changes; token.Epoch != c.epoch || ch[len(ch)-1].Epoch != c.epoch {
			t.Errorf("mutant %d: the token is %+v and the last change %+v, want epoch %d", c.mutant, token, ch[len(ch)-1], c.epoch)
		}
	}
}

// waits returns the process of ours that waits for something in the database, 0 where none does.
func waits(t testing.TB, conn *pgx.Conn, database, kind, event string) (pid int) {
	t.Helper()
	check(t, conn.QueryRow(deadline(t), `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
		WHERE datname = $1 AND wait_event_type = $2 AND wait_event = $3 AND usename = $4`, database, kind, event, owner).Scan(&pid))
	return pid
}

// deadlocks remembers what is logged of deadlocks: a commit begins anew after one, but the order of locks must not allow it.
type deadlocks struct {
	slog.Handler
	mu   sync.Mutex
	seen []string // guarded by mu
}

func (d *deadlocks) Enabled(context.Context, slog.Level) bool { return true }

func (d *deadlocks) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && sqlState(err) == stateDeadlock {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.seen = append(d.seen, err.Error())
		}
		return true
	})
	return nil
}

// Several writers make, change and delete the same few stores, each in an order of its own, while the feed is tailed:
// nothing is missed, nothing comes twice, each row's revs are 1, 2, 3, …, and nobody waits in a circle.
func TestConcurrentCommits(t *testing.T) {
	p := sharedServer(t)
	d := &deadlocks{Handler: slog.DiscardHandler}
	s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p)), Log: slog.New(d)}, mutantNone)
	const writers, commits, stores = 8, 30, 20
	start := replication.Cursor{XID: head(t, s).Horizon}
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(7, uint64(w)))
		wg.Go(func() {
			for range commits {
				var items []replication.Item
				for range 1 + rng.IntN(8) {
					id := shortline.StoreID(fmt.Sprintf("s%02d", rng.IntN(stores)))
					switch n := rng.IntN(10); {
					case n == 0:
						items = append(items, replication.Item{Delete: id})
					case n < 4:
						items = append(items, put(id, fmt.Sprint(rng.Uint64())))
					default:
						items = append(items, delta(id, 1))
					}
				}
				w := replication.Write{Items: items, Idempotency: &replication.Idempotency{Key: fmt.Sprint(rng.IntN(20)), TTL: time.Hour}}
				if _, _, err := s.Commit(context.Background(), []replication.Write{w, {Items: items}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var live []shortline.Change
	for running, cursor := true, start; running; {
		select {
		case <-done:
			running = false // one more page has the rest: nothing is open any more
		default:
		}
		got := page(t, s, cursor)
		live = append(live, got.Changes...)
		if n := len(got.Changes); n > 0 {
			cursor = replication.Cursor{XID: got.Changes[n-1].XID, ID: got.Changes[n-1].ID}
		}
	}
	whole := page(t, s, start).Changes
	same := slices.EqualFunc(live, whole, func(a, b shortline.Change) bool { return a.XID == b.XID && a.ID == b.ID && a.Rev == b.Rev })
	if !same || len(whole) == 0 {
		t.Errorf("what was read while it was written has %d changes, what was read afterwards %d", len(live), len(whole))
	}
	checkRevs(t, whole)
	if len(d.seen) > 0 {
		t.Errorf("%d deadlocks, the first: %s", len(d.seen), d.seen[0])
	}
}

func checkRevs(t *testing.T, changes []shortline.Change) {
	t.Helper()
	revs := map[string][]uint64{}
	for _, ch := range changes {
		kind := "store "
		if ch.Kind == shortline.QueueSet {
			kind = "queue "
		} else if ch.Queue != nil {
			revs["queue "+ch.Subject] = append(revs["queue "+ch.Subject], ch.Queue.Rev)
		}
		revs[kind+ch.Subject] = append(revs[kind+ch.Subject], ch.Rev)
	}
	for row, all := range revs {
		slices.Sort(all)
		if strings.HasPrefix(row, "queue") { // a delete of a store without a queue repeats the tombstone's
			all = slices.Compact(all)
		}
		for i, rev := range all {
			if rev != uint64(i+1) {
				t.Errorf("the revs of %s are %v", row, all)
				break
			}
		}
	}
}

// Of several transactions that make the same store or keep the same key, one does and the others follow it.
func TestConcurrentCreation(t *testing.T) {
	p := sharedServer(t)
	s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p))}, mutantNone)
	const writers = 8
	for round := range 10 {
		var mu sync.Mutex
		var revs []uint64
		originals := 0
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				// In different orders, under different names, with one key for all.
				ids := []shortline.StoreID{shortline.StoreID(fmt.Sprint("a", round)), shortline.StoreID(fmt.Sprint("b", round))}
				if w%2 == 0 {
					slices.Reverse(ids)
				}
				name := fmt.Sprint("by ", w)
				k := &replication.Idempotency{Scope: "s", Key: fmt.Sprint(round), TTL: time.Hour}
				results, _, err := s.Commit(context.Background(), []replication.Write{
					{Items: []replication.Item{put(ids[0], name), put(ids[1], name)}}, {Items: []replication.Item{length("nowhere", 1)}, Idempotency: k},
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				revs = append(revs, results[0].Items[0].Rev, results[0].Items[1].Rev)
				if !results[1].Replayed {
					originals++
				}
			})
		}
		wg.Wait()
		slices.Sort(revs)
		for i, rev := range revs {
			if rev != uint64(i/2+1) {
				t.Fatalf("the revs are %v, want each of 1 to %d twice", revs, writers)
			}
		}
		if originals != 1 {
			t.Fatalf("%d of %d requests with the same key were applied", originals, writers)
		}
	}
}

// The caller's context ends between the two round trips: nothing is written, and the locks are free.
func TestCancelledBeforeCommit(t *testing.T) {
	p := sharedServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	armed := false
	s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p)), WriteConns: 1, Now: func() time.Time {
		if armed {
			cancel()
		}
		return time.Now()
	}}, mutantNone)
	commitAll(t, s, put("x", "X"))
	armed = true
	if _, _, err := s.Commit(ctx, write(length("x", 1))); !errors.Is(err, context.Canceled) || errors.Is(err, replication.ErrOutcomeUnknown) {
		t.Errorf("Commit: %v", err)
	}
	armed = false
	if res, _ := commitAll(t, s, delta("x", 2)); res.Items[0].Queue.Queue.Length != 2 {
		t.Errorf("the queue is %+v", res.Items[0].Queue)
	}
}
