package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shortline/shortline/regions"
)

// stopwatch measures the shares of a pause. Marks that are not committed with something are lost with the controller, and
// nothing else.
type stopwatch struct {
	c     *Controller
	last  time.Time
	marks []regions.Mark
}

func (c *Controller) stopwatch() *stopwatch { return &stopwatch{c: c, last: time.Now()} }

func (w *stopwatch) mark(step regions.Step, note string) {
	now := time.Now()
	w.marks = append(w.marks, regions.Mark{Step: step, At: w.c.deps.Now().UTC(), TookMS: float64(now.Sub(w.last).Microseconds()) / 1000, Note: note})
	w.last = now
}

// resume does the next committed step of the operation under way, and all that comes before it.
func (c *Controller) resume(ctx context.Context, s regions.Situation) error {
	op := s.State.Operation
	switch {
	case s.State.PrimaryEpoch == op.Epoch:
		return c.settle(ctx, op)
	case op.Decided():
		return c.install(ctx, op)
	}
	// What has no target yet can be called off: it is not worked on for longer than it takes to notice that it is stuck.
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Policy.Patience(op.Kind))
	defer cancel()
	return c.choose(ctx, op)
}

// choose waits the lease out, makes the positions final, and commits a target.
func (c *Controller) choose(ctx context.Context, op *regions.Operation) error {
	w := c.stopwatch()
	// While the lease is waited for, a switchover fences its source, which holds up nothing that may still be acknowledged, and names
	// the standbys of its target, which is known.
	var beside sync.WaitGroup
	defer beside.Wait()
	var source regions.DatabaseStatus
	var unfenced error
	if op.Kind == regions.Switchover {
		beside.Go(func() { c.nameAhead(ctx, c.deps.Control.State(), op.To) }) // it is so already, unless the controller died
		beside.Go(func() { source, unfenced = c.fence(ctx, op.From) })
	}
	if err := c.awaitLease(ctx); err != nil {
		return err
	}
	w.mark(regions.StepLease, "")
	beside.Wait()
	if op.Kind == regions.Switchover {
		if unfenced != nil {
			return unfenced
		}
		w.mark(regions.StepReadOnly, "")
		if err := c.drainLog(ctx, op, source.Position, w); err != nil {
			return err
		}
	}
	positions := c.detach(ctx, op)
	w.mark(regions.StepDetach, "")
	target, why := regions.ChooseTarget(c.deps.Control.State(), positions)
	if why != nil {
		return fmt.Errorf("%w: %w", errNotYet, why)
	}
	w.mark(regions.StepTarget, target.Position.String())
	target.Marks = w.marks
	c.named = named{}
	if len(target.Names) > 0 && slices.Equal(sorted(positions[target.Region].Sync), sorted(target.Names)) {
		c.named = named{op.Epoch, target.Region}
	}
	return c.propose(ctx, regions.Command{Why: op.Why, Target: target})
}

// nameAhead names the standbys of a coming target. Where that fails it is done once the target is committed.
func (c *Controller) nameAhead(ctx context.Context, s regions.State, target regions.ID) {
	names := regions.Confirmers(s, target)
	if len(names) == 0 {
		return
	}
	_, err := c.command(ctx, target, "name the standbys of", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
		return db.SetSync(ctx, o, names)
	})
	if err != nil {
		c.log.Info("the coming target's standbys were not named ahead", "region", target, "err", err)
	}
}

// awaitLease returns once no node can hold the lease of the old epoch: each has surrendered it, or as much time has passed
// since its last renewal as a lease lasts by the slowest clock.
func (c *Controller) awaitLease(ctx context.Context) error {
	wait := c.cfg.Policy.For(c.deps.Control.State().Lease).LeaseWait()
	for {
		changed := c.deps.Control.Changed()
		var rest time.Duration
		for node := range c.deps.Control.State().Lease.Holders {
			rest = max(rest, wait-c.deps.Control.Renewed(node))
		}
		if rest <= 0 || c.mutant == mutantNoWait {
			return nil
		}
		t := time.NewTimer(rest)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for the lease: %w", ctx.Err())
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// fence keeps the source of a switchover from writing. Its position is not moved by writes any more.
func (c *Controller) fence(ctx context.Context, source regions.ID) (regions.DatabaseStatus, error) {
	return c.command(ctx, source, "fence", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
		return db.ReadOnly(ctx, o, true)
	})
}

// drainLog waits until the target of a switchover has the log of its source, which is fenced.
func (c *Controller) drainLog(ctx context.Context, op *regions.Operation, source regions.LSN, w *stopwatch) error {
	db, _, err := c.commander(op.To)
	if err != nil {
		return err
	}
	err = c.until(ctx, db, func(st regions.DatabaseStatus) bool { return st.Position >= source })
	if err != nil {
		return fmt.Errorf("wait until %s has %v: %w", op.To, source, err)
	}
	w.mark(regions.StepCatchUp, source.String())
	return nil
}

// until polls a database until its status is as wanted.
func (c *Controller) until(ctx context.Context, db regions.Database, good func(regions.DatabaseStatus) bool) error {
	for {
		call, cancel := context.WithTimeout(ctx, c.cfg.Call)
		st, err := db.Status(call)
		cancel()
		if err == nil && good(st) {
			return nil
		}
		if !sleep(ctx, c.cfg.Poll) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// detach detaches all members at once, and returns the status of those that are.
func (c *Controller) detach(ctx context.Context, op *regions.Operation) map[regions.ID]regions.DatabaseStatus {
	var mu sync.Mutex
	positions := map[regions.ID]regions.DatabaseStatus{}
	c.each(op.Members, func(id regions.ID) {
		if slices.Contains(op.Abandoned, id) {
			return
		}
		st, err := c.command(ctx, id, "detach", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
			if c.mutant == mutantNoDetach {
				st, err := db.Status(ctx)
				st.Streaming = false
				return st, err
			}
			return db.Detach(ctx, o)
		})
		if err != nil {
			c.log.Info("a member was not detached", "region", id, "epoch", op.Epoch, "err", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		positions[id] = st
	})
	return positions
}

// each calls do for every region at once, and returns when all are done.
func (c *Controller) each(ids []regions.ID, do func(regions.ID)) {
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() { do(id) })
	}
	all.Wait()
}

// install promotes the committed target and commits it as primary.
func (c *Controller) install(ctx context.Context, op *regions.Operation) error {
	w := c.stopwatch()
	if c.mutant == mutantRechoose {
		op = c.rechoose(ctx, op)
	}
	if op.Kind == regions.Reinstate && op.Target != op.From { // the control state was restored with another primary, so nobody has detached it
		_, err := c.command(ctx, op.Target, "detach", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
			return db.Detach(ctx, o)
		})
		if err != nil && !errors.Is(err, regions.ErrWrongRole) { // it may have been promoted already
			return err
		}
	}
	if c.named != (named{op.Epoch, op.Target}) || c.mutant == mutantRechoose {
		_, err := c.command(ctx, op.Target, "name the standbys of", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
			return db.SetSync(ctx, o, op.Names)
		})
		if err != nil {
			return err
		}
	}
	db, order, err := c.commander(op.Target)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, c.cfg.Promote)
	defer cancel()
	p, err := db.Promote(call, order, op.Epoch)
	if err != nil {
		return fmt.Errorf("promote %s in %v: %w", op.Target, order, err)
	}
	w.mark(regions.StepPromote, p.Fork.String())
	p.Epoch = op.Epoch
	w.mark(regions.StepPrimary, "")
	return c.propose(ctx, regions.Command{Why: op.Why, NewPrimary: &regions.NewPrimary{Promotion: p, Region: op.Target, Marks: w.marks}})
}

// settle lets the others follow the new primary, and ends the operation once a write can be confirmed; those that take longer go
// on. Whoever does not answer is left to the sync set's keeper, as is the old primary, which has to be rewound.
func (c *Controller) settle(ctx context.Context, op *regions.Operation) error {
	w := c.stopwatch()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Follow)
	defer cancel()
	s := c.deps.Control.State()
	others := slices.DeleteFunc(s.Databases(), func(id regions.ID) bool {
		return id == op.Target || id == op.From || s.Regions[id].Rebuild
	})
	for _, id := range others {
		c.retry[id] = time.Now().Add(followAgain)
		c.follows.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Command)
			defer cancel()
			if err := c.follow(ctx, s, id); err != nil {
				c.log.Info("a standby does not follow yet", "region", id, "epoch", op.Epoch, "err", err)
			}
		})
	}
	confirmed := len(s.Names) == 0
	if db, _, err := c.commander(op.Target); err == nil && !confirmed {
		confirmed = nil == c.until(ctx, db, func(st regions.DatabaseStatus) bool {
			return slices.ContainsFunc(s.Names, func(id regions.ID) bool { _, ok := st.Standbys[id]; return ok })
		})
	}
	pause := c.pause(op)
	note := ""
	if !confirmed {
		note = fmt.Sprintf("none of %v follows yet", s.Names)
	}
	w.mark(regions.StepFollow, note)
	// The end is committed whether or not the others have answered, in time of its own.
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Command)
	defer stop()
	err := c.propose(end, regions.Command{Finish: &regions.Finish{Epoch: op.Epoch, PauseMS: float64(pause.Microseconds()) / 1000, Marks: w.marks}})
	if err == nil {
		c.met.ended(op, pause)
		c.log.Info("a new epoch has begun", "epoch", op.Epoch, "region", op.Target, "kind", op.Kind, "pause", pause.Round(time.Millisecond))
	}
	return err
}

// follow tells a database to follow the primary.
func (c *Controller) follow(ctx context.Context, s regions.State, id regions.ID) error {
	fork := regions.LSN(1) // 0 would say that nothing of its history counts
	if f, ok := s.Fork(); ok && f.Fork > 0 {
		fork = f.Fork
	}
	if s.Regions[id].Rebuild {
		fork = 0
	}
	_, err := c.command(ctx, id, "follow "+string(s.Primary)+" in", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
		if o.Epoch != s.Epoch {
			return regions.DatabaseStatus{}, fmt.Errorf("epoch %d has begun meanwhile", o.Epoch)
		}
		return db.Follow(ctx, o, s.Primary, fork)
	})
	return err
}

// rechoose is the mutant that takes whoever answers for the target.
func (c *Controller) rechoose(ctx context.Context, op *regions.Operation) *regions.Operation {
	for _, id := range op.Members {
		if db, _, err := c.commander(id); err == nil {
			call, cancel := context.WithTimeout(ctx, c.cfg.Call)
			_, err = db.Status(call)
			cancel()
			if err == nil {
				other := *op
				other.Target, other.Names = id, nil
				return &other
			}
		}
	}
	return op
}
