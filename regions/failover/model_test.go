package failover

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline/regions"
)

// fault is one thing that goes wrong, or one that people ask for, and what mends it.
type fault struct {
	name    string
	cfg     worldConfig
	begin   func(*world)
	mend    func(*world)  // nil: nothing has to be mended
	mendIn  time.Duration // after begin
	primary regions.ID    // who has to be primary in the end, "" for anybody
}

func region(id regions.ID, change func(w *world, id regions.ID)) func(*world) {
	return func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		change(w, id)
	}
}

func die(w *world, id regions.ID)    { w.alive[id], w.dbs[id].up = false, false }
func freeze(w *world, id regions.ID) { w.frozen[id] = true }
func thaw(w *world, id regions.ID)   { w.frozen[id] = false }
func dbDies(w *world, id regions.ID) { w.dbs[id].up = false }

// revive starts what died. A database that was primary takes no writes until it is told to.
func revive(w *world, id regions.ID) {
	w.alive[id] = true
	d := w.dbs[id]
	if !d.up && d.role == regions.RolePrimary {
		d.readOnly = true
	}
	d.up = true
}

func isolate(w *world, id regions.ID) {
	for other := range w.alive {
		if other != id {
			w.cut[string(id)+">"+string(other)] = true
		}
	}
}

func leaderStands(w *world) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.standLocked(w.leader)
}

func heal(w *world, _ regions.ID) { clear(w.cut) }

// ask gives an operator's verb to whoever leads, again and again until it is accepted or refused by a rule.
func ask(v regions.Verb) func(*world) {
	return func(w *world) {
		w.wg.Go(func() {
			for range 20 {
				w.mu.Lock()
				c := controllers(w)[w.leader]
				w.mu.Unlock()
				if c != nil {
					if out, err := c.Do(w.ctx, v); err == nil && out.Accepted {
						return
					}
				}
				if !w.rest(200 * time.Millisecond) {
					return
				}
			}
		})
	}
}

var (
	switchToB = regions.Verb{Verb: regions.VerbSwitchover, To: "b", By: "operator"}
	both      = func(fs ...func(*world)) func(*world) {
		return func(w *world) {
			for _, f := range fs {
				f(w)
			}
		}
	}
	later = func(d time.Duration, f func(*world)) func(*world) {
		return func(w *world) {
			w.wg.Go(func() {
				if w.rest(d) {
					f(w)
				}
			})
		}
	}
)

var faults = []fault{
	{name: "the primary region dies", begin: region("a", die), mend: region("a", revive), mendIn: 15 * time.Second},
	{name: "the primary region dies for good", begin: region("a", die)},
	{name: "the primary region is frozen", begin: region("a", freeze), mend: region("a", thaw), mendIn: 8 * time.Second},
	{name: "the primary region is frozen for a moment", begin: region("a", freeze), mend: region("a", thaw), mendIn: 2800 * time.Millisecond},
	{name: "the primary region is cut off", begin: region("a", isolate), mend: region("a", heal), mendIn: 10 * time.Second},
	{name: "the primary's database dies, its nodes live", begin: region("a", dbDies), mend: region("a", revive), mendIn: 12 * time.Second},
	{name: "the control link of the primary is cut, its standbys stream", begin: region("a", func(w *world, id regions.ID) {
		// Only what goes to the leader and the nodes is cut: replicate asks for the link between databases, so it stays for c.
		w.cut["a>"+string(w.leader)] = true
	}), mend: region("a", heal), mendIn: 10 * time.Second},
	{name: "a standby dies", begin: region("c", die), mend: region("c", revive), mendIn: 20 * time.Second, primary: "a"},
	{name: "a standby dies, then the primary", begin: both(region("c", die), later(14*time.Second, region("a", die))), mend: both(region("a", revive), region("c", revive)), mendIn: 40 * time.Second},
	{name: "a switchover", begin: ask(switchToB), primary: "b"},
	{name: "the source dies in a switchover", begin: both(ask(switchToB), later(150*time.Millisecond, region("a", die))), mend: region("a", revive), mendIn: 20 * time.Second},
	{name: "the target dies in a switchover", begin: both(ask(switchToB), later(420*time.Millisecond, region("b", die))), mend: region("b", revive), mendIn: 20 * time.Second},
	{name: "the target is frozen in a failover", begin: both(region("a", die), later(2600*time.Millisecond, region("c", freeze))), mend: both(region("c", thaw), region("a", revive)), mendIn: 30 * time.Second},
	{name: "the leader of the control plane stands still", begin: leaderStands, primary: "a"},
	{name: "two regions and a witness, the primary dies", cfg: worldConfig{regions: []regions.ID{"a", "b"}, witness: true}, begin: region("a", die), mend: region("a", revive), mendIn: 15 * time.Second, primary: "b"},
	{name: "two regions and a witness, a switchover", cfg: worldConfig{regions: []regions.ID{"a", "b"}, witness: true}, begin: ask(switchToB), primary: "b"},
}

// result is what became of a run.
type result struct {
	calls  int
	trace  []string
	faults []string
	state  regions.State
	pause  time.Duration // the longest time without an acknowledgement
}

// play runs one fault, with the controller dying at the kill-th call where that is not 0.
func play(t *testing.T, f fault, kill int, after bool, who victim) result {
	var res result
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(ctx, t, f.cfg)
		calm := w.settled(30*time.Second, 0)
		if !calm {
			res.faults = append(res.faults, "the world does not come to rest before anything happens")
		}
		w.mu.Lock()
		w.calls, w.kill, w.after, w.who, w.trace = 0, kill, after, who, nil
		w.mu.Unlock()
		f.begin(w)
		if f.mend != nil {
			w.rest(f.mendIn)
			f.mend(w)
		}
		if !w.settled(90*time.Second, 3*time.Second) {
			res.faults = append(res.faults, "there is no primary in the end")
		}
		w.mu.Lock()
		res.calls, res.trace, res.state = w.calls, w.trace, w.state
		res.faults = append(res.faults, w.judgeLocked()...)
		if f.primary != "" && kill == 0 && w.state.Primary != f.primary {
			res.faults = append(res.faults, fmt.Sprintf("%s is primary, not %s", w.state.Primary, f.primary))
		}
		for i := 1; i < len(w.acks); i++ {
			res.pause = max(res.pause, w.acks[i].acked.Sub(w.acks[i-1].acked))
		}
		w.mu.Unlock()
		cancel()
		w.wg.Wait()
		allGates.Delete(w)
		allControllers.Delete(w)
	})
	return res
}

// settled waits until a primary acknowledges writes, nothing is under way, and that is so for a while.
func (w *world) settled(limit, still time.Duration) bool {
	good := time.Duration(0)
	for waited := time.Duration(0); waited < limit; waited += 100 * time.Millisecond {
		w.rest(100 * time.Millisecond)
		w.mu.Lock()
		ok := len(w.acks) > 0 && time.Since(w.acks[len(w.acks)-1].acked) < 500*time.Millisecond && w.state.Operation == nil &&
			w.acks[len(w.acks)-1].epoch == w.state.PrimaryEpoch && (w.state.Durability.Mode == regions.Quorum || w.onlyOneLocked()) && slices.Equal(w.state.Names, w.state.Sync)
		for _, s := range w.still { // who stands still is yet to go on
			ok = ok && time.Since(s.until) > outdated
		}
		w.mu.Unlock()
		if !ok {
			good = 0
			continue
		}
		if good += 100 * time.Millisecond; good > still {
			return true
		}
	}
	return false
}

func (w *world) onlyOneLocked() bool {
	n := 0
	for _, d := range w.dbs {
		if d.up {
			n++
		}
	}
	return n == 1
}

// judgeLocked holds the promises against what happened.
func (w *world) judgeLocked() []string {
	var all []string
	have := map[uint64]bool{}
	for _, e := range w.dbs[w.state.Primary].log {
		have[e.write] = true
	}
	first := map[uint64]time.Time{}
	for _, a := range w.acks {
		if at, ok := first[a.epoch]; !ok || a.acked.Before(at) {
			first[a.epoch] = a.acked
		}
	}
	lost := 0
	for _, a := range w.acks {
		if !have[a.id] {
			lost++
		}
		for epoch, at := range first {
			if epoch > a.epoch && a.begun.After(at) {
				all = append(all, fmt.Sprintf("a write of epoch %d was begun after one of epoch %d was acknowledged", a.epoch, epoch))
			}
		}
	}
	if lost > 0 {
		all = append(all, fmt.Sprintf("%d of %d acknowledged writes are lost", lost, len(w.acks)))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestControllerDiesAnywhere plays every fault, and then again with the controller, its region, or the database that it
// speaks to dying before and after each of its calls, and with the controller standing still there for 10 s.
func TestControllerDiesAnywhere(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			base := play(t, f, 0, false, controllerDies)
			report(t, f.name, base)
			t.Logf("%d calls, longest pause %v, primary %s in epoch %d", base.calls, base.pause, base.state.Primary, base.state.PrimaryEpoch)
			for kill := 1; kill <= base.calls; kill++ {
				for _, who := range []victim{controllerDies, regionDies, calleeDies, controllerStands} {
					for _, after := range []bool{false, true} {
						every := map[victim]int{controllerDies: 1, regionDies: 2, calleeDies: 2, controllerStands: 6}[who]
						if (who != controllerDies && after || kill%every != 0) && os.Getenv("SHORTLINE_CHAOS") == "" {
							continue // a part of them does for everyday
						}
						if !t.Failed() {
							report(t, fmt.Sprintf("%s, call %d, after: %v, victim %d", f.name, kill, after, who), play(t, f, kill, after, who))
						}
					}
				}
			}
		})
	}
}

func report(t *testing.T, name string, r result) {
	t.Helper()
	if len(r.faults) > 0 {
		t.Errorf("%s: %s\n%s\noperation %+v\nsync %v names %v %+v primary %s", name, strings.Join(r.faults, "; "), strings.Join(r.trace, "\n"), r.state.Operation,
			r.state.Sync, r.state.Names, r.state.Durability, r.state.Primary)
	}
}

// slowC is a third region that is behind, so that some acknowledged writes are at b alone.
var slowC = map[regions.ID]time.Duration{"c": 300 * time.Millisecond}

// hard are faults in which a safeguard that is missing shows.
var hard = map[string]fault{
	"killed": {begin: region("a", die), mend: region("a", revive), mendIn: 15 * time.Second},
	// The control plane is cut off from the primary's nodes, its standbys are not.
	"control cut":   {cfg: worldConfig{promote: 300 * time.Millisecond}, begin: func(w *world) { w.mu.Lock(); defer w.mu.Unlock(); w.deaf["a"] = true }, mend: func(w *world) { w.mu.Lock(); defer w.mu.Unlock(); w.deaf["a"] = false }, mendIn: 12 * time.Second},
	"target dies":   {cfg: worldConfig{slow: slowC}, begin: both(region("a", die), later(6*time.Second, region("a", func(w *world, id regions.ID) { w.alive[id] = true }))), mend: region("a", revive), mendIn: 30 * time.Second},
	"leader stands": {begin: leaderStands, primary: "a"},
	// The third region never hears of the new primary, which dies; it comes back, and so does a majority of voters.
	"two lineages": {cfg: worldConfig{slow: slowC}, begin: both(region("a", die), later(8*time.Second, both(ask(regions.Verb{Verb: regions.VerbAck, By: "operator"}),
		region("c", revive), region("b", die), region("a", func(w *world, id regions.ID) { w.alive[id] = true })))),
		mend: both(region("b", revive), region("a", revive)), mendIn: 40 * time.Second},
}

// TestMutants switches safeguards off: the same judge has to find out. Without, the same faults do no harm.
func TestMutants(t *testing.T) {
	for _, test := range []struct {
		name, fault string
		kill        int // at which call who dies, of the region that leads and that is called
		who         victim
		mutate      func(*worldConfig)
		finds       string
	}{
		{"async instead of quorum", "killed", 0, controllerDies, func(c *worldConfig) {
			c.async = true
			c.slow = map[regions.ID]time.Duration{"b": 100 * time.Millisecond, "c": 100 * time.Millisecond}
		}, "lost"},
		{"both fences off", "control cut", 5, controllerDies, func(c *worldConfig) { c.noGate = true; c.controller = mutantNoDetach }, "lost"},
		{"the target changes on resume", "target dies", 4, regionDies, func(c *worldConfig) { c.controller = mutantRechoose; c.dateless = true }, "lost"},
		{"positions of two lineages are compared", "two lineages", 8, calleeDies, func(c *worldConfig) { c.noLineage = true }, "lost"},
		{"an old leader's decision is taken over", "leader stands", 0, controllerDies, func(c *worldConfig) { c.forwards = true }, "is primary, not a"},
		// Either fence alone holds.
		{"the lease's fence off", "control cut", 5, controllerDies, func(c *worldConfig) { c.noGate = true }, ""},
		{"the database's fence off", "control cut", 5, controllerDies, func(c *worldConfig) { c.controller = mutantNoDetach }, ""},
		{"the lease is not waited out", "control cut", 5, controllerDies, func(c *worldConfig) { c.controller = mutantNoWait }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := hard[test.fault]
			report(t, "without the mutant", play(t, f, test.kill, test.who != calleeDies, test.who))
			test.mutate(&f.cfg)
			r := play(t, f, test.kill, test.who != calleeDies, test.who)
			if test.finds == "" {
				report(t, test.name, r)
			} else if !strings.Contains(strings.Join(r.faults, "; "), test.finds) {
				t.Errorf("it is not found: %v\n%s", r.faults, strings.Join(r.trace, "\n"))
			}
		})
	}
}
