package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that runs, started here or by an agent before this one.
type process struct {
	pid    int
	exited chan struct{}
	err    error // may be read once exited is closed
	safe   bool  // started so that nobody but the agent reaches it
	began  time.Time
}

// spawn starts cmd. Whoever waits for exited joins its goroutine, or tasks if that is set.
//
// With a death signal the program gets that when this process dies, on Linux. The kernel sends it when the thread dies that
// forked it, so the goroutine that forks stays locked to its thread until the program has ended.
func spawn(cmd *exec.Cmd, death syscall.Signal, tasks *sync.WaitGroup) (*process, error) {
	if death != 0 {
		dieWithParent(cmd.SysProcAttr, death)
	}
	cmd.WaitDelay = 2 * time.Second
	p := &process{exited: make(chan struct{}), began: time.Now()}
	started := make(chan error)
	var own sync.WaitGroup
	if tasks == nil {
		tasks = &own
	}
	tasks.Go(func() {
		defer close(p.exited)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	})
	if err := <-started; err != nil {
		<-p.exited
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// lockFile are the lines of postmaster.pid: the process first, the port fourth, the socket's folder fifth.
func lockFile(data string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines, nil
}

// adopt returns the server that an agent before this one has left, or nil.
func (a *Agent) adopt(ctx context.Context) *process {
	lines, err := lockFile(a.cfg.Data)
	if err != nil || len(lines) < 5 {
		return nil
	}
	pid, err := strconv.Atoi(lines[0])
	if err != nil || !serves(pid, a.cfg.Data) {
		return nil
	}
	p := &process{pid: pid, exited: make(chan struct{}), began: time.Now(), safe: len(lines) < 6 || lines[5] == ""}
	a.tasks.Go(func() {
		defer close(p.exited)
		for ctx.Err() == nil && serves(pid, a.cfg.Data) {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return p
}

// stop ends the server, fast within the limit, else at once, and waits until it is gone. One that does not answer, frozen
// or not, is killed without being asked. The caller holds busy.
func (a *Agent) stop(ctx context.Context, limit time.Duration) error {
	p := a.server.Load()
	if !p.running() {
		return nil
	}
	probe, cancel := context.WithTimeout(ctx, 2*time.Second)
	answers := a.probe(probe) == nil
	cancel()
	if answers {
		_ = syscall.Kill(p.pid, syscall.SIGINT)
		select {
		case <-p.exited:
			return nil
		case <-time.After(limit):
		}
		a.cfg.Log.Warn("the server does not stop in time and is stopped at once", "limit", limit)
		_ = syscall.Kill(p.pid, syscall.SIGQUIT)
		select {
		case <-p.exited:
			return nil
		case <-time.After(6 * time.Second):
		}
	}
	return a.kill(p)
}

// kill ends the server and all its processes, stopped ones too.
func (a *Agent) kill(p *process) error {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := descendants(p.pid, a.cfg.Data)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) == 0 && !p.running() {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v of the server do not die", left)
		}
	}
}

// endOrphans ends processes whose server was killed: they serve nobody, and some wait for ever for a client or a standby. Those of a
// server that lives are left alone. It returns what is left.
func (a *Agent) endOrphans() (left []int) {
	if lines, err := lockFile(a.cfg.Data); err == nil && len(lines) > 0 {
		if pid, err := strconv.Atoi(strings.TrimPrefix(lines[0], "-")); err == nil && serves(pid, a.cfg.Data) { // "-": a single user's
			return descendants(0, a.cfg.Data)
		}
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if left = descendants(0, a.cfg.Data); len(left) == 0 || time.Now().After(end) {
			return left
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// start starts the server as its role demands and returns when the process is there; see ready. A primary begins fenced.
// With safe, nobody but the agent reaches it and nothing can be written. The caller holds busy.
func (a *Agent) start(safe bool) error {
	if a.server.Load().running() {
		return errors.New("start the server: it runs already")
	}
	if left := a.endOrphans(); len(left) > 0 {
		return fmt.Errorf("start the server: processes %v of the last one are still there", left)
	}
	if err := a.writeSettings(safe); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	host, port, _ := splitAddr(a.cfg.Listen)
	if safe {
		host = ""
	}
	// What identifies the server is not in a file, so that no backup or rewind brings another one's.
	args := []string{"-D", a.cfg.Data, "-c", "listen_addresses=" + host, "-c", "port=" + port, "-c", "unix_socket_directories=" + a.sockets(),
		"-c", "unix_socket_permissions=0700", "-c", "cluster_name=" + string(a.cfg.Region)}
	if safe {
		args = append(args, "-c", "default_transaction_read_only=on", "-c", "synchronous_standby_names="+nobody, "-c", "max_logical_replication_workers=0", "-c", "autovacuum=off")
	}
	cmd := a.tools.command("postgres", args...)
	log, err := os.OpenFile(a.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	var death syscall.Signal
	if a.cfg.Bound {
		death = syscall.SIGQUIT
	}
	p, err := spawn(cmd, death, &a.tasks)
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	p.safe = safe
	a.server.Store(p)
	a.metrics.starts.Inc()
	a.cfg.Log.Info("server started", "pid", p.pid, "safe", safe)
	return nil
}

// ready waits until the server takes SQL. The error has the last lines of its log.
func (a *Agent) ready(ctx context.Context) error {
	p := a.server.Load()
	err := poll(ctx, "the server takes SQL", 20*time.Millisecond, func(ctx context.Context) (bool, error) {
		if !p.running() {
			return false, fmt.Errorf("it ended: %s", a.lastLog())
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return a.probe(ctx) == nil, nil
	})
	return err
}

func (a *Agent) logPath() string { return filepath.Join(a.cfg.Dir, "postgres.log") }

// lastLog is the end of the server's log, for errors.
func (a *Agent) lastLog() string {
	f, err := os.Open(a.logPath())
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	text := make([]byte, min(info.Size(), 1500))
	n, _ := f.ReadAt(text, info.Size()-int64(len(text)))
	lines := strings.Split(strings.TrimSpace(string(text[:n])), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}
