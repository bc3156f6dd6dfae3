package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// While a transaction hangs, and then fails, writes to other stores go on as if there were nothing, and those to its stores wait.
func TestBatcherTransactionThatHangsHoldsUpItsStoresOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newCluster(t), 0
		store.fault = func([]string) fault { // of the first transaction
			if calls++; calls == 1 {
				return hangs
			}
			return works
		}
		b := startBatcher(t, store, replication.BatcherConfig{InFlight: 3, CommitTimeout: time.Minute})
		hung := []<-chan answer{b.submit(t.Context(), numbered(1, "x", "y")), b.submit(t.Context(), numbered(2, "x")), b.submit(t.Context(), numbered(3, "y"))}
		start := time.Now()
		for i := range 10 {
			for j, id := range []string{"a", "b"} {
				if _, _, err := b.Submit(t.Context(), numbered(10+2*i+j, id)); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		}
		if took := time.Since(start); took >= time.Minute {
			t.Errorf("the other stores waited until the transaction that hangs gave up: %v", took)
		}
		for i, want := range []error{context.DeadlineExceeded, nil, nil} {
			if a := <-hung[i]; !errors.Is(a.err, want) {
				t.Errorf("write %d: %v, want %v", i+1, a.err, want)
			}
		}
	})
}

// A transaction begins at once if none is under way; beside n others after n times Linger, or with MaxItems.
func TestBatcherWaitsForCompanyOnlyBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{InFlight: 4, MaxItems: 10, Linger: 2 * time.Millisecond})
		begun := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, items := range store.tried() {
				got = append(got, strings.Join(items, " "))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s the transactions are %q, want %q", when, got, want)
			}
		}
		b.submit(t.Context(), write("a"))
		begun("at once", "a")
		b.submit(t.Context(), write("b"))
		time.Sleep(time.Millisecond)
		b.submit(t.Context(), write("c"))
		begun("after 1 ms", "a")
		time.Sleep(time.Millisecond)
		begun("after 2 ms", "a", "b c")
		b.submit(t.Context(), write("d"))
		time.Sleep(3 * time.Millisecond)
		b.submit(t.Context(), write("a")) // is under way, and does not count
		begun("beside two, after 3 ms", "a", "b c")
		time.Sleep(time.Millisecond)
		begun("beside two, after 4 ms", "a", "b c", "d")
		b.submit(t.Context(), write("e"))
		b.submit(t.Context(), writeOf("full", 9))
		begun("with enough for a full one", "a", "b c", "d", "e full-0 full-1 full-2 full-3 full-4 full-5 full-6 full-7 full-8")
		b.submit(t.Context(), write("f"))
		time.Sleep(time.Second)
		begun("with as many as may be", "a", "b c", "d", "e full-0 full-1 full-2 full-3 full-4 full-5 full-6 full-7 full-8")
		close(store.gate)
		synctest.Wait()
		if times := store.times(); times["a"] != 2 || times["f"] != 1 {
			t.Errorf("in the end written were %v", times)
		}
	})
}

// A write to several stores that waits for one of them is not overtaken by later ones to the others, and no others wait for it.
func TestBatcherOvertakesOnlyWhereNothingIsInCommon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{InFlight: 3})
		answers := []<-chan answer{b.submit(t.Context(), write("a"))}
		for _, w := range []replication.Write{write("a", "b"), write("b"), write("b", "c"), write("d"), write("c")} {
			answers = append(answers, b.submit(t.Context(), w))
		}
		time.Sleep(time.Second)
		close(store.gate)
		for _, c := range answers {
			if a := returned(t, c); a.err != nil {
				t.Error(a.err)
			}
		}
		want := [][]string{{"a"}, {"d"}, {"a", "b", "b", "b", "c", "c"}}
		if got := store.tried(); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("the transactions are %v, want %v", got, want)
		}
	})
}

// What cannot go is looked through only so far, whatever waits; it all goes in the end.
func TestBatcherManyWritesToOneStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{InFlight: 2, MaxItems: 10})
		var answers []<-chan answer
		for range 300 {
			answers = append(answers, b.submit(t.Context(), write("hot")))
		}
		answers = append(answers, b.submit(t.Context(), write("cold")))
		time.Sleep(time.Second)
		if tries := store.tried(); len(tries) != 1 {
			t.Errorf("past 40 writes that cannot go, one that can was looked for: %v", tries)
		}
		close(store.gate)
		for _, c := range answers {
			if a := returned(t, c); a.err != nil {
				t.Error(a.err)
			}
		}
		if times := store.times(); times["hot"] != 300 || times["cold"] != 1 {
			t.Errorf("written were %v", times)
		}
		if n := len(store.committed()); n > 33 {
			t.Errorf("it took %d transactions", n)
		}
	})
}

// A writer that gives up while it waits makes room at once, for any store.
func TestBatcherWithdrawalMakesRoom(t *testing.T) {
	for _, inFlight := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d in flight", inFlight), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &ledger{gate: make(chan struct{})}
				registry := prometheus.NewRegistry()
				b := startBatcher(t, store, replication.BatcherConfig{InFlight: inFlight, MaxWaiting: 6, Registerer: registry})
				const one, other = "a", "b"
				accepted := []<-chan answer{b.submit(t.Context(), write(one)), b.submit(t.Context(), write(one)), b.submit(t.Context(), write(other))}
				time.Sleep(time.Second)
				if inFlight > 1 { // the first of each store is under way
					accepted = append(accepted, b.submit(t.Context(), write(other)))
				}
				ctx, cancel := context.WithCancel(t.Context())
				leaves := b.submit(ctx, write(one, one, one, one))
				waiting := func(want float64) {
					t.Helper()
					if n := gathered(t, registry, "shortline_writes_waiting"); n != want {
						t.Errorf("%v items are waiting, want %v", n, want)
					}
				}
				waiting(6)
				for _, id := range []string{one, other} {
					if a := returned(t, b.submit(t.Context(), write(id))); !errors.Is(a.err, replication.ErrOverloaded) {
						t.Errorf("a write past the bound: %v", a.err)
					}
				}
				cancel()
				if a := returned(t, leaves); !errors.Is(a.err, context.Canceled) || errors.Is(a.err, replication.ErrOutcomeUnknown) {
					t.Errorf("a writer that gave up while it waited got %v", a.err)
				}
				waiting(2)
				for range 2 {
					accepted = append(accepted, b.submit(t.Context(), write(one)), b.submit(t.Context(), write(other)))
				}
				waiting(6)
				close(store.gate)
				for _, c := range accepted {
					if a := returned(t, c); a.err != nil {
						t.Error(a.err)
					}
				}
				if all := slices.Concat(store.committed()...); len(all) != len(accepted) {
					t.Errorf("the store has %v, want %d items", all, len(accepted))
				}
				waiting(0)
			})
		})
	}
}

func TestBatcherShutdownWithSeveralInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		registry := prometheus.NewRegistry()
		b := replication.NewBatcher(store, replication.BatcherConfig{InFlight: 4, MaxItems: 2, Registerer: registry})
		ctx, stop := context.WithCancel(t.Context())
		ended := async(func() error { return b.Run(ctx) })
		running := &batching{t: t, Batcher: b}
		inFlight := func(want int) {
			t.Helper()
			synctest.Wait()
			if n := gathered(t, registry, "shortline_store_commits_in_flight"); n != float64(want) {
				t.Errorf("%v transactions are in flight, want %d", n, want)
			}
		}
		inFlight(0)
		var answers []<-chan answer
		for range 5 {
			for _, w := range []replication.Write{write("x", "y"), write("a"), write("b")} {
				answers = append(answers, running.submit(t.Context(), w))
			}
		}
		time.Sleep(time.Second)
		inFlight(2) // x y; a b
		stop()
		synctest.Wait()
		for _, id := range []string{"a", "z"} {
			if a := returned(t, running.submit(t.Context(), write(id))); !errors.Is(a.err, replication.ErrClosed) {
				t.Errorf("a write after the end: %v", a.err)
			}
		}
		for range 2 {
			blocked(t, ended, "transactions are under way")
			store.gate <- struct{}{}
		}
		blocked(t, ended, "writes are waiting")
		close(store.gate)
		if err := returned(t, ended); err != nil {
			t.Errorf("Run: %v", err)
		}
		for i, c := range answers {
			if a := returned(t, c); a.err != nil {
				t.Errorf("write %d, accepted before the end: %v", i, a.err)
			}
		}
		inFlight(0)
	})
}

// Committed may take its time: it holds up what its transaction wrote, and no more.
func TestBatcherCommittedThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, calls := make(chan struct{}), make(chan replication.Token, 10)
		b := startBatcher(t, &ledger{}, replication.BatcherConfig{InFlight: 2, Committed: func(token replication.Token) {
			calls <- token
			if token.XID == 1 {
				<-hold
			}
		}})
		held, behind := b.submit(t.Context(), write("a")), b.submit(t.Context(), write("a"))
		a, _, err := b.Submit(t.Context(), write("b"))
		if err != nil || len(a.Items) != 1 || len(calls) != 2 {
			t.Errorf("beside a Committed that blocks a write got %+v, %v; it was called %d times", a, err, len(calls))
		}
		blocked(t, held, "Committed has not returned")
		blocked(t, behind, "Committed has not returned")
		close(hold)
		for _, c := range []<-chan answer{held, behind} {
			if a := returned(t, c); a.err != nil {
				t.Error(a.err)
			}
		}
	})
}

// A store that hangs while a failed batch is tried again one by one is the cause for those that come after, and not their
// neighbour; an unknown outcome is its own write's only.
func TestBatcherCauseForThoseNotTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		fault     fault
		one, rest error
	}{
		"hangs":   {hangs, context.DeadlineExceeded, context.DeadlineExceeded},
		"unknown": {unknownLost, replication.ErrOutcomeUnknown, errPoison},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, calls := newCluster(t), 0
				b := startBatcher(t, store, replication.BatcherConfig{})
				store.fault = func([]string) fault { // of the first, the batch, the poison alone, and a alone
					if calls++; calls == 4 {
						return c.fault
					}
					return works
				}
				first := b.submit(t.Context(), numbered(0, "first"))
				var answers []<-chan answer
				for i, id := range []string{"poison", "a", "b", "c"} {
					answers = append(answers, b.submit(t.Context(), numbered(i+1, id)))
				}
				if a := <-first; a.err != nil {
					t.Error(a.err)
				}
				for i, want := range []error{errPoison, c.one, c.rest, c.rest} {
					a := <-answers[i]
					if !errors.Is(a.err, want) || errors.Is(a.err, replication.ErrOutcomeUnknown) != (want == replication.ErrOutcomeUnknown) {
						t.Errorf("write %d got %v, want %v", i+1, a.err, want)
					}
				}
				if calls != 4 {
					t.Errorf("the store was asked %d times, want 4", calls)
				}
			})
		})
	}
}

// fault is what becomes of a commit.
type fault int

const (
	works fault = iota
	fails
	hangs
	unknownDone // the outcome is unknown, and it is committed
	unknownLost // the outcome is unknown, and it is not
)

var errDisk = errors.New("the disk is full")

// cluster is a Committer that takes several commits at once, each for a while of virtual time, and watches that no two of
// them have a store in common. A write is known by the Length of its updates, which no other write has; one whose first store
// is "poison" makes the commit fail.
type cluster struct {
	t     *testing.T
	fault func(stores []string) fault // called with mu held, as is takes
	takes func() time.Duration

	mu       sync.Mutex
	inFlight int              // guarded by mu
	busy     map[string]bool  // guarded by mu: stores that are being written
	most     int              // guarded by mu: commits in flight
	log      map[string][]int // guarded by mu: the writes of each store as they were committed
	last     uint64           // guarded by mu: XID
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, fault: func([]string) fault { return works }, takes: func() time.Duration { return 20 * time.Millisecond },
		busy: map[string]bool{}, log: map[string][]int{}}
}

// numbered makes a write to the stores that is known by n.
func numbered(n int, stores ...string) (w replication.Write) {
	for _, id := range stores {
		w.Items = append(w.Items, replication.Item{Queue: &shortline.QueueUpdate{ID: shortline.StoreID(id), Length: &n}})
	}
	return w
}

func (c *cluster) Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error) {
	var stores []string
	for _, w := range writes {
		for _, it := range w.Items {
			stores = append(stores, string(it.Queue.ID))
		}
	}
	slices.Sort(stores)
	stores = slices.Compact(stores)
	fault, takes := c.enter(stores)
	defer c.leave(stores)
	if fault == hangs {
		<-ctx.Done()
		return nil, replication.Token{}, ctx.Err()
	}
	time.Sleep(takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		c.t.Errorf("the context of a commit ended: %v", err)
	}
	for _, w := range writes {
		if strings.HasPrefix(string(w.Items[0].Queue.ID), "poison") {
			return nil, replication.Token{}, errPoison
		}
	}
	switch fault {
	case fails:
		return nil, replication.Token{}, errDisk
	case unknownLost:
		return nil, replication.Token{}, fmt.Errorf("lost: %w", replication.ErrOutcomeUnknown)
	}
	c.last++
	results := make([]replication.Result, len(writes))
	for i, w := range writes {
		for _, it := range w.Items {
			id := string(it.Queue.ID)
			c.log[id] = append(c.log[id], *it.Queue.Length)
			results[i].Items = append(results[i].Items, replication.ItemResult{Rev: uint64(*it.Queue.Length)})
		}
	}
	if fault == unknownDone {
		return nil, replication.Token{}, fmt.Errorf("done: %w", replication.ErrOutcomeUnknown)
	}
	return results, replication.Token{Epoch: 1, XID: c.last}, nil
}

func (c *cluster) enter(stores []string) (fault, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range stores {
		if c.busy[id] {
			c.t.Errorf("%s is in two transactions at once", id)
		}
		c.busy[id] = true
	}
	c.inFlight++
	c.most = max(c.most, c.inFlight)
	return c.fault(stores), c.takes()
}

func (c *cluster) leave(stores []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range stores {
		delete(c.busy, id)
	}
	c.inFlight--
}

// sent is a write and what came of it.
type sent struct {
	n      int
	stores []string
	token  replication.Token
	err    error
}

// TestBatcherProperty lets clients write to random stores, one and several, poison, give up and be refused, while
// transactions with some stores fail in every way, and then holds every answer against what the store has. That every client ends is
// the proof that each Submit was answered.
func TestBatcherProperty(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 5
	}
	kinds, most := map[string]int{}, 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			store := newCluster(t)
			cfg := replication.BatcherConfig{InFlight: 1 + rng.IntN(6), MaxItems: 1 + rng.IntN(12), MaxWaiting: 30 + rng.IntN(40), CommitTimeout: time.Second}
			b := replication.NewBatcher(store, cfg)
			sick := rng.IntN(4) // so many stores are; perhaps none
			faults := rand.New(rand.NewPCG(uint64(seed), 8))
			store.fault = func(stores []string) fault {
				ill := slices.ContainsFunc(stores, func(id string) bool { return slices.Contains([]string{"s0", "s1", "s2"}[:min(sick, 3)], id) })
				if !ill || faults.IntN(3) == 0 {
					return works
				}
				return fault(faults.IntN(5))
			}
			store.takes = func() time.Duration { return time.Duration(faults.IntN(20)) * time.Millisecond }
			ctx, stop := context.WithCancel(t.Context())
			ended := async(func() error { return b.Run(ctx) })
			logs := make([][]sent, 24)
			var clients sync.WaitGroup
			for i := range logs {
				clients.Go(func() { logs[i] = writeForAWhile(t, b, i, rand.New(rand.NewPCG(uint64(seed), uint64(100+i)))) })
			}
			time.Sleep(time.Second)
			stop()
			clients.Wait()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			if store.most > cfg.InFlight {
				t.Errorf("%d commits were in flight, and %d may be", store.most, cfg.InFlight)
			}
			most = max(most, store.most)
			audit(t, store, logs, kinds, sick > 0)
			if t.Failed() {
				t.Logf("seed %d: %+v", seed, cfg)
			}
		})
	}
	t.Logf("%v; up to %d commits in flight", kinds, most)
	for _, kind := range []string{"acknowledged", "unknown", "poison", "disk", "hung", "withdrawn", "refused", "closed"} {
		if kinds[kind] == 0 && !testing.Short() {
			t.Errorf("no write was %s: the test does not test that", kind)
		}
	}
	if most < 3 {
		t.Errorf("at most %d commits were in flight at once", most)
	}
}

// writeForAWhile is a client that sends the next write once the last is answered, and goes when the Batcher is closed.
func writeForAWhile(t *testing.T, b *replication.Batcher, client int, rng *rand.Rand) (log []sent) {
	for i := 1; ; i++ {
		s := sent{n: 1_000_000*(client+1) + i}
		for range 1 + max(0, rng.IntN(7)-3) {
			s.stores = append(s.stores, fmt.Sprintf("s%d", rng.IntN(25)))
		}
		if rng.IntN(30) == 0 {
			s.stores[0] = fmt.Sprintf("poison%d", rng.IntN(5))
		}
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if rng.IntN(4) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(30))*time.Millisecond)
		}
		var result replication.Result
		result, s.token, s.err = b.Submit(ctx, numbered(s.n, s.stores...))
		if s.err == nil {
			for _, it := range result.Items {
				if it.Rev != uint64(s.n) {
					t.Errorf("write %d got the result of write %d", s.n, it.Rev)
				}
			}
			if len(result.Items) != len(s.stores) {
				t.Errorf("write %d of %d items got %d results", s.n, len(s.stores), len(result.Items))
			}
		}
		own := ctx.Err() != nil && errors.Is(s.err, context.DeadlineExceeded)
		cancel()
		if own && !errors.Is(s.err, replication.ErrOutcomeUnknown) {
			s.err = errWithdrawn
		}
		log = append(log, s)
		if errors.Is(s.err, replication.ErrClosed) {
			return log
		}
		time.Sleep(time.Duration(rng.IntN(5)) * time.Millisecond)
	}
}

var errWithdrawn = errors.New("withdrawn")

// audit holds the answers of each client, in the order in which it got them, against the store.
func audit(t *testing.T, store *cluster, logs [][]sent, kinds map[string]int, sick bool) {
	times := map[int]int{}
	for _, log := range store.log {
		for _, n := range log {
			times[n]++
		}
	}
	for client, log := range logs {
		acknowledged, token := map[string][]int{}, replication.Token{}
		for _, s := range log {
			kind, written := "", 0
			switch {
			case s.err == nil:
				kind, written = "acknowledged", len(s.stores)
				if !token.Less(s.token) {
					t.Errorf("client %d got token %+v after %+v", client, s.token, token)
				}
				token = s.token
				for _, id := range s.stores {
					acknowledged[id] = append(acknowledged[id], s.n)
				}
			case errors.Is(s.err, errWithdrawn):
				kind = "withdrawn"
			case errors.Is(s.err, replication.ErrOutcomeUnknown):
				if kind, written = "unknown", times[s.n]; written != 0 {
					written = len(s.stores)
				}
			case errors.Is(s.err, errPoison) && (strings.HasPrefix(s.stores[0], "poison") || sick):
				kind = "poison" // or behind one in a batch that was given up because of an unknown outcome
			case errors.Is(s.err, errDisk) && sick:
				kind = "disk"
			case errors.Is(s.err, context.DeadlineExceeded) && sick:
				kind = "hung"
			case errors.Is(s.err, replication.ErrOverloaded):
				kind = "refused"
			case errors.Is(s.err, replication.ErrClosed):
				kind = "closed"
			default:
				t.Errorf("write %d to %v got %v, and no store is sick", s.n, s.stores, s.err)
			}
			kinds[kind]++
			if times[s.n] != written {
				t.Errorf("write %d to %v is %s (%v), and %d times in the store, want %d", s.n, s.stores, kind, s.err, times[s.n], written)
			}
			delete(times, s.n)
		}
		for id, want := range acknowledged {
			own := slices.DeleteFunc(slices.Clone(store.log[id]), func(n int) bool { return !slices.Contains(want, n) })
			if !slices.Equal(own, want) {
				t.Errorf("client %d's acknowledged writes to %s are in the order %v, want %v", client, id, own, want)
			}
		}
	}
	if len(times) != 0 {
		t.Errorf("the store has %d writes that nobody sent", len(times))
	}
}
