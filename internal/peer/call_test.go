package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const testKey = "0123456789abcdef0123"

type question struct {
	Name string `json:"name"`
}

type answer struct {
	Hello string `json:"hello"`
}

// serve answers calls at the returned address until the test ends.
func serve(t *testing.T, keys ...string) string {
	t.Helper()
	v, err := NewVerifier(keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/hello", Handle(v, func(_ context.Context, q question) (answer, error) {
		switch q.Name {
		case "":
			return answer{}, errors.New("nobody is called that")
		case "loop":
			return answer{}, &Refusal{Loop, "round and round"}
		}
		return answer{"hello " + q.Name}, nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(mux, 10*time.Second, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

func TestCall(t *testing.T) {
	addr := serve(t, testKey)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	mine, err := NewClient(Keys{testKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	stranger, _ := NewClient(Keys{"another key of some length"}, nil)
	defer stranger.Close()

	var a answer
	if err := mine.Call(ctx, addr, "/hello", question{"you"}, &a); err != nil || a.Hello != "hello you" {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, test := range []struct {
		name   string
		client *Client
		in     any
		kind   Kind
	}{
		{"an error", mine, question{}, Failed},
		{"a refusal", mine, question{"loop"}, Loop},
		{"a field that is not known", mine, map[string]string{"nam": "you"}, Malformed},
		{"another key", stranger, question{"you"}, Unauthorized},
	} {
		var why *Refusal
		if err := test.client.Call(ctx, addr, "/hello", test.in, nil); !errors.As(err, &why) || why.Kind != test.kind {
			t.Errorf("%s: %v, want %s", test.name, err, test.kind)
		}
	}
	var why *Refusal
	if err := mine.Call(ctx, addr, "/nothing", question{"you"}, nil); err == nil || errors.As(err, &why) || !strings.Contains(err.Error(), "404") {
		t.Errorf("a path that is not there: %v", err)
	}
	if err := mine.Call(context.Background(), addr, "/hello", question{"you"}, nil); err == nil {
		t.Error("a call without a deadline was made")
	}
}

func TestShortKeysAreRefused(t *testing.T) {
	_, a := NewClient(Keys{"short"}, nil)
	_, b := NewVerifier(Keys{"short"}, nil)
	if !errors.Is(a, ErrNoKey) || !errors.Is(b, ErrNoKey) {
		t.Error(a, b)
	}
}

// A key is changed in three steps, of which each may reach the nodes in any order; whoever is left behind by two is refused.
func TestKeysOverlap(t *testing.T) {
	const old, next = "the old key of the cluster", "the new key of the cluster"
	steps := []Keys{{old}, {old, next}, {next, old}, {next}}
	var addrs []string
	for _, keys := range steps {
		addrs = append(addrs, serve(t, keys...))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i, keys := range steps {
		c, err := NewClient(keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		for j, addr := range addrs {
			var why *Refusal
			err := c.Call(ctx, addr, "/hello", question{"you"}, nil)
			if near := i-j <= 1 && j-i <= 1; near && err != nil {
				t.Errorf("step %d calls step %d: %v", i, j, err)
			} else if (i == 0 && j == 3 || i == 3 && j == 0) && (!errors.As(err, &why) || why.Kind != Unauthorized) {
				t.Errorf("step %d calls step %d: %v", i, j, err)
			}
		}
		c.Close()
	}
	if err := (Keys{old, "short"}).Check(); !errors.Is(err, ErrNoKey) {
		t.Errorf("a short second key: %v", err)
	}
}
