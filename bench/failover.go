package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// failoverKinds are what -failover-kinds can name.
var failoverKinds = []string{"switchover", "kill", "isolate", "leader"}

// failoverResult is one change of the primary, or one that must not come, under load.
type failoverResult struct {
	load  steadyReport
	entry regions.Entry // of the history; zero for the leader's death
	home  time.Duration // until the region was back as a standby that confirms writes
}

// failoverSeries is the runs of a kind on one planet.
type failoverSeries struct {
	kind   string
	wan    bool
	trip   time.Duration // the largest round trip
	runs   []failoverResult
	lost   int    // acknowledged writes that the database does not have
	twice  int    // more than were sent
	late   int    // acknowledgements of the isolated side after its lease
	cut    string // why it ended before its time, "" if it did not
	writes int    // acknowledged in all
	// writeRate and readRate are what was sent a second.
	writeRate, readRate int
}

// measureFailover changes the primary in every way, over and over. What has been measured when it is cut short is in the report.
func (b *bench) measureFailover(ctx context.Context) error {
	if err := planet.Available(); err != nil {
		b.say("failover: skipped: %v", err)
		return nil
	}
	var err error
	if b.few, err = newDataset(1000); err != nil {
		return err
	}
	wans := []bool{false}
	switch b.failoverWAN {
	case "yes":
		wans = []bool{true}
	case "both":
		wans = []bool{false, true}
	}
	for _, wan := range wans {
		for _, kind := range b.failoverKinds {
			s := &failoverSeries{kind: kind, wan: wan}
			b.failovers = append(b.failovers, s)
			b.say("failover: %s, wan %v: starting three regions with two nodes each", kind, wan)
			if err := b.withPlanet(ctx, planet.Options{WAN: wan}, func(p *planet.Planet) error { return b.series(ctx, p, s) }); err != nil {
				s.cut = err.Error()
				b.say("failover: %s: cut short: %v", kind, err)
			}
			if ctx.Err() != nil {
				return nil
			}
		}
	}
	return nil
}

// world is a planet under load.
type world struct {
	*planet.Planet
	ctx  context.Context
	load *steadyProcess
}

func (b *bench) series(ctx context.Context, p *planet.Planet, s *failoverSeries) (err error) {
	if err := putFew(ctx, p, b.few); err != nil {
		return err
	}
	for _, a := range p.Regions() {
		for _, o := range p.Regions() {
			if s.wan {
				s.trip = max(s.trip, p.RoundTrip(a.ID, o.ID))
			}
		}
	}
	t := &world{Planet: p, ctx: ctx}
	if err := b.bearable(t, s); err != nil {
		return err
	}
	defer t.load.stop()
	for i := range b.failoverRuns {
		r, err := t.run(s)
		if err != nil {
			_, _ = t.load.ask(steadyCommand{Tell: true})
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		s.runs = append(s.runs, r)
		l := r.load
		b.say("failover: %s %d/%d: pause %s (controller %s), %d writes and %d reads, %d and %d failed, slowest write %s, %s%s", s.kind, i+1, b.failoverRuns, millis(l.Pause),
			millis(time.Duration(r.entry.PauseMS*1e6)), l.Writes, l.Reads, l.FailedWrites, l.FailedReads, millis(l.Slowest), marks(r.entry.Steps), strings.Join(append([]string{""}, l.Faults...), "\n          "))
	}
	return t.settle(s)
}

// bearable starts the load, or half of it, and so on, until the machine bears it while nothing happens: past that, what is measured is
// the queue in front of the processors.
func (b *bench) bearable(t *world, s *failoverSeries) (err error) {
	s.writeRate, s.readRate = b.failoverWrites, b.failoverReads
	for n := 0; ; n++ {
		if t.load, err = startSteady(t.ctx, t.Planet, s.writeRate, s.readRate, fmt.Sprintf("%s-%d", s.kind, n)); err != nil {
			return err
		}
		if _, err := t.rest(); err != nil {
			t.load.stop()
			return err
		}
		if _, err := t.load.ask(steadyCommand{Tell: true}); err != nil {
			return err
		}
		const look = 3
		time.Sleep(look * time.Second)
		l, err := t.load.ask(steadyCommand{Tell: true})
		if err != nil {
			return err
		}
		if float64(l.Writes) >= 0.95*look*float64(s.writeRate) && float64(l.Reads) >= 0.95*look*float64(s.readRate) && l.Pause < 200*time.Millisecond && l.ReadP99 < 100*time.Millisecond || n == 4 {
			return nil
		}
		b.say("failover: the machine does not bear %d writes and %d reads a second (%d and %d done in %d s, %s the longest between two writes): half of that is sent", s.writeRate, s.readRate, l.Writes, l.Reads, look, millis(l.Pause))
		if _, err := t.load.ask(steadyCommand{Tell: true, Settle: true}); err != nil {
			return err
		}
		t.load.stop()
		// What is acknowledged is counted from nothing again, and so are the queues.
		for i := range fewStores - 1 {
			length := 0
			if _, err := t.client("").SetQueue(t.ctx, shortline.QueueUpdate{ID: storeID(i), Length: &length}, client.WriteOptions{}); err != nil {
				return err
			}
		}
		s.writeRate, s.readRate = max(1, s.writeRate/2), s.readRate/2
	}
}

// settle ends the load and holds what was acknowledged against the database.
func (t *world) settle(s *failoverSeries) error {
	l, err := t.load.ask(steadyCommand{Tell: true, Settle: true})
	if err != nil {
		return err
	}
	c, err := t.await("the regions are at rest", func(c *regions.Cluster) bool { return c.Operation == nil })
	if err != nil {
		return err
	}
	rows, err := t.Region(c.Primary).Postgres.Rows(t.ctx, "shortline", fmt.Sprintf("SELECT store, coalesce(length, 0) FROM shortline.queues WHERE store <> '%s'", storeID(fewStores-1)))
	if err != nil {
		return err
	}
	for _, row := range rows {
		n, err := strconv.Atoi(row[1])
		if err != nil {
			return err
		}
		acked, unsure := l.Acked[row[0]], l.Unsure[row[0]]
		s.writes += acked
		s.lost += max(0, acked-n)
		s.twice += max(0, n-acked-unsure)
	}
	return nil
}

// run is one run, from rest to rest.
func (t *world) run(s *failoverSeries) (r failoverResult, err error) {
	c, err := t.rest()
	if err != nil {
		return r, err
	}
	switch s.kind {
	case "switchover":
		return t.switchOver(c)
	case "leader":
		return t.killLeader(c)
	}
	return t.failOver(c, s)
}

// rest waits until all regions confirm writes or take them.
func (t *world) rest() (c *regions.Cluster, err error) {
	return t.await("all regions are at rest", func(c *regions.Cluster) bool {
		return c.Operation == nil && c.Complete && c.Durability.Mode == regions.Quorum && len(c.Sync) == len(t.Regions())-1 && len(c.Blocked) == 0
	})
}

// between measures from before what do does until the next second after it.
func (t *world) between(do func() error) (steadyReport, error) {
	if _, err := t.load.ask(steadyCommand{Tell: true}); err != nil {
		return steadyReport{}, err
	}
	time.Sleep(time.Second)
	if err := do(); err != nil {
		return steadyReport{}, err
	}
	time.Sleep(time.Second)
	return t.load.ask(steadyCommand{Tell: true})
}

func (t *world) switchOver(c *regions.Cluster) (r failoverResult, err error) {
	to := c.Sync[0]
	for _, id := range c.Sync { // go round
		if id > c.Primary {
			to = id
			break
		}
	}
	r.load, err = t.between(func() error {
		var answer map[string]any
		if _, err := t.client(c.Primary).AdminPost(t.ctx, "switchover", map[string]any{"to": to, "reason": "a measurement"}, &answer); err != nil {
			return err
		}
		_, err := t.await("the primary has moved", func(n *regions.Cluster) bool {
			return n.Primary == to && n.PrimaryEpoch > c.PrimaryEpoch && n.Operation == nil
		})
		return err
	})
	if err == nil {
		r.entry, err = t.entry(c.PrimaryEpoch, "")
	}
	return r, err
}

// failOver kills the primary region, or cuts it off, with the load on the others; then the region comes back.
func (t *world) failOver(c *regions.Cluster, s *failoverSeries) (r failoverResult, err error) {
	old := c.Primary
	t.load.aim(t.nodes(old))
	defer func() { t.load.aim(t.nodes("")) }()
	gone := t.Region(old)
	fault, mend := t.Kill, t.Revive
	if s.kind == "isolate" {
		fault, mend = t.Isolate, t.Rejoin
	}
	r.load, err = t.between(func() error {
		fault(gone)
		_, err := t.await("another region takes writes", func(n *regions.Cluster) bool {
			return n.Primary != old && n.PrimaryEpoch > c.PrimaryEpoch && n.Operation == nil
		})
		return err
	})
	if err != nil {
		return r, err
	}
	if r.entry, err = t.entry(c.PrimaryEpoch, old); err != nil {
		return r, err
	}
	if s.kind == "isolate" && t.acknowledges(gone) {
		s.late++
	}
	began := time.Now()
	if err := mend(gone); err != nil {
		return r, err
	}
	_, err = t.await(string(old)+" is a standby again", func(n *regions.Cluster) bool {
		return slices.ContainsFunc(n.Regions, func(r regions.ClusterRegion) bool {
			return r.Name == old && r.Held && r.Database != nil && r.Database.Streaming && r.Database.Upstream == n.Primary
		})
	})
	if err != nil {
		return r, err
	}
	r.home = time.Since(began)
	for _, verb := range []string{"ack", "regions/" + string(old) + "/undrain"} {
		var answer map[string]any
		body := map[string]any{"reason": "a measurement"}
		if _, err := t.client(old).AdminPost(t.ctx, verb, body, &answer); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Kill ends all processes of a region at once.
func (t *world) Kill(r *planet.Region) {
	var all sync.WaitGroup
	all.Go(r.Postgres.Kill)
	for _, n := range r.Nodes {
		all.Go(n.Kill)
	}
	all.Wait()
}

// Revive starts what Kill ended.
func (t *world) Revive(r *planet.Region) error {
	if err := r.Postgres.Start(t.ctx); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if err := n.Start(t.ctx); err != nil {
			return err
		}
	}
	return nil
}

// Isolate drops everything between the region and the others, without a word to either; Rejoin ends that.
func (t *world) Isolate(r *planet.Region) { t.Blackhole(r.ID, "") }

// Rejoin ends Isolate.
func (t *world) Rejoin(r *planet.Region) error { t.Heal(r.ID, ""); return nil }

// acknowledges tells whether a node of the region takes a write.
func (t *world) acknowledges(r *planet.Region) bool {
	ctx, cancel := context.WithTimeout(t.ctx, time.Second)
	defer cancel()
	c, err := client.New(client.Config{Server: r.Nodes[0].API(), Key: t.AdminKey(), Attempts: 1})
	if err != nil {
		return false
	}
	length := 1
	_, err = c.SetQueue(ctx, shortline.QueueUpdate{ID: storeID(fewStores - 1), Length: &length}, client.WriteOptions{}) // the load spares it
	return err == nil
}

// killLeader kills the node that leads the control plane: nothing must move.
func (t *world) killLeader(c *regions.Cluster) (r failoverResult, err error) {
	var leader *planet.Node
	for _, n := range t.Nodes() {
		if n.Name() == c.Leader {
			leader = n
		}
	}
	if leader == nil {
		return r, fmt.Errorf("the leader %q is none of the nodes", c.Leader)
	}
	var others []string
	for _, n := range t.Nodes() {
		if n != leader {
			others = append(others, n.API())
		}
	}
	t.load.aim(others)
	defer func() { t.load.aim(t.nodes("")) }()
	r.load, err = t.between(func() error {
		leader.Kill()
		_, err := t.await("another voter leads", func(n *regions.Cluster) bool { return n.Complete && n.Leader != c.Leader })
		return err
	})
	if err != nil {
		return r, err
	}
	if n, err := t.await("the regions are at rest", func(n *regions.Cluster) bool { return n.Complete && n.Operation == nil }); err != nil || n.PrimaryEpoch != c.PrimaryEpoch {
		return r, fmt.Errorf("the leader's death moved the primary from epoch %d to %d: %w", c.PrimaryEpoch, n.PrimaryEpoch, errors.Join(err))
	}
	return r, leader.Start(t.ctx)
}

// nodes are the APIs of all nodes but those of one region.
func (t *world) nodes(but regions.ID) (all []string) {
	for _, r := range t.Regions() {
		for _, n := range r.Nodes {
			if r.ID != but {
				all = append(all, n.API())
			}
		}
	}
	return all
}

// client asks a node that runs, of another region if it can be.
func (t *world) client(but regions.ID) *client.Client {
	var n *planet.Node
	for _, other := range t.Nodes() {
		if other.Running() && (n == nil || !strings.HasPrefix(other.Name(), string(but)+"-")) {
			n = other
		}
	}
	c, _ := client.New(client.Config{Server: n.API(), AdminServer: n.Admin(), Key: t.AdminKey(), Attempts: 1})
	return c
}

// await asks what the control plane says until it is as wanted; nodes of a region that is cut off are not believed for long.
func (t *world) await(what string, ok func(*regions.Cluster) bool) (*regions.Cluster, error) {
	var last string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, r := range t.Regions() {
			n := r.Nodes[0]
			if !n.Running() {
				continue
			}
			c, err := client.New(client.Config{Server: n.API(), AdminServer: n.Admin(), Key: t.AdminKey(), Attempts: 1})
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(t.ctx, time.Second)
			got := new(regions.Cluster)
			_, err = c.AdminGet(ctx, "cluster", got)
			cancel()
			if err == nil && got.Complete && ok(got) {
				return got, nil
			}
			if text, _ := json.Marshal(got); err == nil {
				last = string(text)
			}
		}
		if err := t.ctx.Err(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("still not: %s; the control plane says %.2000s", what, last)
}

// entry is the change of the primary after an epoch, asked of another region than one that may be cut off.
func (t *world) entry(after uint64, but regions.ID) (regions.Entry, error) {
	var a struct{ History []regions.Entry }
	_, err := t.client(but).AdminGet(t.ctx, "history", &a)
	for _, e := range a.History {
		if e.PauseMS > 0 && e.Epoch > after {
			return e, nil
		}
	}
	return regions.Entry{}, errors.Join(err, fmt.Errorf("the history has no change of the primary after epoch %d", after))
}

func marks(steps []regions.Mark) string {
	var b strings.Builder
	for _, m := range steps {
		fmt.Fprintf(&b, "%s %.0f ", m.Step, m.TookMS)
	}
	return strings.TrimSpace(b.String())
}

// steadyProcess is the load generator, in a process of its own.
type steadyProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	to  *json.Encoder
	out *json.Decoder
}

func startSteady(ctx context.Context, p *planet.Planet, writes, reads int, run string) (*steadyProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var ids []string
	for i := range fewStores - 1 {
		ids = append(ids, string(storeID(i)))
	}
	cmd := exec.CommandContext(ctx, self, "failover-load", "-writes", fmt.Sprint(writes), "-reads", fmt.Sprint(reads), "-stores", strings.Join(ids, ","), "-run", run)
	cmd.Env, cmd.Stderr, cmd.SysProcAttr = append(os.Environ(), "SHORTLINE_KEY="+p.AdminKey()), os.Stderr, &syscall.SysProcAttr{}
	dieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	s := &steadyProcess{cmd: cmd}
	if s.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.to, s.out = json.NewEncoder(s.in), json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var nodes []string
	for _, n := range p.Nodes() {
		nodes = append(nodes, n.API())
	}
	s.aim(nodes)
	return s, nil
}

// aim sends the load to other nodes from now on; that it fails is seen by the next question.
func (s *steadyProcess) aim(nodes []string) { _ = s.to.Encode(steadyCommand{Nodes: nodes}) }

func (s *steadyProcess) ask(c steadyCommand) (r steadyReport, err error) {
	if err := s.to.Encode(c); err != nil {
		return r, fmt.Errorf("command the load generator: %w", err)
	}
	if err := s.out.Decode(&r); err != nil {
		return r, fmt.Errorf("ask the load generator: %w", err)
	}
	return r, nil
}

func (s *steadyProcess) stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}
