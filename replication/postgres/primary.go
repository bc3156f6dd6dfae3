package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline/replication"
)

var (
	_ replication.Leader   = (*Store)(nil)
	_ replication.Splitter = (*Store)(nil)
	_ replication.Lagger   = (*Store)(nil)
	_ replication.Witness  = (*Store)(nil)
	_ replication.Newest   = (*Store)(nil)
)

// PrimaryHead implements replication.Leader: the replica may not have heard of the newest transactions yet.
func (s *Store) PrimaryHead(ctx context.Context) (head replication.Head, err error) {
	const doing = "read the primary's head"
	if err := s.ready(ctx, primary, doing); err != nil {
		return head, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	var pruned replication.Cursor
	row := s.writes.QueryRow(ctx, sqlHead)
	if err := row.Scan(&head.Epoch, &pruned.XID, &pruned.ID, &head.Horizon, &head.XMax, &head.LSN, &head.Server); err != nil {
		return replication.Head{}, s.explain(doing, err)
	}
	return head, nil
}

// Lag implements replication.Lagger: the bytes of log that the replica has received and not replayed; none on a primary.
func (s *Store) Lag(ctx context.Context) (bytes uint64, err error) {
	const sql = `SELECT CASE WHEN pg_is_in_recovery()
		THEN greatest(coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0), 0)::int8 ELSE 0 END`
	err = s.read(ctx, "read the replica's lag", sql, nil, func(rows pgx.Rows) error {
		if !rows.Next() {
			return rows.Err()
		}
		return rows.Scan(&bytes)
	})
	return bytes, err
}

// Newest implements replication.Newest: the primary key leads to the change at once.
func (s *Store) Newest(ctx context.Context) (t replication.Token, err error) {
	const sql = "SELECT c.epoch, c.xid, h.lsn FROM (" + sqlHead + ") h, LATERAL (SELECT epoch, xid FROM changes ORDER BY xid DESC, id DESC LIMIT 1) c"
	err = s.read(ctx, "read the newest change", sql, nil, func(rows pgx.Rows) error {
		if rows.Next() {
			return rows.Scan(&t.Epoch, &t.XID, &t.LSN)
		}
		return rows.Err()
	})
	if err != nil || t.Epoch != 0 {
		return t, err
	}
	head, err := s.Head(ctx) // all changes are pruned
	return replication.Token{Epoch: head.Epoch, XID: head.XMax - 1, LSN: head.LSN}, err
}

// Wrote implements replication.Witness. The replica is asked: once it is in a later epoch it has all that is left of former ones.
func (s *Store) Wrote(ctx context.Context, epoch, xid uint64) (wrote bool, err error) {
	const sql = "SELECT EXISTS (SELECT FROM changes WHERE xid = $1 AND epoch = $2)"
	err = s.read(ctx, "look for a transaction", sql, []any{xid, int64(epoch)}, func(rows pgx.Rows) error {
		if !rows.Next() {
			return rows.Err()
		}
		return rows.Scan(&wrote)
	})
	return wrote, err
}

// Deployment is an id that was made with the database; "" while no server has been reached.
func (s *Store) Deployment(ctx context.Context) (id string, err error) {
	err = s.read(ctx, "read the id of the deployment", "SELECT deployment::text FROM control WHERE one", nil, func(rows pgx.Rows) error {
		if !rows.Next() {
			return errors.Join(rows.Err(), errNoControl)
		}
		return rows.Scan(&id)
	})
	return id, err
}
