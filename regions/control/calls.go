package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// What a voter answers on its control port.
const (
	pathFollow  = "/internal/v1/control/follow"
	pathPropose = "/internal/v1/control/propose"
	pathProbe   = "/internal/v1/control/probe"
	pathBarrier = "/internal/v1/control/barrier"
)

func (n *Node) routes() {
	n.mux.Handle(pathFollow, peer.Handle(n.verifier, n.tell))
	n.mux.Handle(pathPropose, peer.Handle(n.verifier, n.proposed))
	n.mux.Handle(pathProbe, peer.Handle(n.verifier, n.probed))
	n.mux.Handle(pathBarrier, peer.Handle(n.verifier, n.barrier))
}

// asked is what every call says of its sender.
type asked struct {
	Cluster     string `json:"cluster"`
	ClusterID   string `json:"cluster_id,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`
}

func (n *Node) asking() asked {
	h := n.hello("")
	return asked{h.Cluster, h.ClusterID, h.Incarnation}
}

// fits refuses a caller of another cluster. One that has not heard yet of a restore is about to.
func (n *Node) fits(a asked) error {
	mine := n.hello("")
	if a.Incarnation < mine.Incarnation {
		a.Incarnation = 0
	}
	why, newer := judge(mine, hello{Cluster: a.Cluster, ClusterID: a.ClusterID, Incarnation: a.Incarnation})
	if newer {
		n.setForeign(superseded)
	}
	if why != "" {
		return &peer.Refusal{Kind: peer.Unauthorized, Detail: why}
	}
	return nil
}

// proposal is a command for the leader.
type proposal struct {
	asked
	Command regions.Command `json:"command"`
}

// outcome is what became of it: agreed on, refused by a rule, or neither, because somebody else leads. An error of the call
// says that this is not known.
type outcome struct {
	Refused   *regions.RefusedError `json:"refused,omitempty"`
	Elsewhere bool                  `json:"elsewhere,omitempty"`
	Leader    regions.ID            `json:"leader,omitempty"`
}

// ErrUnknown says that a proposal may or may not come into force.
var ErrUnknown = errors.New("it is not known whether it came into force")

// Propose brings a command before the leader, wherever that is, and returns nil once it is in force. A rule that it breaks is a
// *regions.RefusedError; RuleNoLeader means that no leader was found before ctx ended, and that nothing was done. Any other
// error wraps ErrUnknown. ctx must have a deadline.
func (n *Node) Propose(ctx context.Context, c regions.Command) error {
	if _, ok := ctx.Deadline(); !ok {
		return errors.New("propose: the context has no deadline")
	}
	var last error
	for try := 0; ; try++ {
		for _, id := range n.candidates() {
			out, err := n.proposeTo(ctx, id, c)
			switch {
			case err == nil && !out.Elsewhere:
				if out.Refused != nil {
					return out.Refused
				}
				return nil
			case err == nil:
				last = fmt.Errorf("%s does not lead", id)
				n.hint(out.Leader)
			case !undone(err):
				return fmt.Errorf("propose to %s: %w: %w", id, ErrUnknown, err)
			default:
				last = err
			}
			if ctx.Err() != nil {
				break
			}
		}
		pause := time.NewTimer(time.Duration(min(20<<min(try, 4), 200))*time.Millisecond + rand.N(20*time.Millisecond))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return &regions.RefusedError{Rule: regions.RuleNoLeader, Detail: fmt.Sprintf("no control leader was found: %v", last)}
		}
	}
}

// ProposeIn is Propose for what this node has decided as the leader of a term. Where it does not lead in that term any more nothing is done and the
// error is RuleNoLeader: no other leader is asked to take over a decision that may be out of date.
func (n *Node) ProposeIn(ctx context.Context, term uint64, c regions.Command) error {
	if now, ok := n.Leading(); !ok || now != term {
		return &regions.RefusedError{Rule: regions.RuleNoLeader, Detail: fmt.Sprintf("this node does not lead in term %d any more", term)}
	}
	out, err := n.apply(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("propose in term %d: %w: %w", term, ErrUnknown, err)
	case out.Elsewhere:
		return &regions.RefusedError{Rule: regions.RuleNoLeader, Detail: fmt.Sprintf("this node lost the leadership of term %d", term)}
	case out.Refused != nil:
		return out.Refused
	}
	return nil
}

// candidates are the voters to ask, the one that is thought to lead first.
func (n *Node) candidates() []regions.ID {
	leader, _ := n.Leader()
	ids := sorted(n.cfg.Voters)
	for i, id := range ids {
		if id == leader {
			copy(ids[1:i+1], ids[:i])
			ids[0] = leader
		}
	}
	return ids
}

// hint takes somebody's word for who leads, on a node that does not take part in the votes.
func (n *Node) hint(leader regions.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if leader != "" {
		n.heard.leader = leader
	}
}

// undone tells whether a proposal surely was not made: nobody was there to hear it.
func undone(err error) bool {
	var why *peer.Refusal
	return peer.NeverSent(err) || errors.As(err, &why) && why.Kind != peer.Failed || errors.Is(err, errNotAsked)
}

var errNotAsked = errors.New("it was not asked")

func (n *Node) proposeTo(ctx context.Context, id regions.ID, c regions.Command) (out outcome, err error) {
	p := proposal{n.asking(), c}
	if id == n.cfg.Region && n.cfg.Voter {
		return n.apply(ctx, c)
	}
	if ctx.Err() != nil {
		return out, fmt.Errorf("%w: %w", errNotAsked, ctx.Err())
	}
	return out, n.client.Call(ctx, n.cfg.Voters[id], pathPropose, p, &out)
}

// proposed answers a proposal.
func (n *Node) proposed(ctx context.Context, p proposal) (outcome, error) {
	if err := n.fits(p.asked); err != nil {
		return outcome{}, err
	}
	return n.apply(ctx, p.Command)
}

// applyTimeout bounds how long the leader works on a proposal.
const applyTimeout = 5 * time.Second

// apply brings a command into force if this node leads. A restore is none for a control plane that runs.
func (n *Node) apply(ctx context.Context, c regions.Command) (outcome, error) {
	if c.Restore != nil {
		return outcome{Refused: &regions.RefusedError{Rule: regions.RuleInvalid, Detail: "a control plane that runs is not restored; see shortline control restore"}}, nil
	}
	l := n.life.Load()
	leader, _ := n.Leader()
	if l == nil {
		return outcome{Elsewhere: true}, nil
	}
	if _, ok := l.leads(); !ok {
		if leader == n.cfg.Region {
			leader = ""
		}
		return outcome{Elsewhere: true, Leader: leader}, nil
	}
	data, err := c.MarshalBinary()
	if err != nil {
		return outcome{}, err
	}
	start := n.cfg.Clock()
	f := l.raft.Apply(data, applyTimeout)
	switch err := l.wait(ctx, f, applyTimeout); {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return outcome{Elsewhere: true}, nil
	case err != nil:
		return outcome{}, err
	}
	n.metrics.commit.Observe((n.cfg.Clock() - start).Seconds())
	if why, _ := f.Response().(*regions.RefusedError); why != nil {
		return outcome{Refused: why}, nil
	}
	return outcome{}, nil
}

// probing is the question for a probe. Blank is what the asker would answer to it.
type probing struct {
	asked
	From  regions.ID `json:"from"`
	Blank bool       `json:"blank"`
}

// probe is what a voter says of itself to one that finds its own folder empty, and to a leader that is to take it in.
type probe struct {
	asked
	Region regions.ID `json:"region"`
	// Blank says that nothing was ever agreed on as far as this voter knows, and that it forgot nothing.
	Blank   bool   `json:"blank"`
	Applied uint64 `json:"applied"`
}

func (n *Node) probed(_ context.Context, in probing) (probe, error) {
	if in.Cluster != n.cfg.Cluster {
		return probe{}, n.fits(in.asked)
	}
	if in.Blank {
		n.isBlank(in.From)
	}
	p := probe{asked: n.asking(), Region: n.cfg.Region}
	v := n.keeper.voter()
	p.Blank = n.View().State.ClusterID == "" && (v == nil || !v.Rejoining)
	if l := n.life.Load(); l != nil {
		p.Applied = l.raft.AppliedIndex()
		p.Blank = p.Blank && l.raft.LastIndex() <= 1
	} else if v != nil {
		p.Blank = false // it has a log, which is not open at the moment
	}
	return p, nil
}

// reached is an index of the leader's log before which everything that was ever agreed on lies.
type reached struct {
	Index uint64 `json:"index"`
}

func (n *Node) barrier(ctx context.Context, a asked) (reached, error) {
	if err := n.fits(a); err != nil {
		return reached{}, err
	}
	l := n.life.Load()
	if l == nil {
		return reached{}, errors.New("this voter is not up")
	}
	if _, ok := l.leads(); !ok {
		return reached{}, errors.New("this voter does not lead")
	}
	if err := l.barrier(ctx); err != nil {
		return reached{}, err
	}
	return reached{l.raft.AppliedIndex()}, nil
}
