package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shortline/shortline/replication"
)

// attempts bounds how often a commit begins anew that another one was in the way of; nothing was written by then.
const attempts = 8

// Commit implements replication.Committer in two round trips: one begins, locks and reads the rows that the writes speak
// of, one writes what came of them and commits. A context that ends before COMMIT is sent leaves nothing; from there on it
// is not looked at.
//
// The token is the transaction's number. Whoever has seen this transaction has seen all that it saw, for that was
// complete before it. Where a result shows what others have written, it is that of the newest change instead.
func (s *Store) Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error) {
	const doing = "commit"
	for i := range writes {
		for j := range writes[i].Items {
			if !writes[i].Items[j].OneField() {
				return nil, replication.Token{}, fmt.Errorf("%s: item %d of write %d has not exactly one of queue, put, delete and key", doing, j, i)
			}
		}
	}
	// Not under the caller's context: where that ends while COMMIT is under way, the outcome would be unknown for no reason.
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.CommitTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		if err := s.ready(ctx, primary, doing); err != nil {
			return nil, replication.Token{}, err
		}
		if _, err := s.cfg.Gate.Check(); err != nil && s.mutant != mutantNoGateBefore {
			return nil, replication.Token{}, fmt.Errorf("%s: %w", doing, err)
		}
		results, token, err := s.once(ctx, own, writes)
		if err == nil {
			return results, token, nil
		}
		if attempt == attempts || !inTheWay(err) {
			err = s.explain(doing, err)
			if unavailable(err) {
				err = fmt.Errorf("%w: %w", replication.ErrNotPrimary, err)
			}
			return nil, replication.Token{}, err
		}
		pause := rand.N(time.Duration(attempt) * 5 * time.Millisecond)
		s.cfg.Log.Debug("commit begins anew", "attempt", attempt, "pause", pause, "err", err)
		time.Sleep(pause)
	}
}

// inTheWay tells whether another transaction kept this one from being committed, which cannot happen a second time with
// the same one: it made a row first that this one wanted to make.
func inTheWay(err error) bool {
	if errors.Is(err, replication.ErrOutcomeUnknown) {
		return false
	}
	state := sqlState(err)
	return state == stateUnique || state == stateSerialization || state == stateDeadlock
}

// once tries to commit. caller is looked at until COMMIT is sent; ctx bounds everything.
func (s *Store) once(caller, ctx context.Context, writes []replication.Write) (_ []replication.Result, _ replication.Token, err error) {
	conn, err := s.writes.Acquire(ctx)
	if err != nil {
		return nil, replication.Token{}, err
	}
	defer conn.Release() // closes a connection that is not idle
	c := commit{conn: conn.Conn(), mutant: s.mutant, results: make([]replication.Result, len(writes))}
	defer func() {
		if err != nil {
			c.rollBack(ctx)
		}
	}()
	if err := c.load(ctx, writes); err != nil {
		return nil, replication.Token{}, err
	}
	c.b.Now = s.cfg.Now().UTC().Truncate(time.Millisecond) // after all locks, so that times of one store follow its revs
	for i := range writes {
		if c.results[i], err = c.b.Apply(&writes[i]); err != nil {
			return nil, replication.Token{}, fmt.Errorf("write %d: %w", i, err)
		}
	}
	if err := caller.Err(); err != nil {
		return nil, replication.Token{}, err
	}
	if err := s.gate(c.epoch); err != nil && s.mutant != mutantNoGateBefore {
		return nil, replication.Token{}, err
	}
	token, err := c.store(ctx)
	if err != nil {
		return nil, replication.Token{}, err
	}
	if late := s.gate(c.epoch); late != nil && s.mutant != mutantNoGateAfter {
		return nil, replication.Token{}, fmt.Errorf("%w: it was committed too late to be acknowledged: %v", replication.ErrOutcomeUnknown, late)
	}
	return c.results, token, nil
}

// gate tells whether a transaction that read the epoch from the control row may be acknowledged now. The error wraps
// replication.ErrNotPrimary.
func (s *Store) gate(epoch uint64) error {
	allowed, err := s.cfg.Gate.Check()
	if err == nil && allowed != 0 && allowed != epoch {
		err = fmt.Errorf("%w: the database is in epoch %d, and writes may be acknowledged in epoch %d", replication.ErrNotPrimary, epoch, allowed)
	}
	return err
}

// commit is the I/O around a batch: one transaction.
type commit struct {
	conn    *pgx.Conn
	mutant  mutant
	b       replication.Plan
	results []replication.Result
	epoch   uint64
}

// rollBack gives the locks free. A connection on which that does not work is closed, which gives them free too.
func (c *commit) rollBack(ctx context.Context) {
	if c.conn.IsClosed() || c.conn.PgConn().TxStatus() == 'I' {
		return
	}
	if _, err := c.conn.Exec(ctx, "ROLLBACK"); err != nil {
		hangUp(c.conn)
	}
}

// stage is how far the second round trip is known to have come.
type stage uint8

const (
	writing stage = iota
	committing
	committed
)

// store writes what the batch has changed and commits, in one round trip: the server does not go on to COMMIT where a
// statement before it failed, and says so.
func (c *commit) store(ctx context.Context) (replication.Token, error) {
	var q pgx.Batch
	if err := c.queueWrites(&q); err != nil {
		return replication.Token{}, err
	}
	at := writing
	token := replication.Token{Epoch: c.epoch}
	position := sqlPosition
	if len(c.b.Changes) == 0 || c.showsOthers() && c.mutant != mutantOwnToken {
		position = sqlNewest
	}
	q.Queue(position).QueryRow(func(row pgx.Row) error {
		if err := row.Scan(&token.XID); err != nil {
			return err
		}
		at = committing
		return nil
	})
	q.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return fmt.Errorf("COMMIT was answered with %s", tag)
		}
		at = committed
		return nil
	})
	// Read after the commit, so that the record of the commit lies before it.
	q.Queue(sqlInsertLSN).QueryRow(func(row pgx.Row) error { return row.Scan(&token.LSN) })

	warnings := c.conn.PgConn().CustomData()
	delete(warnings, warningKey)
	err := c.conn.SendBatch(ctx, &q).Close()
	if err != nil && at == committed {
		token.LSN, err = math.MaxInt64, nil // the answer has come, only the position has not; this is a bound, too
	}
	if err != nil {
		return replication.Token{}, outcome(at, err)
	}
	if n, ok := warnings[warningKey].(*pgconn.Notice); ok && c.mutant != mutantTrustsWarnings {
		return replication.Token{}, fmt.Errorf("%w: %s (%s)", replication.ErrOutcomeUnknown, n.Message, n.Code)
	}
	return token, nil
}

// showsOthers tells whether a result shows something that this transaction has not written. It may be of a transaction with a
// greater number, for which this one waited after it had got its own.
func (c *commit) showsOthers() bool {
	for i := range c.results {
		for _, it := range c.results[i].Items {
			if it.Status == replication.StatusUnchanged || it.Status == replication.StatusNotFound || it.Queue != nil && !it.Queue.Applied {
				return true
			}
		}
		if c.results[i].Replayed || c.results[i].Err != nil {
			return true
		}
	}
	return false
}

// outcome says what an error of the second round trip means. A server that answers a statement before COMMIT with an error
// has not come to the COMMIT. Where it did not answer, or COMMIT itself failed, nobody knows.
func outcome(at stage, err error) error {
	if at == writing && sqlState(err) != "" {
		return err
	}
	return fmt.Errorf("%w: %w", replication.ErrOutcomeUnknown, err)
}
