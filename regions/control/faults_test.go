package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

func (w *world) logHas(text string) bool {
	w.logged.mu.Lock()
	defer w.logged.mu.Unlock()
	return bytes.Contains(w.logged.out, []byte(text))
}

// short proposes with little patience.
func (w *world) short(name string, c regions.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	return w.nodes[name].Propose(ctx, c)
}

func TestIsolatedLeaderDecidesNothing(t *testing.T) {
	w := three(t)
	old := w.leader()
	w.isolate(old, true)
	w.until("it knows that it leads nobody", func() bool { _, ok := w.nodes[old].Leading(); return !ok })
	if err := w.short(old, remark("alone")); err == nil {
		t.Error("a leader without a majority decided something")
	}
	other := w.leader()
	w.set(other, remark("majority"))
	w.isolate(old, false)
	w.allKnow("majority", "a", "b", "c")
	for _, name := range w.names() {
		if w.knows(name, "alone") {
			t.Errorf("%s knows of what a leader without a majority wanted", name)
		}
	}
}

func TestRestartOfAll(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.tweak = func(c *Config) { c.SnapshotEvery = 8 }
	for _, id := range []regions.ID{"a", "b", "c"} {
		w.start(string(id), id)
	}
	w.set("a", bootstrap("a", "a", "b", "c"))
	for range 40 {
		w.set("b", regions.Command{Renew: &regions.Renew{Region: "a", Epoch: 1, Node: "a1"}})
	}
	w.start("a2", "a")
	w.set("b", remark("one"))
	w.allKnow("one", "a", "b", "c", "a2")
	for _, name := range w.names() {
		w.halt(name)
	}
	alone := w.start("a2", "a") // nobody to ask, and yet it knows what it knew
	if s := alone.State(); s.ClusterID != "test-1" || s.Primary != "a" || !w.knows("a2", "one") {
		t.Errorf("after a restart without anybody else: %+v", s)
	}
	if alone.Check() == nil {
		t.Error("and it does not say that it hears of nobody")
	}
	for _, id := range []regions.ID{"a", "b", "c"} {
		if n := w.start(string(id), id); n.State().ClusterID != "test-1" {
			t.Errorf("%s has forgotten", id)
		}
	}
	w.set("a2", remark("two"))
	w.allKnow("two", "a", "b", "c", "a2")
	if l := w.nodes["c"].life.Load(); l.ledger.get().State.Lease.Renewals != 40 {
		t.Errorf("%d renewals, want 40", l.ledger.get().State.Lease.Renewals)
	}
}

// forgetting commits something that one voter lacks, and then takes the disk of one of the two that have it and the other one
// altogether. It tells whether the one that lacks it was made the leader, and so what was agreed on is lost.
func forgetting(t *testing.T, forgetful bool) (lost bool) {
	w := newWorld(t, "a", "b", "c")
	for _, id := range []regions.ID{"a", "b", "c"} {
		w.start(string(id), id)
	}
	w.set("a", bootstrap("x", "x")) // no voter's region is primary, so leadership stays
	t.Helper()
	leader := w.leader()
	var wiped, lacks string
	for _, name := range []string{"a", "b", "c"} {
		switch {
		case name == leader:
		case wiped == "":
			wiped = name
		default:
			lacks = name
		}
	}
	w.allKnow("bootstrap", "a", "b", "c")
	w.isolate(lacks, true)
	w.set(leader, remark("precious"))
	w.allKnow("precious", wiped)
	w.isolate(leader, true)
	w.isolate(lacks, false)
	w.links[leader+">"+lacks].set(true)
	w.links[lacks+">"+leader].set(true)
	w.halt(leader)
	w.halt(wiped)
	w.wipe(wiped)
	n := w.startWith(wiped, regions.ID(wiped), func(n *Node) { n.forgetful = forgetful })
	if forgetful {
		w.until("the voter that lacks it leads", func() bool { _, ok := w.nodes[lacks].Leading(); return ok })
		return !w.knows(lacks, "precious")
	}
	w.until("it was asked for its vote", func() bool { return w.logHas("it does not vote yet") })
	if v := n.keeper.voter(); v == nil || !v.Rejoining {
		t.Errorf("the voter without a disk is %+v", v)
	}
	w.isolate(leader, false)
	w.start(leader, regions.ID(leader))
	w.allKnow("precious", "a", "b", "c")
	w.until("it votes again", func() bool { return !n.keeper.voter().Rejoining })
	// And now it is as good as any.
	w.crash(leader)
	w.set(lacks, remark("after"))
	w.allKnow("after", wiped, lacks)
	return false
}

func TestControlStateSurvivesTheLossOfAVotersDisk(t *testing.T) {
	if forgetting(t, false) {
		t.Error("what was agreed on is lost")
	}
	if !forgetting(t, true) {
		t.Error("a voter that votes without its memory was not caught")
	}
}

func TestFiveVotersLoseTwo(t *testing.T) {
	ids := []regions.ID{"a", "b", "c", "d", "e"}
	w := newWorld(t, ids...)
	for _, id := range ids {
		w.start(string(id), id)
	}
	w.set("a", bootstrap("a", ids...))
	first := w.leader()
	w.crash(first)
	second := w.leader()
	w.crash(second)
	third := w.leader()
	w.set(third, remark("three are enough"))
	w.wipe(first)
	w.start(first, regions.ID(first))
	w.start(second, regions.ID(second))
	w.allKnow("three are enough", "a", "b", "c", "d", "e")
	w.until("it votes again", func() bool { return !w.nodes[first].keeper.voter().Rejoining })
}

func TestFoldersOfOthersAreRefused(t *testing.T) {
	w := three(t)
	w.allKnow("bootstrap", "a", "b", "c")
	for _, name := range []string{"a", "b", "c"} {
		w.halt(name)
	}
	for want, change := range map[string]func(*Config){
		`of the cluster "test", this node of "other"`: func(c *Config) { c.Cluster = "other" },
		`voter of a, this node is of b`:               func(c *Config) { c.Region = "b" },
	} {
		cfg := w.config("a", "a", true)
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(w.folder("b"), stateFile), []byte(`{"format":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(w.config("b", "b", true)); err == nil || !strings.Contains(err.Error(), "format 7") {
		t.Errorf("a state of another form: %v", err)
	}
	if err := os.Remove(filepath.Join(w.folder("c"), voterFile)); err != nil {
		t.Fatal(err)
	}
	n, err := New(w.config("c", "c", true))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", w.addrs["c"])
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "no voter's folder") {
		t.Errorf("a log that is nobody's: %v", err)
	}
}

// A voter with the log of another cluster that has the same name and key neither takes part nor is let in.
func TestVoterOfAnotherClusterIsRefused(t *testing.T) {
	other := newWorld(t, "a", "b", "c")
	for _, id := range []regions.ID{"a", "b", "c"} {
		other.start(string(id), id)
	}
	strange := bootstrap("a", "a", "b", "c")
	strange.Bootstrap.ClusterID = "test-2"
	other.set("a", strange)
	other.set("a", remark("strange"))
	other.allKnow("strange", "c")
	other.halt("c")

	w := three(t)
	w.allKnow("bootstrap", "a", "b", "c")
	w.halt("c")
	w.wipe("c")
	if err := os.CopyFS(w.folder("c"), os.DirFS(other.folder("c"))); err != nil {
		t.Fatal(err)
	}
	w.start("c", "c")
	w.until("it is refused", func() bool { return w.logHas("is of another cluster (test-") })
	w.set("a", remark("ours"))
	w.allKnow("ours", "a", "b")
	if w.knows("c", "ours") || w.knows("a", "strange") || w.nodes["c"].State().ClusterID != "test-2" {
		t.Error("the two clusters have become one")
	}
}

func TestOutsidersAreRefused(t *testing.T) {
	w := three(t)
	try := func(key string, h hello) (verdict, error) {
		conn, err := net.Dial("tcp", w.addrs["a"])
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return call(conn, peer.Keys{key}, h)
	}
	good := hello{Cluster: "test", ClusterID: "test-1", Incarnation: 1, From: "b", To: "a"}
	w.allKnow("bootstrap", "a")
	if v, err := try(testKey, good); err != nil || v.Why != "" {
		t.Fatalf("a voter: %+v, %v", v, err)
	}
	if _, err := try("the key of somebody else", good); !errors.Is(err, ErrOutsider) {
		t.Errorf("another key: %v", err)
	}
	for want, h := range map[string]hello{
		"of the cluster":     {Cluster: "other", From: "b", To: "a"},
		"of another cluster": {Cluster: "test", ClusterID: "test-2", From: "b", To: "a"},
		"not of b":           {Cluster: "test", From: "b", To: "b"},
		"none of the other":  {Cluster: "test", From: "z", To: "a"},
		"none of the oth":    {Cluster: "test", From: "a", To: "a"},
	} {
		if v, err := try(testKey, h); err != nil || !strings.Contains(v.Why, want) {
			t.Errorf("%+v: %+v, %v; want %q", h, v, err, want)
		}
	}
	// What answers without the key is found out by the caller.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer func() { _ = l.Close() }()
	all.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(conn, make([]byte, len(magic)))
		_, _ = answer(conn, peer.Keys{"the key of somebody else"}, func(hello) verdict { return verdict{} })
		_ = conn.Close()
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := call(conn, peer.Keys{testKey}, good); !errors.Is(err, ErrOutsider) {
		t.Errorf("an answer without the key: %v", err)
	}
}

// Raft that is stuck in giving its leadership away is started anew.
func TestStuckRaftIsStartedAnew(t *testing.T) {
	w := newWorld(t, "a")
	n := w.startWith("a", "a", func(n *Node) { n.wedge.Store(true) })
	w.until("raft runs", func() bool { return n.life.Load() != nil })
	first := n.life.Load()
	w.until("it is started anew", func() bool { l := n.life.Load(); return l != nil && l != first })
	n.wedge.Store(false)
	w.set("a", bootstrap("a", "a"))
}

func TestRestoreWithASoleVoter(t *testing.T) {
	w := three(t)
	w.start("b2", "b")
	w.set("a", remark("before"))
	w.allKnow("before", "a", "b", "c", "b2")
	text, view, err := Backup(w.folder("b2"))
	if err != nil || view.State.ClusterID != "test-1" || len(text) == 0 {
		t.Fatalf("%+v, %v", view, err)
	}
	for _, name := range []string{"a", "b", "c"} { // whoever leads
		var refused *regions.RefusedError
		if err := w.propose(name, regions.Command{Restore: &regions.Restore{Primary: "b", Epoch: 99}}); !errors.As(err, &refused) || refused.Rule != regions.RuleInvalid {
			t.Errorf("a restore of a control plane that runs: %v", err)
		}
	}
	restore := RestoreConfig{Cluster: "test", Dir: w.folder("c"), Region: "c", Primary: "b", By: "an operator", Why: "two regions burnt down", Now: time.Unix(1_800_000_000, 0)}
	if _, _, _, err := Restore(restore); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("while the node runs: %v", err)
	}
	for _, name := range []string{"a", "b", "c"} {
		w.halt(name)
	}
	for want, change := range map[string]func(*RestoreConfig){
		"of the cluster": func(c *RestoreConfig) { c.Cluster = "other" },
		"no region z":    func(c *RestoreConfig) { c.Region = "z" },
		"no region with": func(c *RestoreConfig) { c.Primary = "z" },
		"name a backup":  func(c *RestoreConfig) { c.Dir = t.TempDir() },
	} {
		bad := restore
		change(&bad)
		if _, _, _, err := Restore(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	before, after, aside, err := Restore(restore)
	if err != nil || after.State.Epoch <= before.State.Epoch || after.State.Operation == nil || after.State.Operation.Target != "b" {
		t.Fatalf("%+v, %v", after, err)
	}
	if _, err := os.Stat(filepath.Join(aside, raftFile)); err != nil {
		t.Error(err)
	}

	// The sole voter goes on alone; a follower takes that over; a voter from before is refused, and taken in once it is empty.
	w.start("c", "c")
	w.set("c", remark("after"))
	w.allKnow("after", "c", "b2")
	if !w.knows("c", "before") {
		t.Error("what was there before is gone")
	}
	old := w.start("a", "a")
	w.until("the voter from before is refused", func() bool { return old.Check() != nil && strings.Contains(old.Check().Error(), "restored by force") })
	w.halt("a")
	w.wipe("a")
	w.wipe("b")
	w.start("a", "a")
	w.allKnow("after", "a")
	w.start("b", "b")
	w.allKnow("after", "b")
	w.until("there are three voters", func() bool {
		f := w.nodes["c"].life.Load().raft.GetConfiguration()
		votes := 0
		if f.Error() == nil {
			for _, s := range f.Configuration().Servers {
				if s.Suffrage == 0 {
					votes++
				}
			}
		}
		return votes == 3 && !w.nodes["a"].keeper.voter().Rejoining && !w.nodes["b"].keeper.voter().Rejoining
	})
	w.crash("c")
	w.set("a", remark("without the sole voter"))

	// From a backup, onto a folder that has nothing.
	file := filepath.Join(t.TempDir(), "backup.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, after, _, err = Restore(RestoreConfig{Cluster: "test", Dir: filepath.Join(t.TempDir(), "new"), Region: "c", From: file, Epoch: 40, Now: time.Unix(1_800_000_000, 0)})
	if err != nil || after.State.Epoch != 40 || after.State.Operation.Target != "a" {
		t.Errorf("from a backup: epoch %d, %v", after.State.Epoch, err)
	}
}

// The state behaves as one register that everybody compares and sets, while leaders are cut off or die and come back.
func TestRegisterIsLinearizable(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", kill), func(t *testing.T) { testRegister(t, kill) })
	}
}

func testRegister(t *testing.T, kill bool) {
	w := three(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	node := func(name string) *Node { // nil while it is dead
		w.mu.Lock()
		defer w.mu.Unlock()
		if r := w.nodes[name]; r != nil {
			return r.Node
		}
		return nil
	}
	const clients, each = 4, 15
	pace := 40
	if kill {
		pace = 200
	}
	type in struct{ from uint32 }
	type out struct{ ok, unknown bool }
	var mu sync.Mutex
	var history []porcupine.Operation
	begun := time.Now()
	var all sync.WaitGroup
	var kills atomic.Int32
	start := w.nodes["a"].State().Attempt
	for client := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(client)))
			name := []string{"a", "b", "c"}[client%3]
			for known := 0; known < each || kill && kills.Load() < 2; {
				n := node(name)
				if n == nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				guess := n.State().Attempt + uint32(rng.IntN(2))
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				called := time.Since(begun)
				err := n.Propose(ctx, regions.Command{Sync: &regions.SyncChange{Move: regions.Grow, Region: "b", Attempt: guess}})
				cancel()
				returned := time.Since(begun)
				var why *regions.RefusedError
				o := out{ok: err == nil}
				switch {
				case errors.As(err, &why) && why.Rule == regions.RuleNoLeader:
					continue // it was not made
				case err == nil, errors.As(err, &why):
					known++
				default:
					o.unknown, returned = true, time.Hour
					time.Sleep(100 * time.Millisecond) // cut off, most likely
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: in{guess}, Output: o, Call: int64(called), Return: int64(returned)})
				mu.Unlock()
				time.Sleep(time.Duration(rng.IntN(pace)) * time.Millisecond)
			}
		})
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			name := []string{"a", "b", "c"}[(seed+uint64(i))%3]
			for _, other := range []string{"a", "b", "c"} {
				if n := node(other); n != nil {
					if _, ok := n.Leading(); ok {
						name = other
					}
				}
			}
			w.isolate(name, true)
			if kill {
				w.halt(name)
				w.isolate(name, false)
				time.Sleep(700 * time.Millisecond)
				w.start(name, regions.ID(name))
				kills.Add(1)
				select {
				case <-stop:
					return
				case <-time.After(1200 * time.Millisecond):
				}
				continue
			}
			select {
			case <-stop:
				w.isolate(name, false)
				return
			case <-time.After(700 * time.Millisecond):
			}
			w.isolate(name, false)
			select {
			case <-stop:
				return
			case <-time.After(1200 * time.Millisecond):
			}
		}
	}()
	all.Wait()
	close(stop)
	<-done
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{start} },
		Step: func(state, input, output any) []any {
			s, i, o := state.(uint32), input.(in), output.(out)
			switch {
			case o.unknown && s == i.from:
				return []any{s, s + 1}
			case o.unknown:
				return []any{s}
			case o.ok && s == i.from:
				return []any{s + 1}
			case !o.ok && s != i.from:
				return []any{s}
			}
			return nil
		},
	}
	m := model.ToModel()
	done2, unknown := 0, 0
	for _, op := range history {
		if op.Output.(out).ok {
			done2++
		}
		if op.Output.(out).unknown {
			unknown++
		}
	}
	t.Logf("%d operations, %d were done, of %d it is not known", len(history), done2, unknown)
	if r := porcupine.CheckOperationsTimeout(m, history, 20*time.Second); r != porcupine.Ok {
		t.Fatalf("the history is not linearizable: %v", r)
	}
	if done2 == 0 {
		t.Fatal("nothing was done")
	}
	if kill {
		return
	}
	// The check can fail: two are told that they made the same step.
	for _, op := range history {
		if op.Output.(out).ok {
			op.ClientId = clients
			history = append(history, op)
			break
		}
	}
	if porcupine.CheckOperationsTimeout(m, history, 20*time.Second) == porcupine.Ok {
		t.Error("a history in which one step was made twice passes")
	}
}

// What a leader has decided is brought before no other: it is in force in its own term, or not at all.
func TestDecisionsOfAnEarlierTerm(t *testing.T) {
	w := three(t)
	old := w.leader()
	term, _ := w.nodes[old].Leading()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	decide := func(event string) error {
		c := remark("%s", event)
		c.At = time.Unix(1_800_000_000, 0).UTC()
		return w.nodes[old].ProposeIn(ctx, term, c)
	}
	w.until("it leads for good", func() bool { // outside the primary region
		old = w.leader()
		now, ok := w.nodes[old].Leading()
		term = now
		return ok && old != "a"
	})
	if err := decide("in its term"); err != nil {
		t.Fatal(err)
	}
	w.isolate(old, true)
	w.until("another leads", func() bool {
		for _, name := range w.names() {
			if _, ok := w.nodes[name].Leading(); ok && name != old {
				return true
			}
		}
		return false
	})
	w.isolate(old, false)
	w.until("the old one has heard of it", func() bool {
		leader, now := w.nodes[old].Leader()
		return string(leader) != old && now > term
	})
	var why *regions.RefusedError
	if err := decide("after its term"); !errors.As(err, &why) || why.Rule != regions.RuleNoLeader {
		t.Errorf("after its term: %v", err)
	}
	w.set(old, remark("by whoever leads"))
	w.allKnow("by whoever leads", "a", "b", "c")
	if w.knows("a", "after its term") || !w.knows("a", "in its term") {
		t.Error("the decision of an earlier term is in force, or that of its own is not")
	}
}
