package regions

import (
	"fmt"
	"slices"
	"time"
)

// Situation is all that a controller decides by: the agreed state, and what it has seen by itself. Durations are by its own
// clock, since a moment that it has seen itself.
type Situation struct {
	State State
	// Term is that in which this controller leads, Led for how long it has; 0: it does not.
	Term uint64
	Led  time.Duration
	// Renewed is how long ago it applied the last renewal of the lease in its own term. Without one it is Led.
	Renewed time.Duration
	// Sights are its own look at the databases.
	Sights map[ID]Sight
	// InHand is for how long the operation has been under way at this step, as seen by this controller.
	InHand time.Duration
}

// Sight is what is known of one database.
type Sight struct {
	Status DatabaseStatus // of the last answer
	Known  bool           // there ever was one
	// Silent is for how long its agent has not answered, 0 where the last question was answered.
	Silent time.Duration
	Err    string // of the last question
	// Failing is for how long its agent has been saying that the database does not answer SQL, or has not answered at all.
	Failing time.Duration
	// Away is for how long it has not streamed from the primary, Steady for how long it has; one of them is 0.
	Away, Steady time.Duration
}

// Answers tells whether the last question was answered by a database that works.
func (s Sight) Answers() bool { return s.Known && s.Silent == 0 && s.Failing == 0 }

// Policy is how patient a controller is. The zero value works.
type Policy struct {
	// TTL is how long a lease lasts (1.5 s), Drift by how much two clocks may differ in speed (0.01).
	TTL   time.Duration
	Drift float64
	// Suspect is after how long without a renewal a primary is suspected whose database does not answer either (2.5 s), and
	// SuspectAlive where it does (5 s): a starved machine looks like that too.
	Suspect, SuspectAlive time.Duration
	// Probe is for how long SQL must have failed from everywhere, while the lease is renewed (3 s).
	Probe time.Duration
	// Away is after how long a standby leaves the sync set (10 s); Steady after how long it may enter (2 s).
	Away, Steady time.Duration
	// DegradeAfter is after how long the last member leaves it (15 s with a single standby region, else never; negative: never).
	DegradeAfter time.Duration
	// Stall is after how long a step is taken to be stuck (5 s), Retarget after how long a committed target is given up (10 s).
	Stall, Retarget time.Duration
	// Rollback is how long a switchover may take to a committed target, before it is called off (3 s).
	Rollback time.Duration
	// Drain is how long clients are given to leave a draining region (15 s).
	Drain time.Duration
	// MaxLag is how far a switchover's target may be behind at its start (16 MiB).
	MaxLag int64
}

// WithDefaults fills in what is not set.
func (p Policy) WithDefaults() Policy {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&p.TTL, 1500*time.Millisecond)
	set(&p.Suspect, max(p.LeaseWait(), 2500*time.Millisecond))
	set(&p.SuspectAlive, 2*p.Suspect)
	set(&p.Probe, 3*time.Second)
	set(&p.Away, 10*time.Second)
	set(&p.Steady, 2*time.Second)
	set(&p.Stall, 5*time.Second)
	set(&p.Rollback, 3*time.Second)
	set(&p.Retarget, 10*time.Second)
	set(&p.Drain, 15*time.Second)
	if p.Drift == 0 {
		p.Drift = 0.01
	}
	if p.MaxLag == 0 {
		p.MaxLag = 16 << 20
	}
	return p
}

// LeaseWait is how long after its own apply of the last renewal a controller can be sure that nobody holds the lease.
func (p Policy) LeaseWait() time.Duration {
	drift := p.Drift
	if drift == 0 {
		drift = 0.01
	}
	return time.Duration(float64(p.TTL) * (1 + drift) / (1 - drift))
}

// For returns the policy for leases that may last longer than it says itself, because other nodes have other flags.
func (p Policy) For(l Lease) Policy {
	p.TTL = max(p.TTL, time.Duration(l.TTLMS)*time.Millisecond)
	return p
}

// Grace is for how long a new leader suspects nobody.
func (p Policy) Grace() time.Duration { return max(2*p.TTL, 3*time.Second) }

// Patience is how long an operation may stay without a target before it is looked at again.
func (p Policy) Patience(kind OperationKind) time.Duration {
	if kind == Switchover {
		return p.Rollback
	}
	return p.Stall
}

// inLineage tells why a standby's position says nothing about the primary's history, or nil.
func (s Situation) inLineage(id ID) *RefusedError {
	st, f := s.Sights[id].Status, State.forkOf(s.State)
	primary := s.Sights[s.State.Primary]
	switch {
	case s.State.Regions[id].Rebuild:
		return refuse(RuleLineage, "the database of %s has to be copied anew first", id)
	case st.Role != RoleStandby:
		return refuse(RuleLineage, "the database of %s is no standby, it is %s", id, orUnknown(st.Role))
	case st.Epoch != s.State.PrimaryEpoch:
		return refuse(RuleLineage, "%s has come to epoch %d, the primary's is %d", id, st.Epoch, s.State.PrimaryEpoch)
	case f.Timeline != 0 && st.Timeline != 0 && st.Timeline != f.Timeline:
		return refuse(RuleLineage, "%s is on timeline %d, the primary on %d", id, st.Timeline, f.Timeline)
	case primary.Known && primary.Status.System != "" && st.System != "" && st.System != primary.Status.System:
		return refuse(RuleLineage, "the database of %s is of another system", id)
	}
	return nil
}

func (s State) forkOf() Fork { f, _ := s.Fork(); return f }

func orUnknown(r Role) Role {
	if r == "" {
		return "unknown"
	}
	return r
}

// lag is how many bytes a standby is behind the primary's last known position.
func (s Situation) lag(id ID) int64 {
	primary := s.Sights[s.State.Primary].Status
	at := s.Sights[id].Status.Position
	if flushed, ok := primary.Standbys[id]; ok {
		at = max(at, flushed)
	}
	return max(0, int64(primary.Position)-int64(at))
}

// answered are the standbys that answer and share the primary's history, sorted.
func (s Situation) answered() []ID {
	var ids []ID
	for _, id := range s.State.Databases() {
		if id != s.State.Primary && s.Sights[id].Answers() && s.inLineage(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Suspicion is why the primary is taken for dead, nil where it is not. It never rests on gossip.
func (s Situation) Suspicion(p Policy) []string {
	p = p.WithDefaults()
	primary := s.Sights[s.State.Primary]
	var why []string
	silent := !primary.Answers() || primary.Status.Role != RolePrimary
	if s.Renewed >= p.SuspectAlive || silent && s.Renewed >= p.Suspect {
		why = append(why, fmt.Sprintf("the lease of %s was not renewed for %v", s.State.Primary, s.Renewed.Round(10*time.Millisecond)))
	}
	if s.probesFail(p) {
		why = append(why, fmt.Sprintf("the database of %s has not answered for %v, and nobody streams from it", s.State.Primary, primary.Failing.Round(10*time.Millisecond)))
	}
	if len(why) > 0 && primary.Err != "" {
		why = append(why, "its agent: "+primary.Err)
	}
	return why
}

// probesFail tells whether SQL fails at the primary from its own region, and its standbys have lost it as well.
func (s Situation) probesFail(p Policy) bool {
	if s.Sights[s.State.Primary].Failing < p.Probe {
		return false
	}
	peers := 0
	for _, id := range s.State.Databases() {
		sight := s.Sights[id]
		if id == s.State.Primary || !sight.Answers() {
			continue
		}
		if sight.Status.Streaming && sight.Status.Upstream == s.State.Primary {
			return false
		}
		peers++
	}
	return peers > 0
}

// Ask is what somebody wants to be done about the primary.
type Ask struct {
	Kind      OperationKind
	To        ID // "": whichever is best
	Automatic bool
	AllowLoss bool
	Force     []Rule
}

// Blockers are all the rules that an operation would break now, those that are overridden left out.
func (s Situation) Blockers(a Ask, p Policy) []*RefusedError {
	p = p.WithDefaults()
	var all []*RefusedError
	add := func(why *RefusedError) {
		if why != nil && !slices.Contains(a.Force, why.Rule) && !slices.ContainsFunc(all, func(o *RefusedError) bool { return *o == *why }) {
			all = append(all, why)
		}
	}
	if len(s.State.Databases()) < 2 {
		add(refuse(RuleSingleRegion, "%s is the only region with a database", s.State.Primary))
		return all
	}
	if op := s.State.Operation; op != nil {
		add(refuse(RuleOperation, "a %s from %s is under way", op.Kind, op.From))
	}
	if a.To != "" {
		if a.To == s.State.Primary {
			add(refuse(RuleSameRegion, "%s is primary already", a.To))
			return all
		}
		if why := s.State.mayLead(a.To, a.Force); why != nil {
			add(why)
			if why.Rule == RuleUnknownRegion || why.Rule == RuleWitness {
				return all
			}
		}
		add(s.ready(a.To))
	} else if len(s.answered()) == 0 {
		add(refuse(RuleMembersSilent, "no standby answers that shares the primary's history"))
	}
	if !a.AllowLoss {
		s.lossBlockers(a, add)
	}
	switch {
	case a.Kind == Switchover:
		s.switchoverBlockers(a, p, add)
	case a.Automatic:
		s.automaticBlockers(p, add)
	case len(s.Suspicion(p)) == 0 && s.Sights[s.State.Primary].Answers():
		add(refuse(RuleNotSuspected, "%s works; a switchover moves the primary without any risk", s.State.Primary))
	}
	return all
}

// ready tells why a region's database could not be promoted.
func (s Situation) ready(id ID) *RefusedError {
	sight := s.Sights[id]
	if !sight.Answers() {
		return refuse(RuleMembersSilent, "the database of %s does not answer%s", id, because(sight.Err))
	}
	return s.inLineage(id)
}

func because(err string) string {
	if err == "" {
		return ""
	}
	return ": " + err
}

func (s Situation) lossBlockers(a Ask, add func(*RefusedError)) {
	for _, id := range s.State.Sync {
		if why := s.ready(id); why != nil {
			add(refuse(RuleMembersSilent, "%s may have confirmed writes, and: %s", id, why.Detail))
		}
	}
	if a.Kind == Failover && s.State.Durability.Mode == Degraded {
		add(refuse(RuleDegraded, "no standby has to confirm writes (%s): a failover could lose some", s.State.Durability.Why))
	}
}

func (s Situation) switchoverBlockers(a Ask, p Policy, add func(*RefusedError)) {
	primary := s.Sights[s.State.Primary]
	if !primary.Answers() || primary.Status.Role != RolePrimary {
		add(refuse(RuleSourceSilent, "the database of %s does not take part%s; that would be a failover", s.State.Primary, because(primary.Err)))
		return
	}
	if a.To == "" || s.inLineage(a.To) != nil {
		return
	}
	if _, ok := primary.Status.Standbys[a.To]; !ok {
		add(refuse(RuleNotCaughtUp, "%s does not stream from %s", a.To, s.State.Primary))
	} else if lag := s.lag(a.To); lag > p.MaxLag {
		add(refuse(RuleNotCaughtUp, "%s is %d bytes behind, more than %d", a.To, lag, p.MaxLag))
	}
}

func (s Situation) automaticBlockers(p Policy, add func(*RefusedError)) {
	if s.Led < p.Grace() {
		add(refuse(RuleLeaderGrace, "this controller has led for %v only; it suspects nobody before %v", s.Led.Round(time.Millisecond), p.Grace()))
	}
	if len(s.Suspicion(p)) == 0 {
		add(refuse(RuleNotSuspected, "%s works as far as can be seen", s.State.Primary))
	}
	// Of those that may have to be chosen, the one with the greatest position must be allowed to lead.
	if best, ok := s.best(); ok {
		add(s.State.mayLead(best, nil))
	}
}

// best is the member of the sync set, or in async mode the standby, with the greatest position.
func (s Situation) best() (ID, bool) {
	var best ID
	for _, id := range s.State.Sync {
		if !s.Sights[id].Answers() || s.inLineage(id) != nil {
			continue
		}
		if best == "" || s.better(id, best) {
			best = id
		}
	}
	return best, best != ""
}

// better prefers the greater position, then whoever may lead.
func (s Situation) better(a, b ID) bool {
	pa, pb := s.Sights[a].Status.Position, s.Sights[b].Status.Position
	if pa != pb {
		return pa > pb
	}
	return s.State.mayLead(a, nil) == nil && s.State.mayLead(b, nil) != nil
}

// Intent is the command that begins what is asked for, after Blockers found nothing.
func (s Situation) Intent(a Ask, evidence []string) *Intent {
	in := &Intent{Kind: a.Kind, Epoch: s.State.Epoch + 1, From: s.State.Primary, To: a.To, Automatic: a.Automatic, AllowLoss: a.AllowLoss, Evidence: evidence}
	for _, id := range s.answered() {
		if a.Kind == Switchover || a.AllowLoss || id == a.To || slices.Contains(s.State.Sync, id) {
			in.Members = append(in.Members, id)
		}
		st := s.Sights[id].Status
		in.Evidence = append(in.Evidence, fmt.Sprintf("%s answers: epoch %d, timeline %d, %v", id, st.Epoch, st.Timeline, st.Position))
	}
	return in
}
