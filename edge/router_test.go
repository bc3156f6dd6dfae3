package edge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// moving is a Directory that a test changes.
type moving struct {
	mu      sync.Mutex
	region  regions.ID
	epoch   uint64
	changed chan struct{}
}

func (m *moving) Primary() (regions.ID, uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.region, m.epoch, m.region != ""
}

func (m *moving) Nodes(region regions.ID) []PeerNode {
	return []PeerNode{{Name: string(region), Addr: string(region)}}
}

func (m *moving) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

func (m *moving) move(region regions.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.region = region
	m.epoch++
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

func newTestRouter(t testing.TB, cfg RouterConfig) *Router {
	t.Helper()
	cfg.Registerer = prometheus.NewRegistry()
	r := NewRouter(cfg)
	runPart(t, r.Run)
	return r
}

// A database that takes no writes for a while costs a pause and no error.
func TestRouterHoldsAtThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		w := new(recorder)
		w.before = func(context.Context, replication.Write) error {
			if well.Load() {
				return nil
			}
			return fmt.Errorf("%w: connection refused", ErrNotPrimary)
		}
		r := newTestRouter(t, RouterConfig{Region: "here", Directory: StaticDirectory{Region: "here"}, Local: w})
		done := make(chan error, 100)
		for range 100 {
			go func() { done <- got(r.Submit(t.Context(), deltaWrite("a", 1))) }()
		}
		time.Sleep(7 * time.Second)
		if n := r.held.Load(); n != 100 {
			t.Errorf("%d of 100 writes are held", n)
		}
		well.Store(true)
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := w.count("a"); n != 100 || r.held.Load() != 0 || r.bytes.Load() != 0 {
			t.Errorf("%d writes were applied; %d items and %d bytes are still held", n, r.held.Load(), r.bytes.Load())
		}
		well.Store(false)
		start := time.Now()
		if err := got(r.Submit(t.Context(), deltaWrite("a", 1))); !errors.Is(err, ErrNoPrimary) || errors.Is(err, replication.ErrOutcomeUnknown) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestRouterBoundsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(recorder)
		w.before = func(context.Context, replication.Write) error { return ErrNotPrimary }
		r := newTestRouter(t, RouterConfig{Region: "here", Directory: StaticDirectory{Region: "here"}, Local: w, MaxHeld: 10})
		done := make(chan error, 15)
		for range 15 {
			go func() { done <- got(r.Submit(t.Context(), deltaWrite("a", 1))) }()
		}
		overloaded := 0
		for range 15 {
			if errors.Is(<-done, replication.ErrOverloaded) {
				overloaded++
			}
		}
		if overloaded != 5 || r.held.Load() != 0 {
			t.Errorf("%d writes were refused, want 5; %d are held", overloaded, r.held.Load())
		}
	})
}

// A write that is under way when the primary moves away is given up here and settled there by its key.
func TestRouterFollowsThePrimary(t *testing.T) {
	for name, state := range map[string]error{
		"waits":     context.Canceled,
		"under way": fmt.Errorf("%w: %w", replication.ErrOutcomeUnknown, context.Canceled),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local, remote, d := new(recorder), new(recorder), &moving{region: "here", epoch: 1}
				var first *replication.Idempotency
				local.before = func(ctx context.Context, w replication.Write) error {
					first = w.Idempotency
					<-ctx.Done()
					return state
				}
				var second *replication.Idempotency
				remote.before = func(_ context.Context, w replication.Write) error {
					second = w.Idempotency
					return nil
				}
				r := newTestRouter(t, RouterConfig{Region: "here", Directory: d, Local: local, Remote: remote})
				done := make(chan error, 1)
				go func() { done <- got(r.Submit(t.Context(), deltaWrite("a", 1))) }()
				time.Sleep(3 * time.Second)
				d.move("there")
				if err := <-done; err != nil || remote.count("a") != 1 || first == nil || second == nil || *first != *second {
					t.Errorf("%v; applied %d times there, with keys %+v and %+v", err, remote.count("a"), first, second)
				}
				local.before = nil
				d.move("here")
				synctest.Wait()
				if err := got(r.Submit(t.Context(), deltaWrite("b", 1))); err != nil || local.count("b") != 1 {
					t.Errorf("back here: %v, applied %d times", err, local.count("b"))
				}
			})
		})
	}
}

// An outcome that is unknown stays so unless a key can settle it, also if later attempts surely wrote nothing.
func TestRouterCallsTheUnknownUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := new(recorder)
		w.before = func(context.Context, replication.Write) error {
			if n++; n == 1 {
				return replication.ErrOutcomeUnknown
			}
			return ErrNotPrimary
		}
		r := newTestRouter(t, RouterConfig{Region: "here", Directory: StaticDirectory{Region: "here"}, Local: w})
		if err := got(r.Submit(t.Context(), deltaWrite("a", 1))); !errors.Is(err, replication.ErrOutcomeUnknown) || n != 1 {
			t.Errorf("without a key: %v after %d attempts", err, n)
		}
		keyed := deltaWrite("a", 1)
		keyed.Idempotency = &replication.Idempotency{Scope: "s", Key: "k", TTL: time.Hour}
		n = 0
		if err := got(r.Submit(t.Context(), keyed)); !errors.Is(err, replication.ErrOutcomeUnknown) || n < 5 {
			t.Errorf("with a key: %v after %d attempts", err, n)
		}
	})
}
