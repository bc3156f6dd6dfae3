package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// side is which of the two servers a pool speaks to.
type side string

const (
	primary side = "primary"
	replica side = "replica"
)

// schema is where everything lies; sessions look nowhere else.
const schema = "shortline"

// newPool makes a pool. It connects to nothing yet.
func newPool(of side, dsn string, cfg Config, m mutant) (*pgxpool.Pool, error) {
	pc, err := parse(of, dsn, cfg)
	if err != nil {
		return nil, err
	}
	limit, conns := cfg.ReadTimeout, cfg.ReadConns
	if of == primary {
		limit, conns = cfg.CommitTimeout, cfg.WriteConns
		// Every statement of a commit finds rows by their keys. Plans made while a table was small must not scan it when it has grown.
		maps.Copy(pc.ConnConfig.RuntimeParams, map[string]string{"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"})
		pc.ConnConfig.OnNotice = noteWarning
		if m != mutantCancels {
			pc.BeforeConnect = neverCancel
		}
	}
	// Where this process dies or is cut off, the server ends what it left open: an open transaction holds the feed.
	milliseconds := strconv.FormatInt(max(limit.Milliseconds(), 1), 10)
	maps.Copy(pc.ConnConfig.RuntimeParams, map[string]string{
		"statement_timeout": milliseconds, "lock_timeout": milliseconds, "idle_in_transaction_session_timeout": "10s", "search_path": schema,
		"jit": "off", // compiling costs a hundred times what any statement here does
	})
	pc.MaxConns = int32(min(conns, 1000))
	pc.MaxConnLifetime, pc.MaxConnLifetimeJitter = time.Hour, 10*time.Minute
	pool, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, explain("make connections to the "+string(of), err)
	}
	return pool, nil
}

// ping makes a connection, or tries one that there is.
func ping(ctx context.Context, of side, pool *pgxpool.Pool) error {
	if err := pool.Ping(ctx); err != nil {
		cc := pool.Config().ConnConfig
		return explain(fmt.Sprintf("connect to the %s at %s:%d", of, cc.Host, cc.Port), err)
	}
	return nil
}

// parse reads a DSN. What is wrong with one is not repeated, for a password may be part of it.
func parse(of side, dsn string, cfg Config) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(dsn)
	if dsn == "" || err != nil {
		return nil, fmt.Errorf("the DSN of the %s is not one of PostgreSQL: write postgres://role:password@host:5432/database, and special characters of the password as %%40", of)
	}
	pc.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	if pc.ConnConfig.RuntimeParams["application_name"] == "" {
		pc.ConnConfig.RuntimeParams["application_name"] = "shortline"
	}
	return pc, nil
}

// neverCancel keeps the driver from asking the server to cancel what a connection was at when a deadline closed it. A
// COMMIT that is cancelled while it waits for a standby becomes visible without one; left alone, it waits on unseen.
func neverCancel(_ context.Context, cc *connConfig) error {
	var connected atomic.Bool // by then every call to dial is for a cancellation
	dial, after := cc.DialFunc, cc.AfterConnect
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connected.Load() {
			return nil, errors.New("commits are not cancelled")
		}
		return dial(ctx, network, addr)
	}
	cc.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		connected.Store(true)
		if after != nil {
			return after(ctx, conn)
		}
		return nil
	}
	return nil
}

// warningKey is where a connection keeps the last warning that came on it.
const warningKey = "shortline.warning"

func noteWarning(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" {
		conn.CustomData()[warningKey] = n
	}
}
