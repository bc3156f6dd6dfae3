package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline/replication"
)

// pruneChunk is how many rows one transaction of Prune drops, so that it is short: the feed waits for it.
const pruneChunk = 5000

const (
	// What is not below the horizon could still be followed by a change with a smaller number.
	sqlOldest = `SELECT xid, id, committed_at < $1 FROM changes
		WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT $2`
	sqlDropChanges = "DELETE FROM changes WHERE (xid, id) <= ($1, $2)"
	sqlNotePruned  = "UPDATE control SET pruned_xid = $1, pruned_id = $2 WHERE (pruned_xid, pruned_id) < ($1, $2)"
	// Whoever holds a row's lock drops it, or has a use for it.
	sqlDropExpired = `DELETE FROM idempotency WHERE (scope, key) IN
		(SELECT scope, key FROM idempotency WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)`
)

// Prune implements replication.Store, some thousand rows a transaction. It stops at the first change that is not older than
// changesBefore, even where dates after it are older. Several nodes may prune at once; they take turns.
// On a standby it is ErrNotPrimary: the primary's nodes do it.
func (s *Store) Prune(ctx context.Context, changesBefore, now time.Time) error {
	for _, step := range []struct {
		doing string
		once  func(ctx context.Context, tx pgx.Tx) (more bool, err error)
	}{
		{"prune changes", func(ctx context.Context, tx pgx.Tx) (bool, error) { return s.pruneChanges(ctx, tx, changesBefore) }},
		{"prune idempotency keys", func(ctx context.Context, tx pgx.Tx) (bool, error) {
			tag, err := tx.Exec(ctx, sqlDropExpired, now, pruneChunk)
			return tag.RowsAffected() == pruneChunk, err
		}},
	} {
		for more := true; more; {
			if err := s.ready(ctx, primary, step.doing); err != nil {
				return err
			}
			var err error
			if more, err = s.pruneOnce(ctx, step.once); err != nil {
				if unavailable(err) {
					err = fmt.Errorf("%w: %w", replication.ErrNotPrimary, err)
				}
				return s.explain(step.doing, err)
			}
		}
	}
	return nil
}

func (s *Store) pruneOnce(ctx context.Context, once func(context.Context, pgx.Tx) (bool, error)) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	err = pgx.BeginTxFunc(ctx, s.writes, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockPrune); err != nil {
			return err
		}
		more, err = once(ctx, tx)
		return err
	})
	return more && err == nil, err
}

// pruneChanges drops one chunk of changes and notes in the same transaction where the feed begins now, so that every
// snapshot has either the changes or the note.
func (s *Store) pruneChanges(ctx context.Context, tx pgx.Tx, before time.Time) (more bool, err error) {
	rows, err := tx.Query(ctx, sqlOldest, before, pruneChunk)
	if err != nil {
		return false, err
	}
	var last replication.Cursor
	n, young := 0, false
	for rows.Next() && !young {
		var at replication.Cursor
		var old bool
		if err := rows.Scan(&at.XID, &at.ID, &old); err != nil {
			rows.Close()
			return false, err
		}
		if young = !old; !young {
			last = at
			n++
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil || n == 0 {
		return false, err
	}
	if _, err := tx.Exec(ctx, sqlDropChanges, last.XID, int64(last.ID)); err != nil || s.mutant == mutantPrunesInSilence {
		return n == pruneChunk, err
	}
	_, err = tx.Exec(ctx, sqlNotePruned, last.XID, int64(last.ID))
	return n == pruneChunk, err
}
