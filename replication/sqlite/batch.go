package sqlite

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// batch is what one transaction decides on: the rows that its writes speak of as they are stored, brought forward by
// apply, and what comes of that. It does no I/O, so writes on one store see each other without the database.
type batch struct {
	now       time.Time // in whole milliseconds UTC
	nextStore int64
	mutant    mutant

	stores  map[shortline.StoreID]*storeRow
	keys    map[shortline.KeyID]*keyRow
	answers map[answerID]*answerRow

	rollups map[rollupID]*rollupRow
	changes []changeRow
}

// storeRow is a store and its queue. A row that is not stored yet has rev 0.
type storeRow struct {
	no       int64
	id       shortline.StoreID
	rev      uint64
	deleted  bool
	serviceS float64
	body     string // read only for stores that are put
	dirty    bool

	queue      shortline.Queue // Rev 0: never reported
	queueGone  bool            // a tombstone: only queue.Rev counts
	queueDirty bool
	hour       int64 // the newest hour that has samples, and these; older hours are in the table of their own
	newest     rollupRow
}

func (r *storeRow) exists() bool { return r.rev > 0 && !r.deleted }

type keyRow struct {
	rev   uint64
	hash  []byte
	body  string
	dirty bool
}

type answerID struct{ scope, key string }

type answerRow struct {
	hash        [32]byte
	items       []replication.ItemResult
	at, expires time.Time
	dirty       bool
}

type rollupID struct{ store, hour int64 }

type rollupRow struct{ samples, sum, sumsq, min, max int64 }

// changeRow is a row of the feed without its place in it. Which fields beside the first three are set depends on kind.
type changeRow struct {
	kind    shortline.ChangeKind
	rev     uint64
	subject string

	queue    shortline.Queue
	queueRev uint64
	hash     []byte
	body     string
}

// apply brings the rows forward by one write.
func (b *batch) apply(w *replication.Write) (replication.Result, error) {
	var id answerID
	if k := w.Idempotency; k != nil {
		id = answerID{k.Scope, k.Key}
		if kept := b.answers[id]; kept != nil && b.now.Before(kept.expires) && b.mutant != mutantForgetsKeys {
			if kept.hash != k.BodyHash {
				return replication.Result{At: b.now, Err: replication.ErrIdempotencyMismatch}, nil
			}
			return replication.Result{Items: kept.items, At: kept.at, Replayed: true}, nil
		}
	}
	res := replication.Result{Items: make([]replication.ItemResult, len(w.Items)), At: b.now}
	for i := range w.Items {
		item, err := b.item(&w.Items[i])
		if err != nil {
			return replication.Result{}, fmt.Errorf("item %d: %w", i, err)
		}
		res.Items[i] = item
	}
	if k := w.Idempotency; k != nil {
		b.answers[id] = &answerRow{hash: k.BodyHash, items: res.Items, at: b.now, expires: b.now.Add(k.TTL), dirty: true}
	}
	return res, nil
}

func (b *batch) item(it *replication.Item) (replication.ItemResult, error) {
	switch {
	case it.Queue != nil:
		return b.update(it.Queue), nil
	case it.Put != nil:
		return b.put(it.Put)
	case it.Delete != "":
		return b.delete(it.Delete), nil
	default:
		return b.putKey(it.Key)
	}
}

func (b *batch) update(u *shortline.QueueUpdate) replication.ItemResult {
	s := b.stores[u.ID]
	if s == nil || !s.exists() {
		return replication.ItemResult{Status: replication.StatusNotFound}
	}
	var stored *shortline.Queue
	switch {
	case s.queueGone:
		stored = &shortline.Queue{Rev: s.queue.Rev} // as if never reported, but rev goes on
	case s.queue.Rev > 0:
		stored = &s.queue
	}
	res := u.Apply(b.now, stored)
	if res.Applied {
		s.queue, s.queueGone, s.queueDirty = res.Queue, false, true
		b.changes = append(b.changes, changeRow{kind: shortline.QueueSet, rev: res.Queue.Rev, subject: string(u.ID), queue: res.Queue})
		b.sample(s, res.Queue)
	}
	return replication.ItemResult{Status: replication.StatusQueue, Queue: &res, ServiceS: s.serviceS}
}

// sample adds an applied update to the hour in which it was observed.
func (b *batch) sample(s *storeRow, q shortline.Queue) {
	h, n := floorHour(q.UpdatedAt), int64(q.Length)
	one := rollupRow{samples: 1, sum: n, sumsq: n * n, min: n, max: n}
	switch {
	case s.newest.samples == 0:
		s.hour, s.newest = h, one
	case h == s.hour:
		s.newest.add(one)
	case h < s.hour:
		b.older(rollupID{s.no, h}, one)
	default:
		b.older(rollupID{s.no, s.hour}, s.newest)
		s.hour, s.newest = h, one
	}
}

// older adds to an hour that is not the newest of its store.
func (b *batch) older(id rollupID, r rollupRow) {
	if sum := b.rollups[id]; sum != nil {
		sum.add(r)
	} else {
		b.rollups[id] = &r
	}
}

func (r *rollupRow) add(o rollupRow) {
	r.samples += o.samples
	r.sum += o.sum
	r.sumsq += o.sumsq
	r.min, r.max = min(r.min, o.min), max(r.max, o.max)
}

func (b *batch) put(p *shortline.Store) (replication.ItemResult, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return replication.ItemResult{}, fmt.Errorf("store %s as JSON: %w", p.ID, err)
	}
	s := b.stores[p.ID]
	if s == nil {
		s = &storeRow{no: b.nextStore, id: p.ID}
		b.nextStore++
		b.stores[p.ID] = s
	}
	status := replication.StatusCreated
	if s.exists() {
		same, err := sameStore(s.body, string(body), p)
		if err != nil {
			return replication.ItemResult{}, err
		}
		if same {
			return replication.ItemResult{Status: replication.StatusUnchanged, Rev: s.rev}, nil
		}
		status = replication.StatusUpdated
	}
	if b.mutant == mutantRevRestarts && s.deleted {
		s.rev = 0
	}
	s.rev++
	s.deleted, s.serviceS, s.body, s.dirty = false, p.ServiceS, string(body), true
	b.changes = append(b.changes, changeRow{kind: shortline.StorePut, rev: s.rev, subject: string(p.ID), body: s.body})
	return replication.ItemResult{Status: status, Rev: s.rev}, nil
}

// sameStore compares what is stored with what is put; the bytes differ for one store only where another version wrote them.
func sameStore(stored, body string, p *shortline.Store) (bool, error) {
	if stored == body {
		return true, nil
	}
	old, err := decodeStore(p.ID, stored)
	if err != nil {
		return false, err
	}
	return old.Equal(p), nil
}

func (b *batch) delete(id shortline.StoreID) replication.ItemResult {
	s := b.stores[id]
	if s == nil || !s.exists() {
		return replication.ItemResult{Status: replication.StatusNotFound}
	}
	s.rev++
	s.deleted, s.serviceS, s.body, s.dirty = true, 0, "", true
	if s.queue.Rev > 0 && !s.queueGone && b.mutant != mutantGhostQueue {
		s.queue = shortline.Queue{Rev: s.queue.Rev + 1}
		s.queueGone, s.queueDirty = true, true
	}
	b.changes = append(b.changes, changeRow{kind: shortline.StoreDeleted, rev: s.rev, subject: string(id), queueRev: s.queue.Rev})
	return replication.ItemResult{Status: replication.StatusDeleted, Rev: s.rev}
}

func (b *batch) putKey(k *shortline.Key) (replication.ItemResult, error) {
	body, err := json.Marshal(k)
	if err != nil {
		return replication.ItemResult{}, fmt.Errorf("key %s as JSON: %w", k.ID, err)
	}
	row := b.keys[k.ID]
	status := replication.StatusUpdated
	switch {
	case row == nil:
		row = &keyRow{hash: k.Hash[:]}
		b.keys[k.ID] = row
		status = replication.StatusCreated
	case row.body == string(body):
		return replication.ItemResult{Status: replication.StatusUnchanged, Rev: row.rev}, nil
	}
	row.rev++
	row.body, row.dirty = string(body), true
	b.changes = append(b.changes, changeRow{kind: shortline.KeyPut, rev: row.rev, subject: string(k.ID), hash: row.hash, body: row.body})
	return replication.ItemResult{Status: status, Rev: row.rev}, nil
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
