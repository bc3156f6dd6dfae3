package rediscache

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// errSkipped is the outcome of commands for a node that is being skipped.
var errSkipped = errors.New("the Redis node is skipped after failures in a row")

// breakerConfig: after this many failures in a row a node is skipped, and tried again with one call after each pause.
type breakerConfig struct {
	failures int
	pause    time.Duration
}

// breakerState decides whether a node is asked. It is closed while failures is below the limit, else open; probing is
// half-open: one call is on its way.
type breakerState struct {
	failures int
	until    time.Time
	probing  bool
}

// allow tells whether to ask the node now; each true is followed by one result.
func (s *breakerState) allow(cfg breakerConfig, now time.Time) bool {
	if s.failures < cfg.failures {
		return true
	}
	if s.probing || now.Before(s.until) {
		return false
	}
	s.probing = true
	return true
}

// result takes the outcome of a call that was allowed. Those that were on their way when the node began to be skipped
// count too: an answer is an answer.
func (s *breakerState) result(cfg breakerConfig, now time.Time, ok bool) {
	s.probing = false
	if ok {
		s.failures = 0
		return
	}
	s.failures = min(s.failures+1, cfg.failures)
	if s.failures == cfg.failures {
		s.until = now.Add(cfg.pause)
	}
}

func (s *breakerState) open(cfg breakerConfig) bool { return s.failures >= cfg.failures }

// breakers has a breaker for each node of the cluster: that one node is broken is no reason to skip the others.
type breakers struct {
	cfg breakerConfig
	log *slog.Logger

	mu    sync.Mutex
	nodes map[string]*breaker // by address, guarded by mu; as many as the cluster ever had while this runs
}

// breaker is a breakerState with a lock, for one node.
type breaker struct {
	all   *breakers
	addr  string
	mu    sync.Mutex
	state breakerState // guarded by mu
	asked time.Time    // guarded by mu: when somebody last wanted to ask the node
}

func (b *breakers) of(addr string) *breaker {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.nodes[addr]
	if one == nil {
		one = &breaker{all: b, addr: addr}
		b.nodes[addr] = one
	}
	return one
}

// forgotten is how long after the last wish to ask it a node counts as no longer in the cluster.
const forgotten = time.Minute

// open is the number of nodes that are being skipped.
func (b *breakers) open(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, one := range b.nodes {
		one.mu.Lock()
		if one.state.open(b.cfg) && now.Sub(one.asked) < forgotten {
			n++
		}
		one.mu.Unlock()
	}
	return n
}

func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = now
	return b.state.allow(b.all.cfg, now)
}

func (b *breaker) result(now time.Time, err error) {
	b.mu.Lock()
	before := b.state.open(b.all.cfg)
	b.state.result(b.all.cfg, now, err == nil)
	after := b.state.open(b.all.cfg)
	b.mu.Unlock()
	switch {
	case after && !before:
		b.all.log.Info("a Redis node fails; reads of its stores go to the database", "redis", b.addr, "err", err)
	case before && !after:
		b.all.log.Info("a Redis node answers again", "redis", b.addr)
	}
}

// hook puts a breaker before each pipeline to one node. Single commands, with which the client learns about the cluster,
// pass.
type hook struct{ breaker *breaker }

func (h hook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !h.breaker.allow(time.Now()) {
			return errSkipped
		}
		done := false
		defer func() {
			if !done { // a panic: the probe must not stay out for ever
				h.breaker.result(time.Now(), errors.New("the client panicked"))
			}
		}()
		err := next(ctx, cmds)
		done = true
		h.breaker.result(time.Now(), failure(err, cmds))
		return err
	}
}

// failure returns the error that says something about the node, if there is one: not that a key lies elsewhere or is not
// what was expected.
func failure(err error, cmds []redis.Cmder) error {
	if err != nil && !harmless(err) {
		return err
	}
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !harmless(err) {
			return err
		}
	}
	return nil
}

func harmless(err error) bool {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	code, _, _ := strings.Cut(answer.Error(), " ")
	switch code {
	case "MOVED", "ASK", "TRYAGAIN", "WRONGTYPE":
		return true
	}
	return errors.Is(err, redis.Nil)
}
