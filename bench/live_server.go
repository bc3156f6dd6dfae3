package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// liveServer is the node's own server and hub over invented stores, whose queues it changes as often as it is told to.
type liveServer struct {
	data      *dataset
	view      replication.View
	revs      []uint64
	rate, hot atomic.Int64 // updates a second, of any store but the first, and of the first
	to        atomic.Pointer[string]
	values    []atomic.Int64 // the length of each queue; -1: never set
}

// Elsewhere is part of edge.Elsewhere.
func (s *liveServer) Elsewhere(*geo.Point) []edge.LiveRegion {
	if to := s.to.Load(); to != nil {
		return []edge.LiveRegion{{Name: "other", URL: *to}}
	}
	return nil
}

func serveLive(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("serve-live", flag.ContinueOnError)
	n := f.Int("stores", 10_000, "how many stores")
	if err := f.Parse(args); err != nil {
		return err
	}
	data, err := newDataset(*n)
	if err != nil {
		return err
	}
	catalog := new(edge.Catalog)
	s := &liveServer{data: data, view: catalog.Begin(), revs: make([]uint64, *n), values: make([]atomic.Int64, *n)}
	data.fill(s.view, time.Now())
	catalog.Install(s.view)
	for i := range s.values {
		s.values[i].Store(-1)
	}
	source := newSource(data)
	server, err := edge.New(edge.Config{DetailsBytes: 64 << 20}, edge.Deps{Catalog: catalog, Feed: source, Writer: source, Details: source,
		Elsewhere: s, Log: slog.New(slog.NewTextHandler(stderr, nil))})
	if err != nil {
		return err
	}
	var listeners [3]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	control := &http.Server{Handler: http.HandlerFunc(s.control)}
	group, ctx := errgroup.WithContext(ctx)
	stopped := make(chan struct{})
	group.Go(func() error { return source.follow(ctx) })
	group.Go(func() error { s.update(stopped); return nil })
	group.Go(func() error {
		defer close(stopped)
		defer control.Close()
		return server.Run(ctx, listeners[0], listeners[1])
	})
	group.Go(func() error {
		if err := control.Serve(listeners[2]); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	if _, err := fmt.Fprintf(stdout, "ready %s %s %s\n", listeners[0].Addr(), listeners[1].Addr(), listeners[2].Addr()); err != nil {
		return err
	}
	return group.Wait()
}

// control sets the rates and where to send clients, and tells the number of goroutines, the memory in use, or all values.
func (s *liveServer) control(w http.ResponseWriter, r *http.Request) {
	for name, v := range map[string]*atomic.Int64{"rate": &s.rate, "hot": &s.hot} {
		if n, err := strconv.Atoi(r.FormValue(name)); err == nil {
			v.Store(int64(n))
		}
	}
	if to := r.FormValue("to"); to != "" {
		s.to.Store(&to)
	}
	if r.FormValue("values") != "" {
		all := make([]int64, len(s.values))
		for i := range all {
			all[i] = s.values[i].Load()
		}
		_ = json.NewEncoder(w).Encode(all)
		return
	}
	told := map[string]int{"goroutines": runtime.NumGoroutine()}
	if r.FormValue("memory") != "" { // what is held, without what waits to be collected
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes with the second one
		runtime.ReadMemStats(&m)
		told["memory"] = int(m.HeapAlloc + m.StackInuse)
	}
	_ = json.NewEncoder(w).Encode(told)
}

// update applies changes as a feed does, until it is stopped. The length of a queue is the time, in microseconds within the
// second: whoever gets it can tell how old it is.
func (s *liveServer) update(stopped <-chan struct{}) {
	const tick = 5 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var owed, owedHot float64
	var changes []shortline.Change
	for {
		select {
		case <-stopped:
			return
		case <-ticker.C:
		}
		owed += float64(s.rate.Load()) * tick.Seconds()
		owedHot += float64(s.hot.Load()) * tick.Seconds()
		changes = changes[:0]
		for ; owed >= 1; owed-- {
			changes = append(changes, s.change(1+rand.IntN(len(s.revs)-1)))
		}
		for ; owedHot >= 1; owedHot-- {
			changes = append(changes, s.change(0))
		}
		s.view.Apply(changes)
	}
}

func (s *liveServer) change(i int) shortline.Change {
	now := time.Now()
	s.revs[i]++
	length := int(now.UnixMicro() % 1_000_000)
	s.values[i].Store(int64(length))
	return shortline.Change{Kind: shortline.QueueSet, Subject: string(storeID(i)), Rev: 1<<20 + s.revs[i], At: now,
		Queue: &shortline.Queue{Length: length, UpdatedAt: now.UTC().Truncate(time.Millisecond), Rev: 1<<20 + s.revs[i]}}
}
