package edge

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

const (
	maxUpdates = 1000
	// clientKeyLife is how long the answer to a client's Idempotency-Key is kept.
	clientKeyLife = 24 * time.Hour
)

// QueueState is the live queue of one store. All but the id are null for a store that never reported.
type QueueState struct {
	ID        shortline.StoreID `json:"id"`
	Length    *int              `json:"length" nullable:"true" minimum:"0" maximum:"1000000" doc:"People waiting"`
	WaitS     *int              `json:"wait_s" nullable:"true" doc:"Expected seconds until somebody who joins now is served"`
	WaitHighS *int              `json:"wait_high_s" nullable:"true" doc:"Nine of ten waits are shorter"`
	UpdatedAt *time.Time        `json:"updated_at" nullable:"true" doc:"When the length was observed"`
	AgeS      *int64            `json:"age_s" nullable:"true" doc:"Seconds since then"`
}

func queueState(id shortline.StoreID, q shortline.Queue, known bool, serviceS float64, now time.Time) QueueState {
	state := QueueState{ID: id}
	if !known {
		return state
	}
	wait, high := shortline.Wait(q.Length, serviceS)
	at, age := q.UpdatedAt.UTC(), ageS(q.UpdatedAt, now)
	state.Length, state.WaitS, state.WaitHighS, state.UpdatedAt, state.AgeS = &q.Length, &wait, &high, &at, &age
	return state
}

// QueueAnswer is the answer to one queue update: the queue as it is now, and how the update fared.
type QueueAnswer struct {
	QueueState
	Applied bool   `json:"applied" doc:"Whether this update changed the stored queue"`
	Reason  string `json:"reason,omitempty" doc:"Why it did not"`
	Clamped bool   `json:"clamped" doc:"Whether the result was outside 0 to 1,000,000 and was brought back into it"`
}

func queueAnswer(id shortline.StoreID, item replication.ItemResult, at time.Time) QueueAnswer {
	q := item.Queue
	return QueueAnswer{QueueState: queueState(id, q.Queue, q.Queue.Rev > 0, item.ServiceS, at), Applied: q.Applied, Reason: q.Reason, Clamped: q.Clamped}
}

// getQueue answers GET /v1/stores/{id}/queue, from memory alone.
func (s *Server) getQueue(c echo.Context) error {
	id, pos, err := s.readStore(c)
	if err != nil {
		return err
	}
	sl, rec, ok := pos.state.find(id)
	if !ok {
		return storeNotFound(id)
	}
	live := sl.live()
	q := shortline.Queue{Length: live.length(), UpdatedAt: live.updatedAt()}
	s.cover(&pos)
	return s.answer(c, http.StatusOK, pos.token, queueState(id, q, live.known(), live.serviceS(rec.attrs), s.now()))
}

// QueueBody is the JSON of one update.
type QueueBody struct {
	Length     *int    `json:"length,omitempty" minimum:"0" maximum:"1000000" doc:"The new length; exactly one of length and delta"`
	Delta      *int    `json:"delta,omitempty" minimum:"-1000000" maximum:"1000000" doc:"How many came (or went, negative)"`
	ObservedAt *string `json:"observed_at,omitempty" format:"date-time" doc:"When the store saw it; now where absent. A length older than the stored one is not applied"`
}

func (b QueueBody) update(id shortline.StoreID) (shortline.QueueUpdate, error) {
	u := shortline.QueueUpdate{ID: id, Length: b.Length, Delta: b.Delta}
	if b.ObservedAt != nil {
		at, err := time.Parse(time.RFC3339, *b.ObservedAt)
		if err != nil {
			return u, invalid("observed_at", "%q is not a time in RFC 3339, such as 2026-11-23T09:00:00Z", clip(*b.ObservedAt))
		}
		if at.IsZero() { // to a QueueUpdate this would mean that there is none
			return u, invalid("observed_at", "the year 1 is not between 1970 and 2200")
		}
		u.ObservedAt = at
	}
	return u, u.Validate()
}

// postQueue answers POST /v1/stores/{id}/queue.
func (s *Server) postQueue(c echo.Context) error {
	r := c.Request()
	id, err := pathID(c)
	if err != nil {
		return err
	}
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	key, err := s.allow(r, shortline.ScopeQueueWrite)
	if err != nil {
		return err
	}
	if err := allowQueue(key, id); err != nil {
		return err
	}
	body, err := readBody(c, 4<<10)
	if err != nil {
		return err
	}
	var in QueueBody
	if err := decode(body, &in); err != nil {
		return err
	}
	update, err := in.update(id)
	if err != nil {
		return err
	}
	idem, err := idempotency(r, key, body)
	if err != nil {
		return err
	}
	res, token, err := s.submit(r.Context(), replication.Write{Items: []replication.Item{{Queue: &update}}, Idempotency: idem})
	if err != nil {
		return err
	}
	if res.Items[0].Status == replication.StatusNotFound {
		return storeNotFound(id)
	}
	markReplay(c, res)
	answer := queueAnswer(id, res.Items[0], res.At)
	return s.answer(c, http.StatusOK, token.String(), &answer)
}

func markReplay(c echo.Context, res replication.Result) {
	if res.Replayed {
		c.Response().Header().Set("Idempotent-Replayed", "true")
	}
}

// idempotency reads the header Idempotency-Key; nil where there is none.
func idempotency(r *http.Request, key *shortline.Key, body []byte) (*replication.Idempotency, error) {
	values := r.Header["Idempotency-Key"]
	if len(values) == 0 {
		return nil, nil
	}
	text := values[0]
	if len(values) > 1 || len(text) == 0 || len(text) > 255 || strings.IndexFunc(text, notIDRune) >= 0 {
		return nil, malformed("Idempotency-Key", "must be one text of 1 to 255 printable ASCII characters without blanks")
	}
	return &replication.Idempotency{
		Scope: string(key.ID) + " " + r.Method + " " + r.URL.Path, Key: text, BodyHash: bodyHash(body), TTL: clientKeyLife}, nil
}

// QueuesAnswer has a result for each update, in order.
type QueuesAnswer struct {
	Results []QueuesResult `json:"results"`
}

// QueuesResult is the queue as it is now, or the problem with this one update.
type QueuesResult struct {
	ID    shortline.StoreID
	Queue *QueueAnswer
	Error *Problem
}

// MarshalJSON writes the members of the queue beside the id, or the error.
func (r QueuesResult) MarshalJSON() ([]byte, error) {
	if r.Queue != nil {
		return json.Marshal(r.Queue)
	}
	return json.Marshal(struct {
		ID    shortline.StoreID `json:"id"`
		Error *Problem          `json:"error"`
	}{r.ID, r.Error})
}

// queuesBody is the JSON of POST /v1/queues.
type queuesBody struct {
	Updates []struct {
		ID shortline.StoreID `json:"id"`
		QueueBody
	} `json:"updates" minItems:"1" maxItems:"1000"`
}

// postQueues answers POST /v1/queues. One update that is refused does not touch its neighbours.
func (s *Server) postQueues(c echo.Context) error {
	r := c.Request()
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	key, err := s.allow(r, shortline.ScopeQueueWrite)
	if err != nil {
		return err
	}
	body, err := readBody(c, maxJSONBody)
	if err != nil {
		return err
	}
	var in queuesBody
	if err := decode(body, &in); err != nil {
		return err
	}
	if n := len(in.Updates); n < 1 || n > maxUpdates {
		return invalid("updates", "has %d entries; 1 to %d are allowed", n, maxUpdates)
	}
	idem, err := idempotency(r, key, body)
	if err != nil {
		return err
	}
	results := make([]QueuesResult, len(in.Updates))
	write := replication.Write{Idempotency: idem}
	var of []int // the update that each item is of
	for i, u := range in.Updates {
		results[i].ID = shortline.StoreID(clip(string(u.ID)))
		update, err := u.update(u.ID)
		if err == nil {
			err = allowQueue(key, u.ID)
		}
		if err != nil {
			problem := asAPIError(err).problem()
			results[i].Error = &problem
			continue
		}
		write.Items = append(write.Items, replication.Item{Queue: &update})
		of = append(of, i)
	}
	res, token, err := s.submit(r.Context(), write)
	if err != nil {
		return err
	}
	for j, item := range res.Items {
		i := of[j]
		id := in.Updates[i].ID
		if item.Status == replication.StatusNotFound {
			problem := asAPIError(storeNotFound(id)).problem()
			results[i] = QueuesResult{ID: id, Error: &problem}
			continue
		}
		answer := queueAnswer(id, item, res.At)
		results[i] = QueuesResult{ID: id, Queue: &answer}
	}
	markReplay(c, res)
	text := token.String()
	if len(write.Items) == 0 {
		text = s.appliedToken()
	}
	return s.answer(c, http.StatusOK, text, &QueuesAnswer{Results: results})
}
