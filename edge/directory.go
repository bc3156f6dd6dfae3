package edge

import (
	"context"
	"fmt"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// Directory tells which region takes writes, and where its nodes are. It says where to try; whether a write may be
// acknowledged, replication.Gate decides. Its methods do not block.
type Directory interface {
	// Primary tells which region takes writes, and in which epoch (0: whatever its database is in). ok is false while there is
	// none.
	Primary() (region regions.ID, epoch uint64, ok bool)
	// Nodes returns the nodes of a region, by their internal listeners; this node may be among them. The result is not changed.
	Nodes(region regions.ID) []PeerNode
	// Changed returns a channel that is closed once one of the other answers is another than at the time of the call.
	Changed() <-chan struct{}
}

// StaticDirectory is one that never changes.
type StaticDirectory struct {
	Region regions.ID // the primary
	Peers  []PeerNode // its nodes
}

// Primary implements Directory.
func (d StaticDirectory) Primary() (regions.ID, uint64, bool) { return d.Region, 0, true }

// Nodes implements Directory.
func (d StaticDirectory) Nodes(region regions.ID) []PeerNode {
	if region == d.Region {
		return d.Peers
	}
	return nil
}

// Changed implements Directory.
func (StaticDirectory) Changed() <-chan struct{} { return nil }

// PrimaryNodes returns a function for ForwarderConfig.Peers: the nodes of whatever region is the primary.
func PrimaryNodes(d Directory) func() []PeerNode {
	return func() []PeerNode {
		region, _, ok := d.Primary()
		if !ok {
			return nil
		}
		return d.Nodes(region)
	}
}

// peerHeadPath is where a node of the primary region tells how far its database is.
const peerHeadPath = "/internal/v1/head"

// headTimeout bounds the question to one node: with a budget of two nodes it fits into the wait of a read.
const headTimeout = 700 * time.Millisecond

// PrimaryHead asks how far the primary's database is, for tokens and strong reads.
type PrimaryHead struct {
	// Region is this node's.
	Region    regions.ID
	Directory Directory
	// Local is what a node of the primary region asks: its database, and then whether it still may speak for it. It is
	// PeerConfig.Head, too.
	Local func(context.Context) (replication.Head, error)
	// Client calls the nodes of another region; nil: there are none.
	Client *peer.Client
}

// Get returns the head of the primary as of some moment after the call. The error wraps ErrNotPrimary where no node can tell.
func (p *PrimaryHead) Get(ctx context.Context) (replication.Head, error) {
	region, _, ok := p.Directory.Primary()
	switch {
	case !ok:
		return replication.Head{}, fmt.Errorf("%w: there is no primary region at the moment", ErrNotPrimary)
	case region == p.Region || p.Client == nil:
		return p.Local(ctx)
	}
	err := fmt.Errorf("%w: no node of region %s is known", ErrNotPrimary, region)
	for i, node := range p.Directory.Nodes(region) {
		if i == 2 || ctx.Err() != nil {
			break
		}
		var head replication.Head
		if head, err = p.ask(ctx, node); err == nil {
			return head, nil
		}
		err = fmt.Errorf("%w: %w", ErrNotPrimary, err)
	}
	return replication.Head{}, err
}

func (p *PrimaryHead) ask(ctx context.Context, node PeerNode) (head replication.Head, err error) {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	return head, p.Client.Call(ctx, node.Addr, peerHeadPath, struct{}{}, &head)
}
