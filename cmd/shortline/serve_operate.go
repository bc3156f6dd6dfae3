package main

import (
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/regions/failover"
)

// operateSettings say what happens by itself.
type operateSettings struct {
	practice     string
	degradeAfter time.Duration
}

func (s *operateSettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.practice, "practice", "", "when to switch over for practice, five fields of `cron` in UTC such as \"0 4 * * 2\"; the pause is in the history; default: never")
	f.DurationVar(&s.degradeAfter, "degrade-after", 0, "after how long without its last standby a primary goes on with writes that nobody confirms; default: 15s with a single standby region, else never; negative: never")
}

// operating is what operators' verbs need of the plane.
type operating struct {
	desk *failover.Desk
	view atomic.Pointer[func() *regions.View] // of gossip, once there is one
}

// newController makes this voter's controller.
func (p *plane) newController(cfg failover.Config, deps failover.Deps) (err error) {
	cfg.Practice, cfg.Policy.DegradeAfter = p.s.practice, p.s.degradeAfter
	deps.Room = p.operating.room
	p.controller, err = failover.New(cfg, deps)
	return err
}

// openDesk takes verbs at this node, and at a voter those of the others.
func (p *plane) openDesk() {
	leader := func() (addr, name string, ok bool) {
		id, _ := p.node.Leader()
		addr = p.s.controlVoters[string(id)]
		return addr, string(id), addr != ""
	}
	p.operating.desk = failover.NewDesk(p.controller, p.node, leader, p.client)
	if p.controller == nil {
		return
	}
	for path, h := range p.operating.desk.Handlers(p.node.Verifier()) {
		p.node.Handle(path, h)
	}
}

// room tells what a region bears and what the others have left, by gossip.
func (o *operating) room(id regions.ID) (bears, room float64, ok bool) {
	view := o.view.Load()
	if view == nil {
		return 0, 0, false
	}
	v := (*view)()
	place := v.Place(id)
	if place == nil || place.Capacity == 0 {
		return 0, 0, false
	}
	return place.Load * place.Capacity, v.Headroom(id, regions.SpillLimit), true
}

// operator is nil where there is one region.
func (n *node) operator() edge.Operator {
	p := n.control.plane
	if p == nil {
		return nil
	}
	if view := n.view(); view != nil {
		p.operating.view.Store(&view)
	}
	return p.operating.desk
}
