package storetest

import (
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// checkFlow: what a line's reports tell of its pace is kept with the queue, and is the same however they are folded into
// transactions and wherever it is read; it ends with the store.
func checkFlow(r *rig) {
	unknown := func(id shortline.StoreID) *shortline.Store {
		s := place(id, "Store "+string(id))
		s.ServiceS = 0
		return s
	}
	start := r.here()
	r.items(put(unknown("single")), put(unknown("folded")), put(place("given", "Given")))
	const steps, every = 60, 20 * time.Second
	from := r.clock.now().Truncate(time.Millisecond).Add(-steps * every)
	lengths := [...]int{4, 3, 6, 5, 5, 2, 0, 3, 7, 4}
	update := func(id shortline.StoreID, i int) shortline.QueueUpdate {
		u := shortline.QueueUpdate{ID: id, Length: &lengths[i%len(lengths)], ObservedAt: from.Add(time.Duration(i) * every)}
		if i%10 == 4 {
			u.Length, u.Delta = nil, new(-1)
		}
		return u
	}
	var flow shortline.Flow
	var model shortline.Queue
	var folded []replication.Write
	for i := range steps {
		u := update("single", i)
		after := u.Apply(r.clock.now(), &model).Queue
		if i > 0 {
			flow = flow.Seen(&u, &model, &after)
		}
		after.LearnedS = flow.ServiceS()
		model = after
		res := r.item(queue(u))
		expect(r, "service time in an answer", res.ServiceS, model.LearnedS)
		expectQueue(r, "the queue in an answer", &res.Queue.Queue, &model)
		expect(r, "service time where it is given", r.item(queue(update("given", i))).ServiceS, 42.5)
		if folded = append(folded, write(queue(update("folded", i)))); len(folded) == 7 || i == steps-1 {
			r.commit(folded...)
			folded = nil
		}
	}
	if model.LearnedS == 0 {
		r.Fatalf("this check is of no use: nothing is learned from %+v", flow)
	}
	late := update("single", 0) // not applied: the answer tells of what is stored
	expect(r, "service time with an older report", r.item(queue(late)).ServiceS, model.LearnedS)
	for _, id := range []shortline.StoreID{"single", "folded", "given"} {
		q := r.mustRow(id).Queue
		if q == nil || q.LearnedS != model.LearnedS {
			r.Errorf("the queue of %s is %+v, want a service time of %v s", id, q, model.LearnedS)
		}
	}
	r.reopen()
	_, token := r.commit(write(put(unknown("z"))))
	replayed := newReplica()
	replayed.apply(r.feed(start, token, 100))
	expectRows(r, "the feed replayed", replayed.rows(), r.all(10))

	r.items(del("single"), put(unknown("single")), length("single", 3))
	expect(r, "service time of a store that came back", r.mustRow("single").Queue.LearnedS, 0)
}
