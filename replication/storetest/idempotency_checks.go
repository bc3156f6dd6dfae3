package storetest

import (
	"time"

	"github.com/shortline/shortline/replication"
)

// sameAnswer compares what a client would be told.
func sameAnswer(r *rig, what string, got, want replication.Result) {
	r.Helper()
	if got.Err != nil || !got.Replayed || len(got.Items) != len(want.Items) {
		r.Fatalf("%s: %+v is not a replay of %+v", what, got, want)
	}
	sameMoment(r, what+": the time", got.At, want.At)
	for i := range got.Items {
		g, w := got.Items[i], want.Items[i]
		if g.Status != w.Status || g.Rev != w.Rev || g.ServiceS != w.ServiceS || (g.Queue == nil) != (w.Queue == nil) {
			r.Errorf("%s: item %d is %+v, want %+v", what, i, g, w)
			continue
		}
		if g.Queue != nil {
			expectQueue(r, what+": the queue", &g.Queue.Queue, &w.Queue.Queue)
			expect(r, what+": applied", g.Queue.Applied, w.Queue.Applied)
			expect(r, what+": reason", g.Queue.Reason, w.Queue.Reason)
			expect(r, what+": clamped", g.Queue.Clamped, w.Queue.Clamped)
		}
	}
}

func checkIdempotency(r *rig) {
	r.items(put(place("a", "A")), length("a", 10))
	start := r.here()
	again := func(scope, key string, body byte) replication.Result {
		r.Helper()
		r.clock.advance(time.Minute)
		results, _ := r.commit(replication.Write{
			Items:       []replication.Item{delta("a", -15), delta("a", 4), length("nowhere", 1), put(place("new", "New")), del("gone")},
			Idempotency: keyed(scope, key, body, time.Hour),
		})
		return results[0]
	}
	first := again("scope", "key", 1)
	if first.Replayed || first.Err != nil {
		r.Fatalf("the first request is %+v", first)
	}
	sameAnswer(r, "the request again", again("scope", "key", 1), first)
	expect(r, "length after a replay", r.mustRow("a").Queue.Length, 4)
	r.reopen()
	sameAnswer(r, "the request after a restart", again("scope", "key", 1), first)

	mismatch := again("scope", "key", 2)
	expectErr(r, "the key with another body", mismatch.Err, replication.ErrIdempotencyMismatch)
	expect(r, "length after a mismatch", r.mustRow("a").Queue.Length, 4)
	sameAnswer(r, "the request after a mismatch", again("scope", "key", 1), first)

	for _, other := range []replication.Result{again("other scope", "key", 1), again("scope", "other key", 1), again("", "scopekey", 3)} {
		if other.Replayed || other.Err != nil {
			r.Errorf("another scope or key got %+v", other)
		}
	}
	odd := "\x00 ütf-8 'quote\" " + string([]byte{0xff, 0xfe})
	first = again(odd, odd, 9)
	sameAnswer(r, "an odd key again", again(odd, odd, 9), first)

	// A write that applies nothing is remembered all the same: the store may be there the next time.
	missing := replication.Write{Items: []replication.Item{length("later", 1)}, Idempotency: keyed("s", "missing", 1, time.Hour)}
	results, _ := r.commit(missing)
	r.item(put(place("later", "Later")))
	repeated, token := r.commit(missing)
	sameAnswer(r, "a request that found nothing", repeated[0], results[0])
	// One of the queue in each of 5 requests, the one put that made a difference, and "later".
	expect(r, "changes, which replays do not add to", len(r.feed(start, token, 100)), 5+1+1)
}

func checkIdempotencyInOneBatch(r *rig) {
	r.items(put(place("a", "A")))
	w := replication.Write{Items: []replication.Item{delta("a", 1)}, Idempotency: keyed("s", "k", 1, time.Hour)}
	other := replication.Write{Items: []replication.Item{delta("a", 100)}, Idempotency: keyed("s", "k", 2, time.Hour)}
	results, _ := r.commit(w, write(delta("a", 10)), w, other, write(delta("a", 10)))
	sameAnswer(r, "the same key in one batch", results[2], results[0])
	expectErr(r, "the same key with another body in one batch", results[3].Err, replication.ErrIdempotencyMismatch)
	expect(r, "length", r.mustRow("a").Queue.Length, 21)
	if q := results[4].Items[0].Queue; results[4].Err != nil || q == nil || q.Queue.Length != 21 {
		r.Errorf("the write after a mismatch in its batch is %+v", results[4])
	}
}

func checkIdempotencyExpires(r *rig) {
	r.items(put(place("a", "A")))
	add := func(key string, body byte, ttl time.Duration) replication.Result {
		r.Helper()
		results, _ := r.commit(replication.Write{Items: []replication.Item{delta("a", 1)}, Idempotency: keyed("s", key, body, ttl)})
		return results[0]
	}
	day := add("day", 1, 24*time.Hour)
	add("short", 1, time.Hour)
	r.clock.advance(23 * time.Hour)
	if err := r.Prune(r.ctx, time.Time{}, r.clock.now()); err != nil {
		r.Fatalf("Prune: %v", err)
	}
	sameAnswer(r, "a key within its life", add("day", 1, 24*time.Hour), day)
	if res := add("short", 2, time.Hour); res.Err != nil || res.Replayed {
		r.Errorf("a key past its life got %+v, want it to be as new", res)
	}
	r.clock.advance(2 * time.Hour) // a replay did not lengthen the life
	if err := r.Prune(r.ctx, time.Time{}, r.clock.now()); err != nil {
		r.Fatalf("Prune: %v", err)
	}
	if res := add("day", 1, 24*time.Hour); res.Err != nil || res.Replayed {
		r.Errorf("a key past its life got %+v, want it to be as new", res)
	}
	expect(r, "length", r.mustRow("a").Queue.Length, 4)
}
