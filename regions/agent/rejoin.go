package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shortline/shortline/regions"
)

// job is a rejoin under way. While there is one, it alone touches the server.
type job struct {
	what   rejoin
	cancel chan struct{}
	once   sync.Once
	done   chan struct{}

	mu  sync.Mutex
	now regions.RejoinStatus // guarded by mu
}

// end calls it off and waits until it has ended.
func (j *job) end(ctx context.Context) error {
	j.once.Do(func() { close(j.cancel) })
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end the rejoin that is under way: %w", context.Cause(ctx))
	}
}

func (j *job) progress() *regions.RejoinStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now
	return &now
}

func (j *job) step(step string, done, total int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.now.Step, j.now.Done, j.now.Total = step, done, total
}

func (j *job) saved(file string, lost int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.now.Exported, j.now.Lost = file, lost
}

// beginRejoin keeps what is to be done and hands it to the worker. The caller holds busy, and no job is under way.
func (a *Agent) beginRejoin(what rejoin) error {
	if old := a.mem().get().Rejoin; old != nil {
		// What the one before has done stays done: a folder that is half rewound has nothing more to save.
		what.Rewinding, what.Saved, what.Exported, what.Lost = old.Rewinding, old.Saved, old.Exported, old.Lost
		what.Copy = what.Copy || old.Copy
	}
	err := a.mem().update(func(r *remembered) { r.Role, r.Upstream, r.Confirmed, r.Rejoin = regions.RoleStandby, "", false, &what })
	if err != nil {
		return err
	}
	j := &job{what: what, cancel: make(chan struct{}), done: make(chan struct{})}
	j.step("begin", 0, 0)
	j.saved(what.Exported, what.Lost)
	a.job.Store(j)
	a.jobs <- j // has room: one at a time
	return nil
}

// work carries out rejoins, each until it is done or called off.
func (a *Agent) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case j := <-a.jobs:
			a.rejoin(ctx, j)
		}
	}
}

// rejoin tries until it succeeds, with growing pauses.
func (a *Agent) rejoin(ctx context.Context, j *job) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	a.tasks.Go(func() {
		defer close(watched)
		select {
		case <-j.cancel:
			cancel(errors.New("another command came"))
		case <-ctx.Done():
		}
	})
	began, pause := time.Now(), time.Second
	for {
		err := a.rejoinOnce(ctx, j)
		outcome := "done"
		if err != nil {
			outcome = "failed"
		}
		a.metrics.rejoins.WithLabelValues(outcome).Inc()
		a.trouble.set(err)
		if err == nil {
			a.cfg.Log.Info("rejoined", "primary", j.what.Primary, "epoch", j.what.Epoch, "took", time.Since(began))
			break
		}
		if ctx.Err() != nil {
			break
		}
		a.cfg.Log.Warn("rejoin", "primary", j.what.Primary, "epoch", j.what.Epoch, "again_in", pause, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 30*time.Second)
	}
	cancel(nil)
	<-watched
	a.job.Store(nil)
	close(j.done)
}

// rejoinOnce makes the server a standby. What it has done stays done where it has to begin anew.
func (a *Agent) rejoinOnce(ctx context.Context, j *job) error {
	what := a.mem().get().Rejoin
	if what == nil {
		return nil
	}
	u, err := a.look(ctx, what.Primary)
	if err == nil {
		epoch := what.Epoch
		if epoch == 0 { // the first copy is of whoever is there
			epoch = u.epoch
		}
		err = a.suits(u, what.Primary, epoch)
	}
	if err != nil {
		return err
	}
	way := wayCopy
	if !what.Rewinding && what.Epoch != 0 {
		if way, err = a.examine(ctx, j, what, u); err != nil {
			return err
		}
		if what.Copy {
			way = wayCopy
		}
	} else if what.Rewinding && !what.Copy {
		way = wayRewind
	}
	if err := a.stop(ctx, a.cfg.StopTimeout); err != nil {
		return err
	}
	switch way {
	case wayRewind:
		if err := a.rewind(ctx, j, what.Primary); err != nil {
			if ctx.Err() != nil {
				return err
			}
			a.cfg.Log.Warn("rewind", "err", err, "next", "base backup")
			if err := a.note(func(r *rejoin) { r.Copy = true }); err != nil {
				return err
			}
			return a.copyAnew(ctx, j, what.Primary, u)
		}
	case wayCopy:
		return a.copyAnew(ctx, j, what.Primary, u)
	}
	return a.startAsStandby(ctx, j, what, u)
}

// note changes what is remembered of the rejoin.
func (a *Agent) note(change func(*rejoin)) error {
	return a.mem().update(func(m *remembered) {
		if m.Rejoin != nil {
			r := *m.Rejoin
			change(&r)
			m.Rejoin = &r
		}
	})
}

// examine starts the server so that nobody but the agent reaches it, saves what only it has, and chooses the way.
func (a *Agent) examine(ctx context.Context, j *job, what *rejoin, u upstream) (way, error) {
	j.step("export", 0, 0)
	p := a.server.Load()
	if p.running() && !p.safe && !a.isStandby() {
		if err := a.stop(ctx, a.cfg.StopTimeout); err != nil {
			return 0, err
		}
	}
	if !a.server.Load().running() {
		if left := descendants(0, a.cfg.Data); len(left) > 0 && p != nil {
			if err := a.kill(p); err != nil {
				return 0, err
			}
		}
		if err := a.start(true); err != nil {
			return 0, err
		}
	}
	start, cancel := context.WithTimeout(ctx, 10*time.Minute) // recovery of what a crash left
	err := a.ready(start)
	cancel()
	if err != nil {
		return a.unreadable(err)
	}
	if a.isStandby() {
		if err := a.detach(ctx); err != nil {
			return 0, err
		}
	}
	me, err := a.self(ctx)
	if err != nil {
		return 0, err
	}
	way, fork, why := chooseWay(me, u)
	a.cfg.Log.Info("rejoin", "primary", what.Primary, "way", way.String(), "why", why)
	if fork == 0 {
		fork = what.Fork
	}
	if (way != wayAttach || what.Copy) && !what.Saved && a.cfg.mutant != mutantNoExport {
		if err := a.export(ctx, j, me, fork, u); err != nil {
			return 0, fmt.Errorf("save what only this server has: %w", err)
		}
	}
	if way == wayAttach && me.primary { // no more than the primary has, but a clean end of its log would be
		way = wayRewind
	}
	return way, nil
}

// unreadable decides about a server that cannot be started: what it has is kept aside, for people.
func (a *Agent) unreadable(cause error) (way, error) {
	a.cfg.Log.Error("the server cannot be started to save what only it has; its folder is kept", "err", cause, "kept", a.cfg.Data+".unread")
	err := a.note(func(r *rejoin) { r.Saved, r.Copy, r.Exported = true, true, a.cfg.Data+".unread" })
	return wayCopy, err
}

// rewind takes back what the primary does not have. The server is down.
func (a *Agent) rewind(ctx context.Context, j *job, primary regions.ID) error {
	c, err := a.control(ctx)
	if err != nil {
		return err
	}
	if c.state != "shut down" && c.state != "shut down in recovery" {
		return fmt.Errorf("the data folder is %q: a rewind needs a clean end", c.state)
	}
	if err := a.checkpointAt(ctx, primary); err != nil {
		return err
	}
	j.step("rewind", 0, 0)
	if err := a.note(func(r *rejoin) { r.Rewinding = true }); err != nil {
		return err
	}
	source := a.conninfo(primary) + ` options='-c statement_timeout=0 -c idle_in_transaction_session_timeout=0'`
	cmd := a.tools.command("pg_rewind", a.unsynced([]string{"--target-pgdata=" + a.cfg.Data, "--source-server=" + source, "--no-ensure-shutdown", "--progress"})...)
	_, err = a.tools.run(ctx, cmd, j.follow("rewind"))
	return err
}

// follow takes the progress from what a program prints.
func (j *job) follow(step string) func(string) {
	return func(line string) {
		if m := progressLine.FindStringSubmatch(line); m != nil {
			done, _ := strconv.ParseInt(m[1], 10, 64)
			total, _ := strconv.ParseInt(m[2], 10, 64)
			j.step(step, done<<10, total<<10)
		}
	}
}

// checkpointAt makes a peer's server ready to be rewound from: until its first checkpoint its control file tells of the timeline
// before.
func (a *Agent) checkpointAt(ctx context.Context, peer regions.ID) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	conn, err := dial(ctx, a.conninfo(peer))
	if err == nil {
		defer hangUp(conn)
		_, err = conn.Exec(ctx, "CHECKPOINT")
	}
	if err != nil {
		return fmt.Errorf("checkpoint at %s: %w", peer, err)
	}
	return nil
}

// startAsStandby starts the server, which is down, behind its primary. The files that a rewind or a backup has brought are the
// other server's.
func (a *Agent) startAsStandby(ctx context.Context, j *job, what *rejoin, u upstream) error {
	j.step("start", 0, 0)
	if err := a.makeSlot(ctx, what.Primary); err != nil {
		return err
	}
	if err := a.writeData(standbySignal, ""); err != nil {
		return err
	}
	if err := a.editAuto(map[string]string{readOnly: "off", syncNames: ""}); err != nil {
		return err
	}
	epoch := max(what.Epoch, u.epoch)
	err := a.mem().update(func(r *remembered) {
		r.Role, r.Epoch, r.Upstream, r.System = regions.RoleStandby, epoch, what.Primary, u.system
		if r.Promoted != nil && r.Promoted.Epoch >= epoch {
			r.Promoted = nil
		}
		if what.Copy || what.Rewinding {
			r.Promoted = nil // what is here now is the primary's history
		}
	})
	if err != nil {
		return err
	}
	if err := a.start(false); err != nil {
		return err
	}
	start, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := a.ready(start); err != nil {
		if ctx.Err() == nil && !a.server.Load().running() {
			_ = a.note(func(r *rejoin) { r.Copy, r.Rewinding = true, true })
		}
		return err
	}
	return a.mem().update(func(r *remembered) { r.Rejoin = nil })
}

// copyAnew replaces the data folder by a copy of the primary's. The old one stays until the copy is complete.
func (a *Agent) copyAnew(ctx context.Context, j *job, primary regions.ID, u upstream) error {
	if err := a.stop(ctx, a.cfg.StopTimeout); err != nil {
		return err
	}
	fresh := a.cfg.Data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := a.tools.folder(fresh); err != nil {
		return err
	}
	if err := a.makeSlot(ctx, primary); err != nil {
		return err
	}
	j.step("basebackup", 0, 0)
	source := a.conninfo(primary)
	cmd := a.tools.command("pg_basebackup", a.unsynced([]string{"-D", fresh, "-d", source, "-X", "stream", "-S", regionSlot(a.cfg.Region), "--checkpoint=fast", "--no-password", "--progress", "--no-manifest"})...)
	if _, err := a.tools.run(ctx, cmd, j.follow("basebackup")); err != nil {
		_ = os.RemoveAll(fresh)
		if strings.Contains(err.Error(), syscall.ENOSPC.Error()) || strings.Contains(err.Error(), "No space left on device") {
			dir := filepath.Dir(a.cfg.Data)
			return fmt.Errorf("copy the server of %s: the disk of %s has too little room (%d MiB are free): the copy lies beside the old data, which stays until it is complete; make room, it goes on by itself: %w",
				primary, dir, freeBytes(dir)>>20, err)
		}
		return fmt.Errorf("copy the server of %s: %w", primary, err)
	}
	data := a.cfg.Data
	what := a.mem().get().Rejoin
	old := data + ".old"
	if what.Exported == data+".unread" {
		old = what.Exported
	}
	if err := a.swap(data, fresh, old); err != nil {
		return err
	}
	if err := a.note(func(r *rejoin) { r.Rewinding, r.Copy = false, true }); err != nil {
		return err
	}
	what = a.mem().get().Rejoin
	return a.startAsStandby(ctx, j, what, u)
}

// swap puts the fresh folder in the place of the data folder; recoverSwap ends one that was cut off.
func (a *Agent) swap(data, fresh, old string) error {
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	// A copy is a standby from the moment that it is the data folder.
	if err := writeSynced(filepath.Join(fresh, standbySignal), nil, 0o600); err != nil {
		return err
	}
	if err := a.tools.own(filepath.Join(fresh, standbySignal)); err != nil {
		return err
	}
	if err := writeSynced(fresh+".complete", nil, 0o600); err != nil {
		return err
	}
	if err := os.Rename(data, old); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Rename(fresh, data); err != nil {
		return err
	}
	if err := os.Remove(fresh + ".complete"); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(data)); err != nil {
		return err
	}
	if old == data+".old" {
		return os.RemoveAll(old)
	}
	return nil
}

// recoverSwap brings a data folder to its place whose swap a crash has cut off.
func (a *Agent) recoverSwap() {
	data, fresh := a.cfg.Data, a.cfg.Data+".new"
	if _, err := os.Stat(data); err == nil {
		_ = os.Remove(fresh + ".complete")
		_ = os.RemoveAll(data + ".old")
		return
	}
	if _, err := os.Stat(fresh + ".complete"); err == nil {
		_ = os.Rename(fresh, data)
		_ = os.Remove(fresh + ".complete")
	} else if _, err := os.Stat(data + ".old"); err == nil {
		_ = os.Rename(data+".old", data)
	}
}

// freeBytes is the room that the disk of a folder has, -1 where it cannot be told.
func freeBytes(dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // the types differ between systems
}
