package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// pathParam is a part of the path, decoded: the router leaves it as it came where the client escaped more than it had to.
func pathParam(c echo.Context, name string) string {
	text := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return text
	}
	if decoded, err := url.PathUnescape(text); err == nil {
		return decoded
	}
	return text
}

// pathID is the {id} of the path.
func pathID(c echo.Context) (shortline.StoreID, error) {
	id, err := shortline.ParseStoreID(pathParam(c, "id"))
	if err != nil {
		return "", err
	}
	return id, nil
}

func storeNotFound(id shortline.StoreID) error {
	return fmt.Errorf("store %s: %w", id, shortline.ErrNotFound)
}

// etag is the entity tag of a store's row.
func etag(rev uint64) string { return `"` + strconv.FormatUint(rev, 10) + `"` }

// learnedTag is etag for an answer that tells what is learned.
func learnedTag(rev uint64, live liveQueue) string {
	return `"` + strconv.FormatUint(rev, 10) + "-" + strconv.FormatUint(uint64(live.learned), 10) + `"`
}

// etagMatches tells whether an If-None-Match header covers the tag; the comparison is the weak one, and a tag of the
// compressed form counts as well.
func etagMatches(header, tag string) bool {
	if strings.TrimSpace(header) == "*" {
		return true
	}
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == strings.TrimSuffix(tag, `"`)+`-gzip"` {
			return true
		}
	}
	return false
}

// readStore is what every read of one store begins with: whose it is, whether it is allowed, and what to answer it from.
func (s *Server) readStore(c echo.Context) (shortline.StoreID, position, error) {
	r := c.Request()
	id, err := pathID(c)
	if err != nil {
		return "", position{}, err
	}
	level, err := onlyConsistency(r.URL.RawQuery)
	if err != nil {
		return "", position{}, err
	}
	if err := s.allowRead(r); err != nil {
		return "", position{}, err
	}
	pos, err := s.read(r, level)
	return id, pos, err
}

// writeStore is what every write of one store itself begins with.
func (s *Server) writeStore(c echo.Context) (shortline.StoreID, error) {
	r := c.Request()
	id, err := pathID(c)
	if err != nil {
		return "", err
	}
	if err := noParameters(r.URL.RawQuery); err != nil {
		return "", err
	}
	_, err = s.allow(r, shortline.ScopeStoresWrite)
	return id, err
}

// getStore answers GET /v1/stores/{id}.
func (s *Server) getStore(c echo.Context) error {
	r := c.Request()
	id, pos, err := s.readStore(c)
	if err != nil {
		return err
	}
	sl, rec, ok := pos.state.find(id)
	if !ok {
		return storeNotFound(id)
	}
	live, tag := sl.live(), etag
	if live.learns(rec.attrs) {
		tag = func(rev uint64) string { return learnedTag(rev, live) }
	}
	s.cover(&pos)
	h := c.Response().Header()
	h.Set("Cache-Control", "no-cache") // keep it, but ask whether it is still the same
	h.Set(headerToken, pos.token)
	if header := r.Header.Get("If-None-Match"); header != "" && etagMatches(header, tag(rec.rev)) {
		h.Set("ETag", tag(rec.rev))
		return c.NoContent(http.StatusNotModified)
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.ReadLimit)
	defer cancel()
	rows, err := s.store.Rows(ctx, []shortline.StoreID{id})
	if err != nil {
		return storeUnavailable(err)
	}
	if len(rows) == 0 { // deleted, and the feed is yet to say so
		return storeNotFound(id)
	}
	if rows[0].Rev > rec.rev {
		if err := s.coverAhead(ctx, &pos); err != nil {
			return storeUnavailable(err)
		}
	}
	store := rows[0].Store
	if store.ServiceS == 0 && live.learned > 0 {
		store.ServiceS, store.ServiceLearned = live.learnedS(), true
		h.Set("ETag", learnedTag(rows[0].Rev, live))
	} else {
		h.Set("ETag", etag(rows[0].Rev))
	}
	return s.answer(c, http.StatusOK, pos.token, &store)
}

func storeUnavailable(err error) error {
	return &apiError{kind: kindStoreUnavailable, detail: "the store's database cannot be read at the moment", retryAfter: time.Second, cause: err}
}

// submit makes a write durable, and lets this node's own readers see it before it is acknowledged.
func (s *Server) submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	hold, cancel := context.WithTimeout(ctx, s.cfg.WriteHold)
	defer cancel()
	res, token, err := s.writer.Submit(hold, w)
	switch {
	case err != nil && errors.Is(err, replication.ErrOutcomeUnknown):
		return res, token, err
	case errors.Is(err, context.DeadlineExceeded) && hold.Err() != nil && ctx.Err() == nil:
		return res, token, &apiError{kind: kindOverloaded, detail: "the write waited for " + s.cfg.WriteHold.String() + " and was withdrawn; nothing was written", retryAfter: time.Second}
	case errors.Is(err, replication.ErrOverloaded), errors.Is(err, replication.ErrClosed), errors.Is(err, context.Canceled),
		errors.Is(err, ErrNoPrimary), errors.Is(err, ErrNotPrimary), errors.As(err, new(*apiError)):
		return res, token, err
	case err != nil:
		return res, token, &apiError{kind: kindStoreUnavailable, detail: "the database did not take the write; nothing was written", retryAfter: time.Second, cause: err}
	case res.Err != nil:
		return res, token, res.Err
	}
	// The write is durable whether or not memory is there yet, so running out of time here is not a failure: the token
	// lets the client ask for it.
	visible, cancel := context.WithTimeout(ctx, s.cfg.SessionWait)
	defer cancel()
	_ = s.feed.Wait(visible, token)
	return res, token, nil
}

// putStore answers PUT /v1/stores/{id}.
func (s *Server) putStore(c echo.Context) error {
	r := c.Request()
	id, err := s.writeStore(c)
	if err != nil {
		return err
	}
	body, err := readBody(c, shortline.MaxStoreJSON)
	if err != nil {
		return err
	}
	store, err := shortline.DecodeStore(body)
	if err != nil {
		return storeProblem(err)
	}
	if store.ID == "" {
		store.ID = id
	}
	if store.ID != id {
		return invalid("id", "%q in the body is not %q of the path", clip(string(store.ID)), id)
	}
	if err := store.Validate(); err != nil {
		return err
	}
	res, token, err := s.submit(r.Context(), replication.Write{Items: []replication.Item{{Put: &store}}})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if res.Items[0].Status == replication.StatusCreated {
		status = http.StatusCreated
		c.Response().Header().Set("Location", "/v1/stores/"+string(id))
	}
	c.Response().Header().Set("ETag", etag(res.Items[0].Rev))
	return s.answer(c, status, token.String(), &store)
}

// storeProblem turns an error of shortline.DecodeStore into 400 where the JSON itself is at fault.
func storeProblem(err error) error {
	var faults *shortline.InvalidError
	if errors.As(err, &faults) {
		return err
	}
	if problem := unknownField(err); problem != nil {
		return problem
	}
	return malformed("body", "%v", err)
}

// deleteStore answers DELETE /v1/stores/{id}.
func (s *Server) deleteStore(c echo.Context) error {
	r := c.Request()
	id, err := s.writeStore(c)
	if err != nil {
		return err
	}
	res, token, err := s.submit(r.Context(), replication.Write{Items: []replication.Item{{Delete: id}}})
	if err != nil {
		return err
	}
	c.Response().Header().Set(headerToken, token.String())
	if res.Items[0].Status == replication.StatusNotFound {
		return storeNotFound(id)
	}
	return c.NoContent(http.StatusNoContent)
}
