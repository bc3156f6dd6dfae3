package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shortline/shortline/regions"
)

// Conditions that PostgreSQL reports as SQLSTATEs.
const (
	stateNoDatabase = "3D000"
	stateNoTable    = "42P01"
	stateNoRights   = "42501"
	stateNoRole     = "28000"
)

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// localDSN is how to reach this server as a role, through the socket.
func (a *Agent) localDSN(role, database string) string {
	_, port, _ := splitAddr(a.cfg.Listen)
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=disable application_name=shortline-db connect_timeout=5",
		quoteConninfo(a.sockets()), port, role, database)
}

// dial opens a fresh connection. A server that is frozen takes it and says nothing: ctx must have a deadline.
func dial(ctx context.Context, dsn string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("the address of the server cannot be read") // the error would repeat the password
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // one round trip a query
	return pgx.ConnectConfig(ctx, cfg)
}

// hangUp closes a connection whose server may be frozen.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// connect opens a fresh connection to this server as the agent's role.
func (a *Agent) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := dial(ctx, a.localDSN(RoleAgent, a.cfg.Database))
	switch sqlState(err) {
	case stateNoDatabase:
		return dial(ctx, a.localDSN(RoleAgent, superuser))
	case stateNoRole:
		return nil, fmt.Errorf("the role %s is not there; make it with the agent's grants.sql: %w", RoleAgent, err)
	}
	return conn, err
}

// probe returns nil if the server answers a query.
func (a *Agent) probe(ctx context.Context) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

// do runs statements on a fresh connection to this server.
func (a *Agent) do(ctx context.Context, statements ...string) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// ask reads one row from this server over a fresh connection.
func (a *Agent) ask(ctx context.Context, sql string, args []any, into ...any) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	return conn.QueryRow(ctx, sql, args...).Scan(into...)
}

// set makes settings that persist, and tells the server to read them; "" is the default of what has one, and empty else. A new
// session has them when it returns.
func (a *Agent) set(ctx context.Context, values ...setting) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for _, v := range values {
		sql := "ALTER SYSTEM SET " + v.name + " = " + quoteLiteral(v.value)
		if v.value == "" && v.name == readOnly {
			sql = "ALTER SYSTEM RESET " + v.name
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("set %s: %w", v.name, err)
		}
	}
	if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return fmt.Errorf("reload the settings: %w", err)
	}
	return poll(ctx, "new sessions have the settings", 3*time.Millisecond, func(ctx context.Context) (bool, error) {
		conn, err := a.connect(ctx)
		if err != nil {
			return false, err
		}
		defer hangUp(conn)
		for _, v := range values {
			var now string
			if err := conn.QueryRow(ctx, "SELECT current_setting($1)", v.name).Scan(&now); err != nil {
				return false, err
			}
			want := v.value
			if v.name == readOnly && want == "" {
				want = "off"
			}
			if now != want {
				return false, nil
			}
		}
		return true, nil
	})
}

type setting struct{ name, value string }

// upstream is what a peer's server tells of itself.
type upstream struct {
	system   string
	standby  bool
	epoch    uint64
	timeline uint32
	history  history
	lineage  lineage
}

// look asks a peer's server what it is.
func (a *Agent) look(ctx context.Context, peer regions.ID) (u upstream, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := dial(ctx, a.conninfo(peer))
	if err != nil {
		return u, fmt.Errorf("ask the server of %s: %w", peer, err)
	}
	defer hangUp(conn)
	err = conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()),
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int END`).
		Scan(&u.standby, &u.system, &u.timeline)
	if err == nil && !u.standby {
		u.epoch, u.lineage, err = readLineage(ctx, conn)
	}
	if err == nil && !u.standby {
		u.history, err = a.askHistory(ctx, a.conninfo(peer)+" replication=yes", u.timeline)
	}
	if err != nil {
		return u, fmt.Errorf("ask the server of %s: %w", peer, err)
	}
	return u, nil
}

// askHistory reads the history of a timeline.
func (a *Agent) askHistory(ctx context.Context, dsn string, timeline uint32) (history, error) {
	if timeline <= 1 {
		return nil, nil // the first has none
	}
	conn, err := dial(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	results, err := conn.PgConn().Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return nil, fmt.Errorf("read the history of timeline %d: an answer of another form", timeline)
	}
	return parseHistory(string(results[0].Rows[0][1]))
}

// beginning is how an epoch began in a history; it is the same row in every server of that history.
type beginning struct{ xid, at string }

// lineage are the epochs of a server.
type lineage map[uint64]beginning

// readLineage reads the epoch of the control row and how each epoch began; nothing where there are no such tables.
func readLineage(ctx context.Context, conn *pgx.Conn) (epoch uint64, l lineage, err error) {
	err = conn.QueryRow(ctx, "SELECT epoch FROM shortline.control WHERE one").Scan(&epoch)
	switch {
	case sqlState(err) == stateNoTable || errors.Is(err, pgx.ErrNoRows):
		return 0, nil, nil
	case err != nil:
		return 0, nil, fmt.Errorf("read the control row: %w", err)
	}
	rows, err := conn.Query(ctx, "SELECT epoch, xid::text, began_at::text FROM shortline.epochs")
	if err != nil {
		return 0, nil, err
	}
	l = lineage{}
	var e uint64
	var b beginning
	_, err = pgx.ForEachRow(rows, []any{&e, &b.xid, &b.at}, func() error { l[e] = b; return nil })
	if sqlState(err) == stateNoTable {
		return epoch, nil, nil
	}
	return epoch, l, err
}
