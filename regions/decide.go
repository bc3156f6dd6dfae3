package regions

import (
	"fmt"
	"slices"
	"time"
)

// Doing is what a controller is to do next.
type Doing string

// What there is to do. Those after Resume keep the sync set and the standbys in order.
const (
	Nothing  Doing = ""
	Begin    Doing = "begin"    // commit Intent
	Resume   Doing = "resume"   // go on with the operation under way
	CallOff  Doing = "call-off" // Abort
	Reopened Doing = "reopen"   // Reopen

	SetNames   Doing = "set-names"  // tell the primary whom to wait for
	DoGrow     Doing = "grow"       // commit, then SetNames
	DoNarrow   Doing = "narrow"     // commit, then SetNames, then DoShrink
	DoShrink   Doing = "shrink"     // once each remaining member has all that was flushed
	DoDegrade  Doing = "degrade"    // commit, then SetNames
	DoWhole    Doing = "whole"      // once each member has all that was flushed
	DoFollow   Doing = "follow"     // make Region a standby of the primary
	DoRebuilt  Doing = "rebuilt"    // note that its copy is done
	DoDrained  Doing = "drained"    // its clients had the time to leave
	DoWritable Doing = "lift-fence" // the primary was left read-only
)

// Action is one thing to do, and why. Where a failover is wanted and barred, Blocked says by what.
type Action struct {
	Do       Doing
	Region   ID
	Why      string
	Evidence []string
	Intent   *Intent
	Blocked  []*RefusedError
}

// Decide says what a controller is to do next. It is pure: the same situation and time give the same action. now is the
// time of day, for what the state dates.
func Decide(s Situation, p Policy, now time.Time) Action {
	p = p.WithDefaults()
	switch {
	case s.Led <= 0 || s.State.ClusterID == "" || len(s.State.Databases()) < 2:
		return Action{}
	case s.State.Operation != nil:
		return s.underWay(p)
	}
	suspicion := s.Suspicion(p)
	if len(suspicion) > 0 {
		return s.failover(p, suspicion, now)
	}
	if primary := s.Sights[s.State.Primary]; primary.Answers() && primary.Status.Role == RolePrimary {
		return s.keep(p, now)
	}
	return Action{}
}

// failover begins one if nothing bars it.
func (s Situation) failover(p Policy, suspicion []string, now time.Time) Action {
	ask := Ask{Kind: Failover, Automatic: true}
	blocked := s.Blockers(ask, p)
	if why := s.State.MayAct(now); why != nil {
		blocked = append(blocked, why)
	}
	if len(s.State.Sync) == 0 && s.State.Durability.Mode == Async {
		blocked = append(blocked, refuse(RuleMembersSilent, "no standby follows %s", s.State.Primary))
	}
	if len(blocked) > 0 {
		return Action{Why: "a failover is barred", Evidence: suspicion, Blocked: blocked}
	}
	in := s.Intent(ask, suspicion)
	return Action{Do: Begin, Why: suspicion[0], Evidence: in.Evidence, Intent: in}
}

// underWay goes on with an operation, unless it is stuck where that can be mended.
func (s Situation) underWay(p Policy) Action {
	op := s.State.Operation
	if s.State.PrimaryEpoch == op.Epoch {
		return Action{Do: Resume, Why: "standbys are to follow " + string(op.Target)}
	}
	if !op.Decided() {
		return s.undecided(op, p)
	}
	target := s.Sights[op.Target]
	patience := p.Retarget
	if from := s.Sights[op.From]; op.From != op.Target && from.Answers() && from.Status.Role == RolePrimary {
		patience = min(patience, p.Rollback) // there is somebody to go back to
	}
	if target.Silent < patience && target.Failing < patience || s.InHand < patience {
		return Action{Do: Resume, Why: "the target is " + string(op.Target)}
	}
	evidence := []string{fmt.Sprintf("%s has not answered for %v%s", op.Target, max(target.Silent, target.Failing).Round(time.Second), because(target.Err))}
	switch {
	case op.Kind == Reinstate && s.State.Durability.Mode == Degraded && !op.AllowLoss:
		return Action{Do: Resume, Evidence: evidence, Blocked: []*RefusedError{refuse(RuleDegraded, "only %s is known to have all writes, and it does not answer", op.Target)}}
	case s.replaceable(op):
		return Action{Do: Reopened, Why: evidence[0], Evidence: evidence}
	}
	return Action{Do: Resume, Evidence: evidence, Blocked: []*RefusedError{refuse(RuleMembersSilent, "nobody answers who is known to hold what %s does", op.Target)}}
}

// undecided looks at an operation that has no target yet, and could be called off.
func (s Situation) undecided(op *Operation, p Policy) Action {
	from := s.Sights[op.From]
	alive := from.Answers() && from.Status.Role == RolePrimary
	stuck := s.InHand >= p.Patience(op.Kind)
	switch {
	case !stuck:
		return Action{Do: Resume, Why: "the operation goes on"}
	case alive:
		return Action{Do: CallOff, Why: fmt.Sprintf("it was stuck after the step %q for %v, and %s answers", op.Step, s.InHand.Round(time.Second), op.From)}
	case op.Kind == Switchover && s.State.Durability.Mode != Degraded && s.allReady(s.State.Sync):
		return Action{Do: Reopened, Why: string(op.From) + " died during the switchover", Evidence: []string{"its agent: " + from.Err}}
	}
	return Action{Do: Resume, Why: "it waits for the members, or for " + string(op.From)}
}

func (s Situation) allReady(ids []ID) bool {
	return !slices.ContainsFunc(ids, func(id ID) bool { return s.Sights[id].Silent > 0 || s.Sights[id].Failing > 0 })
}

// replaceable tells whether somebody is there who can take the place of a committed target that is silent.
func (s Situation) replaceable(op *Operation) bool {
	if op.Kind == Reinstate { // as in a first failover: all have to be asked
		return len(s.State.Sync) > 0 && s.allReady(s.State.Sync)
	}
	if from := s.Sights[op.From]; from.Answers() && from.Status.Role == RolePrimary {
		return true
	}
	for _, id := range op.Members {
		if id != op.Target && !slices.Contains(op.Abandoned, id) && s.Sights[id].Answers() && s.holds(op, id) {
			return true
		}
	}
	return op.AllowLoss
}

// holds tells whether a member has all that the committed target had.
func (s Situation) holds(op *Operation, id ID) bool {
	st := s.Sights[id].Status
	return st.Role == RoleStandby && (st.Epoch == s.State.PrimaryEpoch && st.Position >= op.Position || st.Epoch > s.State.PrimaryEpoch && st.Epoch <= op.Epoch)
}

// ChooseTarget picks the target of the operation under way from the answers of its members once they are detached. Who is
// not in positions has not answered.
func ChooseTarget(s State, positions map[ID]DatabaseStatus) (*Target, *RefusedError) {
	op := s.Operation
	var candidates []ID
	covers := func(id ID) bool { return positions[id].Epoch > s.PrimaryEpoch }
	for _, id := range op.Members {
		st, answered := positions[id]
		needed := op.Floor == 0 && slices.Contains(s.Sync, id) && !op.AllowLoss
		switch {
		case slices.Contains(op.Abandoned, id), s.Regions[id].Rebuild:
		case !answered && needed:
			return nil, refuse(RuleMembersSilent, "%s may have confirmed writes and has not answered", id)
		case !answered:
		case st.Role != RoleStandby || st.Streaming:
			if needed {
				return nil, refuse(RuleMembersSilent, "%s is not detached: it is %s", id, st.Role)
			}
		case st.Epoch != s.PrimaryEpoch && !(covers(id) && op.Floor > 0):
			if needed {
				return nil, refuse(RuleLineage, "%s has come to epoch %d, the old primary's was %d", id, st.Epoch, s.PrimaryEpoch)
			}
		default:
			candidates = append(candidates, id)
		}
	}
	if op.Kind == Switchover {
		candidates = slices.DeleteFunc(candidates, func(id ID) bool { return id != op.To })
	}
	// Whoever followed a target that was given up has all of it and more; among the others positions compare.
	slices.SortStableFunc(candidates, func(a, b ID) int {
		pa, pb := positions[a], positions[b]
		switch {
		case covers(a) != covers(b):
			return boolFirst(covers(a))
		case pa.Position != pb.Position:
			return boolFirst(pa.Position > pb.Position)
		case (s.mayLead(a, op.Overridden) == nil) != (s.mayLead(b, op.Overridden) == nil):
			return boolFirst(s.mayLead(a, op.Overridden) == nil)
		case (a == op.To) != (b == op.To):
			return boolFirst(a == op.To)
		}
		return 0
	})
	if len(candidates) == 0 {
		return nil, refuse(RuleMembersSilent, "none of %v has answered that could become primary", op.Members)
	}
	best := candidates[0]
	t := &Target{Epoch: op.Epoch, Region: best, Position: positions[best].Position, Covers: covers(best)}
	if t.Position < op.Floor && !t.Covers && !op.AllowLoss {
		return nil, refuse(RuleDataLoss, "%s holds the log up to %v, a target before it held %v", best, t.Position, op.Floor)
	}
	t.Names = s.confirmersOf(op, best)
	return t, nil
}

func boolFirst(first bool) int {
	if first {
		return -1
	}
	return 1
}

// Confirmers are those that would confirm the writes of a target of the operation under way.
func Confirmers(s State, target ID) []ID {
	if s.Operation == nil || s.Durability.Mode == Async {
		return nil
	}
	return s.confirmersOf(s.Operation, target)
}

// confirmersOf are those that will confirm the writes of a new primary: who did before and can follow it.
func (s State) confirmersOf(op *Operation, target ID) []ID {
	var names, held []ID
	for _, id := range op.Members {
		r := s.Regions[id]
		switch {
		case id == target, !slices.Contains(s.Sync, id), slices.Contains(op.Abandoned, id), r.Rebuild, r.Duty != Active:
		case r.Held:
			held = append(held, id)
		default:
			names = append(names, id)
		}
	}
	if len(names) == 0 {
		return held
	}
	return names
}

// keep holds the sync set and the standbys in order while the primary works. One move at a time, the most urgent first.
func (s Situation) keep(p Policy, now time.Time) Action {
	primary := s.Sights[s.State.Primary].Status
	if primary.ReadOnly {
		return Action{Do: DoWritable, Region: s.State.Primary, Why: "no operation is under way and the primary is read-only"}
	}
	for _, move := range []func(Policy, DatabaseStatus) Action{s.shrinking, s.losing, s.naming, s.following, s.growing} {
		if a := move(p, primary); a.Do != Nothing {
			return a
		}
	}
	for _, id := range s.State.Databases() {
		if r := s.State.Regions[id]; r.Duty == Draining && now.Sub(r.Since) >= p.Drain && !slices.Contains(s.State.Sync, id) {
			return Action{Do: DoDrained, Region: id, Why: fmt.Sprintf("its clients had %v to leave", p.Drain)}
		}
	}
	return Action{}
}

// shrinking finishes what was narrowed.
func (s Situation) shrinking(p Policy, primary DatabaseStatus) Action {
	for _, id := range s.State.Sync {
		if slices.Contains(s.State.Names, id) || s.State.Durability.Mode == Async {
			continue
		}
		if !s.leaving(id, p) {
			return Action{Do: DoGrow, Region: id, Why: "it is back before it was out of the sync set"}
		}
		if !slices.Equal(primary.Sync, s.State.Names) {
			return Action{Do: SetNames, Why: "the primary still waits for " + string(id)}
		}
		return Action{Do: DoShrink, Region: id, Why: "the primary does not wait for it any more"}
	}
	return Action{}
}

// leaving tells whether a member has to leave the sync set.
func (s Situation) leaving(id ID, p Policy) bool {
	r := s.State.Regions[id]
	// One that came back from a failure gives its place to another that could become primary.
	relieved := r.Held && slices.ContainsFunc(s.State.Names, func(other ID) bool { return other != id && !s.State.Regions[other].Held })
	return r.Duty != Active || r.Rebuild || relieved || s.Sights[id].Away >= p.Away
}

// losing takes a member out that is away, drained or of another history.
func (s Situation) losing(p Policy, _ DatabaseStatus) Action {
	for _, id := range s.State.Sync {
		if !s.leaving(id, p) {
			continue
		}
		r, sight := s.State.Regions[id], s.Sights[id]
		why := fmt.Sprintf("%s has not streamed from %s for %v", id, s.State.Primary, sight.Away.Round(time.Second))
		asked := r.Duty != Active
		switch {
		case asked:
			why = fmt.Sprintf("%s is %s", id, r.Duty)
		case r.Held:
			why = "others confirm writes now that could become primary"
		}
		switch {
		case s.State.Durability.Mode == Async:
			return Action{Do: DoShrink, Region: id, Why: why}
		case len(s.State.Names) > 1:
			return Action{Do: DoNarrow, Region: id, Why: why}
		case asked, s.degradeAfter(p) >= 0 && sight.Away >= s.degradeAfter(p):
			return Action{Do: DoDegrade, Region: id, Why: why + ", and nobody else could confirm writes"}
		}
	}
	return Action{}
}

// degradeAfter is after how long the last member leaves; negative: never.
func (s Situation) degradeAfter(p Policy) time.Duration {
	switch {
	case p.DegradeAfter != 0:
		return p.DegradeAfter
	case len(s.State.Databases()) == 2:
		return 15 * time.Second
	}
	return -1
}

// naming brings what the primary waits for in line with what is agreed upon, and ends a degraded time.
func (s Situation) naming(_ Policy, primary DatabaseStatus) Action {
	if !slices.Equal(primary.Sync, s.State.Names) {
		return Action{Do: SetNames, Why: fmt.Sprintf("the primary waits for %v, agreed is %v", primary.Sync, s.State.Names)}
	}
	if s.State.Durability.Mode != Degraded || len(s.State.Names) == 0 || !slices.Equal(s.State.Names, s.State.Sync) {
		return Action{}
	}
	for _, id := range s.State.Names {
		if s.Sights[id].Steady == 0 {
			return Action{}
		}
	}
	return Action{Do: DoWhole, Why: "every write is confirmed by a standby again"}
}

// following makes a standby of whoever is none of this primary's.
func (s Situation) following(p Policy, primary DatabaseStatus) Action {
	for _, id := range s.State.Databases() {
		sight, r := s.Sights[id], s.State.Regions[id]
		if id == s.State.Primary || !sight.Known || sight.Silent > 0 {
			continue
		}
		st := sight.Status
		_, streams := primary.Standbys[id]
		attached := st.Role == RoleStandby && st.Upstream == s.State.Primary && (streams || st.Streaming)
		switch {
		case st.Role == RoleRejoin, st.Role == RoleStarting: // it is at it
		case r.Rebuild && attached && st.Epoch == s.State.PrimaryEpoch:
			return Action{Do: DoRebuilt, Region: id, Why: "it is a copy of the primary"}
		case !attached && sight.Away >= time.Second:
			return Action{Do: DoFollow, Region: id, Why: fmt.Sprintf("it is %s of %q and has not streamed from %s for %v", st.Role, st.Upstream, s.State.Primary, sight.Away.Round(time.Second))}
		}
	}
	return Action{}
}

// growing takes a standby in that streams steadily and is near the end of the log.
func (s Situation) growing(p Policy, _ DatabaseStatus) Action {
	for _, id := range s.State.Databases() {
		sight, r := s.Sights[id], s.State.Regions[id]
		switch {
		case id == s.State.Primary, slices.Contains(s.State.Sync, id), r.Duty != Active, r.Rebuild, !sight.Answers(), sight.Steady < p.Steady,
			s.inLineage(id) != nil, s.lag(id) > p.MaxLag, r.Held && len(s.State.Sync) > 0:
			continue
		}
		return Action{Do: DoGrow, Region: id, Why: fmt.Sprintf("it has streamed from %s for %v", s.State.Primary, sight.Steady.Round(time.Second))}
	}
	return Action{}
}
