package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// updateResults are of readers of the whole catalog through its handler, without a network, while a writer applies
// changes.
type updateResults struct{ rows []updateResult }

type updateResult struct {
	name     string
	alone    float64 // queries a second and core
	updated  float64
	kept     float64 // median of the pairs
	least    float64 // of the pairs
	written  float64 // moves a second that were applied, and as many queues
	perWrite time.Duration
}

func (b *bench) measureUpdates(ctx context.Context) error {
	catalog := new(edge.Catalog)
	view := catalog.Begin()
	b.say("reads while updating: filling a catalog")
	b.data.fill(view, time.Now())
	catalog.Install(view)
	source := newSource(b.data)
	server, err := newServer(catalog, source, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return err
	}
	w := &writer{data: b.data, view: view, source: source}
	for _, kind := range []struct{ name, fields string }{{"ids only (the search and little else)", "&fields=id"}, {"whole answers", ""}} {
		requests, err := b.requests(kind.fields)
		if err != nil {
			return err
		}
		r, err := b.readWhileUpdating(ctx, server.Handler(), requests, w)
		if err != nil {
			return err
		}
		r.name = kind.name
		b.updated.rows = append(b.updated.rows, r)
		b.say("reads while updating, %s: %.0f/s alone, %.0f/s updated, kept %.2f (least %.2f)", r.name, r.alone, r.updated, r.kept, r.least)
	}
	return nil
}

func (b *bench) requests(extra string) ([]*http.Request, error) {
	out := make([]*http.Request, 1<<14)
	for i, q := range b.near[:len(out)] {
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1"+path(q.at, "radius=5000&limit=5"+extra), nil)
		if err != nil {
			return nil, fmt.Errorf("make a request: %w", err)
		}
		r.RemoteAddr = "127.0.0.1:1" // whose requests are not counted against a limit
		out[i] = r
	}
	return out, nil
}

func path(at geo.Point, rest string) string {
	return fmt.Sprintf("/v1/nearby?lat=%.6f&lng=%.6f&%s", at.Lat, at.Lng, rest)
}

func (b *bench) readWhileUpdating(ctx context.Context, h http.Handler, requests []*http.Request, w *writer) (updateResult, error) {
	var r updateResult
	readFor(h, requests, b.updateTurn, nil) // warm
	var ratios, alone, updated []float64
	writes, spent, while := w.moves, w.spent, time.Duration(0)
	for range b.turns {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		a := readFor(h, requests, b.updateTurn, nil)
		u := readFor(h, requests, b.updateTurn, func(elapsed time.Duration) { w.upTo(elapsed, b.updates) })
		w.turn, while = 0, while+w.elapsed
		if a == 0 || u == 0 {
			return r, fmt.Errorf("the handler did not answer a query of this benchmark with 200")
		}
		alone, updated, ratios = append(alone, a), append(updated, u), append(ratios, u/a)
	}
	r.alone, r.updated, r.kept, r.least = median(alone), median(updated), median(ratios), slices.Min(ratios)
	if n := w.moves - writes; n > 0 {
		r.written = float64(n) / while.Seconds()
		r.perWrite = (w.spent - spent) / time.Duration(2*n)
	}
	return r, nil
}

// writer applies changes as a feed does: whatever is due, every five milliseconds, in one call.
type writer struct {
	data   *dataset
	view   replication.View
	source *source

	moves    int           // in all
	turn     int           // in this turn
	elapsed  time.Duration // of this turn, at the last call
	queueRev uint64
	spent    time.Duration
	changes  []shortline.Change
}

// upTo applies the moves that are due after a time, each with an update of another store's queue.
func (w *writer) upTo(elapsed time.Duration, perSecond int) {
	w.elapsed = elapsed
	due := int(elapsed.Seconds() * float64(perSecond))
	w.changes = w.changes[:0]
	now := time.Now().UTC().Truncate(time.Millisecond)
	for ; w.turn < due; w.turn++ {
		r := dice(w.moves, forMoves)
		w.moves++
		i := r.IntN(len(w.data.points))
		store := w.data.store(i)
		at := offset(w.data.points[i], r.NormFloat64()*300, r.NormFloat64()*300)
		store.Lat, store.Lng = at.Lat, at.Lng
		rev := uint64(w.source.revs[i].Add(1)) + 1
		w.queueRev++
		w.changes = append(w.changes,
			shortline.Change{Kind: shortline.StorePut, Rev: rev, Subject: string(store.ID), At: now, Store: &store},
			shortline.Change{Kind: shortline.QueueSet, Rev: w.queueRev + 1, Subject: string(storeID(r.IntN(len(w.data.points)))), At: now,
				Queue: &shortline.Queue{Length: r.IntN(20), UpdatedAt: now, Rev: w.queueRev + 1}})
	}
	if len(w.changes) > 0 {
		start := time.Now()
		w.view.Apply(w.changes)
		w.spent += time.Since(start)
	}
}

// readFor asks with as many goroutines as there are processors, each as fast as it can, and returns the queries a second
// and processor; 0 if one was not answered with 200. write, if set, is called every five milliseconds.
func readFor(h http.Handler, requests []*http.Request, d time.Duration, write func(time.Duration)) float64 {
	runtime.GC()
	var total atomic.Int64
	var stop, failed atomic.Bool
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			out := &discard{header: http.Header{}}
			n := 0
			for at := w * len(requests) / workers; !stop.Load(); at, n = at+1, n+1 {
				clear(out.header)
				out.status = 0
				h.ServeHTTP(out, requests[at%len(requests)])
				if out.status != http.StatusOK {
					failed.Store(true)
					break
				}
			}
			total.Add(int64(n))
		})
	}
	for time.Since(began) < d {
		time.Sleep(5 * time.Millisecond)
		if write != nil {
			write(time.Since(began))
		}
	}
	stop.Store(true)
	wg.Wait()
	if failed.Load() {
		return 0
	}
	return float64(total.Load()) / time.Since(began).Seconds() / float64(workers)
}

// discard is a ResponseWriter that keeps the status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
