package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline/regions"
)

// court is an agreed state without raft, in virtual time: what is proposed takes a while to arrive, and so does the answer.
type court struct {
	mu      sync.Mutex
	state   regions.State
	changed chan struct{}
	renewed map[string]time.Time // when the last renewal of each node was applied
	rng     *rand.Rand
	slowest time.Duration
}

func newCourt(t *testing.T, seed uint64, slowest time.Duration) *court {
	s, why := regions.Apply(regions.State{}, bootstrap("a", "a", "b", "c"))
	if why != nil {
		t.Fatal(why)
	}
	c := &court{state: s, changed: make(chan struct{}), renewed: map[string]time.Time{}, rng: rand.New(rand.NewPCG(seed, 1)), slowest: slowest}
	for _, id := range []regions.ID{"b", "c"} {
		c.must(t, regions.Command{Sync: &regions.SyncChange{Move: regions.Grow, Region: id, Attempt: c.state.Attempt}})
	}
	c.must(t, regions.Command{Sync: &regions.SyncChange{Move: regions.Whole, Attempt: c.state.Attempt}})
	return c
}

func (c *court) must(t *testing.T, cmd regions.Command) {
	t.Helper()
	if why := c.apply(cmd); why != nil {
		t.Fatal(why)
	}
}

func (c *court) apply(cmd regions.Command) *regions.RefusedError {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, why := regions.Apply(c.state, cmd)
	if why != nil {
		return why
	}
	c.state = next
	if cmd.Renew != nil {
		c.renewed[cmd.Renew.Node] = time.Now()
		return nil
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func (c *court) delay() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.rng.Int64N(int64(c.slowest)))
}

// seat is how one node sees the court. While it is cut off it hears of nothing and is not heard.
type seat struct {
	*court
	mu  sync.Mutex
	cut bool
	old regions.State
}

func (s *seat) set(cut bool) {
	state := s.court.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut, s.old = cut, state
}

func (s *seat) isCut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut
}

func (c *court) now() regions.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (s *seat) State() regions.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return s.old
	}
	return s.court.now()
}

func (s *seat) Changed() <-chan struct{} {
	s.court.mu.Lock()
	defer s.court.mu.Unlock()
	return s.court.changed
}

func (s *seat) Propose(ctx context.Context, c regions.Command) error {
	sleep := func() error {
		t := time.NewTimer(s.delay())
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
		}
	}
	if err := sleep(); err != nil {
		return err
	}
	if s.isCut() {
		<-ctx.Done()
		return &regions.RefusedError{Rule: regions.RuleNoLeader}
	}
	why := s.apply(c)
	if err := sleep(); err != nil {
		return err
	}
	if why != nil {
		return why
	}
	return nil
}

// trial lets an operation begin at some moment, waits as a controller has to, and reports a node that still would acknowledge
// writes of the old epoch.
func trial(t *testing.T, seed uint64, mutant leaseMutant) (broken string) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t, seed, time.Second)
		rng := rand.New(rand.NewPCG(seed, 2))
		ctx, stop := context.WithCancel(context.Background())
		var all sync.WaitGroup
		defer func() { stop(); all.Wait() }()
		leases := map[string]*Lease{}
		seats := map[string]*seat{}
		begun := time.Now()
		for i, name := range []string{"a1", "a2", "a3"} {
			seats[name] = &seat{court: c}
			speed := 1 + 0.01*float64(i-1) // by as much as Policy.Drift allows for
			l, err := NewLease(LeaseConfig{Region: "a", Node: name, TTL: 2500 * time.Millisecond,
				Clock: func() time.Duration { return time.Duration(float64(time.Since(begun)) * speed) }}, seats[name])
			if err != nil {
				t.Fatal(err)
			}
			l.mutant = mutant
			leases[name] = l
			all.Go(func() { _ = l.Run(ctx) })
		}
		time.Sleep(3*time.Second + time.Duration(rng.Int64N(int64(3*time.Second))))
		for _, s := range seats {
			if rng.IntN(2) == 0 {
				s.set(true)
			}
		}
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		kind, to := regions.Failover, regions.ID("")
		if rng.IntN(2) == 0 {
			kind, to = regions.Switchover, "b"
		}
		c.must(t, regions.Command{Intent: &regions.Intent{Kind: kind, To: to, Epoch: 2, From: "a", Members: []regions.ID{"b", "c"}}})

		wait := regions.Policy{}.WithDefaults().For(c.now().Lease).LeaseWait() // by the controller's clock, which is the true one here
		c.mu.Lock()
		renewed := c.renewed
		c.mu.Unlock()
		for {
			rest := time.Duration(0)
			for node := range c.now().Lease.Holders {
				rest = max(rest, wait-time.Since(renewed[node]))
			}
			if rest <= 0 {
				break
			}
			time.Sleep(min(rest, time.Millisecond))
		}
		for range 3000 {
			for name, l := range leases {
				if epoch, err := l.Check(); err == nil && broken == "" {
					broken = fmt.Sprintf("seed %d: %s acknowledges in epoch %d", seed, name, epoch)
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	return broken
}

// Nobody acknowledges anything any more when a controller has waited, whatever is delayed or cut off; and each safeguard is needed for that.
func TestLeaseEndsBeforeItIsTakenToHaveEnded(t *testing.T) {
	for seed := range uint64(40) {
		if broken := trial(t, seed, leaseSound); broken != "" {
			t.Fatal(broken)
		}
	}
	for mutant, name := range map[leaseMutant]string{leaseForever: "without an end", leaseLate: "counted from the answer",
		leaseKept: "kept when it is given back", leaseComeback: "brought back by a late answer"} {
		caught := ""
		for seed := uint64(0); seed < 300 && caught == ""; seed++ {
			caught = trial(t, seed, mutant)
		}
		if caught == "" {
			t.Errorf("a lease %s was not caught", name)
		}
		t.Logf("a lease %s: %s", name, caught)
	}
}

func TestLeaseIsHeldWhileItIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t, 1, 50*time.Millisecond)
		s := &seat{court: c}
		begun := time.Now()
		l, err := NewLease(LeaseConfig{Region: "a", Node: "a1", Clock: func() time.Duration { return time.Since(begun) }}, s)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		if _, err := l.Check(); !errors.Is(err, ErrNoLease) {
			t.Errorf("before it runs: %v", err)
		}
		var all sync.WaitGroup
		all.Go(func() { _ = l.Run(ctx) })
		time.Sleep(200 * time.Millisecond)
		for range 600 { // a minute
			if epoch, err := l.Check(); err != nil || epoch != 1 {
				t.Fatalf("epoch %d, %v", epoch, err)
			}
			time.Sleep(100 * time.Millisecond)
		}

		// Nobody can be asked for 5 s: the pause of an election. It lapses, and is taken up again in the same epoch.
		s.set(true)
		time.Sleep(1500 * time.Millisecond)
		if _, err := l.Check(); !errors.Is(err, ErrNoLease) || l.Remaining() != 0 {
			t.Errorf("after it lapsed: %v", err)
		}
		time.Sleep(3500 * time.Millisecond)
		s.set(false)
		time.Sleep(time.Second)
		if epoch, err := l.Check(); err != nil || epoch != 1 {
			t.Errorf("after the pause: epoch %d, %v", epoch, err)
		}

		// An operation is called off: the lease of the new epoch is taken without a pause.
		c.must(t, regions.Command{Intent: &regions.Intent{Kind: regions.Switchover, To: "b", Epoch: 2, From: "a", Members: []regions.ID{"b", "c"}}})
		time.Sleep(200 * time.Millisecond)
		if _, err := l.Check(); !errors.Is(err, ErrNoLease) || len(c.now().Lease.Holders) != 0 {
			t.Errorf("during a switchover: %v, holders %v", err, c.now().Lease.Holders)
		}
		c.must(t, regions.Command{Abort: &regions.Abort{Epoch: 2}})
		c.must(t, regions.Command{NewPrimary: &regions.NewPrimary{Region: "a", Promotion: regions.Promotion{Epoch: 3}}})
		time.Sleep(200 * time.Millisecond)
		if epoch, err := l.Check(); err != nil || epoch != 3 { // the primary is confirmed, what is left of the operation holds nobody up
			t.Errorf("while the operation ends: epoch %d, %v", epoch, err)
		}
		c.must(t, regions.Command{Finish: &regions.Finish{Epoch: 3}})
		time.Sleep(200 * time.Millisecond)
		if epoch, err := l.Check(); err != nil || epoch != 3 {
			t.Errorf("after it was called off: epoch %d, %v", epoch, err)
		}

		stop()
		all.Wait()
		if _, err := l.Check(); !errors.Is(err, ErrNoLease) || len(c.now().Lease.Holders) != 0 {
			t.Errorf("after it ended: %v, holders %v", err, c.now().Lease.Holders)
		}
	})
}

func TestLeaseConfig(t *testing.T) {
	for _, bad := range []LeaseConfig{{Region: "a"}, {Node: "n"}, {Region: "a", Node: "n", TTL: time.Minute}, {Region: "a", Node: "n", TTL: 500 * time.Millisecond},
		{Region: "a", Node: "n", Margin: -1}, {Region: "a", Node: "n", Margin: time.Second}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if err := (LeaseConfig{Region: "a", Node: "n"}).Validate(); err != nil {
		t.Error(err)
	}
}
