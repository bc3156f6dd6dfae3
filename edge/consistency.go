package edge

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/shortline/shortline/replication"
)

// consistency is how new an answer has to be.
type consistency uint8

const (
	consistencyDefault  consistency = iota // session with a token, eventual without
	consistencyEventual                    // whatever this node holds
	consistencySession                     // what the token stands for, or newer
	consistencyStrong                      // all that was committed when the request came
)

func parseConsistency(s string) (consistency, error) {
	switch s {
	case "eventual":
		return consistencyEventual, nil
	case "session":
		return consistencySession, nil
	case "strong":
		return consistencyStrong, nil
	}
	return 0, malformed("consistency", "%q is not one of eventual, session, strong", clip(s))
}

// position is the state to read from and how far it has come at least.
type position struct {
	state   *state
	applied *replication.Applied
	token   string // for the answer: the greater of what was sent and the position read at
	sent    replication.Token
	have    bool // sent was sent
}

// raise makes the token stand for at least t, whose text is given where it is known.
func (p *position) raise(t replication.Token, text string) {
	switch {
	case p.have && t.Less(p.sent):
		p.token = p.sent.String()
	case text != "":
		p.token = text
	default:
		p.token = t.String()
	}
}

// cover is called when everything has been read from memory: the token then stands for that, too, and not only for the
// position that memory had when the read began.
func (s *Server) cover(pos *position) {
	if c := s.feed.Covers(); c != nil && c != pos.applied {
		pos.raise(c.Shows, c.Text)
	}
}

// coverAhead is cover for a read that found something in the database that memory does not have yet.
func (s *Server) coverAhead(ctx context.Context, pos *position) error {
	t, err := s.feed.Ahead(ctx)
	if err == nil {
		pos.raise(t, "")
	}
	return err
}

// read returns what a read is to be answered from, after waiting for what the client asked of it.
func (s *Server) read(r *http.Request, level consistency) (position, error) {
	sent, have, err := sentToken(r)
	if err != nil {
		return position{}, err
	}
	if level == consistencyDefault && have {
		level = consistencySession
	}
	if _, err := s.state(); err != nil {
		return position{}, err
	}
	switch {
	case level == consistencyStrong:
		if err := s.wait(r.Context(), func(ctx context.Context) error { return s.feed.Latest(ctx, s.cfg.SessionWait) }); err != nil {
			return position{}, err
		}
		fallthrough // a strong read does not go back behind its own session either
	case level == consistencySession && have:
		if err := s.satisfy(r.Context(), sent, have); err != nil {
			return position{}, err
		}
	}
	// Position first, memory second: what is read is then at the position or newer.
	applied := s.feed.Applied()
	st, err := s.state()
	if err != nil || applied == nil {
		return position{}, &apiError{kind: kindNotReady, detail: "this node is still loading its first snapshot", retryAfter: time.Second}
	}
	pos := position{state: st, applied: applied, sent: sent, have: have}
	pos.raise(applied.Shows, applied.Text)
	return pos, nil
}

// appliedToken is the token of what memory holds: for an answer to a write that had nothing to commit.
func (s *Server) appliedToken() string {
	if a := s.feed.Applied(); a != nil {
		return a.Text
	}
	return ""
}

func sentToken(r *http.Request) (replication.Token, bool, error) {
	values := r.Header[headerToken]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return replication.Token{}, false, nil
	}
	if len(values) > 1 {
		return replication.Token{}, false, malformed(headerToken, "is given %d times; send the newest one only", len(values))
	}
	t, err := replication.ParseToken(values[0])
	return t, err == nil, err
}

// satisfy waits until memory holds what the token stands for.
func (s *Server) satisfy(ctx context.Context, t replication.Token, have bool) error {
	if a := s.feed.Applied(); !have || a != nil && a.Satisfies(t) {
		return nil
	}
	return s.wait(ctx, func(ctx context.Context) error { return s.feed.Settle(ctx, t, s.cfg.SessionWait) })
}

// wait bounds a wait for the feed; running out of time is a problem of its own, unlike the client going away.
func (s *Server) wait(ctx context.Context, until func(context.Context) error) error {
	hold := max(s.cfg.SessionWait, s.cfg.WriteHold)
	bounded, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	began := time.Now()
	err := until(bounded)
	s.metrics.waited(err, time.Since(began))
	if errors.Is(err, ErrNotPrimary) && ctx.Err() == nil {
		return &apiError{kind: kindNoPrimary, detail: "nobody could tell within " + hold.String() + " what is committed; read with consistency=eventual, or try again",
			retryAfter: time.Second, cause: err}
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, replication.ErrTokenLost) {
		waited := s.cfg.SessionWait
		if !errors.Is(err, replication.ErrBehind) {
			waited = hold
		}
		return &apiError{kind: kindBehind, detail: "this node has not caught up with what was asked for within " + waited.String() +
			"; try again, or read with consistency=eventual", retryAfter: time.Second, cause: err}
	}
	return err
}
