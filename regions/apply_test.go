package regions

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// three is a cluster of a (primary), b and c, all in the sync set.
func three(t *testing.T) State {
	t.Helper()
	s := must(t, State{}, Command{At: t0, Bootstrap: &Bootstrap{Cluster: "test", ClusterID: "1", Primary: "a", Epoch: 1, Timeline: 1, Position: 100,
		Regions: []Region{{ID: "a"}, {ID: "b"}, {ID: "c"}}}})
	s = must(t, s, Command{At: t0, Sync: &SyncChange{Move: Grow, Region: "b", Attempt: s.Attempt}})
	s = must(t, s, Command{At: t0, Sync: &SyncChange{Move: Grow, Region: "c", Attempt: s.Attempt}})
	return must(t, s, Command{At: t0, Sync: &SyncChange{Move: Whole, Attempt: s.Attempt}})
}

// must applies commands that are not refused, and sees to it that the state before is not touched.
func must(t *testing.T, s State, commands ...Command) State {
	t.Helper()
	for _, c := range commands {
		before := snapshot(t, s)
		next, why := Apply(s, c)
		if why != nil {
			t.Fatalf("%+v: %v", c, why)
		}
		if after := snapshot(t, s); after != before {
			t.Fatalf("%+v changed the state before it:\n%s\n%s", c, before, after)
		}
		var read State
		if err := json.Unmarshal([]byte(snapshot(t, next)), &read); err != nil || snapshot(t, read) != snapshot(t, next) {
			t.Fatalf("state does not survive a snapshot: %v", err)
		}
		s = next
	}
	return s
}

func snapshot(t *testing.T, s State) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func refused(t *testing.T, s State, rule Rule, c Command) {
	t.Helper()
	after, why := Apply(s, c)
	if why == nil || why.Rule != rule {
		t.Errorf("%s: %v, want %s", snapshotOf(c), why, rule)
	}
	if !reflect.DeepEqual(after, s) {
		t.Errorf("%s: refused, and yet it changed the state", snapshotOf(c))
	}
}

func snapshotOf(c Command) string { b, _ := c.MarshalBinary(); return string(b) }

func TestBootstrapOnce(t *testing.T) {
	s := three(t)
	refused(t, State{}, RuleNotBootstrapped, Command{Renew: &Renew{"a", 1, "n", 1500}})
	refused(t, s, RuleBootstrapped, Command{Bootstrap: &Bootstrap{ClusterID: "1"}})
	refused(t, s, RuleCluster, Command{Bootstrap: &Bootstrap{ClusterID: "2"}})
	refused(t, s, RuleInvalid, Command{})
	refused(t, s, RuleInvalid, Command{Acknowledge: &Acknowledge{}, Abort: &Abort{}})
	refused(t, State{}, RuleInvalid, Command{Bootstrap: &Bootstrap{Cluster: "x"}})
	refused(t, State{}, RuleUnknownRegion, Command{Bootstrap: &Bootstrap{Cluster: "x", ClusterID: "1", Epoch: 1, Primary: "w", Regions: []Region{{ID: "w", Witness: true}}}})
}

func TestLease(t *testing.T) {
	s := three(t)
	s = must(t, s, Command{Renew: &Renew{"a", 1, "n1", 1500}}, Command{Renew: &Renew{"a", 1, "n2", 1500}}, Command{Renew: &Renew{"a", 1, "n1", 1500}})
	if s.Lease.Renewals != 3 || s.Lease.Holders["n1"] != 3 || s.Lease.Holders["n2"] != 2 {
		t.Errorf("%+v", s.Lease)
	}
	refused(t, s, RuleStaleEpoch, Command{Renew: &Renew{"a", 2, "n1", 1500}})
	refused(t, s, RuleStaleEpoch, Command{Renew: &Renew{"a", 0, "n1", 1500}})
	refused(t, s, RuleNotPrimary, Command{Renew: &Renew{"b", 1, "n1", 1500}})
	refused(t, s, RuleInvalid, Command{Renew: &Renew{"a", 1, "n1", MaxLeaseTTL.Milliseconds() + 1}})
	longer := must(t, s, Command{Renew: &Renew{"a", 1, "n2", 4000}}, Command{Renew: &Renew{"a", 1, "n1", 1000}})
	if ttl := (Policy{}).WithDefaults().For(longer.Lease).TTL; ttl != 4*time.Second {
		t.Errorf("a lease of 4 s is waited for as if it lasted %v", ttl)
	}
	s = must(t, s, Command{Surrender: &Surrender{"a", 1, "n1"}})
	if len(s.Lease.Holders) != 1 {
		t.Errorf("%+v", s.Lease)
	}
	s = must(t, s, failover(2))
	refused(t, s, RuleIntent, Command{Renew: &Renew{"a", 1, "n1", 1500}})
	s = must(t, s, Command{Surrender: &Surrender{"a", 1, "n2"}})
	s = must(t, s, Command{Target: &Target{Epoch: 2, Region: "b", Position: 200, Names: []ID{"c"}}})
	refused(t, s, RuleStaleEpoch, Command{Renew: &Renew{"b", 2, "n3", 1500}})
	s = must(t, s, Command{NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 2, Fork: 201, Timeline: 2}, Region: "b"}})
	s = must(t, s, Command{Renew: &Renew{"b", 2, "n3", 1500}})
	refused(t, s, RuleStaleEpoch, Command{Renew: &Renew{"a", 1, "n1", 1500}})
	for i := range 2 * maxHolders {
		s, _ = Apply(s, Command{Renew: &Renew{"b", 2, utoa(uint64(i)), 1500}})
	}
	if len(s.Lease.Holders) != maxHolders || s.Lease.Holders["0"] != 0 {
		t.Errorf("%d holders", len(s.Lease.Holders))
	}
}

func failover(epoch uint64) Command {
	return Command{At: t0, Intent: &Intent{Kind: Failover, Epoch: epoch, From: "a", Members: []ID{"c", "b"}, Automatic: true}}
}

func TestIntentRules(t *testing.T) {
	s := three(t)
	intent := func(change func(*Command)) Command {
		c := failover(2)
		in := *c.Intent
		c.Intent = &in
		change(&c)
		return c
	}
	to := func(id ID) Command { return intent(func(c *Command) { c.Intent.To = id }) }
	held := s.withRegion("b", func(r *RegionState) { r.Held = true })
	drained := s.withRegion("b", func(r *RegionState) { r.Duty = Drained })
	rebuild := s.withRegion("b", func(r *RegionState) { r.Rebuild = true })
	witness := s.withRegion("w", func(r *RegionState) { r.Witness = true })
	paused := must(t, s, Command{By: "me", Automation: &Automation{Paused: true}})
	degraded := must(t, s, Command{Sync: &SyncChange{Move: Degrade, Attempt: s.Attempt}})
	recent := s
	recent.LastAutomatic = &Automatic{At: t0.Add(-59 * time.Minute)}
	acked := s
	acked.LastAutomatic = &Automatic{At: t0.Add(-59 * time.Minute), Acknowledged: &Note{}}
	long := s
	long.LastAutomatic = &Automatic{At: t0.Add(-time.Hour)}
	aborted := s
	aborted.AbortedAt = t0.Add(-time.Second)
	human := func(c *Command) { c.Intent.Automatic = false }
	loss := func(c *Command) { human(c); c.Intent.AllowLoss = true }
	for _, test := range []struct {
		name string
		s    State
		c    Command
		rule Rule
	}{
		{"as it should be", s, failover(2), ""},
		{"epoch of now", s, failover(1), RuleStaleEpoch},
		{"epoch skipped", s, failover(3), RuleStaleEpoch},
		{"under way", must(t, s, failover(2)), failover(3), RuleOperation},
		{"from another", s, intent(func(c *Command) { c.Intent.From = "b" }), RuleNotPrimary},
		{"to the primary", s, to("a"), RuleSameRegion},
		{"to nowhere", s, to("x"), RuleUnknownRegion},
		{"to a witness", witness, to("w"), RuleWitness},
		{"to a held one", held, to("b"), RuleHeld},
		{"to a held one, forced", held, intent(func(c *Command) { c.Intent.To = "b"; c.Force = []Rule{RuleHeld} }), ""},
		{"to a drained one", drained, to("b"), RuleDrained},
		{"to one that is rebuilt", rebuild, intent(func(c *Command) { c.Intent.To = "b"; c.Force = Forceables() }), RuleLineage},
		{"a member silent", s, intent(func(c *Command) { c.Intent.Members = []ID{"b"} }), RuleMembersSilent},
		{"all silent", s, intent(func(c *Command) { c.Intent.Members = nil; loss(c) }), RuleMembersSilent},
		{"the target silent", s, intent(func(c *Command) { c.Intent.Members = []ID{"b"}; c.Intent.To = "c"; loss(c) }), RuleMembersSilent},
		{"a member silent, loss allowed", s, intent(func(c *Command) { c.Intent.Members = []ID{"b"}; loss(c) }), ""},
		{"the primary as a member", s, intent(func(c *Command) { c.Intent.Members = []ID{"a", "b", "c"} }), RuleUnknownRegion},
		{"automatic and lossy", s, intent(func(c *Command) { c.Intent.AllowLoss = true }), RuleInvalid},
		{"paused", paused, failover(2), RulePaused},
		{"paused, by people", paused, intent(human), ""},
		{"degraded", degraded, failover(2), RuleDegraded},
		{"degraded, by people", degraded, intent(human), RuleDegraded},
		{"degraded, loss allowed", degraded, intent(loss), ""},
		{"an hour is not over", recent, failover(2), RuleRecentFailover},
		{"acknowledged", acked, failover(2), ""},
		{"an hour is over", long, failover(2), ""},
		{"called off just now", aborted, failover(2), RuleRecentAbort},
		{"switchover to nowhere", s, intent(func(c *Command) { c.Intent.Kind = Switchover }), RuleInvalid},
		{"no kind", s, intent(func(c *Command) { c.Intent.Kind = "" }), RuleInvalid},
	} {
		if test.rule == "" {
			if _, why := Apply(test.s, test.c); why != nil {
				t.Errorf("%s: %v", test.name, why)
			}
			continue
		}
		t.Run(test.name, func(t *testing.T) { refused(t, test.s, test.rule, test.c) })
	}
}

func TestFailoverToItsEnd(t *testing.T) {
	s := must(t, three(t), failover(2))
	refused(t, s, RuleNoTarget, Command{NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 2}, Region: "b"}})
	refused(t, s, RuleNoOperation, Command{Target: &Target{Epoch: 1, Region: "b"}})
	refused(t, s, RuleUnknownRegion, Command{Target: &Target{Epoch: 2, Region: "a"}})
	refused(t, s, RuleSyncOrder, Command{Target: &Target{Epoch: 2, Region: "b", Names: []ID{"a"}}})
	refused(t, s, RuleNoTarget, Command{Reopen: &Reopen{Epoch: 2}})
	refused(t, s, RuleOperation, Command{Region: &Change{Region: "c", To: Draining}})
	refused(t, s, RuleOperation, Command{Sync: &SyncChange{Move: Narrow, Region: "c", Attempt: s.Attempt}})
	s = must(t, s, Command{At: t0, Marks: &Marks{2, []Mark{{Step: StepLease}}}}, Command{At: t0, Target: &Target{Epoch: 2, Region: "b", Position: 200, Names: []ID{"c"}}})
	refused(t, s, RuleTargetCommitted, Command{Target: &Target{Epoch: 2, Region: "c", Position: 300}})
	refused(t, s, RuleTargetCommitted, Command{Abort: &Abort{2}})
	refused(t, s, RuleTargetCommitted, Command{NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 2}, Region: "c"}})
	refused(t, s, RuleNoTarget, Command{Finish: &Finish{Epoch: 2}})
	s = must(t, s, Command{At: t0, NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 2, Fork: 201, Timeline: 2}, Region: "b"}})
	if s.Primary != "b" || s.PrimaryEpoch != 2 || !s.Regions["a"].Held || !reflect.DeepEqual(s.Sync, []ID{"c"}) || s.Durability.Mode != Quorum || s.Generation != 2 || s.LastAutomatic.To != "b" {
		t.Errorf("%+v", s)
	}
	refused(t, s, RuleTargetCommitted, Command{Reopen: &Reopen{Epoch: 2}})
	s = must(t, s, Command{At: t0, Finish: &Finish{Epoch: 2, PauseMS: 1500}})
	if last := s.History[len(s.History)-1]; s.Operation != nil || last.Event != "failover" || last.PauseMS != 1500 || last.To != "b" || !last.Automatic {
		t.Errorf("%+v", last)
	}
	// The old primary may confirm only where nobody else does, and leads only once it is undrained.
	refused(t, s, RuleHeld, Command{Sync: &SyncChange{Move: Grow, Region: "a", Attempt: s.Attempt}})
	refused(t, s, RuleHeld, Command{Intent: &Intent{Kind: Switchover, Epoch: 3, From: "b", To: "a", Members: []ID{"a", "c"}}})
	s = must(t, s, Command{At: t0, Region: &Change{Region: "a", To: Active}})
	s = must(t, s, Command{Sync: &SyncChange{Move: Grow, Region: "a", Attempt: s.Attempt}})
}

func TestAbandonedTargets(t *testing.T) {
	s := must(t, three(t), failover(2), Command{Target: &Target{Epoch: 2, Region: "b", Position: 200, Names: []ID{"c"}}}, Command{At: t0, Reopen: &Reopen{Epoch: 2}})
	if s.Epoch != 3 || s.Operation.Decided() || !s.Regions["b"].Rebuild || s.Primary != "a" || s.PrimaryEpoch != 1 {
		t.Fatalf("%+v", s)
	}
	refused(t, s, RuleNoOperation, Command{NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 2}, Region: "b"}})
	refused(t, s, RuleUnknownRegion, Command{Target: &Target{Epoch: 3, Region: "b", Position: 200}})
	refused(t, s, RuleDataLoss, Command{Target: &Target{Epoch: 3, Region: "c", Position: 199}})
	must(t, s, Command{Target: &Target{Epoch: 3, Region: "c", Position: 1, Covers: true}})
	c := must(t, s, Command{Target: &Target{Epoch: 3, Region: "c", Position: 200}}, Command{NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 3, Fork: 300}, Region: "c"}})
	if f, _ := c.Fork(); f.Fork != 200 || c.Durability.Mode != Degraded {
		t.Errorf("%+v %+v", f, c.Durability)
	}
	back := must(t, s, Command{At: t0, Abort: &Abort{3}})
	if back.Epoch != 4 || back.Operation.Target != "a" || back.Operation.Kind != Reinstate {
		t.Errorf("%+v", back.Operation)
	}
	back = must(t, back, Command{At: t0, NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 4}, Region: "a"}}, Command{At: t0, Finish: &Finish{Epoch: 4}})
	if back.Regions["a"].Held || back.LastAutomatic != nil || !reflect.DeepEqual(back.Sync, []ID{"b", "c"}) || back.Lineage[1].Same != true {
		t.Errorf("%+v", back)
	}
	refused(t, back, RuleLineage, Command{Sync: &SyncChange{Move: Grow, Region: "b", Attempt: back.Attempt}})
}

func TestSyncSetOrder(t *testing.T) {
	s := three(t)
	move := func(m SyncMove, r ID) Command {
		return Command{At: t0, Sync: &SyncChange{Move: m, Region: r, Attempt: s.Attempt}}
	}
	refused(t, s, RuleSyncOrder, move(Shrink, "c"))
	refused(t, s, RuleStaleAttempt, Command{Sync: &SyncChange{Move: Narrow, Region: "c", Attempt: s.Attempt - 1}})
	s = must(t, s, move(Narrow, "c"))
	if !reflect.DeepEqual(s.Sync, []ID{"b", "c"}) || !reflect.DeepEqual(s.Names, []ID{"b"}) {
		t.Errorf("%v %v", s.Sync, s.Names)
	}
	refused(t, s, RuleSyncOrder, move(Narrow, "b"))
	refused(t, s, RuleSyncOrder, move(Whole, ""))
	back := must(t, s, move(Grow, "c"))
	if !reflect.DeepEqual(back.Names, []ID{"b", "c"}) {
		t.Errorf("%v", back.Names)
	}
	s = must(t, s, move(Shrink, "c"))
	s = must(t, s, move(Degrade, ""))
	if s.Durability.Mode != Degraded || len(s.Sync) != 0 {
		t.Errorf("%+v", s)
	}
	s = must(t, s, move(Grow, "b"))
	if s.Durability.Mode != Degraded {
		t.Error("a standby that was just added makes the set whole")
	}
	s = must(t, s, move(Whole, ""))
	refused(t, s, RuleSameRegion, move(Grow, "a"))
	refused(t, s, RuleUnknownRegion, move(Grow, "x"))
	refused(t, s, RuleInvalid, move("turn", "b"))
}

func TestDrain(t *testing.T) {
	s := three(t)
	change := func(r ID, to Duty) Command { return Command{At: t0, Region: &Change{Region: r, To: to}} }
	refused(t, s, RuleIsPrimary, change("a", Draining))
	refused(t, s, RuleUnknownRegion, change("x", Draining))
	refused(t, s, RuleInvalid, change("b", Drained))
	refused(t, s, RuleInvalid, change("b", "gone"))
	s = must(t, s, change("b", Draining))
	refused(t, s, RuleSyncOrder, change("b", Drained))
	s = must(t, s, Command{Sync: &SyncChange{Move: Narrow, Region: "b", Attempt: s.Attempt}})
	s = must(t, s, Command{Sync: &SyncChange{Move: Shrink, Region: "b", Attempt: s.Attempt}}, change("b", Drained))
	refused(t, s, RuleDrained, Command{Sync: &SyncChange{Move: Grow, Region: "b", Attempt: s.Attempt}})
	s = must(t, s, change("c", Draining))
	refused(t, s, RuleLastRegion, change("a", Draining))
	s = must(t, s, change("b", Active), change("b", Active))
	if s.Regions["b"].Duty != Active {
		t.Error(s.Regions["b"])
	}
}

func TestAcknowledgeAndHistory(t *testing.T) {
	s := three(t)
	s.LastAutomatic = &Automatic{At: t0}
	s = must(t, s, Command{At: t0, By: "me", Acknowledge: &Acknowledge{}})
	if s.LastAutomatic.Acknowledged.By != "me" {
		t.Error(s.LastAutomatic)
	}
	for range 2 * maxHistory {
		s, _ = Apply(s, Command{Remark: &Remark{Event: "test"}})
	}
	if len(s.History) != maxHistory || s.History[maxHistory-1].N != s.Entries || s.Entries < 2*maxHistory {
		t.Errorf("%d entries of %d", len(s.History), s.Entries)
	}
}

func TestRestore(t *testing.T) {
	s := must(t, three(t), failover(2))
	s = must(t, s, Command{At: t0, Restore: &Restore{Epoch: 9}})
	if s.Epoch != 9 || s.Operation.Target != "a" || s.Durability.Mode != Degraded || s.TakesWrites("a", 1) {
		t.Errorf("%+v", s)
	}
	s = must(t, s, Command{At: t0, NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 9}, Region: "a"}}, Command{At: t0, Finish: &Finish{Epoch: 9}})
	if !s.TakesWrites("a", 9) || s.Durability.Mode != Degraded {
		t.Errorf("%+v", s)
	}
	refused(t, s, RuleUnknownRegion, Command{Restore: &Restore{Primary: "x"}})
}
