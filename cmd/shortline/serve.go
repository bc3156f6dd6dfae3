package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/memory"
	"github.com/shortline/shortline/regions/dnsserver"
	"github.com/shortline/shortline/regions/gossip"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/rediscache"
)

const serveHelp = `Run one node: stores, live queues and the API, from one data folder.

With no flags it needs nothing else: an embedded database in ./shortline-data,
one region called "local", the API on 127.0.0.1:8080, and the admin port
(readiness, metrics, profiles, keys) on 127.0.0.1:8081. The first start prints
an admin key and keeps it in DATA/admin.key.

Once the node answers it prints one line "ready URL" to stdout. Everything else
goes to stderr. Ctrl-C or SIGTERM lets requests under way finish and ends it.

Whoever reaches the admin port on a loopback address is an operator; on any
other address the port asks for a key with the scope admin.

With --postgres the stores are in PostgreSQL 15 or newer, and any number of
nodes may share it; the data folder then holds the admin key and a snapshot
from which the node can start while the database is down. The first node
creates the schema. A node of another region reads from a standby near it
(--postgres-replica) and sends its writes to nodes of the primary region
(--forward-to), which listen for them (--cluster-listen).

With --gossip-listen and --join the nodes of all regions learn of each other;
clients are then told the region to use (GET /v1/route), or led to it (--steer).`

// serveSettings are the flags of serve.
type serveSettings struct {
	edge edge.Config
	storeSettings
	clusterSettings
	placeSettings
	regionsSettings
	traceSettings
	publicTLS         publicTLSSettings
	tls               *tls.Config // of publicTLS, once it is loaded
	listen, admin     string
	publicAdmin       bool
	detailsCache      byteSize
	feedRetention     time.Duration
	logLevel, logForm string
	auditFile         string
	demo, simulate    bool
	demoPast          bool
	simulateRate      float64
}

func newServeCommand(a *app) *cobra.Command { return serveCommand(a, new(serveSettings)) }

// serveCommand is the command with its flags bound to s.
func serveCommand(a *app, s *serveSettings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "run one node", Long: serveHelp, Args: cobra.NoArgs,
		Example: "  shortline serve\n  shortline serve --demo --simulate\n  shortline serve --data /var/lib/shortline --listen :8080",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.getenv = a.getenv
			memory.CollectEvery(64 << 20) // with few stores and many requests Go would do so several times a second
			return a.serve(cmd.Context(), s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.data, "data", "shortline-data", "data `folder`; made where it is missing")
	f.StringVar(&s.postgres, "postgres", "", "`DSN` of the PostgreSQL primary, instead of the embedded database; better set as SHORTLINE_POSTGRES than here, where other users can read it")
	f.StringVar(&s.replica, "postgres-replica", "", "`DSN` of the standby near this node, for reads; default: the primary")
	f.StringVar(&s.owner, "postgres-owner", "", "`DSN` on the primary of the role that owns the schema, to create and upgrade it; default: as --postgres")
	f.BoolVar(&s.localSnapshot, "local-snapshot", true, "with --postgres, keep a file of all stores in the data folder, to start from while the database is down")
	f.IntVar(&s.conns, "postgres-conns", 10, "connections to each PostgreSQL server at most")
	f.IntVar(&s.commits, "commits-in-flight", 8, "write transactions under way at once in PostgreSQL at most; where a commit is durable quickly there are fewer, and these are larger")
	s.redis.bind(f)
	f.StringVar(&s.deployment, "deployment", "shortline", "`name` that tells this deployment's keys in Redis from those of others")
	f.StringVar(&s.clusterListen, "cluster-listen", "", "`address` for writes that other regions forward")
	bindClusterKey(f, &s.clusterKeys)
	s.identity.bind(f)
	s.identity.bindInsecure(f)
	f.StringSliceVar(&s.forwardTo, "forward-to", nil, "cluster `addresses` of the primary region's nodes: writes go there instead of to the database")
	s.placeSettings.bind(f)
	s.regionsSettings.flags(f)
	s.traceSettings.bind(f)
	f.StringVar(&s.listen, "listen", "127.0.0.1:8080", "`address` of the API")
	s.publicTLS.bind(f)
	f.IntVar(&s.edge.Connections, "max-connections", 0, "connections of --listen that are open at a time, without live ones; -1 for no limit (default: three quarters of the files that it may open)")
	f.IntVar(&s.edge.ConnectionsPerAddress, "max-connections-per-address", 0, "those from one address at most, loopback and trusted proxies not counted; -1 for no limit (default: 1000)")
	f.Float64Var(&s.edge.RateAddress, "rate-limit-address", 100, "requests a `second` from one address on average, ten times as many at once; 429 beyond; loopback is not counted; -1 for no limit")
	f.Float64Var(&s.edge.RateKey, "rate-limit-key", 1000, "the same for requests with one API key, wherever they come from")
	f.StringVar(&s.admin, "admin-listen", "127.0.0.1:8081", "`address` of the admin port; keep it on loopback or in a private network")
	f.StringVar(&s.edge.Region, "region", "local", "`name` of this node's region")
	f.BoolVar(&s.publicAdmin, "public-admin", true, "serve /admin/v1/ on the API's address too, always with a key of scope admin")
	f.BoolVar(&s.edge.RequireKeyForReads, "require-key-for-reads", false, "ask for a key with the scope read on reads")
	f.DurationVar(&s.edge.WriteHold, "write-hold", 10*time.Second, "how long a write may wait to become durable")
	f.DurationVar(&s.edge.SessionWait, "session-wait", 2*time.Second, "how long a read waits for its token or for strong consistency")
	s.detailsCache = 256 << 20
	f.Var(&s.detailsCache, "details-cache", "memory for names and addresses, at least 32MiB")
	f.DurationVar(&s.feedRetention, "feed-retention", time.Hour, "how long changes are kept for readers that fell behind; at least 1h")
	f.DurationVar(&s.edge.ShutdownTimeout, "shutdown-timeout", 10*time.Second, "how long requests may take to finish when the node stops")
	f.IntVar(&s.edge.Live.Connections, "live-connections", 0, "live connections of this node at most; -1 for no limit (default: four fifths of the files that it may open)")
	f.IntVar(&s.edge.Live.PerAddress, "live-per-address", 0, "live connections from one address at most; -1 for no limit (default: 1000, loopback not counted)")
	f.IntVar(&s.edge.Live.PerKey, "live-per-key", 10_000, "live connections with one API key at most; -1 for no limit")
	f.IntVar(&s.edge.Live.Stores, "live-stores", 1000, "stores that one live connection may follow; -1 for no limit")
	f.StringSliceVar(&s.edge.Live.Origins, "live-origins", nil, "`origins` whose pages may open live connections, such as https://example.org (default: all)")
	f.DurationVar(&s.edge.Live.Drain, "live-drain", 20*time.Second, "time over which live connections are sent elsewhere when the node stops; less if they are few")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error; debug logs every request")
	f.StringVar(&s.logForm, "log-format", "text", "text or json")
	f.StringVar(&s.auditFile, "audit-log", "", "`file` for what administrators do and who was refused, as JSON lines, opened anew when it is moved away; - is stderr (default: the log)")
	f.BoolVar(&s.demo, "demo", false, "put 12,000 invented stores into an empty data folder")
	f.BoolVar(&s.simulate, "simulate", false, "move the queues of the stores there are at the start with a daily rhythm; overwrites what is reported for them")
	f.BoolVar(&s.demoPast, "demo-past", false, "let the stores of the demo have an invented past of four weeks, which is not stored, so that there are profiles and forecasts; always so with --demo and --simulate together")
	f.Float64Var(&s.simulateRate, "simulate-rate", 200, "simulated updates a second over all stores")
	return cmd
}

// validate reports every fault of the settings at once, before anything is opened.
func (s *serveSettings) validate() error {
	s.edge.NoPublicAdmin, s.edge.DetailsBytes = !s.publicAdmin, int(s.detailsCache)
	var faults []error
	if err := s.placeSettings.apply(&s.edge); err != nil {
		faults = append(faults, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if err := s.edge.Validate(); err != nil {
		faults = append(faults, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	for _, addr := range []struct{ flag, value string }{{"listen", s.listen}, {"admin-listen", s.admin}, {"http-listen", s.publicTLS.http}} {
		if _, _, err := net.SplitHostPort(addr.value); err != nil && (addr.value != "" || addr.flag != "http-listen") {
			faults = append(faults, fmt.Errorf("--%s %q is not an address such as 127.0.0.1:8080 or :8080", addr.flag, addr.value))
		}
	}
	for _, err := range []error{s.publicTLS.validate(), s.storeSettings.validate(), s.clusterSettings.validate(), s.validateRegions(), s.traceSettings.resolve()} {
		if err != nil {
			faults = append(faults, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	secret := len(s.gossipKeys) > 0 || s.gossipKeyFile != "" || len(s.clusterKeys) > 0
	if err := s.identity.refuseOpen("gossip-listen", s.gossipListen, secret, "anybody who reaches it could take part: give --cluster-key or --gossip-key"); err != nil {
		faults = append(faults, err)
	}
	if s.detailsCache < 32<<20 {
		faults = append(faults, fmt.Errorf("--details-cache %v is less than 32MiB", s.detailsCache))
	}
	if s.feedRetention < time.Hour {
		faults = append(faults, fmt.Errorf("--feed-retention %v is less than 1h", s.feedRetention))
	}
	if !(s.simulateRate > 0 && s.simulateRate <= 100_000) {
		faults = append(faults, fmt.Errorf("--simulate-rate %v is not between 0 and 100000", s.simulateRate))
	}
	if _, err := newLogger(io.Discard, s.logLevel, s.logForm); err != nil {
		faults = append(faults, err)
	}
	return joinFaults(faults)
}

// serve runs a node until ctx ends. It opens what can fail first, so that a wrong address costs nothing, and everything
// that it opened is closed in the opposite order.
func (a *app) serve(ctx context.Context, s *serveSettings) (err error) {
	if err := s.validate(); err != nil {
		return &usageError{err: err, command: "shortline serve"}
	}
	log, err := newLogger(a.stderr, s.logLevel, s.logForm)
	if err != nil {
		return err
	}
	log = introduce(log, s.edge.Region, s.name())
	if s.witness {
		return a.serveWitness(ctx, s, log)
	}
	if a.detailsBytes > 0 {
		s.edge.DetailsBytes = a.detailsBytes
	}
	public, err := listen("listen", s.listen)
	if err != nil {
		return err
	}
	defer func() { _ = public.Close() }() // for the ways out before the server takes it over
	admin, err := listen("admin-listen", s.admin)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	s.edge.Steer.Reach = s.reach
	if s.edge.Steer.URL == "" {
		s.edge.Steer.URL = s.publicTLS.base(s.advertised(public.Addr()))
	}
	registry := a.newRegistry(s.edge.Region, s.name(), log)
	id, err := s.identity.load(s.deployment, s.edge.Region, log, registry)
	if err != nil {
		return err
	}
	tracing, err := s.openTracing(ctx, a.version, s.edge.Region, s.name(), log, registry)
	if err != nil {
		return err
	}
	defer tracing.close()
	control, err := s.wire(id, log, registry)
	if err != nil {
		return err
	}
	if a.gate != nil {
		control.gate = a.gate(control.gate)
	}
	if control.plane != nil {
		control.plane.start(ctx)
		defer control.plane.close()
	}
	store, inFlight, err := s.openPatiently(ctx, control, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if c, ok := store.(prometheus.Collector); ok {
		registry.MustRegister(c)
	}

	if s.tls, err = s.publicTLS.load(s.data, log, registry); err != nil {
		return err
	}
	n, err := newNode(ctx, a, s, log, registry, tracing.provider, store, inFlight, control)
	if err != nil {
		return err
	}
	if n.cache != nil {
		defer func() { _ = n.cache.Close() }()
	}
	if n.peer != nil {
		if n.peerListener, err = listen("cluster-listen", s.clusterListen); err != nil {
			return err
		}
		defer func() { _ = n.peerListener.Close() }()
	}
	if s.publicTLS.http != "" {
		if n.plainListener, err = listen("http-listen", s.publicTLS.http); err != nil {
			return err
		}
		defer func() { _ = n.plainListener.Close() }()
	}
	n.adminURL = "http://" + s.advertised(admin.Addr())
	return n.run(ctx, public, admin)
}

// listen opens a TCP address; the error says what to do where it is taken or not allowed.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("address %s is in use, maybe by another shortline; stop it or choose another with --%s", addr, flag)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("address %s is not allowed for this user; choose a port above 1023 with --%s", addr, flag)
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return l, nil
}

// node is the parts of a running node, wired.
type node struct {
	app     *app
	s       *serveSettings
	log     *slog.Logger
	store   replication.Store
	feed    *replication.Feed
	batcher *replication.Batcher
	server  *edge.Server

	control       wiring
	router        *edge.Router
	forwarder     *edge.Forwarder             // nil where there is no other region
	peer          *edge.Peer                  // nil: none listens
	peerListener  net.Listener                // for peer
	plainListener net.Listener                // of --http-listen; nil: none
	cache         *rediscache.Cache           // nil: none
	deployment    string                      // id of the database; "": the embedded one, or one that was never reached
	keeper        *replication.SnapshotKeeper // nil: no local snapshot

	gossip   *gossip.Gossip    // nil: this node knows of no other
	geoIP    *geo.GeoIP        // nil: none
	dns      *dnsserver.Server // nil: none
	rate     rateMeter
	adminURL string
}

func newNode(ctx context.Context, a *app, s *serveSettings, log *slog.Logger, registry *prometheus.Registry, tracing trace.TracerProvider, store replication.Store, inFlight int, control wiring) (*node, error) {
	catalog := new(edge.Catalog)
	n := &node{app: a, s: s, log: log, store: store, control: control}
	head, err := n.newHead()
	if err != nil {
		return nil, err
	}
	if n.deployment, err = n.identify(ctx); err != nil {
		return nil, fmt.Errorf("which database this is: %w", err)
	}
	if n.cache, err = n.newCache(ctx, catalog, registry); err != nil {
		return nil, err
	}
	var target replication.Target = catalog
	var details replication.Details = store
	if n.cache != nil {
		target, details = tap{catalog, func(changes []shortline.Change) { n.cache.Apply(ctx, changes) }}, n.cache
	}
	if a.target != nil {
		target = a.target(target)
	}
	n.feed = replication.NewFeed(store, target, replication.FeedConfig{
		Lineage: control.lineage, ForkOf: control.forkOf, PrimaryHead: head.Get, Fallback: n.fallback(),
		MinPoll: s.poll(), MaxPoll: s.poll(), Log: log, Registerer: registry})
	n.keeper = n.newKeeper(registry)
	n.batcher = replication.NewBatcher(store, replication.BatcherConfig{
		InFlight: inFlight, Log: log, Registerer: registry, Committed: func(replication.Token) { n.feed.Poke() }})
	if err = n.newWriter(log, registry); err != nil {
		return nil, err
	}
	if s.clusterListen != "" {
		if n.peer, err = n.newPeer(log, registry, tracing); err != nil {
			return nil, err
		}
	}
	if err = n.newGossip(log, registry); err != nil {
		return nil, err
	}
	if d, ok := n.control.directory.(*directory); ok {
		d.gossip = n.gossip
	}
	findAddr, err := n.openGeoIP(log, registry)
	if err != nil {
		return nil, err
	}
	if err = n.newDNS(findAddr, log, registry); err != nil {
		return nil, err
	}
	s.edge.Version = a.version
	past, err := s.pastOf(store)
	if err != nil {
		return nil, err
	}
	n.server, err = edge.New(s.edge, edge.Deps{Catalog: catalog, Feed: n.feed, Writer: n.router, Details: details, Rollups: past,
		View: n.view(), GeoIP: findAddr, Notes: n.notes(), Checks: n.checks(), Operator: n.operator(), Rates: n.rates(), TLS: s.tls, Audit: s.auditor(a.stderr, log), Log: log, Metrics: registry, Tracing: tracing})
	return n, err
}

// newRegistry has what every process tells of itself.
func (a *app) newRegistry(region, node string, log *slog.Logger) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	info := func(name, help string, labels prometheus.Labels) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return 1 })
	}
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info("shortline_build_info", "1; the version is a label.", prometheus.Labels{"version": a.version}),
		info("shortline_node_info", "1; the labels say which region and which process this is.", prometheus.Labels{"region": region, "node": node}))
	if h, ok := log.Handler().(*logHandler); ok {
		h.counts.register(registry)
	}
	return registry
}

// run is where the order of starting and stopping stands. Stopping: no new requests and those under way finish, then what
// they wrote is committed, then memory stops following. A part that dies takes the node with it.
func (n *node) run(ctx context.Context, public, admin net.Listener) error {
	group, alive := errgroup.WithContext(ctx)
	batching, stopBatching := context.WithCancel(context.WithoutCancel(ctx))
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	defer stopBatching()
	var users sync.WaitGroup // those who write
	use := func(part func() error) {
		users.Add(1)
		group.Go(func() error {
			defer users.Done()
			return part()
		})
	}

	group.Go(func() error { return n.feed.Run(following) })
	group.Go(func() error {
		defer stopFollowing()
		return n.batcher.Run(batching)
	})
	serving, stopForwarding := context.WithCancel(context.WithoutCancel(ctx))
	defer stopForwarding()
	use(func() error {
		defer stopForwarding()
		return n.server.Run(alive, public, admin)
	})
	use(func() error { return n.router.Run(serving) })
	if n.forwarder != nil {
		use(func() error { return n.forwarder.Run(serving) })
	}
	if n.peer != nil {
		use(func() error { return n.peer.Run(alive, n.peerListener) })
	}
	if n.plainListener != nil {
		use(func() error {
			return n.s.publicTLS.servePlain(alive, n.plainListener, n.s.edge.Steer.URL, n.log)
		})
	}
	if n.gossip != nil {
		use(func() error { return n.gossiping(alive, serving) })
		use(func() error { return n.moveLive(alive) })
	}
	if n.dns != nil {
		use(func() error { return n.dns.Run(alive) })
	}
	if n.geoIP != nil {
		use(func() error { return n.geoIP.Run(alive) })
	}
	if n.cache != nil {
		group.Go(func() error { return n.cache.Run(following) })
		if n.control.plane != nil {
			group.Go(func() error { return n.followLineage(following) })
		}
	}
	if n.keeper != nil {
		use(func() error { return n.keeper.Run(alive) })
	}
	if d, ok := n.control.directory.(*directory); ok {
		group.Go(func() error { return d.run(following) })
	}
	if n.control.plane != nil { // the lease outlives those who write
		group.Go(func() error { return n.control.plane.wait(following) })
	}
	if store, ok := n.store.(interface{ Run(context.Context) error }); ok {
		group.Go(func() error { return store.Run(following) })
	}
	use(func() error { return n.prune(alive) })
	use(func() error { return n.announce(alive, public.Addr(), admin.Addr()) })
	group.Go(func() error {
		users.Wait()
		stopBatching()
		return nil
	})
	err := group.Wait()
	n.log.Info("stopped")
	return err
}

// announce waits until the node answers, brings in the demo stores where they are asked for, prints the ready line, and
// goes on as the simulator if there is one.
func (n *node) announce(ctx context.Context, public, admin net.Addr) error {
	if err := n.feed.Wait(ctx, replication.Token{}); err != nil {
		return nil // stopped before the first snapshot was in service
	}
	debug.FreeOSMemory() // reading the snapshot left as much garbage as there is memory in use
	if n.control.plane != nil {
		n.control.plane.known(ctx)
	}
	if err := n.firstKey(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if n.s.demo {
		if err := n.loadDemo(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	url := n.s.publicTLS.base(dialable(public))
	n.log.Info("ready", "api", url, "admin", "http://"+dialable(admin), "data", n.s.data, "region", n.s.edge.Region)
	if _, err := fmt.Fprintln(n.app.stdout, "ready "+url); err != nil {
		return fmt.Errorf("print the ready line: %w", err)
	}
	n.suggest(url)
	if n.s.simulate {
		return n.runSimulator(ctx)
	}
	return nil
}

// dialable turns a listener's address into one that a client on this machine can use: "[::]:8080" listens everywhere.
func dialable(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	return addr.String()
}

// suggest prints what a newcomer may try, ready to be pasted.
func (n *node) suggest(url string) {
	key := filepath.Join(n.s.data, adminKeyFile)
	if !n.s.demo {
		_, _ = fmt.Fprintf(n.app.stderr, "\n  Bring in stores:  shortline import stores.csv\n  The API:          %s/docs\n\n", url)
		return
	}
	_, _ = fmt.Fprintf(n.app.stderr, `
  Try, in another terminal:

    curl '%[1]s/v1/nearby?lat=40.7580&lng=-73.9855&radius=2km'
    curl -X POST '%[1]s/v1/stores/%[3]s/queue' -H "Authorization: Bearer $(cat %[2]s)" -H 'Content-Type: application/json' -d '{"length": 7}'
    curl '%[1]s/v1/stores/%[3]s/queue'

  The API for people: %[1]s/docs

`, url, shellQuote(key), demoStore)
}

// shellQuote makes a path safe to paste into a shell.
func shellQuote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// prune drops what the feed and the idempotency keys no longer need, now and then.
func (n *node) prune(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			err := n.store.Prune(ctx, now.Add(-n.s.feedRetention), now)
			switch {
			case err == nil || ctx.Err() != nil:
			case errors.Is(err, replication.ErrNotPrimary): // a node of the region that is does it
				n.log.Debug("nothing was pruned from here", "err", err)
			default:
				n.log.Error("pruning of old changes", "err", err)
			}
		}
	}
}

// byteSize is a flag in bytes with the units KiB, MiB and GiB.
type byteSize int

func (b byteSize) String() string {
	for _, u := range byteUnits {
		if b >= u.size && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d", int(b))
}

// Set reads a number with a unit; part of pflag.Value.
func (b *byteSize) Set(text string) error {
	number, unit := text, byteSize(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = rest, u.size
			break
		}
	}
	var n int
	if _, err := fmt.Sscanf(number+"\n", "%d\n", &n); err != nil || n < 0 || n > 1<<40/int(unit) {
		return errors.New("must be a number of bytes such as 256MiB or 1GiB")
	}
	*b = byteSize(n) * unit
	return nil
}

// Type names the kind of value in the help; part of pflag.Value.
func (*byteSize) Type() string { return "size" }

var byteUnits = []struct {
	name string
	size byteSize
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// adminKeyFile is where the first admin key is kept in the data folder: the key alone.
const adminKeyFile = "admin.key"
