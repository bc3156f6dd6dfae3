package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/shortline/shortline"
)

const (
	liveIdle     = 20 * time.Second // without a message the client asks for a sign of life
	liveDead     = 45 * time.Second // without a message the connection is taken for dead
	liveAtOnce   = 200              // stores named in one message
	maxLiveBytes = 1 << 20          // of one message from a server
)

// session is one connection of a Live.
type session struct {
	live   *Live
	server string
	cancel atomic.Pointer[context.CancelFunc]
	seen   atomic.Int64 // when something came last

	mu   sync.Mutex
	conn net.Conn // nil before and after; writes are made under mu
}

// heard is what a session tells: an event, a reconnect message, or how it ended, after which nothing comes.
type heard struct {
	from      *session
	event     LiveEvent
	token     string
	reconnect *liveReconnect
	err       error
}

type liveReconnect struct {
	Regions []liveRegion
	WithinS float64
}

func newSession(l *Live, server string) *session { return &session{live: l, server: server} }

// giveUp ends the session; nothing more of it is heard.
func (s *session) giveUp() {
	if cancel := s.cancel.Load(); cancel != nil {
		(*cancel)()
	}
}

// run connects, subscribes and passes on what comes, until the connection or ctx ends.
func (s *session) run(ctx context.Context, to chan<- heard) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.cancel.Store(&cancel)
	tell := func(h heard) bool {
		h.from = s
		select {
		case to <- h:
			return true
		case <-ctx.Done():
			return false
		}
	}
	err := s.talk(ctx, tell)
	if ctx.Err() == nil {
		tell(heard{err: err})
	}
}

// talk returns why the connection ended.
func (s *session) talk(ctx context.Context, tell func(heard) bool) error {
	conn, r, err := s.dial(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	s.seen.Store(time.Now().UnixNano())
	var watcher sync.WaitGroup
	defer watcher.Wait()
	done := make(chan struct{})
	defer close(done)
	defer conn.Close()
	watcher.Go(func() { s.watch(ctx, done) })
	if err := s.subscribe(); err != nil {
		return &UnreachableError{Server: s.server, Err: err}
	}
	for {
		message, err := s.next(r)
		if err != nil {
			return err
		}
		h, err := s.understand(message)
		if err != nil {
			return err
		}
		if h.event.Kind == 0 && h.reconnect == nil {
			continue
		}
		if !tell(h) {
			return ctx.Err()
		}
	}
}

// watch asks for signs of life, and ends the connection when there are none, or when ctx ends.
func (s *session) watch(ctx context.Context, done <-chan struct{}) {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			_ = s.send(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
			_ = s.conn.Close()
			return
		case now := <-ticker.C:
			switch silent := now.Sub(time.Unix(0, s.seen.Load())); {
			case silent > liveDead:
				_ = s.conn.Close()
				return
			case silent > liveIdle:
				_ = s.send(ws.NewPingFrame(nil))
			}
		}
	}
}

func (s *session) send(f ws.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	return ws.WriteFrame(s.conn, ws.MaskFrame(f))
}

// subscribe asks for everything that the Live follows.
func (s *session) subscribe() error {
	type order struct {
		Op     string              `json:"op"`
		Stores []shortline.StoreID `json:"stores,omitempty"`
		Lat    *float64            `json:"lat,omitempty"`
		Lng    *float64            `json:"lng,omitempty"`
		Radius string              `json:"radius,omitempty"`
		Limit  int                 `json:"limit,omitempty"`
		Token  string              `json:"token,omitempty"`
	}
	var orders []order
	if a := s.live.cfg.Area; a != nil {
		orders = append(orders, order{Lat: &a.Lat, Lng: &a.Lng, Radius: a.Radius, Limit: a.Limit})
	}
	for chunk := range slices.Chunk(s.live.cfg.Stores, liveAtOnce) {
		orders = append(orders, order{Stores: chunk})
	}
	for i, o := range orders {
		o.Op = "subscribe"
		if i == 0 {
			o.Token = s.live.subscribedToken()
		}
		text, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if err := s.send(ws.NewTextFrame(text)); err != nil {
			return err
		}
	}
	return nil
}

// dial opens the WebSocket. A refusal is a *Problem.
func (s *session) dial(ctx context.Context) (net.Conn, *bufio.Reader, error) {
	c := s.live.client
	header := http.Header{"User-Agent": {c.cfg.UserAgent}}
	if c.cfg.Key != "" {
		header.Set("Authorization", "Bearer "+c.cfg.Key)
	}
	var problem *Problem
	dialer := ws.Dialer{Timeout: min(c.cfg.Timeout, 10*time.Second), Header: ws.HandshakeHeaderHTTP(header), Protocols: []string{"shortline"},
		OnStatusError: func(status int, _ []byte, r io.Reader) {
			if resp, err := http.ReadResponse(bufio.NewReader(r), nil); err == nil {
				body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
				problem = newProblem(resp, body, time.Now())
			}
		}}
	if t, ok := c.cfg.HTTPClient.Transport.(*http.Transport); ok {
		dialer.NetDial = t.DialContext
		if t.TLSClientConfig != nil {
			dialer.TLSConfig = t.TLSClientConfig.Clone()
			dialer.TLSConfig.NextProtos = nil
		}
	}
	if dialer.TLSConfig == nil {
		dialer.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conn, r, _, err := dialer.Dial(ctx, "ws"+strings.TrimPrefix(s.server, "http")+"/v1/live")
	switch {
	case problem != nil:
		return nil, nil, problem
	case err != nil:
		return nil, nil, &UnreachableError{Server: s.server, Err: err}
	}
	if r == nil {
		r = bufio.NewReaderSize(conn, 1024)
	}
	return conn, r, nil
}

// next returns the next text message.
func (s *session) next(r *bufio.Reader) ([]byte, error) {
	var message []byte
	for {
		h, err := ws.ReadHeader(r)
		if err == nil {
			err = ws.CheckHeader(h, ws.StateClientSide|map[bool]ws.State{true: ws.StateFragmented}[message != nil])
		}
		if err == nil && h.Length+int64(len(message)) > maxLiveBytes {
			err = fmt.Errorf("a message of more than %d bytes", maxLiveBytes)
		}
		var payload []byte
		if err == nil {
			payload = make([]byte, h.Length)
			_, err = io.ReadFull(r, payload)
		}
		if err != nil {
			return nil, &UnreachableError{Server: s.server, Err: err}
		}
		s.seen.Store(time.Now().UnixNano())
		switch h.OpCode {
		case ws.OpPing:
			if err := s.send(ws.NewPongFrame(payload)); err != nil {
				return nil, &UnreachableError{Server: s.server, Err: err}
			}
		case ws.OpPong:
		case ws.OpClose:
			code, why := ws.ParseCloseFrameData(payload)
			return nil, &UnreachableError{Server: s.server, Err: fmt.Errorf("closed with %d %s", code, why)}
		default:
			message = append(message, payload...)
			if h.Fin {
				return message, nil
			}
			if message == nil {
				message = []byte{}
			}
		}
	}
}

// wireQueue is a queue as live messages have it, null for a store that never reported.
type wireQueue struct {
	ID        shortline.StoreID `json:"id"`
	Length    *int              `json:"length"`
	WaitS     *int              `json:"wait_s"`
	WaitHighS *int              `json:"wait_high_s"`
	UpdatedAt *time.Time        `json:"updated_at"`
}

func (w *wireQueue) queue(now time.Time) Queue {
	q := Queue{ID: w.ID}
	if w.Length != nil && w.UpdatedAt != nil {
		q.Length, q.UpdatedAt, q.AgeS = *w.Length, *w.UpdatedAt, max(0, now.Sub(*w.UpdatedAt).Seconds())
	}
	if w.WaitS != nil {
		q.WaitS = *w.WaitS
	}
	if w.WaitHighS != nil {
		q.WaitHighS = *w.WaitHighS
	}
	return q
}

// understand reads a message; what it does not know stands for nothing. An error message about what was subscribed ends the
// session.
func (s *session) understand(message []byte) (heard, error) {
	var m struct {
		Event string `json:"event"`
		wireQueue
		Stores []struct {
			wireQueue
			Lat       float64 `json:"lat"`
			Lng       float64 `json:"lng"`
			DistanceM float64 `json:"distance_m"`
		} `json:"stores"`
		Missing []shortline.StoreID `json:"missing"`
		Area    *json.RawMessage    `json:"area"`
		Region  string              `json:"region"`
		Token   string              `json:"token"`
		Regions []liveRegion        `json:"regions"`
		WithinS float64             `json:"within_s"`
	}
	if err := json.Unmarshal(message, &m); err != nil {
		return heard{}, &UnreachableError{Server: s.server, Err: fmt.Errorf("sends what is not a live message: %w", err)}
	}
	now := time.Now()
	e := LiveEvent{Server: s.server, ID: m.ID}
	switch m.Event {
	case "subscribed":
		e.Kind, e.Region, e.Missing, e.Area = LiveSnapshot, m.Region, m.Missing, m.Area != nil
		for i := range m.Stores {
			w := &m.Stores[i]
			e.Stores = append(e.Stores, LiveStore{Queue: w.queue(now), Lat: w.Lat, Lng: w.Lng, DistanceM: w.DistanceM})
		}
	case "queue":
		e.Kind, e.Queue = LiveChanged, m.queue(now)
	case "removed":
		e.Kind = LiveRemoved
	case "reconnect":
		return heard{reconnect: &liveReconnect{m.Regions, m.WithinS}}, nil
	case "error":
		p := &Problem{}
		if err := json.Unmarshal(bytes.Clone(message), p); err != nil {
			return heard{}, errors.New("the server reports an error of another form")
		}
		return heard{}, p
	}
	return heard{event: e, token: m.Token}, nil
}

func trimSlash(url string) string { return strings.TrimRight(url, "/") }
