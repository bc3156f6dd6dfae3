package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline/regions"
)

// staleness is how old an answer of Status may be, askWithin how long the server may take to give one.
const (
	staleness = 20 * time.Millisecond
	askWithin = time.Second
)

// statusCache has the last answer, and lets one ask at a time.
type statusCache struct {
	asking sync.Mutex
	mu     sync.Mutex
	last   regions.DatabaseStatus // guarded by mu
}

// sqlStatus reads everything in one row, in recovery or not.
const sqlStatus = `SELECT pg_is_in_recovery(),
	(SELECT system_identifier::text FROM pg_control_system()),
	((CASE WHEN pg_is_in_recovery() THEN greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0'))
		ELSE pg_current_wal_flush_lsn() END) - '0/0')::int8,
	CASE WHEN pg_is_in_recovery() THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0),
			(SELECT coalesce(max(('x' || left(name, 8))::bit(32)::int), 0) FROM pg_ls_waldir() WHERE name LIKE '%.history'))
		ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int END,
	current_setting('default_transaction_read_only') = 'on',
	current_setting('synchronous_standby_names'),
	current_setting('primary_conninfo') <> '',
	coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
	(SELECT coalesce(json_object_agg(application_name, (flush_lsn - '0/0')::int8), '{}')::text FROM pg_stat_replication
		WHERE state = 'streaming' AND flush_lsn IS NOT NULL AND application_name = ANY($1))`

// Status implements regions.Database. The answer is at most 20 ms old; a server that does not answer within a second is down
// or starting, and the error is nil.
func (a *Agent) Status(ctx context.Context) (regions.DatabaseStatus, error) {
	if a.mem() == nil {
		return regions.DatabaseStatus{Region: a.cfg.Region, Role: regions.RoleStarting, At: time.Now(), Err: "the agent is starting"}, nil
	}
	a.cache.asking.Lock()
	defer a.cache.asking.Unlock()
	a.cache.mu.Lock()
	last := a.cache.last
	a.cache.mu.Unlock()
	if time.Since(last.At) < staleness && last.Order == a.mem().get().Order {
		return last, nil
	}
	return a.probeStatus(ctx)
}

// probeStatus asks the server now, over a fresh connection: what a frozen one does not take.
func (a *Agent) probeStatus(ctx context.Context) (regions.DatabaseStatus, error) {
	conn := func(ctx context.Context) (*pgx.Conn, func(), error) {
		conn, err := a.open(ctx)
		return conn, func() { hangUp(conn) }, err
	}
	return a.keepStatus(ctx, a.readStatus(ctx, conn))
}

// freshStatus asks the server now, at the end of a command to it.
func (a *Agent) freshStatus(ctx context.Context) (regions.DatabaseStatus, error) {
	conn := func(ctx context.Context) (*pgx.Conn, func(), error) {
		s, err := a.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		return s.Conn, s.done, nil
	}
	return a.keepStatus(ctx, a.readStatus(ctx, conn))
}

// keepStatus keeps an answer for whoever asks next.
func (a *Agent) keepStatus(ctx context.Context, s regions.DatabaseStatus) (regions.DatabaseStatus, error) {
	if err := ctx.Err(); err != nil {
		return s, fmt.Errorf("read the status: %w", context.Cause(ctx))
	}
	a.cache.mu.Lock()
	a.cache.last = s
	a.cache.mu.Unlock()
	return s, nil
}

func (a *Agent) readStatus(ctx context.Context, connect func(context.Context) (conn *pgx.Conn, done func(), err error)) regions.DatabaseStatus {
	m := a.mem().get()
	s := regions.DatabaseStatus{Region: a.cfg.Region, Order: m.Order, System: m.System, Epoch: 0, At: time.Now(), Err: a.trouble.get()}
	p := a.server.Load()
	if p.running() {
		s.PID = p.pid
	}
	if j := a.job.Load(); j != nil {
		s.Role, s.Rejoin = regions.RoleRejoin, j.progress()
		return s
	}
	if m.Rejoin != nil {
		s.Role, s.Rejoin = regions.RoleRejoin, &regions.RejoinStatus{Step: "wait", Exported: m.Rejoin.Exported, Lost: m.Rejoin.Lost}
		return s
	}
	if !p.running() {
		s.Role, s.Err = regions.RoleDown, cmp.Or(s.Err, "the server does not run")
		return s
	}
	if p.safe { // of a database that is being made, or left over from that; it ends before it takes anybody's word
		s.Role, s.Err = regions.RoleStarting, "the database is being prepared"
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, done, err := connect(ctx)
	if err == nil {
		err = a.querySelf(ctx, conn, &s)
		done()
	}
	if err != nil {
		s.Role, s.Err = regions.RoleDown, "the server does not answer: "+err.Error()
		if time.Since(p.began) < 5*time.Minute && a.isStarting() {
			s.Role = regions.RoleStarting
		}
		return s
	}
	if s.Role == regions.RolePrimary {
		s.Fenced = !m.Confirmed
		s.Upstream = ""
	} else {
		s.Sync = nil
	}
	return s
}

// isStarting tells whether the server's lock file says that it does not take connections yet.
func (a *Agent) isStarting() bool {
	lines, err := lockFile(a.cfg.Data)
	return err != nil || len(lines) < 8 || lines[7] != "ready" && lines[7] != "standby"
}

// querySelf fills in what the server tells.
func (a *Agent) querySelf(ctx context.Context, conn *pgx.Conn, s *regions.DatabaseStatus) error {
	var standby, attached bool
	var names, flushed string
	peers := make([]string, 0, len(a.cfg.Peers))
	for id := range a.cfg.Peers {
		peers = append(peers, string(id))
	}
	var q pgx.Batch
	q.Queue(sqlStatus, peers).QueryRow(func(row pgx.Row) error {
		return row.Scan(&standby, &s.System, &s.Position, &s.Timeline, &s.ReadOnly, &names, &attached, &s.Streaming, &flushed)
	})
	if err := conn.SendBatch(ctx, &q).Close(); err != nil {
		return err
	}
	err := conn.QueryRow(ctx, "SELECT epoch FROM shortline.control WHERE one").Scan(&s.Epoch)
	if err != nil && sqlState(err) != stateNoTable && err != pgx.ErrNoRows {
		return fmt.Errorf("read the control row: %w", err)
	}
	s.Role = regions.RolePrimary
	if standby {
		s.Role, s.ReadOnly = regions.RoleStandby, false
		if attached {
			s.Upstream = a.mem().get().Upstream
		}
		return nil
	}
	var ok bool
	if s.Sync, ok = parseSync(names); !ok {
		s.Sync = nil
		if names != nobody {
			s.Err = fmt.Sprintf("synchronous_standby_names is %q, which this agent did not set", names)
		}
	}
	return json.Unmarshal([]byte(flushed), &s.Standbys)
}
