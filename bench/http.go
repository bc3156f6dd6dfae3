package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// httpResults compare the node's nearby with the canned answer.
type httpResults struct {
	skipped   string
	generator string
	rows      []httpResult
}

type httpResult struct {
	name           string
	bytes          int // of the median answer, which is the canned one
	nearby, canned side
	cpuRatio       float64 // median over the rounds of nearby / canned
	worst, least   float64
	rateRatio      float64
	misses         int // of the details cache during the rounds
}

// side has medians over the rounds.
type side struct {
	cpu      time.Duration // of the server, a request
	rate     float64       // requests a second
	p50, p99 time.Duration
}

var variants = []struct{ name, query string }{
	{"nearest 5 within 5 km", "radius=5000&limit=5"},
	{"nearest 20 within 5 km", "radius=5000&limit=20"},
	{"nearest 5 open now within 5 km", "radius=5000&limit=5&open_now=true"},
}

func (b *bench) measureHTTP(ctx context.Context) (err error) {
	if runtime.GOOS != "linux" {
		b.http.skipped = "the CPU time of other processes is read from /proc, which only Linux has"
		return nil
	}
	dir, err := os.MkdirTemp("", "shortline-bench-http-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g := &generator{connections: b.connections, script: filepath.Join(dir, "load.lua")}
	g.wrk, _ = exec.LookPath("wrk")
	if err := os.WriteFile(g.script, []byte(script), 0o600); err != nil {
		return err
	}
	b.http.generator = g.name()
	b.say("HTTP: a node with %s stores is loading", thousands(b.stores))
	nearby, words, err := serveSelf(ctx, "serve-nearby", "-stores", fmt.Sprint(b.stores))
	if err != nil {
		return err
	}
	defer nearby.stop()
	b.say("HTTP: process %d, profiles at http://%s/debug/pprof/", nearby.pid, words[1])
	index, err := buildIndex(b.data.points)
	if err != nil {
		return err
	}
	for i, v := range variants {
		t := &trial{bench: b, generator: g, nearby: nearby, addr: words[0], admin: words[1], query: v.query,
			urls: filepath.Join(dir, fmt.Sprintf("urls-%d", i)), body: filepath.Join(dir, fmt.Sprintf("body-%d", i))}
		if i != 2 { // what is open now is not for the index to tell
			t.index = index
		}
		r, err := t.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		r.name = v.name
		b.http.rows = append(b.http.rows, r)
	}
	return nil
}

// trial measures one kind of query.
type trial struct {
	*bench
	generator  *generator
	nearby     *process
	addr       string
	admin      string // address of its admin port
	query      string
	urls, body string     // files
	index      *geo.Index // nil: the stores of the answers are not checked
}

func (t *trial) run(ctx context.Context) (httpResult, error) {
	var r httpResult
	b := t.bench
	body, err := t.prepare(ctx)
	if err != nil {
		return r, err
	}
	r.bytes = len(body)
	canned, words, err := serveSelf(ctx, "serve-canned", "-body", t.body)
	if err != nil {
		return r, err
	}
	defer canned.stop()
	var n, c []side
	missesBefore := 0
	for round := -1; round < b.rounds; round++ {
		turn := b.turn
		if round < 0 { // warm
			turn = time.Second
		}
		one, err := t.measure(ctx, t.nearby, t.addr, turn, round)
		if err != nil {
			return r, err
		}
		other, err := t.measure(ctx, canned, words[0], turn, round)
		if err != nil {
			return r, err
		}
		if round < 0 {
			if missesBefore, err = t.misses(ctx); err != nil {
				return r, err
			}
			continue
		}
		b.say("HTTP: %s: nearby %v CPU, %.0f/s; canned %v CPU, %.0f/s; ratio %.2f", t.query, one.cpu, one.rate, other.cpu, other.rate, ratio(one.cpu, other.cpu))
		n, c = append(n, one), append(c, other)
	}
	missesAfter, err := t.misses(ctx)
	if err != nil {
		return r, err
	}
	r.misses = missesAfter - missesBefore
	r.nearby, r.canned = medians(n), medians(c)
	var cpu, rate []float64
	for i := range n {
		cpu, rate = append(cpu, ratio(n[i].cpu, c[i].cpu)), append(rate, n[i].rate/c[i].rate)
	}
	r.cpuRatio, r.least, r.worst, r.rateRatio = median(cpu), slices.Min(cpu), slices.Max(cpu), median(rate)
	return r, nil
}

// prepare writes the file of queries, asks each of them once, so that the details cache is warm, checks the answers, and
// returns the one of median length.
func (t *trial) prepare(ctx context.Context) ([]byte, error) {
	qs := t.near[:t.bench.urls]
	var text strings.Builder
	bodies := make([][]byte, len(qs))
	var group errgroup.Group
	group.SetLimit(4)
	for i, q := range qs {
		p := path(q.at, t.query)
		text.WriteString(p + "\n")
		group.Go(func() (err error) {
			if bodies[i], err = get(ctx, "http://"+t.addr+p); err != nil {
				return err
			}
			if i < 2000 && t.index != nil {
				if err := t.check(q, bodies[i]); err != nil {
					return fmt.Errorf("%s: %w", p, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(bodies, func(a, b []byte) int { return cmp.Compare(len(a), len(b)) })
	body := bodies[len(bodies)/2]
	return body, errors.Join(os.WriteFile(t.urls, []byte(text.String()), 0o600), os.WriteFile(t.body, body, 0o600))
}

// misses is how often the node has not found a store in its details cache.
func (t *trial) misses(ctx context.Context) (int, error) {
	text, err := get(ctx, "http://"+t.admin+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "shortline_details_cache_misses_total "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(n), err
		}
	}
	return 0, errors.New("the node does not tell how often its details cache missed")
}

// check compares an answer with the index, which the run has compared with brute force.
func (t *trial) check(q question, body []byte) error {
	var a struct {
		Stores []struct {
			ID   shortline.StoreID `json:"id"`
			Name string            `json:"name"`
		} `json:"stores"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	q.k = 5
	if strings.Contains(t.query, "limit=20") {
		q.k = 20
	}
	want := search(t.index, q, nil)
	if len(a.Stores) != len(want) {
		return fmt.Errorf("%d stores instead of %d", len(a.Stores), len(want))
	}
	for i, s := range a.Stores {
		if s.ID != storeID(int(want[i].Ref)) || s.Name == "" {
			return fmt.Errorf("store %d is %s (%q), not %s", i, s.ID, s.Name, storeID(int(want[i].Ref)))
		}
	}
	return nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // as wrk, which asks for no compression
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s\n%s", url, res.Status, body)
	}
	return body, err
}

func (t *trial) measure(ctx context.Context, p *process, addr string, d time.Duration, seed int) (side, error) {
	before, err := cpuOf(p.pid)
	if err != nil {
		return side{}, err
	}
	l, err := t.generator.run(ctx, addr, t.urls, d, seed+2)
	if err != nil {
		return side{}, err
	}
	after, err := cpuOf(p.pid)
	if err != nil {
		return side{}, err
	}
	return side{cpu: (after - before) / time.Duration(l.requests), rate: float64(l.requests) / l.took.Seconds(), p50: l.p50, p99: l.p99}, nil
}

func medians(all []side) side {
	of := func(value func(side) float64) float64 {
		var v []float64
		for _, s := range all {
			v = append(v, value(s))
		}
		return median(v)
	}
	return side{
		cpu:  time.Duration(of(func(s side) float64 { return float64(s.cpu) })),
		rate: of(func(s side) float64 { return s.rate }),
		p50:  time.Duration(of(func(s side) float64 { return float64(s.p50) })),
		p99:  time.Duration(of(func(s side) float64 { return float64(s.p99) })),
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
