package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/shortline/shortline"
)

// Queue is the live queue of a store.
type Queue struct {
	ID        shortline.StoreID `json:"id"`
	Length    int               `json:"length"`
	WaitS     int               `json:"wait_s"`
	WaitHighS int               `json:"wait_high_s"`
	UpdatedAt time.Time         `json:"updated_at"`
	AgeS      float64           `json:"age_s"`
}

// Reported tells whether the store has ever reported its queue; without, the length means nothing.
func (q *Queue) Reported() bool { return !q.UpdatedAt.IsZero() }

// QueueAnswer is the queue as it is.
type QueueAnswer struct {
	Answer `json:"-"`
	Queue
}

// QueueResult is the queue after an update, and how the update fared.
type QueueResult struct {
	Queue
	Applied bool   `json:"applied"`
	Reason  string `json:"reason,omitempty"` // why it was not applied
	Clamped bool   `json:"clamped"`          // the length was brought back into 0 to shortline.MaxQueueLength
}

// SetQueueAnswer is the answer to SetQueue.
type SetQueueAnswer struct {
	Answer `json:"-"`
	QueueResult
}

// SetQueuesAnswer is the answer to SetQueues, with a result for each update in their order.
type SetQueuesAnswer struct {
	Answer  `json:"-"`
	Results []QueuesResult `json:"results"`
}

// QueuesResult is either a QueueResult, or the id and the Error.
type QueuesResult struct {
	QueueResult
	Error *Problem `json:"error,omitempty"`
}

// WriteOptions says how to write; the zero value is right for most.
type WriteOptions struct {
	// IdempotencyKey makes the same write of another call, or of another run of the program, count once; the server keeps
	// it for at least 24 hours. Empty takes a new one for each call, so that the call's own repetitions count once.
	IdempotencyKey string
}

func (o WriteOptions) key() string {
	if o.IdempotencyKey != "" {
		return o.IdempotencyKey
	}
	return rand.Text()
}

// Queue returns the live queue of a store. An unknown id is shortline.ErrNotFound.
func (c *Client) Queue(ctx context.Context, id shortline.StoreID, o ReadOptions) (*QueueAnswer, error) {
	path, err := storePath(id, "/queue")
	if err != nil {
		return nil, err
	}
	out := &QueueAnswer{}
	out.Answer, _, err = c.do(ctx, call{method: http.MethodGet, path: path, repeatable: true, read: true, consistency: o.Consistency}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// SetQueue reports the length of a store's queue, or a change of it. An invalid update is a *shortline.InvalidError and
// is not sent. An error whose OutcomeUnknown is true may be sent again with the same key.
func (c *Client) SetQueue(ctx context.Context, u shortline.QueueUpdate, o WriteOptions) (*SetQueueAnswer, error) {
	if err := u.Validate(); err != nil {
		return nil, err
	}
	path, err := storePath(u.ID, "/queue")
	if err != nil {
		return nil, err
	}
	w := newWireUpdate(u)
	w.ID = ""
	body, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("queue of %s: %w", u.ID, err)
	}
	out := &SetQueueAnswer{}
	out.Answer, _, err = c.do(ctx, call{method: http.MethodPost, path: path, body: body, contentType: "application/json",
		idempotency: o.key(), repeatable: true}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// SetQueues reports many queues in one request, applied in order. One that fails does not stop the others: look at the
// Error of each result. Updates are checked by the server alone.
func (c *Client) SetQueues(ctx context.Context, updates []shortline.QueueUpdate, o WriteOptions) (*SetQueuesAnswer, error) {
	var request struct {
		Updates []wireUpdate `json:"updates"`
	}
	request.Updates = make([]wireUpdate, len(updates))
	for i, u := range updates {
		request.Updates[i] = newWireUpdate(u)
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%d queue updates: %w", len(updates), err)
	}
	out := &SetQueuesAnswer{}
	out.Answer, _, err = c.do(ctx, call{method: http.MethodPost, path: "/v1/queues", body: body, contentType: "application/json",
		idempotency: o.key(), repeatable: true}, out)
	switch {
	case err != nil:
		return nil, err
	case len(out.Results) != len(updates):
		return nil, fmt.Errorf("the server answered %d results to %d queue updates", len(out.Results), len(updates))
	}
	return out, nil
}

// wireUpdate is a shortline.QueueUpdate as the API reads it.
type wireUpdate struct {
	ID         shortline.StoreID `json:"id,omitempty"`
	Length     *int              `json:"length,omitempty"`
	Delta      *int              `json:"delta,omitempty"`
	ObservedAt *time.Time        `json:"observed_at,omitempty"`
}

func newWireUpdate(u shortline.QueueUpdate) wireUpdate {
	w := wireUpdate{ID: u.ID, Length: u.Length, Delta: u.Delta}
	if !u.ObservedAt.IsZero() {
		at := u.ObservedAt.UTC()
		w.ObservedAt = &at
	}
	return w
}
