package postgres

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

func TestOutcome(t *testing.T) {
	refused := &pgconn.PgError{Severity: "FATAL", Code: "57P01"}
	for _, c := range []struct {
		at      stage
		err     error
		unknown bool
	}{
		{writing, refused, false}, {writing, io.ErrUnexpectedEOF, true}, {writing, context.DeadlineExceeded, true},
		{committing, refused, true}, {committing, io.ErrUnexpectedEOF, true},
	} {
		if got := errors.Is(outcome(c.at, c.err), replication.ErrOutcomeUnknown); got != c.unknown {
			t.Errorf("stage %d, %v: unknown %v, want %v", c.at, c.err, got, c.unknown)
		}
	}
}

// lonely starts a primary whose commits wait for a standby that does not exist, once alone is called.
type lonely struct {
	*planet.Postgres
	name  string
	admin *pgx.Conn // its own commits wait for nobody
}

func startLonely(t *testing.T) *lonely {
	t.Helper()
	p := startServer(t, planet.PostgresConfig{Name: "lonely", NoFsync: true})
	l := &lonely{Postgres: p, name: newDatabase(t, p)}
	l.admin = connect(t, p, l.name)
	exec(t, l.admin, "SET synchronous_commit = local")
	return l
}

func (l *lonely) alone(t *testing.T, names string) {
	t.Helper()
	exec(t, l.admin, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
	exec(t, l.admin, "SELECT pg_reload_conf()")
	eventually(t, "the setting is in force", func() bool {
		var is string
		check(t, l.admin.QueryRow(deadline(t), "SHOW synchronous_standby_names").Scan(&is))
		return is == names
	})
	// Backends read it by themselves; the checkpointer tells them whether anybody is to be waited for.
	eventually(t, "commits wait, or do not", func() bool {
		conn := connect(t, l.Postgres, l.name)
		defer hangUp(conn)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, err := conn.Exec(ctx, "SELECT pg_current_xact_id(); CREATE TEMP TABLE probe (); DROP TABLE probe")
		return (err != nil) == (names != "")
	})
}

// length reads a queue as others see it, -1 for none.
func (l *lonely) length(t *testing.T, id shortline.StoreID) (n int) {
	t.Helper()
	check(t, l.admin.QueryRow(deadline(t), "SELECT coalesce(max(length), -1) FROM shortline.queues WHERE store = $1", string(id)).Scan(&n))
	return n
}

func (l *lonely) commit(s *Store, items ...replication.Item) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Commit(context.Background(), write(items...))
		done <- err
	}()
	return done
}

func (l *lonely) waiting(t *testing.T, kind, event string) (pid int) {
	t.Helper()
	eventually(t, "the commit waits for "+event, func() bool { pid = waits(t, l.admin, l.name, kind, event); return pid != 0 })
	return pid
}

// What becomes of a commit that waits for a standby is not known when the wait ends in any other way. What ends before
// COMMIT has written nothing, and is said to have.
func TestOutcomeUnknown(t *testing.T) {
	l := startLonely(t)
	dsn := l.DSN(owner, l.name)
	s := openStore(t, Config{Write: dsn}, mutantNone)
	trusting := openStore(t, Config{Write: dsn}, mutantTrustsWarnings)
	commitAll(t, s, put("x", "X"), length("x", 1))
	commitAll(t, trusting, put("y", "Y"), length("y", 1))

	// Terminated while it waits for a row, which is before COMMIT.
	exec(t, l.admin, "BEGIN")
	exec(t, l.admin, "SELECT FROM shortline.queues WHERE store = 'x' FOR UPDATE")
	done := l.commit(s, length("x", 2))
	// "transactionid" or "tuple": whichever it is, it is a lock.
	exec(t, connect(t, l.Postgres, l.name), "SELECT pg_terminate_backend($1)", l.waiting(t, "Lock", "transactionid"))
	if err := <-done; err == nil || errors.Is(err, replication.ErrOutcomeUnknown) {
		t.Errorf("terminated before COMMIT: %v", err)
	}
	exec(t, l.admin, "ROLLBACK")
	if n := l.length(t, "x"); n != 1 {
		t.Errorf("after a commit that was terminated before COMMIT the length is %d", n)
	}

	l.alone(t, "nobody")
	for _, c := range []struct {
		what, sql string
		store     *Store
		id        shortline.StoreID
		length    int
		unknown   bool
	}{
		{"terminated in COMMIT", "SELECT pg_terminate_backend($1)", s, "x", 3, true},
		{"cancelled in COMMIT", "SELECT pg_cancel_backend($1)", s, "x", 4, true},
		{"cancelled in COMMIT, the warning not looked at", "SELECT pg_cancel_backend($1)", trusting, "y", 5, false},
	} {
		done := l.commit(c.store, length(c.id, c.length))
		pid := l.waiting(t, "IPC", "SyncRep")
		if n := l.length(t, c.id); n == c.length {
			t.Errorf("%s: the change is visible before a standby has it", c.what)
		}
		exec(t, l.admin, c.sql, pid)
		if err := <-done; errors.Is(err, replication.ErrOutcomeUnknown) != c.unknown || !c.unknown && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		eventually(t, c.what+": it is committed all the same", func() bool { return l.length(t, c.id) == c.length })
	}
	l.alone(t, "")
	commitAll(t, s, length("x", 9))
}

// The session is terminated between the two round trips: nothing is written.
func TestTerminatedBetween(t *testing.T) {
	p := sharedServer(t)
	name := newDatabase(t, p)
	admin := connect(t, p, name)
	armed := false
	s := openStore(t, Config{Write: p.DSN(owner, name), Now: func() time.Time {
		if armed {
			exec(t, admin, `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
				WHERE datname = $1 AND usename = $2 AND state = 'idle in transaction'`, name, owner)
		}
		return time.Now()
	}}, mutantNone)
	commitAll(t, s, put("x", "X"), length("x", 1))
	armed = true
	if _, _, err := s.Commit(context.Background(), write(length("x", 2))); err == nil {
		t.Error("it is said to be committed")
	} else {
		t.Log(err)
	}
	armed = false
	if res, _ := commitAll(t, s, delta("x", 10)); res.Items[0].Queue.Queue.Length != 11 {
		t.Errorf("the queue is %+v, want nothing written by the commit that was cut off", res.Items[0].Queue)
	}
}

// A commit whose time is up is left to wait for its standby: to cancel it would show what no standby has.
func TestDeadlineDoesNotCancel(t *testing.T) {
	l := startLonely(t)
	for _, c := range []struct {
		mutant  mutant
		id      shortline.StoreID
		visible bool
	}{{mutantNone, "x", false}, {mutantCancels, "y", true}} {
		s := openStore(t, Config{Write: l.DSN(owner, l.name), CommitTimeout: 2 * time.Second}, c.mutant)
		commitAll(t, s, put(c.id, "A"), length(c.id, 1))
		l.alone(t, "nobody")
		done := l.commit(s, length(c.id, 2))
		pid := l.waiting(t, "IPC", "SyncRep")
		if err := <-done; !errors.Is(err, replication.ErrOutcomeUnknown) {
			t.Errorf("mutant %d: Commit past its time: %v", c.mutant, err)
		}
		if c.visible {
			eventually(t, "the cancelled commit is visible", func() bool { return l.length(t, c.id) == 2 })
		} else if n := l.length(t, c.id); n != 1 || waits(t, l.admin, l.name, "IPC", "SyncRep") != pid {
			t.Errorf("the length is %d, or the commit does not wait any more", n)
		}
		l.alone(t, "")
		eventually(t, "it is committed when nobody need be waited for", func() bool { return l.length(t, c.id) == 2 })
	}
}
