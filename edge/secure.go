package edge

import (
	"github.com/labstack/echo/v4"
)

var (
	noSniff = []string{"nosniff"}
	onlyTLS = []string{"max-age=31536000"} // a year; subdomains are not ours to decide on
)

// secure is the middleware that keeps a browser from making more of an answer than it is, and from coming without TLS where it came with it.
// What a page may load and do is said by the policies of the pages.
func (s *Server) secure(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h["X-Content-Type-Options"] = noSniff
		if c.Request().TLS != nil {
			h["Strict-Transport-Security"] = onlyTLS
		}
		return next(c)
	}
}
