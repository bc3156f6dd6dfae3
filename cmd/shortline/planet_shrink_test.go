package main

import (
	"slices"
	"testing"

	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// Two regions and a witness: the primary region dies, the other takes over with the witness' vote, and confirms alone; nothing is
// lost, and the old one comes back behind it.
func TestPlanetOfTwoRegionsFailsOver(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two regions")
	}
	w := startWorld(t, 8, planet.Options{Nodes: 1, Regions: []regions.ID{"us-east", "eu-west"}})
	if w.Witness() == nil {
		t.Fatal("there is no witness")
	}
	w.zero(w.Region("eu-west").Nodes[0])
	w.eventually("eu-west confirms writes", w.durable)
	l := w.steady(w.Region("eu-west").Nodes)
	w.eventually("writes are acknowledged", func() bool { return l.count() > 30 })
	w.dies("us-east")
	w.eventually("eu-west takes writes", func() bool { return w.Primary() == "eu-west" })
	before := l.count()
	w.eventually("writes go on", func() bool { return l.count() > before+30 })
	l.settle("two regions")

	w.check(w.Region("us-east").Postgres.Start(w.deadline()))
	w.check(w.Region("us-east").Nodes[0].Start(w.deadline()))
	w.eventually("us-east follows and confirms writes", func() bool { return w.held("us-east") && w.follows("us-east") && w.durable() })
}

// A standby is lost: the set of those who confirm writes shrinks by itself, and the primary may be lost after that.
func TestPlanetLosesAStandbyThenThePrimary(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three regions")
	}
	w := startWorld(t, 8, planet.Options{Nodes: 1})
	w.zero(w.Region("eu-west").Nodes[0])
	w.eventually("both standbys confirm writes", func() bool { return w.durable() && len(w.syncSet()) == 2 })
	l := w.steady([]*planet.Node{w.Region("eu-west").Nodes[0], w.Region("ap-southeast").Nodes[0]})
	w.eventually("writes are acknowledged", func() bool { return l.count() > 30 })
	w.Region("ap-southeast").Postgres.Kill()
	before := l.count()
	w.eventually("the sync set shrinks by itself", func() bool { return slices.Equal(w.syncSet(), []regions.ID{"eu-west"}) && w.durable() })
	w.eventually("writes go on without the standby", func() bool { return l.count() > before+30 })
	w.dies("us-east")
	w.eventually("eu-west takes writes", func() bool { return w.Primary() == "eu-west" })
	before = l.count()
	w.eventually("writes go on", func() bool { return l.count() > before+30 })
	l.settle("a standby and the primary")
}

// dies ends all processes of a region.
func (w *world) dies(id regions.ID) {
	r := w.Region(id)
	for _, n := range r.Nodes {
		n.Kill()
	}
	r.Postgres.Kill()
}

// syncSet are the standbys of which any one may have confirmed a write.
func (w *world) syncSet() []regions.ID {
	c, err := w.cluster()
	if err != nil {
		return nil
	}
	return c.Sync
}
