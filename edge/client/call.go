package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Answer is what came beside the JSON, and the JSON itself. It is part of every answer.
type Answer struct {
	Raw       []byte // the body as it was sent
	Status    int
	Region    string // who served it
	Token     string // the place in history that the answer stands for
	RequestID string
	ETag      string
}

// Consistency says how fresh a read must be.
type Consistency string

// The consistencies.
const (
	SessionDefault Consistency = ""         // at least what the session has seen
	Eventual       Consistency = "eventual" // whatever the node has; outside of the session, which learns nothing from it
	Strong         Consistency = "strong"   // as of now at the primary region
)

// ReadOptions says how to read; the zero value reads within the session.
type ReadOptions struct{ Consistency Consistency }

// call is one request in a form that can be sent several times.
type call struct {
	admin       bool
	method      string
	path        string
	query       url.Values
	body        []byte
	stream      io.Reader // instead of body, sent once
	contentType string
	// idempotency is the Idempotency-Key.
	idempotency string
	// repeatable: sending it twice is as good as sending it once.
	repeatable bool
	// read: it takes part in the session with its consistency.
	read        bool
	consistency Consistency
}

// do sends a call until it is answered, is refused for good, or has had its attempts, and decodes the answer into into,
// where that is not nil. attempts is how often it was sent.
func (c *Client) do(ctx context.Context, cl call, into any) (ans Answer, attempts int, err error) {
	for attempts = 1; ; attempts++ {
		ans, err = c.once(ctx, cl, attempts, into)
		if err == nil || ctx.Err() != nil {
			return ans, attempts, err
		}
		wait, again := c.retry.next(cl.repeatable, cl.stream != nil, attempts, err)
		if !again {
			return ans, attempts, err
		}
		wait += jitter(wait / 2)
		c.cfg.Log.Debug("call repeated", "method", cl.method, "path", cl.path, "attempt", attempts, "wait", wait, "err", err)
		if !sleep(ctx, wait) {
			return ans, attempts, err
		}
	}
}

// once sends a call once. The error is a *Problem, an *UnreachableError, the context's, or about an answer that is not
// of this API.
func (c *Client) once(ctx context.Context, cl call, attempt int, into any) (Answer, error) {
	base := c.server
	if cl.admin {
		base = c.admin
	}
	if base == "" {
		return Answer{}, errors.New("no admin server is configured")
	}
	attemptCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	deadline := time.AfterFunc(c.cfg.Timeout, cancel)
	defer deadline.Stop()

	seen := c.cfg.Session.known()
	req, covered, err := c.request(attemptCtx, base, cl, attempt, seen)
	if err != nil {
		return Answer{}, err
	}
	if cl.stream != nil {
		req.Body = &progressReader{r: cl.stream, deadline: deadline, idle: c.cfg.Timeout}
	}
	resp, err := c.cfg.HTTPClient.Do(req)
	if err != nil {
		return Answer{}, c.unreachable(ctx, attemptCtx, base, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxAnswerBytes+1))
	if err != nil {
		return Answer{}, c.unreachable(ctx, attemptCtx, base, err)
	}
	h := resp.Header
	ans := Answer{Raw: body, Status: resp.StatusCode, Region: h.Get("Shortline-Region"), Token: h.Get("Shortline-Token"),
		RequestID: h.Get("X-Request-Id"), ETag: h.Get("ETag")}
	if resp.StatusCode >= 400 {
		p := newProblem(resp, body[:min(int64(len(body)), c.cfg.MaxAnswerBytes)], time.Now())
		if p.TokenLost() {
			c.cfg.Session.Forget()
		}
		return ans, p
	}
	if int64(len(body)) > c.cfg.MaxAnswerBytes {
		return ans, fmt.Errorf("%s answered with more than %d bytes", base, c.cfg.MaxAnswerBytes)
	}
	if err := decode(resp, body, into); err != nil {
		return ans, fmt.Errorf("%s %s: %w; is it a Shortline server?", cl.method, base+cl.path, err)
	}
	if h.Get("Idempotent-Replayed") == "true" {
		covered = nil
	}
	if cl.read && cl.consistency != Eventual || cl.method != http.MethodGet {
		c.cfg.Session.replace(covered, ans.Token)
	}
	return ans, nil
}

// request builds the request of one attempt, and tells which of the tokens seen its answer's token will cover.
func (c *Client) request(ctx context.Context, base string, cl call, attempt int, seen []string) (*http.Request, []string, error) {
	var body io.Reader
	if cl.body != nil {
		body = bytes.NewReader(cl.body)
	}
	req, err := http.NewRequestWithContext(ctx, cl.method, base+cl.path, body)
	if err != nil {
		return nil, nil, err
	}
	h := req.Header
	h.Set("User-Agent", c.cfg.UserAgent)
	h.Set("Accept", "application/json, application/problem+json")
	if c.cfg.Key != "" {
		h.Set("Authorization", "Bearer "+c.cfg.Key)
	}
	if cl.contentType != "" {
		h.Set("Content-Type", cl.contentType)
	}
	if cl.idempotency != "" {
		h.Set("Idempotency-Key", cl.idempotency)
	}
	query, covered := cl.query, []string(nil)
	switch {
	case cl.read:
		consistency := cl.consistency
		if consistency == SessionDefault && len(seen) > 1 {
			consistency = Strong
		}
		if consistency != SessionDefault {
			query = cloneValues(query)
			query.Set("consistency", string(consistency))
		}
		if consistency != Eventual && len(seen) > 0 {
			sent := seen[len(seen)-1]
			h.Set("Shortline-Token", sent)
			covered = []string{sent}
		}
		if consistency == Strong {
			covered = seen
		}
	case attempt == 1:
		covered = seen // a write that came again may be answered with the token of its first time
	}
	req.URL.RawQuery = query.Encode()
	return req, covered, nil
}

func cloneValues(v url.Values) url.Values {
	out := make(url.Values, len(v)+1)
	for k, list := range v {
		out[k] = list
	}
	return out
}

// unreachable tells the end of the caller's context from that of the attempt and from a broken connection.
func (c *Client) unreachable(ctx, attempt context.Context, base string, err error) error {
	var body *bodyError
	switch {
	case errors.As(err, &body):
		return body.err // the stream to be sent could not be read: not the server's fault
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case attempt.Err() != nil:
		err = fmt.Errorf("no answer in %v", c.cfg.Timeout)
	}
	return &UnreachableError{Server: base, Err: err}
}

func decode(resp *http.Response, body []byte, into any) error {
	if into == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return fmt.Errorf("answered with %q instead of JSON", resp.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("answered with JSON of another form: %w", err)
	}
	return nil
}

// retryPolicy decides whether and when a call is sent again. It reads neither clock nor randomness.
type retryPolicy struct {
	attempts   int
	base, most time.Duration // the wait doubles from base to most
	patience   time.Duration // a server that asks to wait longer is not waited for
}

// next tells whether to send again after the attempt failed with err, and how long to wait at least.
func (r retryPolicy) next(repeatable, stream bool, attempt int, err error) (wait time.Duration, again bool) {
	if attempt >= r.attempts || stream {
		return 0, false
	}
	wait = r.most
	if shift := attempt - 1; shift < 20 {
		wait = min(r.most, r.base<<shift)
	}
	var p *Problem
	var u *UnreachableError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &p):
		switch p.Status {
		case http.StatusTooManyRequests:
			again = true // it was refused before anything was done
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			again = repeatable
		}
		return max(wait, p.RetryAfter), again && p.RetryAfter <= r.patience
	case errors.As(err, &cert):
		return 0, false
	case errors.As(err, &u):
		return wait, repeatable || u.neverSent()
	}
	return 0, false
}

// jitter is between 0 and d, so that clients that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// sleep waits, and is false when the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// progressReader moves the deadline of the attempt with every piece of the stream that the server takes; while the
// source itself is slow to yield, the deadline rests.
type progressReader struct {
	r        io.Reader
	deadline *time.Timer
	idle     time.Duration
}

func (p *progressReader) Read(b []byte) (int, error) {
	p.deadline.Stop()
	n, err := p.r.Read(b)
	p.deadline.Reset(p.idle)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

func (p *progressReader) Close() error { return nil }

// bodyError marks an error of the source of a stream.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }
