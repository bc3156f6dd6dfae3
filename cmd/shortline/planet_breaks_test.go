package main

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// TestPlanetBreaks does to three regions what takes networks or disks of their own, each under a load that is accounted for. After each the
// regions come to rest by themselves. What is drawn at random is TestChaos.
func TestPlanetBreaks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three regions")
	}
	planet.NeedSeparable(t)
	w := startWorld(t, 8, planet.Options{Nodes: 1, Separate: true, DatabaseBytes: 400 << 20})
	for _, part := range []struct {
		name string
		test func(*chaos, *steadyLoad)
		long bool // only with SHORTLINE_TEST_LONG
	}{
		{"the primary region is cut off", (*chaos).testCutOff, false},
		{"the primary is not heard", func(c *chaos, l *steadyLoad) { c.testOneWay(l, true) }, false},
		{"the primary hears nobody", func(c *chaos, l *steadyLoad) { c.testOneWay(l, false) }, true},
		{"PostgreSQL of the primary stands still", (*chaos).testFrozenServer, false},
		{"the raft leader stands still", (*chaos).testFrozenLeader, true}, // a machine without time to spare lets the lease lapse by itself
		{"the disk of the primary is full", (*chaos).testFullDisk, true},
	} {
		t.Run(part.name, func(t *testing.T) {
			if part.long && !longTests {
				t.Skip("takes longer; set SHORTLINE_TEST_LONG=1")
			}
			c := &chaos{world: w.part(t), log: w.out, began: time.Now()}
			c.rest()
			c.zero(c.Region(c.Primary()).Nodes[0])
			loaded := *c.world
			loaded.stores = w.stores[1:] // the first is for what a test writes itself
			l := loaded.load(w.Nodes(), true)
			c.eventually("writes are acknowledged", func() bool { return l.count() > 30 })
			part.test(c, l)
			c.say("at rest after %v", c.rest().Round(10*time.Millisecond))
			before := l.count()
			c.eventually("writes go on", func() bool { return l.count() > before+30 })
			l.settle(part.name)
		})
	}
}

// moves waits until another region than old takes writes, and acknowledges them.
func (c *chaos) moves(old regions.ID, l *steadyLoad) {
	c.Helper()
	c.within(time.Minute, "another region than "+string(old)+" takes writes", func(v regions.Cluster) bool { return v.Primary != old && v.Operation == nil })
	before := l.count()
	c.eventually("writes go on", func() bool { return l.count() > before+30 })
}

// acknowledged is how many of some writes at a node are acknowledged within a time.
func (c *chaos) acknowledged(n *planet.Node, within time.Duration) int64 {
	ctx, cancel := context.WithTimeout(c.Context(), within)
	defer cancel()
	var all sync.WaitGroup
	var done atomic.Int64
	for length := range 4 {
		all.Go(func() {
			if _, err := c.client(n, nil).SetQueue(ctx, shortline.QueueUpdate{ID: c.stores[0], Length: &length}, client.WriteOptions{}); err == nil {
				done.Add(1)
			}
		})
	}
	all.Wait()
	return done.Load()
}

// Nothing gets from or to the primary region: another takes over, the cut-off side acknowledges nothing any more, and once the network is whole it
// follows by itself, held, after it has saved what only it had.
func (c *chaos) testCutOff(l *steadyLoad) {
	old := c.Region(c.Primary())
	if n := c.acknowledged(old.Nodes[0], time.Minute); n != 4 {
		c.Fatalf("before anything happens %d of 4 writes are acknowledged", n)
	}
	c.check(c.Drop(old.ID, "", planet.Everything))
	c.moves(old.ID, l)
	if n := c.acknowledged(old.Nodes[0], 3*time.Second); n > 0 {
		c.Errorf("%s is cut off, and acknowledges %d writes", old.ID, n)
	}
	c.check(c.Mend())
	c.within(time.Minute, "the old primary follows, held", func(v regions.Cluster) bool {
		return well(v, false) && c.held(old.ID)
	})
	if files, err := old.Postgres.Lost(); err != nil || len(files) == 0 {
		c.Errorf("what only %s had is in no file: %v", old.ID, err)
	}
}

// One direction is cut: either nobody hears the primary region, or it hears nobody. Then there is still one writer.
func (c *chaos) testOneWay(_ *steadyLoad, mute bool) {
	primary := c.Primary()
	for _, r := range c.Regions() {
		switch {
		case r.ID == primary:
		case mute:
			c.check(c.Drop(primary, r.ID, planet.Everything))
		default:
			c.check(c.Drop(r.ID, primary, planet.Everything))
		}
	}
	c.within(time.Minute, "another region takes writes", func(v regions.Cluster) bool { return v.Primary != primary && v.Operation == nil })
	c.check(c.Mend())
}

// All of the primary's PostgreSQL stands still, its nodes do not; when it goes on it believes that it is the primary.
func (c *chaos) testFrozenServer(l *steadyLoad) {
	old := c.Region(c.Primary())
	c.check(old.Postgres.FreezeServer())
	c.moves(old.ID, l)
	c.check(old.Postgres.ThawServer())
}

// A frozen leader of the control plane makes no failover, whatever else it does.
func (c *chaos) testFrozenLeader(l *steadyLoad) {
	v, _ := c.view()
	leader := c.nodeCalled(v.Leader)
	if strings.HasPrefix(leader.Name(), string(v.Primary)) {
		c.Fatalf("%s leads in the primary region", leader.Name())
	}
	c.check(leader.Pause())
	c.within(time.Minute, "another leads", func(n regions.Cluster) bool { return n.Leader != v.Leader })
	before := l.count()
	c.eventually("writes go on", func() bool { return l.count() > before+30 })
	time.Sleep(7 * time.Second) // past what a leader that hears nothing suspects
	c.check(leader.Resume())
	c.rest()
	if n, _ := c.view(); n.PrimaryEpoch != v.PrimaryEpoch {
		c.Errorf("the primary moved from %s in epoch %d to %s in epoch %d", v.Primary, v.PrimaryEpoch, n.Primary, n.PrimaryEpoch)
	}
}

func (c *chaos) nodeCalled(name string) *planet.Node {
	for _, n := range c.Nodes() {
		if n.Name() == name {
			return n
		}
	}
	c.Fatalf("no node is called %q", name)
	return nil
}

// There is no room for a row, and then none for the log: the first is a refusal that says so, the second another primary. Both end when there is
// room.
func (c *chaos) testFullDisk(l *steadyLoad) {
	old := c.Region(c.Primary())
	c.check(old.Postgres.Fill())
	c.eventually("the log says why nothing is written", func() bool { return strings.Contains(c.out.String(), "the server's disk is full") })
	c.check(old.Postgres.Clear())
	before := l.count()
	c.eventually("writes go on", func() bool { return l.count() > before+30 })

	c.check(old.Postgres.Fill())
	c.eventually("the server does not go on", func() bool { // its log needs a new file
		_, err := old.Postgres.Rows(c.deadline(), "shortline", "SELECT pg_switch_wal()")
		return err != nil
	})
	c.moves(old.ID, l)
	c.check(old.Postgres.Clear())
}
