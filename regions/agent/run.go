package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/regions"
)

const (
	keepEvery  = 50 * time.Millisecond
	sweepEvery = 10 * time.Second
	minBackoff = 200 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// Run looks after the server until ctx ends; then it stops the server cleanly, and returns nil. Any other end is an error, and
// leaves the server as it is.
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := a.prepare(ctx)
	if err != nil {
		return fmt.Errorf("database agent of %s: %w", a.cfg.Region, err)
	}
	defer unlock()
	watch, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer a.tasks.Wait()
	defer stopWatching()
	if p := a.adopt(watch); p != nil {
		a.server.Store(p)
		a.cfg.Log.Info("server adopted", "pid", p.pid, "safe", p.safe)
	}
	if err := a.resume(ctx); err != nil {
		return fmt.Errorf("database agent of %s: %w", a.cfg.Region, err)
	}
	a.unlock()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.keep(gctx) })
	g.Go(func() error { return a.work(gctx) })
	g.Go(func() error { return a.tail(gctx) })
	err = g.Wait()
	if lockErr := a.lock(context.WithoutCancel(ctx)); lockErr != nil { // for good: no command comes after the end
		return lockErr
	}
	a.letGo()
	stopErr := a.stop(context.WithoutCancel(ctx), a.cfg.StopTimeout)
	a.cfg.Log.Info("server stopped", "err", stopErr)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, stopErr)
}

// prepare makes the folders, takes the lock that keeps a second agent away, and reads what is remembered.
func (a *Agent) prepare(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(a.cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	for _, dir := range []*string{&a.cfg.Dir, &a.cfg.Data} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(a.cfg.Dir, "agent.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("the folder %s is another agent's, which is running: stop it, or name another folder", a.cfg.Dir)
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := errors.Join(a.tools.folder(a.sockets()), a.tools.reaches(a.cfg.Dir), a.writePassFile()); err != nil {
		return nil, err
	}
	m, err := openMemory(filepath.Join(a.cfg.Dir, "agent.json"), a.cfg.Region, a.cfg.mutant)
	if err != nil {
		return nil, err
	}
	a.memory.Store(m)
	if err := a.fillData(ctx); err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil
}

// fillData does with an empty data folder what Config.Init says, and learns what is in another.
func (a *Agent) fillData(ctx context.Context) error {
	a.recoverSwap()
	entries, err := os.ReadDir(a.cfg.Data)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	m := a.mem().get()
	if len(entries) == 0 {
		switch {
		case m.Rejoin != nil:
			return nil
		case m.System != "":
			return fmt.Errorf("the data folder %s is empty, but the agent remembers a database: bring it back, or remove %s to begin anew", a.cfg.Data, a.mem().path)
		case a.cfg.Init.Primary:
			return a.create(ctx)
		case a.cfg.Init.From != "":
			return a.mem().update(func(r *remembered) {
				r.Role, r.Rejoin = regions.RoleStandby, &rejoin{Primary: a.cfg.Init.From, Copy: true, Saved: true}
			})
		}
		return fmt.Errorf("the data folder %s is empty: say whether it becomes a new primary or a copy of another region's server", a.cfg.Data)
	}
	c, err := a.control(ctx)
	if err != nil && m.Rejoin == nil {
		return err
	}
	if err != nil {
		return nil // a rejoin mends it
	}
	if m.System != "" && m.System != c.system {
		return fmt.Errorf("the data folder %s belongs to the database system %s, and the agent's memory to %s: bring the right folder, or remove %s", a.cfg.Data, c.system, m.System, a.mem().path)
	}
	if m.Role == "" {
		return a.learn(c.system)
	}
	return a.mem().update(func(r *remembered) { r.System = c.system })
}

// learn takes over a server that no agent has looked after yet.
func (a *Agent) learn(system string) error {
	auto, err := os.ReadFile(filepath.Join(a.cfg.Data, autoConf))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	names := ""
	for line := range strings.Lines(string(auto)) {
		if name, value, _ := strings.Cut(line, "="); strings.TrimSpace(name) == syncNames {
			names = strings.ReplaceAll(strings.Trim(strings.TrimSpace(value), "'"), "''", "'")
		}
	}
	sync, ok := parseSync(names)
	if !ok {
		return fmt.Errorf("synchronous_standby_names is %q; this agent knows ANY 1 (…) of regions: set it so, or reset it", names)
	}
	return a.mem().update(func(r *remembered) {
		r.System, r.Role, r.Sync = system, regions.RolePrimary, sync
		if a.isStandby() {
			r.Role = regions.RoleStandby
		}
	})
}

// resume takes up what was going on, before commands are taken.
func (a *Agent) resume(ctx context.Context) error {
	m := a.mem().get()
	p := a.server.Load()
	switch {
	case m.Rejoin != nil:
		return a.beginRejoin(*m.Rejoin)
	case p.running() && p.safe:
		return a.stop(ctx, a.cfg.StopTimeout) // left over; the keeper starts it as it should be
	}
	return nil
}

// keep starts the server again whenever it has ended, and acts on what the control plane says about a primary.
func (a *Agent) keep(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var controlAt time.Time
	for {
		if a.job.Load() == nil && a.mem().get().Rejoin == nil && a.lock(ctx) == nil {
			if a.job.Load() == nil {
				a.revive()
				if time.Since(controlAt) > 200*time.Millisecond {
					controlAt = time.Now()
					a.obey(ctx)
				}
				a.sweep(ctx)
			}
			a.unlock()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// revive starts a server that does not run. The caller holds busy.
func (a *Agent) revive() {
	p := a.server.Load()
	if p.running() {
		if a.backoff > minBackoff && time.Since(p.began) > time.Minute {
			a.backoff = minBackoff
			a.trouble.set(nil)
		}
		return
	}
	if p != nil && a.restartAt.IsZero() {
		err := fmt.Errorf("the server ended by itself: %s", a.lastLog())
		a.cfg.Log.Warn("server ended", "pid", p.pid, "err", err)
		a.trouble.set(err)
		a.backoff = min(max(2*a.backoff, minBackoff), maxBackoff)
		a.restartAt = time.Now().Add(a.backoff - minBackoff)
	}
	if time.Now().Before(a.restartAt) {
		return
	}
	a.restartAt = time.Time{}
	if len(descendants(0, a.cfg.Data)) > 0 && p != nil {
		_ = a.kill(p) // what a killed server has left; a new one cannot start beside it
	}
	if err := a.startFenced(); err != nil {
		a.cfg.Log.Error("server does not start", "err", err)
		a.trouble.set(err)
		a.backoff = min(max(2*a.backoff, minBackoff), maxBackoff)
		a.restartAt = time.Now().Add(a.backoff)
	}
}

// startFenced starts the server; a primary has to be confirmed.
func (a *Agent) startFenced() error {
	fresh := a.fresh
	a.fresh = false
	if a.mem().get().Confirmed && !fresh && a.cfg.mutant != mutantNoFence {
		if err := a.mem().update(func(r *remembered) { r.Confirmed = false }); err != nil {
			return err
		}
	}
	return a.start(false)
}

// obey lifts or sets the fence of a primary after what the control plane says. The caller holds busy.
func (a *Agent) obey(ctx context.Context) {
	m := a.mem().get()
	if !a.server.Load().running() || a.isStandby() {
		return
	}
	var c Control
	ok := a.cfg.Alone
	if a.cfg.Alone {
		c = Control{Primary: a.cfg.Region, Sync: m.Sync}
	} else if a.cfg.Control != nil {
		c, ok = a.cfg.Control()
	}
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var err error
	switch mine := c.Primary == a.cfg.Region; {
	case mine && !m.Confirmed:
		var s regions.DatabaseStatus
		if s, err = a.freshStatus(ctx); err == nil && s.Role == regions.RolePrimary && (a.cfg.Alone || s.Epoch == c.Epoch) && !c.before(m) {
			err = a.confirm(ctx, c.Sync)
			a.cfg.Log.Info("primary confirmed", "epoch", s.Epoch, "err", err)
		}
	case !mine && m.Confirmed && c.Epoch > m.Epoch:
		err = a.fence(ctx)
		a.cfg.Log.Warn("primary of an old epoch fenced", "epoch", m.Epoch, "now", c.Epoch, "primary", c.Primary, "err", err)
	}
	if err != nil && ctx.Err() == nil {
		a.cfg.Log.Debug("obey the control plane", "err", err)
	}
}

// before tells whether a newer epoch than this state's was seen here.
func (c Control) before(m *remembered) bool { return c.Epoch < m.Order.Epoch && c.Epoch != 0 }

// sweep looks after the peers' slots, now and then. The caller holds busy.
func (a *Agent) sweep(ctx context.Context) {
	if time.Since(a.sweptAt) < sweepEvery || !a.server.Load().running() || len(a.cfg.Peers) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if a.probe(ctx) != nil {
		return
	}
	a.sweptAt = time.Now()
	if err := a.sweepSlots(ctx); err != nil {
		a.cfg.Log.Debug("look after the slots", "err", err)
	}
}

// tailMax is how long the server's log may become before it begins anew.
const tailMax = 32 << 20

// tail hands the lines of the server's log on, those of a server that was adopted too, and keeps the file small.
func (a *Agent) tail(ctx context.Context) error {
	var offset int64
	if info, err := os.Stat(a.logPath()); err == nil {
		offset = info.Size()
	}
	lines := &lineWriter{line: a.cfg.Output}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		offset = a.tailOnce(offset, lines)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (a *Agent) tailOnce(offset int64, lines *lineWriter) int64 {
	f, err := os.OpenFile(a.logPath(), os.O_RDWR, 0)
	if err != nil {
		return offset
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.ReadAt(buf, offset)
		_, _ = lines.Write(buf[:n])
		offset += int64(n)
		if err != nil || n == 0 {
			break
		}
	}
	if offset > tailMax && f.Truncate(0) == nil { // the server appends: it goes on at the beginning
		return 0
	}
	return offset
}
