package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shortline/shortline/regions"
)

func (a *Agent) mem() *memory { return a.memory.Load() }

// command carries out what an order asks for, alone, unless a newer order was seen or a rejoin is under way.
func (a *Agent) command(ctx context.Context, name string, o regions.Order, do func(context.Context) error) (s regions.DatabaseStatus, err error) {
	began := time.Now()
	if err = a.lock(ctx); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	defer a.unlock()
	err = a.mem().admit(o, a.cfg.mutant)
	if err == nil && a.mem().get().Rejoin != nil {
		err = regions.ErrRejoining
	}
	if err == nil {
		err = do(ctx)
	}
	a.metrics.command(name, time.Since(began), err)
	if err != nil {
		a.cfg.Log.Warn("command", "command", name, "order", o, "took", time.Since(began), "err", err)
		return s, fmt.Errorf("%s: %w", name, err)
	}
	a.cfg.Log.Info("command", "command", name, "order", o, "took", time.Since(began))
	return a.freshStatus(ctx)
}

// recovering tells whether the server is a standby.
func (a *Agent) recovering(ctx context.Context) (standby bool, err error) {
	err = a.ask(ctx, "SELECT pg_is_in_recovery()", nil, &standby)
	return standby, err
}

// Detach implements regions.Database.
func (a *Agent) Detach(ctx context.Context, o regions.Order) (regions.DatabaseStatus, error) {
	return a.command(ctx, "detach", o, func(ctx context.Context) error {
		standby, err := a.recovering(ctx)
		if err != nil {
			return err
		}
		if !standby {
			return fmt.Errorf("it is a primary and receives from nobody: %w", regions.ErrWrongRole)
		}
		return a.detach(ctx)
	})
}

// detach ends the receiving of a standby; once it returns the position is final, over restarts too.
func (a *Agent) detach(ctx context.Context) error {
	if a.mem().get().Upstream != "" {
		if err := a.mem().update(func(r *remembered) { r.Upstream = "" }); err != nil {
			return err
		}
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	if _, err := a.change(ctx, conn, []setting{{conninfo, ""}}); err != nil {
		return err
	}
	// A session's own view of the setting follows the server's; by the time that it is empty here, the process that starts
	// receivers may still have the old one. It drops a receiver when it reads the new one, so look again once it had the time to.
	seen := 0
	err = poll(ctx, "nothing is received any more", 2*time.Millisecond, func(ctx context.Context) (bool, error) {
		var receiving, set bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver), current_setting('primary_conninfo') <> ''").Scan(&receiving, &set); err != nil {
			return false, err
		}
		if receiving || set {
			seen = 0
			return false, nil
		}
		seen++
		return seen >= 5, nil
	})
	if err == nil {
		a.detached = conn.server
	}
	return err
}

// ReadOnly implements regions.Database. Lifting confirms a primary that was fenced at its start.
func (a *Agent) ReadOnly(ctx context.Context, o regions.Order, on bool) (regions.DatabaseStatus, error) {
	return a.command(ctx, "read-only", o, func(ctx context.Context) error {
		standby, err := a.recovering(ctx)
		if err != nil {
			return err
		}
		if standby {
			return fmt.Errorf("it is a standby: %w", regions.ErrWrongRole)
		}
		if !on {
			return a.confirm(ctx, a.mem().get().Sync)
		}
		if err := a.set(ctx, setting{readOnly, "on"}); err != nil {
			return err
		}
		return a.endSessions(ctx)
	})
}

// confirm lets a primary take writes, which any one of the standbys has to confirm.
func (a *Agent) confirm(ctx context.Context, sync []regions.ID) error {
	if err := a.mem().update(func(r *remembered) { r.Sync = sync }); err != nil {
		return err
	}
	if err := a.names(ctx, sync); err != nil {
		return err
	}
	if err := a.set(ctx, setting{readOnly, ""}); err != nil {
		return err
	}
	return a.mem().update(func(r *remembered) { r.Confirmed = true })
}

// fence keeps a primary from taking writes, and from acknowledging those that it takes all the same.
func (a *Agent) fence(ctx context.Context) error {
	if err := a.mem().update(func(r *remembered) { r.Confirmed = false }); err != nil {
		return err
	}
	if err := a.set(ctx, setting{syncNames, nobody}, setting{readOnly, "on"}); err != nil {
		return err
	}
	return a.endSessions(ctx)
}

// endSessions ends the sessions that began before the fence, which may write. Superusers' stay: the agent has no right to
// end them.
func (a *Agent) endSessions(ctx context.Context) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	// Sessions that begin from now on have the fence. The set is taken once, or clients that come back would keep this busy.
	var old []int32
	const which = `backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename <> $1
		AND usename NOT IN (SELECT rolname FROM pg_roles WHERE rolsuper)`
	if err := conn.QueryRow(ctx, `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE `+which, RoleAgent).Scan(&old); err != nil {
		return err
	}
	return poll(ctx, "older sessions have ended", 2*time.Millisecond, func(ctx context.Context) (bool, error) {
		var left int
		err := conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid = ANY($2) AND `+which, RoleAgent, old).Scan(&left)
		return left == 0, err
	})
}

// SetSync implements regions.Database.
func (a *Agent) SetSync(ctx context.Context, o regions.Order, sync []regions.ID) (regions.DatabaseStatus, error) {
	return a.command(ctx, "set-sync", o, func(ctx context.Context) error {
		for _, id := range sync {
			if a.cfg.Peers[id] == "" {
				return fmt.Errorf("%s is no peer of this region's server", id)
			}
		}
		sync = slices.Clone(sync)
		if err := a.mem().update(func(r *remembered) { r.Sync = sync }); err != nil {
			return err
		}
		return a.names(ctx, sync)
	})
}

// names sets whom commits wait for and returns once every process of the server does so: the priority that each sender of the
// log has given its standby is its own word for having read the setting.
func (a *Agent) names(ctx context.Context, sync []regions.ID) error {
	text := syncSetting(sync)
	if err := a.set(ctx, setting{syncNames, text}); err != nil {
		return err
	}
	names := make([]string, len(sync))
	for i, id := range sync {
		names[i] = string(id)
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	return poll(ctx, "the senders of the log have the names", 2*time.Millisecond, func(ctx context.Context) (bool, error) {
		var ok bool
		err := conn.QueryRow(ctx, `SELECT coalesce(bool_and((sync_priority > 0) = (application_name = ANY($1))), true)
			FROM pg_stat_replication WHERE state = 'streaming'`, names).Scan(&ok)
		return ok, err
	})
}

// Checkpoint implements regions.Database.
func (a *Agent) Checkpoint(ctx context.Context, o regions.Order) error {
	_, err := a.command(ctx, "checkpoint", o, func(ctx context.Context) error { return a.do(ctx, "CHECKPOINT") })
	return err
}

// Promote implements regions.Database.
func (a *Agent) Promote(ctx context.Context, o regions.Order, epoch uint64) (p regions.Promotion, err error) {
	_, err = a.command(ctx, "promote", o, func(ctx context.Context) error {
		if epoch != o.Epoch {
			return fmt.Errorf("an order of epoch %d cannot promote for epoch %d", o.Epoch, epoch)
		}
		p, err = a.promote(ctx, epoch)
		return err
	})
	return p, err
}

func (a *Agent) promote(ctx context.Context, epoch uint64) (p regions.Promotion, err error) {
	standby, err := a.recovering(ctx)
	if err != nil {
		return p, err
	}
	if standby {
		if err := a.promotable(ctx); err != nil {
			return p, err
		}
		// Before anything happens, so that whatever comes of it is never taken for a history that was agreed upon.
		err := a.mem().update(func(r *remembered) {
			r.Role, r.Epoch, r.Upstream, r.Promoted = regions.RolePrimary, epoch, "", &regions.Promotion{Epoch: epoch}
		})
		if err != nil {
			return p, err
		}
		if err := a.leaveRecovery(ctx); err != nil {
			return p, err
		}
	}
	m := a.mem().get()
	forked := m.Promoted != nil && m.Promoted.Epoch == epoch
	if p, err = a.placeOf(ctx, epoch); err != nil {
		return p, err
	}
	if !forked {
		var last regions.LSN // the same server goes on; where its own last epoch forked is still told
		if m.Promoted != nil {
			last = p.Fork
		}
		p.Fork = last
	}
	if a.cfg.BeginEpoch != nil {
		fork := p.Fork
		if !forked {
			fork = 0
		}
		if err := a.cfg.BeginEpoch(ctx, a.localDSN(roleWriter, a.cfg.Database), epoch, fork); err != nil {
			return p, err
		}
	}
	if err := a.names(ctx, m.Sync); err != nil {
		return p, err
	}
	if err := a.set(ctx, setting{readOnly, ""}); err != nil {
		return p, err
	}
	return p, a.mem().update(func(r *remembered) {
		r.Role, r.Epoch, r.Upstream, r.Confirmed = regions.RolePrimary, epoch, "", true
		if forked {
			r.Promoted = &p
		}
	})
}

// promotable refuses a standby that still receives, or whose promotion would stop before the end of its log.
func (a *Agent) promotable(ctx context.Context) error {
	var receiving, attached, paused bool
	var target string
	err := a.ask(ctx, `SELECT EXISTS (SELECT FROM pg_stat_wal_receiver), current_setting('primary_conninfo') <> '', pg_is_wal_replay_paused(),
		concat(current_setting('recovery_target'), current_setting('recovery_target_lsn'), current_setting('recovery_target_name'),
			current_setting('recovery_target_time'), current_setting('recovery_target_xid'))`, nil, &receiving, &attached, &paused, &target)
	switch {
	case err != nil:
		return err
	case receiving || attached:
		return fmt.Errorf("it still follows %s; detach it first: %w", a.mem().get().Upstream, regions.ErrWrongRole)
	case target != "":
		return fmt.Errorf("a recovery target (%s) is set, which would end its history early; reset recovery_target*", target)
	case paused:
		return a.do(ctx, "SELECT pg_wal_replay_resume()")
	}
	return nil
}

// leaveRecovery makes a standby a primary. A fence of a former switchover, which backups copy, is taken off before.
func (a *Agent) leaveRecovery(ctx context.Context) error {
	if err := a.set(ctx, setting{readOnly, ""}); err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.done()
	var asked bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(false)").Scan(&asked); err != nil {
		return err
	}
	if !asked {
		return errors.New("the server cannot be told to leave recovery")
	}
	return poll(ctx, "it has left recovery", 2*time.Millisecond, func(ctx context.Context) (bool, error) {
		var standby bool
		err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby)
		return !standby, err
	})
}

// placeOf tells the timeline of a primary and where it left the one before.
func (a *Agent) placeOf(ctx context.Context, epoch uint64) (regions.Promotion, error) {
	p := regions.Promotion{Epoch: epoch}
	err := a.ask(ctx, "SELECT ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int", nil, &p.Timeline)
	if err != nil {
		return p, err
	}
	h, err := a.ownHistory(p.Timeline)
	if err != nil {
		return p, err
	}
	if len(h) > 0 {
		p.Fork = h[len(h)-1].end
	}
	return p, nil
}
