package edge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/replication"
)

// Headers of our own.
const (
	headerRegion    = "Shortline-Region"
	headerToken     = "Shortline-Token"
	headerRequestID = "X-Request-Id"
)

// observe is the middleware around every request: it names the region and the request, turns errors and panics into
// problems, and measures rate, errors and duration by route.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		r, w := c.Request(), c.Response()
		id := requestID(r.Header)
		h := w.Header()
		h[headerRegion] = s.regionHeader
		h[headerRequestID] = id
		if s.tracing {
			s.describe(c, id[0])
		}
		s.metrics.inFlight.Add(1)
		err := s.guarded(c, next)
		s.metrics.inFlight.Add(-1)
		if err != nil {
			s.fail(c, id[0], err)
		}
		s.metrics.done(r.Method, c.Path(), w.Status, time.Since(start))
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			s.log.DebugContext(r.Context(), "request", "request_id", id[0], "method", r.Method, "path", r.URL.Path, "status", w.Status, "bytes", w.Size, "seconds", time.Since(start).Seconds(), "client", c.RealIP())
		}
		return nil
	}
}

func (s *Server) guarded(c echo.Context, next echo.HandlerFunc) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return next(c)
}

func (s *Server) fail(c echo.Context, id string, err error) {
	r := c.Request()
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil { // nobody is there to read an answer
		c.Response().Status = 499
		return
	}
	problem := asAPIError(err)
	if problem.kind.status >= 500 {
		s.log.ErrorContext(r.Context(), "request failed", "request_id", id, "method", r.Method, "path", r.URL.Path, "status", problem.kind.status, "err", err)
	}
	if c.Response().Committed {
		return
	}
	if werr := writeProblem(c.Response(), r.Method == http.MethodHead, problem); werr != nil {
		s.log.DebugContext(r.Context(), "answer not delivered", "request_id", id, "err", werr)
	}
}

// requestPrefix tells this process's request ids apart from any other's.
var requestPrefix = sync.OnceValue(func() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:]) + "-"
})

var requestCounter atomic.Uint64

// requestID returns the caller's id, if it is one that can stand in a log, or a new one, as a header value.
func requestID(h http.Header) []string {
	if given := h[headerRequestID]; len(given) == 1 && len(given[0]) > 0 && len(given[0]) <= 128 && strings.IndexFunc(given[0], notIDRune) < 0 {
		return given
	}
	prefix := requestPrefix()
	b := make([]byte, 0, 24)
	return []string{string(strconv.AppendUint(append(b, prefix...), requestCounter.Add(1), 36))}
}

func notIDRune(r rune) bool { return r <= ' ' || r > '~' }

// metrics are the RED metrics by route and what the catalog holds.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight atomic.Int64
	answered atomic.Uint64
	waits    *prometheus.HistogramVec
	// series remembers the two metrics of a (method, route, status), so that a request does not look labels up.
	series sync.Map // seriesKey -> *series
}

type seriesKey struct {
	method, route string
	status        int
}

type series struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

func newMetrics(r prometheus.Registerer, catalog *Catalog) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_http_requests_total", Help: "Requests answered, by route and status."}, []string{"method", "route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shortline_http_request_seconds", Help: "Time to answer, by route.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"method", "route"}),
	}
	m.waits = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "shortline_read_wait_seconds", Help: "How long reads waited for memory to have what their token or strong consistency asks for, by what came of it; those that had it at once are not counted.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}}, []string{"result"})
	for _, result := range []string{"ok", "behind", "lost", "failed"} {
		m.waits.WithLabelValues(result)
	}
	gauge := func(name, help string, value func(*state) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if st := catalog.current.Load(); st != nil {
				return value(st)
			}
			return 0
		})
	}
	r.MustRegister(m.requests, m.seconds, m.waits,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shortline_http_requests_in_flight", Help: "Requests being answered."},
			func() float64 { return float64(m.inFlight.Load()) }),
		gauge("shortline_stores", "Stores in the index.", func(st *state) float64 { return float64(st.stores.Load()) }),
		gauge("shortline_queues", "Stores that have reported a queue.", func(st *state) float64 { return float64(st.queues.Load()) }),
		gauge("shortline_index_bytes", "Memory of the geographic index.", func(st *state) float64 { return float64(st.index.MemoryBytes()) }),
	)
	return m
}

// Requests is how many requests this node has answered so far, on both ports.
func (s *Server) Requests() uint64 { return s.metrics.answered.Load() }

// waited counts one read that had to wait.
func (m *metrics) waited(err error, d time.Duration) {
	result := "failed"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, replication.ErrTokenLost):
		result = "lost"
	case errors.Is(err, context.DeadlineExceeded):
		result = "behind"
	}
	m.waits.WithLabelValues(result).Observe(d.Seconds())
}

// done counts one request. A path that no route has is counted under one name, and so are odd methods: labels are bounded.
func (m *metrics) done(method, route string, status int, d time.Duration) {
	if route == "" {
		route = "none"
	}
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodOptions:
	default:
		method = "other"
	}
	key := seriesKey{method, route, status}
	v, ok := m.series.Load(key)
	if !ok {
		v, _ = m.series.LoadOrStore(key, &series{m.requests.WithLabelValues(method, route, strconv.Itoa(status)), m.seconds.WithLabelValues(method, route)})
	}
	s := v.(*series)
	m.answered.Add(1)
	s.requests.Inc()
	s.seconds.Observe(d.Seconds())
}
