package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// View is what a node knows of the agreed state. It is not changed once it was returned.
type View struct {
	State regions.State
	// Index grows with every change other than a renewal of the lease, Incarnation with every restore by force.
	Index, Incarnation uint64
}

// newer tells whether v replaces old.
func (v View) newer(old View) bool {
	if v.Incarnation != old.Incarnation {
		return v.Incarnation > old.Incarnation
	}
	return v.Index >= old.Index
}

// Node is one node's part in the control plane. Its methods may be called before, while and after it runs.
type Node struct {
	cfg      Config
	log      *slog.Logger
	client   *peer.Client
	verifier *peer.Verifier
	mux      *http.ServeMux
	keeper   *keeper
	metrics  *metrics

	view     atomic.Pointer[View]
	mu       sync.Mutex
	changed  chan struct{}       // closed at the next change and replaced; guarded by mu
	heard    heard               // guarded by mu; of a node that is no voter
	deciding bool                // this voter has not found out yet whether the cluster is new; guarded by mu
	blank    map[regions.ID]bool // voters that knew of nothing since this node was started; guarded by mu
	foreign  string              // why this node's data does not fit to the others', "" if it does; guarded by mu

	forgetful bool        // mutant: a voter that lost its disk votes at once
	wedge     atomic.Bool // of tests: raft behaves as in hashicorp/raft#696

	// life is the raft that runs, nil while none does. incoming are voters' connections for it.
	life     atomic.Pointer[life]
	incoming chan net.Conn
}

// heard is what a follower was told last.
type heard struct {
	at      time.Duration // by the clock, when what was told was surely in force; 0: never
	leader  regions.ID
	term    uint64
	lastErr error
}

// New makes a Node; it reads what this node knew when it last ran. A folder of another cluster or region is refused.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	client, err := peer.NewClient(cfg.ClusterKeys, cfg.Identity)
	if err != nil {
		return nil, err
	}
	verifier, err := peer.NewVerifier(cfg.ClusterKeys, nil)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log.With("part", "control"), client: client, verifier: verifier, mux: http.NewServeMux(),
		changed: make(chan struct{}), incoming: make(chan net.Conn), deciding: cfg.Voter, blank: map[regions.ID]bool{}}
	if n.keeper, err = openKeeper(cfg); err != nil {
		return nil, err
	}
	k := n.keeper.last()
	n.view.Store(&View{State: k.State, Index: k.Index, Incarnation: k.Incarnation})
	n.metrics = newMetrics(n)
	n.routes()
	return n, nil
}

// Run takes part until ctx ends. A voter needs a listener, which is closed; the others need none.
func (n *Node) Run(ctx context.Context, l net.Listener) error {
	if n.cfg.Voter != (l != nil) {
		return errors.New("a voter needs a listener, and no other node does")
	}
	defer n.client.Close()
	group, alive := errgroup.WithContext(ctx)
	// Calls and connections of others are answered until this node's own part is over: it hands its leadership over.
	answering, stopAnswering := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAnswering()
	stop := context.AfterFunc(alive, func() {
		if !n.cfg.Voter {
			stopAnswering()
		}
	})
	defer stop()
	group.Go(func() error { return n.keeper.run(answering, n) })
	if !n.cfg.Voter {
		group.Go(func() error { return n.follow(alive) })
		return group.Wait()
	}
	p := &port{identity: n.cfg.Identity, streams: n.incoming, calls: newQueue(l.Addr()), answer: n.answer, refused: n.refused}
	server := peer.NewServer(n.mux, 30*time.Second, n.log)
	group.Go(func() error { return p.run(answering, l) })
	group.Go(func() error {
		if err := server.Serve(p.calls); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serve the control port: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		defer func() {
			stopAnswering()
			_ = server.Close()
		}()
		return n.vote(alive)
	})
	return group.Wait()
}

// View returns what is known now. Before anything is known its State has no ClusterID.
func (n *Node) View() View { return *n.view.Load() }

// Changed returns a channel that is closed at the next change other than a renewal of the lease.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// publish makes a view the known one, unless a newer is known.
func (n *Node) publish(v View, quiet bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.view.Load(); !v.newer(*old) {
		return
	}
	n.view.Store(&v)
	if !quiet {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// Leader returns the region of the control leader and its term, as far as known; "" while there is none.
func (n *Node) Leader() (leader regions.ID, term uint64) {
	if l := n.life.Load(); l != nil {
		_, id := l.raft.LeaderWithID()
		return regions.ID(id), l.raft.CurrentTerm()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard.leader, n.heard.term
}

// State returns the State of View.
func (n *Node) State() regions.State { return n.view.Load().State }

// Leading returns the term in which this node leads and has applied all that was agreed on before; ok is false while it does not.
func (n *Node) Leading() (term uint64, ok bool) {
	if l := n.life.Load(); l != nil {
		return l.leads()
	}
	return 0, false
}

// Renewed tells how long ago this voter applied the last renewal of the lease by a node, "" for any; where it knows of none,
// since when it could have. Whoever holds the lease noted the time before that. It is 0 on a node that is no voter.
func (n *Node) Renewed(node string) time.Duration {
	if l := n.life.Load(); l != nil {
		return n.cfg.Clock() - l.ledger.lastRenewal(node)
	}
	return 0
}

// Age tells how old what this node knows may be; ok is false if it never heard of a leader.
func (n *Node) Age() (age time.Duration, ok bool) {
	if l := n.life.Load(); l != nil {
		return l.contact()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cfg.Clock() - n.heard.at, n.heard.at != 0
}

// maxAge is past which a node says that it does not know the control state.
const maxAge = 5 * time.Second

// Check tells why this node does not know the control state at the moment, or nil.
func (n *Node) Check() error {
	n.mu.Lock()
	foreign, deciding, lastErr := n.foreign, n.deciding, n.heard.lastErr
	n.mu.Unlock()
	age, ok := n.Age()
	switch {
	case foreign != "":
		return errors.New(foreign)
	case deciding:
		return errors.New("this voter is new and waits until the others have said whether the cluster is, too")
	case n.View().State.ClusterID == "":
		return errors.New("the control state has not been set up yet")
	case !ok && lastErr != nil:
		return fmt.Errorf("no voter can be followed: %w", lastErr)
	case !ok, age > maxAge:
		return errors.New("there is no control leader, or it cannot be reached")
	}
	return nil
}

// Verifier checks calls from other nodes, for handlers of Handle.
func (n *Node) Verifier() *peer.Verifier { return n.verifier }

// Handle adds a call that this node answers on its control port if it is a voter. It is called before Run.
func (n *Node) Handle(path string, h http.Handler) { n.mux.Handle(path, h) }

// setForeign notes, once, that this node must not take part.
func (n *Node) setForeign(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.foreign == "" {
		n.foreign = why
		n.log.Error("this node's control state does not fit to the others'", "err", why)
	}
}

func (n *Node) isForeign() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.foreign != ""
}

// hello is how this voter presents itself.
func (n *Node) hello(to regions.ID) hello {
	v := n.View()
	return hello{Cluster: n.cfg.Cluster, ClusterID: v.State.ClusterID, Incarnation: v.Incarnation, From: n.cfg.Region, To: to}
}

const superseded = "the control state was restored by force without this voter; empty its control folder and start it again"

// answer does the rest of a voter's handshake.
func (n *Node) answer(conn net.Conn, region regions.ID) error {
	_, err := answer(conn, n.cfg.ClusterKeys, func(theirs hello) verdict {
		v := verdict{Hello: n.hello(theirs.From)}
		var newer bool
		v.Why, newer = judge(v.Hello, theirs)
		switch _, known := n.cfg.Voters[theirs.From]; {
		case newer:
			n.setForeign(superseded)
		case v.Why != "":
		case region != "" && region != theirs.From:
			v.Why = fmt.Sprintf("the certificate shown is of %s, not of %s", region, theirs.From)
		case theirs.To != n.cfg.Region:
			v.Why = fmt.Sprintf("this is the voter of %s, not of %s; see to the addresses of --control-voters", n.cfg.Region, theirs.To)
		case !known || theirs.From == n.cfg.Region:
			v.Why = fmt.Sprintf("%s is none of the other voters of %s; give every voter the same --control-voters", theirs.From, n.cfg.Region)
		}
		return v
	})
	return err
}

func (n *Node) refused(remote net.Addr, err error) {
	n.metrics.refused.Inc()
	n.log.Warn("a connection to the control port was refused", "remote", remote, "err", err)
}

// dial opens a connection to another voter.
func (n *Node) dial(to regions.ID, timeout time.Duration) (net.Conn, error) {
	addr, ok := n.cfg.Voters[to]
	if !ok {
		return nil, fmt.Errorf("%s is none of --control-voters", to)
	}
	if n.isForeign() {
		return nil, errors.New("this voter must not take part")
	}
	conn, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	if conn, err = n.secure(conn, to, addr); err != nil {
		return nil, err
	}
	v, err := call(conn, n.cfg.ClusterKeys, n.hello(to))
	if err == nil && v.Why != "" {
		err = fmt.Errorf("refused: %s", v.Why)
	}
	if err != nil {
		_ = conn.Close()
		if _, newer := judge(n.hello(to), v.Hello); newer {
			n.setForeign(superseded)
		}
		return nil, fmt.Errorf("voter %s at %s: %w", to, addr, err)
	}
	return conn, nil
}
