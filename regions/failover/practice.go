package failover

import (
	"context"
	"fmt"

	"github.com/robfig/cron/v3"

	"github.com/shortline/shortline/regions"
)

// schedule reads a cron expression; nil for "".
func schedule(text string) (cron.Schedule, error) {
	if text == "" {
		return nil, nil
	}
	s, err := cron.ParseStandard(text)
	if err != nil {
		return nil, fmt.Errorf("practice %q: %w; five fields of cron in UTC, such as \"0 4 * * 2\"", text, err)
	}
	return s, nil
}

// practise switches over when it is time, where nothing speaks against it: to the region that answers and is least behind.
// The pause is in the history as that of any other. It happens at the node that leads then.
func (c *Controller) practise(ctx context.Context) {
	s, err := schedule(c.cfg.Practice)
	if err != nil || s == nil {
		return
	}
	for {
		now := c.deps.Now().UTC()
		if !sleep(ctx, max(0, s.Next(now).Sub(now))) {
			return
		}
		if _, leads := c.deps.Control.Leading(); leads {
			c.practiseOnce(ctx)
		}
	}
}

func (c *Controller) practiseOnce(ctx context.Context) {
	sit := c.Situation()
	var to regions.ID
	for _, id := range sit.State.Sync {
		ask := regions.Ask{Kind: regions.Switchover, To: id}
		if sit.State.MayAct(c.deps.Now()) == nil && len(sit.Blockers(ask, c.cfg.Policy)) == 0 && (to == "" || sit.Sights[id].Status.Position > sit.Sights[to].Status.Position) {
			to = id
		}
	}
	if to == "" {
		c.log.Warn("no practice switchover: nobody could take over now", "region", sit.State.Primary)
		return
	}
	out, err := c.Do(ctx, regions.Verb{Verb: regions.VerbSwitchover, To: to, By: "practice", Reason: "practice " + c.cfg.Practice})
	if err != nil || !out.Accepted {
		c.log.Warn("the practice switchover was refused", "region", to, "err", err, "blockers", out.Blockers)
	}
}
