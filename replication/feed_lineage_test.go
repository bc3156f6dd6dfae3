package replication_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/replication"
)

// forked is a feed that has taken over what a failover is going to lose. The standby had come to before.
func forked(t *testing.T, cfg replication.FeedConfig) (f *feeding, before *saved) {
	db := newDatabase()
	db.setLineage(replication.Lineage{Epoch: 1})
	db.begin().put("s", "kept").queue("s", 1).commit()
	before = db.save()
	db.begin().put("s", "lost").queue("s", 2).put("only", "lost").key("k", "lost").commit()
	if cfg.Lineage != nil {
		cfg.Lineage = db.Lineage
	}
	f = startFeed(t, db, cfg)
	f.expect("only", "lost", -1)
	return f, before
}

// known stands for the database's lineage in forked.
func known() replication.Lineage { panic("it is replaced") }

func (f *feeding) promote(s *saved) replication.Token {
	f.db.rewind(s)
	f.db.begin().beginEpoch().commit()
	return f.db.begin().put("s", "new").queue("s", 3).commit() // the same revs as what was lost
}

func (f *feeding) expectNewHistory(t *testing.T) {
	t.Helper()
	f.expect("s", "new", 3)
	f.expect("only", "", -1)
	if d := f.db.differences(f.node.inService()); len(d) > 0 {
		t.Error(d)
	}
}

func TestFeedForkBehindMemory(t *testing.T) {
	for _, first := range []string{"the lineage", "the database"} {
		t.Run(first+" is first to know", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := prometheus.NewRegistry()
				f, before := forked(t, replication.FeedConfig{Lineage: known, Registerer: registry})
				tell := func() { f.db.setLineage(replication.Lineage{Epoch: 2, Fork: before.lsn}) }
				var token replication.Token
				if first == "the lineage" {
					tell()
					time.Sleep(time.Minute) // the database is still where it was: there is nothing to read anew from
					f.expect("only", "lost", -1)
					if reason := f.Failure(); !strings.Contains(reason, "epoch 2 forked") {
						t.Errorf("Failure = %q", reason)
					}
					token = f.promote(before)
				} else {
					token = f.promote(before)
					time.Sleep(time.Second)
					f.expect("s", "lost", 2)
					if f.Applied().Satisfies(token) {
						t.Error("memory is said to be of the new epoch before it is known where that forked")
					}
					tell()
				}
				if err := f.Wait(t.Context(), token); err != nil {
					t.Fatal(err)
				}
				f.expectNewHistory(t)
				if n := gathered(t, registry, "shortline_feed_resyncs_total"); n != 1 { // the first by name is "history"
					t.Errorf("%v resyncs counted, want 1", n)
				}
				if f.Failure() != "" {
					t.Errorf("Failure = %q", f.Failure())
				}
			})
		})
	}
}

// The region whose database is promoted as it is reads nothing anew, though the end of its log, of which memory's position was a
// bound, is dropped. Where the server was stopped meanwhile nobody knows what became of it.
func TestFeedServerIsPromoted(t *testing.T) {
	for name, c := range map[string]struct {
		server    uint64
		snapshots int
	}{"the same run": {1, 1}, "mutant: it does not tell": {0, 2}} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			db.server = c.server
			db.setLineage(replication.Lineage{Epoch: 1})
			db.begin().put("s", "kept").commit()
			f := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage})
			db.setLineage(replication.Lineage{Epoch: 2, Fork: db.save().lsn - 5})
			db.promote()
			if err := f.Wait(t.Context(), db.begin().put("s", "new").commit()); err != nil {
				t.Fatal(err)
			}
			f.expect("s", "new", -1)
			if begun, _ := f.node.counts(); begun != c.snapshots {
				t.Errorf("%s: %d snapshots, want %d", name, begun, c.snapshots)
			}
		})
	}
}

// A fork that memory had not come to, or at which nothing was lost, costs nothing.
func TestFeedForkAheadOfMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.setLineage(replication.Lineage{Epoch: 1})
		db.begin().put("s", "kept").commit()
		f := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage})
		before := db.save()
		time.Sleep(time.Second)
		token := f.promote(before)
		time.Sleep(time.Second)
		f.expect("s", "kept", -1)
		db.setLineage(replication.Lineage{Epoch: 2, Fork: before.lsn})
		if err := f.Wait(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		f.expectNewHistory(t)
		if begun, _ := f.node.counts(); begun != 1 {
			t.Errorf("%d snapshots, want 1", begun)
		}
	})
}

// The control plane knows of the fork, and the database has not been told: what it goes on to commit, or replays from the old
// primary, is lost already. Neither a feed that follows nor one that starts takes it over.
func TestFeedDatabaseStaysBehindTheFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.setLineage(replication.Lineage{Epoch: 1})
		db.begin().put("s", "kept").commit()
		f := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage})
		before := db.save()
		db.setLineage(replication.Lineage{Epoch: 2, Fork: before.lsn})
		f.poked()
		db.begin().put("s", "lost").put("only", "lost").commit()
		started := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage})
		time.Sleep(time.Minute)
		f.expect("s", "kept", -1)
		if started.node.inService() != nil || !strings.Contains(started.Failure(), "epoch 2 forked") {
			t.Errorf("a node starts from what is lost; Failure = %q", started.Failure())
		}
		token := f.promote(before)
		for _, f := range []*feeding{f, started} {
			if err := f.Wait(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			f.expectNewHistory(t)
		}
		if begun, _ := f.node.counts(); begun != 1 {
			t.Errorf("%d snapshots, want 1: memory never held what was lost", begun)
		}
	})
}

// Where an epoch forked may stay unknown, to a node that cannot reach the control plane: then it reads all anew.
func TestFeedForkNeverTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, before := forked(t, replication.FeedConfig{Lineage: known, LineageWait: 3 * time.Second})
		token := f.promote(before)
		time.Sleep(2 * time.Second)
		f.expect("s", "lost", 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !f.Applied().Satisfies(token) {
			t.Errorf("Applied = %+v", f.Applied())
		}
		f.expectNewHistory(t)
	})
}

// A node that was away for two failovers cannot know of the first.
func TestFeedForkMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, before := forked(t, replication.FeedConfig{Lineage: known})
		f.db.breakReads("changes", errors.New("away"))
		f.promote(before)
		f.db.begin().beginEpoch().commit()
		f.db.setLineage(replication.Lineage{Epoch: 3, Fork: 1000})
		time.Sleep(time.Minute)
		f.db.breakReads("", nil)
		if err := f.Latest(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		f.expectNewHistory(t)
	})
}

// A database that goes back gives itself away also where nobody knows of forks: it was rewound, or is another.
func TestFeedDatabaseGoesBack(t *testing.T) {
	for name, back := range map[string]func(f *feeding, before *saved){
		"in its position": func(f *feeding, before *saved) {
			before.next += 10
			f.db.rewind(before)
		},
		"in its transactions": func(f *feeding, before *saved) {
			before.lsn += 1000
			f.db.rewind(before)
		},
		"in its epoch": func(f *feeding, before *saved) {
			before.epoch, before.lsn, before.next = 0, before.lsn+1000, before.next+1000
			f.db.rewind(before)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, before := forked(t, replication.FeedConfig{})
				back(f, before)
				f.poked()
				f.expect("only", "lost", -1) // what is in service stays until there is something better
				time.Sleep(time.Second)
				f.expect("s", "kept", 1)
				f.db.begin().put("s", "new").queue("s", 3).commit()
				f.poked()
				f.expectNewHistory(t)
			})
		})
	}
}

// The database is rewound while the snapshot is being read: half of it is of a history that is none.
func TestFeedDatabaseGoesBackDuringTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.begin().put("a", "kept").put("b", "kept").put("c", "kept").commit()
		before, reads := db.save(), 0
		db.setBefore(func(_ context.Context, read string) error {
			if read == "snapshot" {
				reads++
				switch reads {
				case 1:
					db.begin().put("a", "lost").commit()
					db.begin().put("a", "lost twice").commit()
				case 2: // it goes back, to where it has still come further than it was at the beginning
					db.rewind(before)
					db.begin().put("b", "new").commit()
				case 3:
					db.begin().put("b", "newer").commit()
				}
			}
			return nil
		})
		f := startFeed(t, db, replication.FeedConfig{Chunk: 1})
		if err := f.Latest(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if d := db.differences(f.node.inService()); len(d) > 0 {
			t.Error(d)
		}
	})
}

// A view that is not in service yet does not outlive an epoch, whether it is still being read or only has to catch up.
func TestFeedEpochDuringTheSnapshot(t *testing.T) {
	for _, during := range []string{"keys", "changes"} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			db.setLineage(replication.Lineage{Epoch: 1})
			db.begin().put("s", "here").commit()
			holding, once := db.begin(), true
			db.setBefore(func(_ context.Context, read string) error {
				if read == during && once {
					once = false
					db.setLineage(replication.Lineage{Epoch: 2, Fork: replication.NoFork})
				}
				return nil
			})
			f := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage})
			time.Sleep(time.Second)
			holding.rollback()
			if err := f.Latest(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			f.expect("s", "here", -1)
			if begun, installs := f.node.counts(); begun != 2 || installs != 1 {
				t.Errorf("during %s: %d views begun and %d installed, want 2 and 1", during, begun, installs)
			}
		})
	}
}

// lagging is a database that tells how much it has received and not replayed.
type lagging struct {
	*database
	bytes uint64
	err   error
}

func (l *lagging) Lag(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes, l.err
}

func (l *lagging) set(bytes uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes, l.err = bytes, err
}

func TestFeedLagBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &lagging{database: newDatabase()}
		db.set(5000, nil)
		registry := prometheus.NewRegistry()
		feed := replication.NewFeed(db, &node{}, replication.FeedConfig{Registerer: registry})
		bytes := func(want float64) {
			t.Helper()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := gathered(t, registry, "shortline_feed_lag_bytes"); got != want {
				t.Errorf("%v bytes behind, want %v", got, want)
			}
		}
		bytes(-1)
		ctx, stop := context.WithCancel(t.Context())
		done := async(func() error { return feed.Run(ctx) })
		bytes(5000)
		db.begin().put("s", "here").commit()
		db.set(0, nil)
		bytes(0)
		db.set(0, errors.New("no route to host"))
		bytes(-1)
		stop()
		if err := returned(t, done); err != nil {
			t.Error(err)
		}
	})
}
