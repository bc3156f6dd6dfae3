package storetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

func checkEmpty(r *rig) {
	head := r.head()
	expect(r, "rows of a new database", len(r.all(10)), 0)
	keys, err := r.Keys(r.ctx)
	if err != nil || len(keys) != 0 {
		r.Errorf("Keys of a new database: %v, %v", keys, err)
	}
	changes := r.feed(replication.Cursor{}, replication.Token{XID: head.XMax - 1}, 10)
	if len(changes) == 0 || changes[0].Kind != shortline.EpochBegun || changes[0].Epoch != head.Epoch {
		r.Fatalf("the feed of a new database is %+v, want it to begin epoch %d", changes, head.Epoch)
	}
	expect(r, "changes of a new database", len(changes), 1)
}

func checkStores(r *rig) {
	start := r.here()
	a, b := place("a", "First"), place("a", "Second")
	for _, step := range []struct {
		what   string
		item   replication.Item
		status replication.Status
		rev    uint64
		stored *shortline.Store
	}{
		{"delete of a store that never was", del("a"), replication.StatusNotFound, 0, nil},
		{"first put", put(a), replication.StatusCreated, 1, a},
		{"the same put again", put(a), replication.StatusUnchanged, 1, a},
		{"another put", put(b), replication.StatusUpdated, 2, b},
		{"delete", del("a"), replication.StatusDeleted, 3, nil},
		{"delete again", del("a"), replication.StatusNotFound, 0, nil},
		{"put after a delete", put(b), replication.StatusCreated, 4, b},
		{"put of what was before", put(a), replication.StatusUpdated, 5, a},
	} {
		r.clock.advance(time.Second)
		res := r.item(step.item)
		expect(r, step.what+": status", res.Status, step.status)
		expect(r, step.what+": rev", res.Rev, step.rev)
		row, ok := r.row("a")
		switch {
		case ok != (step.stored != nil):
			r.Errorf("%s: the store is there: %v", step.what, ok)
		case ok && (!row.Store.Equal(step.stored) || row.Rev != step.rev || row.Queue != nil):
			r.Errorf("%s: stored is %+v", step.what, row)
		}
	}
	_, token := r.commit(write(put(place("b", "Last"))))
	changes := r.feed(start, token, 100)
	want := []struct {
		kind  shortline.ChangeKind
		rev   uint64
		store *shortline.Store
	}{
		{shortline.StorePut, 1, a}, {shortline.StorePut, 2, b}, {shortline.StoreDeleted, 3, nil}, {shortline.StorePut, 4, b},
		{shortline.StorePut, 5, a}, {shortline.StorePut, 1, place("b", "Last")},
	}
	if len(changes) != len(want) {
		r.Fatalf("the feed has %d changes, want %d: %+v", len(changes), len(want), changes)
	}
	for i, w := range want {
		c := changes[i]
		if c.Kind != w.kind || c.Rev != w.rev || c.Epoch != token.Epoch || (w.store != nil && !c.Store.Equal(w.store)) {
			r.Errorf("change %d is %+v, want kind %d, rev %d, %+v", i, c, w.kind, w.rev, w.store)
		}
	}
}

func checkStoreText(r *rig) {
	stores := []*shortline.Store{
		{ID: "-", Name: "x"},
		{ID: "A.b_C-9", Name: `Ünï "quoted" 'single' <b>&amp; \ %s ; --`, Brand: "日本語のお店", Lat: 0.1 + 0.2, Lng: -179.99999999999997},
		{ID: shortline.StoreID(strings.Repeat("z", 64)), Name: strings.Repeat("é", shortline.MaxNameBytes/2), Lat: math.SmallestNonzeroFloat64, Lng: 180},
		{ID: "emoji", Name: "☕️👩‍🍳\u2028\ufeff", Tags: []string{"ä", "🍕", "a,b", "[]"}, Phone: "+1 (555) 0100", Hours: "Mo-Su 00:00-24:00", Timezone: "UTC"},
		{ID: "address", Name: "Address", Address: &shortline.Address{Street: "1 O'Hara St \"B\"", City: "Zürich", Country: "CH"}, ServiceS: 1e-9, Lat: -90, Lng: -180},
		{ID: "null", Name: "null"}, {ID: "0", Name: "0"}, {ID: "1e5", Name: "true"},
	}
	var items []replication.Item
	for _, s := range stores {
		s.Normalize()
		items = append(items, put(s), length(s.ID, 7))
	}
	start := r.here()
	_, token := r.commit(write(items...))
	changes := r.feed(start, token, 3)
	for i, s := range stores {
		row := r.mustRow(s.ID)
		if !row.Store.Equal(s) {
			r.Errorf("store %q came back as %+v, want %+v", s.ID, row.Store, *s)
		}
		if c := changes[2*i]; c.Subject != string(s.ID) || !c.Store.Equal(s) {
			r.Errorf("the change of store %q came back as %+v, want %+v", s.ID, *c.Store, *s)
		}
	}
	for _, res := range r.items(items...) {
		if res.Status != replication.StatusUnchanged && res.Status != replication.StatusQueue {
			r.Errorf("the same again has status %d", res.Status)
		}
	}
}

func checkLargeBatch(r *rig) {
	const n = 1000
	start := r.here()
	var items []replication.Item
	for i := range n {
		items = append(items, put(place(storeID("large", i), "Large")))
	}
	for i, res := range r.items(items...) {
		if res.Status != replication.StatusCreated || res.Rev != 1 {
			r.Fatalf("item %d: %+v", i, res)
		}
	}
	var writes []replication.Write
	for i := range n {
		writes = append(writes, write(length(storeID("large", n-1-i), i)))
	}
	results, token := r.commit(writes...)
	for i, res := range results {
		if q := res.Items[0].Queue; q == nil || !q.Applied || q.Queue.Length != i || q.Queue.Rev != 1 {
			r.Fatalf("write %d: %+v", i, res.Items[0])
		}
	}
	rows := r.all(n + 1)
	expect(r, "rows", len(rows), n)
	for i, row := range rows {
		if row.Queue == nil || row.Queue.Length != n-1-i {
			r.Fatalf("row %d is %+v", i, row)
		}
	}
	changes := r.feed(start, token, 10*n)
	expect(r, "changes", len(changes), 2*n)
	for i, c := range changes[n:] {
		if c.Kind != shortline.QueueSet || c.Queue.Length != i {
			r.Fatalf("change %d is not in the order of the writes: %+v", n+i, c)
		}
	}
}

// checkOneBatch: writes of one batch, and items of one write, see each other, and one that fails stops nobody.
func checkOneBatch(r *rig) {
	start := r.here()
	a, b := place("a", "First"), place("a", "Second")
	results, token := r.commit(
		write(length("a", 1), put(a), length("a", 3), delta("a", 2), put(a)),
		write(delta("a", -1), length("nowhere", 1), put(b), del("nowhere")),
		write(),
		write(del("a"), length("a", 1), put(a), delta("a", 1)),
	)
	var got []replication.Status
	for _, res := range results {
		for _, it := range res.Items {
			got = append(got, it.Status)
		}
		sameMoment(r, "the time of the result", res.At, r.clock.now())
	}
	want := []replication.Status{
		replication.StatusNotFound, replication.StatusCreated, replication.StatusQueue, replication.StatusQueue, replication.StatusUnchanged,
		replication.StatusQueue, replication.StatusNotFound, replication.StatusUpdated, replication.StatusNotFound,
		replication.StatusDeleted, replication.StatusNotFound, replication.StatusCreated, replication.StatusQueue,
	}
	if !slices.Equal(got, want) {
		r.Fatalf("the statuses are %v, want %v", got, want)
	}
	row := r.mustRow("a")
	if !row.Store.Equal(a) || row.Rev != 4 || row.Queue == nil || row.Queue.Length != 1 || row.Queue.Rev != 3 {
		r.Errorf("the store ended as %+v with queue %+v, want rev 4, and length 1 at rev 3", row, row.Queue)
	}
	var kinds []shortline.ChangeKind
	for _, c := range r.feed(start, token, 100) {
		kinds = append(kinds, c.Kind)
	}
	wantKinds := []shortline.ChangeKind{
		shortline.StorePut, shortline.QueueSet, shortline.StorePut, shortline.StoreDeleted, shortline.StorePut, shortline.QueueSet,
	}
	if !slices.Equal(kinds, wantKinds) {
		r.Errorf("the kinds of changes are %v, want one for each applied item, and for the updates of a queue up to a delete: %v", kinds, wantKinds)
	}
}

func checkQueues(r *rig) {
	r.item(put(place("a", "A")))
	expect(r, "queue of a store that never reported", r.mustRow("a").Queue, nil)
	expect(r, "status without a store", r.item(length("b", 1)).Status, replication.StatusNotFound)
	start := r.here()
	n := func(v int) *int { return &v }
	steps := []struct {
		what   string
		length *int
		delta  *int
		at     time.Duration // of the observation, from now; 0: not given
	}{
		{what: "a first delta below zero", delta: n(-3)},
		{what: "a length", length: n(5)},
		{what: "the same length", length: n(5)},
		{what: "a delta up", delta: n(2)},
		{what: "a delta below zero", delta: n(-20)},
		{what: "the greatest length", length: n(shortline.MaxQueueLength)},
		{what: "a delta above the greatest", delta: n(1)},
		{what: "a zero delta", delta: n(0)},
		{what: "an older length", length: n(9), at: -time.Hour},
		{what: "an older delta", delta: n(-10), at: -time.Hour},
		{what: "a length in the near future", length: n(11), at: 4 * time.Second},
		{what: "a length without a time, older than that", length: n(12)},
		{what: "a length in the future", length: n(13), at: 6 * time.Second},
		{what: "a delta in the future", delta: n(1), at: time.Hour},
		{what: "a length at the same time", length: n(14), at: 1},
		{what: "a zero length", length: n(0)},
	}
	var model *shortline.Queue
	var want []shortline.Queue
	for _, step := range steps {
		r.clock.advance(time.Second)
		u := shortline.QueueUpdate{ID: "a", Length: step.length, Delta: step.delta}
		switch {
		case step.at == 1:
			u.ObservedAt = model.UpdatedAt
		case step.at != 0:
			u.ObservedAt = r.clock.now().Add(step.at).In(time.FixedZone("", 3600))
		}
		expected := u.Apply(r.clock.now(), model)
		res := r.item(queue(u))
		if res.Status != replication.StatusQueue || res.Queue == nil {
			r.Fatalf("%s: %+v", step.what, res)
		}
		expect(r, step.what+": service time", res.ServiceS, 42.5)
		expect(r, step.what+": applied", res.Queue.Applied, expected.Applied)
		expect(r, step.what+": reason", res.Queue.Reason, expected.Reason)
		expect(r, step.what+": clamped", res.Queue.Clamped, expected.Clamped)
		expectQueue(r, step.what+": the answer", &res.Queue.Queue, &expected.Queue)
		if expected.Applied {
			model = &expected.Queue
			want = append(want, *model)
		}
		expectQueue(r, step.what+": stored", r.mustRow("a").Queue, model)
	}
	_, token := r.commit(write(put(place("z", "Z"))))
	changes := r.feed(start, token, 100)
	if len(changes) != len(want)+1 {
		r.Fatalf("the feed has %d changes, want one for each of %d applied updates and one more", len(changes), len(want))
	}
	for i := range want {
		expectQueue(r, "the queue of a change", changes[i].Queue, &want[i])
	}
	expect(r, "rev of the store, which queues do not change", r.mustRow("a").Rev, 1)
}

// checkFolding: the updates of a queue in one transaction make one change of one rev, and each has its result and its sample.
func checkFolding(r *rig) {
	r.items(put(place("a", "A")), put(place("b", "B")), length("a", 1))
	start := r.here()
	results, token := r.commit(write(length("a", 5)), write(delta("a", 2), length("b", 9)), write(delta("a", -3)))
	for i, want := range []shortline.Queue{{Length: 5}, {Length: 7}, {Length: 4}} {
		q := results[i].Items[0].Queue
		if q == nil || !q.Applied || q.Queue.Length != want.Length || q.Queue.Rev != 2 {
			r.Errorf("result %d is %+v, want length %d at rev 2", i, q, want.Length)
		}
	}
	changes := r.feed(start, token, 100)
	if len(changes) != 2 || changes[0].Subject != "a" || changes[0].Queue.Length != 4 || changes[0].Rev != 2 || changes[1].Subject != "b" || changes[1].Rev != 1 {
		r.Errorf("the changes are %+v, want one of each queue, with the state in the end", changes)
	}
	expect(r, "length in the end", r.mustRow("a").Queue.Length, 4)
	hour := r.clock.now().UTC().Truncate(time.Hour)
	rollups, err := r.Rollups(r.ctx, "a", hour, hour.Add(time.Hour))
	if err != nil || len(rollups) != 1 || rollups[0].Samples != 4 || rollups[0].Sum != 1+5+7+4 {
		r.Errorf("the samples are %+v (%v), want 4", rollups, err)
	}
}

// checkQueueTombstones: a delete takes the queue along, and the queue's rev goes on when the store comes back.
func checkQueueTombstones(r *rig) {
	start := r.here()
	r.items(put(place("a", "A")), length("a", 8), delta("a", 1))
	r.item(del("a"))
	expect(r, "status of a queue update after the delete", r.item(length("a", 1)).Status, replication.StatusNotFound)
	r.item(put(place("a", "A")))
	expect(r, "queue of a store that came back", r.mustRow("a").Queue, nil)
	r.items(del("a")) // without a queue this time
	r.item(put(place("a", "A")))
	r.clock.advance(time.Second)
	older := r.clock.now().Add(-time.Hour)
	three := 3
	res := r.item(queue(shortline.QueueUpdate{ID: "a", Delta: &three, ObservedAt: older}))
	if res.Queue == nil || !res.Queue.Applied {
		r.Fatalf("an update after the store came back: %+v", res)
	}
	expectQueue(r, "queue that starts anew", &res.Queue.Queue, &shortline.Queue{Length: 3, UpdatedAt: older.Truncate(time.Millisecond), Rev: 3})
	_, token := r.commit(write(delta("a", 1)))
	var deletes []shortline.Change
	replayed := newReplica()
	changes := r.feed(start, token, 2)
	for _, c := range changes {
		if c.Kind == shortline.StoreDeleted {
			deletes = append(deletes, c)
		}
	}
	expect(r, "changes", len(changes), 8)
	if len(deletes) != 2 {
		r.Fatalf("the feed has %d deletes, want 2", len(deletes))
	}
	for _, c := range deletes {
		if c.Queue == nil || c.Queue.Rev != 2 {
			r.Errorf("a delete has the queue %+v, want the rev of its tombstone, 2", c.Queue)
		}
	}
	replayed.apply(changes)
	expectRows(r, "the feed replayed", replayed.rows(), r.all(10))
}

func checkRollups(r *rig) {
	r.items(put(place("a", "A")), put(place("b", "B")))
	now := r.clock.now()
	hour := now.Truncate(time.Hour)
	at := func(n int, t time.Time) replication.Item {
		return queue(shortline.QueueUpdate{ID: "a", Length: &n, ObservedAt: t})
	}
	r.items(at(4, hour.Add(-3*time.Hour)), at(2, hour.Add(-time.Hour)), at(8, hour.Add(-time.Millisecond)))
	r.items(at(5, hour), at(99, hour.Add(-2*time.Hour)) /* older: not applied */, length("b", 1), at(1, now.Add(time.Minute)) /* future */)
	r.items(delta("a", 2), length("nowhere", 50))
	r.reopen()
	r.items(length("a", shortline.MaxQueueLength))
	r.clock.advance(2 * time.Hour)
	r.items(length("a", 1))
	m := int64(shortline.MaxQueueLength)
	want := []replication.Rollup{
		{Hour: hour.Add(-3 * time.Hour), Samples: 1, Sum: 4, SumSq: 16, Min: 4, Max: 4},
		{Hour: hour.Add(-time.Hour), Samples: 2, Sum: 10, SumSq: 68, Min: 2, Max: 8},
		{Hour: hour, Samples: 3, Sum: 12 + m, SumSq: 25 + 49 + m*m, Min: 5, Max: int(m)},
		{Hour: hour.Add(2 * time.Hour), Samples: 1, Sum: 1, SumSq: 1, Min: 1, Max: 1},
	}
	far := hour.AddDate(1, 0, 0)
	for _, c := range []struct {
		what     string
		from, to time.Time
		want     []replication.Rollup
	}{
		{"all hours", time.Unix(0, 0), far, want},
		{"hours from the third one on", hour, far, want[2:]},
		{"hours before the third one", time.Unix(0, 0), hour, want[:2]},
		{"hours that begin after the start of the third one", hour.Add(time.Millisecond), far, want[3:]},
		{"an end within the third hour", time.Unix(0, 0), hour.Add(time.Millisecond), want[:3]},
		{"nothing", hour, hour, nil},
	} {
		got := r.rollups("a", c.from, c.to)
		if !slices.EqualFunc(got, c.want, sameRollup) {
			r.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
	expect(r, "hours of the other store", len(r.rollups("b", time.Unix(0, 0), far)), 1)
	expect(r, "hours of no store", len(r.rollups("nowhere", time.Unix(0, 0), far)), 0)
}

func sameRollup(a, b replication.Rollup) bool {
	same := a.Hour.Equal(b.Hour)
	a.Hour, b.Hour = time.Time{}, time.Time{}
	return same && a == b
}

func checkKeys(r *rig) {
	start := r.here()
	k := shortline.Key{
		ID: "k1", Name: "Ünïcode 'till", Scopes: []shortline.Scope{shortline.ScopeQueueWrite}, Stores: []shortline.StoreID{"a", "b"},
		Hash: [32]byte{1, 2, 3, 31: 255}, CreatedAt: r.clock.now().Truncate(time.Second), Rev: 77,
	}
	admin := shortline.Key{ID: "k0", Name: "admin", Scopes: []shortline.Scope{shortline.ScopeAdmin}, Hash: [32]byte{9}, CreatedAt: k.CreatedAt}
	expectItem := func(what string, key shortline.Key, status replication.Status, rev uint64) {
		r.Helper()
		res := r.item(replication.Item{Key: &key})
		expect(r, what+": status", res.Status, status)
		expect(r, what+": rev", res.Rev, rev)
	}
	expectItem("a new key", k, replication.StatusCreated, 1)
	expectItem("another key", admin, replication.StatusCreated, 1)
	expectItem("the same key again", k, replication.StatusUnchanged, 1)
	revoked := k
	at := r.clock.now().Add(time.Hour).Truncate(time.Second)
	revoked.Name, revoked.RevokedAt, revoked.Stores, revoked.Hash = "revoked", &at, nil, [32]byte{66}
	expectItem("a key revoked", revoked, replication.StatusUpdated, 2)
	revoked.Hash = k.Hash // what is kept
	back := k             // a change that was made of what the key was before
	back.Name = "of yesterday"
	expectItem("a revoked key put back", back, replication.StatusUpdated, 3)
	back.RevokedAt = &at
	used := back
	lately := at.Add(5 * time.Minute)
	used.LastUsedAt = &lately
	expectUse := func(what string, id shortline.KeyID, at time.Time, status replication.Status, rev uint64) {
		r.Helper()
		res := r.item(replication.Item{Use: &shortline.KeyUse{ID: id, At: at}})
		expect(r, what+": status", res.Status, status)
		expect(r, what+": rev", res.Rev, rev)
	}
	expectUse("a use", "k1", lately, replication.StatusUpdated, 4)
	expectUse("an older use", "k1", lately.Add(-time.Hour), replication.StatusUnchanged, 4)
	expectUse("a use of no key", "k9", lately, replication.StatusNotFound, 0)
	expectItem("put by somebody who does not know of the use", back, replication.StatusUnchanged, 4)
	_, token := r.commit(write(put(place("a", "A"))))
	r.reopen()
	changes := r.feed(start, token, 100)
	if len(changes) != 6 {
		r.Fatalf("the feed has %d changes, want 5 of keys and one more", len(changes))
	}
	for i, want := range []struct {
		key shortline.Key
		rev uint64
	}{{k, 1}, {admin, 1}, {revoked, 2}, {back, 3}, {used, 4}} {
		want.key.Rev = want.rev
		expectKey(r, "a change", *changes[i].Key, want.key)
	}
	keys, err := r.Keys(r.ctx)
	if err != nil || len(keys) != 2 {
		r.Fatalf("Keys: %d keys, %v", len(keys), err)
	}
	slices.SortFunc(keys, func(a, b shortline.Key) int { return strings.Compare(string(a.ID), string(b.ID)) })
	admin.Rev, used.Rev = 1, 4
	expectKey(r, "Keys", keys[0], admin)
	expectKey(r, "Keys", keys[1], used)
}

func expectKey(r *rig, what string, got, want shortline.Key) {
	r.Helper()
	same := got.ID == want.ID && got.Name == want.Name && got.Hash == want.Hash && got.Rev == want.Rev && got.CreatedAt.Equal(want.CreatedAt) &&
		slices.Equal(got.Scopes, want.Scopes) && slices.Equal(got.Stores, want.Stores) && sameTime(got.RevokedAt, want.RevokedAt) && sameTime(got.LastUsedAt, want.LastUsedAt)
	if !same {
		r.Errorf("%s: the key is %+v, want %+v", what, got, want)
	}
}

func checkTokens(r *rig) {
	last := replication.Token{}
	for i, w := range []replication.Write{
		write(put(place("a", "A"))), write(length("a", 1)), write(put(place("a", "A"))), write(length("b", 1)), write(), write(length("a", 1)), write(del("a")),
	} {
		xmax := r.head().XMax
		_, token := r.commit(w)
		head := r.head()
		if token.Less(last) {
			r.Errorf("commit %d: token %+v is before %+v of the commit before", i, token, last)
		}
		if token.Epoch != head.Epoch || token.XID >= head.XMax {
			r.Errorf("commit %d: token %+v does not fit the head %+v", i, token, head)
		}
		if head.XMax < xmax {
			r.Errorf("commit %d: XMax went from %d back to %d", i, xmax, head.XMax)
		}
		r.settled(token)
		last = token
	}
}

func checkCancelled(r *rig) {
	r.item(put(place("a", "A")))
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	_, _, err := r.Commit(ctx, []replication.Write{write(length("a", 1))})
	if !errors.Is(err, context.Canceled) {
		r.Errorf("Commit with a context that has ended: %v", err)
	}
	if _, err := r.Snapshot(ctx, "", 1); err == nil {
		r.Errorf("Snapshot with a context that has ended: no error")
	}
	if q := r.mustRow("a").Queue; !errors.Is(err, replication.ErrOutcomeUnknown) && q != nil {
		r.Errorf("a commit that was not, left the queue %+v", *q)
	}
}

func sameTime(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }
