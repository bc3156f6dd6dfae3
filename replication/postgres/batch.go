package postgres

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// cellRes is the resolution of stores.cell: cells of some 5 km².
const cellRes = 7

// batch is what one transaction decides on: the rows that its writes speak of as they are stored, brought forward by
// apply, and what comes of that. It does no I/O, so writes on one store see each other without the database.
type batch struct {
	now    time.Time // in whole milliseconds UTC
	mutant mutant

	stores  map[shortline.StoreID]*storeRow
	keys    map[shortline.KeyID]*keyRow
	answers map[answerID]*answerRow

	rollups map[rollupID]*rollupRow
	changes []changeRow
}

// storeRow is a store and its queue. Of a store that is neither put nor deleted, rev and body are not read.
type storeRow struct {
	id       shortline.StoreID
	stored   bool // there is a row, perhaps a tombstone
	live     bool
	rev      uint64
	serviceS float64
	cell     geo.Cell
	body     string
	dirty    bool

	queue      shortline.Queue // Rev 0: never reported
	queueGone  bool            // a tombstone: only queue.Rev counts
	queueDirty bool
	hour       time.Time // the newest hour that has samples, and these; older hours are in the table of their own
	newest     rollupRow
}

type keyRow struct {
	stored bool
	rev    uint64
	hash   []byte
	body   string
	dirty  bool
}

type answerID struct{ scope, key string }

type answerRow struct {
	hash        [32]byte
	items       []replication.ItemResult
	at, expires time.Time
	stored      bool // a row with the key is there; where a new answer is dirty, one whose life is over
	dirty       bool
}

type rollupID struct {
	store shortline.StoreID
	hour  time.Time
}

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
		old := b.answers[id]
		b.answers[id] = &answerRow{
			hash: k.BodyHash, items: res.Items, at: b.now, expires: b.now.Add(k.TTL),
			stored: old != nil && old.stored, dirty: true,
		}
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
	if s == nil || !s.live {
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
	h, n := q.UpdatedAt.Truncate(time.Hour), int64(q.Length)
	one := rollupRow{samples: 1, sum: n, sumsq: n * n, min: n, max: n}
	switch {
	case s.newest.samples == 0:
		s.hour, s.newest = h, one
	case h.Equal(s.hour):
		s.newest.add(one)
	case h.Before(s.hour):
		b.older(rollupID{s.id, h}, one)
	default:
		b.older(rollupID{s.id, s.hour}, s.newest)
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
		s = &storeRow{id: p.ID}
		b.stores[p.ID] = s
	}
	status := replication.StatusCreated
	if s.live {
		same, err := sameStore(s.body, string(body), p)
		if err != nil {
			return replication.ItemResult{}, err
		}
		if same {
			return replication.ItemResult{Status: replication.StatusUnchanged, Rev: s.rev}, nil
		}
		status = replication.StatusUpdated
	}
	if b.mutant == mutantRevRestarts && !s.live {
		s.rev = 0
	}
	s.rev++
	s.live, s.serviceS, s.body, s.dirty = true, p.ServiceS, string(body), true
	s.cell = geo.CellAt(geo.Point{Lat: p.Lat, Lng: p.Lng}, cellRes)
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
	if s == nil || !s.live {
		return replication.ItemResult{Status: replication.StatusNotFound}
	}
	s.rev++
	s.live, s.serviceS, s.cell, s.body, s.dirty = false, 0, 0, "", true
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

// ceilHour is the first hour that begins at t or later.
func ceilHour(t time.Time) time.Time {
	h := t.UTC().Truncate(time.Hour)
	if h.Before(t) {
		h = h.Add(time.Hour)
	}
	return h
}
