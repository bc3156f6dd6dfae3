package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// Problem is the body of every error answer, application/problem+json (RFC 9457).
type Problem struct {
	Type   string `json:"type" doc:"Kind of problem, a reference that this service resolves" example:"/problems/invalid-request"`
	Title  string `json:"title" doc:"The kind in words"`
	Status int    `json:"status" doc:"The HTTP status"`
	Detail string `json:"detail" doc:"What is wrong with this request, and what to do about it"`
	// Errors names every field at fault, for bad input.
	Errors []shortline.FieldError `json:"errors,omitempty" doc:"Every field at fault"`
	// Rule and Blockers name the rules that an operator's verb would break.
	Rule     regions.Rule            `json:"rule,omitempty" doc:"The first rule that refuses an operator's verb"`
	Blockers []*regions.RefusedError `json:"blockers,omitempty" doc:"Every rule that refuses it, in words"`
}

// problemKind is one of the kinds of problem that there are. Its name is the last part of the problem's type.
type problemKind struct {
	name   string
	status int
	title  string
	remedy string // for the page of kinds
}

var (
	kindMalformed          = problemKind{"malformed-request", 400, "The request cannot be read", "Mend what errors names: a parameter that is unknown, missing, given twice or not of its type, or a body that is not JSON."}
	kindInvalid            = problemKind{"invalid-request", 422, "The request is not acceptable", "The request could be read, but a value is out of its range. Each is named in errors."}
	kindUnauthorized       = problemKind{"unauthorized", 401, "An API key is needed", "Send the header Authorization: Bearer KEY. Keys are made with: shortline keys create."}
	kindForbidden          = problemKind{"forbidden", 403, "The API key does not allow this", "Use a key with the scope that detail names, or one that covers this store."}
	kindNotFound           = problemKind{"not-found", 404, "Not found", "Check the id and the path."}
	kindMethod             = problemKind{"method-not-allowed", 405, "Method not allowed", "The header Allow names the methods that this path has."}
	kindTokenLost          = problemKind{"token-lost", 409, "The token's write is lost", "What the token stands for is not in this history and never will be. Drop the token and read again."}
	kindUpgrade            = problemKind{"upgrade-required", 426, "A WebSocket is needed", "Open it as a WebSocket (ws:// or wss://), version 13; or use GET /v1/live/sse, which is plain HTTP."}
	kindTooManyConnections = problemKind{"too-many-connections", 429, "Too many live connections", "Close some, or follow more stores on each."}
	kindTooManyMessages    = problemKind{"too-many-messages", 429, "Too many messages on a live connection", "Send fewer: up to 200 stores fit into one message."}
	kindRateLimited        = problemKind{"rate-limited", 429, "Too many requests", "Wait as long as Retry-After says, and send fewer: many queues fit into one POST /v1/queues, and changes come over GET /v1/live. A key has a limit of its own."}
	kindTooLarge           = problemKind{"too-large", 413, "The request is too large", "Send less at a time; detail names the limit."}
	kindMedia              = problemKind{"unsupported-media-type", 415, "Unsupported media type", "Send the Content-Type that detail names."}
	kindIdempotency        = problemKind{"idempotency-mismatch", 422, "Idempotency-Key used before with another body", "Use a new key for a new request; send the very same body to retry one."}
	kindInternal           = problemKind{"internal", 500, "Internal error", "It is in the node's log under the X-Request-Id of the answer."}
	kindOverloaded         = problemKind{"overloaded", 503, "Too many writes are waiting", "Nothing was written. Try again after Retry-After seconds."}
	kindNotReady           = problemKind{"not-ready", 503, "This node is not ready", "It is starting or stopping. Try again after Retry-After seconds, or ask another node."}
	kindBehind             = problemKind{"behind-token", 503, "This node has not caught up", "It does not hold what the token or strong consistency asks for yet. Try again, or read with consistency=eventual."}
	kindStoreUnavailable   = problemKind{"store-unavailable", 503, "The store cannot be reached", "Nothing was changed. Try again after Retry-After seconds."}
	kindTimeout            = problemKind{"timeout", 503, "Took too long", "Narrow the search (a smaller radius, fewer filters) or try again."}
	kindNoPrimary          = problemKind{"no-primary", 503, "No primary region at the moment", "Nothing was written. Try again after Retry-After seconds; reads go on."}
	kindRefused            = problemKind{"refused", 409, "A rule refuses this", "Nothing was changed. The rule says what speaks against it; some may be overridden with force, a reason and the region's name as confirm."}
	kindNoLeader           = problemKind{"no-leader", 503, "The control plane has no leader at the moment", "Nothing was changed. Try again after Retry-After seconds; if it lasts, a majority of the voters is missing."}
	kindUnknown            = problemKind{"outcome-unknown", 504, "The outcome is unknown", "The write may or may not have happened. Retry with the same Idempotency-Key to learn which."}
)

// problemKinds lists every kind, for the documentation.
func problemKinds() []problemKind {
	return []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindNotFound, kindMethod, kindTokenLost, kindUpgrade, kindTooManyConnections, kindTooManyMessages, kindRateLimited, kindTooLarge,
		kindMedia, kindIdempotency, kindInternal, kindOverloaded, kindNotReady, kindBehind, kindStoreUnavailable, kindTimeout, kindNoPrimary, kindRefused, kindNoLeader, kindUnknown}
}

// apiError is an error with a problem of its own.
type apiError struct {
	kind       problemKind
	detail     string
	errors     []shortline.FieldError
	blockers   []*regions.RefusedError
	retryAfter time.Duration
	cause      error
}

func (e *apiError) Error() string {
	if e.cause != nil {
		return e.kind.name + ": " + e.detail + ": " + e.cause.Error()
	}
	return e.kind.name + ": " + e.detail
}

func (e *apiError) Unwrap() error { return e.cause }

func (e *apiError) problem() Problem {
	p := Problem{Type: "/problems/" + e.kind.name, Title: e.kind.title, Status: e.kind.status, Detail: e.detail, Errors: e.errors, Blockers: e.blockers}
	if len(e.blockers) > 0 {
		p.Rule = e.blockers[0].Rule
	}
	return p
}

// malformed is the 400 for one field.
func malformed(field, format string, args ...any) error {
	f := shortline.FieldError{Field: field, Detail: fmt.Sprintf(format, args...)}
	return &apiError{kind: kindMalformed, detail: f.Field + ": " + f.Detail, errors: []shortline.FieldError{f}}
}

// invalid is the 422 for one field.
func invalid(field, format string, args ...any) error {
	return &shortline.InvalidError{Faults: []shortline.FieldError{{Field: field, Detail: fmt.Sprintf(format, args...)}}}
}

// asAPIError is the one place where errors become problems. What it does not know is internal: 500, and the client is told
// nothing of it.
func asAPIError(err error) *apiError {
	var known *apiError
	var faults *shortline.InvalidError
	var tooLarge *http.MaxBytesError
	var echoErr *echo.HTTPError
	var rule *regions.RefusedError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &faults):
		return &apiError{kind: kindInvalid, detail: faults.Error(), errors: faults.Faults}
	case errors.As(err, &tooLarge):
		return &apiError{kind: kindTooLarge, detail: fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	case errors.As(err, &rule) && rule.Rule == regions.RuleNoLeader:
		return &apiError{kind: kindNoLeader, detail: rule.Detail, retryAfter: 2 * time.Second}
	case errors.As(err, &rule):
		return refused(rule)
	case errors.Is(err, replication.ErrOutcomeUnknown):
		return &apiError{kind: kindUnknown, detail: "the write may or may not have been committed; retry with the same Idempotency-Key", cause: err}
	case errors.Is(err, ErrNoPrimary), errors.Is(err, ErrNotPrimary):
		return &apiError{kind: kindNoPrimary, detail: "no node of the primary region took the write in time; nothing was written", retryAfter: time.Second, cause: err}
	case errors.Is(err, replication.ErrIdempotencyMismatch):
		return &apiError{kind: kindIdempotency, detail: err.Error()}
	case errors.Is(err, replication.ErrOverloaded):
		return &apiError{kind: kindOverloaded, detail: "too many writes are waiting on this node; nothing was written", retryAfter: time.Second}
	case errors.Is(err, replication.ErrClosed):
		return &apiError{kind: kindNotReady, detail: "this node is shutting down; nothing was written", retryAfter: time.Second}
	case errors.Is(err, replication.ErrTokenLost):
		return &apiError{kind: kindTokenLost, detail: "the history that this node serves does not hold what the token stands for; drop the token and read again"}
	case errors.Is(err, replication.ErrBadToken):
		return &apiError{kind: kindMalformed, detail: err.Error(), errors: []shortline.FieldError{{Field: "Shortline-Token", Detail: err.Error()}}}
	case errors.Is(err, shortline.ErrNotFound):
		return &apiError{kind: kindNotFound, detail: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &apiError{kind: kindTimeout, detail: "the request took longer than this node allows", retryAfter: time.Second, cause: err}
	case errors.As(err, &echoErr):
		return fromEcho(echoErr)
	}
	return &apiError{kind: kindInternal, detail: "something went wrong inside; the node's log has it under the X-Request-Id of this answer", cause: err}
}

// fromEcho turns what the router and its middleware refuse into problems.
func fromEcho(err *echo.HTTPError) *apiError {
	switch err.Code {
	case http.StatusNotFound:
		return &apiError{kind: kindNotFound, detail: "there is nothing at this path; /docs lists what there is"}
	case http.StatusMethodNotAllowed:
		return &apiError{kind: kindMethod, detail: "this path does not have that method; the header Allow names those it has"}
	}
	kind := kindInternal
	if err.Code < 500 {
		kind = problemKind{"malformed-request", err.Code, http.StatusText(err.Code), ""}
	}
	return &apiError{kind: kind, detail: fmt.Sprint(err.Message), cause: err.Internal}
}

// writeProblem answers with the problem that err stands for.
func writeProblem(w http.ResponseWriter, head bool, e *apiError) error {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("ETag")
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.retryAfter+time.Second-1)/time.Second)))
	}
	if e.kind.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="shortline"`)
	}
	w.WriteHeader(e.kind.status)
	if head {
		return nil
	}
	return json.NewEncoder(w).Encode(e.problem())
}
