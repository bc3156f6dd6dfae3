package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/internal/demo"
	"github.com/shortline/shortline/replication"
)

// demoStore is the demo store nearest to Times Square, for the commands that newcomers are shown.
const demoStore = "kc-03576"

// loadDemo puts the demo stores into a store that is empty.
func (n *node) loadDemo(ctx context.Context) error {
	empty := true
	err := n.eachStore(ctx, func(shortline.Store) bool {
		empty = false
		return false
	})
	if err != nil || !empty {
		return err
	}
	stores, err := demo.Stores()
	if err != nil {
		return fmt.Errorf("read the demo stores: %w", err)
	}
	start := time.Now()
	var last replication.Token
	const chunk = 500
	for first := 0; first < len(stores); first += chunk {
		var items []replication.Item
		for i := first; i < min(first+chunk, len(stores)); i++ {
			items = append(items, replication.Item{Put: &stores[i]})
		}
		if _, last, err = n.router.Submit(ctx, replication.Write{Items: items}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("store the demo stores: %w", err)
		}
	}
	if err := n.feed.Wait(ctx, last); err != nil {
		return nil // stopped meanwhile
	}
	n.log.Info("demo stores loaded", "stores", len(stores), "seconds", time.Since(start).Seconds())
	return nil
}

// eachStore calls each with every store in the database, in order of their ids, until it returns false.
func (n *node) eachStore(ctx context.Context, each func(shortline.Store) bool) error {
	const chunk = 1000
	for after := shortline.StoreID(""); ; {
		rows, err := n.store.Snapshot(ctx, after, chunk)
		if err != nil {
			return fmt.Errorf("read the stores: %w", err)
		}
		for i := range rows {
			if !rows[i].Deleted && !each(rows[i].Store) {
				return nil
			}
		}
		if len(rows) < chunk {
			return nil
		}
		after = rows[len(rows)-1].Store.ID
	}
}

// runSimulator moves the queues of the stores that there are now until ctx ends.
func (n *node) runSimulator(ctx context.Context) error {
	var stores []shortline.Store
	err := n.eachStore(ctx, func(st shortline.Store) bool {
		stores = append(stores, st)
		return true
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case len(stores) == 0:
		n.log.Warn("there is nothing to simulate: no stores; import some, or start with --demo")
		return nil
	}
	simulator, err := demo.New(demo.Config{Rate: n.s.simulateRate, Seed: uint64(time.Now().UnixNano()), Log: n.log}, stores, n.report)
	if err != nil {
		return err
	}
	n.log.Info("simulating queues", "stores", len(stores), "updates_per_second", n.s.simulateRate)
	return simulator.Run(ctx)
}

// pastOfDemo reads the past of stores, and lets those of the demo have one that is longer than the demo: before their first real hour
// it is invented.
type pastOfDemo struct {
	real     edge.Rollups
	invented *demo.Past
}

// pastOf is the past of a node's stores.
func (s *serveSettings) pastOf(store replication.Store) (edge.Rollups, error) {
	if !s.demoPast && !(s.demo && s.simulate) {
		return store, nil
	}
	stores, err := demo.Stores()
	if err != nil {
		return nil, fmt.Errorf("read the demo stores: %w", err)
	}
	past, err := demo.NewPast(stores, time.Now())
	if err != nil {
		return nil, err
	}
	return &pastOfDemo{store, past}, nil
}

// Rollups implements edge.Rollups.
func (p *pastOfDemo) Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]shortline.Rollup, error) {
	real, err := p.real.Rollups(ctx, id, from, to)
	if err != nil {
		return nil, err
	}
	if len(real) > 0 {
		to = real[0].Hour
	}
	return append(p.invented.Rollups(id, from, to), real...), nil
}

// report writes simulated updates as any client's; a store that is gone is no error.
func (n *node) report(ctx context.Context, updates []shortline.QueueUpdate) error {
	items := make([]replication.Item, len(updates))
	for i := range updates {
		items[i].Queue = &updates[i]
	}
	_, _, err := n.router.Submit(ctx, replication.Write{Items: items})
	if errors.Is(err, replication.ErrClosed) {
		return context.Canceled
	}
	return err
}
