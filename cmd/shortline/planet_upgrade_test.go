package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// balancer is a load balancer: it sends requests to the nodes that are in it.
type balancer struct {
	mu    sync.Mutex
	nodes []*planet.Node       // guarded by mu
	busy  map[*planet.Node]int // guarded by mu: requests under way
}

func newBalancer(nodes []*planet.Node) *balancer {
	return &balancer{nodes: nodes, busy: map[*planet.Node]int{}}
}

// pick returns the node for the nth request; done is called when it is over.
func (b *balancer) pick(n int) (node *planet.Node, done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	node = b.nodes[n%len(b.nodes)]
	b.busy[node]++
	return node, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.busy[node]--
	}
}

// set changes which nodes are in it.
func (b *balancer) set(nodes []*planet.Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = nodes
}

func (b *balancer) idle(n *planet.Node) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy[n] == 0
}

// versionOf is the version that a process says it is of, at its admin port.
func (w *world) versionOf(admin string) string {
	res, err := w.http.Get(admin + "/metrics")
	w.check(err)
	text, err := io.ReadAll(res.Body)
	w.check(err)
	w.check(res.Body.Close())
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, `shortline_build_info{version="`); ok && res.StatusCode == http.StatusOK {
			version, _, _ := strings.Cut(rest, `"`)
			return version
		}
	}
	w.Fatalf("%s does not tell its version", admin)
	return ""
}

// TestPlanetUpgrades brings a planet of three regions from one version to the next while it is used, in the order of
// docs/operations/upgrade.md: nodes one at a time, standbys' agents, a switchover, the last agent. No request fails, and nothing is lost
// or applied twice. SHORTLINE_TEST_OLD may name the program of an
// earlier release to begin with; without it both versions are this program, under two names. With SHORTLINE_TEST_LONG=1 the cluster
// key is changed afterwards, which is three times the same.
func TestPlanetUpgrades(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three regions")
	}
	w := startWorld(t, 8, planet.Options{Program: os.Getenv("SHORTLINE_TEST_OLD"), Nodes: 2, Env: []string{"SHORTLINE_TEST_VERSION=n"}, NodeArgs: []string{"--write-hold", "30s"}})
	for _, n := range w.Nodes() {
		w.Logf("%s is of version %s", n.Name(), w.versionOf(n.Admin()))
	}
	w.zero(w.Nodes()[0])
	b := newBalancer(w.Nodes())
	l := w.loadOver(b, false)
	w.eventually("writes are acknowledged", func() bool { return l.count() > 50 })
	w.Change(testProgram(t), "", "SHORTLINE_TEST_VERSION=n+1")
	w.roll(b, "n+1")
	if longTests {
		old, next := w.ClusterKey(), rand.Text()+rand.Text()
		for _, keys := range []string{old + "," + next, next + "," + old, next} {
			w.Change("", keys)
			w.roll(b, "n+1")
		}
	}
	before := l.count()
	w.eventually("writes go on", func() bool { return l.count() > before+50 })
	l.settle("upgrade")
}

// roll restarts every process of the planet, one after the other, and waits until all say that they are of the version.
func (w *world) roll(b *balancer, version string) {
	w.Helper()
	began := time.Now()
	for _, n := range w.Nodes() {
		var others []*planet.Node
		for _, o := range w.Nodes() {
			if o != n {
				others = append(others, o)
			}
		}
		b.set(others)
		w.eventually(n.Name()+" has no request under way", func() bool { return b.idle(n) })
		w.check(n.Restart(w.deadline()))
		b.set(w.Nodes())
	}
	first := w.Primary()
	restart := func(id regions.ID) {
		w.check(w.Region(id).Postgres.Restart(w.deadline()))
		w.eventually(fmt.Sprintf("%s follows, and each write is confirmed", id), func() bool { return w.follows(id) && w.durable() })
	}
	var next regions.ID
	for _, r := range w.Regions() {
		if r.ID != first {
			restart(r.ID)
			next = r.ID
		}
	}
	w.eventually("the regions move the primary to "+string(next), func() bool {
		var answer map[string]any
		_, err := w.client(w.Nodes()[0], nil).AdminPost(w.deadline(), "switchover", map[string]any{"to": next, "reason": "an upgrade"}, &answer)
		return err == nil || w.Primary() == next
	})
	w.eventually(string(next)+" takes writes", func() bool { return w.Primary() == next && w.follows(first) && w.durable() })
	restart(first)
	for _, r := range w.Regions() {
		for _, n := range r.Nodes {
			if got := w.versionOf(n.Admin()); got != version {
				w.Errorf("%s is of version %s, not %s", n.Name(), got, version)
			}
		}
		if got := w.versionOf(r.Postgres.Admin()); got != version {
			w.Errorf("the agent of %s is of version %s, not %s", r.ID, got, version)
		}
	}
	w.Logf("six nodes and three agents restarted in %v", time.Since(began).Round(100*time.Millisecond))
}
