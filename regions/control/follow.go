package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shortline/shortline/regions"
)

// followWait is how long a voter lets a follower wait for a change: as long as a node may believe in an old leader.
const followWait = 900 * time.Millisecond

// homeAgain is after how long a follower of another region's voter tries its own region's again.
const homeAgain = 15 * time.Second

// follower asks for what comes after what it has.
type follower struct {
	asked
	Index  uint64 `json:"index"`
	WaitMS int64  `json:"wait_ms"`
}

// news is what a voter knows. State is nil where the follower has it.
type news struct {
	asked
	Index  uint64         `json:"index"`
	State  *regions.State `json:"state,omitempty"`
	Leader regions.ID     `json:"leader,omitempty"`
	Term   uint64         `json:"term"`
	// AgeMS is how long ago the voter heard of a leader, -1: never.
	AgeMS int64 `json:"age_ms"`
}

// tell answers a follower when there is something new, or after a while.
func (n *Node) tell(ctx context.Context, f follower) (news, error) {
	if err := n.fits(f.asked); err != nil {
		return news{}, err
	}
	timer := time.NewTimer(min(time.Duration(f.WaitMS)*time.Millisecond, followWait))
	defer timer.Stop()
	for waiting := true; waiting; {
		changed := n.Changed()
		if v := n.View(); v.Index != f.Index || v.Incarnation != f.Incarnation {
			break
		}
		select {
		case <-changed:
		case <-timer.C:
			waiting = false
		case <-ctx.Done():
			return news{}, ctx.Err()
		}
	}
	v := n.View()
	out := news{asked: n.asking(), Index: v.Index, AgeMS: -1}
	out.Leader, out.Term = n.Leader()
	if age, ok := n.Age(); ok {
		out.AgeMS = age.Milliseconds()
	}
	if v.State.ClusterID != "" && (v.Index != f.Index || v.Incarnation != f.Incarnation) {
		out.State = &v.State
		out.Incarnation = v.Incarnation
	}
	return out, nil
}

// follow keeps up with the voters until ctx ends: with its own region's, while that answers and hears of a leader.
func (n *Node) follow(ctx context.Context) error {
	order := sorted(n.cfg.Voters)
	for i, id := range order {
		if id == n.cfg.Region {
			copy(order[1:i+1], order[:i])
			order[0] = id
		}
	}
	at, away := 0, n.cfg.Clock()
	failures := 0
	for ctx.Err() == nil {
		if at != 0 && n.cfg.Clock()-away > homeAgain {
			at = 0
		}
		err := n.followOnce(ctx, order[at])
		if err == nil {
			failures = 0
			continue
		}
		n.mu.Lock()
		n.heard.lastErr = err
		n.mu.Unlock()
		n.log.Debug("following a voter", "voter", order[at], "err", err)
		if at == 0 {
			away = n.cfg.Clock()
		}
		at = (at + 1) % len(order)
		failures++
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Duration(failures)*25*time.Millisecond, 500*time.Millisecond)):
		}
	}
	return nil
}

var errLeaderless = errors.New("it hears of no leader")

// followOnce asks one voter once, and takes over what it says.
func (n *Node) followOnce(ctx context.Context, id regions.ID) error {
	ctx, cancel := context.WithTimeout(ctx, followWait+1500*time.Millisecond)
	defer cancel()
	v := n.View()
	var out news
	if err := n.client.Call(ctx, n.cfg.Voters[id], pathFollow, follower{n.asking(), v.Index, followWait.Milliseconds()}, &out); err != nil {
		return err
	}
	if why, _ := judge(n.hello(id), hello{Cluster: out.Cluster, ClusterID: out.ClusterID}); why != "" {
		return fmt.Errorf("the voter %s: %s", id, why)
	}
	if out.State != nil {
		n.publish(View{State: *out.State, Index: out.Index, Incarnation: out.Incarnation}, false)
	}
	age := time.Duration(out.AgeMS) * time.Millisecond
	if out.AgeMS < 0 || age > 2*n.cfg.Heartbeat {
		return errLeaderless
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = heard{at: n.cfg.Clock() - age, leader: out.Leader, term: out.Term}
	return nil
}
