package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/regions/agent"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
)

const dbHelp = `Run the database agent of one region beside its PostgreSQL (15 or newer).

The agent starts the server, starts it again after a crash, stops it cleanly on
SIGTERM, and carries out what the control plane asks for: detach, promote,
follow, and the rest of a failover. After a failover it makes the old primary a
standby again. What only that one had is first written to a file in DIR/lost,
for people to read and for "shortline import-lost" to bring back.

An empty data folder becomes

  --db-init            a new database, with the roles of Shortline and the agent
  --db-init-from R     a copy of region R's, which follows it

and nothing without one of the two. Both do nothing to a folder that is not empty.

A server that was a primary begins fenced: it takes no writes until the control
plane says that it still is the primary. Where there is no control plane, with
one region, say --db-alone.

If the agent dies the server goes on, and the next agent takes it over; with
--db-bound the server ends with it.

Where somebody else runs PostgreSQL (a managed service, Patroni, an operator),
--db-driver exec runs a program of yours for each command instead; see
docs/operations/exec-driver.md for what it reads and prints.

The agent's folder (--db-dir) and PostgreSQL's (--db-data) must outlive a
restart of the machine. While a server is built anew, the old copy stays until
the new one is complete, so the disk needs room for both.`

// dbSettings are the flags of db.
type dbSettings struct {
	cfg               agent.Config
	region            string
	peers             map[string]string
	from, sqlFile     string
	listen, metrics   string
	clusterKeys       []string
	deployment        string
	identity          identitySettings
	logLevel, logForm string
	driver, writerDSN string
	command           []string
}

func newDBCommand(a *app) *cobra.Command { return dbCommand(a, new(dbSettings)) }

// dbCommand is the command with its flags bound to s.
func dbCommand(a *app, s *dbSettings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "db", Short: "run the database agent: it looks after a region's PostgreSQL", Long: dbHelp, Args: cobra.NoArgs,
		Example: `  shortline db --region us-east --db-init --postgres-listen 10.1.0.5:5432 --db-peer eu-west=10.2.0.5:5432
  shortline db --region eu-west --db-init-from us-east --postgres-listen 10.2.0.5:5432 --db-peer us-east=10.1.0.5:5432`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.db(cmd.Context(), s) },
	}
	f := cmd.Flags()
	f.StringVar(&s.region, "region", "local", "`name` of this region")
	f.StringVar(&s.cfg.Dir, "db-dir", "shortline-db", "`folder` of the agent: what it remembers, the server's log, lost writes")
	f.StringVar(&s.cfg.Data, "db-data", "", "data `folder` of PostgreSQL (default: data in --db-dir)")
	f.StringVar(&s.cfg.Bin, "postgres-bin", "", "`folder` of PostgreSQL's programs; default: the newest that is installed")
	f.StringVar(&s.cfg.Listen, "postgres-listen", "127.0.0.1:5432", "`address` at which PostgreSQL takes connections")
	f.StringVar(&s.listen, "agent-listen", "127.0.0.1:8083", "`address` for the control plane's commands")
	f.StringVar(&s.metrics, "agent-metrics-listen", "", "`address` of /metrics, /livez and /readyz; default: none")
	bindClusterKey(f, &s.clusterKeys)
	f.StringVar(&s.deployment, "deployment", "shortline", "`name` of the deployment, as nodes have it; looked at with --cluster-tls-cert")
	s.identity.bind(f)
	s.identity.bindInsecure(f)
	f.StringToStringVar(&s.peers, "db-peer", nil, "`region=address` of another region's PostgreSQL, as reached from here; once for each")
	f.StringVar(&s.cfg.Password, "db-password", "", "`password` of replication, the same in every region; better set as SHORTLINE_DB_PASSWORD")
	f.StringVar(&s.cfg.SSLMode, "db-sslmode", "prefer", "`mode` of TLS to the other regions' PostgreSQL, as in libpq")
	f.StringVar(&s.cfg.Database, "db-name", "shortline", "`name` of the database")
	f.StringToStringVar(&s.cfg.Settings, "db-setting", nil, "`name=value` for PostgreSQL, such as shared_buffers=8GB; may be given several times")
	f.BoolVar(&s.cfg.Init.Primary, "db-init", false, "make a new database in an empty data folder")
	f.StringVar(&s.from, "db-init-from", "", "make an empty data folder a copy of this `region`'s")
	f.StringVar(&s.sqlFile, "db-init-sql", "", "`file` of SQL to run once in the new database as its superuser, instead of the store's grants.sql: the roles shortline_owner, shortline_writer and shortline_reader, with their passwords")
	f.BoolVar(&s.cfg.Alone, "db-alone", false, "there is one region and no control plane: a primary need not be confirmed after a start")
	f.BoolVar(&s.cfg.Bound, "db-bound", false, "end the server when the agent dies, however it does (Linux)")
	f.DurationVar(&s.cfg.StopTimeout, "db-stop-timeout", 30*time.Second, "how long a planned stop of the server may take before it is stopped at once")
	f.StringVar(&s.driver, "db-driver", "sql", "sql: the agent runs PostgreSQL itself; exec: --db-command does what is asked for")
	f.StringArrayVar(&s.command, "db-command", nil, "`program` of --db-driver exec; give it again for each of its first arguments")
	f.StringVar(&s.writerDSN, "db-writer-dsn", "", "`DSN` of this region's server as shortline_writer, with which --db-driver exec writes a new epoch; better set as SHORTLINE_DB_WRITER_DSN")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logForm, "log-format", "text", "text or json")
	return cmd
}

// complete fills in the agent's configuration and reports every fault of the settings at once.
func (s *dbSettings) complete() error {
	var faults []error
	s.cfg.Region, s.cfg.Init.From, s.cfg.Peers = regions.ID(s.region), regions.ID(s.from), map[regions.ID]string{}
	for id, addr := range s.peers {
		s.cfg.Peers[regions.ID(id)] = addr
	}
	s.cfg.Init.SQL = postgres.Grants()
	if s.sqlFile != "" {
		text, err := os.ReadFile(s.sqlFile)
		if err != nil {
			faults = append(faults, fmt.Errorf("--db-init-sql: %w", err))
		}
		s.cfg.Init.SQL = string(text)
	}
	switch {
	case s.driver == "exec" && len(s.command) == 0:
		faults = append(faults, errors.New("--db-driver exec needs --db-command"))
	case s.driver == "exec" && s.writerDSN == "":
		faults = append(faults, errors.New("--db-driver exec needs --db-writer-dsn"))
	case s.driver != "sql" && s.driver != "exec":
		faults = append(faults, fmt.Errorf("--db-driver %q is not sql or exec", s.driver))
	}
	if err := s.cfg.Validate(); err != nil && s.driver == "sql" {
		faults = append(faults, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if err := peer.Keys(s.clusterKeys).Check(); err != nil {
		faults = append(faults, err)
	}
	if err := s.identity.validate(); err != nil {
		faults = append(faults, err)
	}
	if err := s.identity.refuseOpen("agent-listen", s.listen, s.identity.on(), needsTLS); err != nil {
		faults = append(faults, err)
	}
	if _, err := newLogger(io.Discard, s.logLevel, s.logForm); err != nil {
		faults = append(faults, err)
	}
	return joinFaults(faults)
}

// driver is one of the two ways to command a database.
type driver struct {
	regions.Database
	run   func(context.Context) error
	where string // for the ready line
}

// open makes the driver; it starts nothing.
func (s *dbSettings) open(stderr io.Writer, log *slog.Logger, registry *prometheus.Registry) (driver, error) {
	if s.driver == "exec" {
		db, err := agent.NewExec(agent.ExecConfig{Region: s.cfg.Region, Dir: s.cfg.Dir, Command: s.command, Log: log,
			BeginEpoch: func(ctx context.Context, epoch uint64, fork regions.LSN) error {
				return beginEpoch(ctx, s.writerDSN, epoch, fork)
			}})
		return driver{db, func(ctx context.Context) error { <-ctx.Done(); return nil }, s.listen}, err
	}
	s.cfg.Log, s.cfg.Registerer, s.cfg.BeginEpoch = log, registry, beginEpoch
	s.cfg.Output = func(line string) { _, _ = fmt.Fprintln(stderr, "postgres | "+line) }
	db, err := agent.New(s.cfg)
	if err != nil {
		return driver{}, err
	}
	return driver{db, db.Run, s.cfg.Listen}, nil
}

// db runs the agent until ctx ends, and then stops the server.
func (a *app) db(ctx context.Context, s *dbSettings) error {
	if err := s.complete(); err != nil {
		return &usageError{err: err, command: "shortline db"}
	}
	log, err := newLogger(a.stderr, s.logLevel, s.logForm)
	if err != nil {
		return err
	}
	log = introduce(log, s.region, s.region+"-db")
	verifier, err := peer.NewVerifier(s.clusterKeys, nil)
	if err != nil {
		return err
	}
	registry := a.newRegistry(s.region, s.region+"-db", log)
	id, err := s.identity.load(s.deployment, s.region, log, registry)
	if err != nil {
		return err
	}
	db, err := s.open(a.stderr, log, registry)
	if err != nil {
		return err
	}
	data := ""
	if s.driver == "sql" {
		data = s.cfg.Dir
	}
	registry.MustRegister(agent.StatusCollector(db, data))
	commands, err := listen("agent-listen", s.listen)
	if err != nil {
		return err
	}
	defer func() { _ = commands.Close() }()
	group, alive := errgroup.WithContext(ctx)
	if s.metrics != "" {
		l, err := listen("agent-metrics-listen", s.metrics)
		if err != nil {
			return err
		}
		serveUntil(alive, group, &http.Server{Handler: dbAdmin(db, registry), ReadHeaderTimeout: 5 * time.Second}, l)
	}
	serveUntil(alive, group, peer.NewServer(agent.Handler(db, verifier), agent.SlowestAnswer, log), peer.Listen(commands, id))
	group.Go(func() error { return db.run(alive) })
	group.Go(func() error { return a.announceDB(alive, db, s, log) })
	return group.Wait()
}

// beginEpoch writes an epoch into the control row.
func beginEpoch(ctx context.Context, dsn string, epoch uint64, fork regions.LSN) error {
	e := postgres.Epoch{Number: epoch, Fork: uint64(fork)}
	if fork == 0 {
		e.Fork = replication.NoFork
	}
	_, err := postgres.BeginEpoch(ctx, dsn, e)
	return err
}

// serveUntil serves until ctx ends.
func serveUntil(ctx context.Context, group *errgroup.Group, server *http.Server, l net.Listener) {
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(end) != nil {
			return server.Close()
		}
		return nil
	})
}

// dbAdmin is what monitoring asks for: the agent lives, and the server is what it should be.
func dbAdmin(db regions.Database, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		s, err := db.Status(ctx)
		if err != nil || s.Role != regions.RolePrimary && s.Role != regions.RoleStandby {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprintf(w, "%s %s\n", s.Role, s.Err)
	})
	return mux
}

// announceDB prints the ready line once the server answers.
func (a *app) announceDB(ctx context.Context, db driver, s *dbSettings, log *slog.Logger) error {
	for {
		status, err := db.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && (status.Role == regions.RolePrimary || status.Role == regions.RoleStandby) {
			log.Info("ready", "region", s.region, "role", status.Role, "postgres", db.where, "agent", s.listen)
			_, err := fmt.Fprintln(a.stdout, "ready "+db.where)
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}
