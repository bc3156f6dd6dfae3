package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/replication"
)

// serveCanned answers every nearby query with the bytes of a file: a bare echo with one route, no middleware, and the
// standard library's server as it comes. That is as cheap as an answer on this stack can be.
func serveCanned(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("serve-canned", flag.ContinueOnError)
	file := f.String("body", "", "file with the answer")
	if err := f.Parse(args); err != nil {
		return err
	}
	body, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	e := echo.New()
	length := fmt.Sprint(len(body))
	e.GET("/v1/nearby", func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentLength, length) // a long answer would be chunked without it, which costs more
		return c.JSONBlob(http.StatusOK, body)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: e}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	if _, err := fmt.Fprintf(stdout, "ready %s\n", l.Addr()); err != nil {
		return err
	}
	return group.Wait()
}

// serveNearby is the node's own handler, server and catalog, with the invented stores instead of a database: the details
// cache holds all of them once they were asked for, so what is measured is the steady state.
func serveNearby(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("serve-nearby", flag.ContinueOnError)
	n := f.Int("stores", 1_000_000, "how many stores")
	if err := f.Parse(args); err != nil {
		return err
	}
	data, err := newDataset(*n)
	if err != nil {
		return err
	}
	now := time.Now()
	catalog := new(edge.Catalog)
	view := catalog.Begin()
	data.fill(view, now)
	catalog.Install(view)
	source := newSource(data)
	server, err := newServer(catalog, source, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		_ = public.Close()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.follow(ctx) })
	group.Go(func() error { return server.Run(ctx, public, admin) })
	if _, err := fmt.Fprintf(stdout, "ready %s %s\n", public.Addr(), admin.Addr()); err != nil {
		return err
	}
	return group.Wait()
}

// newServer wires the real handler to the invented stores.
func newServer(catalog *edge.Catalog, source *source, log *slog.Logger) (*edge.Server, error) {
	const perStore = 768 // more than any of them takes in the cache
	return edge.New(edge.Config{DetailsBytes: max(64<<20, len(source.data.points)*perStore)},
		edge.Deps{Catalog: catalog, Feed: source, Writer: source, Details: source, Log: log})
}

// source stands for the feed, the batcher and the database of a node in which nothing happens.
type source struct {
	data    *dataset
	applied atomic.Pointer[replication.Applied]
	revs    []atomic.Uint32 // by number of the store: 1 more than its moves
}

func newSource(data *dataset) *source {
	s := &source{data: data, revs: make([]atomic.Uint32, len(data.points))}
	s.touch()
	return s
}

func (s *source) touch() {
	t := replication.Token{Epoch: 1, XID: 1}
	s.applied.Store(&replication.Applied{Token: t, Shows: t, Text: t.String(), At: time.Now()})
}

// follow keeps the position fresh until ctx ends, as a feed does that finds nothing new.
func (s *source) follow(ctx context.Context) error {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.touch()
		}
	}
}

func (s *source) Applied() *replication.Applied { return s.applied.Load() }
func (s *source) Covers() *replication.Applied  { return s.applied.Load() }
func (s *source) Ahead(context.Context) (replication.Token, error) {
	return s.applied.Load().Token, nil
}
func (s *source) Failure() string                                                      { return "" }
func (s *source) Wait(context.Context, replication.Token) error                        { return nil }
func (s *source) Latest(context.Context, time.Duration) error                          { return nil }
func (s *source) Settle(_ context.Context, _ replication.Token, _ time.Duration) error { return nil }
func (s *source) Submit(context.Context, replication.Write) (replication.Result, replication.Token, error) {
	return replication.Result{}, replication.Token{}, replication.ErrClosed
}

// Rows returns stores from memory.
func (s *source) Rows(_ context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	rows := make([]replication.Row, 0, len(ids))
	for _, id := range ids {
		if i, ok := storeNumber(id); ok && i < len(s.data.points) {
			rows = append(rows, replication.Row{Store: s.data.store(i), Rev: uint64(s.revs[i].Load()) + 1})
		}
	}
	return rows, nil
}
