package edge

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Health is the answer to GET /healthz and the probes of the admin port: a status, and what each check found.
type Health struct {
	Status string            `json:"status" doc:"ok, or what is the matter"`
	Checks map[string]string `json:"checks,omitempty" doc:"ok or the reason, by name of the check"`
	Notes  map[string]string `json:"notes,omitempty" doc:"What is good to know and no reason not to be ready"`
}

// healthz answers GET /healthz: 200 while this node can serve reads.
func (s *Server) healthz(c echo.Context) error {
	if err := noParameters(c.Request().URL.RawQuery); err != nil {
		return err
	}
	if _, err := s.state(); err != nil {
		return err
	}
	return s.answer(c, http.StatusOK, "", Health{Status: "ok"})
}

// checks are what readiness is made of.
func (s *Server) checks(ctx context.Context) (map[string]string, bool) {
	checks := map[string]string{"snapshot": "ok", "feed": "ok", "store": "ok", "stopping": "ok"}
	if _, err := s.state(); err != nil {
		checks["snapshot"] = "the first snapshot is still loading"
	}
	if reason := s.feed.Failure(); reason != "" {
		checks["feed"] = reason
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadLimit)
	defer cancel()
	if _, err := s.store.Rows(ctx, []shortline.StoreID{"readiness-probe"}); err != nil {
		checks["store"] = err.Error()
	}
	for name, check := range s.more {
		checks[name] = "ok"
		if err := check(); err != nil {
			checks[name] = err.Error()
		}
	}
	select {
	case <-s.stopping:
		checks["stopping"] = "this node is shutting down"
	default:
	}
	for _, result := range checks {
		if result != "ok" {
			return checks, false
		}
	}
	return checks, true
}

// adminPort puts everything that the admin port serves on e.
func (s *Server) adminPort(e *echo.Echo, gatherer prometheus.Gatherer) {
	e.GET("/livez", func(c echo.Context) error { return s.answer(c, http.StatusOK, "", Health{Status: "ok"}) })
	e.GET("/readyz", func(c echo.Context) error {
		checks, ready := s.checks(c.Request().Context())
		notes := map[string]string{}
		for name, note := range s.notes {
			notes[name] = note()
		}
		if !ready {
			return s.answer(c, http.StatusServiceUnavailable, "", Health{Status: "not ready", Checks: checks, Notes: notes})
		}
		return s.answer(c, http.StatusOK, "", Health{Status: "ok", Checks: checks, Notes: notes})
	})
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{})))
	e.GET("/debug/pprof/*", echo.WrapHandler(http.HandlerFunc(pprof.Index)))
	e.GET("/debug/pprof/cmdline", echo.WrapHandler(http.HandlerFunc(pprof.Cmdline)))
	e.GET("/debug/pprof/profile", echo.WrapHandler(http.HandlerFunc(pprof.Profile)))
	e.GET("/debug/pprof/symbol", echo.WrapHandler(http.HandlerFunc(pprof.Symbol)))
	e.GET("/debug/pprof/trace", echo.WrapHandler(http.HandlerFunc(pprof.Trace)))
	s.register(e, s.adminRoutes(func(next echo.HandlerFunc) echo.HandlerFunc { return next })) // adminGuard has decided
}

// KeyRequest asks for a new API key.
type KeyRequest struct {
	Name   string              `json:"name" minLength:"1" maxLength:"200" doc:"Who or what the key is for"`
	Scopes []shortline.Scope   `json:"scopes" minItems:"1" doc:"queue:write, stores:write, read, admin"`
	Stores []shortline.StoreID `json:"stores,omitempty" maxItems:"1000" doc:"The stores that queue:write is for; all where absent"`
	// ExpiresAt is when the key ends by itself.
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When the key ends by itself; never where absent"`
}

// RotateRequest asks for a successor of a key.
type RotateRequest struct {
	OverlapS int `json:"overlap_s,omitempty" minimum:"0" maximum:"7776000" doc:"For how many seconds the old key goes on; at most 90 days" default:"86400"`
}

// NewKeyAnswer is a key just made; its secret form is shown here and never again.
type NewKeyAnswer struct {
	shortline.Key
	Secret string `json:"key" doc:"Send it as: Authorization: Bearer KEY. It is not kept and cannot be shown again"`
}

// KeysAnswer lists the API keys, revoked ones too.
type KeysAnswer struct {
	Keys []shortline.Key `json:"keys"`
}

// createKey answers POST /admin/v1/keys.
func (s *Server) createKey(c echo.Context) error {
	r := c.Request()
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	body, err := readBody(c, 256<<10)
	if err != nil {
		return err
	}
	var in KeyRequest
	if err := decode(body, &in); err != nil {
		return err
	}
	key, secret, err := shortline.NewKey(in.Name, in.Scopes, in.Stores, s.now())
	if err != nil {
		return err
	}
	if in.ExpiresAt != nil {
		at := in.ExpiresAt.UTC().Truncate(time.Second)
		if key.ExpiresAt = &at; !at.After(s.now()) {
			return invalid("expires_at", "is in the past")
		}
	}
	_, token, err := s.submit(r.Context(), replication.Write{Items: []replication.Item{{Key: &key}}})
	if err != nil {
		return err
	}
	s.log.Info("API key created", "key", key.ID, "name", key.Name, "scopes", key.Scopes)
	return s.answer(c, http.StatusCreated, token.String(), NewKeyAnswer{Key: key, Secret: secret})
}

// rotateKey answers POST /admin/v1/keys/{id}/rotate: another key that may do the same, and an end for the old one, in one transaction.
func (s *Server) rotateKey(c echo.Context) error {
	r := c.Request()
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	in := RotateRequest{OverlapS: 86400}
	if r.ContentLength != 0 {
		body, err := readBody(c, 4<<10)
		if err != nil {
			return err
		}
		if err := decode(body, &in); err != nil {
			return err
		}
	}
	if in.OverlapS < 0 || in.OverlapS > 90*86400 {
		return invalid("overlap_s", "%d is not between 0 and 7776000", in.OverlapS)
	}
	st, err := s.state()
	if err != nil {
		return err
	}
	id := shortline.KeyID(pathParam(c, "id"))
	known := st.key(id)
	switch {
	case known == nil:
		return fmt.Errorf("API key %s: %w", clip(string(id)), shortline.ErrNotFound)
	case known.Ended(s.now()):
		return invalid("id", "the key %s has ended; make another with: shortline keys create", known.ID)
	}
	key, secret, err := shortline.NewKey(known.Name, known.Scopes, known.Stores, s.now())
	if err != nil {
		return err
	}
	old, end := *known, s.now().UTC().Truncate(time.Second).Add(time.Duration(in.OverlapS)*time.Second)
	if old.ExpiresAt != nil { // the successor lives as long as the old one would have from its beginning
		life := s.now().UTC().Truncate(time.Second).Add(old.ExpiresAt.Sub(old.CreatedAt))
		key.ExpiresAt = &life
	}
	if old.ExpiresAt == nil || end.Before(*old.ExpiresAt) {
		old.ExpiresAt = &end
	}
	_, token, err := s.submit(r.Context(), replication.Write{Items: []replication.Item{{Key: &key}, {Key: &old}}})
	if err != nil {
		return err
	}
	s.log.Info("API key rotated", "key", old.ID, "by", key.ID, "name", key.Name, "ends", old.ExpiresAt)
	return s.answer(c, http.StatusCreated, token.String(), NewKeyAnswer{Key: key, Secret: secret})
}

// listKeys answers GET /admin/v1/keys.
func (s *Server) listKeys(c echo.Context) error {
	if err := noParameters(c.Request().URL.RawQuery); err != nil {
		return err
	}
	st, err := s.state()
	if err != nil {
		return err
	}
	answer := KeysAnswer{Keys: []shortline.Key{}}
	for _, key := range *st.keys.Load() {
		answer.Keys = append(answer.Keys, *key)
	}
	slices.SortFunc(answer.Keys, func(a, b shortline.Key) int {
		if n := a.CreatedAt.Compare(b.CreatedAt); n != 0 {
			return n
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return s.answer(c, http.StatusOK, "", answer)
}

// revokeKey answers DELETE /admin/v1/keys/{id}. A key that was revoked before stays as it is.
func (s *Server) revokeKey(c echo.Context) error {
	r := c.Request()
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	st, err := s.state()
	if err != nil {
		return err
	}
	id := shortline.KeyID(pathParam(c, "id"))
	known := st.key(id)
	if known == nil {
		return fmt.Errorf("API key %s: %w", clip(string(id)), shortline.ErrNotFound)
	}
	if known.RevokedAt != nil {
		return s.answer(c, http.StatusOK, s.appliedToken(), known)
	}
	key, at := *known, s.now().UTC().Truncate(time.Second)
	key.RevokedAt = &at
	_, token, err := s.submit(r.Context(), replication.Write{Items: []replication.Item{{Key: &key}}})
	if err != nil {
		return err
	}
	s.log.Info("API key revoked", "key", key.ID, "name", key.Name)
	return s.answer(c, http.StatusOK, token.String(), &key)
}
