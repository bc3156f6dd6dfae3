package regions

import (
	"maps"
	"slices"
	"time"

	"github.com/shortline/shortline/geo"
)

// Policy bounds of the state machine. They are constants because all voters have to judge alike.
const (
	// BetweenFailovers is for how long no automatic failover follows another that nobody acknowledged.
	BetweenFailovers = time.Hour
	// AfterAbort is for how long none follows an operation that was called off.
	AfterAbort = time.Minute
	// maxHolders bounds Lease.Holders: past it the one that has not renewed for longest is forgotten, and is waited for by time.
	maxHolders = 256
)

// Apply returns the state after a command, or the same state and which rule refuses it. It reads no clock and no
// randomness: the same state and command give the same result on every voter.
func Apply(s State, c Command) (State, *RefusedError) {
	if c.changes() != 1 {
		return s, refuse(RuleInvalid, "a command makes exactly one change, this one makes %d", c.changes())
	}
	if s.ClusterID == "" && c.Bootstrap == nil {
		return s, refuse(RuleNotBootstrapped, "the control plane has not been set up yet")
	}
	next, why := s.apply(c)
	if why != nil {
		return s, why
	}
	return next, nil
}

func (c Command) changes() int {
	n := 0
	for _, set := range []bool{c.Bootstrap != nil, c.Renew != nil, c.Surrender != nil, c.Intent != nil, c.Marks != nil, c.Target != nil,
		c.Abort != nil, c.Reopen != nil, c.NewPrimary != nil, c.Finish != nil, c.Sync != nil, c.Region != nil, c.Automation != nil,
		c.Acknowledge != nil, c.Remark != nil, c.Restore != nil} {
		if set {
			n++
		}
	}
	return n
}

func (s State) apply(c Command) (State, *RefusedError) {
	switch {
	case c.Bootstrap != nil:
		return s.bootstrap(c, c.Bootstrap)
	case c.Renew != nil:
		return s.renew(c.Renew)
	case c.Surrender != nil:
		return s.surrender(c.Surrender)
	case c.Intent != nil:
		return s.intent(c, c.Intent)
	case c.Marks != nil:
		return s.mark(c.Marks.Epoch, c.Marks.Marks)
	case c.Target != nil:
		return s.target(c.Target)
	case c.Abort != nil:
		return s.abort(c, c.Abort)
	case c.Reopen != nil:
		return s.reopen(c, c.Reopen)
	case c.NewPrimary != nil:
		return s.newPrimary(c, c.NewPrimary)
	case c.Finish != nil:
		return s.finish(c, c.Finish)
	case c.Sync != nil:
		return s.sync(c, c.Sync)
	case c.Region != nil:
		return s.region(c, c.Region)
	case c.Automation != nil:
		return s.automation(c, c.Automation.Paused)
	case c.Acknowledge != nil:
		return s.acknowledge(c)
	case c.Restore != nil:
		return s.restore(c, c.Restore)
	}
	return s.note(Entry{At: c.At, Event: c.Remark.Event, By: c.By, Why: c.Why, Epoch: s.Epoch, Region: c.Remark.Region, Evidence: c.Remark.Evidence}), nil
}

func (s State) bootstrap(c Command, b *Bootstrap) (State, *RefusedError) {
	switch {
	case s.ClusterID != "" && s.ClusterID == b.ClusterID:
		return s, refuse(RuleBootstrapped, "the cluster %s is set up already", s.Cluster)
	case s.ClusterID != "":
		return s, refuse(RuleCluster, "this control plane is that of the cluster %s (%s), not of %s (%s)", s.Cluster, s.ClusterID, b.Cluster, b.ClusterID)
	case b.Cluster == "" || b.ClusterID == "" || b.Epoch == 0:
		return s, refuse(RuleInvalid, "a cluster needs a name, an id and an epoch above 0")
	}
	regions := map[ID]RegionState{}
	for _, r := range b.Regions {
		regions[r.ID] = RegionState{Point: r.Point, Agent: r.Agent, Witness: r.Witness, Duty: Active, Since: c.At}
	}
	if p, ok := regions[b.Primary]; !ok || p.Witness {
		return s, refuse(RuleUnknownRegion, "the first primary %s is not one of the regions with a database", b.Primary)
	}
	why := "no standby has been seen to have everything yet"
	mode := Degraded
	switch {
	case b.Async:
		mode, why = Async, "chosen when the cluster was set up"
	case len(regions) == 1:
		why = "there is no other region"
	}
	s = State{
		Cluster: b.Cluster, ClusterID: b.ClusterID, Epoch: b.Epoch, Primary: b.Primary, PrimaryEpoch: b.Epoch, Regions: regions,
		Lease:      Lease{Region: b.Primary, Epoch: b.Epoch},
		Lineage:    []Fork{{Epoch: b.Epoch, Region: b.Primary, Fork: b.Position, Timeline: b.Timeline, At: c.At}},
		Durability: Durability{Mode: mode, Why: why, By: c.By, Since: c.At},
		Generation: 1,
	}
	return s.note(Entry{At: c.At, Event: "bootstrap", By: c.By, Why: c.Why, Epoch: b.Epoch, Region: b.Primary}), nil
}

// leased tells why a node may not hold the lease of an epoch.
func (s State) leased(region ID, epoch uint64) *RefusedError {
	switch {
	case epoch != s.PrimaryEpoch:
		return refuse(RuleStaleEpoch, "the lease of epoch %d was asked for, the primary's epoch is %d", epoch, s.PrimaryEpoch)
	case region != s.Primary:
		return refuse(RuleNotPrimary, "%s asked for the lease, %s is primary", region, s.Primary)
	}
	return nil
}

func (s State) renew(r *Renew) (State, *RefusedError) {
	if why := s.leased(r.Region, r.Epoch); why != nil {
		return s, why
	}
	if s.Epoch != s.PrimaryEpoch {
		return s, refuse(RuleIntent, "epoch %d has begun, no lease of epoch %d is renewed any more", s.Epoch, r.Epoch)
	}
	if r.TTLMS < 0 || r.TTLMS > MaxLeaseTTL.Milliseconds() {
		return s, refuse(RuleInvalid, "a lease lasts at most %v, not %d ms", MaxLeaseTTL, r.TTLMS)
	}
	s.Lease.Renewals++
	s.Lease.TTLMS = max(s.Lease.TTLMS, r.TTLMS)
	s.Lease.Holders = maps.Clone(s.Lease.Holders)
	if s.Lease.Holders == nil {
		s.Lease.Holders = map[string]uint64{}
	}
	s.Lease.Holders[r.Node] = s.Lease.Renewals
	if len(s.Lease.Holders) > maxHolders {
		oldest := r.Node
		for node, n := range s.Lease.Holders {
			if n < s.Lease.Holders[oldest] {
				oldest = node
			}
		}
		delete(s.Lease.Holders, oldest)
	}
	return s, nil
}

func (s State) surrender(r *Surrender) (State, *RefusedError) {
	if why := s.leased(r.Region, r.Epoch); why != nil {
		return s, why
	}
	s.Lease.Holders = maps.Clone(s.Lease.Holders)
	delete(s.Lease.Holders, r.Node)
	return s, nil
}

// mayLead tells why a region may not become primary.
func (s State) mayLead(id ID, force []Rule) *RefusedError {
	r, ok := s.Regions[id]
	switch {
	case !ok:
		return refuse(RuleUnknownRegion, "there is no region %s", id)
	case r.Witness:
		return refuse(RuleWitness, "%s is a witness: it has no database", id)
	case r.Rebuild:
		return refuse(RuleLineage, "the database of %s has to be copied anew first", id)
	case r.Duty != Active && !slices.Contains(force, RuleDrained):
		return refuse(RuleDrained, "%s is %s; undrain it first", id, r.Duty)
	case r.Held && !slices.Contains(force, RuleHeld):
		return refuse(RuleHeld, "%s came back from a failure and takes no writes until it is undrained", id)
	}
	return nil
}

func (s State) intent(c Command, in *Intent) (State, *RefusedError) {
	switch {
	case s.Operation != nil:
		return s, refuse(RuleOperation, "a %s from %s is under way", s.Operation.Kind, s.Operation.From)
	case in.Epoch != s.Epoch+1:
		return s, refuse(RuleStaleEpoch, "the next epoch is %d, not %d", s.Epoch+1, in.Epoch)
	case in.From != s.Primary:
		return s, refuse(RuleNotPrimary, "%s is primary, not %s", s.Primary, in.From)
	case in.To == s.Primary:
		return s, refuse(RuleSameRegion, "%s is primary already", in.To)
	case in.Kind != Failover && in.Kind != Switchover, in.Kind == Switchover && in.To == "", in.Automatic && in.AllowLoss:
		return s, refuse(RuleInvalid, "an intent to %q to %q cannot be", in.Kind, in.To)
	}
	if in.To != "" {
		if why := s.mayLead(in.To, c.Force); why != nil {
			return s, why
		}
	}
	if why := s.members(in); why != nil {
		return s, why
	}
	if in.Automatic {
		if why := s.MayAct(c.At); why != nil {
			return s, why
		}
	}
	members := slices.Clone(in.Members)
	slices.Sort(members)
	s.Epoch = in.Epoch
	s.Operation = &Operation{Kind: in.Kind, Epoch: in.Epoch, From: in.From, To: in.To, By: c.By, Why: c.Why, Automatic: in.Automatic, AllowLoss: in.AllowLoss,
		Overridden: c.Force, Evidence: in.Evidence, Begun: c.At, Members: members, Step: StepIntent, Marks: []Mark{{Step: StepIntent, At: c.At}}}
	return s, nil
}

// members checks that an intent has an answer from everyone who may have confirmed a write.
func (s State) members(in *Intent) *RefusedError {
	if len(in.Members) == 0 {
		return refuse(RuleMembersSilent, "no standby has answered")
	}
	for _, id := range in.Members {
		if r, ok := s.Regions[id]; !ok || r.Witness || id == s.Primary {
			return refuse(RuleUnknownRegion, "%s is no standby", id)
		}
	}
	if in.To != "" && !slices.Contains(in.Members, in.To) {
		return refuse(RuleMembersSilent, "%s has not answered", in.To)
	}
	if in.AllowLoss {
		return nil
	}
	for _, id := range s.Sync {
		if !slices.Contains(in.Members, id) {
			return refuse(RuleMembersSilent, "%s may have confirmed writes and has not answered", id)
		}
	}
	if in.Kind == Failover && s.Durability.Mode == Degraded {
		return refuse(RuleDegraded, "no standby had to confirm writes (%s): a failover could lose some", s.Durability.Why)
	}
	return nil
}

// MayAct tells why no failover may happen by itself at the moment, or nil.
func (s State) MayAct(now time.Time) *RefusedError {
	last := s.LastAutomatic
	switch {
	case s.Paused != nil:
		return refuse(RulePaused, "the automation is paused by %s", s.Paused.By)
	case last != nil && last.Acknowledged == nil && now.Sub(last.At) < BetweenFailovers:
		return refuse(RuleRecentFailover, "the failover from %s to %s is not acknowledged and less than %v past", last.From, last.To, BetweenFailovers)
	case now.Sub(s.AbortedAt) < AfterAbort:
		return refuse(RuleRecentAbort, "an operation was called off less than %v ago", AfterAbort)
	}
	return nil
}

// operation returns a copy of the one under way, if it is that of the epoch.
func (s State) operation(epoch uint64) (*Operation, *RefusedError) {
	if s.Operation == nil || s.Operation.Epoch != epoch {
		return nil, refuse(RuleNoOperation, "no operation of epoch %d is under way", epoch)
	}
	op := *s.Operation
	op.Marks = slices.Clone(op.Marks)
	return &op, nil
}

var stepOrder = []Step{StepIntent, StepLease, StepReadOnly, StepCatchUp, StepDetach, StepTarget, StepPromote, StepPrimary, StepFollow}

// Before tells whether s comes before t.
func (s Step) Before(t Step) bool { return slices.Index(stepOrder, s) < slices.Index(stepOrder, t) }

// maxMarks bounds Operation.Marks: one that is resumed again and again keeps its first ones.
const maxMarks = 60

func (o *Operation) add(marks []Mark) {
	for _, m := range marks {
		if len(o.Marks) < maxMarks {
			o.Marks = append(o.Marks, m)
		}
		if o.Step.Before(m.Step) && m.Step.Before(StepTarget) {
			o.Step = m.Step
		}
	}
}

func (s State) mark(epoch uint64, marks []Mark) (State, *RefusedError) {
	op, why := s.operation(epoch)
	if why != nil {
		return s, why
	}
	op.add(marks)
	s.Operation = op
	return s, nil
}

func (s State) target(t *Target) (State, *RefusedError) {
	op, why := s.operation(t.Epoch)
	switch {
	case why != nil:
		return s, why
	case op.Decided():
		return s, refuse(RuleTargetCommitted, "the target of epoch %d is %s and does not change", op.Epoch, op.Target)
	case !slices.Contains(op.Members, t.Region) || slices.Contains(op.Abandoned, t.Region):
		return s, refuse(RuleUnknownRegion, "%s is not one of those that were asked", t.Region)
	case op.Kind == Switchover && t.Region != op.To:
		return s, refuse(RuleInvalid, "the switchover is to %s, not to %s", op.To, t.Region)
	case t.Position < op.Floor && !t.Covers && !op.AllowLoss:
		return s, refuse(RuleDataLoss, "%s holds the log up to %v, a target before it held %v", t.Region, t.Position, op.Floor)
	}
	if why := s.mayLead(t.Region, append([]Rule{RuleDrained}, op.Overridden...)); why != nil {
		return s, why
	}
	names := slices.Clone(t.Names)
	slices.Sort(names)
	for _, id := range names {
		if id == t.Region || !slices.Contains(op.Members, id) || slices.Contains(op.Abandoned, id) {
			return s, refuse(RuleSyncOrder, "%s cannot confirm the writes of %s", id, t.Region)
		}
	}
	if s.Durability.Mode == Async {
		names = nil
	}
	op.Target, op.Position, op.Names = t.Region, t.Position, slices.Compact(names)
	op.add(t.Marks)
	op.Step = StepTarget
	s.Operation = op
	s.Attempt++
	return s, nil
}

func (s State) abort(c Command, a *Abort) (State, *RefusedError) {
	op, why := s.operation(a.Epoch)
	switch {
	case why != nil:
		return s, why
	case op.Decided():
		return s, refuse(RuleTargetCommitted, "%s is committed as the target: this goes forward only", op.Target)
	}
	s.Epoch++
	s = s.note(Entry{At: c.At, Event: string(op.Kind) + "-aborted", By: c.By, Why: c.Why, Epoch: s.Epoch, From: op.From, To: op.To, Automatic: op.Automatic,
		Evidence: op.Evidence, Overridden: op.Overridden, Steps: op.Marks})
	op.Kind, op.Epoch, op.Target, op.Position, op.Names = Reinstate, s.Epoch, op.From, 0, s.Names
	op.By, op.Why, op.Step = c.By, c.Why, StepTarget
	s.Operation, s.AbortedAt = op, c.At
	s.Attempt++
	return s, nil
}

func (s State) reopen(c Command, r *Reopen) (State, *RefusedError) {
	op, why := s.operation(r.Epoch)
	switch {
	case why != nil:
		return s, why
	case !op.Decided() && op.Kind != Switchover && !r.AllowLoss:
		return s, refuse(RuleNoTarget, "no target is committed yet")
	case s.PrimaryEpoch == op.Epoch:
		return s, refuse(RuleTargetCommitted, "%s is primary already", op.Target)
	case !op.covered() && s.Durability.Mode == Degraded && !r.AllowLoss:
		return s, refuse(RuleDegraded, "no standby had to confirm writes (%s): without %s some could be lost", s.Durability.Why, op.From)
	}
	s.Epoch++
	lost := op.Target
	s = s.note(Entry{At: c.At, Event: "reopened", By: c.By, Why: c.Why, Epoch: s.Epoch, Region: lost, From: op.From, Evidence: r.Evidence, Steps: op.Marks})
	if op.Decided() && op.Kind != Reinstate {
		// What it had when it was chosen must not be missing from who takes its place; what it wrote since counts for nothing.
		op.Floor = max(op.Floor, op.Position)
		op.Abandoned = append(slices.Clone(op.Abandoned), lost)
		s = s.withRegion(lost, func(region *RegionState) {
			region.Rebuild, region.Why, region.Since = true, "it was given up as the next primary", c.At
		})
	}
	op.Kind, op.Epoch, op.To, op.Target, op.Position, op.Names = Failover, s.Epoch, "", "", 0, nil
	op.AllowLoss = op.AllowLoss || r.AllowLoss
	op.Automatic = op.Automatic && !r.AllowLoss // people have taken over
	op.Overridden = append(slices.Clone(op.Overridden), c.Force...)
	op.Step = StepIntent
	s.Operation = op
	s.Attempt++
	return s, nil
}

func (s State) newPrimary(c Command, p *NewPrimary) (State, *RefusedError) {
	op, why := s.operation(p.Epoch)
	switch {
	case why != nil:
		return s, why
	case !op.Decided():
		return s, refuse(RuleNoTarget, "no target is committed yet")
	case op.Target != p.Region:
		return s, refuse(RuleTargetCommitted, "the target of epoch %d is %s, not %s", op.Epoch, op.Target, p.Region)
	case s.PrimaryEpoch == op.Epoch:
		return s, nil // said again by who did not hear the answer
	}
	same := p.Region == s.Primary
	fork := Fork{Epoch: p.Epoch, Region: p.Region, Fork: p.Fork, Timeline: p.Timeline, Same: same, At: c.At}
	if op.Floor != 0 && !same {
		fork.Fork = min(fork.Fork, op.Floor) // a reader may have followed what was given up from there on
	}
	s.Lineage = append(slices.Clone(s.Lineage[max(0, len(s.Lineage)+1-maxLineage):]), fork)
	if !same && op.Kind == Failover || len(op.Abandoned) > 0 {
		s.Generation++
	}
	if !same && op.Kind == Failover {
		s = s.withRegion(op.From, func(r *RegionState) {
			r.Held, r.Why, r.Since = true, "it was failed over from in epoch "+utoa(p.Epoch), c.At
		})
	}
	s = s.withRegion(p.Region, func(r *RegionState) { r.Held, r.Rebuild = false, false })
	if op.Automatic && !same {
		s.LastAutomatic = &Automatic{Epoch: p.Epoch, From: op.From, To: p.Region, At: c.At}
	}
	s.Primary, s.PrimaryEpoch = p.Region, p.Epoch
	s.Lease = Lease{Region: p.Region, Epoch: p.Epoch}
	s = s.confirmers(c, op, same)
	op.add(p.Marks)
	op.Step = StepPrimary
	s.Operation = op
	s.Attempt++
	return s, nil
}

// confirmers makes those the sync set that the new primary was given before it was promoted.
func (s State) confirmers(c Command, op *Operation, same bool) State {
	if same && op.Kind == Reinstate {
		return s // the set is as it was
	}
	s.Sync, s.Names = op.Names, op.Names
	switch {
	case s.Durability.Mode == Async:
	case len(op.Names) == 0:
		s.Durability = Durability{Mode: Degraded, Why: "no standby follows " + string(s.Primary) + " yet", By: c.By, Since: c.At}
	case s.Durability.Mode != Quorum:
		// Whoever is asked in the next failover must have this epoch's first row, and with it all that the primary began with.
		s.Durability = Durability{Mode: Quorum, By: c.By, Since: c.At}
	}
	return s
}

func (s State) finish(c Command, f *Finish) (State, *RefusedError) {
	op, why := s.operation(f.Epoch)
	switch {
	case why != nil:
		return s, why
	case s.PrimaryEpoch != op.Epoch:
		return s, refuse(RuleNoTarget, "epoch %d has no primary yet", op.Epoch)
	}
	op.add(f.Marks)
	s.Operation = nil
	return s.note(Entry{At: c.At, Event: string(op.Kind), By: op.By, Why: op.Why, Epoch: op.Epoch, From: op.From, To: op.Target, Automatic: op.Automatic,
		Evidence: op.Evidence, Overridden: op.Overridden, PauseMS: f.PauseMS, Steps: op.Marks}), nil
}

func (s State) region(c Command, ch *Change) (State, *RefusedError) {
	if s.Operation != nil {
		return s, refuse(RuleOperation, "a %s from %s is under way", s.Operation.Kind, s.Operation.From)
	}
	if ch.Add != nil {
		return s.addRegion(c, ch.Add)
	}
	r, ok := s.Regions[ch.Region]
	switch {
	case !ok:
		return s, refuse(RuleUnknownRegion, "there is no region %s", ch.Region)
	case ch.Rebuilt:
		return s.withRegion(ch.Region, func(r *RegionState) { r.Rebuild = false }), nil
	case r.Witness:
		return s, refuse(RuleWitness, "%s is a witness: it serves nobody", ch.Region)
	case ch.To == r.Duty && !(ch.To == Active && r.Held):
		return s, nil
	}
	event := map[Duty]string{Active: "undrain", Draining: "drain", Drained: "drained"}[ch.To]
	switch ch.To {
	case Active:
	case Draining:
		if why := s.mayDrain(ch.Region); why != nil {
			return s, why
		}
	case Drained:
		switch {
		case r.Duty != Draining:
			return s, refuse(RuleInvalid, "%s is %s: it is drained after it was draining", ch.Region, r.Duty)
		case slices.Contains(s.Sync, ch.Region):
			return s, refuse(RuleSyncOrder, "%s still confirms writes", ch.Region)
		}
	default:
		return s, refuse(RuleInvalid, "a region is never %q", ch.To)
	}
	s = s.withRegion(ch.Region, func(r *RegionState) {
		r.Duty, r.Why, r.Since = ch.To, c.Why, c.At
		r.Held = r.Held && ch.To != Active
	})
	return s.note(Entry{At: c.At, Event: event, By: c.By, Why: c.Why, Epoch: s.Epoch, Region: ch.Region, Overridden: c.Force}), nil
}

// mayDrain tells why a region has to stay on. What the others can carry is not known here.
func (s State) mayDrain(id ID) *RefusedError {
	left := 0
	for other, r := range s.Regions {
		if other != id && !r.Witness && r.Duty == Active {
			left++
		}
	}
	switch {
	case left == 0:
		return refuse(RuleLastRegion, "%s is the last region that is on", id)
	case id == s.Primary:
		return refuse(RuleIsPrimary, "%s is primary; switch over to another region first", id)
	}
	return nil
}

func (s State) addRegion(c Command, r *Region) (State, *RefusedError) {
	if _, err := ParseID(string(r.ID)); err != nil {
		return s, refuse(RuleInvalid, "%v", err)
	}
	if old, ok := s.Regions[r.ID]; ok {
		if old.Agent == r.Agent && old.Point == r.Point {
			return s, nil
		}
		return s.withRegion(r.ID, func(old *RegionState) { old.Agent, old.Point = r.Agent, r.Point }), nil
	}
	s = s.withRegion(r.ID, func(n *RegionState) {
		*n = RegionState{Point: r.Point, Agent: r.Agent, Witness: r.Witness, Duty: Drained, Why: "new", Since: c.At}
		if r.Witness {
			n.Duty = Active
		}
	})
	return s.note(Entry{At: c.At, Event: "region-added", By: c.By, Why: c.Why, Epoch: s.Epoch, Region: r.ID}), nil
}

func (s State) automation(c Command, paused bool) (State, *RefusedError) {
	if paused == (s.Paused != nil) {
		return s, nil
	}
	event := "resume"
	s.Paused = nil
	if paused {
		event = "pause"
		s.Paused = &Note{By: c.By, Why: c.Why, At: c.At}
	}
	return s.note(Entry{At: c.At, Event: event, By: c.By, Why: c.Why, Epoch: s.Epoch}), nil
}

func (s State) acknowledge(c Command) (State, *RefusedError) {
	if s.LastAutomatic == nil || s.LastAutomatic.Acknowledged != nil {
		return s, nil
	}
	last := *s.LastAutomatic
	last.Acknowledged = &Note{By: c.By, Why: c.Why, At: c.At}
	s.LastAutomatic = &last
	return s.note(Entry{At: c.At, Event: "ack", By: c.By, Why: c.Why, Epoch: s.Epoch, Region: last.To}), nil
}

func (s State) restore(c Command, r *Restore) (State, *RefusedError) {
	primary := r.Primary
	if primary == "" {
		primary = s.Primary
	}
	if known, ok := s.Regions[primary]; !ok || known.Witness {
		return s, refuse(RuleUnknownRegion, "%s is no region with a database", primary)
	}
	s.Epoch = max(s.Epoch+1, r.Epoch)
	if s.Durability.Mode != Async {
		s.Durability = Durability{Mode: Degraded, Why: "the control state was restored from a backup", By: c.By, Since: c.At}
	}
	s.Sync, s.Names, s.AbortedAt = nil, nil, c.At
	s.Attempt++
	s.Generation++
	s.Operation = &Operation{Kind: Reinstate, Epoch: s.Epoch, From: s.Primary, Target: primary, By: c.By, Why: c.Why, Overridden: c.Force,
		Begun: c.At, Step: StepTarget, Marks: []Mark{{Step: StepTarget, At: c.At}}}
	return s.note(Entry{At: c.At, Event: "restore", By: c.By, Why: c.Why, Epoch: s.Epoch, Region: primary}), nil
}

// Point returns where a region is.
func (s State) Point(id ID) (geo.Point, bool) {
	r, ok := s.Regions[id]
	return r.Point, ok
}
