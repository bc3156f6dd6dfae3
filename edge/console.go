package edge

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
)

// consoleFiles is the map console as make console built it from edge/console/src: most files gzipped, so that they are sent as they
// are and building the node needs no Node.
//
//go:embed console/dist
var consoleFiles embed.FS

// consoleFile is one file of the console.
type consoleFile struct {
	contentType string
	body        []byte
	gzipped     bool // body is
	tag         string
	fixed       bool // its name has the hash of what it holds
}

// consoleTypes are the media types of the console's files, which must not depend on what the machine has in its tables.
var consoleTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".mjs":  "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".json": "application/json",
	".svg":  "image/svg+xml",
}

// readConsole returns the console's files by their names: index.html, and those in assets/.
func readConsole(files fs.FS) (map[string]*consoleFile, error) {
	found := map[string]*consoleFile{}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == "sources.sha256" {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		hash := bodyHash(body)
		f := &consoleFile{body: body, tag: fmt.Sprintf("%x", hash[:8])}
		name, f.gzipped = strings.CutSuffix(name, ".gz")
		name, f.fixed = strings.CutPrefix(name, "assets/")
		if f.contentType = consoleTypes[path.Ext(name)]; f.contentType == "" {
			return fmt.Errorf("%s: no media type is known for it", name)
		}
		found[name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the console: %w", err)
	}
	if found["index.html"] == nil {
		return nil, fmt.Errorf("read the console: it has no page; build it with: make console")
	}
	return found, nil
}

// consoleRoutes serve the map console.
func (s *Server) consoleRoutes() ([]route, error) {
	built, err := fs.Sub(consoleFiles, "console/dist")
	if err != nil {
		return nil, fmt.Errorf("read the console: %w", err)
	}
	files, err := readConsole(built)
	if err != nil {
		return nil, err
	}
	page := files["index.html"]
	return []route{
		{method: http.MethodGet, path: "/", handler: func(c echo.Context) error {
			h := c.Response().Header()
			h.Set("Content-Security-Policy", s.consolePolicy(c.Request()))
			h.Set("Permissions-Policy", "geolocation=(self), camera=(), microphone=()")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			return page.serve(c)
		}},
		{method: http.MethodGet, path: "/assets/:name", handler: func(c echo.Context) error {
			f := files[c.Param("name")]
			if f == nil || f == page {
				return fmt.Errorf("asset %q: %w", clip(c.Param("name")), shortline.ErrNotFound)
			}
			return f.serve(c)
		}},
	}, nil
}

// consolePolicy lets the page load what this node serves and ask every region, and nothing else.
func (s *Server) consolePolicy(r *http.Request) string {
	sources := []string{"'self'"}
	allow := func(base string) {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !plainHost(u.Host) {
			return
		}
		for _, source := range []string{u.Scheme + "://" + u.Host, "ws" + strings.TrimPrefix(u.Scheme, "http") + "://" + u.Host} {
			if !slices.Contains(sources, source) {
				sources = append(sources, source)
			}
		}
	}
	allow(ownURL(r)) // to some browsers 'self' does not mean WebSockets
	v := s.steering.look()
	for i := range v.Places {
		for j := range v.Places[i].Nodes {
			allow(v.Places[i].Nodes[j].API)
		}
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; worker-src 'self'; connect-src " + strings.Join(sources, " ") +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// plainHost tells whether a host and port can stand in a policy.
func plainHost(host string) bool {
	return host != "" && len(host) <= 255 && strings.IndexFunc(host, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-:[]", r))
	}) < 0
}

func (f *consoleFile) serve(c echo.Context) error {
	r, h := c.Request(), c.Response().Header()
	if err := noParameters(r.URL.RawQuery); err != nil && f.fixed { // links to the page may carry what trackers add
		return err
	}
	packed := f.gzipped && acceptsGzip(r.Header.Get("Accept-Encoding"))
	tag := `"` + f.tag + `"`
	if f.gzipped && !packed {
		tag = `"` + f.tag + `-plain"`
	}
	h.Set("ETag", tag)
	h.Set("Cache-Control", "no-cache")
	if f.fixed {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Add("Vary", "Accept-Encoding")
	if header := r.Header.Get("If-None-Match"); header != "" && etagMatches(header, tag) {
		return c.NoContent(http.StatusNotModified)
	}
	h.Set("Content-Type", f.contentType)
	if f.gzipped && !packed {
		plain, err := gzip.NewReader(bytes.NewReader(f.body))
		if err != nil {
			return fmt.Errorf("unpack a file of the console: %w", err)
		}
		c.Response().WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return nil
		}
		_, err = io.Copy(c.Response(), plain)
		return err
	}
	if packed {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	c.Response().WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := c.Response().Write(f.body)
	return err
}

// acceptsGzip reads an Accept-Encoding header.
func acceptsGzip(header string) bool {
	any := false
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		weight := 1.0
		if q, ok := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(params), " ", ""), "q="); ok {
			weight, _ = strconv.ParseFloat(q, 64)
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip", "x-gzip":
			return weight > 0
		case "*":
			any = weight > 0
		}
	}
	return any
}
