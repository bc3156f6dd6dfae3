package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shortline/shortline/replication"
)

type connConfig = pgx.ConnConfig

// SQLSTATEs that are looked at.
const (
	stateSerialization = "40001"
	stateDeadlock      = "40P01"
	stateUnique        = "23505"
)

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// unavailable tells whether an error by which nothing was written is of the server, or of the way to it, and not of the write:
// later, or at another server, the same write may well succeed.
func unavailable(err error) bool {
	switch state := sqlState(err); {
	case errors.Is(err, replication.ErrOutcomeUnknown), errors.Is(err, replication.ErrClosed), errors.Is(err, context.Canceled),
		errors.Is(err, replication.ErrNotPrimary), errors.Is(err, errNoControl):
		return false
	case errors.As(err, new(*pgconn.ConnectError)):
		return true
	case state == "": // the connection broke, or time ran out
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.As(err, new(net.Error)) || pgconn.SafeToRetry(err)
	default:
		return state == "25006" || // a standby, or fenced
			state == "55P03" || state == "57014" || // waited too long for a lock
			state == "25P03" || // idle too long: this process was frozen
			strings.HasPrefix(state, "57P") || strings.HasPrefix(state, "08") || strings.HasPrefix(state, "53")
	}
}

// explain says what was being done and, where the error has a remedy, which one it is, in one line.
func explain(doing string, err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if remedy := remedy(err); remedy != "" {
		return fmt.Errorf("%s: %w: %s", doing, oneLine{err}, remedy)
	}
	return fmt.Errorf("%s: %w", doing, oneLine{err})
}

// oneLine is an error whose text has no line breaks; the driver puts each address that it tried on a line.
type oneLine struct{ err error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.err.Error()), " ") }
func (e oneLine) Unwrap() error { return e.err }

// remedy returns what an operator can do about an error of the server or of the way to it, or "".
func remedy(err error) string {
	var netErr net.Error
	switch state := sqlState(err); {
	case state == "28P01" || state == "28000":
		return "check the role and password in the DSN, and pg_hba.conf"
	case state == "3D000":
		return "create the database (createdb) or name another in the DSN"
	case state == "25006":
		return "the server takes no writes, it is a standby or fenced: let the DSN for writes point to the primary"
	case state == "42501":
		return "the role lacks rights: see grants.sql"
	case state == "42P01" || state == "3F000" || state == "42703":
		return "the schema is missing or older than this program: migrate with the owner's DSN"
	case state == "53300":
		return "raise max_connections, or lower the sizes of the pools"
	case state == "53100":
		return "the server's disk is full; make room, nothing stored is harmed"
	case state == "53200":
		return "the server has no memory left; look at its log, and at max_locks_per_transaction"
	case state == "57P03":
		return "the server is starting or stopping; try again"
	case state == "55P03":
		return "another transaction holds a lock for long; look at pg_stat_activity"
	case state != "":
		return ""
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr):
		return "check that the server runs and that host and port in the DSN are right"
	}
	return ""
}
