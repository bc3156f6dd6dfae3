package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/shortline/shortline"
)

// Problem is an answer that says no: application/problem+json of RFC 9457, or whatever else came with a status of 400
// or more, for example from a proxy.
type Problem struct {
	Type   string                 `json:"type,omitempty"`
	Title  string                 `json:"title"`
	Status int                    `json:"status"`
	Detail string                 `json:"detail,omitempty"`
	Errors []shortline.FieldError `json:"errors,omitempty"` // what is wrong with which field
	Rule   string                 `json:"rule,omitempty"`   // the rule that refuses an operator's verb

	RequestID  string        `json:"-"` // for the server's log
	Region     string        `json:"-"` // who answered
	RetryAfter time.Duration `json:"-"` // how long the server asks to wait; 0 where it does not say
}

// Error tells the problem in one line, field errors included, fit for a terminal.
func (p *Problem) Error() string {
	what := p.Detail
	if what == "" {
		what = p.Title
	}
	var fields []string
	for _, e := range p.Errors {
		if e.Detail != "" && strings.Contains(p.Detail, e.Detail) {
			continue
		}
		if e.Field == "" {
			fields = append(fields, e.Detail)
			continue
		}
		fields = append(fields, e.Field+": "+e.Detail)
	}
	if len(fields) > 0 {
		if what != "" {
			what += ": "
		}
		what += strings.Join(fields, "; ")
	}
	if p.Status != 0 {
		what = fmt.Sprintf("%s (%d %s)", what, p.Status, http.StatusText(p.Status))
	}
	return oneLine(what)
}

// Is lets errors.Is(err, shortline.ErrNotFound) see a 404.
func (p *Problem) Is(target error) bool {
	return target == shortline.ErrNotFound && p.Status == http.StatusNotFound
}

// OutcomeUnknown tells that the write may have happened or not; sending it again with the same Idempotency-Key is safe.
func (p *Problem) OutcomeUnknown() bool { return strings.HasSuffix(p.Type, "/outcome-unknown") }

// TokenLost tells that a failover lost what the session had seen. The client has then started the session anew.
func (p *Problem) TokenLost() bool { return strings.HasSuffix(p.Type, "/token-lost") }

// UnreachableError says that no whole answer came: the connection was refused or broke, or the time ran out.
type UnreachableError struct {
	Server string // the base URL
	Err    error
}

// Error tells it in one line.
func (e *UnreachableError) Error() string {
	return oneLine(fmt.Sprintf("cannot reach %s: %s", e.Server, plainCause(e.Err)))
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// neverSent tells that the request cannot have reached the server.
func (e *UnreachableError) neverSent() bool {
	var op *net.OpError
	return errors.As(e.Err, &op) && op.Op == "dial"
}

// plainCause says without Go's layers why a connection failed.
func plainCause(err error) string {
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no host " + dns.Name
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err):
		return "no answer in time"
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// newProblem makes a Problem of an answer with a status of 400 or more.
func newProblem(resp *http.Response, body []byte, now time.Time) *Problem {
	p := &Problem{}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case kind == "application/problem+json" || kind == "application/json":
		if json.Unmarshal(body, p) != nil {
			p = &Problem{}
		}
	case kind == "text/plain":
		p.Detail = string(body[:min(len(body), 200)])
	}
	p.Status = resp.StatusCode
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	p.RequestID, p.Region = resp.Header.Get("X-Request-Id"), resp.Header.Get("Shortline-Region")
	p.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	return p
}

// retryAfter reads both forms of the header, seconds and a date; 0 where it is neither.
func retryAfter(v string, now time.Time) time.Duration {
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(min(s, 86400)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// oneLine keeps what a server says from moving the cursor of a terminal or from looking like a second message.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}
