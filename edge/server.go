package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/insight"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// Config sets up a Server. Its zero value works.
type Config struct {
	// Region is the name of the region that this node is in ("local").
	Region string
	// Version is that of the program, for the OpenAPI document.
	Version string
	// WriteHold bounds how long a write may wait to become durable (10 s).
	WriteHold time.Duration
	// SessionWait bounds how long a read waits for its token or for strong consistency (2 s). While the primary cannot be asked, as
	// it is being moved, reads wait as long as writes are held.
	SessionWait time.Duration
	// ReadLimit bounds one nearby search (2 s).
	ReadLimit time.Duration
	// RequireKeyForReads asks for the scope read on reads too.
	RequireKeyForReads bool
	// NoPublicAdmin removes /admin/v1/ from the public port.
	NoPublicAdmin bool
	// DetailsBytes bounds the store details kept in memory (256 MiB).
	DetailsBytes int
	// HeaderTimeout bounds the time in which a request's headers come (10 s), BodyTimeout that of the whole request (30 s), but for imports.
	HeaderTimeout, BodyTimeout time.Duration
	// ShutdownTimeout is how long requests under way may take to finish when the node stops (10 s).
	ShutdownTimeout time.Duration
	// Connections bounds those of the public port that are open at a time (three quarters of the files that the process may open),
	// ConnectionsPerAddress those from one address that is neither loopback nor a trusted proxy (1000). Negative: no limit.
	Connections, ConnectionsPerAddress int
	// RateAddress is how many requests a second one address may send on average (100), RateKey one API key (1000); ten seconds' worth may come
	// at once. Addresses of loopback are not counted. Negative: no limit.
	RateAddress, RateKey float64
	// KeyUses is how often it is written down which API keys were used (1 min).
	KeyUses time.Duration
	// Live bounds live updates.
	Live LiveConfig
	// Steer says where the node is and how it leads clients to other regions.
	Steer SteerConfig
}

// Validate reports every fault of c at once.
func (c *Config) Validate() error {
	var faults []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"write-hold", c.WriteHold}, {"session-wait", c.SessionWait}, {"read-limit", c.ReadLimit}, {"shutdown-timeout", c.ShutdownTimeout}, {"header-timeout", c.HeaderTimeout}, {"body-timeout", c.BodyTimeout}, {"key-uses", c.KeyUses}} {
		if d.value < 0 {
			faults = append(faults, fmt.Errorf("%s: %v is negative", d.name, d.value))
		}
	}
	if _, err := shortline.ParseStoreID(c.Region); c.Region != "" && err != nil {
		faults = append(faults, fmt.Errorf("region: %q must be 1 to 64 letters, digits, '-', '_' or '.'", c.Region))
	}
	for name, perSecond := range map[string]float64{"rate-limit-address": c.RateAddress, "rate-limit-key": c.RateKey} {
		if !(perSecond > -1e9 && perSecond < 1e9) {
			faults = append(faults, fmt.Errorf("%s: %v is not a number of requests a second", name, perSecond))
		}
	}
	if c.DetailsBytes < 0 {
		faults = append(faults, fmt.Errorf("details-cache: %d is negative", c.DetailsBytes))
	}
	if err := c.Steer.validate(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(append(faults, c.Live.faults()...)...)
}

func (c *Config) defaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.WriteHold, 10 * time.Second}, {&c.SessionWait, 2 * time.Second}, {&c.ReadLimit, 2 * time.Second}, {&c.ShutdownTimeout, 10 * time.Second}, {&c.HeaderTimeout, 10 * time.Second}, {&c.BodyTimeout, 30 * time.Second}, {&c.KeyUses, time.Minute}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Region == "" {
		c.Region = "local"
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	setDefault(&c.Connections, max(openFiles()/4*3, 16))
	setDefault(&c.ConnectionsPerAddress, 1000)
	setDefault(&c.RateAddress, 100)
	setDefault(&c.RateKey, 1000)
	c.Live.defaults()
}

// Writer makes writes durable; *replication.Batcher is one.
type Writer interface {
	Submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error)
}

// Follower keeps memory in step with the database and tells how far it is; *replication.Feed is one.
type Follower interface {
	Applied() *replication.Applied
	Covers() *replication.Applied
	Ahead(ctx context.Context) (replication.Token, error)
	Failure() string
	Wait(ctx context.Context, t replication.Token) error
	Latest(ctx context.Context, within time.Duration) error
	Settle(ctx context.Context, t replication.Token, within time.Duration) error
}

// Deps is what a Server is made of.
type Deps struct {
	Catalog *Catalog
	Feed    Follower
	Writer  Writer
	Details replication.Details
	// Rollups reads the past of stores, for stats and forecasts; nil: there is none.
	Rollups Rollups
	// Elsewhere tells where live clients go when this node stops; nil: to the regions of View, if that is set.
	Elsewhere Elsewhere
	// View is what is known of all regions; it must not block. nil: there is no other node.
	View func() *regions.View
	// GeoIP finds where an address is; nil: it is not known of any.
	GeoIP func(netip.Addr) (geo.Point, bool)
	// Notes are what /readyz tells beside its checks; a function for each name, which must not block.
	Notes map[string]func() string
	// Operator carries out operators' verbs; nil: there is no control plane, and this region is alone.
	Operator Operator
	// Rates counts what clients use at other nodes of the region (nil: each node counts alone).
	Rates Sharer
	// TLS is what the public port is served with (nil: without TLS).
	TLS *tls.Config
	// Checks are more checks of readiness, by name. They do not block.
	Checks map[string]func() error
	Log    *slog.Logger
	// Audit gets an event for each change that an administrator asked for, and for each who was refused; nil: none is written down.
	Audit *slog.Logger
	// Metrics is where the server registers its own and what /metrics shows.
	Metrics *prometheus.Registry
	// Tracing records requests of the public port; nil: none.
	Tracing trace.TracerProvider
	Now     func() time.Time // nil: time.Now
}

// Server is the HTTP node: a public handler and an admin handler over one catalog.
type Server struct {
	cfg      Config
	catalog  *Catalog
	feed     Follower
	writer   Writer
	store    replication.Details
	details  *detailsCache
	rollups  Rollups
	more     map[string]func() error // checks of readiness
	scores   *insight.Scores
	sums     sums
	outlooks *outlooks
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	live     *liveHub
	conns    *connections
	limiter  *limiter
	uses     keyUses
	tls      *tls.Config
	auditLog *slog.Logger
	// steering leads clients to other regions.
	steering *steering
	notes    map[string]func() string

	operator Operator

	regionHeader []string
	tracing      bool
	docs         documents
	public       http.Handler
	admin        *echo.Echo
	stopping     chan struct{}
	longSearches chan struct{} // holds one for each long search under way
}

// New makes a Server. It starts nothing; see Run.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	s := &Server{
		cfg: cfg, catalog: deps.Catalog, feed: deps.Feed, writer: deps.Writer, store: deps.Details, rollups: deps.Rollups, more: deps.Checks, log: deps.Log, now: deps.Now,
		scores:       new(insight.Scores),
		regionHeader: []string{cfg.Region}, stopping: make(chan struct{}),
		longSearches: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.operator = deps.Operator; s.operator == nil {
		s.operator = alone{regions.ID(cfg.Region), s.now}
	}
	if s.rollups == nil {
		s.rollups = noPast{}
	}
	registry := deps.Metrics
	if registry == nil {
		registry = prometheus.NewRegistry()
	}
	s.metrics = newMetrics(registry, s.catalog)
	registry.MustRegister(accuracyMetrics{s.scores, s.now})
	var err error
	if s.outlooks, err = newOutlooks(s.rollups, s.now); err != nil {
		return nil, fmt.Errorf("set up what is usual: %w", err)
	}
	s.details = newDetailsCache(s.catalog, deps.Details, cfg.DetailsBytes, registry)
	s.steering, s.notes = newSteering(s, &deps, registry), deps.Notes
	if deps.Elsewhere == nil && deps.View != nil {
		deps.Elsewhere = s.steering
	}
	s.conns, s.tls, s.auditLog = newConnections(&s.cfg, s.steering.trusts, registry), deps.TLS, deps.Audit
	s.limiter = newLimiter(&s.cfg, deps.Rates, s.now, registry)
	s.live = newLiveHub(s, deps.Elsewhere, registry)

	e := s.newEcho()
	e.Use(crossOrigin)
	e.Use(s.limitRate)
	e.Use(s.steer)
	routes := append(s.publicRoutes(), s.regionRoutes()...)
	s.register(e, routes)
	if !cfg.NoPublicAdmin {
		admin := s.adminRoutes(s.requireAdmin)
		s.register(e, admin)
		routes = append(routes, admin...)
	}
	if s.docs, err = newDocuments(cfg.Version, routes); err != nil {
		return nil, err
	}
	s.register(e, s.documentRoutes())
	pages, err := s.consoleRoutes()
	if err != nil {
		return nil, err
	}
	s.register(e, pages)
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(1024), gzhttp.SuffixETag("-gzip"))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	s.tracing = deps.Tracing != nil
	traced := s.tracedEdge(e, deps.Tracing)
	compressed := compress(traced)
	s.public = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The usual case between programs has nothing to wrap; what is live goes out in small pieces and at once.
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/live"):
			e.ServeHTTP(w, r)
		case len(r.Header["Accept-Encoding"]) == 0:
			traced.ServeHTTP(w, r)
		default:
			compressed.ServeHTTP(w, r)
		}
	})
	s.admin = s.newEcho()
	s.adminPort(s.admin, registry)
	return s, nil
}

// newEcho makes a router with the middleware that every answer passes through.
func (s *Server) newEcho() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect() // trusting X-Forwarded-For is something to be set up, never a default
	e.Use(s.observe)
	e.Use(s.secure)
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if !c.Response().Committed {
			_ = writeProblem(c.Response(), c.Request().Method == http.MethodHead, asAPIError(err))
		}
	}
	return e
}

// route is one call of the API together with what the OpenAPI document says of it.
type route struct {
	method, path string // path as echo writes it: /v1/stores/:id
	handler      echo.HandlerFunc
	doc          operation
}

func (s *Server) register(e *echo.Echo, routes []route) {
	for _, r := range routes {
		e.Add(r.method, r.path, r.handler)
		if r.method == http.MethodGet {
			e.HEAD(r.path, r.handler)
		}
	}
}

// Handler is the public port's.
func (s *Server) Handler() http.Handler { return s.public }

// Run serves both ports until ctx ends, then asks live clients to go elsewhere, lets requests under way finish, and returns
// nil. It closes the listeners. An
// admin listener on a loopback address grants the scope admin to whoever reaches it.
func (s *Server) Run(ctx context.Context, public, admin net.Listener) error {
	servers := []*http.Server{s.httpServer(s.public), s.httpServer(s.adminGuard(admin.Addr()))}
	servers[0].ConnState = s.conns.changed
	listeners := []net.Listener{boundedListener{lazyListener{public}, s.conns}, lazyListener{admin}}
	if s.tls != nil {
		listeners[0] = tls.NewListener(listeners[0], s.tls)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, l := range listeners {
		group.Go(func() error {
			if err := servers[i].Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error { return s.scoreForecasts(ctx) })
	group.Go(func() error { return s.limiter.run(ctx) })
	group.Go(func() error { return s.uses.run(ctx, s.cfg.KeyUses, s.writer, s.log) })
	group.Go(func() error { return s.outlooks.run(ctx, s.cfg.ReadLimit) })
	living, stopLive := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return s.live.Run(living) })
	group.Go(func() error {
		defer stopLive()
		<-ctx.Done()
		close(s.stopping)
		if err := s.live.drain(living); err != nil { // everything else is served on meanwhile
			s.log.Warn("live connections were cut off", "err", err)
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
		defer cancel()
		for _, server := range servers {
			if err := server.Shutdown(stop); err != nil {
				s.log.Warn("some requests did not finish in time and were cut off", "err", err)
				_ = server.Close()
			}
		}
		return nil
	})
	return group.Wait()
}

// httpServer bounds headers and times, so that a slow or silent client holds a connection and nothing else.
func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.BodyTimeout, // imports move it on as long as rows arrive
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10, SendPingTimeout: time.Minute},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// state returns the memory in service, or the problem that there is none yet.
func (s *Server) state() (*state, error) {
	if st := s.catalog.current.Load(); st != nil {
		return st, nil
	}
	return nil, &apiError{kind: kindNotReady, detail: "this node is still loading its first snapshot", retryAfter: time.Second}
}

// mediaType is the Content-Type of a request without its parameters, in lower case.
func mediaType(r *http.Request) string {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}
