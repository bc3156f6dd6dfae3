package edge

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
)

// bearer returns the API key that the request carries, nil if it carries none. A key that is not one, is not known or is
// revoked is 401.
func (s *Server) bearer(r *http.Request) (*shortline.Key, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, nil
	}
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, unauthorized("the header Authorization must be: Bearer KEY")
	}
	id, hash, err := shortline.ParseKey(strings.TrimSpace(text))
	if err != nil {
		return nil, unauthorized(err.Error())
	}
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	key := st.key(id)
	if key == nil {
		key = new(shortline.Key) // take the same time
		_ = key.Matches(hash)
		return nil, unauthorized("this API key is not known here; list the keys with: shortline keys list")
	}
	if !key.Matches(hash) {
		if key.RevokedAt != nil {
			return nil, unauthorized("this API key was revoked; make another with: shortline keys create")
		}
		return nil, unauthorized("this API key is not known here; list the keys with: shortline keys list")
	}
	if key.Ended(s.now()) {
		return nil, unauthorized("this API key has expired; make another with: shortline keys create, or next time in good time with: shortline keys rotate")
	}
	s.uses.note(key, s.now())
	return key, nil
}

func unauthorized(detail string) error { return &apiError{kind: kindUnauthorized, detail: detail} }

// allow returns the request's API key if it has the scope.
func (s *Server) allow(r *http.Request, scope shortline.Scope) (*shortline.Key, error) {
	key, err := s.bearer(r)
	switch {
	case err != nil:
		return nil, err
	case key == nil:
		return nil, unauthorized(fmt.Sprintf("this needs an API key with the scope %s; send the header Authorization: Bearer KEY", scope))
	case !key.Allows(scope):
		return nil, &apiError{kind: kindForbidden, detail: fmt.Sprintf("the API key %s does not have the scope %s", key.ID, scope)}
	}
	return key, nil
}

// allowRead lets every read pass unless reads need a key.
func (s *Server) allowRead(r *http.Request) error {
	if !s.cfg.RequireKeyForReads {
		return nil
	}
	_, err := s.allow(r, shortline.ScopeRead)
	return err
}

// allowQueue tells whether the key may report the store's queue.
func allowQueue(key *shortline.Key, id shortline.StoreID) error {
	if key.AllowsQueue(id) {
		return nil
	}
	return &apiError{kind: kindForbidden, detail: fmt.Sprintf("the API key %s may report the queues of some stores, but not of %s", key.ID, id)}
}

// requireAdmin lets only requests with the scope admin reach next.
func (s *Server) requireAdmin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if _, err := s.allow(c.Request(), shortline.ScopeAdmin); err != nil {
			return err
		}
		return next(c)
	}
}

// adminGuard is the admin port's handler. On a loopback address whoever reaches the port is an operator; so that a page
// in the operator's browser is not one too, a foreign Host or Origin is refused there, and bodies must be JSON, which a
// page cannot send across origins without asking first. On any other address all but readiness and metrics asks for the
// scope admin.
func (s *Server) adminGuard(addr net.Addr) http.Handler {
	loopback := false
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
		loopback = ap.Addr().Unmap().IsLoopback()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.guardAdmin(r, loopback); err != nil {
			w.Header()[headerRegion] = s.regionHeader
			w.Header()[headerRequestID] = requestID(r.Header)
			s.audit(r, "the admin port", w.Header()[headerRequestID][0], asAPIError(err).kind.status, asAPIError(err))
			_ = writeProblem(w, r.Method == http.MethodHead, asAPIError(err))
			return
		}
		if loopback && (r.Method == http.MethodGet || r.Method == http.MethodHead) && servesConsole(r.URL.Path) {
			if r.URL.Path == "/" && r.URL.RawQuery == "" {
				http.Redirect(w, r, "/?admin", http.StatusFound) // so that the page knows where it is
				return
			}
			s.public.ServeHTTP(w, r)
			return
		}
		s.admin.ServeHTTP(w, r)
	})
}

// servesConsole tells whether a path is of the map console or of what it reads. An operator at this machine opens it at the admin
// port, where the verbs ask for no key.
func servesConsole(path string) bool {
	switch path {
	case "/", "/shortline.js", "/docs", "/openapi.json", "/healthz":
		return true
	}
	return strings.HasPrefix(path, "/assets/") || strings.HasPrefix(path, "/v1/")
}

func (s *Server) guardAdmin(r *http.Request, loopback bool) error {
	if !loopback {
		switch r.URL.Path {
		case "/livez", "/readyz", "/metrics":
			return nil
		}
		_, err := s.allow(r, shortline.ScopeAdmin)
		return err
	}
	if !isLoopbackHost(r.Host) {
		return &apiError{kind: kindForbidden, detail: fmt.Sprintf("the admin port answers only to its own address, not to the host %q", clip(r.Host))}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		_, host, _ := strings.Cut(origin, "://")
		if !isLoopbackHost(host) {
			return &apiError{kind: kindForbidden, detail: fmt.Sprintf("the admin port does not answer pages of %q", clip(origin))}
		}
	}
	if r.ContentLength != 0 && mediaType(r) != "application/json" {
		return &apiError{kind: kindMedia, detail: "bodies on the admin port must be application/json"}
	}
	return nil
}

func isLoopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// bodyHash identifies a request body for idempotency.
func bodyHash(body []byte) [sha256.Size]byte { return sha256.Sum256(body) }
