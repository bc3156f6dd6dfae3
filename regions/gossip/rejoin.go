package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// rejoin looks for the others as long as the node runs: memberlist gives up on a node that was away for long, so the sides
// of a network that was cut in two would stay apart for ever.
func (g *Gossip) rejoin(ctx context.Context, ml *memberlist.Memberlist) error {
	failures := 0
	for {
		targets := g.lost(ctx)
		joined := 0
		for _, addr := range targets {
			if ctx.Err() != nil {
				return nil
			}
			if n, err := ml.Join([]string{addr}); n > 0 {
				joined++
				g.log.Debug("exchanged with a node that was not there", "addr", addr)
			} else {
				g.log.Debug("a node cannot be joined", "addr", addr, "err", err)
			}
		}
		switch {
		case len(targets) == 0 || joined > 0:
			failures = 0
		default:
			if failures++; failures == 3 && g.alive.Load() <= 1 {
				g.log.Warn("no seed answers; do they run, and are --deployment and the gossip key the same there?", "seeds", g.cfg.Seeds)
			}
		}
		wait := g.cfg.Rejoin/2 + rand.N(g.cfg.Rejoin/2+1)
		if g.alive.Load() <= 1 && failures < 5 {
			wait = min(wait, time.Second) // just started: find somebody soon
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// maxLostTried bounds the dead nodes that are tried in one round; which ones is chance.
const maxLostTried = 5

// lost returns the seeds that are not among the nodes alive, and some nodes that were.
func (g *Gossip) lost(ctx context.Context) []string {
	g.mu.Lock()
	here := map[string]bool{}
	var dead []string
	for _, n := range g.nodes {
		if n.member {
			here[n.addr] = true
		} else if n.addr != "" && !n.left {
			dead = append(dead, n.addr)
		}
	}
	g.mu.Unlock()
	if a := g.Addr(); a != "" {
		here[a] = true
	}
	rand.Shuffle(len(dead), func(i, j int) { dead[i], dead[j] = dead[j], dead[i] })
	var out []string
	for _, addr := range append(g.seedAddrs(ctx), dead[:min(len(dead), maxLostTried)]...) {
		if !here[addr] && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// seedAddrs looks the seeds up anew each time: names move.
func (g *Gossip) seedAddrs(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var out []string
	for _, s := range g.cfg.Seeds {
		host, port, err := splitAddr(s)
		if err != nil {
			continue // refused by Validate
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			g.log.Debug("a seed has no address", "seed", s, "err", err)
			continue
		}
		for _, ip := range ips {
			out = append(out, net.JoinHostPort(ip, strconv.Itoa(port)))
		}
	}
	return out
}
