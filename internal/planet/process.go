package planet

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// process is a program that runs. Its goroutine is joined by whoever waits for exited.
type process struct {
	cmd    *exec.Cmd
	pid    int
	exited chan struct{}
	err    error       // may be read once exited is closed
	asked  atomic.Bool // it was told to end by this package
}

// drain is how long a program's descendants may keep its output open after it has ended.
const drain = 2 * time.Second

// spawn starts cmd in a process group of its own, so that Ctrl-C in a terminal does not reach it.
//
// On Linux it gets the signal death when this process dies. The kernel sends that when the thread dies that forked it, so
// the goroutine that forks stays locked to its thread until the program has ended. The program runs in the namespace.
func spawn(cmd *exec.Cmd, death syscall.Signal, space *namespace) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr, death)
	cmd.WaitDelay = drain
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.exited)
		runtime.LockOSThread()
		var err error
		if space == nil {
			defer runtime.UnlockOSThread()
		} else { // the thread ends with the goroutine
			err = space.enter()
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.exited
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// run runs a program to its end; if ctx ends first, it is killed with all its descendants. The error has the last lines
// that it printed.
func run(ctx context.Context, cmd *exec.Cmd, out *output) error {
	out.forget()
	cmd.Stdout, cmd.Stderr = out, out
	p, err := spawn(cmd, syscall.SIGKILL, nil)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("%s: %w%s", cmd.Args[0], context.Cause(ctx), out.last())
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w%s", cmd.Args[0], p.err, out.last())
	}
	return nil
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// freeze stops the program and all its descendants and returns those. It goes by parents, not by process group: each
// backend of PostgreSQL is a session of its own.
func (p *process) freeze() ([]int, error) { return freeze(p.tree) }

// freeze stops what a listing has, until nothing new comes.
func freeze(list func() ([]entry, error)) ([]int, error) {
	var stopped []int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		tree, err := list()
		if err != nil {
			return stopped, err
		}
		stopped = stopped[:0]
		still := false
		for _, e := range tree {
			if e.state == 'Z' || e.state == 'X' {
				continue
			}
			stopped = append(stopped, e.pid)
			if e.state != 'T' { // new, or not there yet
				still = true
				if err := syscall.Kill(e.pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
					return stopped, fmt.Errorf("stop process %d: %w", e.pid, err)
				}
			}
		}
		if !still {
			return stopped, nil
		}
		if time.Now().After(deadline) {
			return stopped, errors.New("its processes do not stop")
		}
	}
}

// thaw lets everything go on that freeze stopped, the descendants first.
func (p *process) thaw() error { return thaw(p.tree) }

func thaw(list func() ([]entry, error)) error {
	tree, err := list()
	for _, e := range slices.Backward(tree) {
		if err := syscall.Kill(e.pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("continue process %d: %w", e.pid, err)
		}
	}
	return err
}

// kill ends the program and all its descendants at once and waits for that.
func (p *process) kill() {
	all, _ := p.freeze() // what it could not stop is killed all the same
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// tree lists the program and its descendants, parents before children; nothing once it has ended.
func (p *process) tree() ([]entry, error) {
	if !p.running() {
		return nil, nil
	}
	return treeOf(p.pid)
}

func treeOf(pid int) ([]entry, error) {
	all, err := processes()
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var tree []entry
	for _, e := range all {
		if e.pid == pid {
			tree = append(tree, e)
		}
	}
	for i := 0; i < len(tree); i++ {
		for _, e := range all {
			if e.parent == tree[i].pid {
				tree = append(tree, e)
			}
		}
	}
	return tree, nil
}

// entry is a line of the system's table of processes.
type entry struct {
	pid, parent int
	state       byte // 'T' stopped, 'Z' or 'X' ended
}

// server is what PostgreSQL and Redis have in common. Its methods may be called from several goroutines.
type server struct {
	name  string
	out   *output
	guard *guard
	death syscall.Signal // ends it at once
	space *namespace     // in which it runs

	mu       sync.Mutex
	proc     *process // guarded by mu: the one started last, or nil
	starting bool     // guarded by mu
}

func (s *server) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// launch starts cmd and tells the guard.
func (s *server) launch(cmd *exec.Cmd) (*process, error) {
	s.mu.Lock()
	busy := s.starting || s.proc != nil && s.proc.running()
	s.starting = s.starting || !busy
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("start %s: it runs already", s.name)
	}
	s.out.forget()
	cmd.Stdout, cmd.Stderr = s.out, s.out
	p, err := spawn(cmd, s.death, s.space)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starting = false
	if s.proc != nil { // it may have ended by itself
		s.guard.remove(s.proc.pid)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	s.proc = p
	s.guard.add(p.pid, s.death)
	return p, nil
}

// end asks the server to stop, kills it if it has not within limit, and waits until it is gone. A paused one is resumed.
func (s *server) end(signal syscall.Signal, limit time.Duration) error {
	p := s.current()
	if p == nil {
		return nil
	}
	p.asked.Store(true)
	if p.running() {
		_ = p.cmd.Process.Signal(signal) // it may be gone by now
		_ = p.thaw()
		select {
		case <-p.exited:
		case <-time.After(limit):
			p.kill()
			s.guard.remove(p.pid)
			return fmt.Errorf("%s had not stopped %v after %v, and was killed%s", s.name, limit, signal, s.out.last())
		}
	}
	s.guard.remove(p.pid)
	return nil
}

// Kill ends the server and all its processes with SIGKILL, as a crash of its machine would, and waits until they are gone.
// It does nothing to a server that does not run.
func (s *server) Kill() {
	if p := s.current(); p != nil {
		p.asked.Store(true)
		p.kill()
		s.guard.remove(p.pid)
	}
}

// Pause freezes all processes of the server with SIGSTOP. The kernel still takes connections for it, which nobody answers.
func (s *server) Pause() error {
	p := s.current()
	if p == nil || !p.running() {
		return fmt.Errorf("pause %s: it does not run", s.name)
	}
	if _, err := p.freeze(); err != nil {
		return fmt.Errorf("pause %s: %w", s.name, err)
	}
	return nil
}

// Resume lets a paused server go on.
func (s *server) Resume() error {
	p := s.current()
	if p == nil || !p.running() {
		return fmt.Errorf("resume %s: it does not run", s.name)
	}
	if err := p.thaw(); err != nil {
		return fmt.Errorf("resume %s: %w", s.name, err)
	}
	return nil
}

// Running tells whether the server's process is there; a paused one counts.
func (s *server) Running() bool {
	p := s.current()
	return p != nil && p.running()
}

// PID is the server's process, or 0 if it does not run.
func (s *server) PID() int {
	if p := s.current(); p != nil && p.running() {
		return p.pid
	}
	return 0
}

// Exited returns a channel that is closed when the server has ended, whatever ended it. After a restart it is another one.
func (s *server) Exited() <-chan struct{} {
	if p := s.current(); p != nil {
		return p.exited
	}
	ended := make(chan struct{})
	close(ended)
	return ended
}
