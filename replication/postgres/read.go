package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Each read is one statement, and so sees one state of the database, however many tables it reads.
const (
	// head is read with what the snapshot of the statement says. The LSN is an upper bound of what that shows, for it is read
	// later: on a primary that of the log as it is written; on a standby that of what it has received, because the position
	// of the replay is moved on a moment after a commit becomes visible.
	sqlHead = `SELECT epoch, pruned_xid, pruned_id, pg_snapshot_xmin(s) AS xmin, pg_snapshot_xmax(s) AS xmax,
		coalesce((CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
		ELSE pg_current_wal_insert_lsn() END - '0/0')::int8, 0) AS lsn,
		(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS server
		FROM control, pg_current_snapshot() AS s WHERE one`

	// The head stands beside every change; it is there also without changes. Between the cursor and xmin nothing will ever
	// appear that is not there now.
	sqlChanges1 = `WITH h AS MATERIALIZED (` + sqlHead + `)
		SELECT h.*, ch.* FROM h LEFT JOIN (SELECT xid, id, epoch, kind, rev, committed_at, subject, length, observed_at, queue_rev, hash, body, learned_s
		FROM changes WHERE (xid, id) > ($1, $2) AND xid < `
	sqlHorizon  = "pg_snapshot_xmin(pg_current_snapshot())"
	sqlChanges2 = " ORDER BY xid, id LIMIT $3) ch ON true ORDER BY ch.xid, ch.id"

	sqlRow = "SELECT s.id, s.rev, s.deleted, s.body, q.rev, q.length, q.observed_at, q.served, q.busy_ms FROM stores s JOIN queues q ON q.store = s.id WHERE "
	// Both tables are bounded, or a merge join reads all queues before the chunk again.
	sqlSnapshot = sqlRow + "s.id > $1 AND q.store > $1 ORDER BY s.id LIMIT $2"
	sqlRows     = sqlRow + "NOT s.deleted AND s.id = ANY($1)"

	sqlKeys = "SELECT id, rev, hash, body FROM keys ORDER BY id"

	sqlReadRollups = `SELECT hour, samples, sum, sumsq, min, max FROM rollups WHERE store = $1 AND hour >= $2 AND hour < $3
		UNION ALL
		SELECT hour, samples, sum, sumsq, min, max FROM queues WHERE store = $1 AND hour >= $2 AND hour < $3 AND samples > 0
		ORDER BY hour`
)

var errNoControl = errors.New("the control row is missing; the database is damaged, restore a backup")

// read runs a query on the replica and hands its rows to scan, anew where the standby cancelled it because of what it had
// to replay; scan then starts from nothing.
func (s *Store) read(ctx context.Context, doing, sql string, args []any, scan func(rows pgx.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		if err := s.ready(ctx, replica, doing); err != nil {
			return err
		}
		rows, err := s.reads.Query(ctx, sql, args...)
		if err == nil {
			err = scan(rows)
			rows.Close()
			if failed := rows.Err(); failed != nil {
				err = failed
			}
		}
		if err == nil {
			return nil
		}
		if attempt == attempts || sqlState(err) != stateSerialization {
			return s.explain(doing, err)
		}
	}
}

// Head implements replication.Source. XMax is greater than the number of every transaction that has ended.
func (s *Store) Head(ctx context.Context) (replication.Head, error) {
	var head replication.Head
	err := s.read(ctx, "read the head", sqlHead, nil, func(rows pgx.Rows) error {
		if !rows.Next() {
			return errors.Join(rows.Err(), errNoControl)
		}
		var pruned replication.Cursor
		return rows.Scan(&head.Epoch, &pruned.XID, &pruned.ID, &head.Horizon, &head.XMax, &head.LSN, &head.Server)
	})
	return head, err
}

// Snapshot implements replication.Source.
func (s *Store) Snapshot(ctx context.Context, after shortline.StoreID, limit int) ([]replication.Row, error) {
	sql := sqlSnapshot
	if s.mutant == mutantHidesTombstones {
		sql = strings.Replace(sql, "ORDER BY", "AND NOT s.deleted ORDER BY", 1)
	}
	return s.rows(ctx, "read a snapshot", sql, max(limit, 0), string(after), max(limit, 0))
}

// Splits implements replication.Splitter from what ANALYZE has noted; where it has not run there are none.
func (s *Store) Splits(ctx context.Context, n int) (splits []shortline.StoreID, err error) {
	const sql = `SELECT unnest(histogram_bounds::text::text[]) FROM pg_stats WHERE schemaname = '` + schema + `' AND tablename = 'stores' AND attname = 'id'`
	var bounds []shortline.StoreID
	err = s.read(ctx, "look for parts of a snapshot", sql, nil, func(rows pgx.Rows) error {
		bounds = nil
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			bounds = append(bounds, shortline.StoreID(id))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := 1; i < n && len(bounds) > n; i++ {
		splits = append(splits, bounds[i*(len(bounds)-1)/n])
	}
	return splits, nil
}

// Rows implements replication.Details.
func (s *Store) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	text := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, err := shortline.ParseStoreID(string(id)); err == nil { // there is no other, and the server refuses some bytes
			text = append(text, string(id))
		}
	}
	if len(text) == 0 {
		return nil, s.usable(ctx, "read stores")
	}
	return s.rows(ctx, "read stores", sqlRows, len(text), text)
}

func (s *Store) rows(ctx context.Context, doing, sql string, atMost int, args ...any) ([]replication.Row, error) {
	var out []replication.Row
	err := s.read(ctx, doing, sql, args, func(rows pgx.Rows) error {
		out = make([]replication.Row, 0, min(atMost, 1000))
		for rows.Next() {
			row, err := scanRow(rows)
			if err != nil {
				return err
			}
			out = append(out, row)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func scanRow(rows pgx.Rows) (r replication.Row, err error) {
	var id, body string
	var length *int32
	var at *time.Time
	var flow shortline.Flow
	if err := rows.Scan(&id, &r.Rev, &r.Deleted, &body, &r.QueueRev, &length, &at, &flow.Served, &flow.BusyMS); err != nil {
		return r, fmt.Errorf("store %q: %w", id, err)
	}
	r.Store.ID = shortline.StoreID(id)
	if !r.Deleted {
		if r.Store, err = decodeStore(r.Store.ID, body); err != nil {
			return r, err
		}
	}
	if length != nil && at != nil { // else never reported, or gone with the store
		r.Queue = &shortline.Queue{Length: int(*length), UpdatedAt: at.UTC(), Rev: r.QueueRev, LearnedS: flow.ServiceS()}
	}
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

func decodeKey(id string, rev uint64, hash []byte, body string) (shortline.Key, error) {
	var k shortline.Key
	if len(hash) != len(k.Hash) {
		return k, fmt.Errorf("key %s: its hash has %d bytes", id, len(hash))
	}
	if err := json.Unmarshal([]byte(body), &k); err != nil {
		return k, fmt.Errorf("key %s: its body is damaged: %w", id, err)
	}
	if string(k.ID) != id {
		return k, fmt.Errorf("key %s: its body is that of key %q", id, k.ID)
	}
	k.Rev = rev
	copy(k.Hash[:], hash)
	return k, nil
}

// Keys implements replication.Source.
func (s *Store) Keys(ctx context.Context) ([]shortline.Key, error) {
	var keys []shortline.Key
	err := s.read(ctx, "read keys", sqlKeys, nil, func(rows pgx.Rows) error {
		keys = nil
		for rows.Next() {
			var id, body string
			var rev uint64
			var hash []byte
			if err := rows.Scan(&id, &rev, &hash, &body); err != nil {
				return err
			}
			k, err := decodeKey(id, rev, hash, body)
			if err != nil {
				return err
			}
			keys = append(keys, k)
		}
		return nil
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
	horizon := sqlHorizon
	if s.mutant == mutantNoHorizon {
		horizon = "pg_snapshot_xmax(pg_current_snapshot())"
	}
	err := s.read(ctx, "read changes", sqlChanges1+horizon+sqlChanges2, []any{after.XID, int64(after.ID), limit + 1}, func(rows pgx.Rows) error {
		page = replication.Page{}
		row := newChangeRow()
		for rows.Next() {
			ch, err := row.scan(rows)
			page.Head = row.head
			pruned := row.pruned
			switch {
			case err != nil:
				return err
			case after.XID < pruned.XID || after.XID == pruned.XID && after.ID < pruned.ID:
				return fmt.Errorf("%w: asked for what comes after (%d, %d), kept is what comes after (%d, %d)", replication.ErrPruned, after.XID, after.ID, pruned.XID, pruned.ID)
			case ch == nil: // no change, only the head
			case len(page.Changes) == limit:
				page.More = s.mutant != mutantHidesMore
			default:
				page.Changes = append(page.Changes, *ch)
			}
		}
		if rows.Err() == nil && page.Head.Epoch == 0 {
			return errNoControl
		}
		return nil
	})
	if err != nil {
		return replication.Page{}, err
	}
	return page, nil
}

// changeRow is a row of the feed. One is used for all rows of a page, so that scanning allocates little.
type changeRow struct {
	head                replication.Head // of the first row; the others have the same
	pruned              replication.Cursor
	xid                 pgtype.Uint64
	id, epoch, rev      pgtype.Int8
	queueRev            pgtype.Int8
	kind                pgtype.Int2
	length              pgtype.Int4
	committed, observed pgtype.Timestamptz
	subject, body       pgtype.Text
	hash                []byte
	learned             pgtype.Float8

	first, rest []any // what to scan into: the head only once
}

func newChangeRow() *changeRow {
	r := &changeRow{}
	own := []any{&r.xid, &r.id, &r.epoch, &r.kind, &r.rev, &r.committed, &r.subject, &r.length, &r.observed, &r.queueRev, &r.hash, &r.body, &r.learned}
	r.first = append([]any{&r.head.Epoch, &r.pruned.XID, &r.pruned.ID, &r.head.Horizon, &r.head.XMax, &r.head.LSN, &r.head.Server}, own...)
	r.rest = append(make([]any, len(r.first)-len(own)), own...)
	return r
}

// scan reads the head, and the change beside it unless there is none.
func (r *changeRow) scan(rows pgx.Rows) (*shortline.Change, error) {
	into := r.rest
	if r.head.Epoch == 0 {
		into = r.first
	}
	if err := rows.Scan(into...); err != nil || !r.xid.Valid {
		return nil, err
	}
	ch := &shortline.Change{XID: r.xid.Uint64, ID: uint64(r.id.Int64), Epoch: uint64(r.epoch.Int64), Kind: shortline.ChangeKind(r.kind.Int16),
		Rev: uint64(r.rev.Int64), Subject: r.subject.String, At: r.committed.Time.UTC()}
	switch ch.Kind {
	case shortline.QueueSet:
		if !r.length.Valid || !r.observed.Valid {
			return nil, fmt.Errorf("change (%d, %d) of the queue of store %s has no queue", ch.XID, ch.ID, ch.Subject)
		}
		ch.Queue = &shortline.Queue{Length: int(r.length.Int32), UpdatedAt: r.observed.Time.UTC(), Rev: ch.Rev, LearnedS: r.learned.Float64}
	case shortline.StorePut:
		st, err := decodeStore(shortline.StoreID(ch.Subject), r.body.String)
		if err != nil {
			return nil, fmt.Errorf("change (%d, %d): %w", ch.XID, ch.ID, err)
		}
		ch.Store = &st
	case shortline.StoreDeleted:
		if r.queueRev.Valid {
			ch.Queue = &shortline.Queue{Rev: uint64(r.queueRev.Int64)}
		}
	case shortline.KeyPut:
		k, err := decodeKey(ch.Subject, ch.Rev, r.hash, r.body.String)
		if err != nil {
			return nil, fmt.Errorf("change (%d, %d): %w", ch.XID, ch.ID, err)
		}
		ch.Key = &k
	case shortline.EpochBegun:
	default:
		return nil, fmt.Errorf("change (%d, %d) has kind %d, which this version does not know", ch.XID, ch.ID, ch.Kind)
	}
	return ch, nil
}

// Rollups implements replication.Store. A deleted store keeps its hours.
func (s *Store) Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]replication.Rollup, error) {
	var out []replication.Rollup
	err := s.read(ctx, "read rollups", sqlReadRollups, []any{string(id), ceilHour(from), ceilHour(to)}, func(rows pgx.Rows) error {
		out = nil
		for rows.Next() {
			var u replication.Rollup
			if err := rows.Scan(&u.Hour, &u.Samples, &u.Sum, &u.SumSq, &u.Min, &u.Max); err != nil {
				return fmt.Errorf("store %s: %w", id, err)
			}
			u.Hour = u.Hour.UTC()
			out = append(out, u)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ceilHour is the first hour that begins at t or later.
func ceilHour(t time.Time) time.Time {
	h := t.UTC().Truncate(time.Hour)
	if h.Before(t) {
		h = h.Add(time.Hour)
	}
	return h
}
