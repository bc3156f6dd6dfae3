package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
)

// soakResults is what the nodes of a planet held over time while everything about them changed.
type soakResults struct {
	nodes    []*soakNode
	lasted   time.Duration
	done     map[string]int // what was done, and how often
	failures failoverSeries // of the load
	cut      string
}

// soakNode is one node's series. A node that was killed begins a new one.
type soakNode struct {
	name  string
	lives [][]soakSample
}

type soakSample struct {
	at                 time.Duration
	live, resident     float64 // bytes: on the heap after a collection, and of the process
	goroutines, opened float64
}

const (
	soakEvery       = 10 * time.Second
	soakConnections = 400
	soakImport      = 2000
)

// measureSoak keeps a planet under load and lets connections, stores and the primary come and go.
func (b *bench) measureSoak(ctx context.Context) error {
	if err := planet.Available(); err != nil {
		b.say("soak: skipped: %v", err)
		return nil
	}
	var err error
	if b.few, err = newDataset(1000 + soakImport); err != nil {
		return err
	}
	b.soak = &soakResults{done: map[string]int{}}
	b.say("soak: starting three regions with two nodes each, for %v", b.soakTime)
	err = b.withPlanet(ctx, planet.Options{}, func(p *planet.Planet) error { return b.soaked(ctx, p, b.soak) })
	if err != nil && ctx.Err() == nil {
		b.soak.cut, err = err.Error(), nil
		b.say("soak: cut short: %s", b.soak.cut)
	}
	if b.soakGraph != "" && len(b.soak.nodes) > 0 {
		return errors.Join(err, os.WriteFile(b.soakGraph, []byte(b.soak.graph()), 0o644))
	}
	return err
}

func (b *bench) soaked(ctx context.Context, p *planet.Planet, s *soakResults) (err error) {
	if err := putFew(ctx, p, b.few); err != nil {
		return err
	}
	t := &world{Planet: p, ctx: ctx}
	if t.load, err = startSteady(ctx, p, b.failoverWrites/5, b.failoverReads/5, "soak"); err != nil {
		return err
	}
	defer t.load.stop()
	began := time.Now()
	churn, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	var mu sync.Mutex
	count := func(what string, n int) { mu.Lock(); defer mu.Unlock(); s.done[what] += n }
	all.Go(func() { soakLive(churn, p, count) })
	all.Go(func() { b.soakStores(churn, t, count) })
	for _, n := range p.Nodes() {
		s.nodes = append(s.nodes, &soakNode{name: n.Name(), lives: [][]soakSample{nil}})
	}
	all.Go(func() {
		for every := time.NewTicker(soakEvery); ; {
			for i, n := range p.Nodes() {
				sample, err := sampleNode(churn, n, time.Since(began))
				own := s.nodes[i]
				mu.Lock()
				switch last := len(own.lives) - 1; {
				case err == nil:
					own.lives[last] = append(own.lives[last], sample)
				case len(own.lives[last]) > 0 && churn.Err() == nil && !n.Running():
					own.lives = append(own.lives, nil)
				}
				mu.Unlock()
			}
			select {
			case <-churn.Done():
				every.Stop()
				return
			case <-every.C:
			}
		}
	})
	// Every third change of the primary is a death.
	for n := 1; time.Since(began) < b.soakTime; n++ {
		c, err := t.rest()
		if err != nil {
			return err
		}
		if n%3 == 0 {
			_, err = t.failOver(c, &failoverSeries{kind: "kill"})
			count("regions killed", 1)
		} else {
			_, err = t.switchOver(c)
			count("switchovers", 1)
		}
		if err != nil {
			return err
		}
		b.say("soak: %v of %v", time.Since(began).Round(time.Second), b.soakTime)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(2*time.Minute, max(0, b.soakTime-time.Since(began)))):
		}
	}
	stop()
	all.Wait()
	s.lasted = time.Since(began)
	return t.settle(&s.failures)
}

// soakLive opens and closes live connections to all nodes all the time.
func soakLive(ctx context.Context, p *planet.Planet, count func(string, int)) {
	var open sync.WaitGroup
	defer open.Wait()
	room := make(chan struct{}, soakConnections)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case room <- struct{}{}:
		case <-time.After(50 * time.Millisecond):
			continue
		}
		node := p.Nodes()[n%len(p.Nodes())]
		open.Go(func() {
			defer func() { <-room }()
			conn, r, err := dialSocket(strings.TrimPrefix(node.API(), "http://"), 0)
			if err != nil {
				select { // its region is down
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
				return
			}
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			count("live connections", 1)
			ask := fmt.Sprintf(`{"op":"subscribe","stores":["%s","%s"]}`, storeID(n%fewStores), storeID((n+7)%fewStores))
			if ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(ask)))) != nil {
				return
			}
			_ = conn.SetReadDeadline(time.Now().Add(time.Duration(5+n%20) * time.Second))
			_, _ = io.Copy(io.Discard, r)
		})
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// soakStores imports stores and deletes them again.
func (b *bench) soakStores(ctx context.Context, t *world, count func(string, int)) {
	for ctx.Err() == nil {
		var body bytes.Buffer
		for i := range soakImport {
			s := b.few.store(fewStores + i)
			fmt.Fprintf(&body, `{"id":"soak-%d","name":"Soak %d","lat":%v,"lng":%v}`+"\n", i, i, s.Lat, s.Lng)
		}
		c := t.client("")
		a, err := c.ImportBytes(ctx, client.NDJSON, body.Bytes())
		if err == nil && a != nil {
			count("stores imported", soakImport)
		}
		for i := range soakImport / 10 {
			if c.DeleteStore(ctx, shortline.StoreID(fmt.Sprintf("soak-%d", i))) == nil {
				count("stores deleted", 1)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Second):
		}
	}
}

// sampleNode collects a node's garbage and asks what is left.
func sampleNode(ctx context.Context, n *planet.Node, at time.Duration) (s soakSample, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := collected(ctx, n.Admin())
	if err != nil {
		return s, err
	}
	s.at = at
	for name, into := range map[string]*float64{"go_memstats_heap_alloc_bytes": &s.live, "process_resident_memory_bytes": &s.resident, "go_goroutines": &s.goroutines, "process_open_fds": &s.opened} {
		if *into, err = metric(text, name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// longest is the series of a node's longest life.
func (n *soakNode) longest() []soakSample {
	return slices.MaxFunc(n.lives, func(a, b []soakSample) int { return len(a) - len(b) })
}

// medianOf is the median of what of tells of the samples.
func medianOf(samples []soakSample, of func(soakSample) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (b *bench) writeSoak(w io.Writer) {
	s := b.soak
	if s == nil {
		return
	}
	p := printer{w}
	p.line("### Soak")
	p.line("")
	p.line("Three regions with two nodes each for %v, with writes and reads all the time; %d live connections that come and go, %d stores imported and a tenth of them deleted every 20 s, the primary moved every two minutes, every third time by killing its region.", s.lasted.Round(time.Second), soakConnections, soakImport)
	var did []string
	for what, n := range s.done {
		did = append(did, thousands(n)+" "+what)
	}
	slices.Sort(did)
	p.line("Done: %s. Of the writes %d were lost and %d done twice.", strings.Join(did, ", "), s.failures.lost, s.failures.twice)
	if s.cut != "" {
		p.line("**Cut short: %s**", firstWords(s.cut))
	}
	p.line("")
	p.line("Each node's longest life: medians of its second and last fifth; the first one is its start. Live: the heap after a collection. Flat: the last is at most a tenth more, and 2 MiB or 20 goroutines.")
	p.line("")
	p.head("node", "life", "live", "resident", "goroutines", "open files", "")
	for _, n := range s.nodes {
		l := n.longest()
		if len(l) < 5 {
			continue
		}
		early, late := l[len(l)/5:2*len(l)/5], l[4*len(l)/5:]
		flat := true
		cell := func(of func(soakSample) float64, unit, slack float64, format string) string {
			x, y := medianOf(early, of), medianOf(late, of)
			flat = flat && y <= 1.1*x+slack
			return fmt.Sprintf(format+" → "+format, x/unit, y/unit)
		}
		live := cell(func(s soakSample) float64 { return s.live }, 1<<20, 2<<20, "%.1f MiB")
		resident := cell(func(s soakSample) float64 { return s.resident }, 1<<20, 8<<20, "%.0f MiB")
		goroutines := cell(func(s soakSample) float64 { return s.goroutines }, 1, 20, "%.0f")
		opened := cell(func(s soakSample) float64 { return s.opened }, 1, 20, "%.0f")
		p.row(n.name, (l[len(l)-1].at - l[0].at).Round(time.Second).String(), live, resident, goroutines, opened, met(flat))
	}
	p.line("")
}

// graph draws the live heap and the goroutines of every node over time.
func (s *soakResults) graph() string {
	const width, height, left, top = 900, 220, 60, 30
	colours := []string{"#1b6ca8", "#d1495b", "#2e8b57", "#c98a00", "#7a4fa3", "#5c6b73"}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", width+left+140, 2*(height+top)+50)
	var last time.Duration
	for _, n := range s.nodes {
		for _, l := range n.lives {
			for _, x := range l {
				last = max(last, x.at)
			}
		}
	}
	for i, panel := range []struct {
		title string
		of    func(soakSample) float64
	}{
		{"live heap, MiB", func(s soakSample) float64 { return s.live / (1 << 20) }},
		{"goroutines", func(s soakSample) float64 { return s.goroutines }},
	} {
		y0, most := top+i*(height+top+10), 1.0
		for _, n := range s.nodes {
			for _, l := range n.lives {
				for _, x := range l {
					most = max(most, panel.of(x)*1.1)
				}
			}
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="4" y="%d">%.0f</text><text x="4" y="%d">0</text><rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#bbb"/>`+"\n", left, y0-6, panel.title, y0+10, most, y0+height, left, y0, width, height)
		for k, n := range s.nodes {
			for _, l := range n.lives {
				if len(l) == 0 {
					continue
				}
				fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colours[k%len(colours)])
				for _, x := range l {
					fmt.Fprintf(&b, "%.1f,%.1f ", left+float64(width)*x.at.Seconds()/max(1, last.Seconds()), float64(y0)+float64(height)*(1-panel.of(x)/most))
				}
				b.WriteString(`"/>` + "\n")
			}
			if i == 0 {
				fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", width+left+10, y0+16+k*18, colours[k%len(colours)], n.name)
			}
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">0</text><text x="%d" y="%d">%s</text></svg>`+"\n", left, 2*(height+top)+30, width+left-60, 2*(height+top)+30, last.Round(time.Second))
	return b.String()
}
