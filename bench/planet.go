package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
)

// visibleResult is how long updates sent to one region took.
type visibleResult struct {
	from     regions.ID
	wan      bool
	acked    []time.Duration // from sending to the answer
	visible  []time.Duration // from the answer until every node of all regions had it
	farthest time.Duration   // round trip between the primary and the region that is farthest from it; 0 without wan
}

// startResult is a node's start on a database with stores.
type startResult struct {
	stores int
	ready  time.Duration // from the start of the process to its ready line
	live   float64       // bytes a store on the heap after a collection
	bytes  float64       // resident memory a store, less that of a node without stores
}

// buildProgram builds the shortline binary into a folder that the caller removes.
func buildProgram(ctx context.Context) (program, dir string, err error) {
	if dir, err = os.MkdirTemp("", "shortline-bench-"); err != nil {
		return "", "", err
	}
	program = filepath.Join(dir, "shortline")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/shortline/shortline/cmd/shortline").CombinedOutput()
	if err != nil {
		return "", dir, fmt.Errorf("build shortline: %w\n%s", err, out)
	}
	return program, dir, nil
}

// withPlanet runs fn on a planet of its own.
func (b *bench) withPlanet(ctx context.Context, o planet.Options, fn func(*planet.Planet) error) (err error) {
	program, dir, err := buildProgram(ctx)
	defer func() { _ = os.RemoveAll(dir) }()
	if err != nil {
		return err
	}
	o.Program, o.Grants = program, postgres.Grants()
	p, err := planet.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	return fn(p)
}

const (
	visibleUpdates    = 300
	visibleUpdatesWAN = 100
	visiblePause      = 15 * time.Millisecond
)

// measureVisibility sends updates one by one to each region, and asks every node with the token of the answer: it answers
// as soon as it has the update.
func (b *bench) measureVisibility(ctx context.Context) error {
	if err := planet.Available(); err != nil {
		b.say("visibility: skipped: %v", err)
		return nil
	}
	for _, wan := range []bool{false, true} {
		b.say("visibility: starting three regions, wan %v", wan)
		err := b.withPlanet(ctx, planet.Options{WAN: wan}, func(p *planet.Planet) error {
			if err := putFew(ctx, p, b.data); err != nil {
				return err
			}
			for _, r := range p.Regions() {
				res := visibleResult{from: r.ID, wan: wan}
				if wan {
					for _, other := range p.Regions() {
						res.farthest = max(res.farthest, p.RoundTrip(p.Primary(), other.ID))
					}
				}
				if err := b.visibleFrom(ctx, p, r, &res); err != nil {
					return err
				}
				b.visible = append(b.visible, res)
				if err := b.seenLive(ctx, p, r, wan); err != nil {
					return err
				}
			}
			return b.measureQuorum(ctx, p, wan)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const fewStores = 50

func putFew(ctx context.Context, p *planet.Planet, d *dataset) error {
	c, err := client.New(client.Config{Server: p.Nodes()[0].API(), Key: p.AdminKey()})
	if err != nil {
		return err
	}
	for i := range fewStores {
		if _, err := c.PutStore(ctx, d.store(i)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) visibleFrom(ctx context.Context, p *planet.Planet, r *planet.Region, res *visibleResult) error {
	session := new(client.Session)
	var nodes []*client.Client
	for _, n := range p.Nodes() {
		c, err := client.New(client.Config{Server: n.API(), Key: p.AdminKey(), Session: session})
		if err != nil {
			return err
		}
		nodes = append(nodes, c)
	}
	first := slices.Index(p.Nodes(), r.Nodes[0])
	updates := visibleUpdates
	if res.wan {
		updates = visibleUpdatesWAN
	}
	for i := range updates + 10 {
		length, id := i, storeID(i%fewStores)
		sent := time.Now()
		if _, err := nodes[first+i%len(r.Nodes)].SetQueue(ctx, shortline.QueueUpdate{ID: id, Length: &length}, client.WriteOptions{}); err != nil {
			return fmt.Errorf("update at %s: %w", r.ID, err)
		}
		answered := time.Now()
		g, gctx := errgroup.WithContext(ctx)
		for _, c := range nodes {
			g.Go(func() error {
				q, err := c.Queue(gctx, id, client.ReadOptions{})
				if err == nil && q.Length != length {
					err = fmt.Errorf("with the token of %d a node has %d", length, q.Length)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if i >= 10 { // connections are there by now
			res.acked, res.visible = append(res.acked, answered.Sub(sent)), append(res.visible, time.Since(answered))
		}
		time.Sleep(visiblePause)
	}
	return nil
}

// measureStart loads all stores through the adapter, and starts a node on them.
func (b *bench) measureStart(ctx context.Context) error {
	if err := planet.Available(); err != nil {
		b.say("start: skipped: %v", err)
		return nil
	}
	o := planet.Options{Regions: []regions.ID{"us-east"}, Nodes: 1, NoFsync: true}
	return b.withPlanet(ctx, o, func(p *planet.Planet) error {
		node, db := p.Nodes()[0], p.Regions()[0].Postgres
		empty := residentBytes(node.PID())
		if err := node.Stop(); err != nil {
			return err
		}
		b.say("start: loading %s stores", thousands(b.stores))
		if err := b.load(ctx, db); err != nil {
			return err
		}
		for range 2 {
			b.say("start: starting the node")
			began := time.Now()
			if err := node.Start(ctx); err != nil {
				return err
			}
			res := startResult{stores: b.stores, ready: time.Since(began)}
			heap, err := heapBytes(ctx, node.Admin())
			if err != nil {
				return err
			}
			res.live = heap / float64(b.stores)
			res.bytes = (residentBytes(node.PID()) - empty) / float64(b.stores)
			b.say("start: ready after %v, %.0f bytes a store live, %.0f resident", res.ready.Round(time.Millisecond), res.live, res.bytes)
			b.starts = append(b.starts, res)
			if err := node.Stop(); err != nil {
				return err
			}
		}
		return nil
	})
}

// load commits all stores and their queues, several transactions at once.
func (b *bench) load(ctx context.Context, db *planet.Database) (err error) {
	const workers, chunk = 4, 500
	store, err := postgres.Open(ctx, postgres.Config{Write: db.DSN("shortline_writer", "shortline"), WriteConns: workers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			for first := w * chunk; first < b.stores; first += workers * chunk {
				var writes, queues []replication.Item
				for i := first; i < min(first+chunk, b.stores); i++ {
					st := b.data.store(i)
					writes = append(writes, replication.Item{Put: &st})
					if q := b.data.queue(i, time.Now()); q != nil {
						queues = append(queues, replication.Item{Queue: &shortline.QueueUpdate{ID: st.ID, Length: &q.Length}})
					}
				}
				if _, _, err := store.Commit(ctx, []replication.Write{{Items: writes}, {Items: queues}}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// heapBytes collects a node's garbage and tells what is left.
func heapBytes(ctx context.Context, admin string) (float64, error) {
	text, err := collected(ctx, admin)
	if err != nil {
		return 0, err
	}
	return metric(text, "go_memstats_heap_alloc_bytes")
}

// collected collects a node's garbage and returns its metrics after that.
func collected(ctx context.Context, admin string) (text string, err error) {
	for _, path := range []string{"/debug/pprof/heap?gc=1", "/metrics"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+path, nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return "", err
		}
		text = string(body)
	}
	return text, nil
}

// metric is one without labels in a node's metrics.
func metric(text, name string) (n float64, err error) {
	_, rest, ok := strings.Cut(text, "\n"+name+" ")
	if !ok {
		return 0, fmt.Errorf("the node does not tell %s", name)
	}
	_, err = fmt.Sscan(rest, &n)
	return n, err
}

// residentBytes is a process' memory as the kernel counts it, 0 where that is not known.
func residentBytes(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib float64
	_, _ = fmt.Sscan(rest, &kib)
	return kib * 1024
}

func (b *bench) writePlanet(w io.Writer) {
	p := printer{w}
	if len(b.visible) > 0 {
		p.line("### Visible everywhere")
		p.line("")
		p.line("%d single updates (with `--wan` %d), one after the other, to the nodes of one region of three with two nodes each; quorum commit, `fsync` on. Answered: from", visibleUpdates, visibleUpdatesWAN)
		p.line("sending to the answer. Visible: from the answer until every node of all regions has answered with it. With `--wan` the simulated round trip is part of both.")
		p.line("")
		p.head("sent to", "wan", "answered p50 (p99)", "visible everywhere p50 (p99)", "farthest round trip", "p99 at most 25 ms beyond it")
		for _, r := range b.visible {
			p.row(string(r.from), fmt.Sprint(r.wan), quantiles(r.acked), quantiles(r.visible), fmt.Sprint(r.farthest),
				met(quantile(r.visible, 0.99) <= r.farthest+25*time.Millisecond))
		}
		p.line("")
	}
	b.writeSeen(p)
	b.writeQuorum(p)
	if len(b.starts) > 0 {
		p.line("### Start of a node")
		p.line("")
		p.line("From the start of the process to its ready line, with all stores in PostgreSQL on the same machine; live: the heap after a collection; resident: memory of the process right after the start, less that of a node without stores, with garbage that is still to be collected. At most 15 s and 250 live bytes at a million.")
		p.line("")
		p.head("stores", "ready after", "live bytes a store", "resident", "")
		for _, r := range b.starts {
			p.row(thousands(r.stores), fmt.Sprintf("%.1f s", r.ready.Seconds()), fmt.Sprintf("%.0f", r.live), fmt.Sprintf("%.0f", r.bytes), met(r.ready <= 15*time.Second && r.live <= 250))
		}
		p.line("")
	}
}

func quantiles(all []time.Duration) string {
	return fmt.Sprintf("%s (%s)", millis(quantile(all, 0.5)), millis(quantile(all, 0.99)))
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(float64(len(sorted))*q)]
}
