package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shortline/shortline/replication"
)

// errUnchecked is the fault of a server that nobody has asked yet.
var errUnchecked = errors.New("it has not been asked yet")

// preparePause is the time between two attempts to reach a server that could not be used at the start.
const preparePause = time.Second

// fault says why a server cannot be used yet, or nil.
func (s *Store) fault(of side) error {
	if err := s.faults[of].Load(); err != nil {
		return *err
	}
	return nil
}

// prepare checks one server and notes whether it can be used.
func (s *Store) prepare(ctx context.Context, of side) error {
	var err error
	if of == primary {
		err = s.checkPrimary(ctx)
	} else {
		err = s.step(ctx, s.checkReplica)
	}
	if err != nil {
		s.faults[of].Store(&err)
		return err
	}
	s.faults[of].Store(nil)
	return nil
}

// Run looks for the servers that could not be used when the store was opened, until ctx ends, and returns nil. Whatever keeps
// one from being used is logged when it is new.
func (s *Store) Run(ctx context.Context) error {
	said := map[side]string{}
	ticker := time.NewTicker(preparePause)
	defer ticker.Stop()
	for {
		for _, of := range []side{primary, replica} {
			if s.fault(of) == nil {
				continue
			}
			err := s.prepare(ctx, of)
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil:
				s.cfg.Log.Info("a server that could not be used can be now", "server", of)
			case err.Error() != said[of]:
				said[of] = err.Error()
				s.cfg.Log.Warn("a server cannot be used yet", "server", of, "err", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ready is usable for one server. What needs the primary fails with ErrNotPrimary, so that writes are held meanwhile.
func (s *Store) ready(ctx context.Context, of side, doing string) error {
	if err := s.usable(ctx, doing); err != nil {
		return err
	}
	err := s.fault(of)
	switch {
	case err == nil:
		return nil
	case of == primary:
		return fmt.Errorf("%s: %w: %w", doing, replication.ErrNotPrimary, err)
	}
	return fmt.Errorf("%s: the replica cannot be used yet: %w", doing, err)
}

// unreachable tells whether an error is that of a server that does not answer, or not yet, so that it may by itself be over
// later. A wrong password or a wrong database is not.
func unreachable(err error) bool {
	if errors.As(err, new(behindError)) {
		return true
	}
	switch sqlState(err) {
	case "":
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.As(err, new(net.Error)) || errors.As(err, new(*pgconn.ConnectError))
	case "57P01", "57P02", "57P03", "53300":
		return true
	}
	return false
}
