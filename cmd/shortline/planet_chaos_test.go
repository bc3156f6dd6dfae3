package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// TestChaos is `make chaos`: for SHORTLINE_CHAOS it does to a planet whatever SHORTLINE_CHAOS_SEED says, one fault or two at a time, under a
// load that is accounted for. After each the regions have to come to rest by themselves; then an operator says that the region that failed is
// well.
func TestChaos(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("SHORTLINE_CHAOS"))
	if err != nil {
		t.Skip("takes minutes: make chaos DURATION=10m")
	}
	planet.NeedSeparable(t)
	seed, err := strconv.ParseUint(os.Getenv("SHORTLINE_CHAOS_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64() >> 32
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("shortline-chaos-%d-", seed))
	if err != nil {
		t.Fatal(err)
	}
	again := fmt.Sprintf("make chaos DURATION=%v SEED=%d", length, seed)
	t.Logf("%s; what the parts say is in %s", again, dir)
	log, err := os.Create(filepath.Join(dir, "parts.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = log.Close()
		if t.Failed() {
			t.Logf("it failed with the seed %d; the logs are kept in %s; again: %s", seed, dir, again)
		} else {
			_ = os.RemoveAll(dir)
		}
	})
	w := startWorld(t, 12, planet.Options{Separate: true, Output: log})
	c := &chaos{world: w, rng: rand.New(rand.NewPCG(seed, 1)), log: log, began: time.Now()}
	w.zero(w.Nodes()[0])
	c.rest()
	l := w.load(w.Nodes(), true)
	for n := 1; time.Since(c.began) < length; n++ {
		c.step(n, l)
		if t.Failed() {
			return
		}
	}
	l.settle("chaos")
	w.caughtUp(new(client.Session))
	for _, f := range w.everyCacheIs(w.truth()) {
		t.Error(f)
	}
}

// chaos is a world to which things happen.
type chaos struct {
	*world
	rng   *rand.Rand
	log   io.Writer
	began time.Time
	// starts are processes that are starting.
	starts sync.WaitGroup
}

// say prints a line where it is seen at once, and among what the parts say.
func (c *chaos) say(format string, args ...any) {
	text := fmt.Sprintf("%6.1f s  %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
	c.Log(text)
	fmt.Fprintf(c.log, "chaos | %s\n", text)
}

// mishap is one thing that goes wrong. begin does it, and returns what it was done to and how to mend it.
type mishap struct {
	name  string
	begin func(c *chaos, at scene) (what string, mend func() error, err error)
}

// scene is whom a mishap may befall: drawn from the seed, as far as the roles of regions allow.
type scene struct {
	primary  *planet.Region
	standbys []*planet.Region // in an order that is drawn
	leader   *planet.Node     // of the control plane; nil if it is not known
	node     int              // of a region
	coin     bool
}

func (s scene) any() *planet.Region {
	if s.coin {
		return s.primary
	}
	return s.standbys[0]
}

func (s scene) nodeOf(r *planet.Region) *planet.Node { return r.Nodes[s.node%len(r.Nodes)] }

func mishaps() []mishap {
	type region = func(scene) *planet.Region
	primary, standby, anyone := func(s scene) *planet.Region { return s.primary }, func(s scene) *planet.Region { return s.standbys[0] }, scene.any
	server := func(name string, whose region, begin, mend func(*planet.Database) error) mishap {
		return mishap{name, func(_ *chaos, s scene) (string, func() error, error) {
			r := whose(s)
			return string(r.ID), func() error { return mend(r.Postgres) }, begin(r.Postgres)
		}}
	}
	node := func(name string, which func(scene) *planet.Node, begin func(*planet.Node) error, mend func(*chaos, *planet.Node) error) mishap {
		return mishap{name, func(c *chaos, s scene) (string, func() error, error) {
			n := which(s)
			if n == nil {
				return "nobody", func() error { return nil }, nil
			}
			return n.Name(), func() error { return mend(c, n) }, begin(n)
		}}
	}
	kill := func(n *planet.Node) error { n.Kill(); return nil }
	start := func(c *chaos, n *planet.Node) error { return c.revive(n) }
	resume := func(_ *chaos, n *planet.Node) error { return n.Resume() }
	some := func(s scene) *planet.Node { return s.nodeOf(s.any()) }
	leader := func(s scene) *planet.Node { return s.leader }
	nothing := func(*planet.Database) error { return nil }
	killAgent := func(d *planet.Database) error { return syscall.Kill(d.PID(), syscall.SIGKILL) }
	drop := func(name string, what planet.Traffic, ways func(scene) [][2]regions.ID) mishap {
		return mishap{name, func(c *chaos, s scene) (string, func() error, error) {
			var all []string
			for _, way := range ways(s) {
				all = append(all, fmt.Sprintf("%s→%s", way[0], way[1]))
				if err := c.Drop(way[0], way[1], what); err != nil {
					return "", nil, err
				}
			}
			return strings.Join(all, " "), c.Mend, nil
		}}
	}
	around := func(whose region) func(scene) [][2]regions.ID {
		return func(s scene) (ways [][2]regions.ID) {
			r := whose(s)
			for _, other := range append(slices.Clone(s.standbys), s.primary) {
				if other != r {
					ways = append(ways, [2]regions.ID{r.ID, other.ID}, [2]regions.ID{other.ID, r.ID})
				}
			}
			return ways
		}
	}
	half := func(of func(scene) [][2]regions.ID) func(scene) [][2]regions.ID { // one direction of each
		return func(s scene) (ways [][2]regions.ID) {
			for i, way := range of(s) {
				if (i%2 == 0) == s.coin {
					ways = append(ways, way)
				}
			}
			return ways
		}
	}
	pair := func(s scene) [][2]regions.ID {
		a, b := s.any().ID, s.standbys[1].ID
		return [][2]regions.ID{{a, b}, {b, a}}
	}
	return []mishap{
		server("PostgreSQL of the primary is killed", primary, (*planet.Database).KillServer, nothing),
		server("PostgreSQL of a standby is killed", standby, (*planet.Database).KillServer, nothing),
		server("PostgreSQL of the primary is frozen", primary, (*planet.Database).FreezeServer, (*planet.Database).ThawServer),
		server("PostgreSQL of a standby is frozen", standby, (*planet.Database).FreezeServer, (*planet.Database).ThawServer),
		server("the postmaster alone is frozen", primary, (*planet.Database).PauseServer, (*planet.Database).ResumeServer),
		server("PostgreSQL and its agent are frozen", anyone, (*planet.Database).Pause, (*planet.Database).Resume),
		{"the agent is killed, and PostgreSQL with it", func(c *chaos, s scene) (string, func() error, error) {
			d := s.any().Postgres
			return string(s.any().ID), func() error { return c.revive(d) }, killAgent(d)
		}},
		server("the agent alone is frozen", anyone, func(d *planet.Database) error { return syscall.Kill(d.PID(), syscall.SIGSTOP) },
			func(d *planet.Database) error { return syscall.Kill(d.PID(), syscall.SIGCONT) }),
		node("a node is killed", some, kill, start),
		node("a node is frozen", some, (*planet.Node).Pause, resume),
		node("the raft leader is killed", leader, kill, start),
		node("the raft leader is frozen", leader, (*planet.Node).Pause, resume),
		{"a region dies", (*chaos).regionDies},
		{"a region stands still", (*chaos).regionFreezes},
		drop("the primary region is cut off", planet.Everything, around(primary)),
		drop("a standby is cut off", planet.Everything, around(standby)),
		drop("one way is cut", planet.Everything, half(around(anyone))),
		drop("two regions do not reach each other", planet.Everything, pair),
		drop("PostgreSQL's links are cut, raft is well", planet.DatabaseLink, around(anyone)),
		drop("all but PostgreSQL's links is cut", planet.ButDatabase, around(anyone)),
		{"a Redis is killed, the others forget", func(c *chaos, s scene) (string, func() error, error) {
			r := s.any()
			r.Redis.Kill(s.node % 3)
			return string(r.ID), func() error { return r.Redis.Restart(c.deadline(), s.node%3) }, r.Redis.FlushAll(c.deadline())
		}},
		{"an operator moves the primary", func(c *chaos, s scene) (string, func() error, error) {
			var answer map[string]any
			_, err := c.client(s.nodeOf(s.standbys[1]), nil).AdminPost(c.deadline(), "switchover", map[string]any{"to": s.standbys[0].ID, "reason": "chaos"}, &answer)
			what := "to " + string(s.standbys[0].ID)
			if err != nil { // with something else going on, a refusal is in order
				what += ": " + err.Error()
			}
			return what, func() error { return nil }, nil
		}},
	}
}

func (c *chaos) regionDies(s scene) (string, func() error, error) {
	r := s.any()
	var all sync.WaitGroup
	all.Go(r.Postgres.Kill)
	for _, n := range r.Nodes {
		all.Go(n.Kill)
	}
	all.Wait()
	return string(r.ID), func() error {
		if err := c.revive(r.Postgres); err != nil {
			return err
		}
		for _, n := range r.Nodes {
			if err := c.revive(n); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func (c *chaos) regionFreezes(s scene) (string, func() error, error) {
	r := s.any()
	err := r.Postgres.Pause()
	for _, n := range r.Nodes {
		if err == nil {
			err = n.Pause()
		}
	}
	return string(r.ID), func() error {
		err := r.Postgres.Resume()
		for _, n := range r.Nodes {
			if err == nil {
				err = n.Resume()
			}
		}
		return err
	}, err
}

// startable is a process that can be started again.
type startable interface {
	Running() bool
	Start(context.Context) error
}

// revive starts what does not run. It need not be ready: with something else wrong it may have to wait for that.
func (c *chaos) revive(p startable) error {
	for end := time.Now().Add(10 * time.Second); p.Running() && time.Now().Before(end); time.Sleep(time.Millisecond) { // it is ending
	}
	if p.Running() { // somebody else's mending was quicker
		return nil
	}
	c.starts.Go(func() {
		if err := p.Start(c.deadline()); err != nil {
			c.Errorf("it does not start again: %v", err)
		}
	})
	return nil
}

// step does one thing, or two, and waits until all is well again.
func (c *chaos) step(n int, l *steadyLoad) {
	all := mishaps()
	kinds, holds := []int{c.rng.IntN(len(all))}, []time.Duration{c.between(1, 12)}
	gap := c.between(0, 4)
	if c.rng.IntN(3) == 0 {
		kinds, holds = append(kinds, c.rng.IntN(len(all))), append(holds, c.between(1, 12))
	}
	var mends []func() error
	var ends []time.Time
	for i, kind := range kinds {
		if i > 0 {
			time.Sleep(gap)
		}
		at := c.scene()
		what, mend, err := all[kind].begin(c, at)
		if err != nil {
			if i == 0 {
				c.Fatalf("step %d: %s: %v", n, all[kind].name, err)
			}
			c.say("step %d: and meanwhile: %s: not possible: %v", n, all[kind].name, err)
			continue
		}
		c.say("step %d%s: %s: %s, for %v", n, []string{"", ", and meanwhile"}[i], all[kind].name, what, holds[i].Round(100*time.Millisecond))
		mends, ends = append(mends, mend), append(ends, time.Now().Add(holds[i]))
	}
	for i, mend := range mends {
		time.Sleep(time.Until(ends[i]))
		if err := mend(); err != nil { // what was frozen has been killed meanwhile: whether all is well again is seen below
			c.say("step %d: mending: %v", n, err)
		}
	}
	c.say("step %d: mended", n)
	took := c.rest()
	v, _ := c.view()
	l.mu.Lock()
	defer l.mu.Unlock()
	c.say("step %d: at rest after %v: %s in epoch %d, sync %v; %d acknowledged, %d refused or silent, %d sessions lost", n, took.Round(100*time.Millisecond), v.Primary, v.PrimaryEpoch, v.Sync, len(l.acks), l.refused, l.lost)
	for _, err := range l.failed {
		c.Error(err)
	}
	for _, f := range l.twoWriters() {
		c.Error(f)
	}
}

func (c *chaos) between(from, to float64) time.Duration {
	return time.Duration((from + c.rng.Float64()*(to-from)) * float64(time.Second))
}

// scene draws from the seed, the same number of times whatever it finds.
func (c *chaos) scene() scene {
	s := scene{node: c.rng.IntN(1 << 20), coin: c.rng.IntN(2) == 0}
	order := c.rng.Perm(len(c.Regions()))
	v, _ := c.view()
	for _, i := range order {
		r := c.Regions()[i]
		switch {
		case r.ID == v.Primary, v.Primary == "" && s.primary == nil:
			s.primary = r
		default:
			s.standbys = append(s.standbys, r)
		}
		for _, n := range r.Nodes {
			if n.Name() == v.Leader {
				s.leader = n
			}
		}
	}
	return s
}

// view is what the leader of the control plane with the newest epoch says, false where nobody speaks for it.
func (w *world) view() (best regions.Cluster, ok bool) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range w.Nodes() {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(w.Context(), time.Second)
			defer cancel()
			var c regions.Cluster
			if _, err := w.client(n, nil).AdminGet(ctx, "cluster", &c); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if c.Complete && (!ok || c.Epoch > best.Epoch) {
				best, ok = c, true
			}
		})
	}
	all.Wait()
	return best, ok
}

// rest waits until the regions are well by themselves, does then what is an operator's, and returns how long the first took.
func (c *chaos) rest() time.Duration {
	c.Helper()
	began := time.Now()
	c.starts.Wait()
	c.within(3*time.Minute, "the regions are well again", func(v regions.Cluster) bool { return well(v, false) })
	took := time.Since(began)
	c.within(3*time.Minute, "all regions confirm writes", func(v regions.Cluster) bool {
		if well(v, false) { // it may fail over only now for what was before
			c.operate(v)
		}
		return well(v, true) && c.Primary() == v.Primary
	})
	return took
}

// operate does what is left to an operator after a failover. A refusal is asked again.
func (c *chaos) operate(v regions.Cluster) {
	var verbs []string
	for _, r := range v.Regions {
		if r.Held {
			verbs = append(verbs, "regions/"+string(r.Name)+"/undrain")
		}
	}
	if v.LastAutomatic != nil && v.LastAutomatic.Acknowledged == nil {
		verbs = append(verbs, "ack")
	}
	for _, verb := range verbs {
		var answer map[string]any
		if _, err := c.client(c.Region(v.Primary).Nodes[0], nil).AdminPost(c.deadline(), verb, map[string]any{"reason": "chaos"}, &answer); err != nil {
			c.say("%s: %v", verb, err)
		}
	}
}

// well tells whether writes are confirmed by a standby and all standbys follow; with all, whether all confirm and none is held.
func well(v regions.Cluster, all bool) bool {
	standbys := 0
	for _, r := range v.Regions {
		d := r.Database
		switch {
		case r.Name == v.Primary || r.Role == "witness":
		case d == nil || r.Silent > 0 || !d.Streaming || d.Upstream != v.Primary || r.Rebuild || all && r.Held:
			return false
		default:
			standbys++
		}
	}
	return v.Operation == nil && v.Durability.Mode == regions.Quorum && len(v.Blocked) == 0 && (!all || len(v.Sync) == standbys)
}

func (c *chaos) within(limit time.Duration, what string, ok func(regions.Cluster) bool) {
	c.Helper()
	var v regions.Cluster
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		seen, complete := c.view()
		if complete {
			v = seen
			if ok(v) {
				return
			}
		}
		if time.Now().After(end) {
			c.Fatalf("still not: %s; the control plane says %+v, its leader is heard: %v", what, v, complete)
		}
	}
}
