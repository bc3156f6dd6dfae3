package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// troubled is a database whose writers, failures and prunings happen in the middle of the feed's reads, all drawn from
// one seed, and which looks after each step whether the feed keeps its promises.
type troubled struct {
	*database
	node *node
	feed *replication.Feed

	turn   sync.Mutex // guards the rest
	rng    *rand.Rand
	quiet  bool // the writers have stopped
	open   []*transaction
	last   *replication.Applied
	faults []string

	forks   bool
	standby *saved   // one that has come no further than this, and may be promoted
	later   []func() // what is yet to come of a failover
}

// interfere is the database's hook: it runs at the start of each read.
func (tr *troubled) interfere(context.Context, string) error {
	delay, err := tr.trouble()
	time.Sleep(delay)
	return err
}

func (tr *troubled) trouble() (delay time.Duration, err error) {
	tr.turn.Lock()
	defer tr.turn.Unlock()
	tr.check()
	if tr.quiet {
		return 0, nil
	}
	for range tr.rng.IntN(4) {
		tr.step()
	}
	if tr.rng.IntN(3) == 0 {
		delay = time.Duration(tr.rng.IntN(50)) * time.Millisecond
	}
	if tr.rng.IntN(25) == 0 {
		err = errors.New("the database is out to lunch")
	}
	return delay, err
}

// step does one thing that a writer may do.
func (tr *troubled) step() {
	id := shortline.StoreID(fmt.Sprintf("s%d", tr.rng.IntN(6)))
	switch {
	case tr.forks && tr.rng.IntN(12) == 0:
		tr.failOver()
	case len(tr.open) < 4 && tr.rng.IntN(2) == 0:
		tr.open = append(tr.open, tr.begin())
	case tr.rng.IntN(60) == 0:
		tr.prune()
	case len(tr.open) > 0:
		i := tr.rng.IntN(len(tr.open))
		tx := tr.open[i]
		value := tr.rng.IntN(1000)
		switch tr.rng.IntN(9) {
		case 0, 1:
			tx.put(id, fmt.Sprintf("%s as of %d", id, value))
		case 2, 3, 4:
			tx.queue(id, value)
		case 5:
			tx.remove(id)
		case 6:
			tx.key(shortline.KeyID("k"+id), fmt.Sprint(value))
		default:
			tr.open = append(tr.open[:i], tr.open[i+1:]...)
			if tr.rng.IntN(5) == 0 {
				tx.rollback()
			} else {
				tx.commit()
			}
		}
	}
}

// failOver takes the next step of a failover: a standby stops following, and some time later it is promoted, in which the
// control plane and the database may each be the first to know.
func (tr *troubled) failOver() {
	if len(tr.later) > 0 {
		tr.later[0]()
		tr.later = tr.later[1:]
		return
	}
	if tr.standby == nil {
		tr.standby = tr.save()
		return
	}
	s := tr.standby
	tr.standby = nil
	if tr.rng.IntN(3) == 0 { // this very server is promoted, and drops the end of its log, which was no whole record
		l := replication.Lineage{Epoch: tr.epochNow() + 1, Fork: tr.save().lsn - 5}
		tr.later = []func(){func() { tr.open = nil; tr.promote() }, func() { tr.setLineage(l) }}
		return
	}
	tell := func() { tr.setLineage(replication.Lineage{Epoch: s.epoch + 1, Fork: s.lsn}) }
	promote := func() {
		tr.rewind(s)
		tr.open = nil
		tr.begin().beginEpoch().commit()
	}
	tr.later = []func(){tell, promote}
	if tr.rng.IntN(2) == 0 {
		tr.later = []func(){promote, tell}
	}
}

// Lineage is what the feed asks for after each read: much may happen between the two.
func (tr *troubled) Lineage() replication.Lineage {
	tr.turn.Lock()
	defer tr.turn.Unlock()
	if len(tr.later) > 0 && !tr.quiet && tr.rng.IntN(10) == 0 {
		tr.failOver()
	}
	return tr.database.Lineage()
}

// check holds what readers see against what the applied position says.
func (tr *troubled) check() {
	applied := tr.feed.Applied() // before memory: memory may be newer
	if applied == nil {
		return
	}
	if last := tr.last; last != nil && (applied.Token.Less(last.Token) || applied.At.Before(last.At)) {
		tr.faultf("the applied position goes back from %+v to %+v", *last, *applied)
	}
	tr.last = applied
	if applied.Text != applied.Shows.String() {
		tr.faultf("the text of %+v is %q", applied.Shows, applied.Text)
	}
	memory := tr.node.inService()
	if memory == nil {
		tr.faultf("applied is %+v, and nothing is in service", applied.Token)
		return
	}
	if tr.epochNow() != applied.Token.Epoch {
		return // memory is of a former history, and says so
	}
	for _, id := range tr.foreign(memory) {
		tr.faultf("memory is said to be of epoch %d, and holds of %s what was lost with another", applied.Token.Epoch, id)
	}
	for _, c := range tr.missing(memory, func(c shortline.Change) bool { return c.XID <= applied.Token.XID }) {
		tr.faultf("memory lacks %+v, but its position is %+v", c, applied.Token)
	}
	for _, c := range tr.missing(memory, func(c shortline.Change) bool { return c.At.Before(applied.At) }) {
		tr.faultf("memory of %v lacks %+v, committed at %v", applied.At, c, c.At)
	}
}

func (tr *troubled) faultf(format string, args ...any) {
	if len(tr.faults) < 5 {
		tr.faults = append(tr.faults, fmt.Sprintf(format, args...))
	}
}

// settle stops the writers and waits until the feed holds everything. It returns what is wrong in the end or was before.
func (tr *troubled) settle(t *testing.T) []string {
	tr.turn.Lock()
	for len(tr.later) > 0 {
		tr.failOver()
	}
	tr.quiet = true
	for _, tx := range tr.open {
		tx.commit()
	}
	tr.turn.Unlock()
	err := tr.feed.Latest(t.Context(), time.Minute)
	synctest.Wait()
	tr.turn.Lock()
	defer tr.turn.Unlock()
	if err != nil {
		tr.faultf("Latest: %v", err)
	}
	tr.check()
	for _, d := range tr.differences(tr.node.inService()) {
		tr.faultf("at the end %s", d)
	}
	return tr.faults
}

// follow runs a feed through a random history and returns what went wrong.
func follow(t *testing.T, seed uint64, careless func(*database, *node)) (faults []string) {
	return followTroubled(t, seed, func(tr *troubled) func() replication.Lineage {
		if careless != nil {
			careless(tr.database, tr.node)
		}
		return nil
	})
}

func followTroubled(t *testing.T, seed uint64, prepare func(*troubled) (lineage func() replication.Lineage)) (faults []string) {
	synctest.Test(t, func(t *testing.T) {
		tr := &troubled{database: newDatabase(), node: &node{}, rng: rand.New(rand.NewPCG(seed, 7))}
		if seed%2 == 0 {
			tr.splits = []shortline.StoreID{"s1", "s3"}
		}
		tr.server = seed % 2 // half of them tell which run of the server it is
		lineage := prepare(tr)
		for range 200 {
			tr.step() // a history before the snapshot
		}
		tr.setBefore(tr.interfere)
		life := time.Duration(tr.rng.IntN(8000)) * time.Millisecond
		tr.feed = replication.NewFeed(tr.database, tr.node, replication.FeedConfig{Chunk: 1 + tr.rng.IntN(4), Lineage: lineage})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tr.feed.Run(ctx) }()
		time.Sleep(life)
		faults = tr.settle(t)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return faults
}

// TestFeedConverges: whatever writers, failures and prunings come between the reads, memory holds at every moment what its
// position says, and in the end what the database holds.
func TestFeedConverges(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		for _, fault := range follow(t, seed, nil) {
			t.Errorf("seed %d: %s", seed, fault)
		}
		if t.Failed() {
			return
		}
	}
}

// TestFeedConvergesCatches switches one safeguard off at a time: the check above must notice.
func TestFeedConvergesCatches(t *testing.T) {
	for name, mutate := range map[string]func(*database, *node){
		"a view that ignores revs":        func(_ *database, n *node) { n.careless = true },
		"a feed that ignores the horizon": func(db *database, _ *node) { db.careless = true },
		"snapshots without tombstones":    func(db *database, _ *node) { db.noTombstones = true },
		"snapshots without queue revs":    func(db *database, _ *node) { db.noQueueRev = true },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(100) {
				if faults := follow(t, seed, mutate); len(faults) > 0 {
					t.Logf("seed %d: %s", seed, faults[0])
					return
				}
			}
			t.Error("no seed shows the difference")
		})
	}
}

// TestFeedConvergesAcrossForks does the same with failovers that lose transactions and give their numbers out again.
func TestFeedConvergesAcrossForks(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		faults := followTroubled(t, seed, func(tr *troubled) func() replication.Lineage {
			tr.forks = true
			return tr.Lineage
		})
		for _, fault := range faults {
			t.Errorf("seed %d: %s", seed, fault)
		}
		if t.Failed() {
			return
		}
	}
}

// TestFeedConvergesAcrossForksCatches takes from the feed what it has to know of forks.
func TestFeedConvergesAcrossForksCatches(t *testing.T) {
	for name, mutate := range map[string]func(*troubled) func() replication.Lineage{
		"no lineage": func(*troubled) func() replication.Lineage { return nil },
		"epochs without the place of the fork": func(tr *troubled) func() replication.Lineage {
			return func() replication.Lineage {
				return replication.Lineage{Epoch: tr.Lineage().Epoch, Fork: replication.NoFork}
			}
		},
		"the number of the database's own epoch": func(tr *troubled) func() replication.Lineage {
			return func() replication.Lineage {
				return replication.Lineage{Epoch: tr.epochNow(), Fork: replication.NoFork}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(100) {
				faults := followTroubled(t, seed, func(tr *troubled) func() replication.Lineage {
					tr.forks = true
					return mutate(tr)
				})
				if len(faults) > 0 {
					t.Logf("seed %d: %s", seed, faults[0])
					return
				}
			}
			t.Error("no seed shows the difference")
		})
	}
}
