package replication_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Wrote implements replication.Witness.
func (db *database) Wrote(ctx context.Context, epoch, xid uint64) (bool, error) {
	if err := db.read(ctx, "Wrote"); err != nil {
		return false, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	return slices.ContainsFunc(db.changes, func(c shortline.Change) bool { return c.Epoch == epoch && c.XID == xid }), nil
}

// A token of a former epoch is lost only if its log position is past the fork and its change row is not there, also where the
// new epoch has given its transaction's number out again.
func TestTokensAcrossAFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.setLineage(replication.Lineage{Epoch: 1})
		forks := replication.Forks{{Epoch: 1}}
		forkOf := func(epoch uint64) (uint64, bool) { return forks.ForkOf(epoch) }
		kept := db.begin().put("s", "kept").commit()
		before := db.save()
		lost := db.begin().put("s", "lost").commit()
		f := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage, ForkOf: forkOf})
		if err := f.Settle(t.Context(), lost, time.Minute); err != nil {
			t.Fatalf("before the fork: %v", err)
		}
		db.rewind(before)
		forks = append(forks, replication.Lineage{Epoch: 2, Fork: before.lsn})
		db.setLineage(forks.Lineage())
		db.begin().beginEpoch().commit()
		again := db.begin().put("s", "new").commit()
		again = db.begin().put("s", "newer").commit()
		if again.XID < lost.XID {
			t.Fatalf("number %d is not given out again", lost.XID)
		}
		if err := f.Settle(t.Context(), again, time.Minute); err != nil {
			t.Fatal(err)
		}
		bound := kept
		bound.LSN = replication.NoFork // a bound only: the row tells
		for _, c := range []struct {
			name  string
			token replication.Token
			fork  func(uint64) (uint64, bool)
			want  error
		}{
			{"kept, before the fork", kept, forkOf, nil},
			{"kept, its bound past the fork", bound, forkOf, nil},
			{"lost, its number given out again", lost, forkOf, replication.ErrTokenLost},
			{"of the new epoch", again, forkOf, nil},
			{"kept, where the fork is not known", kept, func(uint64) (uint64, bool) { return 0, false }, nil},
			{"lost, where the fork is not known", lost, func(uint64) (uint64, bool) { return 0, false }, replication.ErrTokenLost},
			{"mutant: nobody looks for forks", lost, nil, nil},
		} {
			g := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage, ForkOf: c.fork})
			if err := g.Settle(t.Context(), c.token, time.Minute); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
	})
}

// The token of a read outlives a failover that what it showed outlives, wherever the log was when it was read: a primary's log has
// much that no standby has yet, and its transactions need not be writes. The mutant answers with how far memory has come.
func TestReadTokensOutliveAFork(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(*replication.Applied) replication.Token
		want error
	}{
		"what it shows":         {func(a *replication.Applied) replication.Token { return a.Shows }, nil},
		"mutant: how far it is": {func(a *replication.Applied) replication.Token { return a.Token }, replication.ErrTokenLost},
	} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			db.setLineage(replication.Lineage{Epoch: 1})
			forks := replication.Forks{{Epoch: 1}}
			cfg := replication.FeedConfig{Lineage: db.Lineage, ForkOf: func(epoch uint64) (uint64, bool) { return forks.ForkOf(epoch) }}
			f := startFeed(t, db, cfg)
			db.begin().put("s", "shown").commit()
			f.Poke()
			synctest.Wait()
			before := db.save()
			db.begin().commit() // vacuum, say: a transaction without a change, which the standbys do not get in time
			f.Poke()
			synctest.Wait()
			token := c.of(f.Applied())
			if f.Applied().Text != f.Applied().Shows.String() {
				t.Errorf("the text is %s", f.Applied().Text)
			}
			db.rewind(before)
			forks = append(forks, replication.Lineage{Epoch: 2, Fork: before.lsn})
			db.setLineage(forks.Lineage())
			db.begin().beginEpoch().commit()
			g := startFeed(t, db, cfg)
			if err := g.Settle(t.Context(), token, time.Minute); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		})
	}
}

// A session waits while the primary moves, and only then; a database that cannot be read does not make its token a lost one.
func TestSettleWaitsWhileThePrimaryMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		var moving atomic.Bool // virtual time orders nothing for the race detector
		moving.Store(true)
		f := startFeed(t, db, replication.FeedConfig{PrimaryHead: func(ctx context.Context) (replication.Head, error) {
			if moving.Load() {
				return replication.Head{}, replication.ErrNotPrimary
			}
			h, err := db.Head(ctx)
			h.LSN += 1000
			h.XMax += 1000
			return h, err
		}})
		ahead := f.Applied().Token
		ahead.XID++
		ahead.LSN++
		waiting := async(func() error { return f.Settle(t.Context(), ahead, 2*time.Second) })
		time.Sleep(20 * time.Second)
		blocked(t, waiting, "nobody can tell")
		moving.Store(false)
		time.Sleep(time.Second)
		blocked(t, waiting, "the primary was asked just now")
		time.Sleep(2 * time.Second)
		if err := <-waiting; !errors.Is(err, replication.ErrBehind) {
			t.Errorf("a node that stays behind: %v", err)
		}
		moving.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := f.Settle(ctx, ahead, 2*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's own bound: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		kept := db.begin().put("s", "kept").commit()
		kept.LSN = replication.NoFork
		db.begin().beginEpoch().commit()
		f := startFeed(t, db, replication.FeedConfig{ForkOf: func(uint64) (uint64, bool) { return 5, true }})
		var down atomic.Bool
		down.Store(true)
		db.setBefore(func(_ context.Context, read string) error {
			if down.Load() && read == "Wrote" {
				return errors.New("the database is being moved")
			}
			return nil
		})
		waiting := async(func() error { return f.Settle(t.Context(), kept, 2*time.Second) })
		time.Sleep(5 * time.Second)
		blocked(t, waiting, "the database cannot be read")
		down.Store(false)
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	})
}

func TestForks(t *testing.T) {
	forks := replication.Forks{{Epoch: 3, Fork: 30}, {Epoch: 2, Fork: 50}, {Epoch: 4, Fork: replication.NoFork}}
	for epoch, want := range map[uint64]struct {
		lsn   uint64
		known bool
	}{0: {30, false}, 1: {30, true}, 2: {30, true}, 3: {replication.NoFork, true}, 4: {replication.NoFork, true}, 5: {replication.NoFork, true}} {
		if lsn, known := forks.ForkOf(epoch); lsn != want.lsn || known != want.known {
			t.Errorf("epoch %d: %d, %v, want %+v", epoch, lsn, known, want)
		}
	}
	if l := forks.Lineage(); l.Epoch != 4 {
		t.Errorf("the newest is %+v", l)
	}
}

// Readers that ask at the same time share a read of the head, and none gets one that began before it asked.
func TestHeadIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		reads := 0
		gate := make(chan struct{})
		f := startFeed(t, db, replication.FeedConfig{PrimaryHead: func(ctx context.Context) (replication.Head, error) {
			reads++
			head, err := db.Head(ctx)
			<-gate
			return head, err
		}})
		first := async(func() error { return f.Latest(t.Context(), time.Minute) })
		synctest.Wait()
		later := db.begin().put("s", "later").commit()
		var rest []<-chan error
		for range 20 {
			rest = append(rest, async(func() error {
				if err := f.Latest(t.Context(), time.Minute); err != nil {
					return err
				}
				if !f.Applied().Satisfies(later) {
					return errors.New("it does not hold what was committed before the call")
				}
				return nil
			}))
		}
		synctest.Wait()
		close(gate)
		for _, done := range append(rest, first) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if reads != 2 {
			t.Errorf("%d reads, want 2", reads)
		}
	})
}
