package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shortline/shortline/regions"
)

// callTimeout bounds a short call to another voter.
const callTimeout = 2 * time.Second

// firstStart finds out, for a voter with an empty folder, whether the cluster is as new as it is. A voter that has lost its
// disk must not begin anew: it would vote as if it had never agreed to anything, and what it had agreed to could be lost. So
// it begins with the others only when enough of them have said, since it was started, that they know of nothing: what was ever
// agreed on is known to a majority, so without this voter at least one of any len−majority+1 others has it. Else it rejoins.
func (n *Node) firstStart(ctx context.Context) (rejoining bool, err error) {
	need := len(n.cfg.Voters) - (len(n.cfg.Voters)/2 + 1) + 1
	if len(n.cfg.Voters) == 1 {
		need = 0
	}
	if n.forgetful {
		return false, nil
	}
	if n.View().State.ClusterID != "" {
		n.log.Warn("this voter has no log, but knew of the cluster: it rejoins")
		return true, nil
	}
	for try := 0; ; try++ {
		known := n.askAll(ctx)
		blank := n.countBlank()
		switch {
		case blank >= need:
			return false, nil
		case known != "":
			n.log.Warn("this voter is new to a cluster that is not: it gets the log from the others before it votes", "voter", known)
			return true, nil
		case try == 20:
			n.log.Warn("a new voter waits for the others to answer, to know whether the cluster is new, too", "answered", blank, "needed", need)
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(50*time.Millisecond + time.Duration(min(try, 19))*50*time.Millisecond):
		}
	}
}

// isBlank notes that a voter knew of nothing at a time since this node was started.
func (n *Node) isBlank(id regions.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.cfg.Voters[id]; ok && id != n.cfg.Region {
		n.blank[id] = true
	}
}

func (n *Node) countBlank() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.blank)
}

// askAll asks the other voters whether they know of anything, and names one that does and always did.
func (n *Node) askAll(ctx context.Context) (known regions.ID) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var all sync.WaitGroup
	answers := make(chan regions.ID, len(n.cfg.Voters))
	for _, id := range sorted(n.cfg.Voters) {
		if id == n.cfg.Region {
			continue
		}
		all.Go(func() {
			p, err := n.probe(ctx, id, true)
			switch {
			case err != nil:
				n.log.Debug("asking another voter", "voter", id, "err", err)
			case p.Blank:
				n.isBlank(id)
			default:
				answers <- id
			}
		})
	}
	all.Wait()
	close(answers)
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range answers {
		if !n.blank[id] {
			known = id
		}
	}
	return known
}

// probe asks a voter what it knows. blank is what this one knows.
func (n *Node) probe(ctx context.Context, id regions.ID, blank bool) (p probe, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = n.client.Call(ctx, n.cfg.Voters[id], pathProbe, probing{n.asking(), n.cfg.Region, blank}, &p)
	if err == nil && p.Region != id {
		err = fmt.Errorf("%s answers in the place of %s; see to the addresses of --control-voters", p.Region, id)
	}
	return p, err
}

// rejoin ends the quarantine of a voter that lost what it had agreed to: once its log has everything that the leader's had
// at some moment since it began. A leader's log has all that was ever agreed on, as this voter had no part in its election. It
// also waits until nobody can be counting a vote any more that this voter gave before its loss.
func (l *life) rejoin(ctx context.Context) error {
	if !l.wire.rejoining.Load() {
		return nil
	}
	ticker := time.NewTicker(l.n.cfg.Heartbeat / 4)
	defer ticker.Stop()
	var goal uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if goal == 0 {
			goal = l.n.askBarrier(ctx)
		}
		if goal == 0 || l.raft.AppliedIndex() < goal || l.n.cfg.Clock()-l.begun < 3*l.n.cfg.Election {
			continue
		}
		v := *l.n.keeper.voter()
		v.Rejoining = false
		if err := l.n.keeper.setVoter(v); err != nil {
			return err
		}
		l.wire.rejoining.Store(false)
		l.n.log.Info("this voter has caught up, and votes again", "index", goal)
		return nil
	}
}

// askBarrier returns an index that this voter has to reach, 0 where nobody can say.
func (n *Node) askBarrier(ctx context.Context) uint64 {
	leader, _ := n.Leader()
	addr, ok := n.cfg.Voters[leader]
	if !ok || leader == n.cfg.Region {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var r reached
	if err := n.client.Call(ctx, addr, pathBarrier, n.asking(), &r); err != nil {
		n.log.Debug("asking the leader how far it is", "leader", leader, "err", err)
	}
	return r.Index
}
