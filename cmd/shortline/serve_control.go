package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// wiring is what a node is told by whoever decides which region takes writes. All of it may change while the node runs.
type wiring struct {
	// identity is what this node shows to others (nil: no TLS).
	identity  *pki.Identity
	directory edge.Directory
	// roams says that another region may be the primary, now or later.
	roams bool
	// ownDatabase says that --postgres is the region's own server, which is a standby while another region is the primary.
	ownDatabase bool
	// gate says whether writes may be acknowledged here (nil: always).
	gate replication.Gate
	// lineage and forkOf tell which history counts (nil: it never forks).
	lineage func() replication.Lineage
	forkOf  func(epoch uint64) (lsn uint64, known bool)
	// state is what the control plane agreed on, nil while that is not known (nil: there is none).
	state func() *regions.State
	// plane is this node's part in what several regions agree on; nil: there is one region, or its primary never changes.
	plane *plane
}

// wire opens what the flags ask for.
func (s *serveSettings) wire(id *pki.Identity, log *slog.Logger, r prometheus.Registerer) (w wiring, err error) {
	if s.regionsSettings.on() {
		p, err := s.newPlane(id, log, r)
		if err != nil {
			return w, err
		}
		w = p.wired()
	} else {
		w = s.staticControl()
	}
	w.identity = id
	return w, nil
}

// staticControl is that of the flags: this region is the primary for good, or the nodes of --forward-to are in the one that is.
func (s *serveSettings) staticControl() wiring {
	if len(s.forwardTo) == 0 {
		return wiring{directory: edge.StaticDirectory{Region: s.region()}}
	}
	peers := make([]edge.PeerNode, len(s.forwardTo))
	for i, addr := range s.forwardTo {
		peers[i] = edge.PeerNode{Name: addr, Addr: addr}
	}
	return wiring{directory: edge.StaticDirectory{Peers: peers}, roams: true} // no region is called ""
}

func (s *serveSettings) region() regions.ID { return regions.ID(s.edge.Region) }

// primary tells whether this node's region takes writes, and in which epoch.
func (n *node) primary() (primary bool, epoch uint64) {
	region, epoch, ok := n.control.directory.Primary()
	return ok && region == n.s.region(), epoch
}

// local is the batcher of a node, which waits for a lease that is on its way.
type local struct{ n *node }

// Submit is part of edge.Writer.
func (l local) Submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	if p := l.n.control.plane; p != nil {
		p.awaitLease(ctx)
	}
	return l.n.batcher.Submit(ctx, w)
}

// newWriter makes what stands between the requests and the batcher: it commits here, or passes on to where the primary is.
func (n *node) newWriter(log *slog.Logger, r prometheus.Registerer) error {
	cfg := edge.RouterConfig{Region: n.s.region(), Directory: n.control.directory, Local: local{n}, Hold: n.s.edge.WriteHold, Log: log, Registerer: r}
	if n.control.roams {
		var err error
		n.forwarder, err = edge.NewForwarder(edge.ForwarderConfig{
			Peers: edge.PrimaryNodes(n.control.directory), Changed: n.control.directory.Changed, ClusterKeys: n.s.clusterKeys, Identity: n.control.identity,
			Timeout: n.s.edge.WriteHold, Log: log, Registerer: r})
		if err != nil {
			return err
		}
		cfg.Remote = n.forwarder
	}
	n.router = edge.NewRouter(cfg)
	return nil
}

// newHead makes what tells how far the primary is, from here or from a node of its region.
func (n *node) newHead() (*edge.PrimaryHead, error) {
	head := &edge.PrimaryHead{Region: n.s.region(), Directory: n.control.directory, Local: n.localHead}
	if n.control.roams {
		var err error
		if head.Client, err = peer.NewClient(n.s.clusterKeys, n.control.identity); err != nil {
			return nil, err
		}
	}
	return head, nil
}

// localHead asks the database for writes how far it is, and then whether this region still may speak for the primary.
func (n *node) localHead(ctx context.Context) (head replication.Head, err error) {
	if l, ok := n.store.(replication.Leader); ok {
		head, err = l.PrimaryHead(ctx)
	} else {
		head, err = n.store.Head(ctx)
	}
	if err == nil && n.control.gate != nil {
		_, err = n.control.gate.Check()
	}
	return head, err
}

// newPeer makes the listener for what nodes of other regions forward and ask.
func (n *node) newPeer(log *slog.Logger, r prometheus.Registerer, tracing trace.TracerProvider) (*edge.Peer, error) {
	return edge.NewPeer(edge.PeerConfig{
		Region: n.s.edge.Region, ClusterKeys: n.s.clusterKeys, Identity: n.control.identity, Writer: local{n}, Head: n.localHead, ShutdownTimeout: n.s.edge.ShutdownTimeout,
		Log: log, Registerer: r, Tracing: tracing,
		Primary: func() (bool, uint64) {
			primary, epoch := n.primary()
			if a := n.feed.Applied(); a != nil && epoch == 0 {
				epoch = a.Token.Epoch
			}
			return primary, epoch
		},
		Applied: func() string {
			if a := n.feed.Applied(); a != nil {
				return a.Text
			}
			return ""
		},
	})
}
