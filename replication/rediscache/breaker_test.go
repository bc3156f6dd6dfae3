package rediscache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestBreaker(t *testing.T) {
	cfg := breakerConfig{failures: 2, pause: 10 * time.Second}
	begin := time.Unix(1000, 0)
	type step struct {
		at    int    // seconds after the beginning
		do    string // "ask" and what is expected, or a result
		allow bool
	}
	for name, steps := range map[string][]step{
		"answers":            {{0, "ask", true}, {0, "ok", false}, {0, "ask", true}},
		"one failure":        {{0, "ask", true}, {0, "fail", false}, {0, "ask", true}, {0, "ok", false}, {0, "fail", false}, {0, "ask", true}},
		"opens":              {{0, "fail", false}, {0, "fail", false}, {0, "ask", false}, {9, "ask", false}},
		"one probe at once":  {{0, "fail", false}, {0, "fail", false}, {10, "ask", true}, {10, "ask", false}, {99, "ask", false}},
		"the probe fails":    {{0, "fail", false}, {0, "fail", false}, {10, "ask", true}, {11, "fail", false}, {20, "ask", false}, {21, "ask", true}},
		"the probe succeeds": {{0, "fail", false}, {0, "fail", false}, {10, "ask", true}, {11, "ok", false}, {11, "ask", true}, {11, "ask", true}},
		"a late answer":      {{0, "fail", false}, {0, "fail", false}, {1, "ok", false}, {1, "ask", true}},
		"late failures":      {{0, "fail", false}, {0, "fail", false}, {5, "fail", false}, {10, "ask", false}, {15, "ask", true}},
	} {
		t.Run(name, func(t *testing.T) {
			var s breakerState
			for i, st := range steps {
				now := begin.Add(time.Duration(st.at) * time.Second)
				if st.do != "ask" {
					s.result(cfg, now, st.do == "ok")
				} else if got := s.allow(cfg, now); got != st.allow {
					t.Fatalf("step %d: %v", i, got)
				}
			}
		})
	}
}

// answer is an error that Redis sent.
type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

func TestFailure(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {redis.Nil, false}, {answer("MOVED 1 a:1"), false}, {answer("ASK 1 a:1"), false}, {answer("TRYAGAIN x"), false},
		{answer("WRONGTYPE x"), false}, {answer("LOADING x"), true}, {answer("CLUSTERDOWN x"), true}, {answer("NOAUTH x"), true},
		{io.EOF, true}, {context.DeadlineExceeded, true}, {fmt.Errorf("dial: %w", errors.New("refused")), true},
	} {
		cmd := redis.NewCmd(context.Background(), "get", "x")
		cmd.SetErr(c.err)
		if got := failure(c.err, nil) != nil; got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
		if got := failure(nil, []redis.Cmder{cmd}) != nil; got != c.want {
			t.Errorf("a command with %v: %v", c.err, got)
		}
	}
}

func TestHook(t *testing.T) {
	all := &breakers{cfg: breakerConfig{failures: 1, pause: time.Hour}, log: slog.New(slog.DiscardHandler), nodes: map[string]*breaker{}}
	calls := 0
	run := hook{breaker: all.of("a:1")}.ProcessPipelineHook(func(context.Context, []redis.Cmder) error { calls++; return io.EOF })
	if err := run(context.Background(), nil); err != io.EOF {
		t.Error(err)
	}
	if err := run(context.Background(), nil); err != errSkipped || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	now := time.Now()
	if all.open(now) != 1 || all.open(now.Add(2*forgotten)) != 0 {
		t.Error("the count of nodes that are skipped is wrong")
	}
	// A panic on the way does not keep the probe for ever.
	panics := hook{breaker: all.of("b:1")}.ProcessPipelineHook(func(context.Context, []redis.Cmder) error { panic("x") })
	func() {
		defer func() { _ = recover() }()
		_ = panics(context.Background(), nil)
	}()
	if b := all.of("b:1"); b.state.probing || b.state.failures != 1 {
		t.Errorf("%+v", b.state)
	}
}
