package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// ErrEpochPast says that the database is in a later epoch than the one that was to begin.
var ErrEpochPast = errors.New("the database is in a later epoch")

// Epoch is one that begins.
type Epoch struct {
	Number uint64
	// Fork is the log position up to which the history of the epoch before belongs to this one: where the server was
	// promoted. replication.NoFork where all of it does.
	Fork uint64
	// At dates it (now).
	At time.Time
}

// BeginEpoch makes e the epoch of the database of the DSN, which must be a primary, with a change row of its own. It waits for
// every write transaction that began before; those that begin later are of the new epoch. It needs the rights of
// shortline_writer. The token is that of the epoch's first change; an epoch that has begun already is not begun again, and
// its token comes back. The error wraps ErrEpochPast where a later one has.
//
// It does not wait for a standby, because the new primary may have none yet: the first acknowledged write of the epoch comes
// after it in the log, so a standby that has that has this. The database must take writes; a fence that was left by a
// switchover (default_transaction_read_only) does not stop it.
func BeginEpoch(ctx context.Context, dsn string, e Epoch) (replication.Token, error) {
	doing := fmt.Sprintf("begin epoch %d", e.Number)
	pc, err := parse(primary, dsn, Config{}.withDefaults())
	if err != nil {
		return replication.Token{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, pc.ConnConfig)
	if err != nil {
		return replication.Token{}, explain(doing, err)
	}
	defer hangUp(conn)
	if e.At.IsZero() {
		e.At = time.Now()
	}
	var token replication.Token
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) (err error) {
		token, err = e.begin(ctx, tx)
		return err
	})
	if err != nil {
		return replication.Token{}, explain(doing, err)
	}
	if err := conn.QueryRow(ctx, sqlInsertLSN).Scan(&token.LSN); err != nil {
		return replication.Token{}, explain(doing, err)
	}
	return token, nil
}

func (e *Epoch) begin(ctx context.Context, tx pgx.Tx) (token replication.Token, err error) {
	for _, sql := range []string{"SET LOCAL synchronous_commit = local", "SET LOCAL search_path = " + schema} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return token, err
		}
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockEpoch); err != nil {
		return token, err
	}
	var now uint64
	if err := tx.QueryRow(ctx, sqlControl).Scan(&now); errors.Is(err, pgx.ErrNoRows) {
		return token, errNoControl
	} else if err != nil {
		return token, err
	}
	token.Epoch = e.Number
	switch {
	case now > e.Number:
		return token, fmt.Errorf("%w: %d", ErrEpochPast, now)
	case now == e.Number:
		return token, tx.QueryRow(ctx, "SELECT xid::text::int8 FROM epochs WHERE epoch = $1", now).Scan(&token.XID)
	}
	var fork any // a bigint has no room for NoFork
	if e.Fork != replication.NoFork {
		fork = int64(e.Fork)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO epochs (epoch, fork, began_at) VALUES ($1, '0/0'::pg_lsn + $2::int8::numeric, $3)", int64(e.Number), fork, e.At); err != nil {
		return token, err
	}
	if _, err := tx.Exec(ctx, "UPDATE control SET epoch = $1", int64(e.Number)); err != nil {
		return token, err
	}
	return token, tx.QueryRow(ctx, `INSERT INTO changes (id, epoch, committed_at, kind, rev, subject) VALUES (1, $1::int8, $2, $3, $1::int8, '')
		RETURNING xid::text::int8`, int64(e.Number), e.At, int16(shortline.EpochBegun)).Scan(&token.XID)
}
