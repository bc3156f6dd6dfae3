package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline/regions"
)

// Follow implements regions.Database. What needs no rewind is in force when it returns. With a fork of 0 the server
// is built anew, unless it follows that primary in that epoch already.
func (a *Agent) Follow(ctx context.Context, o regions.Order, primary regions.ID, fork regions.LSN) (s regions.DatabaseStatus, err error) {
	began := time.Now()
	if err = a.lock(ctx); err != nil {
		return s, fmt.Errorf("follow %s: %w", primary, err)
	}
	defer a.unlock()
	err = a.follow(ctx, o, primary, fork)
	a.metrics.command("follow", time.Since(began), err)
	if err != nil {
		a.cfg.Log.Warn("command", "command", "follow", "order", o, "primary", primary, "err", err)
		return s, fmt.Errorf("follow %s: %w", primary, err)
	}
	a.cfg.Log.Info("command", "command", "follow", "order", o, "primary", primary, "took", time.Since(began))
	return a.freshStatus(ctx)
}

func (a *Agent) follow(ctx context.Context, o regions.Order, primary regions.ID, fork regions.LSN) error {
	switch {
	case primary == a.cfg.Region:
		return fmt.Errorf("a server cannot follow itself: %w", regions.ErrWrongRole)
	case a.cfg.Peers[primary] == "":
		return fmt.Errorf("the address of the server of %s is not known here", primary)
	}
	if err := a.mem().admit(o, a.cfg.mutant); err != nil {
		return err
	}
	if j := a.job.Load(); j != nil {
		if j.what.Primary == primary && j.what.Epoch == o.Epoch {
			return nil
		}
		if err := j.end(ctx); err != nil {
			return err
		}
	}
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var here regions.DatabaseStatus // read while the other server is asked: a new primary's first write may wait for this
	var unread error
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { here, unread = a.freshStatus(call) })
	conn, err := a.call(call, primary)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	u, err := a.lookOver(call, conn, primary)
	if err == nil {
		err = a.suits(u, primary, o.Epoch)
	}
	if err != nil {
		return err
	}
	// A fork of 0 comes again until the copy that it asked for is seen to stream.
	if m := a.mem().get(); m.Rejoin == nil && (fork != 0 || m.Upstream == primary && m.Epoch == o.Epoch) {
		if reading.Wait(); unread != nil {
			return unread
		}
		done, err := a.tryAttach(ctx, here, conn, u, primary, o.Epoch)
		if err != nil || done {
			return err
		}
	}
	return a.beginRejoin(rejoin{Primary: primary, Epoch: o.Epoch, Fork: fork, Copy: fork == 0})
}

// suits refuses a server that is not the primary of that epoch in this deployment.
func (a *Agent) suits(u upstream, primary regions.ID, epoch uint64) error {
	m := a.mem().get()
	switch {
	case a.cfg.mutant == mutantNoSystem:
		return nil
	case m.System != "" && u.system != m.System:
		return fmt.Errorf("the server of %s belongs to another database system (%s, this one to %s): check its address", primary, u.system, m.System)
	case u.standby:
		return fmt.Errorf("the server of %s is a standby", primary)
	case u.lineage != nil && u.epoch < epoch:
		return fmt.Errorf("the server of %s is the primary of epoch %d and has not begun epoch %d", primary, u.epoch, epoch)
	case u.lineage != nil && u.epoch > epoch:
		return fmt.Errorf("the server of %s is in epoch %d already: %w", primary, u.epoch, regions.ErrOldOrder)
	}
	return nil
}

// tryAttach makes a standby that runs, has the status s, and nothing that the primary has not, follow it. done is false where it takes
// more.
func (a *Agent) tryAttach(ctx context.Context, s regions.DatabaseStatus, conn *pgx.Conn, u upstream, primary regions.ID, epoch uint64) (done bool, err error) {
	server := a.server.Load()
	if !server.running() || !a.isStandby() || s.Role != regions.RoleStandby {
		return false, nil
	}
	final := a.detached == server && s.Upstream == "" && !s.Streaming
	if !final && !(s.Upstream == primary && s.Streaming && s.Timeline == u.timeline) { // else its position moves, but never past the primary's
		if err := a.detach(ctx); err != nil {
			return false, err
		}
		if s, err = a.freshStatus(ctx); err != nil || s.Role != regions.RoleStandby {
			return false, err
		}
	}
	me, err := a.selfOf(ctx, s)
	if err != nil {
		return false, err
	}
	way, _, why := chooseWay(me, u)
	a.cfg.Log.Info("follow", "primary", primary, "way", way.String(), "why", why)
	if way != wayAttach {
		return false, nil
	}
	return true, a.attach(ctx, conn, primary, epoch)
}

// self tells what this server, which runs, has.
func (a *Agent) self(ctx context.Context) (s self, err error) {
	now := regions.DatabaseStatus{}
	conn, err := a.connect(ctx)
	if err != nil {
		return s, err
	}
	err = a.querySelf(ctx, conn.Conn, &now)
	conn.done()
	if err != nil {
		return s, err
	}
	return a.selfOf(ctx, now)
}

// selfOf is self of a server whose status is known.
func (a *Agent) selfOf(ctx context.Context, now regions.DatabaseStatus) (s self, err error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return s, err
	}
	defer conn.done()
	s = self{primary: now.Role == regions.RolePrimary, timeline: now.Timeline, position: now.Position, promoted: a.mem().get().Promoted}
	s.epoch, s.lineage, err = readLineage(ctx, conn.Conn)
	return s, err
}

// attach tells a standby whom to follow; conn is one to that server.
func (a *Agent) attach(ctx context.Context, conn *pgx.Conn, primary regions.ID, epoch uint64) error {
	if err := ensureSlot(ctx, conn, regionSlot(a.cfg.Region)); err != nil {
		return fmt.Errorf("make a slot at %s: %w", primary, err)
	}
	if err := a.mem().update(func(r *remembered) { r.Role, r.Epoch, r.Upstream, r.Rejoin = regions.RoleStandby, epoch, primary, nil }); err != nil {
		return err
	}
	own, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer own.done()
	a.detached = nil
	// Whoever starts the receiver reads them by itself; no new session has to have them.
	_, err = a.change(ctx, own, []setting{{slotName, regionSlot(a.cfg.Region)}, {conninfo, a.conninfo(primary)}})
	return err
}

// makeSlot makes this region's slot at a peer's server, anew where it has lost its log.
func (a *Agent) makeSlot(ctx context.Context, peer regions.ID) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := dial(ctx, a.conninfo(peer))
	if err != nil {
		return fmt.Errorf("make a slot at %s: %w", peer, err)
	}
	defer hangUp(conn)
	if err := ensureSlot(ctx, conn, regionSlot(a.cfg.Region)); err != nil {
		return fmt.Errorf("make a slot at %s: %w", peer, err)
	}
	return nil
}

// ensureSlot makes a slot that keeps the log from now on, unless there is one that still can.
func ensureSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	if _, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost' AND NOT active", name); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot($1::name, true)
		WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::name)`, name)
	if sqlState(err) == "42710" { // somebody else was quicker
		err = nil
	}
	return err
}

// slack is how much log a standby keeps for others that may follow it after a promotion and be behind it, in bytes.
const slack = 256 << 20

// sweepSlots keeps a slot for each peer here. On a standby nobody reads from them, so they are moved on behind its position; on a
// primary those move that are used.
func (a *Agent) sweepSlots(ctx context.Context) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	var faults []error
	for id := range a.cfg.Peers {
		faults = append(faults, ensureSlot(ctx, conn.Conn, regionSlot(id)))
	}
	_, err = conn.Exec(ctx, `SELECT pg_replication_slot_advance(slot_name, pg_last_wal_replay_lsn() - $1::numeric) FROM pg_replication_slots
		WHERE pg_is_in_recovery() AND slot_type = 'physical' AND NOT active AND restart_lsn IS NOT NULL AND pg_last_wal_replay_lsn() - restart_lsn > $1::numeric`, int64(slack))
	return errors.Join(append(faults, err)...)
}
