package failover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// Paths at which the node that leads answers the others. They are on the control port.
const (
	verbPath    = "/failover/v1/verb"
	clusterPath = "/failover/v1/cluster"
	explainPath = "/failover/v1/explain"
)

// Desk takes operators' verbs and questions at any node: it answers them itself where its controller leads, and else passes
// them on, once, to the node that does.
type Desk struct {
	controller *Controller // nil where this node is no voter
	control    interface{ State() regions.State }
	// leader tells where the control port of the node that leads is, and its name. ok is false while that is not known.
	leader func() (addr, name string, ok bool)
	client *peer.Client
}

// NewDesk makes a Desk. controller is nil at a node that is no voter.
func NewDesk(controller *Controller, control interface{ State() regions.State }, leader func() (addr, name string, ok bool), client *peer.Client) *Desk {
	return &Desk{controller: controller, control: control, leader: leader, client: client}
}

// Handlers are what a voter's control port has to serve, by path.
func (d *Desk) Handlers(v *peer.Verifier) map[string]http.Handler {
	return map[string]http.Handler{
		verbPath: peer.Handle(v, func(ctx context.Context, in regions.Verb) (reply[regions.Outcome], error) {
			return replied(d.controller.Do(ctx, in))
		}),
		clusterPath: peer.Handle(v, func(context.Context, struct{}) (reply[regions.Cluster], error) {
			return replied(d.controller.leading(d.controller.Cluster()))
		}),
		explainPath: peer.Handle(v, func(_ context.Context, id regions.ID) (reply[regions.Explanation], error) {
			return replied(d.controller.Explain(id))
		}),
	}
}

// reply is an answer, or the rule that refuses one.
type reply[T any] struct {
	Answer  T                     `json:"answer"`
	Refused *regions.RefusedError `json:"refused,omitempty"`
}

func replied[T any](answer T, err error) (reply[T], error) {
	var why *regions.RefusedError
	if errors.As(err, &why) {
		return reply[T]{Refused: why}, nil
	}
	return reply[T]{Answer: answer}, err
}

// askDeadline bounds a question that is passed on.
const askDeadline = 8 * time.Second

// pass asks the node that leads.
func pass[In, Out any](ctx context.Context, d *Desk, path string, in In) (Out, error) {
	var out reply[Out]
	addr, _, ok := d.leader()
	if !ok {
		return out.Answer, noLeader("nobody is known to lead the control plane at the moment")
	}
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	if err := d.client.Call(ctx, addr, path, in, &out); err != nil {
		return out.Answer, fmt.Errorf("pass on to the control leader: %w", err)
	}
	if out.Refused != nil {
		return out.Answer, out.Refused
	}
	return out.Answer, nil
}

func noLeader(detail string) *regions.RefusedError {
	return &regions.RefusedError{Rule: regions.RuleNoLeader, Detail: detail}
}

// own returns the controller if it leads.
func (d *Desk) own() *Controller {
	if d.controller == nil {
		return nil
	}
	if _, leads := d.controller.deps.Control.Leading(); !leads {
		return nil
	}
	return d.controller
}

// leaderless is for how long a verb is tried while the leadership moves, as it does after each change of the primary.
const leaderless = 4 * time.Second

// Do implements edge.Operator.
func (d *Desk) Do(ctx context.Context, v regions.Verb) (out regions.Outcome, err error) {
	for end := time.Now().Add(leaderless); ; {
		if c := d.own(); c != nil {
			out, err = c.Do(ctx, v)
		} else {
			out, err = pass[regions.Verb, regions.Outcome](ctx, d, verbPath, v)
		}
		var why *regions.RefusedError // then nothing was done
		if !errors.As(err, &why) || why.Rule != regions.RuleNoLeader || time.Now().After(end) || !sleep(ctx, 100*time.Millisecond) {
			return out, err
		}
	}
}

// Cluster implements edge.Operator. Where the leader cannot be asked it is what this node knows, and says so.
func (d *Desk) Cluster(ctx context.Context) (regions.Cluster, error) {
	if c := d.own(); c != nil {
		return c.Cluster(), nil
	}
	out, err := pass[struct{}, regions.Cluster](ctx, d, clusterPath, struct{}{})
	if err == nil {
		return out, nil
	}
	state := d.control.State()
	if state.ClusterID == "" {
		return out, noLeader("the control plane has not been set up yet, or this node has not heard of it: " + err.Error())
	}
	_, leader, _ := d.leader()
	return regions.Situation{State: state}.Cluster(regions.Policy{}, leader, time.Now().UTC()), nil
}

// Explain implements edge.Operator.
func (d *Desk) Explain(ctx context.Context, id regions.ID) (regions.Explanation, error) {
	if c := d.own(); c != nil {
		return c.Explain(id)
	}
	return pass[regions.ID, regions.Explanation](ctx, d, explainPath, id)
}

// History implements edge.Operator: every node has it.
func (d *Desk) History(context.Context) ([]regions.Entry, error) {
	return d.control.State().History, nil
}

// leading hands an answer on if this node leads.
func (c *Controller) leading(answer regions.Cluster) (regions.Cluster, error) {
	if !answer.Complete {
		return answer, noLeader("this node does not lead the control plane")
	}
	return answer, nil
}
