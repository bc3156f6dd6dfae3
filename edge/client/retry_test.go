package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline"
)

func TestRetryPolicy(t *testing.T) {
	policy := retryPolicy{attempts: 4, base: 100 * time.Millisecond, most: 300 * time.Millisecond, patience: 10 * time.Second}
	problem := func(status int, after time.Duration) error { return &Problem{Status: status, RetryAfter: after} }
	broken := &UnreachableError{Err: io.ErrUnexpectedEOF}
	refused := &UnreachableError{Err: &url.Error{Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}}
	for _, tc := range []struct {
		name               string
		repeatable, stream bool
		attempt            int
		err                error
		again              bool
		wait               time.Duration
	}{
		{"first", true, false, 1, problem(503, 0), true, 100 * time.Millisecond},
		{"second waits twice as long", true, false, 2, problem(502, 0), true, 200 * time.Millisecond},
		{"third is capped", true, false, 3, problem(504, 0), true, 300 * time.Millisecond},
		{"no fifth", true, false, 4, problem(503, 0), false, 0},
		{"the server asks for more", true, false, 1, problem(503, 2*time.Second), true, 2 * time.Second},
		{"the server asks for too much", true, false, 1, problem(503, time.Minute), false, time.Minute},
		{"not safe to repeat", false, false, 1, problem(503, 0), false, 0},
		{"limited, so nothing was done", false, false, 1, problem(429, time.Second), true, time.Second},
		{"a server's fault that stays", true, false, 1, problem(500, 0), false, 0},
		{"the client's fault", true, false, 1, problem(422, 0), false, 0},
		{"broken", true, false, 1, broken, true, 100 * time.Millisecond},
		{"broken, not safe", false, false, 1, broken, false, 0},
		{"refused, never sent", false, false, 1, refused, true, 100 * time.Millisecond},
		{"a stream is gone", true, true, 1, refused, false, 0},
		{"a wrong certificate stays wrong", true, false, 1, &UnreachableError{Err: &tls.CertificateVerificationError{}}, false, 0},
		{"cancelled", true, false, 1, context.Canceled, false, 0},
	} {
		wait, again := policy.next(tc.repeatable, tc.stream, tc.attempt, tc.err)
		if again != tc.again || again && wait != tc.wait {
			t.Errorf("%s: again %v after %v, want %v after %v", tc.name, again, wait, tc.again, tc.wait)
		}
	}
	if wait, _ := (retryPolicy{attempts: 100, base: time.Second, most: 5 * time.Second}).next(true, false, 90, broken); wait != 5*time.Second {
		t.Errorf("the wait of a late attempt is %v", wait)
	}
}

// inMemory answers requests in the caller's bubble of time.
type inMemory func(*http.Request) (*http.Response, error)

func (f inMemory) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// respond makes an answer of the API.
func respond(status int, header http.Header, body string) *http.Response {
	rec := httptest.NewRecorder()
	for k, v := range header {
		rec.Header()[http.CanonicalHeaderKey(k)] = v
	}
	answer(rec, status, body)
	return rec.Result()
}

func bubbleClient(t *testing.T, f inMemory) *Client {
	t.Helper()
	c, err := New(Config{Server: "http://test", AdminServer: "http://test", HTTPClient: &http.Client{Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const queueJSON = `{"id":"a","length":7,"applied":true}`

func TestWriteIsRepeatedWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys, bodies []string
		c := bubbleClient(t, func(r *http.Request) (*http.Response, error) {
			b, _ := io.ReadAll(r.Body)
			keys, bodies = append(keys, r.Header.Get("Idempotency-Key")), append(bodies, string(b))
			switch len(keys) {
			case 1:
				return nil, io.ErrUnexpectedEOF
			case 2:
				return respond(503, http.Header{"Retry-After": {"3"}}, `{}`), nil
			case 3:
				return respond(504, nil, `{"type":"https://x/outcome-unknown"}`), nil
			}
			return respond(200, nil, queueJSON), nil
		})
		begin := time.Now()
		n := 7
		if _, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: "a", Length: &n}, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(keys) != 4 || keys[0] == "" || keys[0] != keys[1] || keys[0] != keys[3] || bodies[0] != bodies[3] {
			t.Errorf("keys %q, bodies %q", keys, bodies)
		}
		// 0.1 s, the 3 s asked for, 0.4 s, each with up to half as much again.
		if took := time.Since(begin); took < 3500*time.Millisecond || took > 5250*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if _, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: "a", Length: &n}, WriteOptions{IdempotencyKey: "mine"}); err != nil || keys[4] != "mine" {
			t.Errorf("key %q, err %v", keys[4], err)
		}
		if keys[0] == "mine" {
			t.Error("two calls had one key")
		}
	})
}

func TestSlowServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := bubbleClient(t, func(r *http.Request) (*http.Response, error) {
			tries++
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		begin := time.Now()
		_, err := c.Store(t.Context(), "a", ReadOptions{})
		var u *UnreachableError
		if !errors.As(err, &u) || err.Error() != "cannot reach http://test: no answer in 15s" {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); tries != 4 || took < 60*time.Second || took > 62*time.Second {
			t.Errorf("%d tries in %v", tries, took)
		}
	})
}

func TestCallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bubbleClient(t, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Store(ctx, "a", ReadOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestUnsafeCallIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := bubbleClient(t, func(*http.Request) (*http.Response, error) { tries++; return respond(503, nil, `{}`), nil })
		if _, err := c.CreateKey(t.Context(), KeySpec{Name: "n"}); err == nil || tries != 1 {
			t.Errorf("CreateKey: %d tries, err %v", tries, err)
		}
		tries = 0
		if _, err := c.Import(t.Context(), NDJSON, strings.NewReader("")); err == nil || tries != 1 {
			t.Errorf("Import: %d tries, err %v", tries, err)
		}
		tries = 0
		if _, err := c.ImportBytes(t.Context(), NDJSON, []byte("{}")); err == nil || tries != 4 {
			t.Errorf("ImportBytes: %d tries, err %v", tries, err)
		}
	})
}

func TestDeleteThatWasRepeatedMayFindNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := bubbleClient(t, func(*http.Request) (*http.Response, error) {
			if tries++; tries == 1 {
				return nil, io.ErrUnexpectedEOF
			}
			return respond(404, nil, `{}`), nil
		})
		if err := c.DeleteStore(t.Context(), "a"); err != nil {
			t.Errorf("after an attempt that may have deleted it: %v", err)
		}
		if err := c.DeleteStore(t.Context(), "a"); !errors.Is(err, shortline.ErrNotFound) {
			t.Errorf("at the first attempt: %v", err)
		}
	})
}

// slowReader yields n bytes, one each time that every passes.
type slowReader struct {
	n     int
	every time.Duration
	err   error
}

func (s *slowReader) Read(b []byte) (int, error) {
	if s.n == 0 {
		return 0, s.err
	}
	time.Sleep(s.every) // the bubble's time
	s.n--
	b[0] = '\n'
	return 1, nil
}

func TestImportMayTakeLongButNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bubbleClient(t, func(r *http.Request) (*http.Response, error) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return nil, err
			}
			if r.Header.Get("Content-Type") == string(CSV) { // takes everything, then sleeps
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return respond(200, nil, `{}`), nil
		})
		if _, err := c.Import(t.Context(), NDJSON, &slowReader{n: 10, every: time.Minute, err: io.EOF}); err != nil {
			t.Errorf("a slow source: %v", err)
		}
		var u *UnreachableError
		if _, err := c.Import(t.Context(), CSV, &slowReader{n: 1, err: io.EOF}); !errors.As(err, &u) {
			t.Errorf("a server that stalls: %v", err)
		}
		disk := errors.New("disk on fire")
		if _, err := c.Import(t.Context(), NDJSON, &slowReader{n: 1, err: disk}); !errors.Is(err, disk) || errors.As(err, &u) {
			t.Errorf("a source that breaks: %v", err)
		}
	})
}

func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "x": 0, "-3": 0, "7": 7 * time.Second, "99999999999": 0, "999999": 24 * time.Hour,
		"Mon, 23 Nov 2026 09:00:05 GMT": 5 * time.Second, "Mon, 23 Nov 2026 08:00:05 GMT": 0,
	} {
		if got := retryAfter(v, now); got != want && v != "99999999999" {
			t.Errorf("%q is %v, want %v", v, got, want)
		}
	}
}
