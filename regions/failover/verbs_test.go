package failover

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// inCalm runs a test against a deployment that has come to rest.
func inCalm(t *testing.T, do func(t *testing.T, w *world, leader, other *Controller)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(ctx, t, worldConfig{})
		defer func() {
			cancel()
			w.wg.Wait()
			allGates.Delete(w)
			allControllers.Delete(w)
		}()
		if !w.settled(30*time.Second, time.Second) {
			t.Fatal("the world does not come to rest")
		}
		w.mu.Lock()
		leader, other := controllers(w)["b"], controllers(w)["c"]
		w.mu.Unlock()
		do(t, w, leader, other)
	})
}

func TestTwoOperatorsAtOnce(t *testing.T) {
	inCalm(t, func(t *testing.T, w *world, leader, _ *Controller) {
		outcomes := make(chan regions.Outcome, 2)
		for _, to := range []regions.ID{"b", "c"} {
			w.wg.Go(func() {
				out, err := leader.Do(w.ctx, regions.Verb{Verb: regions.VerbSwitchover, To: to, By: "one of two"})
				if err != nil {
					t.Error(err)
				}
				outcomes <- out
			})
		}
		a, b := <-outcomes, <-outcomes
		if a.Accepted == b.Accepted {
			t.Fatalf("%+v\n%+v", a, b)
		}
		lost := a
		if a.Accepted {
			lost = b
		}
		if len(lost.Blockers) != 1 || lost.Blockers[0].Rule != regions.RuleOperation {
			t.Errorf("%+v", lost)
		}
		if !w.settled(30*time.Second, time.Second) {
			t.Error("the one that was accepted does not end")
		}
	})
}

func TestVerbs(t *testing.T) {
	inCalm(t, func(t *testing.T, w *world, leader, other *Controller) {
		do := func(v regions.Verb, rule regions.Rule) regions.Outcome {
			t.Helper()
			before := snapshotOf(w)
			v.By = "test"
			out, err := leader.Do(w.ctx, v)
			if err != nil {
				t.Fatalf("%+v: %v", v, err)
			}
			if out.Accepted != (rule == "") || rule != "" && out.Blockers[0].Rule != rule {
				t.Errorf("%+v: %+v, want %q", v, out, rule)
			}
			if (rule != "" || v.DryRun) && snapshotOf(w) != before {
				t.Errorf("%+v was not to change anything", v)
			}
			return out
		}
		do(regions.Verb{Verb: regions.VerbSwitchover, To: "x"}, regions.RuleUnknownRegion)
		do(regions.Verb{Verb: regions.VerbSwitchover, To: "a"}, regions.RuleSameRegion)
		do(regions.Verb{Verb: "dance"}, regions.RuleInvalid)
		do(regions.Verb{Verb: regions.VerbSwitchover}, regions.RuleInvalid)
		do(regions.Verb{Verb: regions.VerbFailover, To: "b"}, regions.RuleNotSuspected)
		do(regions.Verb{Verb: regions.VerbFailover, To: "b", AllowDataLoss: true}, regions.RuleNotSuspected)
		do(regions.Verb{Verb: regions.VerbFailover, To: "b", Force: []regions.Rule{regions.RuleNotSuspected}}, regions.RuleConfirm)
		do(regions.Verb{Verb: regions.VerbDrain, Region: "a"}, regions.RuleIsPrimary)
		if out := do(regions.Verb{Verb: regions.VerbSwitchover, To: "b", DryRun: true}, ""); out.Plan.PauseS == 0 || len(out.Plan.Steps) == 0 || out.Epoch != 0 {
			t.Errorf("%+v", out)
		}
		do(regions.Verb{Verb: regions.VerbPause, Reason: "maintenance"}, "")
		if c := leader.Cluster(); c.Paused == nil || c.Paused.Why != "maintenance" || c.Risk.Barred != regions.RulePaused || !c.Complete {
			t.Errorf("%+v", c)
		}
		do(regions.Verb{Verb: regions.VerbResume}, "")
		do(regions.Verb{Verb: regions.VerbDrain, Region: "c"}, "")
		for w.rest(time.Second) && w.duty("c") != regions.Drained {
		}
		do(regions.Verb{Verb: regions.VerbSwitchover, To: "c"}, regions.RuleDrained)
		do(regions.Verb{Verb: regions.VerbDrain, Region: "b"}, "")
		for w.rest(time.Second) && w.duty("b") != regions.Drained {
		}
		do(regions.Verb{Verb: regions.VerbDrain, Region: "a"}, regions.RuleLastRegion)
		do(regions.Verb{Verb: regions.VerbUndrain, Region: "b"}, "")
		if !w.settled(30*time.Second, time.Second) {
			t.Error("a region that is back does not confirm writes again")
		}
		if _, err := other.Do(w.ctx, regions.Verb{Verb: regions.VerbPause}); !isRule(err, regions.RuleNoLeader) {
			t.Errorf("one that does not lead: %v", err)
		}
		if e, err := leader.Explain("b"); err != nil || !e.Can {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// A control state that was restored with another primary makes a primary of it, though it followed the one that is lost until then.
func TestRestoredWithAnotherPrimary(t *testing.T) {
	inCalm(t, func(t *testing.T, w *world, _, _ *Controller) {
		w.mu.Lock()
		w.alive["a"], w.dbs["a"].up = false, false
		w.mu.Unlock()
		if why := w.apply(regions.Command{At: time.Now(), By: "test", Restore: &regions.Restore{Primary: "b"}}); why != nil {
			t.Fatal(why)
		}
		took := func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.state.TakesWrites("b", w.state.Epoch) && w.dbs["b"].role == regions.RolePrimary
		}
		for range 60 {
			if !w.rest(time.Second) || took() {
				break
			}
		}
		if !took() {
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Errorf("after a minute b is %s in epoch %d; %+v", w.dbs["b"].role, w.state.Epoch, w.state.Operation)
		}
	})
}

func isRule(err error, rule regions.Rule) bool {
	var why *regions.RefusedError
	return errors.As(err, &why) && why.Rule == rule
}

func (w *world) duty(id regions.ID) regions.Duty {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.Regions[id].Duty
}

// snapshotOf is what must not change where a verb is refused: all but the lease.
func snapshotOf(w *world) [3]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return [3]uint64{w.state.Epoch, uint64(w.state.Attempt), w.state.Entries}
}

func TestPractice(t *testing.T) {
	if _, err := New(Config{Self: "x", Practice: "whenever"}, Deps{Control: &incarnation{}, Database: (&incarnation{}).database}); err == nil {
		t.Error("a schedule that is none was taken")
	}
	inCalm(t, func(t *testing.T, w *world, leader, _ *Controller) {
		leader.practiseOnce(w.ctx)
		if !w.settled(30*time.Second, time.Second) {
			t.Fatal("it does not come to rest")
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		last := w.state.History
		for _, e := range last {
			if e.Event == "switchover" && e.By == "practice" && e.PauseMS > 0 && len(e.Steps) > 5 && w.state.Primary != "a" {
				return
			}
		}
		t.Errorf("%+v", last)
	})
}

// lone is a control plane of one node, for tests of who asks whom.
type lone struct {
	state regions.State
	leads bool
}

func (l *lone) State() regions.State                                     { return l.state }
func (l *lone) Changed() <-chan struct{}                                 { return nil }
func (l *lone) ProposeIn(context.Context, uint64, regions.Command) error { return nil }
func (l *lone) Leading() (uint64, bool)                                  { return 1, l.leads }
func (l *lone) Renewed(string) time.Duration                             { return 0 }

func TestDeskPassesOn(t *testing.T) {
	const key = "0123456789abcdef0123"
	state, why := regions.Apply(regions.State{}, regions.Command{Bootstrap: &regions.Bootstrap{Cluster: "x", ClusterID: "1", Primary: "a", Epoch: 1, Regions: []regions.Region{{ID: "a"}, {ID: "b"}}}})
	if why != nil {
		t.Fatal(why)
	}
	leading := &lone{state, true}
	database := func(regions.ID, regions.RegionState) regions.Database { return nil }
	c, err := New(Config{Self: "leader"}, Deps{Control: leading, Database: database})
	if err != nil {
		t.Fatal(err)
	}
	c.watch.Leads(1, true, 0)
	client, _ := peer.NewClient(peer.Keys{key}, nil)
	defer client.Close()
	verifier, _ := peer.NewVerifier(peer.Keys{key}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, h := range NewDesk(c, leading, nil, client).Handlers(verifier) {
		mux.Handle(path, h)
	}
	server := peer.NewServer(mux, 10*time.Second, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	defer func() { _ = server.Close(); <-done }()

	known := true
	desk := NewDesk(nil, &lone{state, false}, func() (string, string, bool) { return l.Addr().String(), "leader", known }, client)
	if out, err := desk.Do(t.Context(), regions.Verb{Verb: regions.VerbSwitchover, To: "x"}); err != nil || out.Accepted || out.Blockers[0].Rule != regions.RuleUnknownRegion {
		t.Errorf("%+v, %v", out, err)
	}
	if out, err := desk.Do(t.Context(), regions.Verb{Verb: regions.VerbPause}); err != nil || !out.Accepted {
		t.Errorf("%+v, %v", out, err)
	}
	if e, err := desk.Explain(t.Context(), "b"); err != nil || e.Region != "b" {
		t.Errorf("%+v, %v", e, err)
	}
	if out, err := desk.Cluster(t.Context()); err != nil || !out.Complete || out.Leader != "leader" {
		t.Errorf("%+v, %v", out, err)
	}
	known = false
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := desk.Do(short, regions.Verb{Verb: regions.VerbPause}); !isRule(err, regions.RuleNoLeader) {
		t.Error(err)
	}
	if out, err := desk.Cluster(t.Context()); err != nil || out.Complete || out.Primary != "a" {
		t.Errorf("%+v, %v", out, err)
	}
	known = true
	c.watch.Leads(1, false, 0)
	short, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := desk.Do(short, regions.Verb{Verb: regions.VerbPause}); !isRule(err, regions.RuleNoLeader) {
		t.Error(err)
	}
}
