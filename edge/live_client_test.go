package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/geo"
)

// follow runs a Live of the Go client against nodes, and returns what it tells.
func follow(t *testing.T, server string, cfg client.LiveConfig, change ...func(*client.Config)) (events <-chan client.LiveEvent, ended <-chan error) {
	t.Helper()
	all, done := make(chan client.LiveEvent, 10_000), make(chan error, 1)
	cfg.On = func(e client.LiveEvent) error { all <- e; return nil }
	conf := client.Config{Server: server}
	for _, c := range change {
		c(&conf)
	}
	c, err := client.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	live, err := c.NewLive(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	finished := make(chan struct{})
	go func() { defer close(finished); done <- live.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-finished })
	return all, done
}

func await(t *testing.T, events <-chan client.LiveEvent, what string, fits func(client.LiveEvent) bool) client.LiveEvent {
	t.Helper()
	end := time.After(patience)
	var seen []string
	for {
		select {
		case e := <-events:
			if fits(e) {
				return e
			}
			seen = append(seen, fmt.Sprintf("%+v", e))
		case <-end:
			t.Fatalf("%s never comes, but %v", what, seen)
		}
	}
}

// to sends everybody to one node.
type to struct{ url string }

func (t *to) Elsewhere(*geo.Point) []edge.LiveRegion {
	if t.url == "" {
		return nil
	}
	return []edge.LiveRegion{{Name: "other", URL: t.url}}
}

// TestClientLive follows stores with the Go client while its node drains and stops: it is on the other node before the first one
// is gone, and then has what that one has.
func TestClientLive(t *testing.T) {
	there := newTestNode(t)
	here := newTestNode(t, func(s *nodeSetup) { s.elsewhere = &to{there.api} })
	for i, n := range []*testNode{here, there} {
		n.put(t, shortline.Store{ID: "a", Name: "A"})
		n.report(t, "a", fmt.Sprintf(`{"length":%d}`, 10*(i+1)))
	}
	events, _ := follow(t, here.api, client.LiveConfig{Stores: []shortline.StoreID{"a", "none"}, Area: &client.LiveArea{Limit: 3}})
	isArea := func(e client.LiveEvent) bool {
		return e.Kind == client.LiveSnapshot && e.Area && len(e.Stores) == 1 && e.Stores[0].Length == 10
	}
	await(t, events, "the area", isArea)
	e := await(t, events, "the stores", func(e client.LiveEvent) bool { return e.Kind == client.LiveSnapshot && !e.Area })
	if e.Region != "local" || !slices.Equal(e.Missing, []shortline.StoreID{"none"}) || e.Stores[0].Length != 10 || !e.Stores[0].Reported() {
		t.Errorf("the snapshot is %+v", e)
	}
	here.report(t, "a", `{"length":11,"observed_at":"2026-11-23T09:00:01Z"}`) // the test's clock stands
	await(t, events, "the change", func(e client.LiveEvent) bool {
		return e.Kind == client.LiveChanged && e.Queue.Length == 11 && e.ID == "a"
	})
	here.stop()
	moved := await(t, events, "the other node", func(e client.LiveEvent) bool { return e.Kind == client.LiveLost || e.Server == there.api })
	if moved.Kind == client.LiveLost {
		t.Errorf("it had no connection in between: %v", moved.Err)
	} else if !moved.Area {
		t.Errorf("the first snapshot there is %+v", moved)
	} else if moved.Stores[0].Length != 11 { // what that node has was reported before
		t.Errorf("it went back to %+v", moved.Stores[0].Queue)
	}
	there.report(t, "a", `{"length":21,"observed_at":"2026-11-23T09:00:02Z"}`)
	await(t, events, "the change there", func(e client.LiveEvent) bool { return e.Kind == client.LiveChanged && e.Queue.Length == 21 })
	if err := here.served(); err != nil {
		t.Error(err)
	}
}

// TestClientLiveReconnects begins before its node is there, and loses it without a word.
func TestClientLiveReconnects(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	proxy := newCutter(t, n.api)
	proxy.cut()
	events, _ := follow(t, proxy.url, client.LiveConfig{Stores: []shortline.StoreID{"a"}})
	await(t, events, "the loss", func(e client.LiveEvent) bool { return e.Kind == client.LiveLost })
	proxy.mend()
	isSnapshot := func(e client.LiveEvent) bool { return e.Kind == client.LiveSnapshot }
	await(t, events, "the snapshot", isSnapshot)
	proxy.cut()
	await(t, events, "the loss", func(e client.LiveEvent) bool { return e.Kind == client.LiveLost })
	n.report(t, "a", `{"length":5}`)
	proxy.mend()
	if e := await(t, events, "the snapshot", isSnapshot); e.Stores[0].Length != 5 {
		t.Errorf("after the reconnection it is %+v", e)
	}
}

func TestClientLiveIsRefused(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.RequireKeyForReads = true })
	_, ended := follow(t, n.api, client.LiveConfig{Stores: []shortline.StoreID{"a"}})
	var p *client.Problem
	if err := <-ended; !errors.As(err, &p) || p.Status != 401 || p.Detail == "" {
		t.Errorf("without a key it ends with %v", err)
	}
	_, key := n.newKey(t, "read")
	events, ended := follow(t, n.api, client.LiveConfig{Stores: []shortline.StoreID{"a"}, Area: &client.LiveArea{Limit: 1000}}, func(c *client.Config) { c.Key = key })
	if err := <-ended; !errors.As(err, &p) || p.Status != 422 {
		t.Errorf("with a limit that is too great it ends with %v after %v", err, len(events))
	}
}

// cutter passes connections on to a node, until it is cut.
type cutter struct {
	url   string
	to    string
	mu    sync.Mutex
	off   bool       // guarded by mu
	conns []net.Conn // guarded by mu
}

func newCutter(t *testing.T, api string) *cutter {
	l := listenLocal(t)
	c := &cutter{url: "http://" + l.Addr().String(), to: strings.TrimPrefix(api, "http://")}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.pass(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.cut(); all.Wait() })
	return c
}

func (c *cutter) pass(conn net.Conn) {
	defer conn.Close()
	node, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer node.Close()
	c.mu.Lock()
	if c.off {
		c.mu.Unlock()
		return
	}
	c.conns = append(c.conns, conn, node)
	c.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() { _, _ = io.Copy(node, conn); _ = node.Close() })
	_, _ = io.Copy(conn, node)
	_ = conn.Close()
	up.Wait()
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func (c *cutter) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = false
}
