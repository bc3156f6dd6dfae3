package edge

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

var (
	originHeader = []string{"Origin"}

	cors = middleware.CORSWithConfig(middleware.CORSConfig{
		AllowOrigins:  []string{"*"},
		AllowMethods:  []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete},
		AllowHeaders:  []string{"Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", headerToken, headerRequestID},
		ExposeHeaders: []string{headerToken, headerRegion, headerRequestID, "ETag", "Retry-After", headerRateLimit, headerRatePolicy, "Idempotent-Replayed", headerNearest, headerNearestURL},
		MaxAge:        3600,
	})
)

// crossOrigin lets pages of any origin use the API. A request from no page at all, the usual one between programs, gets the
// one header that caches need, and goes on.
func crossOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if r := c.Request(); len(r.Header["Origin"]) > 0 || r.Method == http.MethodOptions {
			return cors(next)(c)
		}
		if h := c.Response().Header(); len(h["Vary"]) == 0 {
			h["Vary"] = originHeader
		} else {
			h.Add("Vary", "Origin")
		}
		return next(c)
	}
}
