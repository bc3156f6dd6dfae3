package replication_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// feeding is a Feed that runs for the length of a test in a synctest bubble.
type feeding struct {
	*replication.Feed
	t    *testing.T
	db   *database
	node *node
}

func startFeed(t *testing.T, db *database, cfg replication.FeedConfig) *feeding {
	f := &feeding{t: t, db: db, node: &node{}}
	f.Feed = replication.NewFeed(db, f.node, cfg)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return f
}

// expect compares what readers see of a store.
func (f *feeding) expect(id shortline.StoreID, name string, length int) {
	f.t.Helper()
	synctest.Wait()
	if gotName, gotLength := f.node.inService().store(id); gotName != name || gotLength != length {
		f.t.Errorf("readers see store %s as %q with %d waiting, want %q with %d", id, gotName, gotLength, name, length)
	}
}

// poked pokes and returns when the feed is idle again, without time having passed.
func (f *feeding) poked() {
	f.Poke()
	synctest.Wait()
}

// async runs fn in a goroutine of its own and returns when that is blocked or done; what fn returned comes from the channel.
func async[T any](fn func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- fn() }()
	synctest.Wait()
	return c
}

// returned is what must be there already.
func returned[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	synctest.Wait()
	select {
	case v := <-c:
		return v
	default:
		t.Fatal("it has not returned")
		panic("unreachable")
	}
}

func blocked[T any](t *testing.T, c <-chan T, why string) {
	t.Helper()
	synctest.Wait()
	select {
	case v := <-c:
		t.Fatalf("it has returned (%v), though %s", v, why)
	default:
	}
}

func TestFeedSnapshotThenTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		tx := db.begin().key("k", "first")
		for i := range 25 {
			id := shortline.StoreID(fmt.Sprintf("s%02d", i))
			tx.put(id, "loaded").queue(id, i)
		}
		tx.commit()
		db.setBefore(func(_ context.Context, read string) error {
			if read == "keys" { // all rows have been read by now
				db.begin().put("s00", "put meanwhile").remove("s01").queue("s02", 99).put("new", "born meanwhile").key("k", "second").commit()
			}
			return nil
		})
		registry := prometheus.NewRegistry()
		f := startFeed(t, db, replication.FeedConfig{Chunk: 7, Registerer: registry})
		f.expect("s00", "put meanwhile", 0)
		f.expect("s01", "", -1)
		f.expect("s02", "loaded", 99)
		f.expect("s24", "loaded", 24)
		f.expect("new", "born meanwhile", -1)
		db.begin().queue("s24", 7).key("k", "third").commit()
		f.poked()
		f.expect("s24", "loaded", 7)
		if d := db.differences(f.node.inService()); len(d) > 0 {
			t.Error(d)
		}
		if begun, installs := f.node.counts(); begun != 1 || installs != 1 {
			t.Errorf("%d views begun and %d installed, want one of each", begun, installs)
		}
		if n := gathered(t, registry, "shortline_feed_snapshots_total"); n != 1 {
			t.Errorf("%v snapshots counted, want 1", n)
		}
	})
}

// Several parts of a snapshot are read at once, and each row once.
func TestFeedReadsPartsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, now, most := newDatabase(), 0, 0
		db.splits = []shortline.StoreID{"s05", "s20", "s205", "zz"}
		for i := range 50 {
			db.begin().put(shortline.StoreID(fmt.Sprintf("s%02d", i)), fmt.Sprint(i)).commit()
		}
		var mu sync.Mutex
		db.setBefore(func(_ context.Context, read string) error {
			if read == "snapshot" {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now--
				mu.Unlock()
			}
			return nil
		})
		f := startFeed(t, db, replication.FeedConfig{Chunk: 4})
		if err := f.Latest(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			f.expect(shortline.StoreID(fmt.Sprintf("s%02d", i)), fmt.Sprint(i), -1)
		}
		if n := f.node.inService().loaded; n != 50 || most != 4 {
			t.Errorf("%d rows were loaded, up to %d chunks at once, want 50 and 4", n, most)
		}
	})
}

// A writer's clock that is ahead is told once, and that it is not any more.
func TestFeedTellsOfClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		var text strings.Builder
		f := startFeed(t, db, replication.FeedConfig{Log: slog.New(slog.NewTextHandler(&text, nil))})
		for _, c := range []struct {
			ahead         time.Duration
			differ, agree int // lines told so far
		}{{900 * time.Millisecond, 0, 0}, {90 * time.Second, 1, 0}, {80 * time.Second, 1, 0}, {800 * time.Millisecond, 1, 0}, {0, 1, 1}, {-time.Hour, 1, 1}} {
			db.mu.Lock()
			db.ahead = c.ahead
			db.mu.Unlock()
			if err := f.Wait(t.Context(), db.begin().put("s", "x").commit()); err != nil {
				t.Fatal(err)
			}
			if differ, agree := strings.Count(text.String(), "is ahead of this node's"), strings.Count(text.String(), "agree again"); differ != c.differ || agree != c.agree {
				t.Errorf("with a writer %v ahead the log has %d and %d lines, want %d and %d:\n%s", c.ahead, differ, agree, c.differ, c.agree, text.String())
			}
		}
	})
}

func TestFeedOfAnEmptyDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFeed(t, newDatabase(), replication.FeedConfig{})
		if a := f.Applied(); a == nil || a.Token != (replication.Token{Epoch: 1, XID: 1}) || a.Text != a.Token.String() || !a.At.Equal(time.Now()) {
			t.Errorf("Applied = %+v", a)
		}
		f.expect("s", "", -1)
	})
}

// The transaction with the smaller XID commits last on the same store, so that the feed shows its change first: rev alone
// decides. A view that goes by the order of the feed instead must end wrong, or this test shows nothing.
func TestFeedOppositeOrderOfCommit(t *testing.T) {
	for _, careless := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			db.begin().put("s", "old").queue("s", 1).commit()
			f := &feeding{t: t, db: db, node: &node{careless: careless}}
			f.Feed = replication.NewFeed(db, f.node, replication.FeedConfig{})
			ctx, stop := context.WithCancel(t.Context())
			done := async(func() error { return f.Run(ctx) })

			first, second := db.begin(), db.begin()
			second.put("s", "earlier").queue("s", 2).commit()
			first.put("s", "later").queue("s", 3).commit()
			f.poked()
			if careless {
				f.expect("s", "earlier", 2)
			} else {
				f.expect("s", "later", 3)
			}
			if d := db.differences(f.node.inService()); careless != (len(d) > 0) {
				t.Errorf("careless is %v, and the differences are %v", careless, d)
			}
			stop()
			if err := returned(t, done); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is deleted by a transaction below the cursor is not in the tail; an older change of it that is in the tail would
// bring it back, were it not for the tombstone in the snapshot. The same goes for the queue of a store that came back.
func TestFeedSnapshotBelowADelete(t *testing.T) {
	for _, careless := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			db.noTombstones, db.noQueueRev = careless, careless
			db.begin().put("back", "back").commit()
			again, deleting, open, writing := db.begin(), db.begin(), db.begin(), db.begin() // XIDs in this order
			writing.put("gone", "gone").queue("gone", 1).queue("back", 2).commit()
			deleting.remove("gone").remove("back").commit()
			again.put("back", "back again").commit()
			f := startFeed(t, db, replication.FeedConfig{}) // the horizon is at open, in the middle
			open.commit()
			f.poked()
			if careless {
				f.expect("gone", "gone", 1)
				f.expect("back", "back again", 2)
			} else {
				f.expect("gone", "", -1)
				f.expect("back", "back again", -1)
			}
		})
	}
}

func TestFeedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		f := startFeed(t, db, replication.FeedConfig{})
		holding := db.begin()
		token := db.begin().put("s", "here").commit()
		waiting := async(func() error { return f.Wait(t.Context(), token) })
		blocked(t, waiting, "an older transaction holds the change back")
		time.Sleep(time.Minute)
		blocked(t, waiting, "an older transaction holds the change back")
		if f.Applied().Satisfies(token) {
			t.Error("the token is said to be satisfied")
		}
		holding.rollback()
		start := time.Now()
		if err := f.Wait(t.Context(), token); err != nil || time.Since(start) != 0 { // it pokes
			t.Errorf("Wait for what is there: %v after %v", err, time.Since(start))
		}
		if err := returned(t, waiting); err != nil {
			t.Error(err)
		}
		f.expect("s", "here", -1)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Wait(ctx, replication.Token{Epoch: 1, XID: 1000}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait for what never comes: %v", err)
		}
	})
}

func TestFeedWaitBeforeTheFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		token := db.begin().put("s", "here").commit()
		down := true
		db.setBefore(func(context.Context, string) error {
			db.mu.Lock()
			defer db.mu.Unlock()
			if down {
				return errors.New("not yet")
			}
			return nil
		})
		f := startFeed(t, db, replication.FeedConfig{})
		waiting := async(func() error { return f.Wait(t.Context(), token) })
		blocked(t, waiting, "there is no snapshot")
		db.mu.Lock()
		down = false
		db.mu.Unlock()
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		f.expect("s", "here", -1)
	})
}

// A session sees its own write also if an epoch begins while the write is held back (protocol, rule 5: epoch and XID).
func TestFeedWaitAcrossEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		f := startFeed(t, db, replication.FeedConfig{})
		holding := db.begin()
		token := db.begin().put("s", "mine").commit()
		db.begin().beginEpoch().commit()
		waiting := async(func() error { return f.Wait(t.Context(), token) })
		if a := f.Applied(); a.Token.Epoch != 2 || a.Token.XID >= token.XID {
			t.Fatalf("the position is %+v; this is not the case to be tested", a.Token)
		}
		blocked(t, waiting, "only the epoch has come")
		holding.rollback()
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		f.expect("s", "mine", -1)
	})
}

func TestFeedLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		f := startFeed(t, db, replication.FeedConfig{})
		older := db.begin()
		db.begin().put("s", "committed before").commit()
		waiting := async(func() error { return f.Latest(t.Context(), time.Minute) })
		younger := db.begin()
		blocked(t, waiting, "a transaction begun before the call is open")
		older.commit()
		if err := <-waiting; err != nil { // younger stays open: nobody waits for it
			t.Error(err)
		}
		f.expect("s", "committed before", -1)
		younger.rollback()

		broken := errors.New("broken")
		db.setBefore(func(context.Context, string) error { return broken })
		if err := f.Latest(t.Context(), time.Minute); !errors.Is(err, broken) {
			t.Errorf("Latest of a database that cannot be read: %v", err)
		}
	})
}

func TestFeedJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.begin().beginEpoch().commit()
		f := startFeed(t, db, replication.FeedConfig{})
		held := db.begin()
		written := db.begin().put("s", "here").commit()
		for name, c := range map[string]struct {
			token replication.Token
			want  error
		}{
			"nothing":                  {replication.Token{}, nil},
			"applied":                  {f.Applied().Token, nil},
			"written, not visible yet": {written, nil},
			"the next transaction":     {replication.Token{Epoch: 2, XID: written.XID + 1}, replication.ErrTokenLost},
			"shown by a standby, held back by the primary": {replication.Token{Epoch: 2, XID: written.XID + 1, LSN: written.LSN}, nil},
			"past the primary's log":                       {replication.Token{Epoch: 2, XID: written.XID + 1, LSN: written.LSN + 1000}, replication.ErrTokenLost},
			"an epoch that has not begun":                  {replication.Token{Epoch: 3, XID: 1}, replication.ErrTokenLost},
			"a former epoch":                               {replication.Token{Epoch: 1, XID: 1}, nil},
			"a former epoch, further than it is":           {replication.Token{Epoch: 1, XID: written.XID + 1}, replication.ErrTokenLost},
		} {
			if err := f.Judge(t.Context(), c.token); !errors.Is(err, c.want) {
				t.Errorf("%s: Judge = %v, want %v", name, err, c.want)
			}
		}
		held.rollback()
		broken := errors.New("broken")
		db.setBefore(func(context.Context, string) error { return broken })
		if err := f.Judge(t.Context(), written); !errors.Is(err, broken) || errors.Is(err, replication.ErrTokenLost) {
			t.Errorf("Judge without a database: %v", err)
		}
	})
}

// coverNode is a node of which each change, as it appears in memory, is compared with what a read would answer with.
type coverNode struct {
	node
	feed     *replication.Feed
	position func(*replication.Feed) *replication.Applied
	short    int // changes that the position did not stand for
}

type coverView struct {
	replication.View
	n *coverNode
}

func (n *coverNode) Begin() replication.View    { return coverView{n.node.Begin(), n} }
func (n *coverNode) Install(v replication.View) { n.node.Install(v.(coverView).View) }

func (v coverView) Apply(changes []shortline.Change) {
	v.View.Apply(changes)
	if at := v.n.position(v.n.feed); at != nil {
		for i := range changes {
			if at.Shows.XID < changes[i].XID {
				v.n.short++
			}
		}
	}
}

// What a read finds in memory is covered by the token of its answer, or the session could go back at the next node. The
// mutant answers with the position that memory is known to have reached.
func TestFeedCoversWhatIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		position func(*replication.Feed) *replication.Applied
		short    bool
	}{"covers": {(*replication.Feed).Covers, false}, "mutant": {(*replication.Feed).Applied, true}} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			db.begin().put("s", "first").commit()
			n := &coverNode{position: c.position}
			n.feed = replication.NewFeed(db, n, replication.FeedConfig{Chunk: 2})
			ctx, stop := context.WithCancel(t.Context())
			done := async(func() error { return n.feed.Run(ctx) })
			synctest.Wait()
			for i := range 10 {
				db.begin().put("s", "next").queue("s", i).put("u", "other").commit()
				n.feed.Poke()
				synctest.Wait()
			}
			if (n.short > 0) != c.short {
				t.Errorf("%s: %d changes were not covered", name, n.short)
			}
			if n.feed.Covers() != n.feed.Applied() {
				t.Errorf("%s: at rest the feed covers %v and has applied %v", name, n.feed.Covers().Token, n.feed.Applied().Token)
			}
			stop()
			if err := returned(t, done); err != nil {
				t.Error(err)
			}
		})
	}
}

// breakReads makes the reads of the name fail with err until it is called again with nil.
func (db *database) breakReads(name string, err error) {
	db.setBefore(func(_ context.Context, read string) error {
		if read == name {
			return err
		}
		return nil
	})
}

func TestFeedGoesOnAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.begin().put("s", "before").commit()
		f := startFeed(t, db, replication.FeedConfig{})
		before := *f.Applied()
		db.breakReads("changes", errors.New("the disk is on fire"))
		db.begin().put("s", "after").commit()
		polls := db.count("changes")
		f.poked()
		f.expect("s", "before", -1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if reason := f.Failure(); !strings.Contains(reason, "the disk is on fire") || strings.Contains(reason, "\n") {
			t.Errorf("Failure = %q", reason)
		}
		if a := *f.Applied(); a != before {
			t.Errorf("Applied goes on from %+v to %+v without a database", before, a)
		}
		if n := db.count("changes") - polls; n < 30 || n > 60 {
			t.Errorf("%d tries in a minute", n)
		}
		db.breakReads("", nil)
		if err := f.Wait(t.Context(), replication.Token{Epoch: 1, XID: 3}); err != nil {
			t.Fatal(err)
		}
		f.expect("s", "after", -1)
		if reason := f.Failure(); reason != "" {
			t.Errorf("Failure = %q after it went on", reason)
		}
		if begun, _ := f.node.counts(); begun != 1 {
			t.Errorf("%d snapshots; the place in the feed was still good", begun)
		}
	})
}

func TestFeedTriesTheSnapshotAgain(t *testing.T) {
	for _, read := range []string{"head", "snapshot", "keys"} {
		t.Run(read, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := newDatabase()
				db.begin().put("s", "here").commit()
				db.breakReads(read, errors.New("no route to host"))
				f := startFeed(t, db, replication.FeedConfig{})
				time.Sleep(time.Minute)
				synctest.Wait()
				if a := f.Applied(); a != nil || f.node.inService() != nil {
					t.Errorf("without a snapshot Applied = %+v", a)
				}
				if reason := f.Failure(); !strings.Contains(reason, "no route to host") {
					t.Errorf("Failure = %q", reason)
				}
				if n := db.count(read); n < 10 || n > 30 {
					t.Errorf("%d tries in a minute", n)
				}
				db.breakReads("", nil)
				if err := f.Wait(t.Context(), replication.Token{Epoch: 1, XID: 2}); err != nil {
					t.Fatal(err)
				}
				f.expect("s", "here", -1)
				if reason := f.Failure(); reason != "" {
					t.Errorf("Failure = %q after it went on", reason)
				}
			})
		})
	}
}

func TestFeedReadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		f := startFeed(t, db, replication.FeedConfig{ReadTimeout: 3 * time.Second})
		db.setBefore(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		f.poked()
		if f.Failure() != "" {
			t.Error("a read that takes long is a failure already")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if reason := f.Failure(); !strings.Contains(reason, context.DeadlineExceeded.Error()) {
			t.Errorf("Failure = %q", reason)
		}
	})
}

// After a pruning that left it behind, the feed builds new memory beside the old, and swaps only when it has caught up.
func TestFeedPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.begin().put("a", "old").put("b", "old").put("c", "old").queue("c", 5).commit()
		f := startFeed(t, db, replication.FeedConfig{Chunk: 1})
		before := f.Applied().Token

		db.breakReads("changes", errors.New("away"))
		f.poked()
		db.begin().put("a", "new").remove("b").queue("c", 6).commit()
		db.prune()
		holding := db.begin() // keeps the new view from catching up
		token := db.begin().put("d", "new").commit()
		db.setBefore(func(_ context.Context, read string) error {
			if read == "snapshot" {
				time.Sleep(time.Second)
			}
			return nil
		})
		for range 20 { // through the backoff, the chunks and then the tail
			time.Sleep(time.Second)
			f.expect("a", "old", -1)
			f.expect("b", "old", -1)
			f.expect("c", "old", 5)
			f.expect("d", "", -1)
			if got := f.Applied().Token; got != before {
				t.Fatalf("Applied is %+v, which no readable memory has", got)
			}
		}
		if begun, installs := f.node.counts(); begun != 2 || installs != 1 {
			t.Fatalf("%d views begun and %d installed, want 2 and 1", begun, installs)
		}
		holding.commit()
		if err := f.Wait(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		f.expect("a", "new", -1)
		f.expect("b", "", -1)
		f.expect("c", "old", 6)
		f.expect("d", "new", -1)
		if d := db.differences(f.node.inService()); len(d) > 0 {
			t.Error(d)
		}
		if begun, installs := f.node.counts(); begun != 2 || installs != 2 {
			t.Errorf("%d views begun and %d installed, want 2 of each", begun, installs)
		}
		if reason := f.Failure(); reason != "" {
			t.Errorf("Failure = %q after it went on", reason)
		}
	})
}

// A feed that is pruned while its new snapshot is still being read starts over, however often, and not in a tight loop.
func TestFeedPrunedDuringTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		times := 5
		db.setBefore(func(_ context.Context, read string) error {
			if read == "keys" && times > 0 {
				times--
				db.begin().put("s", fmt.Sprint(times)).commit()
				db.prune()
			}
			return nil
		})
		start := time.Now()
		f := startFeed(t, db, replication.FeedConfig{})
		if f.Applied() != nil {
			t.Error("a snapshot whose tail is gone is in service")
		}
		if err := f.Wait(t.Context(), replication.Token{Epoch: 1, XID: 6}); err != nil {
			t.Fatal(err)
		}
		f.expect("s", "0", -1)
		if begun, installs := f.node.counts(); begun != 6 || installs != 1 || time.Since(start) < time.Second {
			t.Errorf("%d views begun and %d installed in %v", begun, installs, time.Since(start))
		}
	})
}

func TestFeedPollsSeldomWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		f := startFeed(t, db, replication.FeedConfig{})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := db.count("changes"); n < 6000 || n > 16_000 {
			t.Errorf("%d polls until it polls as seldom as it may", n)
		}
		before := db.count("changes")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := db.count("changes") - before; n > 201 {
			t.Errorf("%d polls in ten idle seconds, want 200", n)
		}
		if age := time.Since(f.Applied().At); age > 50*time.Millisecond {
			t.Errorf("memory is %v old, more than the longest wait between polls", age)
		}
	})
}

// Nobody pokes the feed of a standby. What comes once a minute or more often is seen 10 ms later at most.
func TestFeedFollowsBursts(t *testing.T) {
	for _, c := range []struct {
		every, behind time.Duration
		polls         int // a second at most
	}{
		{3 * time.Millisecond, 5 * time.Millisecond, 200},
		{50 * time.Millisecond, 5 * time.Millisecond, 200},
		{2 * time.Second, 10 * time.Millisecond, 155},
		{time.Minute, 10 * time.Millisecond, 104},
		{2 * time.Minute, 20 * time.Millisecond, 90},
		{time.Hour, 50 * time.Millisecond, 25},
	} {
		t.Run(c.every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := newDatabase()
				f := startFeed(t, db, replication.FeedConfig{})
				time.Sleep(time.Hour) // until it is as slow as can be
				db.begin().put("s", "wakes it").commit()
				time.Sleep(51 * time.Millisecond)
				began, polls := time.Now(), db.count("changes")
				for i := range 50 {
					token := db.begin().put("s", fmt.Sprint(i)).commit()
					for committed := time.Now(); ; time.Sleep(time.Millisecond) {
						synctest.Wait()
						if f.Applied().Satisfies(token) {
							break
						}
						if behind := time.Since(committed); behind > c.behind {
							t.Fatalf("change %d is not there after %v", i, behind)
						}
					}
					time.Sleep(c.every)
				}
				rate := float64(db.count("changes")-polls) / time.Since(began).Seconds()
				if rate > float64(c.polls)+1 {
					t.Errorf("%.0f polls a second", rate)
				}
				t.Logf("%.0f polls a second", rate)
			})
		})
	}
}

func TestFeedPoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		f := startFeed(t, db, replication.FeedConfig{})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		before := db.count("changes")
		token := db.begin().put("s", "here").commit()
		f.poked()
		if !f.Applied().Satisfies(token) || !f.Applied().At.Equal(time.Now()) {
			t.Errorf("after a poke Applied = %+v", f.Applied())
		}
		f.expect("s", "here", -1)
		if n := db.count("changes") - before; n < 1 || n > 3 {
			t.Errorf("%d polls for one poke", n)
		}
		// After something came, poked or not, the next polls are close to each other: changes come in runs.
		time.Sleep(10 * time.Second)
		db.begin().put("s", "without a poke").commit()
		for name := ""; name != "without a poke"; name, _ = f.node.inService().store("s") {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		token = db.begin().put("s", "again").commit()
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if !f.Applied().Satisfies(token) {
			t.Error("a change right after another had to wait for longer than MinPoll")
		}
		// So they are after a poke for nothing: who pokes expects something.
		time.Sleep(10 * time.Second)
		f.poked()
		token = db.begin().put("s", "expected").commit()
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if !f.Applied().Satisfies(token) {
			t.Error("a change right after a poke had to wait for longer than MinPoll")
		}
		// Any number of pokes during one poll are one poll.
		slow := make(chan struct{})
		db.setBefore(func(context.Context, string) error { <-slow; return nil })
		f.poked()
		before = db.count("changes")
		for range 100 {
			f.Poke()
		}
		close(slow)
		synctest.Wait()
		if n := db.count("changes") - before; n > 2 {
			t.Errorf("%d polls for pokes during one", n)
		}
	})
}

// At says as of when memory is complete, not when the database was last asked.
func TestFeedAppliedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		registry := prometheus.NewRegistry()
		f := startFeed(t, db, replication.FeedConfig{MaxPoll: 100 * time.Millisecond, Registerer: registry})
		time.Sleep(time.Second)
		f.poked()
		if !f.Applied().At.Equal(time.Now()) {
			t.Errorf("nothing is open, and memory is %v old right after a poll", time.Since(f.Applied().At))
		}
		// A read that takes long: what was committed meanwhile may be missing.
		asked := time.Now()
		db.setBefore(func(context.Context, string) error { time.Sleep(3 * time.Second); return nil })
		f.poked()
		db.setBefore(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if at := f.Applied().At; !at.Equal(asked) {
			t.Errorf("a read begun at %v makes memory of %v", asked, at)
		}

		// A transaction that stays open keeps back what others commit: memory grows older, though polls succeed.
		holding := db.begin()
		began := time.Now()
		db.begin().put("s", "kept back").commit()
		time.Sleep(time.Minute)
		f.poked()
		if at := f.Applied().At; at.After(began) {
			t.Errorf("memory is said to be of %v, but lacks what was committed at %v", at, began)
		}
		if lag := gathered(t, registry, "shortline_feed_lag_seconds"); lag < 60 {
			t.Errorf("the lag is said to be %v s, want at least 60", lag)
		}
		// One begun later moves it on, though not to the present.
		time.Sleep(time.Second)
		later := db.begin()
		moved := time.Now()
		time.Sleep(time.Second)
		f.poked()
		holding.rollback()
		f.poked()
		if at := f.Applied().At; at.Before(began) || at.After(moved) {
			t.Errorf("memory is said to be of %v; of two transactions, one was open from %v and one is since %v", at, began, moved)
		}
		f.expect("s", "kept back", -1)
		later.commit()
		f.poked()
		if !f.Applied().At.Equal(time.Now()) {
			t.Errorf("nothing is open any more, and memory is %v old right after a poll", time.Since(f.Applied().At))
		}
	})
}

func TestFeedLagBeforeTheFirstSnapshot(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := replication.NewFeed(newDatabase(), &node{}, replication.FeedConfig{Registerer: registry})
	if lag := gathered(t, registry, "shortline_feed_lag_seconds"); lag != -1 || f.Applied() != nil || f.Failure() != "" {
		t.Errorf("a feed that has not run: lag %v, Applied %+v, Failure %q", lag, f.Applied(), f.Failure())
	}
}
