package postgres

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Facts are what a server tells of itself to somebody who looks for what is wrong with it.
type Facts struct {
	Addr     string // "host:port"
	Version  int    // as server_version_num: 150008
	Standby  bool
	Ahead    time.Duration // of its clock before this machine's, to the half of the time of an answer
	Settings map[string]string
	// Conns are the connections that there are now.
	Conns int
	// OldestWrite is the age of the oldest transaction that has a number: it holds the feed of all nodes. 0: none is open.
	OldestWrite time.Duration
	// Slots are the replication slots that nobody uses, with the bytes of log that each holds back.
	Slots map[string]int64
	// Schema is the version of Shortline's schema; 0: there is none, or it cannot be seen.
	Schema, WantSchema int64
}

// inspected are the settings that Facts has.
var inspected = []string{"synchronous_commit", "fsync", "full_page_writes", "wal_level", "wal_log_hints", "data_checksums", "max_connections", "superuser_reserved_connections",
	"max_slot_wal_keep_size", "shared_buffers", "hot_standby", "default_transaction_read_only"}

// Inspect asks a server. dsn is that of any role of Shortline; what the role may not see is left out.
func Inspect(ctx context.Context, dsn string) (f Facts, err error) {
	pc, err := parse("server", dsn, Config{ConnectTimeout: 5 * time.Second})
	if err != nil {
		return f, err
	}
	cc := pc.ConnConfig
	f.Addr = net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port)))
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return f, explain("connect to the server at "+f.Addr, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var now time.Time
	asked := time.Now()
	err = conn.QueryRow(ctx, "SELECT clock_timestamp(), current_setting('server_version_num')::int, pg_is_in_recovery()").Scan(&now, &f.Version, &f.Standby)
	if err != nil {
		return f, explain("ask the server at "+f.Addr, err)
	}
	f.Ahead = now.Sub(asked.Add(time.Since(asked) / 2))
	f.Settings, f.Slots, f.WantSchema = map[string]string{}, map[string]int64{}, schemaVersion()
	var name, value string
	rows, err := conn.Query(ctx, "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1)", inspected)
	if err != nil {
		return f, explain("read the settings of "+f.Addr, err)
	}
	if _, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { f.Settings[name] = value; return nil }); err != nil {
		return f, explain("read the settings of "+f.Addr, err)
	}
	var oldest float64
	err = conn.QueryRow(ctx, `SELECT count(*), coalesce(max(extract(epoch FROM now() - xact_start)) FILTER (WHERE backend_xid IS NOT NULL), 0)::float8
		FROM pg_stat_activity WHERE backend_type = 'client backend'`).Scan(&f.Conns, &oldest)
	if err != nil {
		return f, explain("look at the sessions of "+f.Addr, err)
	}
	f.OldestWrite = time.Duration(oldest * float64(time.Second))
	var held int64
	rows, err = conn.Query(ctx, `SELECT slot_name, coalesce((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) - restart_lsn, 0)::int8
		FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL`)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&name, &held}, func() error { f.Slots[name] = held; return nil })
	}
	if err != nil {
		return f, explain("look at the replication slots of "+f.Addr, err)
	}
	// A schema that is not there, or that the role may not see, is told by 0.
	f.Schema, _ = readVersion(ctx, conn)
	return f, nil
}

// AddrOf is the address in a DSN, "" where it is none or that of a socket on this machine.
func AddrOf(dsn string) string {
	pc, err := parse("server", dsn, Config{})
	if err != nil || strings.HasPrefix(pc.ConnConfig.Host, "/") {
		return ""
	}
	return net.JoinHostPort(pc.ConnConfig.Host, strconv.Itoa(int(pc.ConnConfig.Port)))
}
