package edge_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// operators is an Operator over a situation that a test sets up.
type operators struct {
	situation regions.Situation
	asked     []regions.Verb
	err       error
}

func (o *operators) Cluster(context.Context) (regions.Cluster, error) {
	return o.situation.Cluster(regions.Policy{}, "node", morning), o.err
}

func (o *operators) Explain(_ context.Context, id regions.ID) (regions.Explanation, error) {
	return o.situation.Explain(id, regions.Policy{}, regions.Room{}), o.err
}

func (o *operators) History(context.Context) ([]regions.Entry, error) {
	return o.situation.State.History, o.err
}

func (o *operators) Do(_ context.Context, v regions.Verb) (regions.Outcome, error) {
	o.asked = append(o.asked, v)
	out := regions.Outcome{Verb: v.Verb, Region: v.Names(), DryRun: v.DryRun, Plan: o.situation.Plan(v, regions.Policy{}, regions.Room{}),
		Blockers: o.situation.VerbBlockers(v, regions.Policy{}, regions.Room{}), Overridden: o.situation.Overrides(v, regions.Policy{}, regions.Room{})}
	if out.Blockers == nil {
		out.Blockers = []*regions.RefusedError{}
	}
	out.Accepted = len(out.Blockers) == 0
	return out, o.err
}

// threeRegions are a (primary), b and c; b lags, c is drained.
func threeRegions(t *testing.T) *operators {
	t.Helper()
	state, why := regions.Apply(regions.State{}, regions.Command{At: morning, By: "test", Bootstrap: &regions.Bootstrap{Cluster: "x", ClusterID: "1", Primary: "a", Epoch: 1, Position: 5,
		Regions: []regions.Region{{ID: "a", Point: geo.Point{Lat: 1}}, {ID: "b"}, {ID: "c"}, {ID: "w", Witness: true}}}})
	if why != nil {
		t.Fatal(why)
	}
	for _, to := range []regions.Duty{regions.Draining, regions.Drained} {
		if state, why = regions.Apply(state, regions.Command{At: morning, Region: &regions.Change{Region: "c", To: to}}); why != nil {
			t.Fatal(why)
		}
	}
	standby := func(id regions.ID, at regions.LSN) regions.Sight {
		return regions.Sight{Known: true, Steady: time.Minute, Status: regions.DatabaseStatus{Region: id, Role: regions.RoleStandby, Epoch: 1, Position: at, Upstream: "a", Streaming: true, At: morning}}
	}
	return &operators{situation: regions.Situation{State: state, Term: 1, Led: time.Hour, Renewed: time.Second, Sights: map[regions.ID]regions.Sight{
		"a": {Known: true, Status: regions.DatabaseStatus{Region: "a", Role: regions.RolePrimary, Epoch: 1, Position: 1 << 30, Standbys: map[regions.ID]regions.LSN{"b": 1000, "c": 1 << 30}, At: morning}},
		"b": standby("b", 1000), "c": standby("c", 1<<30),
	}}}
}

// TestVerbsAreRefusedByName asks for what must not be: each is a 409 that names the rule, and nothing has changed.
func TestVerbsAreRefusedByName(t *testing.T) {
	o := threeRegions(t)
	n := newTestNode(t, func(s *nodeSetup) { s.operator = o })
	for _, test := range []struct {
		name, path, body string
		status           int
		rule             regions.Rule
	}{
		{"to an unknown region", "switchover", `{"to":"x"}`, 409, regions.RuleUnknownRegion},
		{"to the same region", "switchover", `{"to":"a"}`, 409, regions.RuleSameRegion},
		{"to a lagging region", "switchover", `{"to":"b"}`, 409, regions.RuleNotCaughtUp},
		{"to a lagging region, a dry run", "switchover", `{"to":"b","dry_run":true}`, 200, ""},
		{"to a lagging region, forced without a name", "switchover", `{"to":"b","force":["not-caught-up"]}`, 409, regions.RuleConfirm},
		{"to a lagging region, forced with another name", "switchover", `{"to":"b","force":["not-caught-up"],"confirm":"a"}`, 409, regions.RuleConfirm},
		{"to a lagging region, forced", "switchover", `{"to":"b","force":["not-caught-up"],"confirm":"b"}`, 200, ""},
		{"to a drained region", "switchover", `{"to":"c"}`, 409, regions.RuleDrained},
		{"to a witness", "switchover", `{"to":"w"}`, 409, regions.RuleWitness},
		{"to nowhere", "switchover", `{}`, 422, ""},
		{"without a body", "switchover", ``, 422, ""},
		{"not JSON", "switchover", `{`, 400, ""},
		{"an unknown member", "switchover", `{"to":"b","tp":1}`, 400, ""},
		{"data loss is not for a switchover", "switchover", `{"to":"b","allow_data_loss":true}`, 400, ""},
		{"a parameter", "pause?x=1", `{}`, 400, ""},
		{"a failover from what works", "failover", `{"to":"b","allow_data_loss":true,"confirm":"b"}`, 409, regions.RuleNotSuspected},
		{"a failover that could lose data", "failover", `{"to":"b"}`, 409, regions.RuleDegraded},
		{"a rule that cannot be forced", "failover", `{"to":"b","force":["degraded"],"confirm":"b"}`, 409, regions.RuleInvalid},
		{"a rule that is none", "failover", `{"to":"b","force":["gravity"],"confirm":"b"}`, 409, regions.RuleInvalid},
		{"drain the primary", "regions/a/drain", `{}`, 409, regions.RuleIsPrimary},
		{"drain an unknown region", "regions/x/drain", `{}`, 409, regions.RuleUnknownRegion},
		{"undrain an unknown region", "regions/x/undrain", `{}`, 409, regions.RuleUnknownRegion},
		{"drain a witness", "regions/w/drain", `{}`, 409, regions.RuleWitness},
		{"undrain", "regions/c/undrain", `{"reason":" mended "}`, 200, ""},
		{"pause", "pause", ``, 200, ""},
		{"resume", "resume", `{}`, 200, ""},
		{"ack", "ack", `{"reason":"seen"}`, 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			rep := n.write(t, "POST", "/admin/v1/"+test.path, test.body).want(t, test.status)
			if test.status != 409 {
				return
			}
			p := rep.wantProblem(t, 409, "refused")
			if !slices.ContainsFunc(p.Blockers, func(b *regions.RefusedError) bool { return b.Rule == test.rule && b.Detail != "" }) || p.Rule == "" {
				t.Errorf("%+v, want %s", p, test.rule)
			}
		})
	}
	t.Run("drain the last", func(t *testing.T) {
		o.situation.State, _ = regions.Apply(o.situation.State, regions.Command{At: morning, Region: &regions.Change{Region: "b", To: regions.Draining}})
		if p := n.write(t, "POST", "/admin/v1/regions/a/drain", `{}`).wantProblem(t, 409, "refused"); p.Rule != regions.RuleLastRegion {
			t.Errorf("%+v", p)
		}
	})
	if last := o.asked[len(o.asked)-2]; last.Verb != regions.VerbAck || last.Reason != "seen" || last.By == "" {
		t.Errorf("%+v", last)
	}
	t.Run("nobody leads", func(t *testing.T) {
		o.err = &regions.RefusedError{Rule: regions.RuleNoLeader, Detail: "none"}
		n.write(t, "POST", "/admin/v1/pause", `{}`).wantProblem(t, 503, "no-leader")
		n.write(t, "GET", "/admin/v1/cluster", "").wantProblem(t, 503, "no-leader")
	})
	t.Run("the answer is lost", func(t *testing.T) {
		o.err = errors.New("connection reset")
		n.write(t, "POST", "/admin/v1/pause", `{}`).wantProblem(t, 504, "outcome-unknown")
	})
}

func TestClusterAndExplain(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.operator = threeRegions(t) })
	var c regions.Cluster
	n.write(t, "GET", "/admin/v1/cluster", "").want(t, 200).json(t, &c)
	if c.Primary != "a" || len(c.Regions) != 4 || c.Regions[1].LagBytes == nil || c.Risk == nil || c.Risk.Barred != regions.RuleDegraded || c.Risk.To != "c" || c.Regions[3].Role != "witness" {
		t.Errorf("%+v", c)
	}
	var e regions.Explanation
	n.write(t, "GET", "/admin/v1/regions/c/explain", "").want(t, 200).json(t, &e)
	if e.Can || e.Summary == "" || !slices.ContainsFunc(e.Switchover, func(c regions.Check) bool { return c.Rule == regions.RuleDrained && !c.OK && c.Forceable }) {
		t.Errorf("%+v", e)
	}
	n.write(t, "GET", "/admin/v1/regions/x/explain", "").wantProblem(t, 404, "not-found")
	var h edge.HistoryAnswer
	n.write(t, "GET", "/admin/v1/history", "").want(t, 200).json(t, &h)
	if len(h.History) != 3 || h.History[0].Event != "drained" {
		t.Errorf("%+v", h)
	}
}

// TestAlone asks a node of one region: it says what it is, and refuses by name.
func TestAlone(t *testing.T) {
	n := newTestNode(t)
	var c regions.Cluster
	n.write(t, "GET", "/admin/v1/cluster", "").want(t, 200).json(t, &c)
	if c.Primary != "local" || len(c.Regions) != 1 || c.Regions[0].Role != "primary" || c.Regions[0].State != regions.Active {
		t.Errorf("%+v", c)
	}
	for _, path := range []string{"switchover", "failover", "regions/local/drain", "pause", "resume", "ack", "regions/local/undrain"} {
		body := `{}`
		if path == "switchover" || path == "failover" {
			body = `{"to":"x"}`
		}
		if p := n.write(t, "POST", "/admin/v1/"+path, body).wantProblem(t, 409, "refused"); p.Rule != regions.RuleSingleRegion {
			t.Errorf("%s: %+v", path, p)
		}
	}
	n.write(t, "GET", "/admin/v1/regions/local/explain", "").want(t, 200)
	n.get(t, "/admin/v1/cluster").wantProblem(t, 401, "unauthorized")
}
