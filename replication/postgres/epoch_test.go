package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

// lease is a gate that a test closes after so many checks.
type lease struct {
	epoch uint64
	left  atomic.Int64
}

func (l *lease) Check() (uint64, error) {
	if l.left.Add(-1) < 0 {
		return 0, fmt.Errorf("%w: the lease has run out", replication.ErrNotPrimary)
	}
	return l.epoch, nil
}

// A lease that ends before COMMIT leaves nothing; one that ends after it leaves the outcome unknown, whatever is stored.
func TestGate(t *testing.T) {
	p := sharedServer(t)
	for _, c := range []struct {
		name   string
		mutant mutant
		epoch  uint64
		checks int64
		want   error // nil: acknowledged
		stored bool
	}{
		{"held", mutantNone, 1, 3, nil, true},
		{"held, in any epoch", mutantNone, 0, 3, nil, true},
		{"none", mutantNone, 1, 0, replication.ErrNotPrimary, false},
		{"ends before COMMIT", mutantNone, 1, 1, replication.ErrNotPrimary, false},
		{"ends before the answer", mutantNone, 1, 2, replication.ErrOutcomeUnknown, true},
		{"is of the next epoch", mutantNone, 2, 3, replication.ErrNotPrimary, false},
		{"none, not asked before COMMIT", mutantNoGateBefore, 1, 0, replication.ErrOutcomeUnknown, true},
		{"is of the next epoch, not compared before COMMIT", mutantNoGateBefore, 2, 3, replication.ErrOutcomeUnknown, true},
		{"ends before the answer, not asked after COMMIT", mutantNoGateAfter, 1, 2, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			gate := &lease{epoch: c.epoch}
			gate.left.Store(c.checks)
			s := openStore(t, Config{Write: p.DSN(owner, newDatabase(t, p)), Gate: gate}, c.mutant)
			_, _, err := s.Commit(context.Background(), write(put("x", "X")))
			if !errors.Is(err, c.want) || errors.Is(err, replication.ErrNotPrimary) != (c.want == replication.ErrNotPrimary) {
				t.Errorf("Commit: %v, want %v", err, c.want)
			}
			rows, err := s.Rows(deadline(t), []shortline.StoreID{"x"})
			check(t, err)
			if (len(rows) > 0) != c.stored {
				t.Errorf("the store is %+v", rows)
			}
		})
	}
}

func TestBeginEpoch(t *testing.T) {
	p := sharedServer(t)
	name := newDatabase(t, p)
	dsn := p.DSN(owner, name)
	s := openStore(t, Config{Write: dsn}, mutantNone)
	_, before := commitAll(t, s, put("x", "X"))
	watch := connect(t, p, name)

	open := begin(t, s) // a commit that has read the old epoch
	check(t, open.c.load(deadline(t), write(length("x", 1))))
	type begun struct {
		token replication.Token
		err   error
	}
	done := make(chan begun, 1)
	go func() {
		token, err := BeginEpoch(context.Background(), dsn, Epoch{Number: 5, Fork: 4711})
		done <- begun{token, err}
	}()
	eventually(t, "the new epoch waits for the commit", func() bool { return waits(t, watch, name, "Lock", "advisory") != 0 })
	exec(t, open.conn, "COMMIT")
	first := <-done
	check(t, first.err)
	if first.token.Epoch != 5 || !before.Less(first.token) || first.token.XID <= before.XID || first.token.LSN == 0 {
		t.Errorf("the epoch's first token is %+v, the one before it %+v", first.token, before)
	}
	changes := page(t, s, replication.Cursor{XID: before.XID + 1}).Changes
	if len(changes) != 1 || changes[0].Kind != shortline.EpochBegun || changes[0].Epoch != 5 || changes[0].XID != first.token.XID {
		t.Errorf("the feed has %+v", changes)
	}
	again, err := BeginEpoch(deadline(t), dsn, Epoch{Number: 5})
	if err != nil || again.XID != first.token.XID {
		t.Errorf("begun again: %+v, %v", again, err)
	}
	if _, err := BeginEpoch(deadline(t), dsn, Epoch{Number: 4}); !errors.Is(err, ErrEpochPast) {
		t.Errorf("an earlier epoch: %v", err)
	}
	if _, token := commitAll(t, s, delta("x", 1)); token.Epoch != 5 {
		t.Errorf("a later commit has %+v", token)
	}
	var forks int
	check(t, watch.QueryRow(deadline(t), "SELECT count(*) FROM shortline.epochs WHERE epoch = 1 AND fork IS NULL OR epoch = 5 AND fork = '0/1267'").Scan(&forks))
	if forks != 2 {
		t.Errorf("%d of 2 forks are recorded", forks)
	}
	// What a switchover left behind does not stop it, nor does a commit that nobody confirms.
	exec(t, watch, "ALTER DATABASE "+name+" SET default_transaction_read_only = on")
	if _, err := BeginEpoch(deadline(t), dsn, Epoch{Number: 6, Fork: replication.NoFork}); err != nil {
		t.Errorf("in a database that is fenced: %v", err)
	}
}

// What the server does not take is ErrNotPrimary where nothing was written and the fault is not of the write.
func TestNotPrimary(t *testing.T) {
	p := startServer(t, planet.PostgresConfig{Name: "notprimary", NoFsync: true})
	name := newDatabase(t, p)
	s := openStore(t, Config{Write: p.DSN(owner, name), ConnectTimeout: 5 * time.Second, CommitTimeout: 5 * time.Second}, mutantNone)
	commitAll(t, s, put("x", "X"))
	refuses := func(when string) {
		t.Helper()
		_, _, err := s.Commit(context.Background(), write(length("x", 1)))
		if !errors.Is(err, replication.ErrNotPrimary) || errors.Is(err, replication.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", when, err)
		}
	}
	admin := connect(t, p, name)
	exec(t, admin, "ALTER DATABASE "+name+" SET default_transaction_read_only = on")
	exec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", owner)
	refuses("fenced")
	exec(t, admin, "ALTER DATABASE "+name+" RESET default_transaction_read_only")
	exec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", owner)
	eventually(t, "writes are taken again", func() bool {
		_, _, err := s.Commit(context.Background(), write(length("x", 2)))
		return err == nil
	})
	exec(t, admin, "BEGIN")
	exec(t, admin, "SELECT FROM shortline.queues FOR UPDATE")
	refuses("while another transaction holds the row for too long")
	exec(t, admin, "ROLLBACK")
	exec(t, admin, "ALTER TABLE shortline.stores ADD CHECK (id <> 'y')")
	if _, _, err := s.Commit(context.Background(), write(put("y", "Y"))); err == nil || errors.Is(err, replication.ErrNotPrimary) {
		t.Errorf("a write that is at fault itself: %v", err)
	}
	p.Kill()
	for i := range 3 { // a connection of the pool, then a new one
		refuses(fmt.Sprint("killed, ", i))
	}
	check(t, p.Restart(deadline(t)))
	rows, err := s.Rows(deadline(t), []shortline.StoreID{"x"})
	if err != nil || len(rows) != 1 || rows[0].Queue.Length != 2 {
		t.Errorf("in the end the store is %+v, %v", rows, err)
	}
}
