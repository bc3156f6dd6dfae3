package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// session is a connection to this server for a command. One is kept from command to command, for on a busy machine the server
// takes longer to fork a process than to answer, and a command of a failover asks some ten times.
type session struct {
	*pgx.Conn
	agent  *Agent
	server *process // that it is connected to
}

// connect returns a session with this server as the agent's role: the one that was kept, if it still answers, or a fresh one. The
// caller calls done. That a kept one answers does not say that the server takes new ones: whoever wants to know that calls open.
func (a *Agent) connect(ctx context.Context) (*session, error) {
	server := a.server.Load()
	if s := a.kept.Swap(nil); s != nil {
		if s.server == server && s.Ping(ctx) == nil {
			return s, nil
		}
		hangUp(s.Conn)
	}
	conn, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	return &session{conn, a, server}, nil
}

// done gives the session back.
func (s *session) done() {
	if s.IsClosed() || s.PgConn().TxStatus() != 'I' || s.PgConn().IsBusy() || !s.agent.kept.CompareAndSwap(nil, s) {
		hangUp(s.Conn)
	}
}

// letGo closes what is kept between commands.
func (a *Agent) letGo() {
	if s := a.kept.Swap(nil); s != nil {
		hangUp(s.Conn)
	}
}

// open makes a fresh connection to this server as the agent's role.
func (a *Agent) open(ctx context.Context) (*pgx.Conn, error) {
	conn, err := dial(ctx, a.localDSN(RoleAgent, a.cfg.Database))
	switch sqlState(err) {
	case stateNoDatabase:
		return dial(ctx, a.localDSN(RoleAgent, superuser))
	case stateNoRole:
		return nil, fmt.Errorf("the role %s is not there; make it with the agent's grants.sql: %w", RoleAgent, err)
	}
	return conn, err
}

// probe returns nil if the server takes a connection and answers a query.
func (a *Agent) probe(ctx context.Context) error {
	conn, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

// do runs statements on this server.
func (a *Agent) do(ctx context.Context, statements ...string) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// ask reads one row from this server.
func (a *Agent) ask(ctx context.Context, sql string, args []any, into ...any) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	return conn.QueryRow(ctx, sql, args...).Scan(into...)
}

// set makes settings that persist, and tells the server to read them; "" is the default of what has one, and empty else. A new
// session has them when it returns. What is so already, in the file and in force, costs one question; a fence is always set.
func (a *Agent) set(ctx context.Context, values ...setting) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	if done, err := a.change(ctx, conn, values); done || err != nil {
		return err
	}
	// A session that is there reads them by itself. Those that begin have what the server itself has read.
	return poll(ctx, "new sessions have the settings", 3*time.Millisecond, func(ctx context.Context) (bool, error) {
		if ok, err := inForce(ctx, conn.Conn, values); !ok || err != nil {
			return false, err
		}
		fresh, err := a.open(ctx)
		if err != nil {
			return false, err
		}
		defer hangUp(fresh)
		return inForce(ctx, fresh, values)
	})
}

// change writes those settings that are other ones and tells the server to read them. done says that all were so already.
func (a *Agent) change(ctx context.Context, conn *session, values []setting) (done bool, err error) {
	if a.persists(values) {
		if ok, err := inForce(ctx, conn.Conn, values); ok && err == nil {
			return true, nil
		}
	}
	for _, v := range values {
		if a.persists([]setting{v}) {
			continue
		}
		sql := "ALTER SYSTEM SET " + v.name + " = " + quoteLiteral(v.value)
		if v.value == "" && v.name == readOnly {
			sql = "ALTER SYSTEM RESET " + v.name
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			return false, fmt.Errorf("set %s: %w", v.name, err)
		}
	}
	if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return false, fmt.Errorf("reload the settings: %w", err)
	}
	return false, nil
}

// persists tells whether the file that ALTER SYSTEM writes has the values already. It never says so of a fence.
func (a *Agent) persists(values []setting) bool {
	text, err := os.ReadFile(filepath.Join(a.cfg.Data, autoConf))
	if err != nil {
		return false
	}
	has := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, "="); ok {
			has[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	for _, v := range values {
		value, there := has[v.name]
		switch {
		case v.name == readOnly && (v.value != "" || there && value != "'off'"):
			return false
		case v.name != readOnly && value != quoteSetting(v.value):
			return false
		}
	}
	return true
}

// inForce tells whether a session has the values.
func inForce(ctx context.Context, conn *pgx.Conn, values []setting) (bool, error) {
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
	received regions.LSN // until where it received the log before it was promoted; 0 where it does not know that any more
}

// look asks a peer's server what it is.
func (a *Agent) look(ctx context.Context, peer regions.ID) (upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := a.call(ctx, peer)
	if err != nil {
		return upstream{}, err
	}
	defer hangUp(conn)
	return a.lookOver(ctx, conn, peer)
}

// call connects to a peer's server for SQL and for commands of replication, both of which a sender of the log takes in a database.
func (a *Agent) call(ctx context.Context, peer regions.ID) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(a.conninfo(peer) + " replication=database")
	if err != nil {
		return nil, fmt.Errorf("the address of the server of %s cannot be read", peer) // the error would repeat it with the password
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // it knows no other
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("ask the server of %s: %w", peer, err)
	}
	return conn, nil
}

// lookOver is look over a connection made by call.
func (a *Agent) lookOver(ctx context.Context, conn *pgx.Conn, peer regions.ID) (u upstream, err error) {
	err = conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()),
		CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int END,
		(coalesce(pg_last_wal_receive_lsn(), '0/0') - '0/0')::int8`).
		Scan(&u.standby, &u.system, &u.timeline, &u.received)
	if err == nil && !u.standby {
		u.epoch, u.lineage, err = readLineage(ctx, conn)
	}
	if err == nil && !u.standby {
		u.history, err = askHistory(ctx, conn, u.timeline)
	}
	if err != nil {
		return u, fmt.Errorf("ask the server of %s: %w", peer, err)
	}
	return u, nil
}

// askHistory reads the history of a timeline over a connection made by call.
func askHistory(ctx context.Context, conn *pgx.Conn, timeline uint32) (history, error) {
	if timeline <= 1 {
		return nil, nil // the first has none
	}
	results, err := conn.PgConn().Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return nil, fmt.Errorf("read the history of timeline %d: an answer of another form", timeline)
	}
	return parseHistory(string(results[0].Rows[0][1]))
}

// ownHistory reads the history of a timeline from this server's folder.
func (a *Agent) ownHistory(timeline uint32) (history, error) {
	if timeline <= 1 {
		return nil, nil // the first has none
	}
	text, err := os.ReadFile(filepath.Join(a.cfg.Data, "pg_wal", fmt.Sprintf("%08X.history", timeline)))
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	return parseHistory(string(text))
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
