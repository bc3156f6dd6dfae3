package failover

import (
	"context"
	"errors"
	"fmt"

	"github.com/shortline/shortline/regions"
)

// Do carries out what an operator asks for, at the node that leads. Where rules speak against it the Outcome names them all
// and nothing has changed; so it is with an error that is a *regions.RefusedError. Any other error says that nobody knows whether it was
// done. An operation that was begun goes on by itself; its end is in the history.
func (c *Controller) Do(ctx context.Context, v regions.Verb) (regions.Outcome, error) {
	sit := c.Situation()
	if sit.Led == 0 {
		return regions.Outcome{}, noLeader("this node does not lead the control plane")
	}
	room := c.room(v.Names())
	out := regions.Outcome{Verb: v.Verb, Region: v.Names(), DryRun: v.DryRun, Plan: sit.Plan(v, c.cfg.Policy, room), Blockers: sit.VerbBlockers(v, c.cfg.Policy, room)}
	if out.Blockers == nil {
		out.Blockers = []*regions.RefusedError{}
	}
	out.Overridden = sit.Overrides(v, c.cfg.Policy, room)
	out.Accepted = len(out.Blockers) == 0
	if v.DryRun || !out.Accepted {
		return out, nil
	}
	cmd, err := command(sit, v, out.Overridden)
	if err != nil {
		return out, err
	}
	if cmd.Intent != nil {
		err = c.begin(ctx, cmd)
	} else {
		err = c.propose(ctx, cmd)
	}
	var why *regions.RefusedError
	switch {
	case errors.As(err, &why) && why.Rule == regions.RuleNoLeader: // it may be asked of the next
		return out, why
	case errors.As(err, &why): // somebody was faster
		out.Accepted, out.Blockers = false, append(out.Blockers, why)
		return out, nil
	case err != nil:
		return out, fmt.Errorf("%s %s: it may or may not be under way: %w", v.Verb, v.Names(), err)
	}
	if op := c.deps.Control.State().Operation; op != nil && (cmd.Intent != nil || cmd.Reopen != nil) {
		out.Epoch = op.Epoch
	}
	c.log.Info("an operator's verb", "verb", v.Verb, "region", v.Names(), "by", v.By, "why", v.Reason, "overridden", out.Overridden)
	c.Kick()
	return out, nil
}

// command is what a verb comes to.
func command(s regions.Situation, v regions.Verb, overridden []regions.Rule) (regions.Command, error) {
	cmd := regions.Command{By: v.By, Why: v.Reason, Force: overridden}
	switch v.Verb {
	case regions.VerbSwitchover, regions.VerbFailover:
		if op := s.State.Operation; op != nil {
			cmd.Reopen = &regions.Reopen{Epoch: op.Epoch, AllowLoss: true, Evidence: []string{"an operator allowed the loss of data"}}
			return cmd, nil
		}
		kind := regions.Switchover
		if v.Verb == regions.VerbFailover {
			kind = regions.Failover
		}
		cmd.Intent = s.Intent(regions.Ask{Kind: kind, To: v.To, AllowLoss: v.AllowDataLoss && kind == regions.Failover, Force: v.Force}, s.Suspicion(regions.Policy{}))
	case regions.VerbDrain:
		cmd.Region = &regions.Change{Region: v.Region, To: regions.Draining}
	case regions.VerbUndrain:
		cmd.Region = &regions.Change{Region: v.Region, To: regions.Active}
	case regions.VerbPause, regions.VerbResume:
		cmd.Automation = &regions.Automation{Paused: v.Verb == regions.VerbPause}
	case regions.VerbAck:
		cmd.Acknowledge = &regions.Acknowledge{}
	default:
		return cmd, fmt.Errorf("there is no verb %q", v.Verb)
	}
	return cmd, nil
}

func (c *Controller) room(id regions.ID) regions.Room {
	if c.deps.Room == nil || id == "" {
		return regions.Room{}
	}
	bears, room, ok := c.deps.Room(id)
	return regions.Room{Bears: bears, Room: room, Known: ok}
}

// Cluster is the deployment as this node sees it; whole at the one that leads.
func (c *Controller) Cluster() regions.Cluster {
	leader := ""
	sit := c.Situation()
	if sit.Led > 0 {
		leader = c.cfg.Self
	}
	out := sit.Cluster(c.cfg.Policy, leader, c.deps.Now().UTC())
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.blocked) > 0 && sit.Led > 0 {
		out.Blocked = c.blocked
	}
	return out
}

// Explain says why a region can or cannot be primary now. It is refused where this node does not lead.
func (c *Controller) Explain(id regions.ID) (regions.Explanation, error) {
	sit := c.Situation()
	if sit.Led == 0 {
		return regions.Explanation{}, noLeader("this node does not lead the control plane")
	}
	return sit.Explain(id, c.cfg.Policy, c.room(id)), nil
}
