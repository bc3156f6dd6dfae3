package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/regions"
)

// errWedged says that raft has to be started anew: see lead.
var errWedged = errors.New("the leader neither leads nor gives way")

// life is one run of raft. There may be several in one run of a node.
type life struct {
	n      *Node
	raft   *raft.Raft
	ledger *ledger
	wire   *wire
	store  *raftboltdb.BoltStore
	begun  time.Duration // by the clock

	// term is that in which this voter leads and has applied what was agreed on before, 0: none.
	term atomic.Uint64
	jobs sync.WaitGroup // what waits for raft's answers

	mu   sync.Mutex
	down map[regions.ID]bool // voters that do not answer this leader; guarded by mu
}

// vote runs this node's voter until ctx ends.
func (n *Node) vote(ctx context.Context) error {
	found, err := n.exists()
	if err != nil {
		return err
	}
	if !found {
		rejoining, err := n.firstStart(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if err := n.keeper.setVoter(voterState{Cluster: n.cfg.Cluster, Region: n.cfg.Region, Rejoining: rejoining}); err != nil {
			return err
		}
	}
	for ctx.Err() == nil && !n.isForeign() {
		if err := n.live(ctx); err != nil && !errors.Is(err, errWedged) {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// exists tells whether the folder has a voter's state.
func (n *Node) exists() (bool, error) {
	_, err := os.Stat(filepath.Join(n.cfg.Dir, raftFile))
	switch {
	case err == nil && n.keeper.voter() == nil:
		return false, fmt.Errorf("%s has %s and no %s: it is no voter's folder, or was damaged; empty it, and the voter gets everything from the others", n.cfg.Dir, raftFile, voterFile)
	case err == nil:
		return true, nil
	case !errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("look for the voter's state: %w", err)
	}
	return false, nil
}

// live runs raft until ctx ends, or until it has to be run anew.
func (n *Node) live(ctx context.Context) (err error) {
	l, err := n.open()
	if err != nil {
		return err
	}
	n.life.Store(l)
	n.setDeciding(false)
	defer func() {
		n.life.Store(nil)
		err = errors.Join(err, l.close())
	}()
	group, alive := errgroup.WithContext(ctx)
	group.Go(func() error { return l.lead(alive) })
	group.Go(func() error { return l.rejoin(alive) })
	group.Go(func() error { return l.watchForeign(alive) })
	return group.Wait()
}

func (n *Node) setDeciding(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deciding = on
}

var errForeign = fmt.Errorf("%w: %s", errWedged, superseded)

// watchForeign ends the life of a voter that was left behind by a restore.
func (l *life) watchForeign(ctx context.Context) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if l.n.isForeign() {
				return errForeign
			}
		}
	}
}

// raftConfig is how this voter's raft is tuned.
func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.Region)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = n.cfg.Heartbeat, n.cfg.Election, n.cfg.LeaderLease
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = n.cfg.SnapshotEvery, n.cfg.SnapshotEvery, 30*time.Second
	c.CommitTimeout = 15 * time.Millisecond // until the others hear that something was agreed on: a part of every pause
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = raftLog(n.log)
	return c
}

// configuration has every voter. A voter's address in it is its region's name: who it is must not depend on where.
func (n *Node) configuration() raft.Configuration {
	var c raft.Configuration
	for _, id := range sorted(n.cfg.Voters) {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id), Suffrage: raft.Voter})
	}
	return c
}

// openStores opens a voter's log and snapshots. Somebody else's use of them is an error.
func openStores(dir string, cfg *raft.Config) (*raftboltdb.BoltStore, raft.SnapshotStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, raftFile), BoltOptions: &bbolt.Options{Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType}})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, nil, fmt.Errorf("the control folder %s is in use by another shortline", dir)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open the control state in %s: %w; if it is damaged, empty the folder, and the voter gets everything from the others", dir, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, cfg.Logger)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the control snapshots in %s: %w", dir, err), store.Close())
	}
	return store, snaps, nil
}

// open starts raft on what is in the folder; a voter of a new cluster begins with the voters of the flags.
func (n *Node) open() (*life, error) {
	cfg := n.raftConfig()
	store, snaps, err := openStores(n.cfg.Dir, cfg)
	if err != nil {
		return nil, err
	}
	l := &life{n: n, store: store, begun: n.cfg.Clock(), down: map[regions.ID]bool{}}
	l.ledger = &ledger{clock: n.cfg.Clock, since: l.begun, renewed: map[string]time.Duration{}, changed: func(k kept, renewal bool) {
		n.publish(View{State: k.State, Index: k.Index, Incarnation: k.Incarnation}, renewal)
	}}
	l.ledger.kept.Cluster = n.cfg.Cluster
	l.wire = newWire(n, n.keeper.voter().Rejoining, cfg)
	fail := func(err error) (*life, error) {
		return nil, errors.Join(err, l.wire.Close(), store.Close())
	}
	known, err := raft.HasExistingState(store, store, snaps)
	if err != nil {
		return fail(fmt.Errorf("read the control state: %w", err))
	}
	if !known && !n.keeper.voter().Rejoining {
		if err := raft.BootstrapCluster(cfg, store, store, snaps, l.wire, n.configuration()); err != nil {
			return fail(fmt.Errorf("begin a new control plane: %w", err))
		}
	}
	if l.raft, err = raft.NewRaft(cfg, l.ledger, store, store, snaps, l.wire); err != nil {
		return fail(fmt.Errorf("start the voter of %s: %w", n.cfg.Region, err))
	}
	return l, nil
}

// close hands the leadership over, if this voter has it, and ends raft.
func (l *life) close() error {
	if l.raft.State() == raft.Leader && !l.n.isForeign() {
		l.wait(context.Background(), l.raft.LeadershipTransfer(), 2*l.n.cfg.Election)
	}
	l.term.Store(0)
	err := l.raft.Shutdown().Error()
	err = errors.Join(err, l.wire.Close())
	l.jobs.Wait()
	return errors.Join(err, l.store.Close())
}

// wait returns what raft answers, or an error after a while: its futures know no context.
func (l *life) wait(ctx context.Context, f raft.Future, atMost time.Duration) error {
	done := make(chan error, 1)
	l.jobs.Go(func() { done <- f.Error() })
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no answer within %v", atMost)
	}
}

// leads returns the term in which this voter leads.
func (l *life) leads() (uint64, bool) {
	term := l.term.Load()
	return term, term != 0 && l.raft.State() == raft.Leader && l.raft.CurrentTerm() == term
}

// contact tells how long ago this voter heard of its leader.
func (l *life) contact() (time.Duration, bool) {
	if l.raft.State() == raft.Leader {
		return 0, true
	}
	at := l.raft.LastContact()
	if at.IsZero() {
		return 0, false
	}
	return time.Since(at), true
}

// wire is raft's way to the other voters. While this voter is rejoining it passes no votes, in neither direction.
type wire struct {
	*raft.NetworkTransport
	rejoining atomic.Bool
	rpcs      chan raft.RPC
	done      chan struct{}
	once      sync.Once
	pump      sync.WaitGroup
}

var errRejoining = errors.New("this voter is rejoining: it does not vote yet")

func newWire(n *Node, rejoining bool, cfg *raft.Config) *wire {
	w := &wire{rpcs: make(chan raft.RPC), done: make(chan struct{})}
	w.rejoining.Store(rejoining)
	w.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &stream{n: n, done: w.done}, MaxPool: 3, Timeout: 5 * time.Second, Logger: cfg.Logger})
	w.pump.Go(w.pass)
	return w
}

// pass hands incoming calls to raft.
func (w *wire) pass() {
	for {
		select {
		case <-w.done:
			return
		case rpc := <-w.NetworkTransport.Consumer():
			if w.rejoining.Load() {
				switch rpc.Command.(type) {
				case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
					rpc.Respond(nil, errRejoining)
					continue
				}
			}
			select {
			case w.rpcs <- rpc:
			case <-w.done:
				return
			}
		}
	}
}

// Consumer is part of raft.Transport.
func (w *wire) Consumer() <-chan raft.RPC { return w.rpcs }

// RequestVote is part of raft.Transport.
func (w *wire) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if w.rejoining.Load() {
		return errRejoining
	}
	return w.NetworkTransport.RequestVote(id, target, args, resp)
}

// RequestPreVote is part of raft.WithPreVote.
func (w *wire) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if w.rejoining.Load() {
		return errRejoining
	}
	return w.NetworkTransport.RequestPreVote(id, target, args, resp)
}

// Close ends all connections. It may be called again.
func (w *wire) Close() error {
	w.once.Do(func() { close(w.done) })
	err := w.NetworkTransport.Close()
	w.NetworkTransport.CloseStreams()
	w.pump.Wait()
	return err
}

// stream gives raft its connections.
type stream struct {
	n    *Node
	done chan struct{}
}

// Dial is part of raft.StreamLayer. An address is a region's name.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.n.dial(regions.ID(address), min(timeout, handshakeTimeout))
}

// Accept is part of net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.n.incoming:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close is part of net.Listener.
func (s *stream) Close() error { return nil }

// Addr is part of net.Listener.
func (s *stream) Addr() net.Addr { return regionAddr(s.n.cfg.Region) }

type regionAddr regions.ID

// Network is part of net.Addr.
func (regionAddr) Network() string { return "region" }

// String is part of net.Addr.
func (a regionAddr) String() string { return string(a) }

// secure puts TLS over a connection to another voter, where it is set.
func (n *Node) secure(conn net.Conn, to regions.ID, addr string) (net.Conn, error) {
	if n.cfg.Identity == nil {
		return conn, nil
	}
	c := tls.Client(conn, n.cfg.Identity.Client(string(to)))
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", addr, err), conn.Close())
	}
	return c, nil
}
