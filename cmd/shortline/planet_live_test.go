package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
)

// liveWatcher is what a live client of one node was told.
type liveWatcher struct {
	name    string
	server  string // it was told by last; guarded by mu, like all below
	mu      sync.Mutex
	length  map[shortline.StoreID]int
	back    []string // what went back
	area    []shortline.StoreID
	waits   map[time.Time]int // by the time of the report
	changed int
}

// watch follows stores, or an area, until the test ends.
func (w *world) watch(n *planet.Node, cfg client.LiveConfig) *liveWatcher {
	w.Helper()
	o := &liveWatcher{name: n.Name(), length: map[shortline.StoreID]int{}, waits: map[time.Time]int{}}
	note := func(q client.Queue) {
		if !q.Reported() {
			return
		}
		if q.Length < o.length[q.ID] {
			o.back = append(o.back, fmt.Sprintf("%s from %d to %d", q.ID, o.length[q.ID], q.Length))
		}
		o.length[q.ID] = q.Length
		o.waits[q.UpdatedAt] = q.WaitS
	}
	cfg.On = func(e client.LiveEvent) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		switch e.Kind {
		case client.LiveSnapshot:
			o.server = e.Server
			if e.Area {
				o.area = nil
				for _, st := range e.Stores {
					o.area = append(o.area, st.ID)
				}
			}
			for _, st := range e.Stores {
				note(st.Queue)
			}
		case client.LiveChanged:
			o.changed++
			note(e.Queue)
		}
		return nil
	}
	live, err := w.client(n, new(client.Session)).NewLive(cfg)
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- live.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			w.Errorf("the live client of %s: %v", o.name, err)
		}
	})
	return o
}

// look reads under the lock.
func (o *liveWatcher) look(f func() bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return f()
}

// A write in any region is told live in all of them, nothing ever goes back, and all say the same wait of the same report; a store that
// opens or closes is told to those who follow a place.
func (w *world) testLive() {
	id := w.stores[20] // the parts before leave the first ones in a state of their own
	w.setQueue(w.Nodes()[0], new(client.Session), id, 10)
	var watchers, places []*liveWatcher
	for _, n := range w.Nodes() {
		watchers = append(watchers, w.watch(n, client.LiveConfig{Stores: []shortline.StoreID{id}, Stay: true}))
		places = append(places, w.watch(n, client.LiveConfig{Area: &client.LiveArea{Lat: 10, Lng: 10, Radius: "1km", Limit: 2}, Stay: true}))
	}
	told := func(length int) {
		w.Helper()
		for _, o := range watchers {
			w.eventually(fmt.Sprintf("%s has told of %d", o.name, length), func() bool { return o.look(func() bool { return o.length[id] == length }) })
		}
	}
	told(10)
	const updates = 60
	session := new(client.Session) // one writer, in all regions
	for i := range updates {       // three more each time: people must have been served meanwhile, so that a pace is learned
		w.setQueue(w.Nodes()[i%len(w.Nodes())], session, id, 10+3*(i+1))
	}
	told(10 + 3*updates)
	waits := map[time.Time]int{}
	for _, o := range watchers {
		o.look(func() bool {
			if len(o.back) > 0 {
				w.Errorf("%s: %v", o.name, o.back)
			}
			if o.changed == 0 {
				w.Errorf("%s told of nothing but snapshots", o.name)
			}
			for at, wait := range o.waits {
				if other, ok := waits[at]; ok && other != wait {
					w.Errorf("of the report of %v one node says a wait of %d s, %s %d s", at, other, o.name, wait)
				}
				waits[at] = wait
			}
			return true
		})
	}

	place := func(want ...shortline.StoreID) {
		w.Helper()
		for _, o := range places {
			w.eventually(fmt.Sprintf("%s has the stores %v near the place", o.name, want), func() bool {
				return o.look(func() bool { return slices.Equal(o.area, want) })
			})
		}
	}
	far := w.client(w.Region("ap-southeast").Nodes[0], new(client.Session))
	for _, st := range []shortline.Store{{ID: "place-1", Name: "One", Lat: 10.001, Lng: 10}, {ID: "place-2", Name: "Two", Lat: 10.002, Lng: 10}, {ID: "place-3", Name: "Three", Lat: 10.003, Lng: 10}} {
		_, err := far.PutStore(w.deadline(), st)
		w.check(err)
	}
	place("place-1", "place-2")
	w.check(far.DeleteStore(w.deadline(), "place-1"))
	place("place-2", "place-3")
	for _, id := range []shortline.StoreID{"place-2", "place-3"} {
		w.check(far.DeleteStore(w.deadline(), id))
	}
	place()
}

// A live client whose node stops goes on at another one, has the newest value there, and never tells an older value than before, though
// the new node may be some milliseconds behind the former one.
func (w *world) testLiveMoves() {
	id, node := w.stores[21], w.Region("eu-west").Nodes[1]
	other := w.Region("us-east").Nodes[0]
	w.setQueue(other, new(client.Session), id, 1)
	o := w.watch(node, client.LiveConfig{Stores: []shortline.StoreID{id}})
	w.eventually("the client has the snapshot", func() bool { return o.look(func() bool { return o.length[id] == 1 }) })
	length := 1
	moved := make(chan error, 1)
	go func() { moved <- node.Stop() }()
	for left := false; !left; {
		length++
		w.setQueue(other, new(client.Session), id, length)
		select {
		case err := <-moved:
			w.check(err)
			left = true
		default:
		}
	}
	w.eventually("the client goes on elsewhere and has the newest value", func() bool {
		return o.look(func() bool { return o.server != node.API() && o.length[id] == length })
	})
	o.look(func() bool {
		if len(o.back) > 0 {
			w.Errorf("%s: %v", o.name, o.back)
		}
		return true
	})
	w.check(node.Start(w.deadline()))
}
