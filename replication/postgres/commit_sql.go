package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// Statements of the first round trip. Each sees what was committed before it began, so what follows a lock is up to date.
//
// Locks come in one order: the epoch, then rows of queues and keys by id. Rows that are new are not there to be locked: of
// two transactions that make the same one, the second waits in its INSERT, fails, and begins anew. An INSERT only ever
// waits for a transaction that has all its other locks, in the order of tables and ids below, so that none waits in a
// circle. So it is with idempotency rows, which are read after the locks of the stores and written last.
const (
	sqlBegin     = "BEGIN ISOLATION LEVEL READ COMMITTED" // and not READ WRITE, which would pass a fence
	sqlLockEpoch = "SELECT pg_advisory_xact_lock_shared($1)"
	sqlControl   = "SELECT epoch FROM control WHERE one"
	sqlLockRows  = `SELECT store, live, service_s, rev, length, observed_at, hour, samples, sum, sumsq, min, max,
		served, busy_ms FROM queues WHERE store = ANY($1) ORDER BY store FOR UPDATE`
	sqlStores   = "SELECT id, rev, body FROM stores WHERE id = ANY($1)"
	sqlLockKeys = "SELECT id, rev, hash, body FROM keys WHERE id = ANY($1) ORDER BY id FOR UPDATE"
	sqlAnswers  = `SELECT i.Scope, i.key, i.body_hash, i.answer, i.at, i.expires
		FROM unnest($1::bytea[], $2::bytea[]) AS u(scope, key) JOIN idempotency i ON i.Scope = u.Scope AND i.key = u.key`
)

// Statements of the second round trip.
const (
	sqlUpdateQueues = `UPDATE queues q SET live = u.live, service_s = u.service_s, rev = u.rev,
		length = CASE WHEN u.reported THEN u.length END, observed_at = CASE WHEN u.reported THEN u.observed_at END,
		hour = u.hour, samples = u.samples, sum = u.sum, sumsq = u.sumsq, min = u.min, max = u.max,
		served = u.served, busy_ms = u.busy_ms FROM ` + unnestQueues + ` WHERE q.store = u.store`
	sqlInsertQueues = `INSERT INTO queues (store, live, service_s, rev, length, observed_at, hour, samples, sum, sumsq, min, max, served, busy_ms)
		SELECT store, live, service_s, rev, CASE WHEN reported THEN length END, CASE WHEN reported THEN observed_at END,
		hour, samples, sum, sumsq, min, max, served, busy_ms FROM ` + unnestQueues
	unnestQueues = `unnest($1::text[], $2::bool[], $3::float8[], $4::int8[], $5::bool[], $6::int4[], $7::timestamptz[], $8::timestamptz[],
		$9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[])
		AS u(store, live, service_s, rev, reported, length, observed_at, hour, samples, sum, sumsq, min, max, served, busy_ms)`

	sqlUpdateStores = `UPDATE stores s SET rev = u.rev, deleted = u.deleted, cell = NULLIF(u.cell, 0), body = u.body
		FROM ` + unnestStores + ` WHERE s.id = u.id`
	sqlInsertStores = `INSERT INTO stores (id, rev, deleted, cell, body) SELECT id, rev, deleted, NULLIF(cell, 0), body FROM ` + unnestStores
	unnestStores    = "unnest($1::text[], $2::int8[], $3::bool[], $4::int8[], $5::text[]) AS u(id, rev, deleted, cell, body)"

	sqlRollups = `INSERT INTO rollups AS r (store, hour, samples, sum, sumsq, min, max)
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[])
		ON CONFLICT (store, hour) DO UPDATE SET samples = r.Samples + excluded.samples, sum = r.Sum + excluded.sum,
		sumsq = r.SumSq + excluded.sumsq, min = least(r.Min, excluded.min), max = greatest(r.Max, excluded.max)`

	sqlUpdateKeys = `UPDATE keys k SET rev = u.rev, body = u.body
		FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::text[]) AS u(id, rev, hash, body) WHERE k.ID = u.id`
	sqlInsertKeys = "INSERT INTO keys (id, rev, hash, body) SELECT * FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::text[])"

	sqlDropAnswers = "DELETE FROM idempotency i USING unnest($1::bytea[], $2::bytea[]) AS u(scope, key) WHERE i.Scope = u.Scope AND i.key = u.key"
	sqlAddAnswers  = `INSERT INTO idempotency (scope, key, body_hash, answer, at, expires)
		SELECT scope, key, body_hash, answer, $5, expires FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $6::timestamptz[])
		AS u(scope, key, body_hash, answer, expires)`

	sqlChanges = `INSERT INTO changes (id, epoch, committed_at, kind, rev, subject, length, observed_at, queue_rev, hash, body, learned_s)
		SELECT n, $1, $2, kind, rev, subject, CASE kind WHEN 3 THEN length END, CASE kind WHEN 3 THEN observed_at END,
		NULLIF(queue_rev, 0), NULLIF(hash, ''), NULLIF(body, ''), NULLIF(learned_s, 0)
		FROM unnest($3::int2[], $4::int8[], $5::text[], $6::int4[], $7::timestamptz[], $8::int8[], $9::bytea[], $10::text[], $11::float8[])
		WITH ORDINALITY AS u(kind, rev, subject, length, observed_at, queue_rev, hash, body, learned_s, n)`

	sqlPosition = "SELECT pg_current_xact_id()::text::int8"
	// For results that show what others have written: the newest change that can be seen now, which may be this transaction's own, is
	// at least as new as what the locked rows show. And it has a row, by which it is found after a failover.
	sqlNewest = `SELECT coalesce((SELECT xid::text::int8 FROM changes c ORDER BY c.xid DESC, c.id DESC LIMIT 1),
		pg_snapshot_xmax(pg_current_snapshot())::text::int8 - 1)`
	sqlInsertLSN = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8"
)

// load begins the transaction, locks every row that the writes speak of and reads them.
func (c *commit) load(ctx context.Context, writes []replication.Write) error {
	c.b = replication.Plan{
		Broken: c.mutant.planFault(), Rollups: map[replication.RollupID]*replication.Sums{}, Stores: map[shortline.StoreID]*replication.PlanStore{},
		Keys: map[shortline.KeyID]*replication.PlanKey{}, Answers: map[replication.AnswerID]*replication.PlanAnswer{},
	}
	w := wantedBy(writes)
	var q pgx.Batch
	q.Queue(sqlBegin)
	if c.mutant != mutantNoEpochLock {
		q.Queue(sqlLockEpoch, lockEpoch)
	}
	q.Queue(sqlControl).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&c.epoch)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errNoControl
		}
		return err
	})
	if len(w.stores) > 0 {
		sql := sqlLockRows
		if c.mutant == mutantNoLock {
			sql = strings.TrimSuffix(sql, "FOR UPDATE")
		}
		q.Queue(sql, sorted(w.stores)).Query(c.scanQueues)
	}
	if len(w.bodies) > 0 {
		q.Queue(sqlStores, sorted(w.bodies)).Query(c.scanStores)
	}
	if len(w.keys) > 0 {
		q.Queue(sqlLockKeys, sorted(w.keys)).Query(c.scanKeys)
	}
	if len(w.answers) > 0 {
		scopes, keys := w.answerColumns()
		q.Queue(sqlAnswers, scopes, keys).Query(c.scanAnswers)
	}
	return c.conn.SendBatch(ctx, &q).Close()
}

// wanted are the rows that some writes speak of.
type wanted struct {
	stores, bodies map[shortline.StoreID]bool // bodies: those of which stores has to be read, too
	keys           map[shortline.KeyID]bool
	answers        map[replication.AnswerID]bool
}

func wantedBy(writes []replication.Write) wanted {
	w := wanted{map[shortline.StoreID]bool{}, map[shortline.StoreID]bool{}, map[shortline.KeyID]bool{}, map[replication.AnswerID]bool{}}
	for i := range writes {
		if k := writes[i].Idempotency; k != nil {
			w.answers[replication.AnswerID{Scope: k.Scope, Key: k.Key}] = true
		}
		for _, it := range writes[i].Items {
			switch {
			case it.Queue != nil:
				w.stores[it.Queue.ID] = true
			case it.Put != nil:
				w.stores[it.Put.ID], w.bodies[it.Put.ID] = true, true
			case it.Delete != "":
				w.stores[it.Delete], w.bodies[it.Delete] = true, true
			case it.Use != nil:
				w.keys[it.Use.ID] = true
			default:
				w.keys[it.Key.ID] = true
			}
		}
	}
	return w
}

func sorted[T ~string](ids map[T]bool) []string {
	out := make([]string, 0, len(ids))
	for id := range ids {
		out = append(out, string(id))
	}
	slices.Sort(out)
	return out
}

func (w *wanted) answerColumns() (scopes, keys [][]byte) {
	for id := range w.answers {
		scopes, keys = append(scopes, []byte(id.Scope)), append(keys, []byte(id.Key))
	}
	return scopes, keys
}

func (c *commit) scanQueues(rows pgx.Rows) error {
	var length pgtype.Int4
	var at, hour pgtype.Timestamptz
	for rows.Next() {
		r := &replication.PlanStore{Stored: true}
		n := &r.Newest
		err := rows.Scan((*string)(&r.ID), &r.Live, &r.ServiceS, &r.Queue.Rev, &length, &at, &hour, &n.Samples, &n.Sum, &n.SumSq, &n.Min, &n.Max,
			&r.Flow.Served, &r.Flow.BusyMS)
		if err != nil {
			return fmt.Errorf("queues: %w", err)
		}
		r.Hour = hour.Time.UTC()
		if length.Valid && at.Valid {
			r.Queue.Length, r.Queue.UpdatedAt = int(length.Int32), at.Time.UTC()
		} else {
			r.QueueGone = r.Queue.Rev > 0
		}
		c.b.Stores[r.ID] = r
	}
	return rows.Err()
}

func (c *commit) scanStores(rows pgx.Rows) error {
	for rows.Next() {
		var id, body string
		var rev uint64
		if err := rows.Scan(&id, &rev, &body); err != nil {
			return fmt.Errorf("stores: %w", err)
		}
		// One that was made since the rows were locked is not there for us: to make it fails, and that begins anew.
		if r := c.b.Stores[shortline.StoreID(id)]; r != nil {
			r.Rev, r.Body = rev, body
		}
	}
	return rows.Err()
}

func (c *commit) scanKeys(rows pgx.Rows) error {
	for rows.Next() {
		var id string
		k := &replication.PlanKey{Stored: true}
		if err := rows.Scan(&id, &k.Rev, &k.Hash, &k.Body); err != nil {
			return fmt.Errorf("keys: %w", err)
		}
		c.b.Keys[shortline.KeyID(id)] = k
	}
	return rows.Err()
}

func (c *commit) scanAnswers(rows pgx.Rows) error {
	for rows.Next() {
		var scope, key, hash []byte
		var answer string
		r := &replication.PlanAnswer{Stored: true}
		if err := rows.Scan(&scope, &key, &hash, &answer, &r.At, &r.Expires); err != nil {
			return fmt.Errorf("idempotency keys: %w", err)
		}
		r.At = r.At.UTC()
		if len(hash) != len(r.Hash) {
			return fmt.Errorf("idempotency key %q: its hash has %d bytes", key, len(hash))
		}
		copy(r.Hash[:], hash)
		if err := json.Unmarshal([]byte(answer), &r.Items); err != nil {
			return fmt.Errorf("idempotency key %q: its answer: %w", key, err)
		}
		c.b.Answers[replication.AnswerID{Scope: string(scope), Key: string(key)}] = r
	}
	return rows.Err()
}

// queueWrites queues the statements for what has changed, in the order of locks, none for what has not.
func (c *commit) queueWrites(q *pgx.Batch) error {
	stores := slices.SortedFunc(maps.Values(c.b.Stores), func(r, o *replication.PlanStore) int { return cmp.Compare(r.ID, o.ID) })
	for _, stored := range []bool{true, false} {
		var queues queueColumns
		var bodies storeColumns
		for _, r := range stores {
			if r.Stored != stored {
				continue
			}
			if r.Dirty || r.QueueDirty {
				queues.add(r)
			}
			if r.Dirty {
				bodies.add(r)
			}
		}
		queues.queue(q, stored)
		bodies.queue(q, stored)
	}
	c.queueRollups(q)
	c.queueKeys(q)
	if err := c.queueAnswers(q); err != nil {
		return err
	}
	c.queueChanges(q)
	return nil
}

// cellRes is the resolution of stores.cell: cells of some 5 km².
const cellRes = 7

// cellOf is the cell of a store that was put; 0 of one that was deleted.
func cellOf(r *replication.PlanStore) geo.Cell {
	if !r.Live {
		return 0
	}
	return geo.CellAt(r.Point, cellRes)
}

// choose returns the statement for rows that are there, or the one for rows that are new.
func choose(stored bool, update, insert string) string {
	if stored {
		return update
	}
	return insert
}

type queueColumns struct {
	ids                                  []string
	live, reported                       []bool
	serviceS                             []float64
	revs, samples, sums, sumsq, min, max []int64
	served, busy                         []int64
	lengths                              []int32
	at, hours                            []time.Time
}

func (c *queueColumns) add(r *replication.PlanStore) {
	n := &r.Newest
	c.ids, c.live, c.serviceS = append(c.ids, string(r.ID)), append(c.live, r.Live), append(c.serviceS, r.ServiceS)
	c.revs, c.reported = append(c.revs, int64(r.Queue.Rev)), append(c.reported, r.Queue.Rev > 0 && !r.QueueGone)
	c.lengths, c.at = append(c.lengths, int32(r.Queue.Length)), append(c.at, r.Queue.UpdatedAt)
	c.hours, c.samples, c.sums = append(c.hours, r.Hour), append(c.samples, n.Samples), append(c.sums, n.Sum)
	c.sumsq, c.min, c.max = append(c.sumsq, n.SumSq), append(c.min, n.Min), append(c.max, n.Max)
	c.served, c.busy = append(c.served, r.Flow.Served), append(c.busy, r.Flow.BusyMS)
}

func (c *queueColumns) queue(q *pgx.Batch, stored bool) {
	if len(c.ids) > 0 {
		q.Queue(choose(stored, sqlUpdateQueues, sqlInsertQueues), c.ids, c.live, c.serviceS, c.revs, c.reported, c.lengths, c.at, c.hours,
			c.samples, c.sums, c.sumsq, c.min, c.max, c.served, c.busy)
	}
}

type storeColumns struct {
	ids, bodies []string
	revs, cells []int64
	deleted     []bool
}

func (c *storeColumns) add(r *replication.PlanStore) {
	c.ids, c.bodies, c.deleted = append(c.ids, string(r.ID)), append(c.bodies, r.Body), append(c.deleted, !r.Live)
	c.revs, c.cells = append(c.revs, int64(r.Rev)), append(c.cells, int64(cellOf(r)))
}

func (c *storeColumns) queue(q *pgx.Batch, stored bool) {
	if len(c.ids) > 0 {
		q.Queue(choose(stored, sqlUpdateStores, sqlInsertStores), c.ids, c.revs, c.deleted, c.cells, c.bodies)
	}
}

func (c *commit) queueRollups(q *pgx.Batch) {
	var ids []string
	var hours []time.Time
	var samples, sums, sumsq, lo, hi []int64
	for id, r := range c.b.Rollups {
		ids, hours = append(ids, string(id.Store)), append(hours, id.Hour)
		samples, sums, sumsq, lo, hi = append(samples, r.Samples), append(sums, r.Sum), append(sumsq, r.SumSq), append(lo, r.Min), append(hi, r.Max)
	}
	if len(ids) > 0 {
		q.Queue(sqlRollups, ids, hours, samples, sums, sumsq, lo, hi)
	}
}

func (c *commit) queueKeys(q *pgx.Batch) {
	for _, stored := range []bool{true, false} {
		var ids, bodies []string
		var revs []int64
		var hashes [][]byte
		for _, id := range slices.Sorted(maps.Keys(c.b.Keys)) {
			if k := c.b.Keys[id]; k.Dirty && k.Stored == stored {
				ids, revs, hashes, bodies = append(ids, string(id)), append(revs, int64(k.Rev)), append(hashes, k.Hash), append(bodies, k.Body)
			}
		}
		if len(ids) > 0 {
			q.Queue(choose(stored, sqlUpdateKeys, sqlInsertKeys), ids, revs, hashes, bodies)
		}
	}
}

// queueAnswers adds the answers to be kept. Where another transaction has added the key meanwhile, that fails, and the next
// attempt finds its answer.
func (c *commit) queueAnswers(q *pgx.Batch) error {
	var scopes, keys, hashes, oldScopes, oldKeys [][]byte
	var answers []string
	var expires []time.Time
	ids := slices.SortedFunc(maps.Keys(c.b.Answers), func(a, b replication.AnswerID) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key))
	})
	for _, id := range ids {
		a := c.b.Answers[id]
		if !a.Dirty {
			continue
		}
		answer, err := json.Marshal(a.Items)
		if err != nil {
			return fmt.Errorf("idempotency key %q: its answer: %w", id.Key, err)
		}
		scopes, keys, hashes = append(scopes, []byte(id.Scope)), append(keys, []byte(id.Key)), append(hashes, a.Hash[:])
		answers, expires = append(answers, string(answer)), append(expires, a.Expires)
		if a.Stored {
			oldScopes, oldKeys = append(oldScopes, []byte(id.Scope)), append(oldKeys, []byte(id.Key))
		}
	}
	if len(oldKeys) > 0 {
		q.Queue(sqlDropAnswers, oldScopes, oldKeys)
	}
	if len(keys) > 0 {
		q.Queue(sqlAddAnswers, scopes, keys, hashes, answers, c.b.Now, expires)
	}
	return nil
}

func (c *commit) queueChanges(q *pgx.Batch) {
	n := len(c.b.Changes)
	if n == 0 {
		return
	}
	kinds, lengths, revs, queueRevs := make([]int16, n), make([]int32, n), make([]int64, n), make([]int64, n)
	subjects, bodies, hashes, at, learned := make([]string, n), make([]string, n), make([][]byte, n), make([]time.Time, n), make([]float64, n)
	for i := range c.b.Changes {
		ch := &c.b.Changes[i]
		kinds[i], revs[i], subjects[i], bodies[i], hashes[i] = int16(ch.Kind), int64(ch.Rev), ch.Subject, ch.Body, ch.Hash
		lengths[i], at[i], queueRevs[i] = int32(ch.Queue.Length), ch.Queue.UpdatedAt, int64(ch.QueueRev)
		learned[i] = ch.Queue.LearnedS
	}
	q.Queue(sqlChanges, int64(c.epoch), c.b.Now, kinds, revs, subjects, lengths, at, queueRevs, hashes, bodies, learned)
}
