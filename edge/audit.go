package edge

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// audited is the middleware around the calls of administrators, outside of what lets them in: it writes down who asked for what change, from
// where, and what became of it, and whoever was refused. Reading is not written down.
func (s *Server) audited(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		err := next(c)
		status := c.Response().Status
		var problem *apiError
		if err != nil {
			problem = asAPIError(err)
			status = problem.kind.status
		}
		s.audit(c.Request(), c.Path(), c.Response().Header().Get(headerRequestID), status, problem)
		return err
	}
}

// audit writes one event. Nothing of the request's body is in it, nor of a key but its id; whatever else came from outside is text to the
// logger, never a line.
func (s *Server) audit(r *http.Request, action, id string, status int, problem *apiError) {
	refused := status == http.StatusUnauthorized || status == http.StatusForbidden
	if s.auditLog == nil || !refused && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return
	}
	addr, _ := s.steering.client(r)
	who := "nobody"
	if key, err := s.bearer(r); err == nil && key != nil {
		who = "key " + string(key.ID) + " (" + key.Name + ")"
	} else if err == nil && !refused {
		who = "operator at the admin port"
	}
	attrs := []any{"id", id, "who", who, "from", addr.String(), "action", r.Method + " " + action, "path", clip(r.URL.Path), "status", status, "region", s.cfg.Region}
	if problem != nil {
		attrs = append(attrs, "problem", problem.kind.name)
	}
	s.auditLog.Info("audit", attrs...)
}
