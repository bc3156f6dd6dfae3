package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

var errPoison = errors.New("the database cannot take this")

// ledger is a Committer in memory. An item is known by its Delete; one that starts with "poison" makes the commit fail.
type ledger struct {
	// gate, if set, holds every commit until something is sent or it is closed.
	gate chan struct{}
	// hang makes every commit take until its context ends.
	hang bool

	mu      sync.Mutex
	fail    error      // guarded by mu: returned instead of committing, once
	tries   [][]string // guarded by mu: the items of each call
	commits [][]string // guarded by mu: the items of each call that succeeded
	ended   int        // guarded by mu: calls whose context was over already
}

func (l *ledger) Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error) {
	var items []string
	for _, w := range writes {
		for _, it := range w.Items {
			items = append(items, string(it.Delete))
		}
	}
	l.mu.Lock()
	l.tries = append(l.tries, items)
	l.mu.Unlock()
	if l.gate != nil {
		<-l.gate
	}
	if l.hang {
		<-ctx.Done()
		return nil, replication.Token{}, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		l.ended++
	}
	if err := l.fail; err != nil {
		l.fail = nil
		return nil, replication.Token{}, err
	}
	for _, it := range items {
		if len(it) >= 6 && it[:6] == "poison" {
			return nil, replication.Token{}, fmt.Errorf("item %s: %w", it, errPoison)
		}
	}
	l.commits = append(l.commits, items)
	results := make([]replication.Result, len(writes))
	for i, w := range writes {
		results[i].Items = make([]replication.ItemResult, len(w.Items))
		for j := range w.Items { // the place in the transaction, so that a test sees which result is whose
			results[i].Items[j] = replication.ItemResult{Status: replication.StatusDeleted, Rev: uint64(1000*i + j)}
		}
	}
	return results, replication.Token{Epoch: 1, XID: uint64(len(l.commits))}, nil
}

func (l *ledger) committed() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commits)
}

func (l *ledger) tried() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tries)
}

func (l *ledger) failNext(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// times tells how often each item was committed.
func (l *ledger) times() map[string]int {
	times := map[string]int{}
	for _, items := range l.committed() {
		for _, it := range items {
			times[it]++
		}
	}
	return times
}

func write(ids ...string) replication.Write {
	var w replication.Write
	for _, id := range ids {
		w.Items = append(w.Items, replication.Item{Delete: shortline.StoreID(id)})
	}
	return w
}

// writeOf makes a write of n items called name-0, name-1 and so on.
func writeOf(name string, n int) replication.Write {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", name, i)
	}
	return write(ids...)
}

// batching is a Batcher that runs for the length of a test in a synctest bubble.
type batching struct {
	t *testing.T
	*replication.Batcher
	stop context.CancelFunc
	done chan error // holds what Run returned
}

func startBatcher(t *testing.T, store replication.Committer, cfg replication.BatcherConfig) *batching {
	ctx, stop := context.WithCancel(t.Context())
	b := &batching{t: t, Batcher: replication.NewBatcher(store, cfg), stop: stop, done: make(chan error, 1)}
	go func() { b.done <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-b.done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

// answer is what Submit returned.
type answer struct {
	result replication.Result
	token  replication.Token
	err    error
}

// submit hands the write in from a goroutine of its own, and returns when that is blocked or answered.
func (b *batching) submit(ctx context.Context, w replication.Write) <-chan answer {
	return async(func() answer {
		var a answer
		a.result, a.token, a.err = b.Submit(ctx, w)
		return a
	})
}

func TestBatcherCommitsALoneWriterAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{}
		b := startBatcher(t, store, replication.BatcherConfig{})
		start := time.Now()
		for i := range 3 {
			result, token, err := b.Submit(t.Context(), write("a", "b"))
			if err != nil || len(result.Items) != 2 || token != (replication.Token{Epoch: 1, XID: uint64(i + 1)}) {
				t.Fatalf("Submit = %+v, %+v, %v", result, token, err)
			}
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("a writer that is alone waited for %v", waited)
		}
	})
}

func TestBatcherOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{}
		b := startBatcher(t, store, replication.BatcherConfig{})
		if result, token, err := b.Submit(t.Context(), replication.Write{}); err != nil || result.Items != nil || token != (replication.Token{}) {
			t.Errorf("Submit of no items = %+v, %+v, %v", result, token, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := b.Submit(ctx, write("a")); !errors.Is(err, context.Canceled) || errors.Is(err, replication.ErrOutcomeUnknown) {
			t.Errorf("Submit with an ended context: %v", err)
		}
		synctest.Wait()
		if tries := store.tried(); len(tries) != 0 {
			t.Errorf("the store was asked to commit %v", tries)
		}
	})
}

func TestBatcherGroupsWritersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{})
		want := [][]string{{"first"}, nil}
		first := b.submit(t.Context(), write("first"))
		var rest []<-chan answer
		for i := range 100 {
			one, two := fmt.Sprintf("%d-z", i), fmt.Sprintf("%d-a", i) // not in order of their names
			rest = append(rest, b.submit(t.Context(), write(one, two)))
			want[1] = append(want[1], one, two)
		}
		blocked(t, first, "the write is still waiting")
		close(store.gate)
		if a := returned(t, first); a.err != nil || a.token.XID != 1 {
			t.Errorf("the first writer's answer is %+v", a)
		}
		for i, c := range rest {
			a := returned(t, c)
			if a.err != nil || a.token.XID != 2 {
				t.Errorf("writer %d's answer is %+v", i, a)
			}
			if items := a.result.Items; len(items) != 2 || items[0].Rev != uint64(1000*i) || items[1].Rev != uint64(1000*i+1) {
				t.Errorf("writer %d got the results %+v, which are not its own", i, items)
			}
		}
		if got := store.committed(); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("the transactions are %v, want %v", got, want)
		}
	})
}

func TestBatcherMaxItems(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes []int // of the writes that wait
		want  []int // of the transactions
	}{
		{"up to the bound", []int{5, 5, 1}, []int{10, 1}},
		{"one that does not fit opens the next", []int{4, 4, 4, 4, 4}, []int{8, 8, 4}},
		{"a larger one goes alone", []int{25}, []int{25}},
		{"a larger one goes alone between others", []int{4, 4, 4, 25, 3, 7, 1}, []int{8, 4, 25, 10, 1}},
		{"larger ones in a row", []int{11, 12, 13}, []int{11, 12, 13}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &ledger{gate: make(chan struct{})}
				b := startBatcher(t, store, replication.BatcherConfig{MaxItems: 10})
				answers := []<-chan answer{b.submit(t.Context(), write("first"))}
				want := []string{"first"}
				for i, n := range c.sizes {
					w := writeOf(fmt.Sprint(i), n)
					answers = append(answers, b.submit(t.Context(), w))
					for _, it := range w.Items {
						want = append(want, string(it.Delete))
					}
				}
				close(store.gate)
				for _, a := range answers {
					if got := returned(t, a); got.err != nil {
						t.Error(got.err)
					}
				}
				commits := store.committed()
				var sizes []int
				for _, items := range commits[1:] {
					sizes = append(sizes, len(items))
				}
				if !slices.Equal(sizes, c.want) {
					t.Errorf("the transactions have %v items, want %v", sizes, c.want)
				}
				if all := slices.Concat(commits...); !slices.Equal(all, want) {
					t.Errorf("the order is %v, want %v", all, want)
				}
			})
		})
	}
}

func TestBatcherOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		registry := prometheus.NewRegistry()
		b := startBatcher(t, store, replication.BatcherConfig{MaxWaiting: 5, Registerer: registry})
		under := b.submit(t.Context(), writeOf("under-way", 50)) // more than may wait, but nothing else does
		three, two := b.submit(t.Context(), writeOf("three", 3)), b.submit(t.Context(), writeOf("two", 2))
		if n := gathered(t, registry, "shortline_writes_waiting"); n != 5 {
			t.Errorf("%v items are waiting, want 5", n)
		}
		for _, w := range []replication.Write{write("refused"), writeOf("refused-large", 50)} {
			if a := returned(t, b.submit(t.Context(), w)); !errors.Is(a.err, replication.ErrOverloaded) {
				t.Errorf("a write of %d items past the bound: %v", len(w.Items), a.err)
			}
		}
		close(store.gate)
		for _, c := range []<-chan answer{under, three, two} {
			if a := returned(t, c); a.err != nil {
				t.Errorf("a write that was let in: %v", a.err)
			}
		}
		for _, w := range []replication.Write{writeOf("after", 5), writeOf("after-large", 50)} {
			if a := returned(t, b.submit(t.Context(), w)); a.err != nil {
				t.Errorf("a write of %d items after the rush: %v", len(w.Items), a.err)
			}
		}
		times := store.times()
		for item := range times {
			if item[:3] == "ref" {
				t.Errorf("%s was refused and written", item)
			}
		}
		if want := 50 + 3 + 2 + 5 + 50; len(times) != want {
			t.Errorf("%d items were written, want %d", len(times), want)
		}
		if n := gathered(t, registry, "shortline_writes_waiting"); n != 0 {
			t.Errorf("%v items are waiting, want 0", n)
		}
		if n := gathered(t, registry, "shortline_writes_overloaded_total"); n != 2 {
			t.Errorf("%v writes were counted as refused, want 2", n)
		}
	})
}

// gathered returns the value of a gauge or counter.
func gathered(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestBatcherWithdrawsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{})
		first := b.submit(t.Context(), write("first"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		withdrawn, stays := b.submit(ctx, write("withdrawn")), b.submit(t.Context(), write("stays"))
		time.Sleep(time.Second)
		if a := returned(t, withdrawn); !errors.Is(a.err, context.DeadlineExceeded) || errors.Is(a.err, replication.ErrOutcomeUnknown) {
			t.Errorf("a writer that gave up while it waited got %v", a.err)
		}
		close(store.gate)
		for _, c := range []<-chan answer{first, stays} {
			if a := returned(t, c); a.err != nil {
				t.Error(a.err)
			}
		}
		if want, got := [][]string{{"first"}, {"stays"}}, store.committed(); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("the transactions are %v, want %v", got, want)
		}
	})
}

// A batch of which every write was withdrawn is no transaction.
func TestBatcherOfWithdrawnWritesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{})
		b.submit(t.Context(), write("first"))
		ctx, cancel := context.WithCancel(t.Context())
		b.submit(ctx, write("x"))
		b.submit(ctx, write("y"))
		cancel()
		synctest.Wait()
		close(store.gate)
		synctest.Wait()
		if tries := store.tried(); len(tries) != 1 {
			t.Errorf("the store was asked to commit %v", tries)
		}
	})
}

func TestBatcherOutcomeUnknownWhenTheWriterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := b.submit(ctx, write("a"))
		time.Sleep(time.Second)
		if a := returned(t, c); !errors.Is(a.err, replication.ErrOutcomeUnknown) || !errors.Is(a.err, context.DeadlineExceeded) {
			t.Errorf("a writer that gave up during the commit got %v", a.err)
		}
		close(store.gate)
		synctest.Wait()
		if n := store.times()["a"]; n != 1 {
			t.Errorf("the write was committed %d times, want once", n)
		}
		if store.ended != 0 {
			t.Error("the writer's context ended the commit")
		}
	})
}

func TestBatcherIsolatesAPoisonWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{})
		names := []string{"first", "a", "b", "poison", "c", "d"}
		var answers []<-chan answer
		for _, name := range names {
			answers = append(answers, b.submit(t.Context(), write(name, name+"-too")))
		}
		close(store.gate)
		for i, c := range answers {
			a := returned(t, c)
			switch {
			case names[i] == "poison":
				if !errors.Is(a.err, errPoison) || errors.Is(a.err, replication.ErrOutcomeUnknown) {
					t.Errorf("the poison's writer got %v", a.err)
				}
			case a.err != nil || a.token.XID == 0 || len(a.result.Items) != 2:
				t.Errorf("%s, a neighbour of the poison, got %+v", names[i], a)
			}
		}
		want := [][]string{{"first", "first-too"}, {"a", "a-too"}, {"b", "b-too"}, {"c", "c-too"}, {"d", "d-too"}}
		if got := store.committed(); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("the transactions are %v, want %v", got, want)
		}
	})
}

// A store that takes nothing at all, because its disk is full, is not asked once more for every writer; nor is one that
// hangs.
func TestBatcherGivesUpOnAStoreThatTakesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		hang bool
		want int // calls after the first commit
	}{
		"every write fails alone": {false, 1 + 8},
		"the store hangs":         {true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &ledger{gate: make(chan struct{}), hang: c.hang}
				b := startBatcher(t, store, replication.BatcherConfig{CommitTimeout: time.Second})
				first := b.submit(t.Context(), write("poison-first"))
				var answers []<-chan answer
				for i := range 50 {
					answers = append(answers, b.submit(t.Context(), write(fmt.Sprintf("poison-%d", i))))
				}
				close(store.gate)
				for _, a := range append(answers, first) {
					if got := <-a; got.err == nil || errors.Is(got.err, replication.ErrOutcomeUnknown) {
						t.Errorf("a writer got %+v", got)
					}
				}
				if got := len(store.tried()) - 1; got != c.want {
					t.Errorf("the store was asked %d times, want %d", got, c.want)
				}
			})
		})
	}
}

// While a failed batch is tried again one by one, whoever gives up is told the truth as well.
func TestBatcherWriterLeavesDuringTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		b.submit(t.Context(), write("first"))
		a, poison, leaves := b.submit(t.Context(), write("a")), b.submit(t.Context(), write("poison")), b.submit(ctx, write("leaves"))
		store.gate <- struct{}{} // first
		store.gate <- struct{}{} // the batch, which fails
		synctest.Wait()          // a is being committed on its own
		cancel()
		left := returned(t, leaves)
		close(store.gate)
		if got := returned(t, a); got.err != nil {
			t.Error(got.err)
		}
		if got := returned(t, poison); !errors.Is(got.err, errPoison) {
			t.Error(got.err)
		}
		written := store.times()["leaves"]
		if unknown := errors.Is(left.err, replication.ErrOutcomeUnknown); !unknown && (written != 0 || !errors.Is(left.err, context.Canceled)) || written > 1 {
			t.Errorf("the writer that left got %v, and its write is there %d times", left.err, written)
		}
	})
}

func TestBatcherOutcomeUnknownFromTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{Committed: func(token replication.Token) {
			if token.XID > 1 {
				t.Errorf("Committed is called with %+v for a commit that nobody knows of", token)
			}
		}})
		answers := []<-chan answer{}
		first := b.submit(t.Context(), write("first"))
		for _, name := range []string{"a", "b", "c"} {
			answers = append(answers, b.submit(t.Context(), write(name)))
		}
		store.gate <- struct{}{}
		if a := returned(t, first); a.err != nil {
			t.Fatal(a.err)
		}
		store.failNext(fmt.Errorf("the connection broke: %w", replication.ErrOutcomeUnknown))
		close(store.gate)
		for _, c := range answers {
			if a := returned(t, c); !errors.Is(a.err, replication.ErrOutcomeUnknown) {
				t.Errorf("a writer of the batch got %v", a.err)
			}
		}
		if want, got := [][]string{{"first"}, {"a", "b", "c"}}, store.tried(); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("the store was asked to commit %v, want %v: an unknown outcome must not be tried again", got, want)
		}
	})
}

func TestBatcherCommitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBatcher(t, &ledger{hang: true}, replication.BatcherConfig{CommitTimeout: 7 * time.Second})
		start := time.Now()
		if _, _, err := b.Submit(t.Context(), write("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write to a store that hangs: %v", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("it took %v, want the timeout", took)
		}
	})
}

func TestBatcherShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		b := startBatcher(t, store, replication.BatcherConfig{MaxItems: 3})
		var answers []<-chan answer
		for i := range 10 {
			answers = append(answers, b.submit(t.Context(), write(fmt.Sprint(i))))
		}
		b.stop()
		synctest.Wait()
		close(store.gate)
		for i, c := range answers {
			if a := returned(t, c); a.err != nil {
				t.Errorf("write %d, accepted before the end: %v", i, a.err)
			}
		}
		if n := len(store.times()); n != 10 {
			t.Errorf("%d writes were committed, want 10", n)
		}
		if store.ended != 0 {
			t.Error("the end of the Batcher cut off a commit")
		}
		for range 3 {
			if _, _, err := b.Submit(t.Context(), write("late")); !errors.Is(err, replication.ErrClosed) {
				t.Errorf("a write after the end: %v", err)
			}
		}
		if n := store.times()["late"]; n != 0 {
			t.Error("a write after the end was committed")
		}
	})
}

func TestBatcherCommittedComesBeforeTheAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ledger{gate: make(chan struct{})}
		called, hold := make(chan replication.Token, 10), make(chan struct{})
		b := startBatcher(t, store, replication.BatcherConfig{Committed: func(token replication.Token) { called <- token; <-hold }})
		a, p := b.submit(t.Context(), write("a")), b.submit(t.Context(), write("poison"))
		close(store.gate)
		blocked(t, a, "the write is still waiting")
		if token := <-called; token != (replication.Token{Epoch: 1, XID: 1}) {
			t.Errorf("Committed is called with %+v", token)
		}
		close(hold)
		if got := returned(t, a); got.err != nil {
			t.Error(got.err)
		}
		if got := returned(t, p); !errors.Is(got.err, errPoison) || len(called) != 0 {
			t.Errorf("a commit that failed is answered with %v, and Committed was called %d times", got.err, len(called))
		}
	})
}

// TestBatcherStress lets many writers write, give up, poison and be refused at once, and the Batcher stop in between, and
// then holds every answer against what the store has.
func TestBatcherStress(t *testing.T) {
	writers, each := 32, 300
	if testing.Short() {
		each = 50
	}
	store := &ledger{}
	var covered atomic.Uint64 // the greatest XID that Committed was called with
	b := replication.NewBatcher(store, replication.BatcherConfig{MaxItems: 16, MaxWaiting: 70, Committed: func(token replication.Token) { covered.Store(token.XID) }})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()

	type sent struct {
		items []string
		err   error
	}
	logs := make([][]sent, writers)
	var finished atomic.Int64
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for j := range each {
				name := fmt.Sprintf("%d-%d", i, j)
				if rng.IntN(20) == 0 {
					name = "poison-" + name
				}
				w := writeOf(name, 1+rng.IntN(4))
				ctx, cancel := context.WithCancel(context.Background())
				if rng.IntN(4) == 0 {
					go cancel() // at some moment or other
				}
				_, token, err := b.Submit(ctx, w)
				cancel()
				if err == nil && covered.Load() < token.XID {
					t.Errorf("%s is answered before Committed was called", name)
				}
				s := sent{err: err}
				for _, it := range w.Items {
					s.items = append(s.items, string(it.Delete))
				}
				logs[i] = append(logs[i], s)
				if finished.Add(1) == int64(writers*each*9/10) {
					stop()
				}
			}
		})
	}
	all.Wait()
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}

	times := store.times()
	kinds := map[string]int{}
	for _, log := range logs {
		for _, s := range log {
			kind, least, most := "refused", 0, 0
			switch {
			case s.err == nil:
				kind, least, most = "acknowledged", 1, 1
			case errors.Is(s.err, replication.ErrOutcomeUnknown):
				kind, most = "unknown", 1
			case errors.Is(s.err, errPoison):
				kind = "poison"
			case errors.Is(s.err, context.Canceled):
				kind = "withdrawn"
			case errors.Is(s.err, replication.ErrClosed):
				kind = "closed"
			case !errors.Is(s.err, replication.ErrOverloaded):
				t.Fatalf("an answer that nobody promised: %v", s.err)
			}
			kinds[kind]++
			for _, it := range s.items {
				if n := times[it]; n < least || n > most {
					t.Errorf("%s is %s (%v), and %d times in the store", it, kind, s.err, n)
				}
				delete(times, it)
			}
		}
	}
	if len(times) != 0 {
		t.Errorf("the store has %d items that nobody sent", len(times))
	}
	t.Logf("%d transactions; %v", len(store.committed()), kinds)
}
