package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shortline/shortline"
)

// LiveConfig says what a Live follows: stores by id, the nearest of a place, or both.
type LiveConfig struct {
	Stores []shortline.StoreID
	Area   *LiveArea
	// On gets every event, one at a time. While it works nothing more is read, so that afterwards the newest values come and
	// not all in between. An error that it returns ends the Live.
	On func(LiveEvent) error
	// Stay keeps to the one server of the client, instead of going on to the regions of GET /v1/route.
	Stay bool
}

// LiveArea is a place whose nearest stores are followed, whichever they are at the moment. Zero leaves a bound to the server.
type LiveArea struct {
	Lat, Lng float64
	Radius   string
	Limit    int
}

// LiveKind tells events apart.
type LiveKind uint8

// The kinds of LiveEvent.
const (
	LiveSnapshot LiveKind = iota + 1 // how stores are: when a subscription begins, after each reconnection, and for an area whenever it has other stores
	LiveChanged                      // one store's queue changed
	LiveRemoved                      // a store is gone
	LiveLost                         // the connection is lost; another one is being tried
)

// LiveEvent is what a Live tells.
type LiveEvent struct {
	Kind   LiveKind
	Server string // the base URL that it came from
	Region string // that answered; of a snapshot

	Stores  []LiveStore         // of a snapshot; of an area nearest first, and all that it has
	Missing []shortline.StoreID // of a snapshot: followed, but there is no such store
	Area    bool                // whether it is a snapshot of the area

	Queue Queue             // LiveChanged; not Reported if the store has not
	ID    shortline.StoreID // LiveChanged and LiveRemoved

	Err error // LiveLost
}

// LiveStore is one store of a snapshot. Its place is known for those of an area.
type LiveStore struct {
	Queue
	Lat, Lng  float64
	DistanceM float64
}

// Live follows queues over one WebSocket at a time, and moves to the next region when the one it uses goes away. There is
// no gap in what it tells: each connection begins with how everything is now, and when a server asks to go elsewhere the next
// connection is there before this one is given up. Nor does it go back: of a queue whose value is older than one already told, as
// UpdatedAt says, the one told stands for up to 10 s after a move; after that what the server says counts.
type Live struct {
	client *Client
	cfg    LiveConfig
	backoff
	token atomic.Pointer[string] // of the newest snapshot: a region that is behind is asked to catch up with it
}

func (l *Live) subscribedToken() string {
	if t := l.token.Load(); t != nil {
		return *t
	}
	return ""
}

// NewLive makes a Live. It starts nothing; see Run.
func (c *Client) NewLive(cfg LiveConfig) (*Live, error) {
	if len(cfg.Stores) == 0 && cfg.Area == nil {
		return nil, errors.New("live: nothing to follow: name stores or a place")
	}
	if cfg.On == nil {
		return nil, errors.New("live: On is required")
	}
	for _, id := range cfg.Stores {
		if _, err := shortline.ParseStoreID(string(id)); err != nil {
			return nil, fmt.Errorf("live: %q: %w", id, err)
		}
	}
	return &Live{client: c, cfg: cfg, backoff: backoff{base: 250 * time.Millisecond, most: 10 * time.Second}}, nil
}

// backoff is how long to wait before another attempt.
type backoff struct{ base, most time.Duration }

func (b backoff) after(failures int) time.Duration {
	if failures <= 1 {
		return jitter(b.base)
	}
	d := min(b.most, b.base<<min(failures-1, 16))
	return d/2 + jitter(d/2)
}

// Run follows until ctx ends, which is no error, or until it is told for good that it must not: a *Problem such as that of a
// key. Losing a connection is no error, and neither is having none at first.
func (l *Live) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer cancel()
	from := make(chan heard)
	r := liveRun{Live: l, known: []string{l.client.server}, retry: time.NewTimer(0), settled: time.NewTimer(time.Hour)}
	defer r.retry.Stop()
	defer r.settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.retry.C:
			if r.next == nil {
				s := newSession(l, r.target(ctx))
				r.next = s
				sessions.Go(func() { s.run(ctx, from) })
			}
		case h := <-from:
			if err := r.take(h); err != nil {
				return err
			}
		case <-r.settled.C:
			if err := r.release(); err != nil {
				return err
			}
		}
	}
}

// liveRun is the state of one Run.
type liveRun struct {
	*Live
	known   []string // servers in the order in which to try them
	bad     []string // those that failed since a connection was there, the last one last
	current *session // nil: none
	next    *session // being opened, to take its place; nil: none
	retry   *time.Timer
	told    told
	settled *time.Timer // after a move: what was held back counts now

	failures int // in a row
}

// take goes on after what a session told.
func (r *liveRun) take(h heard) error {
	switch {
	case h.from != r.current && h.from != r.next: // it was given up
		return nil
	case h.err != nil:
		return r.lost(h)
	case h.reconnect != nil:
		if h.from == r.current && r.next == nil {
			if urls := baseURLs(h.reconnect.Regions); len(urls) > 0 {
				r.known = urls
			}
			r.bad = []string{h.from.server}
			r.retry.Reset(time.Duration(rand.Float64() * h.reconnect.WithinS * float64(time.Second)))
		}
		return nil
	case h.from == r.next:
		if h.event.Kind != LiveSnapshot {
			return nil
		}
		if r.current != nil {
			r.current.giveUp()
		}
		r.current, r.next, r.bad, r.failures = h.from, nil, nil, 0
		r.told.moved(time.Now())
		r.settled.Reset(holdBack)
	}
	if h.token != "" {
		r.token.Store(&h.token)
	}
	if e, ok := r.told.pass(h.event, r.cfg.Stores, time.Now()); ok {
		return r.cfg.On(e)
	}
	return nil
}

// release tells what was held back: nothing newer has come.
func (r *liveRun) release() error {
	for _, q := range r.told.release() {
		e := LiveEvent{Kind: LiveChanged, ID: q.ID, Queue: q}
		if r.current != nil {
			e.Server = r.current.server
		}
		if err := r.cfg.On(e); err != nil {
			return err
		}
	}
	return nil
}

// lost goes on after a session ended. The caller is told when it has no connection any more, and of the first attempt.
func (r *liveRun) lost(h heard) error {
	had := h.from == r.current
	if isFinalLive(h.err) && (had || r.current == nil) {
		return h.err
	}
	first := had || r.current == nil && len(r.bad) == 0
	if had {
		r.current = nil
	} else {
		r.next = nil
	}
	r.bad = append(slices.DeleteFunc(r.bad, func(s string) bool { return s == h.from.server }), h.from.server)
	r.failures++
	if had {
		r.failures = 1
	}
	if r.next == nil {
		r.retry.Reset(r.after(r.failures))
	}
	if first {
		return r.cfg.On(LiveEvent{Kind: LiveLost, Server: h.from.server, Err: h.err})
	}
	return nil
}

// target is the server to try next: the first of the route that has not failed, else the one that failed longest ago. The
// route is asked for when a server has failed; while nobody tells one, the servers known so far have to do.
func (r *liveRun) target(ctx context.Context) string {
	if r.cfg.Stay || len(r.bad) == 0 {
		return r.known[0]
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	path := "/v1/route"
	if a := r.cfg.Area; a != nil {
		path += fmt.Sprintf("?lat=%v&lng=%v", a.Lat, a.Lng)
	}
	if !slices.Contains(r.known, r.client.server) {
		r.known = append(r.known, r.client.server)
	}
	for _, base := range r.known {
		if base == r.bad[len(r.bad)-1] && len(r.known) > 1 {
			continue
		}
		if urls := r.client.route(ctx, base, path); len(urls) > 0 {
			r.known = urls
			break
		}
	}
	for _, s := range r.known {
		if !slices.Contains(r.bad, s) {
			return s
		}
	}
	for _, s := range r.bad {
		if slices.Contains(r.known, s) {
			return s
		}
	}
	return r.known[0]
}

// route asks one server for the regions' base URLs; none where it does not tell.
func (c *Client) route(ctx context.Context, base, path string) []string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if c.cfg.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Key)
	}
	resp, err := c.cfg.HTTPClient.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct{ Regions []liveRegion }
	if resp.StatusCode != http.StatusOK || json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&answer) != nil {
		return nil
	}
	return baseURLs(answer.Regions)
}

// liveRegion is a region as a route or a reconnect message has it.
type liveRegion struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

func baseURLs(regions []liveRegion) []string {
	var urls []string
	for _, r := range regions {
		if checkBaseURL(r.URL) == nil && !slices.Contains(urls, trimSlash(r.URL)) {
			urls = append(urls, trimSlash(r.URL))
		}
	}
	return urls
}

// isFinalLive tells errors that another attempt will not mend.
func isFinalLive(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusTooManyRequests && p.Status != http.StatusRequestTimeout
}
