package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
)

// follower is a live client of a node.
type follower struct {
	node   *planet.Node
	stores []shortline.StoreID
	events chan liveQueue
}

// liveQueue is what live says of a store.
type liveQueue struct {
	ID     shortline.StoreID `json:"id"`
	Length *int              `json:"length"`
}

// follow follows stores at a node until the test ends.
func (w *world) follow(n *planet.Node, stores ...shortline.StoreID) *follower {
	w.Helper()
	query := url.Values{}
	for _, id := range stores {
		query.Add("store", string(id))
	}
	ctx, stop := context.WithCancel(w.Context())
	w.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.API()+"/v1/live/sse?"+query.Encode(), nil)
	w.check(err)
	res, err := w.http.Do(req)
	w.check(err)
	if res.StatusCode != http.StatusOK {
		w.Fatalf("live at %s: %s", n.Name(), res.Status)
	}
	f := &follower{node: n, stores: stores, events: make(chan liveQueue, 1000)}
	lines := bufio.NewScanner(res.Body)
	next := func() bool { // the data of the next event is in lines
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") {
				return true
			}
		}
		return false
	}
	if !next() {
		w.Fatalf("live at %s has no snapshot: %v", n.Name(), lines.Err())
	}
	go func() {
		defer res.Body.Close()
		defer close(f.events)
		for next() {
			var q liveQueue
			if json.Unmarshal([]byte(lines.Text()[len("data: "):]), &q) == nil && q.Length != nil {
				f.events <- q
			}
		}
	}()
	return f
}

// lastBefore writes to the first of the followed stores, waits until that is told, and returns what was told of the last one
// until then; -1: nothing.
func (f *follower) lastBefore(w *world, s *client.Session) int {
	w.Helper()
	mark := f.stores[0]
	before := w.truth().length[mark]
	w.setQueue(f.node, s, mark, before+1)
	last := -1
	for q := range f.events {
		switch {
		case q.ID == mark && *q.Length == before+1:
			return last
		case q.ID == f.stores[len(f.stores)-1]:
			last = *q.Length
		}
	}
	w.Fatalf("live at %s ended", f.node.Name())
	return last
}

// metric is a number that a node tells of itself.
func (w *world) metric(n *planet.Node, name string) float64 {
	w.Helper()
	res, err := w.http.Get(n.Admin() + "/metrics")
	w.check(err)
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			w.check(err)
			return v
		}
	}
	w.Fatalf("%s tells no %s", n.Name(), name)
	return 0
}
