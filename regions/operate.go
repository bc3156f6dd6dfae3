package regions

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// VerbName is what an operator asks for.
type VerbName string

// The verbs.
const (
	VerbDrain      VerbName = "drain"
	VerbUndrain    VerbName = "undrain"
	VerbSwitchover VerbName = "switchover"
	VerbFailover   VerbName = "failover"
	VerbPause      VerbName = "pause"
	VerbResume     VerbName = "resume"
	VerbAck        VerbName = "ack"
)

// Verb is one request of an operator.
type Verb struct {
	Verb          VerbName `json:"verb"`
	Region        ID       `json:"region,omitempty"` // of drain and undrain
	To            ID       `json:"to,omitempty"`     // of switchover and failover
	By            string   `json:"by"`
	Reason        string   `json:"reason,omitempty"`
	DryRun        bool     `json:"dry_run,omitempty"`
	Force         []Rule   `json:"force,omitempty"`
	Confirm       string   `json:"confirm,omitempty"` // the region's name, for what is forced
	AllowDataLoss bool     `json:"allow_data_loss,omitempty"`
}

// Names is the region that the verb is about, "" for the whole deployment.
func (v Verb) Names() ID {
	if v.To != "" {
		return v.To
	}
	return v.Region
}

// Outcome is what became of a Verb, or what would.
type Outcome struct {
	Verb     VerbName `json:"verb"`
	Region   ID       `json:"region,omitempty"`
	DryRun   bool     `json:"dry_run"`
	Accepted bool     `json:"accepted"` // it is done, or under way; with dry_run: it would be
	// Epoch is that of the operation that was begun; its end is in the history.
	Epoch    uint64          `json:"epoch,omitempty"`
	Blockers []*RefusedError `json:"blockers"`
	// Overridden are the rules that it breaks by force.
	Overridden []Rule `json:"overridden,omitempty"`
	Plan       Plan   `json:"plan"`
}

// Plan is what a verb costs.
type Plan struct {
	PauseS       float64  `json:"pause_s"`        // expected, for writes
	BytesAtRisk  int64    `json:"bytes_at_risk"`  // of log with acknowledged writes
	WritesAtRisk int64    `json:"writes_at_risk"` // about
	BehindBytes  int64    `json:"behind_bytes"`   // of the target
	Steps        []string `json:"steps"`
	// CapacityUsed is the part of the capacity that is left which would be in use afterwards; nil: not known.
	CapacityUsed *float64   `json:"capacity_used,omitempty"`
	Durability   Durability `json:"durability_after"`
}

// Cluster is the whole deployment as the control leader sees it, or as far as another node can tell.
type Cluster struct {
	Cluster       string          `json:"cluster"`
	ClusterID     string          `json:"cluster_id"`
	Epoch         uint64          `json:"epoch"`
	Primary       ID              `json:"primary"`
	PrimaryEpoch  uint64          `json:"primary_epoch"`
	Leader        string          `json:"leader"`   // the node that leads the control plane, "" if unknown
	Complete      bool            `json:"complete"` // false: not from the leader, without what only it sees
	Durability    Durability      `json:"durability"`
	Sync          []ID            `json:"sync"`
	Paused        *Note           `json:"paused,omitempty"`
	Operation     *Operation      `json:"operation,omitempty"`
	LastAutomatic *Automatic      `json:"last_automatic,omitempty"`
	LeaseS        *float64        `json:"lease_age_s,omitempty"` // since the last renewal
	Risk          *Risk           `json:"risk,omitempty"`
	Blocked       []*RefusedError `json:"blocked"` // what bars a failover that is wanted now
	Regions       []ClusterRegion `json:"regions"`
	At            time.Time       `json:"at"`
}

// ClusterRegion is one region of a Cluster.
type ClusterRegion struct {
	Name     ID              `json:"name"`
	Role     string          `json:"role"` // primary, standby, witness
	State    Duty            `json:"state"`
	Held     bool            `json:"held"`
	Rebuild  bool            `json:"rebuild"`
	Why      string          `json:"why,omitempty"`
	Sync     bool            `json:"sync"` // it confirms writes
	Database *DatabaseStatus `json:"database,omitempty"`
	Silent   float64         `json:"silent_s"` // for how long its agent has not answered
	Err      string          `json:"err,omitempty"`
	LagBytes *int64          `json:"lag_bytes,omitempty"`
}

// Explanation says why a region can or cannot be primary now.
type Explanation struct {
	Region     ID      `json:"region"`
	Can        bool    `json:"can_be_primary"` // by a switchover, now
	Summary    string  `json:"summary"`
	Switchover []Check `json:"switchover"`
	Failover   []Check `json:"failover"`
	Drain      []Check `json:"drain"`
}

// Check is one rule with what was found.
type Check struct {
	Rule      Rule   `json:"rule"`
	OK        bool   `json:"ok"`
	Forceable bool   `json:"forceable"`
	Detail    string `json:"detail,omitempty"`
}

// Room is how a region's load fits into the others. The zero value says that it is not known.
type Room struct {
	Bears, Room float64 // requests a second; Room is what the others could take besides their own
	Known       bool
}

// VerbBlockers are all the rules that a verb would break now, those that are overridden left out.
func (s Situation) VerbBlockers(v Verb, p Policy, room Room) []*RefusedError {
	var all []*RefusedError
	for _, rule := range v.Force {
		if !rule.Forceable() {
			all = append(all, refuse(RuleInvalid, "the rule %q cannot be overridden; those that can: %s", rule, list(Forceables())))
		}
	}
	switch v.Verb {
	case VerbSwitchover, VerbFailover:
		if v.To == "" {
			return append(all, refuse(RuleInvalid, "say to which region"))
		}
		all = append(all, s.Blockers(v.ask(), p)...)
		if op := s.State.Operation; op != nil && v.AllowDataLoss && s.State.PrimaryEpoch != op.Epoch {
			// Somebody may have to break a failover loose that waits for what will never come.
			all = slices.DeleteFunc(all, func(e *RefusedError) bool { return e.Rule == RuleOperation })
		}
	case VerbDrain:
		all = append(all, s.drainBlockers(v, room)...)
	case VerbUndrain:
		if r, ok := s.State.Regions[v.Region]; !ok {
			all = append(all, refuse(RuleUnknownRegion, "there is no region %s", v.Region))
		} else if r.Witness {
			all = append(all, refuse(RuleWitness, "%s is a witness: it serves nobody", v.Region))
		} else if op := s.State.Operation; op != nil {
			all = append(all, refuse(RuleOperation, "a %s from %s is under way", op.Kind, op.From))
		}
	case VerbPause, VerbResume, VerbAck:
	default:
		all = append(all, refuse(RuleInvalid, "there is no verb %q", v.Verb))
	}
	if (len(v.Force) > 0 || v.AllowDataLoss) && !v.DryRun && len(all) == 0 && v.Confirm != string(v.Names()) {
		all = append(all, refuse(RuleConfirm, "what is forced needs the region's name %q typed out as confirm", v.Names()))
	}
	return all
}

func (v Verb) ask() Ask {
	kind := Switchover
	if v.Verb == VerbFailover {
		kind = Failover
	}
	return Ask{Kind: kind, To: v.To, AllowLoss: v.AllowDataLoss && kind == Failover, Force: v.Force}
}

func (s Situation) drainBlockers(v Verb, room Room) []*RefusedError {
	var all []*RefusedError
	r, ok := s.State.Regions[v.Region]
	switch {
	case !ok:
		return append(all, refuse(RuleUnknownRegion, "there is no region %s", v.Region))
	case r.Witness:
		return append(all, refuse(RuleWitness, "%s is a witness: it serves nobody", v.Region))
	case len(s.State.Databases()) == 1:
		return append(all, refuse(RuleSingleRegion, "%s is the only region", v.Region))
	case r.Duty != Active:
		return nil
	}
	if op := s.State.Operation; op != nil {
		all = append(all, refuse(RuleOperation, "a %s from %s is under way", op.Kind, op.From))
	}
	if why := s.State.mayDrain(v.Region); why != nil {
		all = append(all, why)
	}
	if room.Known && room.Bears > room.Room && !slices.Contains(v.Force, RuleCapacity) {
		all = append(all, refuse(RuleCapacity, "%s bears %.0f requests a second, the others have room for %.0f", v.Region, room.Bears, room.Room))
	}
	return all
}

// Overrides are the forced rules that a verb really breaks.
func (s Situation) Overrides(v Verb, p Policy, room Room) []Rule {
	bare := v
	bare.Force, bare.DryRun = nil, true
	var broken []Rule
	for _, why := range s.VerbBlockers(bare, p, room) {
		if slices.Contains(v.Force, why.Rule) && !slices.Contains(broken, why.Rule) {
			broken = append(broken, why.Rule)
		}
	}
	return broken
}

// Plan says what a verb would cost.
func (s Situation) Plan(v Verb, p Policy, room Room) Plan {
	p = p.WithDefaults()
	plan := Plan{Durability: s.State.Durability, Steps: []string{}}
	after := func(remaining int, why string) {
		if remaining == 0 && plan.Durability.Mode == Quorum {
			plan.Durability = Durability{Mode: Degraded, Why: why}
		}
	}
	switch v.Verb {
	case VerbSwitchover:
		plan.PauseS, plan.BehindBytes = s.lastPause(Switchover, 0.5), s.lag(v.To)
		plan.Steps = []string{"the nodes of " + string(s.State.Primary) + " surrender the lease", string(s.State.Primary) + " becomes read-only", string(v.To) + " catches up",
			"all standbys are detached", string(v.To) + " is committed and promoted", "the others follow it"}
		after(len(without(s.State.Sync, v.To)), "until "+string(s.State.Primary)+" follows")
	case VerbFailover:
		plan.PauseS, plan.BehindBytes = s.lastPause(Failover, (p.LeaseWait()+time.Second).Seconds()), s.lag(v.To)
		plan.Steps = []string{"the lease of " + string(s.State.Primary) + " is waited out", "all standbys are detached", "the one with the most is committed and promoted", "the others follow it"}
		if s.State.Durability.Mode != Quorum || v.AllowDataLoss {
			plan.BytesAtRisk = plan.BehindBytes
			plan.WritesAtRisk = (plan.BytesAtRisk + bytesAWrite - 1) / bytesAWrite
		}
		after(len(without(s.State.Sync, v.To)), "until another region follows")
	case VerbDrain:
		plan.Steps = []string{"its clients are sent elsewhere for " + p.Drain.String(), "it leaves the sync set", "it is drained"}
		after(len(without(s.State.Sync, v.Region)), string(v.Region)+" was the last that confirmed writes")
		if room.Known && room.Room > 0 {
			used := room.Bears / room.Room
			plan.CapacityUsed = &used
		}
	}
	return plan
}

// lastPause is that of the last operation of a kind, which is the best guess there is.
func (s Situation) lastPause(kind OperationKind, otherwise float64) float64 {
	for _, e := range slices.Backward(s.State.History) {
		if e.Event == string(kind) && e.PauseMS > 0 {
			return e.PauseMS / 1000
		}
	}
	return otherwise
}

// Cluster is the deployment as this situation shows it.
func (s Situation) Cluster(p Policy, leader string, now time.Time) Cluster {
	st := s.State
	c := Cluster{Cluster: st.Cluster, ClusterID: st.ClusterID, Epoch: st.Epoch, Primary: st.Primary, PrimaryEpoch: st.PrimaryEpoch, Leader: leader, Complete: s.Led > 0,
		Durability: st.Durability, Sync: notNil(st.Sync), Paused: st.Paused, Operation: st.Operation, LastAutomatic: st.LastAutomatic, Blocked: []*RefusedError{}, Regions: []ClusterRegion{}, At: now}
	if s.Led > 0 {
		risk, age := s.Risk(p), s.Renewed.Seconds()
		c.Risk, c.LeaseS = &risk, &age
	}
	var ids []ID
	for id := range st.Regions {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		r, sight := st.Regions[id], s.Sights[id]
		out := ClusterRegion{Name: id, Role: "standby", State: r.Duty, Held: r.Held, Rebuild: r.Rebuild, Why: r.Why, Sync: slices.Contains(st.Sync, id), Silent: sight.Silent.Seconds(), Err: sight.Err}
		switch {
		case r.Witness:
			out.Role = "witness"
		case id == st.Primary:
			out.Role = "primary"
		}
		if sight.Known {
			status := sight.Status
			out.Database = &status
			if s.Sights[st.Primary].Known && id != st.Primary {
				lag := s.lag(id)
				out.LagBytes = &lag
			}
		}
		c.Regions = append(c.Regions, out)
	}
	return c
}

func notNil(ids []ID) []ID {
	if ids == nil {
		return []ID{}
	}
	return ids
}

// checked are the rules that an explanation goes through, for a switchover, a failover and a drain.
var checked = map[VerbName][]Rule{
	VerbSwitchover: {RuleUnknownRegion, RuleWitness, RuleSingleRegion, RuleSameRegion, RuleOperation, RuleDrained, RuleHeld, RuleLineage, RuleMembersSilent, RuleSourceSilent, RuleNotCaughtUp},
	VerbFailover:   {RuleUnknownRegion, RuleWitness, RuleSingleRegion, RuleSameRegion, RuleOperation, RuleDrained, RuleHeld, RuleLineage, RuleMembersSilent, RuleDegraded, RuleNotSuspected},
	VerbDrain:      {RuleUnknownRegion, RuleWitness, RuleSingleRegion, RuleOperation, RuleLastRegion, RuleIsPrimary, RuleCapacity},
}

// Explain goes through every rule for a region.
func (s Situation) Explain(id ID, p Policy, room Room) Explanation {
	checks := func(verb VerbName) []Check {
		v := Verb{Verb: verb, To: id, DryRun: true}
		if verb == VerbDrain {
			v.To, v.Region = "", id
		}
		blockers := s.VerbBlockers(v, p, room)
		out := []Check{}
		for _, rule := range checked[verb] {
			c := Check{Rule: rule, OK: true, Forceable: rule.Forceable()}
			for _, why := range blockers {
				if why.Rule == rule {
					c.OK = false
					c.Detail = strings.TrimPrefix(c.Detail+"; "+why.Detail, "; ")
				}
			}
			out = append(out, c)
		}
		return out
	}
	e := Explanation{Region: id, Switchover: checks(VerbSwitchover), Failover: checks(VerbFailover), Drain: checks(VerbDrain)}
	e.Can = !slices.ContainsFunc(e.Switchover, func(c Check) bool { return !c.OK })
	switch {
	case id == s.State.Primary:
		e.Summary = fmt.Sprintf("%s is primary in epoch %d", id, s.State.PrimaryEpoch)
	case e.Can:
		e.Summary = fmt.Sprintf("%s can become primary now: shortline region switchover --to %s", id, id)
	default:
		i := slices.IndexFunc(e.Switchover, func(c Check) bool { return !c.OK })
		e.Summary = fmt.Sprintf("%s cannot become primary now: %s (rule %s)", id, e.Switchover[i].Detail, e.Switchover[i].Rule)
	}
	return e
}

func list(rules []Rule) string {
	text := make([]string, len(rules))
	for i, r := range rules {
		text[i] = string(r)
	}
	return strings.Join(text, ", ")
}
