package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// shelf is a Details in memory that counts how often each store is read.
type shelf struct {
	// gate, if set, holds every read until something is sent or it is closed.
	gate chan struct{}
	// hang makes every read take until its context ends.
	hang bool

	mu   sync.Mutex // guards the rest
	rows map[shortline.StoreID]replication.Row
	read map[shortline.StoreID]int
	fail error
}

func newShelf(rows ...replication.Row) *shelf {
	s := &shelf{rows: map[shortline.StoreID]replication.Row{}, read: map[shortline.StoreID]int{}}
	for _, r := range rows {
		s.set(r)
	}
	return s
}

func row(id shortline.StoreID, rev uint64) replication.Row {
	return replication.Row{Store: shortline.Store{ID: id, Name: fmt.Sprintf("%s at %d", id, rev)}, Rev: rev}
}

func (s *shelf) set(r replication.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[r.Store.ID] = r
}

func (s *shelf) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *shelf) reads() map[shortline.StoreID]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	read := map[shortline.StoreID]int{}
	for id, n := range s.read {
		read[id] = n
	}
	return read
}

func (s *shelf) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	s.mu.Lock()
	for _, id := range ids {
		s.read[id]++
	}
	s.mu.Unlock()
	if s.gate != nil {
		<-s.gate
	}
	if s.hang {
		<-ctx.Done()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	var rows []replication.Row
	for _, id := range ids {
		if r, ok := s.rows[id]; ok {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func encodeName(dst []byte, row *replication.Row) []byte { return append(dst, row.Store.Name...) }

func newDetails(t *testing.T, source replication.Details, cfg replication.DetailsConfig) *replication.DetailsCache {
	if cfg.Encode == nil {
		cfg.Encode = encodeName
	}
	cfg.MaxBytes = 32 << 20
	d := replication.NewDetailsCache(source, cfg)
	t.Cleanup(d.Close)
	return d
}

func TestDetailsGoByRev(t *testing.T) {
	registry := prometheus.NewRegistry()
	d := newDetails(t, newShelf(), replication.DetailsConfig{Registerer: registry})
	put := func(rev uint64) { r := row("a", rev); d.Put(&r) }
	expect := func(minRev uint64, want string) {
		t.Helper()
		dst := []byte("before ")
		got, hit := d.Get(dst, "a", minRev)
		if hit != (want != "") || string(got) != "before "+want {
			t.Errorf("Get of rev %d or newer = %q, %v; want %q after what was there", minRev, got, hit, want)
		}
	}
	expect(0, "")
	put(5)
	expect(0, "a at 5")
	expect(4, "a at 5")
	expect(5, "a at 5")
	expect(6, "")
	put(6)
	expect(6, "a at 6")
	// A slow read of the database comes in late.
	put(5)
	expect(6, "")
	expect(5, "a at 5")
	if hits, misses := gathered(t, registry, "shortline_details_cache_hits_total"), gathered(t, registry, "shortline_details_cache_misses_total"); hits != 5 || misses != 3 {
		t.Errorf("%v hits and %v misses counted, want 5 and 3", hits, misses)
	}
	if _, hit := d.Get(nil, "b", 0); hit {
		t.Error("a store that nobody put is there")
	}
}

func TestDetailsLoad(t *testing.T) {
	source := newShelf(row("a", 3), row("b", 1))
	d := newDetails(t, source, replication.DetailsConfig{})
	if err := d.Load(t.Context(), []shortline.StoreID{"a", "none", "a", "b", "a"}); err != nil {
		t.Fatal(err)
	}
	for id, n := range source.reads() {
		if n != 1 {
			t.Errorf("store %s was read %d times", id, n)
		}
	}
	for _, r := range []replication.Row{row("a", 3), row("b", 1)} {
		if got, hit := d.Get(nil, r.Store.ID, r.Rev); !hit || string(got) != r.Store.Name {
			t.Errorf("Get after Load = %q, %v", got, hit)
		}
	}
	if got, hit := d.Get(nil, "none", 0); hit {
		t.Errorf("a store that does not exist is %q", got)
	}
	if err := d.Load(t.Context(), nil); err != nil {
		t.Errorf("Load of nothing: %v", err)
	}
}

func TestDetailsReadsAStoreOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1), row("b", 1), row("c", 1))
		source.gate = make(chan struct{})
		d := newDetails(t, source, replication.DetailsConfig{})
		load := func(ids ...shortline.StoreID) <-chan error {
			return async(func() error { return d.Load(t.Context(), ids) })
		}
		var same []<-chan error
		for range 20 {
			same = append(same, load("a"))
		}
		ab, bc, ac, cba := load("a", "b"), load("b", "c"), load("a", "c"), load("c", "b", "a")
		for id, n := range source.reads() {
			if n != 1 {
				t.Errorf("store %s is being read %d times at once", id, n)
			}
		}
		source.gate <- struct{}{} // whichever of the three reads takes it
		synctest.Wait()
		close(source.gate)
		for _, c := range append(same, ab, bc, ac, cba) {
			if err := returned(t, c); err != nil {
				t.Error(err)
			}
		}
		for _, id := range []shortline.StoreID{"a", "b", "c"} {
			if _, hit := d.Get(nil, id, 1); !hit {
				t.Errorf("store %s is not there", id)
			}
		}
		// The next one reads again: what is cached is not Load's business.
		if err := returned(t, load("a")); err != nil {
			t.Error(err)
		}
		if n := source.reads()["a"]; n != 2 {
			t.Errorf("a was read %d times in all, want 2", n)
		}
	})
}

// A load returns only when all of its stores are there, also those that others read.
func TestDetailsLoadWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1), row("b", 1))
		source.gate = make(chan struct{})
		d := newDetails(t, source, replication.DetailsConfig{})
		a := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a"}) })
		both := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a", "b"}) })
		source.gate <- struct{}{}
		synctest.Wait()
		blocked(t, both, "one of two reads is not done")
		close(source.gate)
		for _, c := range []<-chan error{a, both} {
			if err := returned(t, c); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDetailsErrorIsSharedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		source := newShelf(row("a", 1), row("b", 1))
		source.gate = make(chan struct{})
		source.failWith(broken)
		d := newDetails(t, source, replication.DetailsConfig{})
		a := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a"}) })
		joined := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a"}) })
		source.gate <- struct{}{}
		synctest.Wait()
		for _, c := range []<-chan error{a, joined} {
			if err := returned(t, c); !errors.Is(err, broken) {
				t.Errorf("Load = %v, want the error of the database", err)
			}
		}
		if _, hit := d.Get(nil, "a", 0); hit {
			t.Error("a failed load left something in the cache")
		}

		source.failWith(nil)
		close(source.gate)
		if err := d.Load(t.Context(), []shortline.StoreID{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		if _, hit := d.Get(nil, "a", 1); !hit {
			t.Error("a load after the failure left nothing in the cache")
		}
	})
}

// One's own stores are cached though another's read, which had some of the same, failed.
func TestDetailsErrorOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		source := newShelf(row("a", 1), row("b", 1))
		source.gate = make(chan struct{})
		d := newDetails(t, source, replication.DetailsConfig{})
		a := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a"}) })
		both := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a", "b"}) }) // reads b alone
		source.failWith(broken)
		source.gate <- struct{}{} // to a, which came first
		if err := returned(t, a); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		source.failWith(nil)
		close(source.gate)
		if err := returned(t, both); !errors.Is(err, broken) {
			t.Errorf("Load = %v, though one of its stores was not read", err)
		}
		if _, hit := d.Get(nil, "b", 1); !hit {
			t.Error("what could be read is not there")
		}
	})
}

func TestDetailsWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1))
		source.gate = make(chan struct{})
		d := newDetails(t, source, replication.DetailsConfig{})
		first, leaveFirst := context.WithCancel(t.Context())
		second, leaveSecond := context.WithCancel(t.Context())
		a := []shortline.StoreID{"a"}
		reading := async(func() error { return d.Load(first, a) })
		leaving := async(func() error { return d.Load(second, a) })
		staying := async(func() error { return d.Load(t.Context(), a) })
		leaveSecond()
		if err := returned(t, leaving); !errors.Is(err, context.Canceled) {
			t.Errorf("a waiter that left got %v", err)
		}
		leaveFirst() // the one that reads: others wait for the same row
		blocked(t, staying, "the read is not done")
		close(source.gate)
		if err := returned(t, staying); err != nil {
			t.Errorf("a waiter that stayed got %v", err)
		}
		if err := returned(t, reading); err != nil {
			t.Errorf("the one that read got %v", err)
		}
		if _, hit := d.Get(nil, "a", 1); !hit {
			t.Error("the store is not there")
		}
	})
}

func TestDetailsLoadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1))
		source.hang = true
		d := newDetails(t, source, replication.DetailsConfig{LoadTimeout: 2 * time.Second})
		start := time.Now()
		a := []shortline.StoreID{"a"}
		joined := async(func() error { return d.Load(t.Context(), a) })
		if err := d.Load(t.Context(), a); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load from a database that hangs: %v", err)
		}
		if err := returned(t, joined); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load from a database that hangs: %v", err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("it took %v, want the timeout", took)
		}
	})
}

func TestDetailsOversized(t *testing.T) {
	source := newShelf()
	for id, size := range map[shortline.StoreID]int{"fits": 60_000, "does-not": 60_001, "far-from-it": 1 << 20} {
		source.set(replication.Row{Store: shortline.Store{ID: id, Name: strings.Repeat("x", size)}, Rev: 2})
	}
	d := newDetails(t, source, replication.DetailsConfig{})
	old := row("does-not", 1)
	d.Put(&old)
	if err := d.Load(t.Context(), []shortline.StoreID{"fits", "does-not", "far-from-it"}); err != nil {
		t.Fatal(err)
	}
	if got, hit := d.Get(nil, "fits", 2); !hit || len(got) != 60_000 {
		t.Errorf("a value of 60,000 bytes: %d bytes, %v", len(got), hit)
	}
	for _, id := range []shortline.StoreID{"does-not", "far-from-it"} {
		if got, hit := d.Get(nil, id, 2); hit {
			t.Errorf("%s: %d bytes were cached", id, len(got))
		}
	}
}

func TestDetailsMemoryIsBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	d := newDetails(t, newShelf(), replication.DetailsConfig{Registerer: registry})
	name := strings.Repeat("x", 50_000)
	const stores = 3000 // 150 MB
	there := func() (n int) {
		for i := range stores {
			if got, hit := d.Get(nil, shortline.StoreID(fmt.Sprint(i)), 1); hit {
				if n++; string(got) != name {
					t.Fatalf("store %d is not what was put: %d bytes", i, len(got))
				}
			}
		}
		return n
	}
	for i := range stores {
		d.Put(&replication.Row{Store: shortline.Store{ID: shortline.StoreID(fmt.Sprint(i)), Name: name}, Rev: 1})
	}
	if size := gathered(t, registry, "shortline_details_cache_bytes"); size > 40<<20 {
		t.Errorf("the cache has %v bytes", size)
	}
	if n := there(); n == 0 || n == stores {
		t.Errorf("%d of %d stores are there", n, stores)
	}
}

// TestDetailsNeverOlderThanAsked races readers that know how new the row must be against writers and slow fills.
func TestDetailsNeverOlderThanAsked(t *testing.T) {
	const stores = 5
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	ids := make([]shortline.StoreID, stores)
	var newest [stores]atomic.Uint64
	source := newShelf()
	for i := range ids {
		ids[i] = shortline.StoreID(fmt.Sprintf("s%d", i))
		newest[i].Store(1)
		source.set(row(ids[i], 1))
	}
	d := newDetails(t, source, replication.DetailsConfig{})
	var hits atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for i := range rounds {
			k := i % stores
			rev := newest[k].Load() + 1
			source.set(row(ids[k], rev))
			newest[k].Store(rev) // memory learns of it after the database
		}
	})
	for r := range 6 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 5))
			var buf []byte
			for range rounds {
				k := rng.IntN(stores)
				want := newest[k].Load()
				got, hit := d.Get(buf[:0], ids[k], want)
				buf = got
				if !hit {
					load := slices.Clone(ids[:1+rng.IntN(stores)])
					if err := d.Load(t.Context(), append(load, ids[k])); err != nil {
						t.Error(err)
					}
					continue
				}
				hits.Add(1)
				var rev uint64
				if _, err := fmt.Fscanf(bytes.NewReader(got), string(ids[k])+" at %d", &rev); err != nil || rev < want {
					t.Errorf("asked for rev %d or newer of %s and got %q", want, ids[k], got)
				}
			}
		})
	}
	all.Wait()
	if hits.Load() == 0 {
		t.Error("nothing was ever found: this shows nothing")
	}
}
