package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// readConnector opens connections that cannot write.
type readConnector struct{ path string }

func (c readConnector) Connect(context.Context) (driver.Conn, error) {
	return openConn(c.path, url.Values{"mode": {"rw"}, "_query_only": {"1"}, "_cache_size": {strconv.Itoa(-readerCacheKiB)}})
}

func (c readConnector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

// reads are the prepared statements. Each is a whole read transaction: it sees one state and ends with its rows.
type reads struct{ head, snapshot, keys, changes, rows, rollups *sql.Stmt }

func (r *reads) prepare(ctx context.Context, db *sql.DB) error {
	const row = "SELECT s.id, s.rev, s.body, q.rev, q.length, q.updated_at FROM stores s LEFT JOIN queues q ON q.store = s.no WHERE s.deleted = 0 AND "
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&r.head, "SELECT epoch, last_xid FROM control"},
		{&r.snapshot, row + "s.id > ? ORDER BY s.id LIMIT ?"},
		{&r.rows, row + "s.id IN (SELECT value FROM json_each(?))"},
		{&r.keys, "SELECT id, rev, hash, body FROM keys ORDER BY id"},
		// The control row stands beside every change, so that both are of one state; it is there also without changes.
		{&r.changes, `SELECT c.epoch, c.last_xid, c.pruned_xid, c.pruned_id,
			ch.xid, ch.id, ch.epoch, ch.kind, ch.rev, ch.at, ch.subject, ch.length, ch.updated_at, ch.queue_rev, ch.hash, ch.body
			FROM control c LEFT JOIN (SELECT * FROM changes WHERE (xid, id) > (?, ?) ORDER BY xid, id LIMIT ?) ch ORDER BY ch.xid, ch.id`},
		{&r.rollups, `WITH s(no) AS (SELECT no FROM stores WHERE id = ?)
			SELECT hour, samples, sum, sumsq, min, max FROM rollups WHERE store = (SELECT no FROM s) AND hour >= ?2 AND hour < ?3
			UNION ALL
			SELECT hour, samples, sum, sumsq, min, max FROM queues WHERE store = (SELECT no FROM s) AND hour >= ?2 AND hour < ?3 AND samples > 0
			ORDER BY hour`},
	} {
		st, err := db.PrepareContext(ctx, p.sql)
		if err != nil {
			return err
		}
		*p.to = st
	}
	return nil
}

// query runs a prepared statement and calls each once a row.
func (s *Store) query(ctx context.Context, doing string, st *sql.Stmt, args []any, each func(*sql.Rows) error) error {
	if s.closed.Load() {
		return replication.ErrClosed
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return s.explain(doing, err)
	}
	for rows.Next() {
		if err := each(rows); err != nil {
			return errors.Join(s.explain(doing, err), rows.Close())
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return s.explain(doing, err)
	}
	return nil
}

// Head implements replication.Source. Transactions commit one after the other, so nothing is ever visible out of turn.
func (s *Store) Head(ctx context.Context) (replication.Head, error) {
	var epoch, last uint64
	err := s.query(ctx, "read the control row", s.read.head, nil, func(r *sql.Rows) error { return r.Scan(&epoch, &last) })
	if err == nil && epoch == 0 {
		err = s.explain("read the control row", errNoControl)
	}
	return headOf(epoch, last), err
}

var errNoControl = errors.New("the row is missing; the database is damaged, restore a backup")

func headOf(epoch, last uint64) replication.Head {
	return replication.Head{Epoch: epoch, Horizon: last + 1, XMax: last + 1}
}

// Snapshot implements replication.Source.
func (s *Store) Snapshot(ctx context.Context, after shortline.StoreID, limit int) ([]replication.Row, error) {
	return s.rows(ctx, "read a snapshot", s.read.snapshot, max(limit, 0), string(after), max(limit, 0))
}

// Rows implements replication.Details.
func (s *Store) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, fmt.Errorf("read stores: %w", err)
	}
	return s.rows(ctx, "read stores", s.read.rows, len(ids), string(list))
}

func (s *Store) rows(ctx context.Context, doing string, st *sql.Stmt, atMost int, args ...any) ([]replication.Row, error) {
	out := make([]replication.Row, 0, min(atMost, 1000))
	err := s.query(ctx, doing, st, args, func(r *sql.Rows) error {
		var (
			id          string
			rev         uint64
			body        sql.RawBytes
			qrev, n, at sql.NullInt64
		)
		if err := r.Scan(&id, &rev, &body, &qrev, &n, &at); err != nil {
			return fmt.Errorf("store %s: %w", id, err)
		}
		store, err := decodeStore(shortline.StoreID(id), body)
		if err != nil {
			return err
		}
		row := replication.Row{Store: store, Rev: rev}
		if n.Valid {
			row.Queue = &shortline.Queue{Length: int(n.Int64), UpdatedAt: time.UnixMilli(at.Int64).UTC(), Rev: uint64(qrev.Int64)}
		}
		out = append(out, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func decodeStore[T string | sql.RawBytes](id shortline.StoreID, body T) (shortline.Store, error) {
	var st shortline.Store
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		return st, fmt.Errorf("store %s: its body is damaged: %w", id, err)
	}
	if st.ID != id {
		return st, fmt.Errorf("store %s: its body is that of store %q", id, st.ID)
	}
	return st, nil
}

func decodeKey(id string, rev uint64, hash, body []byte) (shortline.Key, error) {
	var k shortline.Key
	if err := json.Unmarshal(body, &k); err != nil {
		return k, fmt.Errorf("key %s: its body is damaged: %w", id, err)
	}
	if string(k.ID) != id || len(hash) != len(k.Hash) {
		return k, fmt.Errorf("key %s: its row is damaged (id %q in the body, hash of %d bytes)", id, k.ID, len(hash))
	}
	k.Rev = rev
	copy(k.Hash[:], hash)
	return k, nil
}

// Keys implements replication.Source.
func (s *Store) Keys(ctx context.Context) ([]shortline.Key, error) {
	var keys []shortline.Key
	err := s.query(ctx, "read keys", s.read.keys, nil, func(r *sql.Rows) error {
		var (
			id         string
			rev        uint64
			hash, body sql.RawBytes
		)
		if err := r.Scan(&id, &rev, &hash, &body); err != nil {
			return fmt.Errorf("key %s: %w", id, err)
		}
		k, err := decodeKey(id, rev, hash, body)
		keys = append(keys, k)
		return err
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// Changes implements replication.Source.
func (s *Store) Changes(ctx context.Context, after replication.Cursor, limit int) (replication.Page, error) {
	var page replication.Page
	limit = max(limit, 1)
	err := s.query(ctx, "read changes", s.read.changes, []any{int64(after.XID), int64(after.ID), limit + 1}, func(r *sql.Rows) error {
		row, err := scanFeedRow(r)
		if err != nil {
			return err
		}
		page.Head = headOf(row.epoch, row.last)
		if p := row.pruned; after.XID < p.XID || after.XID == p.XID && after.ID < p.ID {
			return fmt.Errorf("%w: asked for what comes after (%d, %d), kept is what comes after (%d, %d)", replication.ErrPruned, after.XID, after.ID, p.XID, p.ID)
		}
		switch {
		case !row.xid.Valid:
		case len(page.Changes) == limit:
			page.More = s.mutant != mutantHidesMore
		default:
			ch, err := row.change()
			if err != nil {
				return fmt.Errorf("change (%d, %d): %w", row.xid.Int64, row.id.Int64, err)
			}
			page.Changes = append(page.Changes, ch)
		}
		return nil
	})
	if err == nil && page.Head.Epoch == 0 {
		err = s.explain("read changes", errNoControl)
	}
	if err != nil {
		return replication.Page{}, err
	}
	return page, nil
}

// feedRow is a change beside the control row; all columns of the change are NULL where there is none.
type feedRow struct {
	epoch, last                    uint64
	pruned                         replication.Cursor
	xid, id, chEpoch, kind, rev    sql.NullInt64
	at, length, updatedAt, queueRv sql.NullInt64
	subject                        sql.NullString
	hash, body                     sql.RawBytes
}

func scanFeedRow(r *sql.Rows) (f feedRow, err error) {
	err = r.Scan(&f.epoch, &f.last, &f.pruned.XID, &f.pruned.ID, &f.xid, &f.id, &f.chEpoch, &f.kind, &f.rev, &f.at, &f.subject,
		&f.length, &f.updatedAt, &f.queueRv, &f.hash, &f.body)
	return f, err
}

func (f *feedRow) change() (shortline.Change, error) {
	ch := shortline.Change{
		XID: uint64(f.xid.Int64), ID: uint64(f.id.Int64), Epoch: uint64(f.chEpoch.Int64), Rev: uint64(f.rev.Int64),
		Kind: shortline.ChangeKind(f.kind.Int64), Subject: f.subject.String, At: time.UnixMilli(f.at.Int64).UTC(),
	}
	switch ch.Kind {
	case shortline.QueueSet:
		if !f.length.Valid || !f.updatedAt.Valid {
			return ch, fmt.Errorf("the queue of store %s is damaged", ch.Subject)
		}
		ch.Queue = &shortline.Queue{Length: int(f.length.Int64), UpdatedAt: time.UnixMilli(f.updatedAt.Int64).UTC(), Rev: ch.Rev}
	case shortline.StorePut:
		st, err := decodeStore(shortline.StoreID(ch.Subject), f.body)
		if err != nil {
			return ch, err
		}
		ch.Store = &st
	case shortline.StoreDeleted:
		if f.queueRv.Valid {
			ch.Queue = &shortline.Queue{Rev: uint64(f.queueRv.Int64)}
		}
	case shortline.KeyPut:
		k, err := decodeKey(ch.Subject, ch.Rev, f.hash, f.body)
		if err != nil {
			return ch, err
		}
		ch.Key = &k
	case shortline.EpochBegun:
	default:
		return ch, fmt.Errorf("its kind is %d, which this version does not know", f.kind.Int64)
	}
	return ch, nil
}

// Rollups implements replication.Store. A deleted store keeps its hours.
func (s *Store) Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]replication.Rollup, error) {
	var out []replication.Rollup
	err := s.query(ctx, "read rollups", s.read.rollups, []any{string(id), ceilHour(from), ceilHour(to)}, func(r *sql.Rows) error {
		var h int64
		var u replication.Rollup
		if err := r.Scan(&h, &u.Samples, &u.Sum, &u.SumSq, &u.Min, &u.Max); err != nil {
			return fmt.Errorf("store %s: %w", id, err)
		}
		u.Hour = time.UnixMilli(h * millisecondsPerHour).UTC()
		out = append(out, u)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
