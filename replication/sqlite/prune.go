package sqlite

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/shortline/shortline/replication"
)

// Prune implements replication.Store, a few thousand rows a transaction, so that commits wait for one of these at most.
// It stops at the first change that is not older than changesBefore, even where the clock went back and older dates follow.
func (s *Store) Prune(ctx context.Context, changesBefore, now time.Time) error {
	for _, step := range []struct {
		doing string
		once  func() (more bool, err error)
	}{
		{"prune changes", func() (bool, error) { return s.pruneChanges(changesBefore) }},
		{"prune idempotency keys", func() (bool, error) { return s.pruneAnswers(now) }},
		{"give space back", s.giveBack},
	} {
		for more := true; more; {
			if err := s.acquire(ctx); err != nil {
				return err
			}
			var err error
			more, err = step.once()
			if err == nil {
				s.boundLog()
			}
			<-s.turn
			if err != nil {
				return s.explain(step.doing, err)
			}
		}
	}
	return nil
}

// pruneChanges drops one chunk of changes and notes in the same transaction where the feed begins now.
func (s *Store) pruneChanges(before time.Time) (more bool, err error) {
	w := s.w
	err = w.transact(func() error {
		var last replication.Cursor
		n, stop := 0, false
		w.add(int64(pruneChunk))
		err := w.query("SELECT xid, id, at FROM changes ORDER BY xid, id LIMIT ?", w.take(), func(row []driver.Value) error {
			var xid, id, at int64
			err := ints(row, &xid, &id, &at)
			stop = stop || at >= before.UnixMilli()
			if !stop {
				n++
				last = replication.Cursor{XID: uint64(xid), ID: uint64(id)}
			}
			return err
		})
		if err != nil || n == 0 {
			return err
		}
		more = n == pruneChunk
		w.add(int64(last.XID), int64(last.ID))
		if err := w.query("DELETE FROM changes WHERE (xid, id) <= (?, ?)", w.take(), nil); err != nil || s.mutant == mutantPrunesInSilence {
			return err
		}
		w.add(int64(last.XID), int64(last.ID))
		return w.query("UPDATE control SET pruned_xid = ?, pruned_id = ?", w.take(), nil)
	})
	return more && err == nil, err
}

// pruneAnswers drops one chunk of idempotency rows whose life is over.
func (s *Store) pruneAnswers(now time.Time) (more bool, err error) {
	w := s.w
	err = w.transact(func() error {
		n := 0
		w.add(now.UnixMilli(), int64(pruneChunk))
		err := w.query(`DELETE FROM idempotency WHERE (scope, key) IN
			(SELECT scope, key FROM idempotency WHERE expires <= ? ORDER BY expires LIMIT ?) RETURNING 1`, w.take(),
			func([]driver.Value) error { n++; return nil })
		more = n == pruneChunk
		return err
	})
	return more && err == nil, err
}

// giveBack shortens the file by one chunk where more than a quarter of it, and more than 4 MiB, is free.
func (s *Store) giveBack() (more bool, err error) {
	var count [2]int64
	for i, sql := range []string{"PRAGMA freelist_count", "PRAGMA page_count"} {
		v, err := s.w.value(sql)
		if err != nil {
			return false, err
		}
		count[i], _ = v.(int64)
	}
	if free, pages := count[0], count[1]; free <= 1024 || free <= pages/4 {
		return false, nil
	}
	return true, s.w.query("PRAGMA incremental_vacuum(1024)", nil, func([]driver.Value) error { return nil })
}
