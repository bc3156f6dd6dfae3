package replication_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// kept is a Loader whose callers keep what it reads in one map.
type kept struct {
	*replication.Loader
	mu   sync.Mutex
	rows map[shortline.StoreID]replication.Row // guarded by mu
}

func newKept(source replication.Details, cfg replication.LoaderConfig) *kept {
	return &kept{Loader: replication.NewLoader(source, cfg), rows: map[shortline.StoreID]replication.Row{}}
}

func (k *kept) Load(ctx context.Context, ids []shortline.StoreID) error {
	return k.Loader.Load(ctx, ids, func(rows []replication.Row) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, r := range rows {
			k.rows[r.Store.ID] = r
		}
	})
}

func (k *kept) has(id shortline.StoreID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.rows[id]
	return ok
}

func TestLoaderLoad(t *testing.T) {
	source := newShelf(row("a", 3), row("b", 1))
	d := newKept(source, replication.LoaderConfig{})
	if err := d.Load(t.Context(), []shortline.StoreID{"a", "none", "a", "b", "a"}); err != nil {
		t.Fatal(err)
	}
	for id, n := range source.reads() {
		if n != 1 {
			t.Errorf("store %s was read %d times", id, n)
		}
	}
	for _, r := range []replication.Row{row("a", 3), row("b", 1)} {
		if got := d.rows[r.Store.ID]; got.Rev != r.Rev || got.Store.Name != r.Store.Name {
			t.Errorf("Load kept %+v", got)
		}
	}
	if d.has("none") {
		t.Error("a store that does not exist is there")
	}
	if err := d.Load(t.Context(), nil); err != nil {
		t.Errorf("Load of nothing: %v", err)
	}
}

func TestLoaderReadsAStoreOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1), row("b", 1), row("c", 1))
		source.gate = make(chan struct{})
		d := newKept(source, replication.LoaderConfig{})
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
			if !d.has(id) {
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
func TestLoaderLoadWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1), row("b", 1))
		source.gate = make(chan struct{})
		d := newKept(source, replication.LoaderConfig{})
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

func TestLoaderErrorIsSharedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		source := newShelf(row("a", 1), row("b", 1))
		source.gate = make(chan struct{})
		source.failWith(broken)
		d := newKept(source, replication.LoaderConfig{})
		a := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a"}) })
		joined := async(func() error { return d.Load(t.Context(), []shortline.StoreID{"a"}) })
		source.gate <- struct{}{}
		synctest.Wait()
		for _, c := range []<-chan error{a, joined} {
			if err := returned(t, c); !errors.Is(err, broken) {
				t.Errorf("Load = %v, want the error of the database", err)
			}
		}
		if d.has("a") {
			t.Error("a failed load left something in the cache")
		}

		source.failWith(nil)
		close(source.gate)
		if err := d.Load(t.Context(), []shortline.StoreID{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		if !d.has("a") {
			t.Error("a load after the failure left nothing in the cache")
		}
	})
}

// One's own stores are cached though another's read, which had some of the same, failed.
func TestLoaderErrorOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		source := newShelf(row("a", 1), row("b", 1))
		source.gate = make(chan struct{})
		d := newKept(source, replication.LoaderConfig{})
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
		if !d.has("b") {
			t.Error("what could be read is not there")
		}
	})
}

func TestLoaderWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1))
		source.gate = make(chan struct{})
		d := newKept(source, replication.LoaderConfig{})
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
		if !d.has("a") {
			t.Error("the store is not there")
		}
	})
}

func TestLoaderLoadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newShelf(row("a", 1))
		source.hang = true
		d := newKept(source, replication.LoaderConfig{Timeout: 2 * time.Second})
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
