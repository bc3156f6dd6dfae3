// Package storetest holds an adapter to the contract of replication.Store, sentence by sentence. Every adapter runs the
// same suite, so it takes nothing for granted that the contract does not say: transaction numbers grow, but by any step,
// and the horizon may lag behind what was committed.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Harness is one database, empty at first, for one check.
type Harness struct {
	// Open opens the database, whose commits take their time from now. After Close it is called again, and then finds
	// what was there. One store is open at a time.
	Open func(now func() time.Time) (replication.Store, error)
}

// A Maker makes a Harness of its own for each check; it ends with t.
type Maker func(t testing.TB) Harness

// check is one part of the contract.
type check struct {
	name string
	run  func(r *rig)
}

func checks() []check {
	return []check{
		{"Empty", checkEmpty},
		{"Stores", checkStores},
		{"StoreText", checkStoreText},
		{"LargeBatch", checkLargeBatch},
		{"OneBatch", checkOneBatch},
		{"Queues", checkQueues},
		{"Folding", checkFolding},
		{"Flow", checkFlow},
		{"QueueTombstones", checkQueueTombstones},
		{"Rollups", checkRollups},
		{"Keys", checkKeys},
		{"Tokens", checkTokens},
		{"Cancelled", checkCancelled},
		{"Idempotency", checkIdempotency},
		{"IdempotencyInOneBatch", checkIdempotencyInOneBatch},
		{"IdempotencyExpires", checkIdempotencyExpires},
		{"Snapshot", checkSnapshot},
		{"Rows", checkRows},
		{"Changes", checkChanges},
		{"ChangesPaged", checkChangesPaged},
		{"ConcurrentCommits", checkConcurrentCommits},
		{"SnapshotOverlap", checkSnapshotOverlap},
		{"SnapshotThenTail", checkSnapshotThenTail},
		{"Prune", checkPrune},
		{"PruneKeepsPromises", checkPruneKeepsPromises},
		{"Reopen", checkReopen},
		{"Closed", checkClosed},
	}
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, newHarness Maker) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) { c.run(newRig(t, newHarness(t))) })
	}
}

// Catches runs one check against a store whose safeguard is switched off, and tells whether the check failed and with what
// words. It fails t where there is no such check.
func Catches(t testing.TB, name string, newHarness Maker) (caught bool, words string) {
	t.Helper()
	all := checks()
	i := slices.IndexFunc(all, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no check called %q", name)
	}
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // a Fatal ends the goroutine
		defer close(done)
		all[i].run(newRig(rec, newHarness(t)))
	}()
	<-done
	return rec.Failed(), rec.words()
}

// recorder is a testing.TB whose failures are written down and not reported.
type recorder struct {
	testing.TB
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (r *recorder) record(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, s)
}

func (r *recorder) words() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 0 {
		return ""
	}
	return r.lines[0]
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lines) > 0
}

func (r *recorder) Fail()                        { r.record("failed") }
func (r *recorder) FailNow()                     { r.Fail(); runtime.Goexit() }
func (r *recorder) Error(args ...any)            { r.record(fmt.Sprint(args...)) }
func (r *recorder) Errorf(f string, args ...any) { r.record(fmt.Sprintf(f, args...)) }
func (r *recorder) Fatal(args ...any)            { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, args ...any) { r.Errorf(f, args...); runtime.Goexit() }
func (r *recorder) Helper()                      {}
func (r *recorder) Log(...any)                   {}
func (r *recorder) Logf(string, ...any)          {}

// clock is the time of commits; checks move it by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time // guarded by mu
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a store under test with helpers that fail the test.
type rig struct {
	testing.TB
	replication.Store
	ctx     context.Context
	harness Harness
	clock   *clock
	open    bool
}

// patience bounds a check that would hang for ever; no check depends on how long anything takes.
const patience = 2 * time.Minute

func newRig(t testing.TB, h Harness) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r := &rig{TB: t, ctx: ctx, harness: h, clock: &clock{t: time.Date(2026, 3, 2, 10, 30, 0, 123456789, time.UTC)}}
	t.Cleanup(func() {
		defer cancel()
		if r.open {
			if err := r.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
	r.reopen()
	return r
}

// reopen closes the store, if it is open, and opens it again.
func (r *rig) reopen() {
	r.Helper()
	r.close()
	s, err := r.harness.Open(r.clock.now)
	if err != nil {
		r.Fatalf("Open: %v", err)
	}
	r.Store, r.open = s, true
}

func (r *rig) close() {
	r.Helper()
	if !r.open {
		return
	}
	r.open = false
	if err := r.Close(); err != nil {
		r.Fatalf("Close: %v", err)
	}
}

func (r *rig) commit(writes ...replication.Write) ([]replication.Result, replication.Token) {
	r.Helper()
	results, token, err := r.Commit(r.ctx, writes)
	if err != nil {
		r.Fatalf("Commit: %v", err)
	}
	if len(results) != len(writes) {
		r.Fatalf("Commit of %d writes returned %d results", len(writes), len(results))
	}
	for i, res := range results {
		if res.Err == nil && len(res.Items) != len(writes[i].Items) {
			r.Fatalf("write %d has %d items and %d results", i, len(writes[i].Items), len(res.Items))
		}
		if res.Err != nil && len(res.Items) != 0 {
			r.Fatalf("write %d has an error and results too", i)
		}
	}
	return results, token
}

// items commits one write without a key and returns the answers to its items.
func (r *rig) items(items ...replication.Item) []replication.ItemResult {
	r.Helper()
	results, _ := r.commit(replication.Write{Items: items})
	if results[0].Err != nil {
		r.Fatalf("Commit: %v", results[0].Err)
	}
	return results[0].Items
}

func (r *rig) item(it replication.Item) replication.ItemResult {
	r.Helper()
	return r.items(it)[0]
}

func (r *rig) head() replication.Head {
	r.Helper()
	h, err := r.Head(r.ctx)
	if err != nil {
		r.Fatalf("Head: %v", err)
	}
	if h.Epoch == 0 || h.Horizon > h.XMax {
		r.Fatalf("Head is %+v: an epoch is at least 1, and the horizon is not past XMax", h)
	}
	return h
}

// here returns a cursor that everything begun so far is before.
func (r *rig) here() replication.Cursor {
	r.Helper()
	return r.settled(replication.Token{XID: r.head().XMax - 1})
}

// settled returns a cursor that everything up to the token is before.
func (r *rig) settled(token replication.Token) replication.Cursor {
	r.Helper()
	for r.ctx.Err() == nil {
		if h := r.head(); h.Horizon > token.XID {
			return replication.Cursor{XID: h.Horizon}
		}
	}
	r.Fatalf("the horizon never passed token %+v", token)
	return replication.Cursor{}
}

// feed returns the changes after the cursor, read in pages of limit, until the horizon has passed the token.
func (r *rig) feed(after replication.Cursor, token replication.Token, limit int) []shortline.Change {
	r.Helper()
	var all []shortline.Change
	for r.ctx.Err() == nil {
		page := r.page(after, limit)
		all = append(all, page.Changes...)
		if n := len(page.Changes); n > 0 {
			after = replication.Cursor{XID: page.Changes[n-1].XID, ID: page.Changes[n-1].ID}
		}
		if !page.More && page.Head.Horizon > token.XID {
			return all
		}
	}
	r.Fatalf("the horizon never passed token %+v", token)
	return nil
}

// page reads one page and checks what holds of every page.
func (r *rig) page(after replication.Cursor, limit int) replication.Page {
	r.Helper()
	page, err := r.Changes(r.ctx, after, limit)
	if err != nil {
		r.Fatalf("Changes(%+v): %v", after, err)
	}
	if len(page.Changes) > limit {
		r.Fatalf("a page of at most %d has %d changes", limit, len(page.Changes))
	}
	if page.More && len(page.Changes) == 0 {
		r.Fatalf("a page says that there is more, and has nothing")
	}
	for _, c := range page.Changes {
		at := replication.Cursor{XID: c.XID, ID: c.ID}
		if !before(after, at) || c.XID >= page.Head.Horizon {
			r.Fatalf("change %+v is out of order (after %+v) or not below the horizon %d", at, after, page.Head.Horizon)
		}
		after = at
		r.checkShape(c)
	}
	return page
}

func before(a, b replication.Cursor) bool { return a.XID < b.XID || a.XID == b.XID && a.ID < b.ID }

// checkShape checks that a change has the fields of its kind.
func (r *rig) checkShape(c shortline.Change) {
	r.Helper()
	ok := c.Epoch > 0 && !c.At.IsZero()
	switch c.Kind {
	case shortline.StorePut:
		ok = ok && c.Rev > 0 && c.Store != nil && c.Queue == nil && c.Key == nil && string(c.Store.ID) == c.Subject
	case shortline.StoreDeleted:
		ok = ok && c.Rev > 0 && c.Store == nil && c.Key == nil
	case shortline.QueueSet:
		ok = ok && c.Rev > 0 && c.Store == nil && c.Queue != nil && c.Key == nil && c.Queue.Rev == c.Rev
	case shortline.KeyPut:
		ok = ok && c.Rev > 0 && c.Store == nil && c.Queue == nil && c.Key != nil && string(c.Key.ID) == c.Subject && c.Key.Rev == c.Rev
	case shortline.EpochBegun:
		ok = ok && c.Store == nil && c.Queue == nil && c.Key == nil
	default:
		ok = false
	}
	if !ok {
		r.Fatalf("change (%d, %d) of kind %d about %q is malformed: %+v", c.XID, c.ID, c.Kind, c.Subject, c)
	}
}

// all reads the whole snapshot in chunks of limit and checks its order.
func (r *rig) all(limit int) []replication.Row {
	r.Helper()
	var all []replication.Row
	for after := shortline.StoreID(""); ; {
		rows := r.chunk(after, limit)
		all = append(all, rows...)
		if len(rows) < limit {
			return all
		}
		after = rows[len(rows)-1].Store.ID
	}
}

func (r *rig) chunk(after shortline.StoreID, limit int) []replication.Row {
	r.Helper()
	rows, err := r.Snapshot(r.ctx, after, limit)
	if err != nil {
		r.Fatalf("Snapshot(%q): %v", after, err)
	}
	if len(rows) > limit {
		r.Fatalf("a chunk of at most %d has %d rows", limit, len(rows))
	}
	for _, row := range rows {
		if row.Store.ID <= after {
			r.Fatalf("Snapshot: store %q came after %q", row.Store.ID, after)
		}
		after = row.Store.ID
	}
	return rows
}

func (r *rig) row(id shortline.StoreID) (replication.Row, bool) {
	r.Helper()
	rows, err := r.Rows(r.ctx, []shortline.StoreID{id})
	if err != nil {
		r.Fatalf("Rows(%q): %v", id, err)
	}
	switch {
	case len(rows) == 0:
		return replication.Row{}, false
	case len(rows) > 1 || rows[0].Store.ID != id:
		r.Fatalf("Rows(%q) returned %+v", id, rows)
	}
	return rows[0], true
}

func (r *rig) mustRow(id shortline.StoreID) replication.Row {
	r.Helper()
	row, ok := r.row(id)
	if !ok {
		r.Fatalf("Rows: store %q is missing", id)
	}
	return row
}

func (r *rig) rollups(id shortline.StoreID, from, to time.Time) []replication.Rollup {
	r.Helper()
	rollups, err := r.Rollups(r.ctx, id, from, to)
	if err != nil {
		r.Fatalf("Rollups(%q): %v", id, err)
	}
	return rollups
}

// expect fails the test where got is not want.
func expect[T comparable](r *rig, what string, got, want T) {
	r.Helper()
	if got != want {
		r.Errorf("%s is %v, want %v", what, got, want)
	}
}

func expectErr(r *rig, what string, got, want error) {
	r.Helper()
	if !errors.Is(got, want) {
		r.Errorf("%s: the error is %v, want one that wraps %q", what, got, want)
	}
}

func expectQueue(r *rig, what string, got, want *shortline.Queue) {
	r.Helper()
	if got == nil || want == nil {
		if got != want {
			r.Errorf("%s is %+v, want %+v", what, got, want)
		}
		return
	}
	if got.Length != want.Length || got.Rev != want.Rev || !got.UpdatedAt.Equal(want.UpdatedAt) || got.LearnedS != want.LearnedS {
		r.Errorf("%s is %+v, want %+v", what, *got, *want)
	}
}

// Builders of what is written.

func place(id shortline.StoreID, name string) *shortline.Store {
	s := &shortline.Store{ID: id, Name: name, Lat: 48.137, Lng: 11.575, ServiceS: 42.5}
	s.Normalize()
	return s
}

func put(s *shortline.Store) replication.Item        { return replication.Item{Put: s} }
func del(id shortline.StoreID) replication.Item      { return replication.Item{Delete: id} }
func queue(u shortline.QueueUpdate) replication.Item { return replication.Item{Queue: &u} }
func length(id shortline.StoreID, n int) replication.Item {
	return queue(shortline.QueueUpdate{ID: id, Length: &n})
}
func delta(id shortline.StoreID, n int) replication.Item {
	return queue(shortline.QueueUpdate{ID: id, Delta: &n})
}
func write(items ...replication.Item) replication.Write { return replication.Write{Items: items} }
func storeID(prefix string, i int) shortline.StoreID {
	return shortline.StoreID(fmt.Sprintf("%s-%05d", prefix, i))
}
func sameMoment(r *rig, what string, got, want time.Time) {
	r.Helper()
	expect(r, what, got.UnixMilli(), want.UnixMilli())
}
func keyed(scope, key string, body byte, ttl time.Duration) *replication.Idempotency {
	return &replication.Idempotency{Scope: scope, Key: key, BodyHash: [32]byte{body}, TTL: ttl}
}
