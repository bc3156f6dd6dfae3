package agent

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// Kinds of refusals that a caller acts on.
const (
	kindOldOrder  peer.Kind = "old-order"
	kindWrongRole peer.Kind = "wrong-role"
	kindRejoining peer.Kind = "rejoining"
)

var kinds = []struct {
	kind peer.Kind
	err  error
}{{kindOldOrder, regions.ErrOldOrder}, {kindWrongRole, regions.ErrWrongRole}, {kindRejoining, regions.ErrRejoining}}

// SlowestAnswer bounds the time that any command takes to be answered.
const SlowestAnswer = 10 * time.Minute

// Requests, one type a command, so that a field of another is refused.
type (
	ask       struct{}
	orderOnly struct {
		Order regions.Order `json:"order"`
	}
	orderFlag struct {
		Order regions.Order `json:"order"`
		On    bool          `json:"on"`
	}
	orderNames struct {
		Order regions.Order `json:"order"`
		Sync  []regions.ID  `json:"sync"`
	}
	orderEpoch struct {
		Order regions.Order `json:"order"`
		Epoch uint64        `json:"epoch"`
	}
	orderFollow struct {
		Order   regions.Order `json:"order"`
		Primary regions.ID    `json:"primary"`
		Fork    regions.LSN   `json:"fork"`
	}
)

const root = "/peer/v1/database/"

// Handler serves a database's commands to controllers.
func Handler(db regions.Database, v *peer.Verifier) http.Handler {
	mux := http.NewServeMux()
	handle(mux, v, "status", 3*time.Second, func(ctx context.Context, _ ask) (regions.DatabaseStatus, error) { return db.Status(ctx) })
	handle(mux, v, "detach", 15*time.Second, func(ctx context.Context, in orderOnly) (regions.DatabaseStatus, error) {
		return db.Detach(ctx, in.Order)
	})
	handle(mux, v, "read-only", 30*time.Second, func(ctx context.Context, in orderFlag) (regions.DatabaseStatus, error) {
		return db.ReadOnly(ctx, in.Order, in.On)
	})
	handle(mux, v, "set-sync", 30*time.Second, func(ctx context.Context, in orderNames) (regions.DatabaseStatus, error) {
		return db.SetSync(ctx, in.Order, in.Sync)
	})
	handle(mux, v, "promote", 2*time.Minute, func(ctx context.Context, in orderEpoch) (regions.Promotion, error) {
		return db.Promote(ctx, in.Order, in.Epoch)
	})
	handle(mux, v, "follow", time.Minute, func(ctx context.Context, in orderFollow) (regions.DatabaseStatus, error) {
		return db.Follow(ctx, in.Order, in.Primary, in.Fork)
	})
	handle(mux, v, "checkpoint", SlowestAnswer, func(ctx context.Context, in orderOnly) (ask, error) { return ask{}, db.Checkpoint(ctx, in.Order) })
	return mux
}

func handle[In, Out any](mux *http.ServeMux, v *peer.Verifier, name string, limit time.Duration, do func(context.Context, In) (Out, error)) {
	mux.Handle(root+name, peer.Handle(v, func(ctx context.Context, in In) (Out, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		out, err := do(ctx, in)
		for _, k := range kinds {
			if errors.Is(err, k.err) {
				return out, &peer.Refusal{Kind: k.kind, Detail: err.Error()}
			}
		}
		return out, err
	}))
}

// Client commands a database through its agent; it implements regions.Database. What the agent refused wraps regions.ErrOldOrder,
// ErrWrongRole or ErrRejoining where it is one of these, or a *peer.Refusal; with any other error the command may have been
// carried out. Contexts must have deadlines.
type Client struct {
	addr string
	peer *peer.Client
}

// NewClient makes a Client of the agent at an address, host:port.
func NewClient(addr string, c *peer.Client) *Client { return &Client{addr: addr, peer: c} }

func (c *Client) call(ctx context.Context, name string, in, out any) error {
	err := c.peer.Call(ctx, c.addr, root+name, in, out)
	var why *peer.Refusal
	if errors.As(err, &why) {
		for _, k := range kinds {
			if why.Kind == k.kind {
				return refused{why, k.err}
			}
		}
	}
	return err
}

// refused has the words of the agent and is the sentinel.
type refused struct {
	why *peer.Refusal
	is  error
}

func (r refused) Error() string   { return r.why.Detail }
func (r refused) Unwrap() []error { return []error{r.why, r.is} }

// Status implements regions.Database.
func (c *Client) Status(ctx context.Context) (s regions.DatabaseStatus, err error) {
	err = c.call(ctx, "status", ask{}, &s)
	return s, err
}

// Detach implements regions.Database.
func (c *Client) Detach(ctx context.Context, o regions.Order) (s regions.DatabaseStatus, err error) {
	err = c.call(ctx, "detach", orderOnly{o}, &s)
	return s, err
}

// ReadOnly implements regions.Database.
func (c *Client) ReadOnly(ctx context.Context, o regions.Order, on bool) (s regions.DatabaseStatus, err error) {
	err = c.call(ctx, "read-only", orderFlag{o, on}, &s)
	return s, err
}

// SetSync implements regions.Database.
func (c *Client) SetSync(ctx context.Context, o regions.Order, sync []regions.ID) (s regions.DatabaseStatus, err error) {
	err = c.call(ctx, "set-sync", orderNames{o, sync}, &s)
	return s, err
}

// Promote implements regions.Database.
func (c *Client) Promote(ctx context.Context, o regions.Order, epoch uint64) (p regions.Promotion, err error) {
	err = c.call(ctx, "promote", orderEpoch{o, epoch}, &p)
	return p, err
}

// Follow implements regions.Database.
func (c *Client) Follow(ctx context.Context, o regions.Order, primary regions.ID, fork regions.LSN) (s regions.DatabaseStatus, err error) {
	err = c.call(ctx, "follow", orderFollow{o, primary, fork}, &s)
	return s, err
}

// Checkpoint implements regions.Database.
func (c *Client) Checkpoint(ctx context.Context, o regions.Order) error {
	return c.call(ctx, "checkpoint", orderOnly{o}, nil)
}
