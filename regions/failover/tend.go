package failover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shortline/shortline/regions"
)

// followAgain is how long a database is left alone after it was told to follow.
const followAgain = 3 * time.Second

// tend does one of the moves that keep the sync set and the standbys in order.
func (c *Controller) tend(ctx context.Context, s regions.Situation, a regions.Action) error {
	move := func(m regions.SyncMove) error {
		return c.propose(ctx, regions.Command{Why: a.Why, Sync: &regions.SyncChange{Move: m, Region: a.Region, Attempt: s.State.Attempt, Evidence: a.Evidence}})
	}
	switch a.Do {
	case regions.DoGrow:
		return move(regions.Grow)
	case regions.DoNarrow:
		return move(regions.Narrow)
	case regions.DoDegrade:
		return move(regions.Degrade)
	case regions.SetNames:
		return c.setNames(ctx, s.State)
	case regions.DoShrink, regions.DoWhole:
		if err := c.flushed(ctx, s.State); err != nil {
			return err
		}
		if a.Do == regions.DoWhole {
			return move(regions.Whole)
		}
		return move(regions.Shrink)
	case regions.DoFollow:
		return c.rejoin(ctx, s.State, a.Region)
	case regions.DoRebuilt:
		return c.propose(ctx, regions.Command{Why: a.Why, Region: &regions.Change{Region: a.Region, Rebuilt: true}})
	case regions.DoDrained:
		return c.propose(ctx, regions.Command{Why: a.Why, Region: &regions.Change{Region: a.Region, To: regions.Drained}})
	case regions.DoWritable:
		_, err := c.command(ctx, s.State.Primary, "lift the fence of", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
			return db.ReadOnly(ctx, o, false)
		})
		return err
	}
	return fmt.Errorf("nobody knows how to %q", a.Do)
}

// setNames tells the primary whom to wait for. It is told only what is agreed upon at that moment.
func (c *Controller) setNames(ctx context.Context, s regions.State) error {
	_, err := c.command(ctx, s.Primary, "name the standbys of", func(ctx context.Context, db regions.Database, o regions.Order) (regions.DatabaseStatus, error) {
		if o.Epoch != s.Epoch || o.Attempt != s.Attempt {
			return regions.DatabaseStatus{}, errNotYet
		}
		return db.SetSync(ctx, o, s.Names)
	})
	return err
}

// flushed returns once the names are in force at the primary and each of them has all that the primary had flushed then: no
// acknowledged write rests on anybody else.
func (c *Controller) flushed(ctx context.Context, s regions.State) error {
	db, _, err := c.commander(s.Primary)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Command)
	defer cancel()
	var flush regions.LSN
	err = c.until(ctx, db, func(st regions.DatabaseStatus) bool {
		if st.Role != regions.RolePrimary || !slices.Equal(sorted(st.Sync), s.Names) {
			return false
		}
		if flush == 0 {
			flush = st.Position
		}
		return !slices.ContainsFunc(s.Names, func(id regions.ID) bool { return st.Standbys[id] < flush })
	})
	if err != nil {
		return fmt.Errorf("wait until %v have what %s had flushed: %w", s.Names, s.Primary, err)
	}
	return nil
}

// rejoin makes a standby of a database that is none of this primary's. The primary makes itself ready to be rewound from
// first, once an epoch.
func (c *Controller) rejoin(ctx context.Context, s regions.State, id regions.ID) error {
	if now := time.Now(); now.Before(c.retry[id]) {
		return errNotYet
	} else {
		c.retry[id] = now.Add(followAgain)
	}
	if c.checkpoints != s.PrimaryEpoch {
		db, order, err := c.commander(s.Primary)
		if err != nil {
			return err
		}
		call, cancel := context.WithTimeout(ctx, c.cfg.Promote)
		defer cancel()
		if err := db.Checkpoint(call, order); err != nil {
			return fmt.Errorf("checkpoint of %s: %w", s.Primary, err)
		}
		c.checkpoints = s.PrimaryEpoch
	}
	return c.follow(ctx, s, id)
}
