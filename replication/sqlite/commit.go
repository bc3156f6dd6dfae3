package sqlite

import (
	"cmp"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Commit implements replication.Committer. It reads the rows that the writes speak of, decides in memory, and writes what
// came of it, each with a handful of statements however many writes there are. A context that ends before COMMIT leaves
// nothing; from there on it is not looked at. Writes that change nothing take no transaction number, and their token
// covers everything committed before.
func (s *Store) Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error) {
	for i := range writes {
		for j := range writes[i].Items {
			if !oneField(&writes[i].Items[j]) {
				return nil, replication.Token{}, fmt.Errorf("commit: item %d of write %d has not exactly one of queue, put, delete and key", j, i)
			}
		}
	}
	if err := s.acquire(ctx); err != nil {
		return nil, replication.Token{}, err
	}
	defer func() { <-s.turn }()
	c := commit{w: s.w, b: batch{now: s.now().UTC().Truncate(time.Millisecond), mutant: s.mutant}, results: make([]replication.Result, len(writes))}
	err := s.w.transact(func() error {
		if err := c.load(writes); err != nil {
			return err
		}
		for i := range writes {
			var err error
			if c.results[i], err = c.b.apply(&writes[i]); err != nil {
				return fmt.Errorf("write %d: %w", i, err)
			}
		}
		if err := c.store(); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, replication.Token{}, s.explain("commit", err)
	}
	s.boundLog()
	return c.results, replication.Token{Epoch: uint64(c.epoch), XID: uint64(c.xid)}, nil
}

func oneField(it *replication.Item) bool {
	n := 0
	for _, set := range [...]bool{it.Queue != nil, it.Put != nil, it.Delete != "", it.Key != nil} {
		if set {
			n++
		}
	}
	return n == 1
}

// commit is the I/O around a batch.
type commit struct {
	w          *writer
	b          batch
	results    []replication.Result
	epoch, xid int64 // xid: of the last transaction that has changes, in the end perhaps this one
}

var (
	loadStores = newBulk(1, "WITH v(id) AS (", `) SELECT s.id, s.no, s.rev, s.deleted, s.service_s, q.rev, q.length, q.updated_at,
		q.hour, q.samples, q.sum, q.sumsq, q.min, q.max
		FROM v CROSS JOIN stores s ON s.id = v.id LEFT JOIN queues q ON q.store = s.no`)
	loadBodies  = newBulk(1, "WITH v(id) AS (", ") SELECT s.id, s.body FROM v CROSS JOIN stores s ON s.id = v.id")
	loadKeys    = newBulk(1, "WITH v(id) AS (", ") SELECT k.id, k.rev, k.hash, k.body FROM v CROSS JOIN keys k ON k.id = v.id")
	loadAnswers = newBulk(2, "WITH v(scope, key) AS (", `) SELECT i.scope, i.key, i.body_hash, i.answer, i.at, i.expires
		FROM v CROSS JOIN idempotency i ON i.scope = v.scope AND i.key = v.key`)

	storeStores = newBulk(6, "INSERT INTO stores (no, id, rev, deleted, service_s, body)", `ON CONFLICT (no) DO UPDATE SET
		rev = excluded.rev, deleted = excluded.deleted, service_s = excluded.service_s, body = excluded.body`)
	storeQueues = newBulk(10, "INSERT INTO queues (store, rev, length, updated_at, hour, samples, sum, sumsq, min, max)", `ON CONFLICT (store) DO UPDATE SET
		rev = excluded.rev, length = excluded.length, updated_at = excluded.updated_at, hour = excluded.hour,
		samples = excluded.samples, sum = excluded.sum, sumsq = excluded.sumsq, min = excluded.min, max = excluded.max`)
	storeRollups = newBulk(7, "INSERT INTO rollups (store, hour, samples, sum, sumsq, min, max)", `ON CONFLICT (store, hour) DO UPDATE SET
		samples = samples + excluded.samples, sum = sum + excluded.sum, sumsq = sumsq + excluded.sumsq,
		min = min(min, excluded.min), max = max(max, excluded.max)`)
	storeKeys = newBulk(4, "INSERT INTO keys (id, rev, hash, body)", `ON CONFLICT (id) DO UPDATE SET
		rev = excluded.rev, body = excluded.body`)
	storeAnswers = newBulk(6, "INSERT INTO idempotency (scope, key, body_hash, answer, at, expires)", `ON CONFLICT (scope, key) DO UPDATE SET
		body_hash = excluded.body_hash, answer = excluded.answer, at = excluded.at, expires = excluded.expires`)
	storeChanges = newBulk(12, "INSERT INTO changes (xid, id, epoch, kind, rev, at, subject, length, updated_at, queue_rev, hash, body)", "")
)

// load reads the control row and every row that the writes speak of.
func (c *commit) load(writes []replication.Write) error {
	err := c.w.query("SELECT epoch, last_xid, next_store FROM control", nil, func(row []driver.Value) error {
		return ints(row, &c.epoch, &c.xid, &c.b.nextStore)
	})
	if err == nil && c.epoch == 0 {
		err = errors.New("the control row is missing")
	}
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	c.b.rollups = map[rollupID]*rollupRow{}
	stores, puts := map[shortline.StoreID]bool{}, false // true: the body is wanted
	keys, answers := map[shortline.KeyID]bool{}, map[answerID]bool{}
	row := func(id shortline.StoreID) { // without its body, unless another item wants that
		if _, there := stores[id]; !there {
			stores[id] = false
		}
	}
	for i := range writes {
		if k := writes[i].Idempotency; k != nil {
			answers[answerID{k.Scope, k.Key}] = true
		}
		for _, it := range writes[i].Items {
			switch {
			case it.Queue != nil:
				row(it.Queue.ID)
			case it.Put != nil:
				stores[it.Put.ID], puts = true, true
			case it.Delete != "":
				row(it.Delete)
			default:
				keys[it.Key.ID] = true
			}
		}
	}
	if err := c.loadAnswers(answers); err != nil {
		return fmt.Errorf("idempotency keys: %w", err)
	}
	if err := c.loadKeys(keys); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	if err := c.loadStores(stores, puts); err != nil {
		return fmt.Errorf("stores: %w", err)
	}
	return nil
}

func (c *commit) loadStores(ids map[shortline.StoreID]bool, bodies bool) error {
	c.b.stores = make(map[shortline.StoreID]*storeRow, len(ids))
	sorted := slices.Sorted(maps.Keys(ids)) // neighbours share pages
	for _, id := range sorted {
		c.w.add(string(id))
	}
	err := c.w.bulk(loadStores, c.w.take(), func(row []driver.Value) error {
		r, err := scanStoreRow(row)
		if err == nil {
			c.b.stores[r.id] = r
		}
		return err
	})
	if err != nil || !bodies {
		return err
	}
	for _, id := range sorted {
		if ids[id] {
			c.w.add(string(id))
		}
	}
	return c.w.bulk(loadBodies, c.w.take(), func(row []driver.Value) error {
		id, ok1 := row[0].(string)
		body, ok2 := row[1].(string)
		if r := c.b.stores[shortline.StoreID(id)]; ok1 && ok2 && r != nil {
			r.body = body
			return nil
		}
		return fmt.Errorf("store %v: its row is malformed", row[0])
	})
}

func scanStoreRow(row []driver.Value) (*storeRow, error) {
	id, ok1 := row[0].(string)
	no, ok2 := row[1].(int64)
	rev, ok3 := row[2].(int64)
	deleted, ok4 := row[3].(int64)
	serviceS, ok5 := row[4].(float64)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || rev < 1 {
		return nil, fmt.Errorf("store %v: its row is malformed", row[0])
	}
	r := &storeRow{no: no, id: shortline.StoreID(id), rev: uint64(rev), deleted: deleted != 0, serviceS: serviceS}
	if row[5] == nil {
		return r, nil
	}
	if err := r.scanQueue(row[5:]); err != nil {
		return nil, fmt.Errorf("store %s: its queue: %w", id, err)
	}
	return r, nil
}

func (r *storeRow) scanQueue(row []driver.Value) error {
	var rev, length, at int64
	if r.queueGone = row[1] == nil; r.queueGone {
		row[1], row[2] = int64(0), int64(0)
	}
	if err := ints(row, &rev, &length, &at, &r.hour, &r.newest.samples, &r.newest.sum, &r.newest.sumsq, &r.newest.min, &r.newest.max); err != nil {
		return err
	}
	r.queue.Rev = uint64(rev)
	if !r.queueGone {
		r.queue.Length, r.queue.UpdatedAt = int(length), time.UnixMilli(at).UTC()
	}
	return nil
}

func (c *commit) loadKeys(ids map[shortline.KeyID]bool) error {
	c.b.keys = make(map[shortline.KeyID]*keyRow, len(ids))
	for id := range ids {
		c.w.add(string(id))
	}
	return c.w.bulk(loadKeys, c.w.take(), func(row []driver.Value) error {
		id, ok1 := row[0].(string)
		rev, ok2 := row[1].(int64)
		hash, ok3 := row[2].([]byte)
		body, ok4 := row[3].(string)
		if !ok1 || !ok2 || !ok3 || !ok4 {
			return fmt.Errorf("key %v: its row is malformed", row[0])
		}
		c.b.keys[shortline.KeyID(id)] = &keyRow{rev: uint64(rev), hash: hash, body: body}
		return nil
	})
}

func (c *commit) loadAnswers(ids map[answerID]bool) error {
	c.b.answers = make(map[answerID]*answerRow, len(ids))
	for id := range ids {
		c.w.add(id.scope, id.key)
	}
	return c.w.bulk(loadAnswers, c.w.take(), func(row []driver.Value) error {
		scope, ok1 := row[0].(string)
		key, ok2 := row[1].(string)
		hash, ok3 := row[2].([]byte)
		answer, ok4 := row[3].(string)
		at, ok5 := row[4].(int64)
		expires, ok6 := row[5].(int64)
		r := &answerRow{at: time.UnixMilli(at).UTC(), expires: time.UnixMilli(expires)}
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || len(hash) != len(r.hash) {
			return fmt.Errorf("idempotency key %v: its row is malformed", row[1])
		}
		copy(r.hash[:], hash)
		if err := json.Unmarshal([]byte(answer), &r.items); err != nil {
			return fmt.Errorf("idempotency key %s: its answer: %w", key, err)
		}
		c.b.answers[answerID{scope, key}] = r
		return nil
	})
}

// store writes what the batch has changed. Only changes take a transaction number; nothing else moves the feed.
func (c *commit) store() error {
	b := &c.b
	if len(b.changes) > 0 {
		c.xid++
		c.w.add(c.xid, b.nextStore)
		if err := c.w.query("UPDATE control SET last_xid = ?, next_store = ?", c.w.take(), nil); err != nil {
			return fmt.Errorf("control: %w", err)
		}
	}
	if err := c.storeRows(); err != nil {
		return err
	}
	for id, a := range b.answers {
		if !a.dirty {
			continue
		}
		answer, err := json.Marshal(a.items)
		if err != nil {
			return fmt.Errorf("idempotency key %s: its answer: %w", id.key, err)
		}
		c.w.add(id.scope, id.key, a.hash[:], string(answer), a.at.UnixMilli(), a.expires.UnixMilli())
	}
	if err := c.w.bulk(storeAnswers, c.w.take(), nil); err != nil {
		return fmt.Errorf("idempotency keys: %w", err)
	}
	now := b.now.UnixMilli()
	for i := range b.changes {
		ch := &b.changes[i]
		c.w.add(c.xid, int64(i+1), c.epoch, int64(ch.kind), int64(ch.rev), now, ch.subject, nil, nil, nil, nil, nil)
		optional := c.w.args[len(c.w.args)-5:]
		switch ch.kind {
		case shortline.QueueSet:
			optional[0].Value, optional[1].Value = int64(ch.queue.Length), ch.queue.UpdatedAt.UnixMilli()
		case shortline.StoreDeleted:
			if ch.queueRev > 0 {
				optional[2].Value = int64(ch.queueRev)
			}
		case shortline.KeyPut:
			optional[3].Value, optional[4].Value = ch.hash, ch.body
		default:
			optional[4].Value = ch.body
		}
	}
	if err := c.w.bulk(storeChanges, c.w.take(), nil); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	return nil
}

func (c *commit) storeRows() error {
	b := &c.b
	stores := slices.SortedFunc(maps.Values(b.stores), func(r, o *storeRow) int { return cmp.Compare(r.no, o.no) })
	for _, r := range stores {
		if r.dirty {
			c.w.add(r.no, string(r.id), int64(r.rev), boolInt(r.deleted), r.serviceS, r.body)
		}
	}
	if err := c.w.bulk(storeStores, c.w.take(), nil); err != nil {
		return fmt.Errorf("stores: %w", err)
	}
	for _, r := range stores {
		if !r.queueDirty {
			continue
		}
		n := &r.newest
		c.w.add(r.no, int64(r.queue.Rev), int64(r.queue.Length), r.queue.UpdatedAt.UnixMilli(), r.hour, n.samples, n.sum, n.sumsq, n.min, n.max)
		if r.queueGone {
			row := c.w.args[len(c.w.args)-storeQueues.cols:]
			row[2].Value, row[3].Value = nil, nil
		}
	}
	if err := c.w.bulk(storeQueues, c.w.take(), nil); err != nil {
		return fmt.Errorf("queues: %w", err)
	}
	for id, r := range b.rollups {
		c.w.add(id.store, id.hour, r.samples, r.sum, r.sumsq, r.min, r.max)
	}
	if err := c.w.bulk(storeRollups, c.w.take(), nil); err != nil {
		return fmt.Errorf("rollups: %w", err)
	}
	for id, k := range b.keys {
		if k.dirty {
			c.w.add(string(id), int64(k.rev), k.hash, k.body)
		}
	}
	if err := c.w.bulk(storeKeys, c.w.take(), nil); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	return nil
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// ints reads the first columns of row as numbers.
func ints[T any](row []T, to ...*int64) error {
	for i := range to {
		n, ok := any(row[i]).(int64)
		if !ok {
			return fmt.Errorf("column %d is %v, not a number", i, row[i])
		}
		*to[i] = n
	}
	return nil
}
