package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

func checkSnapshot(r *rig) {
	if split, ok := r.Store.(replication.Splitter); ok { // before anything is known of the stores, and it never is an error
		if ids, err := split.Splits(r.ctx, 4); err != nil || len(ids) > 3 || !slices.IsSorted(ids) {
			r.Errorf("Splits = %q, %v", ids, err)
		}
	}
	ids := []shortline.StoreID{"Z", "a", "A", "a-", "a.", "a0", "aA", "a_", "aa", "10", "9", "-x", "_x", ".x", "zz"}
	var items []replication.Item
	for _, id := range ids {
		items = append(items, put(place(id, "Name of "+string(id))))
	}
	items = append(items, length("aa", 5), put(place("a-deleted", "Gone")), del("a-deleted"), del("9"))
	r.items(items...)
	ids = append(ids, "a-deleted")
	slices.Sort(ids)
	for limit := 1; limit <= len(ids)+1; limit++ {
		var got []shortline.StoreID
		for _, row := range r.all(limit) {
			got = append(got, row.Store.ID)
			if id := row.Store.ID; id == "a-deleted" || id == "9" {
				if want := (replication.Row{Store: shortline.Store{ID: id}, Rev: 2, Deleted: true}); !row.Store.Equal(&want.Store) || row.Rev != 2 || !row.Deleted || row.Queue != nil {
					r.Errorf("row %+v, want the tombstone %+v", row, want)
				}
				continue
			}
			if q := row.Queue; (q != nil) != (row.Store.ID == "aa") || row.Store.Name != "Name of "+string(row.Store.ID) || row.Rev != 1 {
				r.Errorf("row %+v", row)
			}
		}
		if !slices.Equal(got, ids) {
			r.Fatalf("in chunks of %d the ids are %q, want byte order: %q", limit, got, ids)
		}
	}
	rows := r.chunk("a-never", 1)
	if len(rows) != 1 || rows[0].Store.ID != "a." {
		r.Errorf("the row after one that does not exist is %+v", rows)
	}
	r.items(del("aa"))
	if rows := r.chunk("aA", 2); len(rows) != 2 || rows[0].Store.ID != "a_" || !rows[1].Deleted || rows[1].Queue != nil || rows[1].QueueRev != 2 {
		r.Errorf("the tombstone of a store with a queue is %+v, want that of the queue with it", rows)
	}
	r.items(put(place("aa", "Again")))
	if rows := r.chunk("a_", 1); len(rows) != 1 || rows[0].Deleted || rows[0].Queue != nil || rows[0].QueueRev != 2 {
		r.Errorf("a store that came back is %+v, want the tombstone of its queue with it", rows)
	}
	expect(r, "rows after the last", len(r.chunk("zz", 5)), 0)
}

func checkRows(r *rig) {
	r.items(put(place("a", "A")), put(place("b", "B")), put(place("c", "C")), length("b", 3), del("c"))
	rows, err := r.Rows(r.ctx, []shortline.StoreID{"missing", "b", "c", "a", "b", "it's", ""})
	if err != nil {
		r.Fatalf("Rows: %v", err)
	}
	slices.SortFunc(rows, func(a, b replication.Row) int {
		return len(a.Store.ID) - len(b.Store.ID) + int(a.Store.ID[0]) - int(b.Store.ID[0])
	})
	rows = slices.CompactFunc(rows, func(a, b replication.Row) bool { return a.Store.ID == b.Store.ID })
	if len(rows) != 2 || rows[0].Store.Name != "A" || rows[0].Queue != nil || rows[1].Store.Name != "B" || rows[1].Queue == nil || rows[1].Queue.Length != 3 {
		r.Errorf("Rows are %+v", rows)
	}
	if rows, err := r.Rows(r.ctx, nil); err != nil || len(rows) != 0 {
		r.Errorf("Rows of nothing: %+v, %v", rows, err)
	}
	var many []shortline.StoreID
	for i := range 3000 {
		many = append(many, storeID("none", i))
	}
	if rows, err := r.Rows(r.ctx, append(many, "a")); err != nil || len(rows) != 1 {
		r.Errorf("Rows of many that are missing and one that is there: %+v, %v", rows, err)
	}
}

// checkChanges: changes have the place, epoch and time of their commit.
func checkChanges(r *rig) {
	start := r.here()
	type commit struct {
		token replication.Token
		at    time.Time
	}
	var commits []commit
	for i := range 5 {
		r.clock.advance(time.Minute)
		results, token := r.commit(write(put(place(storeID("s", i), "S")), length(storeID("s", i), i)))
		commits = append(commits, commit{token, results[0].At})
	}
	changes := r.feed(start, commits[4].token, 100)
	if len(changes) != 10 {
		r.Fatalf("the feed has %d changes, want 10", len(changes))
	}
	for i, c := range changes {
		of := commits[i/2]
		if c.XID != of.token.XID || c.Epoch != of.token.Epoch {
			r.Errorf("change %d is of transaction %d in epoch %d, want those of its token %+v", i, c.XID, c.Epoch, of.token)
		}
		sameMoment(r, "the time of a change", c.At, of.at)
	}
	// A cursor with id 0 is before everything of its transaction.
	page := r.page(replication.Cursor{XID: commits[2].token.XID}, 100)
	expect(r, "changes from the third commit on", len(page.Changes), 6)
	for _, limit := range []int{1, 100} {
		if page := r.page(replication.Cursor{XID: page.Head.XMax}, limit); len(page.Changes) != 0 || page.More {
			r.Errorf("after everything there is %+v", page)
		}
	}
}

func checkChangesPaged(r *rig) {
	start := r.here()
	for i := range 6 {
		var items []replication.Item
		for j := range i + 1 {
			items = append(items, put(place(storeID("s", j), fmt.Sprint("version ", i))), delta(storeID("s", j), 1))
		}
		r.items(items...)
	}
	_, token := r.commit(write(del(storeID("s", 3))))
	whole := r.feed(start, token, 1000)
	expect(r, "changes", len(whole), 2*(1+2+3+4+5+6)+1)
	for limit := 1; limit <= len(whole)+1; limit++ {
		paged := r.feed(start, token, limit)
		if !slices.EqualFunc(paged, whole, samePlace) {
			r.Fatalf("in pages of %d the feed is not what it is in one: %d changes and %d", limit, len(paged), len(whole))
		}
	}
	exact := r.page(start, len(whole))
	expect(r, "there is more after exactly all", exact.More, false)
	expect(r, "there is more after all but one", r.page(start, len(whole)-1).More, true)
	replayed := newReplica()
	replayed.apply(whole)
	expectRows(r, "the feed replayed", replayed.rows(), r.all(100))
}

func samePlace(a, b shortline.Change) bool {
	return a.XID == b.XID && a.ID == b.ID && a.Kind == b.Kind && a.Rev == b.Rev && a.Subject == b.Subject
}

// storm commits from several goroutines until every one of them has done its share, and returns the last token.
func (r *rig) storm(goroutines, commits, stores int, seed uint64) (wait func() replication.Token) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var last replication.Token
	for g := range goroutines {
		rng := rand.New(rand.NewPCG(seed, uint64(g)))
		wg.Go(func() {
			for i := range commits {
				var writes []replication.Write
				for range 1 + rng.IntN(4) {
					writes = append(writes, write(randomItem(rng, stores, g, i), randomItem(rng, stores, g, i)))
				}
				_, token, err := r.Commit(r.ctx, writes)
				if err != nil {
					r.Errorf("Commit: %v", err)
					return
				}
				mu.Lock()
				if last.Less(token) {
					last = token
				}
				mu.Unlock()
			}
		})
	}
	return func() replication.Token { wg.Wait(); return last }
}

func randomItem(rng *rand.Rand, stores, g, i int) replication.Item {
	id := storeID("s", rng.IntN(stores))
	switch n := rng.IntN(20); {
	case n == 0:
		return del(id)
	case n < 5:
		return put(place(id, fmt.Sprintf("by %d in %d", g, i)))
	case n < 12:
		return length(id, rng.IntN(50))
	default:
		return delta(id, rng.IntN(9)-4)
	}
}

// checkConcurrentCommits: the feed misses nothing and repeats nothing while several goroutines commit, however it is paged.
func checkConcurrentCommits(r *rig) {
	start := r.here()
	wait := r.storm(4, 40, 12, 1)
	done := make(chan replication.Token, 1)
	go func() { done <- wait() }()
	var live []shortline.Change
	cursor, token, running := start, replication.Token{}, true
	for running {
		select {
		case token = <-done:
			running = false
		default:
		}
		page := r.page(cursor, 7)
		live = append(live, page.Changes...)
		if n := len(page.Changes); n > 0 {
			cursor = replication.Cursor{XID: page.Changes[n-1].XID, ID: page.Changes[n-1].ID}
		}
		if !page.More && cursor.XID < page.Head.Horizon {
			cursor = replication.Cursor{XID: page.Head.Horizon}
		}
	}
	live = append(live, r.feed(cursor, token, 7)...)
	whole := r.feed(start, token, 100_000)
	if !slices.EqualFunc(live, whole, samePlace) {
		r.Fatalf("what was read while it was written has %d changes, and what was read afterwards %d", len(live), len(whole))
	}
	r.checkRevs(whole)
	replayed := newReplica()
	replayed.apply(live)
	expectRows(r, "the feed replayed", replayed.rows(), r.all(100))
}

// checkRevs: the revs of each row in the feed are 1, 2, 3, …, each once; a delete takes one of the queue that it ends.
func (r *rig) checkRevs(changes []shortline.Change) {
	r.Helper()
	type row struct {
		queue bool
		id    string
	}
	revs := map[row]map[uint64]bool{}
	note := func(k row, rev uint64, again bool) {
		if revs[k] == nil {
			revs[k] = map[uint64]bool{}
		}
		if revs[k][rev] && !again {
			r.Errorf("rev %d of %+v is twice in the feed", rev, k)
		}
		revs[k][rev] = true
	}
	for _, c := range changes {
		switch c.Kind {
		case shortline.StorePut, shortline.StoreDeleted:
			note(row{false, c.Subject}, c.Rev, false)
			if c.Queue != nil {
				note(row{true, c.Subject}, c.Queue.Rev, true)
			}
		case shortline.QueueSet:
			note(row{true, c.Subject}, c.Rev, false)
		}
	}
	for k, seen := range revs {
		for rev := uint64(1); rev <= uint64(len(seen)); rev++ {
			if !seen[rev] {
				r.Errorf("rev %d of %+v is missing among %d", rev, k, len(seen))
			}
		}
	}
}

// checkSnapshotOverlap: changes from before a chunk was read come again in the tail, and must not bring back what has gone.
func checkSnapshotOverlap(r *rig) {
	r.items(put(place("a", "A")), put(place("b", "B")), length("a", 1), length("b", 1))
	_, token := r.commit(write(put(place("c", "C"))))
	cursor := r.settled(token)
	r.items(length("a", 2), delta("b", 1))
	r.items(del("a"), del("b"))
	r.items(put(place("a", "A again")))
	m := newReplica()
	m.load(r.all(1))
	xmax := r.head().XMax
	m.apply(r.feed(cursor, replication.Token{XID: xmax - 1}, 1))
	expectRows(r, "snapshot and tail", m.rows(), r.all(10))
	if q := m.queues["a"].queue; q != nil {
		r.Errorf("the tail brought back a queue of length %d", q.Length)
	}
}

// checkSnapshotThenTail: a snapshot in chunks, taken while others write, and the changes after a cursor from before it
// make the same as the database has in the end.
func checkSnapshotThenTail(r *rig) {
	r.storm(2, 20, 40, 2)()
	wait := r.storm(3, 60, 40, 3)
	for range 3 {
		m := newReplica()
		cursor := replication.Cursor{XID: r.head().Horizon}
		m.load(r.all(5))
		target := r.head().XMax
		for r.ctx.Err() == nil { // as a node does, before it is ready
			page := r.page(cursor, 10)
			m.apply(page.Changes)
			if n := len(page.Changes); n > 0 {
				cursor = replication.Cursor{XID: page.Changes[n-1].XID, ID: page.Changes[n-1].ID}
			}
			if !page.More && page.Head.Horizon >= target {
				break
			}
		}
		defer func() {
			token := wait()
			m.apply(r.feed(cursor, token, 10))
			expectRows(r, "snapshot and tail", m.rows(), r.all(100))
		}()
	}
}

func checkPrune(r *rig) {
	r.items(put(place("a", "A")), length("a", 1), put(place("b", "B")))
	_, token := r.commit(write(length("a", 2)))
	old := r.settled(token)
	kept := replication.Write{Items: []replication.Item{delta("a", 1)}, Idempotency: keyed("s", "k", 1, 1000*time.Hour)}
	first, _ := r.commit(kept)
	r.clock.advance(100 * time.Hour)
	from := r.clock.now()
	r.clock.advance(50 * time.Hour)
	_, token = r.commit(write(length("b", 9), del("a")))
	young := replication.Cursor{XID: token.XID}
	whole := r.all(10)
	for range 2 { // a second time there is nothing to do
		if err := r.Prune(r.ctx, from, r.clock.now()); err != nil {
			r.Fatalf("Prune: %v", err)
		}
	}
	for _, cursor := range []replication.Cursor{{}, old} {
		_, err := r.Changes(r.ctx, cursor, 10)
		expectErr(r, fmt.Sprintf("Changes after the pruned cursor %+v", cursor), err, replication.ErrPruned)
	}
	r.reopen()
	_, err := r.Changes(r.ctx, replication.Cursor{}, 10)
	expectErr(r, "Changes after a pruned cursor and a restart", err, replication.ErrPruned)
	changes := r.feed(young, token, 10)
	if len(changes) != 2 || changes[0].Kind != shortline.QueueSet || changes[1].Kind != shortline.StoreDeleted {
		r.Errorf("what is younger is %+v, want a queue and a delete", changes)
	}
	expectRows(r, "the database after Prune", r.all(10), whole)
	again, _ := r.commit(kept)
	sameAnswer(r, "a key that lives on", again[0], first[0])

	// With everything pruned, a node that starts at the head goes on.
	head := r.settled(token)
	r.clock.advance(100 * time.Hour)
	if err := r.Prune(r.ctx, r.clock.now(), r.clock.now()); err != nil {
		r.Fatalf("Prune: %v", err)
	}
	_, token = r.commit(write(length("b", 10)))
	expect(r, "changes since the head", len(r.feed(head, token, 10)), 1)
	expect(r, "rev after Prune", r.mustRow("b").Queue.Rev, 2)
}

// checkPruneKeepsPromises: whoever reads while the feed is pruned gets everything, or is told.
func checkPruneKeepsPromises(r *rig) {
	r.items(put(place("a", "A")))
	_, token := r.commit()
	cursor, next := r.settled(token), uint64(1) // next: the rev that is due after the cursor
	for rev := uint64(1); rev < 200; rev++ {
		r.clock.advance(time.Hour)
		_, token := r.commit(write(length("a", int(rev))))
		if rev%3 == 0 {
			if err := r.Prune(r.ctx, r.clock.now().Add(-time.Duration(rev%7)*24*time.Hour), r.clock.now()); err != nil {
				r.Fatalf("Prune: %v", err)
			}
		}
		if rev%20 != 0 {
			continue
		}
		page, err := r.Changes(r.ctx, cursor, 1000)
		switch {
		case errors.Is(err, replication.ErrPruned):
			cursor, next = r.settled(token), rev+1
			continue
		case err != nil:
			r.Fatalf("Changes: %v", err)
		}
		for _, c := range page.Changes {
			if c.Rev != next {
				r.Fatalf("the feed jumps to rev %d where %d is due, without saying so", c.Rev, next)
			}
			next++
		}
		if page.Head.Horizon > token.XID && next != rev+1 {
			r.Fatalf("the feed ends before rev %d, at %d", rev, next)
		}
		cursor = replication.Cursor{XID: page.Head.Horizon}
	}
}

func checkReopen(r *rig) {
	start := r.here()
	token := r.storm(2, 10, 8, 4)()
	changes, rows, head := r.feed(start, token, 1000), r.all(100), r.head()
	r.reopen()
	expectRows(r, "the database after a restart", r.all(100), rows)
	if again := r.feed(start, token, 1000); !slices.EqualFunc(again, changes, samePlace) {
		r.Errorf("the feed after a restart has %d changes, want %d", len(again), len(changes))
	}
	after := r.head()
	if after.Epoch != head.Epoch || after.XMax < head.XMax {
		r.Errorf("the head after a restart is %+v, before it was %+v", after, head)
	}
	_, next := r.commit(write(put(place("next", "Next"))))
	if !token.Less(next) {
		r.Errorf("the token after a restart is %+v, not after %+v", next, token)
	}
}

func checkClosed(r *rig) {
	r.item(put(place("a", "A")))
	r.close()
	_, _, err := r.Commit(r.ctx, []replication.Write{write(del("a"))})
	expectErr(r, "Commit after Close", err, replication.ErrClosed)
	_, err = r.Head(r.ctx)
	expectErr(r, "Head after Close", err, replication.ErrClosed)
	_, err = r.Snapshot(r.ctx, "", 1)
	expectErr(r, "Snapshot after Close", err, replication.ErrClosed)
	_, err = r.Changes(r.ctx, replication.Cursor{}, 1)
	expectErr(r, "Changes after Close", err, replication.ErrClosed)
	expectErr(r, "Prune after Close", r.Prune(r.ctx, r.clock.now(), r.clock.now()), replication.ErrClosed)
	r.reopen()
	r.mustRow("a")
}
