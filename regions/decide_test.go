package regions

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"
)

// calm is a cluster of a (primary), b and c in which nothing is the matter.
func calm(t *testing.T) Situation {
	t.Helper()
	s := Situation{State: three(t), Term: 3, Led: time.Hour, Renewed: 300 * time.Millisecond, Sights: map[ID]Sight{
		"a": {Known: true, Status: DatabaseStatus{Region: "a", Role: RolePrimary, System: "x", Epoch: 1, Timeline: 1, Position: 1000, Sync: []ID{"b", "c"}, Standbys: map[ID]LSN{"b": 1000, "c": 990}}},
		"b": standby("b", 1000), "c": standby("c", 990),
	}}
	return s
}

func standby(id ID, at LSN) Sight {
	return Sight{Known: true, Steady: time.Hour, Status: DatabaseStatus{Region: id, Role: RoleStandby, System: "x", Epoch: 1, Timeline: 1, Position: at, Upstream: "a", Streaming: true}}
}

// see changes one sight.
func (s *Situation) see(id ID, change func(*Sight)) {
	sight := s.Sights[id]
	change(&sight)
	s.Sights[id] = sight
}

// dead makes everything of the primary's region silent.
func (s *Situation) dead() {
	s.Renewed = 3 * time.Second
	s.see("a", func(a *Sight) { a.Silent, a.Failing, a.Err = 3*time.Second, 3*time.Second, "connection refused" })
	for _, id := range []ID{"b", "c"} {
		s.see(id, func(b *Sight) { b.Status.Streaming = false })
	}
}

func (s *Situation) do(t *testing.T, c ...Command) { s.State = must(t, s.State, c...) }

func (s *Situation) move(t *testing.T, m SyncMove, id ID) {
	s.do(t, Command{At: t0, Sync: &SyncChange{Move: m, Region: id, Attempt: s.State.Attempt}})
}

func TestDecide(t *testing.T) {
	intent := func(t *testing.T, s *Situation) {
		s.dead()
		s.do(t, failover(2))
	}
	decided := func(t *testing.T, s *Situation) {
		intent(t, s)
		s.do(t, Command{At: t0, Target: &Target{Epoch: 2, Region: "b", Position: 1000, Names: []ID{"c"}}})
	}
	alive := func(a *Sight) { a.Silent, a.Failing = 0, 0 }
	gone := func(a *Sight) { a.Silent, a.Failing = time.Minute, time.Minute }
	switchover := Command{At: t0, Intent: &Intent{Kind: Switchover, Epoch: 2, From: "a", To: "b", Members: []ID{"b", "c"}}}
	for _, test := range []struct {
		name    string
		given   func(*testing.T, *Situation)
		do      Doing
		region  ID
		blocked Rule
	}{
		{"all is well", func(*testing.T, *Situation) {}, Nothing, "", ""},
		{"not the leader", func(_ *testing.T, s *Situation) { s.dead(); s.Led = 0 }, Nothing, "", ""},

		// Suspicion.
		{"the region is dead", func(_ *testing.T, s *Situation) { s.dead() }, Begin, "", ""},
		{"a short lapse", func(_ *testing.T, s *Situation) {
			s.dead()
			s.Renewed = 2 * time.Second
			s.see("a", func(a *Sight) { a.Failing = 2 * time.Second })
		}, Nothing, "", ""},
		{"a lapse while the database answers", func(_ *testing.T, s *Situation) { s.Renewed = 4 * time.Second }, Nothing, "", ""},
		{"a long lapse while the database answers", func(_ *testing.T, s *Situation) { s.Renewed = 6 * time.Second }, Begin, "", ""},
		{"the agent is dead, the lease is renewed and the standbys stream", func(_ *testing.T, s *Situation) { s.see("a", gone) }, Nothing, "", ""},
		{"SQL fails everywhere while the lease is renewed", func(_ *testing.T, s *Situation) { s.dead(); s.Renewed = 0 }, Begin, "", ""},
		{"SQL fails, one standby streams", func(_ *testing.T, s *Situation) {
			s.dead()
			s.Renewed = 0
			s.see("b", func(b *Sight) { b.Status.Streaming = true })
		}, Nothing, "", ""},
		{"the controller is cut off from all", func(_ *testing.T, s *Situation) { s.see("a", gone); s.see("b", gone); s.see("c", gone) }, Nothing, "", ""},

		// What bars an automatic failover.
		{"a new leader", func(_ *testing.T, s *Situation) { s.dead(); s.Led = 2900 * time.Millisecond; s.Renewed = s.Led }, Nothing, "", RuleLeaderGrace},
		{"a member is silent", func(_ *testing.T, s *Situation) { s.dead(); s.see("c", gone) }, Nothing, "", RuleMembersSilent},
		{"a member has another history", func(_ *testing.T, s *Situation) { s.dead(); s.see("c", func(c *Sight) { c.Status.Epoch = 0 }) }, Nothing, "", RuleMembersSilent},
		{"a member is on another timeline", func(_ *testing.T, s *Situation) { s.dead(); s.see("c", func(c *Sight) { c.Status.Timeline = 2 }) }, Nothing, "", RuleMembersSilent},
		{"paused", func(t *testing.T, s *Situation) {
			s.dead()
			s.do(t, Command{By: "me", Automation: &Automation{Paused: true}})
		}, Nothing, "", RulePaused},
		{"degraded", func(t *testing.T, s *Situation) { s.dead(); s.move(t, Degrade, "") }, Nothing, "", RuleDegraded},
		{"another within the hour", func(_ *testing.T, s *Situation) {
			s.dead()
			s.State.LastAutomatic = &Automatic{At: t0.Add(-time.Minute)}
		}, Nothing, "", RuleRecentFailover},
		{"another, acknowledged", func(_ *testing.T, s *Situation) {
			s.dead()
			s.State.LastAutomatic = &Automatic{At: t0.Add(-time.Minute), Acknowledged: &Note{}}
		}, Begin, "", ""},
		{"called off just now", func(_ *testing.T, s *Situation) { s.dead(); s.State.AbortedAt = t0.Add(-time.Second) }, Nothing, "", RuleRecentAbort},
		{"the one ahead is held", func(_ *testing.T, s *Situation) {
			s.dead()
			s.State = s.State.withRegion("b", func(r *RegionState) { r.Held = true })
		}, Nothing, "", RuleHeld},
		{"one that is level is held", func(_ *testing.T, s *Situation) {
			s.dead()
			s.see("c", func(c *Sight) { c.Status.Position = 1000 })
			s.State = s.State.withRegion("b", func(r *RegionState) { r.Held = true })
		}, Begin, "", ""},
		{"a single region", func(_ *testing.T, s *Situation) {
			s.dead()
			s.State.Regions = map[ID]RegionState{"a": s.State.Regions["a"], "w": {Witness: true}}
		}, Nothing, "", ""},

		// An operation under way.
		{"it goes on", intent, Resume, "", ""},
		{"stuck, the old primary is dead", func(t *testing.T, s *Situation) { intent(t, s); s.InHand = time.Minute; s.see("c", gone) }, Resume, "", ""},
		{"stuck, the old primary answers", func(t *testing.T, s *Situation) { intent(t, s); s.InHand = time.Minute; s.see("a", alive) }, CallOff, "", ""},
		{"not stuck yet", func(t *testing.T, s *Situation) { intent(t, s); s.InHand = time.Second; s.see("a", alive) }, Resume, "", ""},
		{"decided: forward only", func(t *testing.T, s *Situation) { decided(t, s); s.InHand = time.Minute; s.see("a", alive) }, Resume, "", ""},
		{"the target is silent for a moment", func(t *testing.T, s *Situation) {
			decided(t, s)
			s.InHand = time.Minute
			s.see("b", func(b *Sight) { b.Silent = time.Second })
		}, Resume, "", ""},
		{"the target is gone, another holds less", func(t *testing.T, s *Situation) { decided(t, s); s.InHand = time.Minute; s.see("b", gone) }, Resume, "", RuleMembersSilent},
		{"the target is gone, another holds as much", func(t *testing.T, s *Situation) {
			decided(t, s)
			s.InHand = time.Minute
			s.see("b", gone)
			s.see("c", func(c *Sight) { c.Status.Position = 1000 })
		}, Reopened, "", ""},
		{"the target is gone, another followed it", func(t *testing.T, s *Situation) {
			decided(t, s)
			s.InHand = time.Minute
			s.see("b", gone)
			s.see("c", func(c *Sight) { c.Status.Epoch, c.Status.Position = 2, 5 })
		}, Reopened, "", ""},
		{"the target is gone, the old primary is back", func(t *testing.T, s *Situation) {
			decided(t, s)
			s.InHand = time.Minute
			s.see("b", gone)
			s.see("a", alive)
		}, Reopened, "", ""},
		{"the source died in a switchover", func(t *testing.T, s *Situation) { s.do(t, switchover); s.dead(); s.InHand = time.Minute }, Reopened, "", ""},
		{"the source died in a degraded switchover", func(t *testing.T, s *Situation) {
			s.move(t, Degrade, "")
			s.do(t, switchover)
			s.dead()
			s.InHand = time.Minute
		}, Resume, "", ""},
		{"a step of a switchover takes too long", func(t *testing.T, s *Situation) { s.do(t, switchover); s.InHand = time.Minute }, CallOff, "", ""},
		{"called off, and the old primary died", func(t *testing.T, s *Situation) {
			intent(t, s)
			s.do(t, Command{At: t0, Abort: &Abort{2}})
			s.see("a", gone)
			s.InHand = time.Minute
		}, Reopened, "", ""},
		{"called off, the old primary died, a member is silent", func(t *testing.T, s *Situation) {
			intent(t, s)
			s.do(t, Command{At: t0, Abort: &Abort{2}})
			s.see("a", gone)
			s.see("b", gone)
			s.InHand = time.Minute
		}, Resume, "", RuleMembersSilent},
		{"promoted", func(t *testing.T, s *Situation) {
			decided(t, s)
			s.do(t, Command{At: t0, NewPrimary: &NewPrimary{Promotion: Promotion{Epoch: 2}, Region: "b"}})
			s.see("b", gone)
			s.InHand = time.Minute
		}, Resume, "", ""},

		// The sync set.
		{"a member away for a moment", func(_ *testing.T, s *Situation) {
			s.see("c", func(c *Sight) { c.Steady, c.Away = 0, 9*time.Second; c.Silent = time.Second })
		}, Nothing, "", ""},
		{"a member away", func(_ *testing.T, s *Situation) { s.see("c", func(c *Sight) { c.Steady, c.Away = 0, 10*time.Second }) }, DoNarrow, "c", ""},
		{"a member that drains", func(t *testing.T, s *Situation) { s.do(t, Command{At: t0, Region: &Change{Region: "c", To: Draining}}) }, DoNarrow, "c", ""},
		{"narrowed, not in force", func(t *testing.T, s *Situation) {
			s.move(t, Narrow, "c")
			s.see("c", func(c *Sight) { c.Steady, c.Away = 0, 10*time.Second })
		}, SetNames, "", ""},
		{"narrowed, in force", func(t *testing.T, s *Situation) {
			s.move(t, Narrow, "c")
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
			s.see("c", func(c *Sight) { c.Steady, c.Away = 0, 10*time.Second })
		}, DoShrink, "c", ""},
		{"narrowed, and back", func(t *testing.T, s *Situation) { s.move(t, Narrow, "c") }, DoGrow, "c", ""},
		{"the last of three is away", func(t *testing.T, s *Situation) {
			s.move(t, Narrow, "c")
			s.move(t, Shrink, "c")
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
			s.see("b", func(b *Sight) { b.Steady, b.Away = 0, time.Hour })
			s.see("c", func(c *Sight) { c.Silent, c.Steady, c.Away = time.Hour, 0, time.Hour })
		}, Nothing, "", ""},
		{"the only one of two is away", func(t *testing.T, s *Situation) {
			two(t, s)
			s.see("b", func(b *Sight) { b.Steady, b.Away = 0, 14*time.Second; b.Silent = 1 })
		}, Nothing, "", ""},
		{"the only one of two is away for long", func(t *testing.T, s *Situation) {
			two(t, s)
			s.see("b", func(b *Sight) { b.Steady, b.Away = 0, 15*time.Second })
		}, DoDegrade, "b", ""},
		{"the primary waits for others", func(_ *testing.T, s *Situation) { s.see("a", func(a *Sight) { a.Status.Sync = nil }) }, SetNames, "", ""},
		{"degraded, nobody streams", func(t *testing.T, s *Situation) {
			s.move(t, Degrade, "")
			s.see("a", func(a *Sight) { a.Status.Sync = nil })
			for _, id := range []ID{"b", "c"} {
				s.see(id, func(b *Sight) { b.Steady, b.Away, b.Silent = 0, time.Hour, 1 })
			}
		}, Nothing, "", ""},
		{"degraded, one streams again", func(t *testing.T, s *Situation) {
			s.move(t, Degrade, "")
			s.see("a", func(a *Sight) { a.Status.Sync = nil })
		}, DoGrow, "b", ""},
		{"degraded, one is in, not in force", func(t *testing.T, s *Situation) {
			s.move(t, Degrade, "")
			s.move(t, Grow, "b")
			s.see("a", func(a *Sight) { a.Status.Sync = nil })
		}, SetNames, "", ""},
		{"degraded, one is in force", func(t *testing.T, s *Situation) {
			s.move(t, Degrade, "")
			s.move(t, Grow, "b")
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
		}, DoWhole, "", ""},
		{"a standby is back for a moment", func(t *testing.T, s *Situation) {
			s.move(t, Narrow, "c")
			s.move(t, Shrink, "c")
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
			s.see("c", func(c *Sight) { c.Steady = time.Second })
		}, Nothing, "", ""},
		{"one that failed before is back, another confirms", func(t *testing.T, s *Situation) {
			s.move(t, Narrow, "c")
			s.move(t, Shrink, "c")
			s.State = s.State.withRegion("c", func(r *RegionState) { r.Held = true })
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
		}, Nothing, "", ""},
		{"a standby that lost its way", func(_ *testing.T, s *Situation) {
			s.see("c", func(c *Sight) { c.Steady, c.Away, c.Status.Streaming = 0, 2*time.Second, false; c.Status.Upstream = "" })
			s.see("a", func(a *Sight) { delete(a.Status.Standbys, "c") })
		}, DoFollow, "c", ""},
		{"a standby that is being copied", func(_ *testing.T, s *Situation) {
			s.see("c", func(c *Sight) {
				c.Steady, c.Away, c.Status.Streaming = 0, 2*time.Second, false
				c.Status.Role = RoleRejoin
			})
			s.see("a", func(a *Sight) { delete(a.Status.Standbys, "c") })
		}, Nothing, "", ""},
		{"one that was given up is back", func(_ *testing.T, s *Situation) {
			s.State = s.State.withRegion("c", func(r *RegionState) { r.Rebuild = true })
			s.State.Sync, s.State.Names = []ID{"b"}, []ID{"b"}
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
		}, DoRebuilt, "c", ""},
		{"a fence left behind", func(_ *testing.T, s *Situation) { s.see("a", func(a *Sight) { a.Status.ReadOnly = true }) }, DoWritable, "a", ""},
		{"drained", func(_ *testing.T, s *Situation) {
			s.State = s.State.withRegion("c", func(r *RegionState) { r.Duty, r.Since = Draining, t0.Add(-time.Minute) })
			s.State.Sync, s.State.Names = []ID{"b"}, []ID{"b"}
			s.see("a", func(a *Sight) { a.Status.Sync = []ID{"b"} })
		}, DoDrained, "c", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := calm(t)
			test.given(t, &s)
			a := Decide(s, Policy{}, t0)
			if a.Do != test.do || test.region != "" && a.Region != test.region {
				t.Errorf("%+v, want %q of %q", a, test.do, test.region)
			}
			if test.blocked == "" && len(a.Blocked) > 0 || test.blocked != "" && !slices.ContainsFunc(a.Blocked, func(e *RefusedError) bool { return e.Rule == test.blocked }) {
				t.Errorf("blocked by %v, want %q", a.Blocked, test.blocked)
			}
			if a.Do == Begin {
				if _, why := Apply(s.State, Command{At: t0, Intent: a.Intent}); why != nil {
					t.Errorf("what was decided is refused: %v", why)
				}
			}
			if b := Decide(s, Policy{}, t0); !reflect.DeepEqual(a, b) {
				t.Errorf("decided once %+v and once %+v", a, b)
			}
		})
	}
}

// two takes c away, so that b is the only standby there is.
func two(t *testing.T, s *Situation) {
	s.move(t, Narrow, "c")
	s.move(t, Shrink, "c")
	delete(s.State.Regions, "c")
	delete(s.Sights, "c")
	s.see("a", func(a *Sight) { a.Status.Sync, a.Status.Standbys = []ID{"b"}, map[ID]LSN{"b": 1000} })
}

func TestBlockers(t *testing.T) {
	for _, test := range []struct {
		name  string
		given func(*Situation)
		ask   Ask
		want  []Rule
	}{
		{"a switchover", func(*Situation) {}, Ask{Kind: Switchover, To: "b"}, nil},
		{"to an unknown region", func(*Situation) {}, Ask{Kind: Switchover, To: "x"}, []Rule{RuleUnknownRegion}},
		{"to the same region", func(*Situation) {}, Ask{Kind: Switchover, To: "a"}, []Rule{RuleSameRegion}},
		{"to one that lags", func(s *Situation) { s.see("a", func(a *Sight) { a.Status.Position = 1 << 30 }) }, Ask{Kind: Switchover, To: "b"}, []Rule{RuleNotCaughtUp}},
		{"to one that lags, forced", func(s *Situation) { s.see("a", func(a *Sight) { a.Status.Position = 1 << 30 }) }, Ask{Kind: Switchover, To: "b", Force: []Rule{RuleNotCaughtUp}}, nil},
		{"to a drained one", func(s *Situation) { s.State = s.State.withRegion("b", func(r *RegionState) { r.Duty = Drained }) }, Ask{Kind: Switchover, To: "b"}, []Rule{RuleDrained}},
		{"from a dead one", (*Situation).dead, Ask{Kind: Switchover, To: "b"}, []Rule{RuleSourceSilent}},
		{"failover from one that works", func(*Situation) {}, Ask{Kind: Failover, To: "b"}, []Rule{RuleNotSuspected}},
		{"failover from one that works, forced", func(*Situation) {}, Ask{Kind: Failover, To: "b", Force: []Rule{RuleNotSuspected}}, nil},
		{"failover from a dead one", (*Situation).dead, Ask{Kind: Failover, To: "c"}, nil},
		{"failover, a member silent", func(s *Situation) { s.dead(); s.see("c", func(c *Sight) { c.Silent = 1 }) }, Ask{Kind: Failover, To: "b"}, []Rule{RuleMembersSilent}},
		{"failover, a member silent, loss allowed", func(s *Situation) { s.dead(); s.see("c", func(c *Sight) { c.Silent = 1 }) }, Ask{Kind: Failover, To: "b", AllowLoss: true}, nil},
		{"one region", func(s *Situation) { s.State = Single("x", "local", s.State.Regions["a"].Point, 1, t0) }, Ask{Kind: Switchover, To: "b"}, []Rule{RuleSingleRegion}},
	} {
		s := calm(t)
		test.given(&s)
		var got []Rule
		for _, why := range s.Blockers(test.ask, Policy{}) {
			got = append(got, why.Rule)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestChooseTarget(t *testing.T) {
	detached := func(at LSN) DatabaseStatus {
		return DatabaseStatus{Role: RoleStandby, Epoch: 1, Timeline: 1, Position: at}
	}
	base := must(t, three(t), failover(2))
	reopened := must(t, base, Command{Target: &Target{Epoch: 2, Region: "b", Position: 200}}, Command{Reopen: &Reopen{Epoch: 2}})
	for _, test := range []struct {
		name      string
		s         State
		positions map[ID]DatabaseStatus
		want      ID
		rule      Rule
	}{
		{"the greater position", base, map[ID]DatabaseStatus{"b": detached(1), "c": detached(2)}, "c", ""},
		{"level", base, map[ID]DatabaseStatus{"b": detached(2), "c": detached(2)}, "b", ""},
		{"level, the first is held", base.withRegion("b", func(r *RegionState) { r.Held = true }), map[ID]DatabaseStatus{"b": detached(2), "c": detached(2)}, "c", ""},
		{"one has not answered", base, map[ID]DatabaseStatus{"b": detached(1)}, "", RuleMembersSilent},
		{"one still streams", base, map[ID]DatabaseStatus{"b": detached(1), "c": {Role: RoleStandby, Epoch: 1, Position: 9, Streaming: true}}, "", RuleMembersSilent},
		{"positions of two lineages", base, map[ID]DatabaseStatus{"b": detached(1), "c": {Role: RoleStandby, Epoch: 0, Position: 9}}, "", RuleLineage},
		{"after one was given up, less", reopened, map[ID]DatabaseStatus{"c": detached(199)}, "", RuleDataLoss},
		{"after one was given up, as much", reopened, map[ID]DatabaseStatus{"c": detached(200)}, "c", ""},
		{"after one was given up, its follower", reopened, map[ID]DatabaseStatus{"c": {Role: RoleStandby, Epoch: 2, Position: 3}}, "c", ""},
		{"the one given up", reopened, map[ID]DatabaseStatus{"b": detached(900)}, "", RuleMembersSilent},
	} {
		got, why := ChooseTarget(test.s, test.positions)
		switch {
		case test.rule != "" && (why == nil || why.Rule != test.rule):
			t.Errorf("%s: %+v, %v, want %s", test.name, got, why, test.rule)
		case test.rule == "" && (why != nil || got.Region != test.want):
			t.Errorf("%s: %+v, %v, want %s", test.name, got, why, test.want)
		}
		if got != nil {
			if _, why := Apply(test.s, Command{Target: got}); why != nil {
				t.Errorf("%s: what was chosen is refused: %v", test.name, why)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	var w Watch
	s := three(t)
	good := calm(t).Sights
	w.Leads(1, true, 0)
	see := func(now time.Duration, primary error) Situation {
		w.Saw("a", good["a"].Status, primary, now)
		w.Saw("b", good["b"].Status, nil, now)
		return w.Situation(s, 100*time.Millisecond, now)
	}
	see(time.Second, nil)
	sit := see(4*time.Second, nil)
	if sit.Led != 4*time.Second || sit.Sights["b"].Steady != 3*time.Second || !sit.Sights["a"].Answers() || sit.Renewed != 100*time.Millisecond {
		t.Errorf("%+v", sit)
	}
	see(5*time.Second, errors.New("no"))
	if sit = see(7*time.Second, errors.New("no")); sit.Sights["a"].Silent != 2*time.Second || sit.Sights["a"].Failing != 2*time.Second || sit.Sights["b"].Steady == 0 {
		t.Errorf("%+v", sit)
	}
	w.Leads(2, true, 8*time.Second)
	if sit = w.Situation(s, time.Hour, 9*time.Second); sit.Led != time.Second || sit.Renewed != time.Second || sit.Sights["a"].Known {
		t.Errorf("%+v", sit)
	}
}
