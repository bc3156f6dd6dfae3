package edge

import (
	_ "embed"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"
)

// module is the client for browsers, an ES module without dependencies.
//
//go:embed shortline.js
var module []byte

// serveModule answers GET /shortline.js.
func (s *Server) serveModule() echo.HandlerFunc {
	hash := bodyHash(module)
	tag := fmt.Sprintf(`"%x"`, hash[:8])
	return func(c echo.Context) error {
		if err := noParameters(c.Request().URL.RawQuery); err != nil {
			return err
		}
		h := c.Response().Header()
		h.Set("ETag", tag)
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("X-Content-Type-Options", "nosniff")
		if header := c.Request().Header.Get("If-None-Match"); header != "" && etagMatches(header, tag) {
			return c.NoContent(http.StatusNotModified)
		}
		return c.Blob(http.StatusOK, "text/javascript; charset=utf-8", module)
	}
}
