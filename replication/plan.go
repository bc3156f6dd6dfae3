package replication

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// Plan is what one transaction decides on, for the adapters: the rows that its writes speak of as they are stored, brought
// forward by Apply, and what comes of that. It does no I/O, so that writes on one store see each other without the database
// and every store decides alike. The adapter fills the maps with the rows that there are, calls Apply for each write in
// order, and stores what is dirty.
type Plan struct {
	// Now dates the transaction: whole milliseconds UTC.
	Now time.Time
	// Broken switches safeguards off; only tests do that.
	Broken PlanFault

	Stores  map[shortline.StoreID]*PlanStore
	Keys    map[shortline.KeyID]*PlanKey
	Answers map[AnswerID]*PlanAnswer

	// Rollups are to be added to those that are stored.
	Rollups map[RollupID]*Sums
	// Changes are the rows of the feed, in order. Updates of one queue are folded into one, which has its state in the end.
	Changes []PlanChange

	queueSet map[shortline.StoreID]int // where in Changes the queue's change is, unless the store was deleted since
}

// PlanFault is a safeguard that a test switches off to show that a test notices.
type PlanFault uint8

// The faults.
const (
	PlanSound       PlanFault = iota
	PlanRevRestarts           // a store that comes back after a delete starts at rev 1 again
	PlanForgetsKeys           // idempotency keys are not looked up
	PlanGhostQueue            // a delete leaves the store's queue behind
	PlanUnfolded              // each update of a queue is a change of its own
	PlanFoldsFlow             // of the updates of a queue only the first moves its flow on
	PlanRevivesKeys           // a key is what was put last
)

// PlanStore is a store and its queue. Of a store that is neither put nor deleted, Rev and Body need not be read.
type PlanStore struct {
	ID       shortline.StoreID
	Stored   bool // there is a row, perhaps a tombstone
	Live     bool
	Rev      uint64
	ServiceS float64
	Point    geo.Point // set where Dirty and Live
	Body     string    // as JSON
	Dirty    bool

	Queue      shortline.Queue // Rev 0: never reported
	QueueGone  bool            // a tombstone: only Queue.Rev counts
	QueueDirty bool
	Flow       shortline.Flow
	Hour       time.Time // the newest hour that has samples, and these; older hours are apart
	Newest     Sums
}

// PlanKey is an API key. Its hash does not change.
type PlanKey struct {
	Stored bool
	Rev    uint64
	Hash   []byte
	Body   string // as JSON, without the hash
	Dirty  bool
}

// AnswerID names an idempotency row.
type AnswerID struct{ Scope, Key string }

// PlanAnswer is an idempotency row. Stored says that a row with the key is there; where a new answer is Dirty, one whose life
// is over.
type PlanAnswer struct {
	Hash          [32]byte
	Items         []ItemResult
	At, Expires   time.Time
	Stored, Dirty bool
}

// RollupID names an hour of a store.
type RollupID struct {
	Store shortline.StoreID
	Hour  time.Time
}

// Sums are those of an hour's lengths.
type Sums struct{ Samples, Sum, SumSq, Min, Max int64 }

// Add adds the samples of o.
func (r *Sums) Add(o Sums) {
	r.Samples += o.Samples
	r.Sum += o.Sum
	r.SumSq += o.SumSq
	r.Min, r.Max = min(r.Min, o.Min), max(r.Max, o.Max)
}

// PlanChange is a row of the feed without its place in it. Which fields beside the first three are set depends on Kind.
type PlanChange struct {
	Kind    shortline.ChangeKind
	Rev     uint64
	Subject string

	Queue    shortline.Queue
	QueueRev uint64
	Hash     []byte
	Body     string
}

// OneField tells whether exactly one field of an item is set.
func (it *Item) OneField() bool {
	n := 0
	for _, set := range [...]bool{it.Queue != nil, it.Put != nil, it.Delete != "", it.Key != nil, it.Use != nil} {
		if set {
			n++
		}
	}
	return n == 1
}

// Apply brings the rows forward by one write.
func (b *Plan) Apply(w *Write) (Result, error) {
	var id AnswerID
	if k := w.Idempotency; k != nil {
		id = AnswerID{k.Scope, k.Key}
		if kept := b.Answers[id]; kept != nil && b.Now.Before(kept.Expires) && b.Broken != PlanForgetsKeys {
			if kept.Hash != k.BodyHash {
				return Result{At: b.Now, Err: ErrIdempotencyMismatch}, nil
			}
			return Result{Items: kept.Items, At: kept.At, Replayed: true}, nil
		}
	}
	res := Result{Items: make([]ItemResult, len(w.Items)), At: b.Now}
	for i := range w.Items {
		item, err := b.item(&w.Items[i])
		if err != nil {
			return Result{}, fmt.Errorf("item %d: %w", i, err)
		}
		res.Items[i] = item
	}
	if k := w.Idempotency; k != nil {
		old := b.Answers[id]
		b.Answers[id] = &PlanAnswer{
			Hash: k.BodyHash, Items: res.Items, At: b.Now, Expires: b.Now.Add(k.TTL),
			Stored: old != nil && old.Stored, Dirty: true,
		}
	}
	return res, nil
}

func (b *Plan) item(it *Item) (ItemResult, error) {
	switch {
	case it.Queue != nil:
		return b.update(it.Queue), nil
	case it.Put != nil:
		return b.put(it.Put)
	case it.Delete != "":
		return b.delete(it.Delete), nil
	case it.Use != nil:
		return b.useKey(it.Use)
	default:
		return b.putKey(it.Key)
	}
}

// update applies one update of a queue. All updates of a queue in one transaction make one change of it, so rev grows once.
func (b *Plan) update(u *shortline.QueueUpdate) ItemResult {
	s := b.Stores[u.ID]
	if s == nil || !s.Live {
		return ItemResult{Status: StatusNotFound}
	}
	var stored *shortline.Queue
	switch {
	case s.QueueGone:
		stored = &shortline.Queue{Rev: s.Queue.Rev} // as if never reported, but rev goes on
	case s.Queue.Rev > 0:
		s.Queue.LearnedS = s.Flow.ServiceS()
		stored = &s.Queue
	}
	res := u.Apply(b.Now, stored)
	if res.Applied {
		at, folds := b.queueSet[u.ID]
		if stored != nil && !(folds && b.Broken == PlanFoldsFlow) {
			s.Flow = s.Flow.Seen(u, stored, &res.Queue)
		}
		res.Queue.LearnedS = s.Flow.ServiceS()
		folds = folds && b.Broken != PlanUnfolded
		if folds {
			res.Queue.Rev = s.Queue.Rev
		}
		s.Queue, s.QueueGone, s.QueueDirty = res.Queue, false, true
		ch := PlanChange{Kind: shortline.QueueSet, Rev: res.Queue.Rev, Subject: string(u.ID), Queue: res.Queue}
		if folds {
			b.Changes[at] = ch
		} else {
			if b.queueSet == nil {
				b.queueSet = map[shortline.StoreID]int{}
			}
			b.queueSet[u.ID] = len(b.Changes)
			b.Changes = append(b.Changes, ch)
		}
		b.sample(s, res.Queue)
	}
	service := s.ServiceS
	if service == 0 {
		service = res.Queue.LearnedS
	}
	return ItemResult{Status: StatusQueue, Queue: &res, ServiceS: service}
}

// sample adds an applied update to the hour in which it was observed.
func (b *Plan) sample(s *PlanStore, q shortline.Queue) {
	h, n := q.UpdatedAt.Truncate(time.Hour), int64(q.Length)
	one := Sums{Samples: 1, Sum: n, SumSq: n * n, Min: n, Max: n}
	switch {
	case s.Newest.Samples == 0:
		s.Hour, s.Newest = h, one
	case h.Equal(s.Hour):
		s.Newest.Add(one)
	case h.Before(s.Hour):
		b.older(RollupID{s.ID, h}, one)
	default:
		b.older(RollupID{s.ID, s.Hour}, s.Newest)
		s.Hour, s.Newest = h, one
	}
}

// older adds to an hour that is not the newest of its store.
func (b *Plan) older(id RollupID, r Sums) {
	if sum := b.Rollups[id]; sum != nil {
		sum.Add(r)
	} else {
		b.Rollups[id] = &r
	}
}

func (b *Plan) put(p *shortline.Store) (ItemResult, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return ItemResult{}, fmt.Errorf("store %s as JSON: %w", p.ID, err)
	}
	s := b.Stores[p.ID]
	if s == nil {
		s = &PlanStore{ID: p.ID}
		b.Stores[p.ID] = s
	}
	status := StatusCreated
	if s.Live {
		same, err := sameStore(s.Body, string(body), p)
		if err != nil {
			return ItemResult{}, err
		}
		if same {
			return ItemResult{Status: StatusUnchanged, Rev: s.Rev}, nil
		}
		status = StatusUpdated
	}
	if b.Broken == PlanRevRestarts && !s.Live {
		s.Rev = 0
	}
	s.Rev++
	s.Live, s.ServiceS, s.Body, s.Dirty = true, p.ServiceS, string(body), true
	s.Point = geo.Point{Lat: p.Lat, Lng: p.Lng}
	b.Changes = append(b.Changes, PlanChange{Kind: shortline.StorePut, Rev: s.Rev, Subject: string(p.ID), Body: s.Body})
	return ItemResult{Status: status, Rev: s.Rev}, nil
}

// sameStore compares what is stored with what is put; the bytes differ for one store only where another version wrote them.
func sameStore(stored, body string, p *shortline.Store) (bool, error) {
	if stored == body {
		return true, nil
	}
	var old shortline.Store
	if err := json.Unmarshal([]byte(stored), &old); err != nil {
		return false, fmt.Errorf("store %s: its body is damaged: %w", p.ID, err)
	}
	return old.Equal(p), nil
}

func (b *Plan) delete(id shortline.StoreID) ItemResult {
	s := b.Stores[id]
	if s == nil || !s.Live {
		return ItemResult{Status: StatusNotFound}
	}
	s.Rev++
	s.Live, s.ServiceS, s.Body, s.Dirty = false, 0, "", true
	if s.Queue.Rev > 0 && !s.QueueGone && b.Broken != PlanGhostQueue {
		s.Queue, s.Flow = shortline.Queue{Rev: s.Queue.Rev + 1}, shortline.Flow{}
		s.QueueGone, s.QueueDirty = true, true
	}
	delete(b.queueSet, id)
	b.Changes = append(b.Changes, PlanChange{Kind: shortline.StoreDeleted, Rev: s.Rev, Subject: string(id), QueueRev: s.Queue.Rev})
	return ItemResult{Status: StatusDeleted, Rev: s.Rev}
}

func (b *Plan) putKey(k *shortline.Key) (ItemResult, error) {
	row := b.Keys[k.ID]
	if row == nil {
		row = &PlanKey{Hash: k.Hash[:]}
		b.Keys[k.ID] = row
		res, err := b.setKey(row, k)
		res.Status = StatusCreated
		return res, err
	}
	old, err := row.key()
	if err != nil {
		return ItemResult{}, err
	}
	next := *k
	if b.Broken != PlanRevivesKeys {
		next.Follow(&old)
	}
	return b.setKey(row, &next)
}

// useKey moves the last use of a key on.
func (b *Plan) useKey(u *shortline.KeyUse) (ItemResult, error) {
	row := b.Keys[u.ID]
	if row == nil {
		return ItemResult{Status: StatusNotFound}, nil
	}
	key, err := row.key()
	if err != nil {
		return ItemResult{}, err
	}
	if key.LastUsedAt == nil || u.At.After(*key.LastUsedAt) {
		at := u.At.UTC()
		key.LastUsedAt = &at
	}
	return b.setKey(row, &key)
}

// key is the key of a row, without its hash.
func (k *PlanKey) key() (key shortline.Key, err error) {
	if err = json.Unmarshal([]byte(k.Body), &key); err != nil {
		err = fmt.Errorf("a key of the database: %w", err)
	}
	return key, err
}

// setKey gives a row its new state, unless it is that already.
func (b *Plan) setKey(row *PlanKey, k *shortline.Key) (ItemResult, error) {
	body, err := json.Marshal(k)
	if err != nil {
		return ItemResult{}, fmt.Errorf("key %s as JSON: %w", k.ID, err)
	}
	if row.Body == string(body) {
		return ItemResult{Status: StatusUnchanged, Rev: row.Rev}, nil
	}
	row.Rev++
	row.Body, row.Dirty = string(body), true
	b.Changes = append(b.Changes, PlanChange{Kind: shortline.KeyPut, Rev: row.Rev, Subject: string(k.ID), Hash: row.Hash, Body: row.Body})
	return ItemResult{Status: StatusUpdated, Rev: row.Rev}, nil
}
