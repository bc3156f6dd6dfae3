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
	const row = "SELECT s.id, s.rev, s.deleted, s.body, q.rev, q.length, q.updated_at, q.served, q.busy_ms FROM stores s LEFT JOIN queues q ON q.store = s.no WHERE "
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&r.head, "SELECT epoch, last_xid FROM control"},
		{&r.snapshot, row + "s.id > ? ORDER BY s.id LIMIT ?"},
		{&r.rows, row + "s.deleted = 0 AND s.id IN (SELECT value FROM json_each(?))"},
		{&r.keys, "SELECT id, rev, hash, body FROM keys ORDER BY id"},
		// The control row stands beside every change, so that both are of one state; it is there also without changes.
		{&r.changes, `SELECT c.epoch, c.last_xid, c.pruned_xid, c.pruned_id,
			ch.xid, ch.id, ch.epoch, ch.kind, ch.rev, ch.at, ch.subject, ch.length, ch.updated_at, ch.queue_rev, ch.hash, ch.body, ch.learned_s
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

// query runs a prepared statement and calls each once a row; the row is valid until it returns. Columns are taken as the
// driver gives them, for conversions by database/sql go through text.
func (s *Store) query(ctx context.Context, doing string, st *sql.Stmt, args []any, each func(row []any) error) error {
	if s.closed.Load() {
		return fmt.Errorf("%s: %w", doing, replication.ErrClosed)
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return s.explain(doing, err)
	}
	if err := errors.Join(scanAll(rows, each), rows.Err(), rows.Close()); err != nil {
		return s.explain(doing, err)
	}
	return nil
}

func scanAll(rows *sql.Rows, each func(row []any) error) error {
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	row, to := make([]any, len(columns)), make([]any, len(columns))
	for i := range row {
		to[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return nil
}

// Head implements replication.Source. Transactions commit one after the other, so nothing is ever visible out of turn.
func (s *Store) Head(ctx context.Context) (replication.Head, error) {
	var epoch, last int64
	err := s.query(ctx, "read the control row", s.read.head, nil, func(row []any) error { return ints(row, &epoch, &last) })
	if err == nil && epoch == 0 {
		err = s.explain("read the control row", errNoControl)
	}
	return headOf(epoch, last), err
}

var errNoControl = errors.New("the row is missing; the database is damaged, restore a backup")

func headOf(epoch, last int64) replication.Head {
	return replication.Head{Epoch: uint64(epoch), Horizon: uint64(last) + 1, XMax: uint64(last) + 1}
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
	err := s.query(ctx, doing, st, args, func(columns []any) error {
		row, err := scanRow(columns)
		out = append(out, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func scanRow(row []any) (r replication.Row, err error) {
	var rev, deleted int64
	id, ok1 := row[0].(string)
	body, ok2 := row[3].(string)
	if err := ints(row[1:3], &rev, &deleted); err != nil || !ok1 || !ok2 {
		return r, fmt.Errorf("store %v: its row is malformed", row[0])
	}
	r.Rev, r.Deleted, r.Store.ID = uint64(rev), deleted != 0, shortline.StoreID(id)
	if !r.Deleted {
		if r.Store, err = decodeStore(r.Store.ID, body); err != nil {
			return r, err
		}
	}
	if row[4] == nil { // never reported
		return r, nil
	}
	var qrev, n, at int64
	if err := ints(row[4:5], &qrev); err != nil {
		return r, fmt.Errorf("store %s: its queue: %w", id, err)
	}
	r.QueueRev = uint64(qrev)
	if row[5] == nil { // gone with the store
		return r, nil
	}
	var flow shortline.Flow
	if err := ints(row[5:], &n, &at, &flow.Served, &flow.BusyMS); err != nil {
		return r, fmt.Errorf("store %s: its queue: %w", id, err)
	}
	r.Queue = &shortline.Queue{Length: int(n), UpdatedAt: time.UnixMilli(at).UTC(), Rev: r.QueueRev, LearnedS: flow.ServiceS()}
	return r, nil
}

func decodeStore(id shortline.StoreID, body string) (shortline.Store, error) {
	var st shortline.Store
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		return st, fmt.Errorf("store %s: its body is damaged: %w", id, err)
	}
	if st.ID != id {
		return st, fmt.Errorf("store %s: its body is that of store %q", id, st.ID)
	}
	return st, nil
}

func decodeKey(id string, rev uint64, hash, body any) (shortline.Key, error) {
	var k shortline.Key
	text, ok1 := body.(string)
	sum, ok2 := hash.([]byte)
	if !ok1 || !ok2 || len(sum) != len(k.Hash) {
		return k, fmt.Errorf("key %s: its row is malformed", id)
	}
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		return k, fmt.Errorf("key %s: its body is damaged: %w", id, err)
	}
	if string(k.ID) != id {
		return k, fmt.Errorf("key %s: its body is that of key %q", id, k.ID)
	}
	k.Rev = rev
	copy(k.Hash[:], sum)
	return k, nil
}

// Keys implements replication.Source.
func (s *Store) Keys(ctx context.Context) ([]shortline.Key, error) {
	var keys []shortline.Key
	err := s.query(ctx, "read keys", s.read.keys, nil, func(row []any) error {
		var rev int64
		id, ok := row[0].(string)
		if err := ints(row[1:2], &rev); err != nil || !ok {
			return fmt.Errorf("key %v: its row is malformed", row[0])
		}
		k, err := decodeKey(id, uint64(rev), row[2], row[3])
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
	err := s.query(ctx, "read changes", s.read.changes, []any{int64(after.XID), int64(after.ID), limit + 1}, func(row []any) error {
		var epoch, last, xid, id int64
		if err := ints(row, &epoch, &last, &xid, &id); err != nil {
			return fmt.Errorf("the control row: %w", err)
		}
		page.Head = headOf(epoch, last)
		if p := (replication.Cursor{XID: uint64(xid), ID: uint64(id)}); after.XID < p.XID || after.XID == p.XID && after.ID < p.ID {
			return fmt.Errorf("%w: asked for what comes after (%d, %d), kept is what comes after (%d, %d)", replication.ErrPruned, after.XID, after.ID, p.XID, p.ID)
		}
		switch row = row[4:]; {
		case row[0] == nil: // no change, only the control row
		case len(page.Changes) == limit:
			page.More = s.mutant != mutantHidesMore
		default:
			ch, err := scanChange(row)
			if err != nil {
				return fmt.Errorf("change (%v, %v): %w", row[0], row[1], err)
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

// scanChange reads xid, id, epoch, kind, rev, at, subject, length, updated_at, queue_rev, hash, body and learned_s.
func scanChange(row []any) (ch shortline.Change, err error) {
	var xid, id, epoch, kind, rev, at int64
	if err := ints(row, &xid, &id, &epoch, &kind, &rev, &at); err != nil {
		return ch, err
	}
	subject, ok := row[6].(string)
	if !ok {
		return ch, errors.New("it has no subject")
	}
	ch = shortline.Change{
		XID: uint64(xid), ID: uint64(id), Epoch: uint64(epoch), Kind: shortline.ChangeKind(kind), Rev: uint64(rev),
		Subject: subject, At: time.UnixMilli(at).UTC(),
	}
	switch ch.Kind {
	case shortline.QueueSet:
		var n, observed int64
		if err := ints(row[7:], &n, &observed); err != nil {
			return ch, fmt.Errorf("the queue of store %s: %w", subject, err)
		}
		ch.Queue = &shortline.Queue{Length: int(n), UpdatedAt: time.UnixMilli(observed).UTC(), Rev: ch.Rev}
		ch.Queue.LearnedS, _ = row[12].(float64)
	case shortline.StorePut:
		body, _ := row[11].(string)
		st, err := decodeStore(shortline.StoreID(subject), body)
		if err != nil {
			return ch, err
		}
		ch.Store = &st
	case shortline.StoreDeleted:
		if qrev, ok := row[9].(int64); ok {
			ch.Queue = &shortline.Queue{Rev: uint64(qrev)}
		}
	case shortline.KeyPut:
		k, err := decodeKey(subject, ch.Rev, row[10], row[11])
		if err != nil {
			return ch, err
		}
		ch.Key = &k
	case shortline.EpochBegun:
	default:
		return ch, fmt.Errorf("its kind is %d, which this version does not know", kind)
	}
	return ch, nil
}

// Rollups implements replication.Store. A deleted store keeps its hours.
func (s *Store) Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]replication.Rollup, error) {
	var out []replication.Rollup
	err := s.query(ctx, "read rollups", s.read.rollups, []any{string(id), ceilHour(from), ceilHour(to)}, func(row []any) error {
		var hour, samples, lo, hi int64
		var u replication.Rollup
		if err := ints(row, &hour, &samples, &u.Sum, &u.SumSq, &lo, &hi); err != nil {
			return fmt.Errorf("store %s: %w", id, err)
		}
		u.Hour, u.Samples, u.Min, u.Max = time.UnixMilli(hour*millisecondsPerHour).UTC(), int(samples), int(lo), int(hi)
		out = append(out, u)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
