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
			if !writes[i].Items[j].OneField() {
				return nil, replication.Token{}, fmt.Errorf("commit: item %d of write %d has not exactly one of queue, put, delete and key", j, i)
			}
		}
	}
	if err := s.acquire(ctx); err != nil {
		return nil, replication.Token{}, err
	}
	defer func() { <-s.turn }()
	c := commit{w: s.w, b: replication.Plan{Now: s.now().UTC().Truncate(time.Millisecond), Broken: s.mutant.planFault()}, numbers: map[shortline.StoreID]int64{}, results: make([]replication.Result, len(writes))}
	err := s.w.transact(func() error {
		if err := c.load(writes); err != nil {
			return err
		}
		for i := range writes {
			var err error
			if c.results[i], err = c.b.Apply(&writes[i]); err != nil {
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

// commit is the I/O around a batch.
type commit struct {
	w          *writer
	b          replication.Plan
	numbers    map[shortline.StoreID]int64 // of the rows of stores
	nextStore  int64
	results    []replication.Result
	epoch, xid int64 // xid: of the last transaction that has changes, in the end perhaps this one
}

var (
	loadStores = newBulk(1, "WITH v(id) AS (", `) SELECT s.id, s.no, s.rev, s.deleted, s.service_s, q.rev, q.length, q.updated_at,
		q.hour, q.samples, q.sum, q.sumsq, q.min, q.max, q.served, q.busy_ms
		FROM v CROSS JOIN stores s ON s.id = v.id LEFT JOIN queues q ON q.store = s.no`)
	loadBodies  = newBulk(1, "WITH v(id) AS (", ") SELECT s.id, s.body FROM v CROSS JOIN stores s ON s.id = v.id")
	loadKeys    = newBulk(1, "WITH v(id) AS (", ") SELECT k.ID, k.Rev, k.Hash, k.Body FROM v CROSS JOIN keys k ON k.ID = v.id")
	loadAnswers = newBulk(2, "WITH v(scope, key) AS (", `) SELECT i.scope, i.key, i.body_hash, i.answer, i.at, i.expires
		FROM v CROSS JOIN idempotency i ON i.scope = v.scope AND i.key = v.key`)

	storeStores = newBulk(6, "INSERT INTO stores (no, id, rev, deleted, service_s, body)", `ON CONFLICT (no) DO UPDATE SET
		rev = excluded.rev, deleted = excluded.deleted, service_s = excluded.service_s, body = excluded.body`)
	storeQueues = newBulk(12, "INSERT INTO queues (store, rev, length, updated_at, hour, samples, sum, sumsq, min, max, served, busy_ms)", `ON CONFLICT (store) DO UPDATE SET
		rev = excluded.rev, length = excluded.length, updated_at = excluded.updated_at, hour = excluded.hour,
		samples = excluded.samples, sum = excluded.sum, sumsq = excluded.sumsq, min = excluded.min, max = excluded.max,
		served = excluded.served, busy_ms = excluded.busy_ms`)
	storeRollups = newBulk(7, "INSERT INTO rollups (store, hour, samples, sum, sumsq, min, max)", `ON CONFLICT (store, hour) DO UPDATE SET
		samples = samples + excluded.samples, sum = sum + excluded.sum, sumsq = sumsq + excluded.sumsq,
		min = min(min, excluded.min), max = max(max, excluded.max)`)
	storeKeys = newBulk(4, "INSERT INTO keys (id, rev, hash, body)", `ON CONFLICT (id) DO UPDATE SET
		rev = excluded.rev, body = excluded.body`)
	storeAnswers = newBulk(6, "INSERT INTO idempotency (scope, key, body_hash, answer, at, expires)", `ON CONFLICT (scope, key) DO UPDATE SET
		body_hash = excluded.body_hash, answer = excluded.answer, at = excluded.at, expires = excluded.expires`)
	storeChanges = newBulk(13, "INSERT INTO changes (xid, id, epoch, kind, rev, at, subject, length, updated_at, queue_rev, hash, body, learned_s)", "")
)

// load reads the control row and every row that the writes speak of.
func (c *commit) load(writes []replication.Write) error {
	err := c.w.query("SELECT epoch, last_xid, next_store FROM control", nil, func(row []driver.Value) error {
		return ints(row, &c.epoch, &c.xid, &c.nextStore)
	})
	if err == nil && c.epoch == 0 {
		err = errors.New("the control row is missing")
	}
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	c.b.Rollups = map[replication.RollupID]*replication.Sums{}
	stores, puts := map[shortline.StoreID]bool{}, false // true: the body is wanted
	keys, answers := map[shortline.KeyID]bool{}, map[replication.AnswerID]bool{}
	row := func(id shortline.StoreID) { // without its body, unless another item wants that
		if _, there := stores[id]; !there {
			stores[id] = false
		}
	}
	for i := range writes {
		if k := writes[i].Idempotency; k != nil {
			answers[replication.AnswerID{Scope: k.Scope, Key: k.Key}] = true
		}
		for _, it := range writes[i].Items {
			switch {
			case it.Queue != nil:
				row(it.Queue.ID)
			case it.Put != nil:
				stores[it.Put.ID], puts = true, true
			case it.Delete != "":
				row(it.Delete)
			case it.Use != nil:
				keys[it.Use.ID] = true
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
	c.b.Stores = make(map[shortline.StoreID]*replication.PlanStore, len(ids))
	sorted := slices.Sorted(maps.Keys(ids)) // neighbours share pages
	for _, id := range sorted {
		c.w.add(string(id))
	}
	err := c.w.bulk(loadStores, c.w.take(), func(row []driver.Value) error {
		r, no, err := scanStoreRow(row)
		if err == nil {
			c.b.Stores[r.ID], c.numbers[r.ID] = r, no
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
		if r := c.b.Stores[shortline.StoreID(id)]; ok1 && ok2 && r != nil {
			r.Body = body
			return nil
		}
		return fmt.Errorf("store %v: its row is malformed", row[0])
	})
}

func scanStoreRow(row []driver.Value) (_ *replication.PlanStore, no int64, err error) {
	id, ok1 := row[0].(string)
	no, ok2 := row[1].(int64)
	rev, ok3 := row[2].(int64)
	deleted, ok4 := row[3].(int64)
	serviceS, ok5 := row[4].(float64)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || rev < 1 {
		return nil, 0, fmt.Errorf("store %v: its row is malformed", row[0])
	}
	r := &replication.PlanStore{ID: shortline.StoreID(id), Stored: true, Rev: uint64(rev), Live: deleted == 0, ServiceS: serviceS}
	if row[5] == nil {
		return r, no, nil
	}
	if err := scanQueue(r, row[5:]); err != nil {
		return nil, 0, fmt.Errorf("store %s: its queue: %w", id, err)
	}
	return r, no, nil
}

func scanQueue(r *replication.PlanStore, row []driver.Value) error {
	var rev, length, at, hour int64
	if r.QueueGone = row[1] == nil; r.QueueGone {
		row[1], row[2] = int64(0), int64(0)
	}
	if err := ints(row, &rev, &length, &at, &hour, &r.Newest.Samples, &r.Newest.Sum, &r.Newest.SumSq, &r.Newest.Min, &r.Newest.Max,
		&r.Flow.Served, &r.Flow.BusyMS); err != nil {
		return err
	}
	r.Queue.Rev, r.Hour = uint64(rev), hourAt(hour)
	if !r.QueueGone {
		r.Queue.Length, r.Queue.UpdatedAt = int(length), time.UnixMilli(at).UTC()
	}
	return nil
}

func (c *commit) loadKeys(ids map[shortline.KeyID]bool) error {
	c.b.Keys = make(map[shortline.KeyID]*replication.PlanKey, len(ids))
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
		c.b.Keys[shortline.KeyID(id)] = &replication.PlanKey{Stored: true, Rev: uint64(rev), Hash: hash, Body: body}
		return nil
	})
}

func (c *commit) loadAnswers(ids map[replication.AnswerID]bool) error {
	c.b.Answers = make(map[replication.AnswerID]*replication.PlanAnswer, len(ids))
	for id := range ids {
		c.w.add(id.Scope, id.Key)
	}
	return c.w.bulk(loadAnswers, c.w.take(), func(row []driver.Value) error {
		scope, ok1 := row[0].(string)
		key, ok2 := row[1].(string)
		hash, ok3 := row[2].([]byte)
		answer, ok4 := row[3].(string)
		at, ok5 := row[4].(int64)
		expires, ok6 := row[5].(int64)
		r := &replication.PlanAnswer{Stored: true, At: time.UnixMilli(at).UTC(), Expires: time.UnixMilli(expires)}
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || len(hash) != len(r.Hash) {
			return fmt.Errorf("idempotency key %v: its row is malformed", row[1])
		}
		copy(r.Hash[:], hash)
		if err := json.Unmarshal([]byte(answer), &r.Items); err != nil {
			return fmt.Errorf("idempotency key %s: its answer: %w", key, err)
		}
		c.b.Answers[replication.AnswerID{Scope: scope, Key: key}] = r
		return nil
	})
}

// store writes what the batch has changed. Only changes take a transaction number; nothing else moves the feed.
func (c *commit) store() error {
	b := &c.b
	for _, id := range slices.Sorted(maps.Keys(b.Stores)) {
		if c.numbers[id] == 0 {
			c.numbers[id] = c.nextStore
			c.nextStore++
		}
	}
	if len(b.Changes) > 0 {
		c.xid++
		c.w.add(c.xid, c.nextStore)
		if err := c.w.query("UPDATE control SET last_xid = ?, next_store = ?", c.w.take(), nil); err != nil {
			return fmt.Errorf("control: %w", err)
		}
	}
	if err := c.storeRows(); err != nil {
		return err
	}
	for id, a := range b.Answers {
		if !a.Dirty {
			continue
		}
		answer, err := json.Marshal(a.Items)
		if err != nil {
			return fmt.Errorf("idempotency key %s: its answer: %w", id.Key, err)
		}
		c.w.add(id.Scope, id.Key, a.Hash[:], string(answer), a.At.UnixMilli(), a.Expires.UnixMilli())
	}
	if err := c.w.bulk(storeAnswers, c.w.take(), nil); err != nil {
		return fmt.Errorf("idempotency keys: %w", err)
	}
	now := b.Now.UnixMilli()
	for i := range b.Changes {
		ch := &b.Changes[i]
		c.w.add(c.xid, int64(i+1), c.epoch, int64(ch.Kind), int64(ch.Rev), now, ch.Subject, nil, nil, nil, nil, nil, nil)
		optional := c.w.args[len(c.w.args)-6:]
		switch ch.Kind {
		case shortline.QueueSet:
			optional[0].Value, optional[1].Value = int64(ch.Queue.Length), ch.Queue.UpdatedAt.UnixMilli()
			if ch.Queue.LearnedS > 0 {
				optional[5].Value = ch.Queue.LearnedS
			}
		case shortline.StoreDeleted:
			if ch.QueueRev > 0 {
				optional[2].Value = int64(ch.QueueRev)
			}
		case shortline.KeyPut:
			optional[3].Value, optional[4].Value = ch.Hash, ch.Body
		default:
			optional[4].Value = ch.Body
		}
	}
	if err := c.w.bulk(storeChanges, c.w.take(), nil); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	return nil
}

func (c *commit) storeRows() error {
	b := &c.b
	stores := slices.SortedFunc(maps.Values(b.Stores), func(r, o *replication.PlanStore) int { return cmp.Compare(c.numbers[r.ID], c.numbers[o.ID]) })
	for _, r := range stores {
		if r.Dirty {
			c.w.add(c.numbers[r.ID], string(r.ID), int64(r.Rev), boolInt(!r.Live), r.ServiceS, r.Body)
		}
	}
	if err := c.w.bulk(storeStores, c.w.take(), nil); err != nil {
		return fmt.Errorf("stores: %w", err)
	}
	for _, r := range stores {
		if !r.QueueDirty {
			continue
		}
		n := &r.Newest
		c.w.add(c.numbers[r.ID], int64(r.Queue.Rev), int64(r.Queue.Length), r.Queue.UpdatedAt.UnixMilli(), floorHour(r.Hour), n.Samples, n.Sum, n.SumSq, n.Min, n.Max,
			r.Flow.Served, r.Flow.BusyMS)
		if r.QueueGone {
			row := c.w.args[len(c.w.args)-storeQueues.cols:]
			row[2].Value, row[3].Value = nil, nil
		}
	}
	if err := c.w.bulk(storeQueues, c.w.take(), nil); err != nil {
		return fmt.Errorf("queues: %w", err)
	}
	for id, r := range b.Rollups {
		c.w.add(c.numbers[id.Store], floorHour(id.Hour), r.Samples, r.Sum, r.SumSq, r.Min, r.Max)
	}
	if err := c.w.bulk(storeRollups, c.w.take(), nil); err != nil {
		return fmt.Errorf("rollups: %w", err)
	}
	for id, k := range b.Keys {
		if k.Dirty {
			c.w.add(string(id), int64(k.Rev), k.Hash, k.Body)
		}
	}
	if err := c.w.bulk(storeKeys, c.w.take(), nil); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	return nil
}

// millisecondsPerHour converts between the two units of time in the file.
const millisecondsPerHour = int64(time.Hour / time.Millisecond)

// floorHour is the hour since 1970 in which t lies.
func floorHour(t time.Time) int64 {
	ms := t.UnixMilli()
	h := ms / millisecondsPerHour
	if ms%millisecondsPerHour < 0 {
		h--
	}
	return h
}

// ceilHour is the first hour that begins at t or later.
func ceilHour(t time.Time) int64 {
	h := floorHour(t)
	if start := time.UnixMilli(h * millisecondsPerHour); start.Before(t) {
		h++
	}
	return h
}

// hourAt is the beginning of an hour since 1970.
func hourAt(h int64) time.Time { return time.UnixMilli(h * millisecondsPerHour).UTC() }

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
