package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	testKey = "a cluster key of the tests"
	// patience is how long a test waits for what has to come; it is never a measure.
	patience = 60 * time.Second
)

// link is the way from one node to a voter: a proxy that can be cut.
type link struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	all   sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{l: l, target: target, conns: map[net.Conn]bool{}}
	k.all.Go(k.serve)
	t.Cleanup(func() {
		_ = l.Close()
		k.set(true)
		k.all.Wait()
	})
	return k
}

func (k *link) addr() string { return k.l.Addr().String() }

func (k *link) serve() {
	for {
		in, err := k.l.Accept()
		if err != nil {
			return
		}
		k.all.Go(func() { k.pass(in) })
	}
}

// hold notes a connection, unless the link is cut.
func (k *link) hold(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cut {
		_ = c.Close()
		return false
	}
	k.conns[c] = true
	return true
}

func (k *link) pass(in net.Conn) {
	if !k.hold(in) {
		return
	}
	out, err := net.Dial("tcp", k.target)
	if err != nil || !k.hold(out) {
		_ = in.Close()
		return
	}
	var both sync.WaitGroup
	for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = io.Copy(c[0], c[1])
			_ = c[0].Close()
			_ = c[1].Close()
		})
	}
	both.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, in)
	delete(k.conns, out)
}

func (k *link) set(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	if cut {
		for c := range k.conns {
			_ = c.Close()
		}
	}
}

// world is voters, and nodes that follow them, in one process.
type world struct {
	t      *testing.T
	dir    string
	addrs  map[regions.ID]string
	links  map[string]*link // "from>to"
	mu     sync.Mutex
	nodes  map[string]*running // by name; a voter's is its region's; guarded by mu
	tweak  func(*Config)
	logged *testLog
}

type running struct {
	*Node
	stop context.CancelFunc
	done chan error
}

// testLog keeps the log for when a test fails: the tests stop before all of raft does.
type testLog struct {
	mu  sync.Mutex
	out []byte
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, b...)
	return len(b), nil
}

func newWorld(t *testing.T, voters ...regions.ID) *world {
	w := &world{t: t, dir: t.TempDir(), addrs: map[regions.ID]string{}, links: map[string]*link{}, nodes: map[string]*running{}, logged: new(testLog)}
	for _, id := range voters {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.addrs[id] = l.Addr().String()
		_ = l.Close()
	}
	t.Cleanup(func() {
		for _, name := range w.names() {
			w.halt(name)
		}
		if t.Failed() {
			w.logged.mu.Lock()
			defer w.logged.mu.Unlock()
			t.Logf("the log:\n%s", w.logged.out)
		}
	})
	return w
}

func (w *world) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.nodes {
		names = append(names, name)
	}
	return names
}

func (w *world) folder(name string) string { return filepath.Join(w.dir, name) }

func (w *world) config(name string, region regions.ID, voter bool) Config {
	c := Config{Cluster: "test", Region: region, Node: name, Voter: voter, Dir: w.folder(name), ClusterKeys: peer.Keys{testKey}, Voters: map[regions.ID]string{},
		Heartbeat: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(w.logged, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)}
	for id, addr := range w.addrs {
		key := name + ">" + string(id)
		if w.links[key] == nil {
			w.links[key] = newLink(w.t, addr)
		}
		c.Voters[id] = w.links[key].addr()
	}
	if w.tweak != nil {
		w.tweak(&c)
	}
	return c
}

// start runs a node; a name that is a region's makes it that region's voter.
func (w *world) start(name string, region regions.ID) *running {
	w.t.Helper()
	return w.startWith(name, region, func(*Node) {})
}

// startWith changes a node before it runs.
func (w *world) startWith(name string, region regions.ID, change func(*Node)) *running {
	w.t.Helper()
	voter := name == string(region)
	n, err := New(w.config(name, region, voter))
	if err != nil {
		w.t.Fatal(err)
	}
	change(n)
	var l net.Listener
	if voter {
		w.until("the port of "+name+" is free", func() bool {
			l, err = net.Listen("tcp", w.addrs[region])
			return err == nil
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Node: n, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx, l) }()
	w.mu.Lock()
	w.nodes[name] = r
	w.mu.Unlock()
	return r
}

// halt stops a node as an operator does.
func (w *world) halt(name string) {
	w.t.Helper()
	w.mu.Lock()
	r := w.nodes[name]
	delete(w.nodes, name)
	w.mu.Unlock()
	r.stop()
	if err := <-r.done; err != nil {
		w.t.Errorf("%s ended with %v", name, err)
	}
}

// crash stops a node without any goodbye: it is cut off first.
func (w *world) crash(name string) {
	w.isolate(name, true)
	w.halt(name)
	w.isolate(name, false)
}

// isolate cuts all links from and to a node, or mends them.
func (w *world) isolate(name string, cut bool) {
	for key, l := range w.links {
		var from, to string
		for i := range key {
			if key[i] == '>' {
				from, to = key[:i], key[i+1:]
			}
		}
		if from != to && (from == name || to == name) {
			l.set(cut)
		}
	}
}

func (w *world) wipe(name string) {
	w.t.Helper()
	if err := os.RemoveAll(w.folder(name)); err != nil {
		w.t.Fatal(err)
	}
}

// until waits for what has to come.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leader waits until exactly one of the running voters leads, and returns its name.
func (w *world) leader() string {
	w.t.Helper()
	var name string
	w.until("somebody leads", func() bool {
		name = ""
		for _, other := range w.names() {
			w.mu.Lock()
			n := w.nodes[other]
			w.mu.Unlock()
			if n == nil {
				continue
			}
			if _, ok := n.Leading(); ok {
				if name != "" {
					return false
				}
				name = other
			}
		}
		return name != ""
	})
	return name
}

func (w *world) propose(name string, c regions.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.At = time.Unix(1_800_000_000, 0).UTC()
	return w.nodes[name].Propose(ctx, c)
}

// set proposes until it is known to be in force.
func (w *world) set(name string, c regions.Command) {
	w.t.Helper()
	for {
		err := w.propose(name, c)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			w.t.Fatalf("propose at %s: %v", name, err)
		}
		return
	}
}

func bootstrap(primary regions.ID, ids ...regions.ID) regions.Command {
	b := &regions.Bootstrap{Cluster: "test", ClusterID: "test-1", Primary: primary, Epoch: 1}
	for _, id := range ids {
		b.Regions = append(b.Regions, regions.Region{ID: id, Witness: id == "witness"})
	}
	return regions.Command{Bootstrap: b}
}

func remark(format string, args ...any) regions.Command {
	return regions.Command{Remark: &regions.Remark{Event: fmt.Sprintf(format, args...)}}
}

// knows tells whether a node has heard of a remark.
func (w *world) knows(name, event string) bool {
	for _, e := range w.nodes[name].View().State.History {
		if e.Event == event {
			return true
		}
	}
	return false
}

func (w *world) allKnow(event string, names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.until(name+" knows of "+event, func() bool { return w.knows(name, event) })
	}
}

// three starts three voters and sets them up, with a as the primary.
func three(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, "a", "b", "c")
	for _, id := range []regions.ID{"a", "b", "c"} {
		w.start(string(id), id)
	}
	w.set("a", bootstrap("a", "a", "b", "c"))
	return w
}

func (w *world) region(voter string) regions.ID { return regions.ID(voter) }
