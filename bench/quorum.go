package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/shortline/shortline/internal/planet"
)

// quorumLoads are clients that send one update a request to a node of the primary region.
var quorumLoads = [...]int{1, 64, 1000}

// quorumResult is how they fared where a standby of another region confirms each commit.
type quorumResult struct {
	wan     bool
	clients int
	load    load
	nearest time.Duration // round trip between the primary and the nearest standby; 0 without wan
}

// quorumGrace is what an update may take beyond the round trip to the nearest standby.
const quorumGrace = 25 * time.Millisecond

func (b *bench) measureQuorum(ctx context.Context, p *planet.Planet, wan bool) error {
	if _, err := exec.LookPath("wrk"); err != nil {
		b.say("writes with quorum: skipped: %v", err)
		return nil
	}
	var primary *planet.Region
	nearest := time.Duration(0)
	for _, r := range p.Regions() {
		if r.ID == p.Primary() {
			primary = r
		} else if trip := p.RoundTrip(p.Primary(), r.ID); wan && (nearest == 0 || trip < nearest) {
			nearest = trip
		}
	}
	api := primary.Nodes[0].API()
	if err := bringIn(ctx, api, p.AdminKey()); err != nil {
		return err
	}
	for i, clients := range quorumLoads {
		l, err := writeLoad(ctx, api, p.AdminKey(), clients, 1, b.turn, i)
		if err != nil {
			return err
		}
		b.say("writes with quorum, wan %v: %d clients: %.0f a second, p50 %v, p99 %v, %d failed", wan, clients, l.rate(), l.p50, l.p99, l.failed)
		b.quorum = append(b.quorum, quorumResult{wan, clients, l, nearest})
	}
	return nil
}

func (b *bench) writeQuorum(p printer) {
	if len(b.quorum) == 0 {
		return
	}
	p.line("### Writes with quorum commit")
	p.line("")
	p.line("Single updates to %s stores at one node of the primary region, each acknowledged once the standby of another region has it on disk; three regions of two nodes, `fsync` on, everything on this machine. "+
		"For a client: half of its updates within one round trip to the nearest standby and %v.", thousands(writeStores), quorumGrace)
	p.line("")
	p.head("clients", "wan", "updates a second", "p50", "p99", "failed", "nearest round trip", "p50 within it and 25 ms")
	for _, r := range b.quorum {
		p.row(thousands(r.clients), fmt.Sprint(r.wan), thousands(int(r.load.rate())), millis(r.load.p50), millis(r.load.p99), fmt.Sprint(r.load.failed),
			fmt.Sprint(r.nearest), met(r.load.p50 <= r.nearest+quorumGrace))
	}
	p.line("")
}
