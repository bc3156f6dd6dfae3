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

// laneIDs returns n store ids for each of the lanes of b that take writes to one store.
func laneIDs(b *replication.Batcher, lanes, n int) [][]string {
	ids, full := make([][]string, lanes-1), 0
	for i := 0; full < lanes-1; i++ {
		id := fmt.Sprintf("s%d", i)
		if l := b.LaneOf(write(id)); len(ids[l]) < n {
			if ids[l] = append(ids[l], id); len(ids[l]) == n {
				full++
			}
		}
	}
	return ids
}

func TestBatcherLaneOfAWrite(t *testing.T) {
	const lanes, several = 8, 7
	b := replication.NewBatcher(&ledger{}, replication.BatcherConfig{Lanes: lanes})
	item := func(it replication.Item) replication.Write { return replication.Write{Items: []replication.Item{it}} }
	counts := make([]int, lanes)
	for i := range 7000 {
		id := shortline.StoreID(fmt.Sprintf("1001-%d", i))
		remove, queue, put := replication.Item{Delete: id}, replication.Item{Queue: &shortline.QueueUpdate{ID: id}}, replication.Item{Put: &shortline.Store{ID: id}}
		lane := b.LaneOf(item(remove))
		counts[lane]++
		for _, w := range []replication.Write{item(queue), item(put), {Items: []replication.Item{queue, put, remove}}} {
			if got := b.LaneOf(w); got != lane {
				t.Fatalf("writes to %s go to the lanes %d and %d", id, lane, got)
			}
		}
		if got := b.LaneOf(write(string(id), "another")); got != several {
			t.Fatalf("a write to two stores goes to lane %d", got)
		}
	}
	for lane, n := range counts {
		if lane == several && n != 0 || lane != several && (n < 800 || n > 1200) {
			t.Errorf("lane %d has %d of 7000 stores", lane, n)
		}
	}
	keys := map[int]bool{}
	for i := range 100 {
		keys[b.LaneOf(item(replication.Item{Key: &shortline.Key{ID: shortline.KeyID(fmt.Sprint(i))}}))] = true
	}
	if len(keys) != several {
		t.Errorf("API keys are spread over %d lanes", len(keys))
	}
	one := replication.NewBatcher(&ledger{}, replication.BatcherConfig{})
	if got := one.LaneOf(write("a", "b")); got != 0 {
		t.Errorf("without lanes a write goes to lane %d", got)
	}
}

// While a transaction of one lane hangs, and then fails, the other lanes go on as if there were nothing.
func TestBatcherLaneThatHangsHoldsUpNoOther(t *testing.T) {
	const lanes = 4
	for name, sick := range map[string]int{"a lane of single stores": 0, "the lane of several": lanes - 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newCluster(t)
				b := startBatcher(t, store, replication.BatcherConfig{Lanes: lanes, CommitTimeout: time.Minute})
				store.lane = b.LaneOf
				store.fault = func(lane int) fault {
					if lane == sick {
						return hangs
					}
					return works
				}
				ids := laneIDs(b.Batcher, lanes, 1)
				in := func(lane, i int) replication.Write {
					if lane == lanes-1 {
						return numbered(i, "x", "y")
					}
					return numbered(i, ids[lane][0])
				}
				hung := []<-chan answer{b.submit(t.Context(), in(sick, 1)), b.submit(t.Context(), in(sick, 2))}
				start := time.Now()
				for i := range 10 {
					for lane := range lanes {
						if lane == sick {
							continue
						}
						if _, _, err := b.Submit(t.Context(), in(lane, 10+lanes*i+lane)); err != nil {
							t.Errorf("lane %d: %v", lane, err)
						}
					}
				}
				if took := time.Since(start); took >= time.Minute {
					t.Errorf("the other lanes waited until the one that hangs gave up: %v", took)
				}
				for i, c := range hung {
					if a := <-c; !errors.Is(a.err, context.DeadlineExceeded) {
						t.Errorf("write %d to the lane that hangs: %v", i, a.err)
					}
				}
			})
		})
	}
}

// What waits in a lane is committed in the order in which it came, in as few transactions as in a Batcher without lanes.
func TestBatcherOrderWithinALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lanes = 4
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{Lanes: lanes, MaxItems: 10})
		ids := laneIDs(b.Batcher, lanes, 5)
		ids = append(ids, []string{"a", "b", "c"})
		want := make([][]string, lanes)
		lane := map[string]int{}
		rng := rand.New(rand.NewPCG(1, 1))
		var answers []<-chan answer
		for range 300 {
			l := rng.IntN(lanes)
			first, second := ids[l][rng.IntN(len(ids[l]))], ids[l][rng.IntN(len(ids[l]))]
			if l < lanes-1 {
				second = first
			} else if second == first {
				second = "d"
			}
			w := write(first, second)
			if got := b.LaneOf(w); got != l {
				t.Fatalf("%v is in lane %d, not %d", w, got, l)
			}
			answers = append(answers, b.submit(t.Context(), w))
			want[l] = append(want[l], first, second)
			lane[first], lane[second] = l, l
		}
		close(store.gate)
		for _, c := range answers {
			if a := returned(t, c); a.err != nil {
				t.Error(a.err)
			}
		}
		got, transactions := make([][]string, lanes), make([]int, lanes)
		for _, items := range store.committed() {
			if len(items) > 10 {
				t.Errorf("a transaction has %d items", len(items))
			}
			l := lane[items[0]]
			got[l] = append(got[l], items...)
			transactions[l]++
		}
		for l := range lanes {
			if !slices.Equal(got[l], want[l]) {
				t.Errorf("lane %d: the order is %v, want %v", l, got[l], want[l])
			}
			if most := 1 + (len(want[l])-2+9)/10; transactions[l] > most {
				t.Errorf("lane %d took %d transactions for %d items, want at most %d", l, transactions[l], len(want[l]), most)
			}
		}
	})
}

// MaxWaiting is over all lanes, and a writer that gives up while it waits makes room at once, for any lane.
func TestBatcherWithdrawalMakesRoom(t *testing.T) {
	for _, lanes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d lanes", lanes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &ledger{gate: make(chan struct{})}
				registry := prometheus.NewRegistry()
				b := startBatcher(t, store, replication.BatcherConfig{Lanes: lanes, MaxWaiting: 6, Registerer: registry})
				one, other := "a", "b" // of the same lane and of another
				if lanes > 1 {
					ids := laneIDs(b.Batcher, lanes, 1)
					one, other = ids[0][0], ids[1][0]
				}
				accepted := []<-chan answer{b.submit(t.Context(), write(one)), b.submit(t.Context(), write(one)), b.submit(t.Context(), write(other))}
				if lanes > 1 { // the first of each lane is under way
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

func TestBatcherShutdownOfLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lanes = 4
		store := &ledger{gate: make(chan struct{})}
		registry := prometheus.NewRegistry()
		b := replication.NewBatcher(store, replication.BatcherConfig{Lanes: lanes, MaxItems: 2, Registerer: registry})
		ctx, stop := context.WithCancel(t.Context())
		ended := async(func() error { return b.Run(ctx) })
		running := &batching{t: t, Batcher: b}
		writes := []replication.Write{write("x", "y")}
		for _, ids := range laneIDs(b, lanes, 1)[1:] { // one lane is idle
			writes = append(writes, write(ids[0]))
		}
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
			for _, w := range writes {
				answers = append(answers, running.submit(t.Context(), w))
			}
		}
		inFlight(len(writes))
		stop()
		synctest.Wait()
		for _, ids := range laneIDs(b, lanes, 1) {
			if a := returned(t, running.submit(t.Context(), write(ids[0]))); !errors.Is(a.err, replication.ErrClosed) {
				t.Errorf("a write after the end: %v", a.err)
			}
		}
		for range len(writes) {
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

// Committed may take its time: it holds up its own lane only.
func TestBatcherCommittedOfSeveralLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, calls := make(chan struct{}), make(chan replication.Token, 10)
		b := startBatcher(t, &ledger{}, replication.BatcherConfig{Lanes: 3, Committed: func(token replication.Token) {
			calls <- token
			if token.XID == 1 {
				<-hold
			}
		}})
		ids := laneIDs(b.Batcher, 3, 1)
		held, behind := b.submit(t.Context(), write(ids[0][0])), b.submit(t.Context(), write(ids[0][0]))
		if a := returned(t, b.submit(t.Context(), write(ids[1][0]))); a.err != nil || a.token.XID != 2 || len(calls) != 2 {
			t.Errorf("beside a Committed that blocks a write got %+v; it was called %d times", a, len(calls))
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
				store.lane = b.LaneOf
				store.fault = func(int) fault { // of the first, the batch, the poison alone, and a alone
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

// cluster is a Committer that takes several commits at once, each for a while of virtual time, and watches that the Batcher
// keeps to its lanes. A write is known by the Length of its updates, which no other write has; one whose first store is
// "poison" makes the commit fail.
type cluster struct {
	t     *testing.T
	lane  func(replication.Write) int
	fault func(lane int) fault // called with mu held, as is takes
	takes func() time.Duration

	mu       sync.Mutex
	inFlight map[int]bool     // guarded by mu: by lane
	most     int              // guarded by mu: commits in flight
	log      map[string][]int // guarded by mu: the writes of each store as they were committed
	last     uint64           // guarded by mu: XID
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, fault: func(int) fault { return works }, takes: func() time.Duration { return 20 * time.Millisecond },
		inFlight: map[int]bool{}, log: map[string][]int{}}
}

// numbered makes a write to the stores that is known by n.
func numbered(n int, stores ...string) (w replication.Write) {
	for _, id := range stores {
		w.Items = append(w.Items, replication.Item{Queue: &shortline.QueueUpdate{ID: shortline.StoreID(id), Length: &n}})
	}
	return w
}

func (c *cluster) Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error) {
	lane := c.lane(writes[0])
	for _, w := range writes {
		if l := c.lane(w); l != lane {
			c.t.Errorf("a transaction has writes of the lanes %d and %d", lane, l)
		}
	}
	fault, takes := c.enter(lane)
	defer c.leave(lane)
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

func (c *cluster) enter(lane int) (fault, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inFlight[lane] {
		c.t.Errorf("lane %d has two commits in flight", lane)
	}
	c.inFlight[lane] = true
	c.most = max(c.most, len(c.inFlight))
	return c.fault(lane), c.takes()
}

func (c *cluster) leave(lane int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.inFlight, lane)
}

// sent is a write and what came of it.
type sent struct {
	n      int
	stores []string
	token  replication.Token
	err    error
}

// TestBatcherLanesProperty lets clients write to random stores, one and several, poison, give up and be refused, while one
// lane of the store fails in every way, and then holds every answer against what the store has. That every client ends is
// the proof that each Submit was answered.
func TestBatcherLanesProperty(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 5
	}
	kinds, most := map[string]int{}, 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			store := newCluster(t)
			cfg := replication.BatcherConfig{Lanes: 1 + rng.IntN(6), MaxItems: 1 + rng.IntN(12), MaxWaiting: 30 + rng.IntN(40), CommitTimeout: time.Second}
			b := replication.NewBatcher(store, cfg)
			sick := rng.IntN(cfg.Lanes + 1) // perhaps none
			faults := rand.New(rand.NewPCG(uint64(seed), 8))
			store.lane = b.LaneOf
			store.fault = func(lane int) fault {
				if lane != sick || faults.IntN(3) == 0 {
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
			if store.most > cfg.Lanes {
				t.Errorf("%d commits were in flight in %d lanes", store.most, cfg.Lanes)
			}
			most = max(most, store.most)
			audit(t, store, logs, kinds, func(s sent) bool { return b.LaneOf(numbered(s.n, s.stores...)) == sick })
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
func audit(t *testing.T, store *cluster, logs [][]sent, kinds map[string]int, sick func(sent) bool) {
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
			case errors.Is(s.err, errPoison) && (strings.HasPrefix(s.stores[0], "poison") || sick(s)):
				kind = "poison" // or behind one in a batch that was given up because of an unknown outcome
			case errors.Is(s.err, errDisk) && sick(s):
				kind = "disk"
			case errors.Is(s.err, context.DeadlineExceeded) && sick(s):
				kind = "hung"
			case errors.Is(s.err, replication.ErrOverloaded):
				kind = "refused"
			case errors.Is(s.err, replication.ErrClosed):
				kind = "closed"
			default:
				t.Errorf("write %d to %v got %v, which is not its own fault nor its lane's", s.n, s.stores, s.err)
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
