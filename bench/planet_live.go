package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// seenResult is how long updates sent to one region took until a live client of another had them.
type seenResult struct {
	from, at regions.ID
	wan      bool
	way      time.Duration   // what the planet delays them: to the primary, and from there to the other region; see seenLive
	took     []time.Duration // from sending to the message
}

// seenLive follows a store at a node of every region, and sends updates one by one to one of them.
func (b *bench) seenLive(ctx context.Context, p *planet.Planet, from *planet.Region, wan bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var watchers errgroup.Group
	defer watchers.Wait() //nolint:errcheck // they end because of cancel
	defer cancel()
	type seen struct {
		region, length int
		at             time.Time
	}
	arrived := make(chan seen, 16)
	for i, r := range p.Regions() {
		c, err := client.New(client.Config{Server: r.Nodes[0].API(), Key: p.AdminKey()})
		if err != nil {
			return err
		}
		live, err := c.NewLive(client.LiveConfig{Stores: []shortline.StoreID{storeID(0)}, Stay: true, On: func(e client.LiveEvent) error {
			length := -1
			if e.Kind == client.LiveChanged {
				length = e.Queue.Length
			} else if e.Kind != client.LiveSnapshot {
				return e.Err
			}
			select {
			case arrived <- seen{i, length, time.Now()}:
			case <-ctx.Done():
			}
			return nil
		}})
		if err != nil {
			return err
		}
		watchers.Go(func() error { return live.Run(ctx) })
	}
	results := make([]seenResult, len(p.Regions()))
	for i, r := range p.Regions() {
		results[i] = seenResult{from: from.ID, at: r.ID, wan: wan}
		if wan {
			results[i].way = (p.RoundTrip(from.ID, p.Primary()) + p.RoundTrip(p.Primary(), r.ID)) / 2
			if r.ID == p.Primary() { // there a commit is seen only once a standby has it; a standby may show it before that is known
				results[i].way += nearestStandby(p)
			}
		}
	}
	// all waits until every region has told of a length.
	all := func(length int, tell func(seen)) error {
		limit := time.After(20 * time.Second)
		for missing := len(results); missing > 0; {
			select {
			case s := <-arrived:
				if s.length == length {
					tell(s)
					missing--
				}
			case <-limit:
				return fmt.Errorf("of %s: not every region has told of length %d", from.ID, length)
			}
		}
		return nil
	}
	if err := all(-1, func(seen) {}); err != nil { // the snapshots
		return err
	}
	sender, err := client.New(client.Config{Server: from.Nodes[0].API(), Key: p.AdminKey()})
	if err != nil {
		return err
	}
	updates := visibleUpdates
	if wan {
		updates = visibleUpdatesWAN
	}
	for i := range updates + 10 {
		length, sent := 1_000+i, time.Now()
		if _, err := sender.SetQueue(ctx, shortline.QueueUpdate{ID: storeID(0), Length: &length}, client.WriteOptions{}); err != nil {
			return fmt.Errorf("update at %s: %w", from.ID, err)
		}
		err := all(length, func(s seen) {
			if i >= 10 { // connections are there by now
				results[s.region].took = append(results[s.region].took, s.at.Sub(sent))
			}
		})
		if err != nil {
			return err
		}
		time.Sleep(visiblePause)
	}
	b.seen = append(b.seen, slices.DeleteFunc(results, func(r seenResult) bool { return r.at == from.ID })...)
	return nil
}

// nearestStandby is the round trip from the primary to the region that confirms its commits first.
func nearestStandby(p *planet.Planet) time.Duration {
	least := time.Hour
	for _, r := range p.Regions() {
		if r.ID != p.Primary() {
			least = min(least, p.RoundTrip(p.Primary(), r.ID))
		}
	}
	return least
}

// writeSeen is a part of writePlanet.
func (b *bench) writeSeen(p printer) {
	if len(b.seen) == 0 {
		return
	}
	p.line("### Seen live in another region")
	p.line("")
	p.line("The same, over WebSockets: from sending an update to one region until a client that follows the store at a node of another has the message. The simulated way is from the region to the primary and from")
	p.line("there to the other one, half a round trip each, and in the primary region itself the round trip to the standby that confirms; what is beyond it is our own.")
	p.line("")
	p.head("sent to", "seen at", "wan", "after p50 (p99)", "simulated way", "beyond it p50 (p99)")
	for _, r := range b.seen {
		beyond := make([]time.Duration, len(r.took))
		for i, d := range r.took {
			beyond[i] = d - r.way
		}
		p.row(string(r.from), string(r.at), fmt.Sprint(r.wan), quantiles(r.took), fmt.Sprint(r.way), quantiles(beyond))
	}
	p.line("")
}
