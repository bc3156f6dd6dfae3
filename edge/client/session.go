package client

import (
	"slices"
	"sync"
)

// Session is what one user of the service has seen so far, as the tokens of the answers. It is safe for concurrent use,
// and clients of several regions may share one: then a read in one region sees what was written through another.
//
// Tokens are opaque, so of two answers that crossed on their way nobody here can tell which is newer. The session keeps
// both until an answer is known to cover them: a read covers the token that it sent, a write covers everything known
// when it was sent, and where there is more than one, the next read asks for consistency=strong, which covers them all.
// A program that wants many cheap reads at once gives each its own session or reads with Eventual.
type Session struct {
	mu       sync.Mutex
	frontier []string // tokens of which any may be the newest, in order of arrival; guarded by mu
}

// Token returns the newest token, or one of those that may be the newest, or "" at the start of a session. Handing it to
// another session's Observe makes that one see what this one saw.
func (s *Session) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frontier) == 0 {
		return ""
	}
	return s.frontier[len(s.frontier)-1]
}

// Observe adds a token that came from elsewhere; later reads see at least what it stands for.
func (s *Session) Observe(token string) { s.replace(nil, token) }

// Forget starts the session anew.
func (s *Session) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frontier = nil
}

// known returns a copy of the frontier.
func (s *Session) known() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.frontier)
}

// replace adds a token that is at least as new as each of covered, which are dropped.
func (s *Session) replace(covered []string, token string) {
	if token == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frontier = slices.DeleteFunc(s.frontier, func(t string) bool { return t == token || slices.Contains(covered, t) })
	s.frontier = append(s.frontier, token)
}
