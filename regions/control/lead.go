package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shortline/shortline/regions"
)

// lead does what falls to a leader beside proposals: it makes sure that it has applied all that was agreed on before it says
// that it leads, gives the leadership to a region that is not the primary one, and takes in voters that are missing.
func (l *life) lead(ctx context.Context) error {
	beats := make(chan raft.Observation, 64)
	observer := raft.NewObserver(beats, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	l.raft.RegisterObserver(observer)
	defer l.raft.DeregisterObserver(observer)
	ticker := time.NewTicker(min(l.n.cfg.Heartbeat/4, 250*time.Millisecond))
	defer ticker.Stop()
	d := duty{life: l}
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-beats:
			l.beat(o)
			continue
		case <-l.raft.LeaderCh():
		case <-ticker.C:
		}
		if err := d.look(ctx); err != nil {
			return err
		}
	}
}

func (l *life) beat(o raft.Observation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch o := o.Data.(type) {
	case raft.FailedHeartbeatObservation:
		if id := regions.ID(o.PeerID); !l.down[id] {
			l.down[id] = true
			l.n.log.Warn("a voter does not answer its leader", "voter", id, "since", o.LastContact)
		}
	case raft.ResumedHeartbeatObservation:
		if id := regions.ID(o.PeerID); l.down[id] {
			delete(l.down, id)
			l.n.log.Info("a voter answers again", "voter", id)
		}
	}
}

func (l *life) isDown(id regions.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down[id]
}

// duty is what a leader remembers between two looks.
type duty struct {
	*life
	stuck     time.Duration // since when it leads without being able to, 0: it is not so
	next      time.Duration // when leadership may be given away, after it was tried
	failed    int           // how often that failed in a row
	rotation  int
	nextCheck time.Duration // of the voters
	slow      bool          // this voter is slow to ask for votes
	// gone are voters that --control-voters does not name any more and that do not answer, with since when.
	gone map[regions.ID]time.Duration
}

func (d *duty) look(ctx context.Context) error {
	now := d.n.cfg.Clock()
	d.tune()
	if d.raft.State() != raft.Leader {
		d.term.Store(0)
		d.stuck = 0
		return nil
	}
	if _, ok := d.leads(); !ok {
		return d.begin(ctx, now)
	}
	if err := d.giveAway(ctx, now); err != nil {
		return err
	}
	if now >= d.nextCheck {
		d.nextCheck = now + 2*time.Second
		d.reconcile(ctx)
	}
	return nil
}

// begin takes the leadership up. A leader that was elected again while raft still believes that it is giving its leadership
// away (hashicorp/raft#696) can do neither for good; then raft has to be started anew.
func (d *duty) begin(ctx context.Context, now time.Duration) error {
	term := d.raft.CurrentTerm()
	err := d.barrier(ctx)
	switch {
	case err == nil:
		d.stuck = 0
		if d.raft.State() == raft.Leader && d.raft.CurrentTerm() == term {
			d.life.mu.Lock()
			clear(d.down)
			d.life.mu.Unlock()
			d.life.term.Store(term)
			d.next, d.failed = now+2*d.n.cfg.Heartbeat, 0
			d.n.log.Info("this voter leads", "region", d.n.cfg.Region, "term", term)
		}
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return d.wedged(now)
	}
	return nil
}

// barrier returns once everything that was agreed on before is applied here.
func (l *life) barrier(ctx context.Context) error {
	if l.n.wedge.Load() {
		return raft.ErrLeadershipTransferInProgress
	}
	return l.wait(ctx, l.raft.Barrier(applyTimeout), applyTimeout)
}

// wedged ends this life when it has been stuck for too long.
func (d *duty) wedged(now time.Duration) error {
	if d.stuck == 0 {
		d.stuck = now
	}
	if now-d.stuck < 5*d.n.cfg.Election {
		return nil
	}
	d.n.log.Error("raft is stuck in giving its leadership away; it is started anew", "region", d.n.cfg.Region)
	return errWedged
}

// tune makes the primary region's voter slower to ask for votes than the others, so that mostly one of them leads.
func (d *duty) tune() {
	slow := d.n.View().State.Primary == d.n.cfg.Region && len(d.n.cfg.Voters) > 1
	if slow == d.slow {
		return
	}
	c := d.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = d.n.cfg.Heartbeat, d.n.cfg.Election
	if slow {
		c.HeartbeatTimeout, c.ElectionTimeout = 2*c.HeartbeatTimeout, 2*c.ElectionTimeout
	}
	if err := d.raft.ReloadConfig(c); err != nil {
		d.n.log.Error("tuning raft", "err", err)
		return
	}
	d.slow = slow
}

// giveAway hands the leadership to a voter of another region while this one's is the primary: what watches over a region
// should not go down with it. During an operation it stays where it is.
func (d *duty) giveAway(ctx context.Context, now time.Duration) error {
	s := d.n.View().State
	if s.Primary != d.n.cfg.Region || s.Operation != nil || now < d.next {
		return nil
	}
	to, ok := d.heir()
	if !ok {
		d.next = now + 2*time.Second
		return nil
	}
	err := d.wait(ctx, d.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)), 3*d.n.cfg.Election)
	if err != nil {
		d.failed++
	} else {
		d.failed = 0
	}
	d.next = d.n.cfg.Clock() + min(time.Minute, 5*time.Second<<min(d.failed, 4))
	if ctx.Err() == nil {
		d.n.log.Info("leadership was given away from the primary region", "to", to, "err", err)
	}
	d.rotation++
	if err == nil || d.raft.State() != raft.Leader {
		return nil
	}
	// Did it get stuck? If so, it stays so until it is found out.
	if errors.Is(d.barrier(ctx), raft.ErrLeadershipTransferInProgress) {
		d.life.term.Store(0)
	}
	return nil
}

// heir is a voter of another region that answers.
func (d *duty) heir() (regions.ID, bool) {
	f := d.raft.GetConfiguration()
	if f.Error() != nil {
		return "", false
	}
	var ids []regions.ID
	for _, s := range f.Configuration().Servers {
		if id := regions.ID(s.ID); s.Suffrage == raft.Voter && id != d.n.cfg.Region && !d.isDown(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "", false
	}
	slices.Sort(ids)
	return ids[d.rotation%len(ids)], true
}

// reconcile takes in a voter of the flags that has no vote: first without one, and with it once it has caught up. One that the
// flags do not have any more keeps its vote until people take the control state apart: flags differ for a while in every change of them.
func (d *duty) reconcile(ctx context.Context) {
	f := d.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	has := map[regions.ID]raft.ServerSuffrage{}
	for _, s := range f.Configuration().Servers {
		has[regions.ID(s.ID)] = s.Suffrage
	}
	for _, id := range sorted(d.n.cfg.Voters) {
		suffrage, in := has[id]
		if in && suffrage == raft.Voter {
			continue
		}
		p, err := d.n.probe(ctx, id, false)
		if err != nil || p.Incarnation != 0 && p.Incarnation != d.n.View().Incarnation {
			continue
		}
		switch sid, addr := raft.ServerID(id), raft.ServerAddress(id); {
		case !in && !p.Blank:
			d.n.log.Info("a voter is taken in", "voter", id)
			err = d.wait(ctx, d.raft.AddNonvoter(sid, addr, 0, applyTimeout), applyTimeout)
		case in && p.Applied+64 >= d.raft.AppliedIndex():
			d.n.log.Info("a voter has caught up and gets a vote", "voter", id)
			err = d.wait(ctx, d.raft.AddVoter(sid, addr, 0, applyTimeout), applyTimeout)
		}
		if err != nil {
			d.n.log.Warn("taking a voter in", "voter", id, "err", err)
		}
		return // one at a time
	}
	d.remove(ctx, has)
}

// removeAfter is for how many heartbeats a voter that nobody names any more must not have answered until it is removed: while nodes
// are restarted with other voters one by one, some still name it.
const removeAfter = 30

// remove ends the vote of one that the settings do not name any more and that is gone; until then it counts for the majority.
func (d *duty) remove(ctx context.Context, has map[regions.ID]raft.ServerSuffrage) {
	if d.gone == nil {
		d.gone = map[regions.ID]time.Duration{}
	}
	now := d.n.cfg.Clock()
	for _, id := range sorted(has) {
		if _, named := d.n.cfg.Voters[id]; named || !d.isDown(id) {
			delete(d.gone, id)
			continue
		}
		if _, ok := d.gone[id]; !ok {
			d.gone[id] = now
		}
		if now-d.gone[id] < removeAfter*d.n.cfg.Heartbeat {
			continue
		}
		d.n.log.Warn("a voter that is not named any more and does not answer is removed", "voter", id)
		if err := d.wait(ctx, d.raft.RemoveServer(raft.ServerID(id), 0, applyTimeout), applyTimeout); err != nil {
			d.n.log.Warn("removing a voter", "voter", id, "err", err)
			return
		}
		delete(d.gone, id)
		return // one at a time
	}
}
