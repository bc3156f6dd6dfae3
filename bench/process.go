package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a server that the bench started.
type process struct {
	name   string
	pid    int
	cancel context.CancelFunc
	exited chan struct{}
	err    error // may be read once exited is closed
	output *tail
}

// start runs cmd until stop is called or ctx ends: then it gets the signal, and is killed if that does not help within ten
// seconds. On Linux it also gets the signal when this process dies. It is in a process group of its own, so that Ctrl-C
// reaches this process alone, which then stops everything in order.
func start(ctx context.Context, signal syscall.Signal, cmd *exec.Cmd) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{name: cmd.Args[0], cancel: cancel, exited: make(chan struct{}), output: new(tail)}
	attr := cmd.SysProcAttr
	bound := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bound.Dir, bound.Env, bound.Stdin, bound.Stdout, bound.Stderr, bound.SysProcAttr = cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, p.output, attr
	if bound.Stdout == nil {
		bound.Stdout = p.output
	}
	if bound.SysProcAttr == nil {
		bound.SysProcAttr = new(syscall.SysProcAttr)
	}
	bound.SysProcAttr.Setpgid = true
	dieWithParent(bound.SysProcAttr, signal)
	bound.Cancel = func() error { return bound.Process.Signal(signal) }
	bound.WaitDelay = 10 * time.Second
	if err := bound.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.pid = bound.Process.Pid
	go func() { // joined by stop
		p.err = bound.Wait()
		close(p.exited)
	}()
	return p, nil
}

// stop ends the process and waits until it is gone.
func (p *process) stop() {
	p.cancel()
	<-p.exited
}

// await polls until ready returns nil, the process exits, or a time is over.
func (p *process) await(ctx context.Context, limit time.Duration, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended: %w%s", p.name, errors.Join(p.err, err), p.output)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w%s", p.name, err, p.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail keeps the last of what a process printed, for its errors.
type tail struct {
	mu   sync.Mutex
	kept []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - 2000; extra > 0 {
		t.kept = t.kept[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := bytes.TrimSpace(t.kept); len(text) > 0 {
		return "\n" + string(text)
	}
	return ""
}

// lines is a writer that hands over the lines that a process prints.
type lines struct {
	c    chan string
	rest []byte
}

func newLines() *lines { return &lines{c: make(chan string, 16)} }

// Write drops lines that nobody takes.
func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.rest = rest
		select {
		case l.c <- string(line):
		default:
		}
	}
}

// serveSelf starts this program again as a server and returns what stands after "ready" in the line that it prints.
func serveSelf(ctx context.Context, args ...string) (*process, []string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	return serveProgram(ctx, self, args...)
}

// serveProgram is serveSelf for another program.
func serveProgram(ctx context.Context, program string, args ...string) (*process, []string, error) {
	out := newLines()
	cmd := exec.Command(program, args...)
	cmd.Stdout = out
	p, err := start(ctx, syscall.SIGTERM, cmd)
	if err != nil {
		return nil, nil, err
	}
	p.name = filepath.Base(program) + " " + args[0]
	var words []string
	err = p.await(ctx, 10*time.Minute, func() error {
		select {
		case line := <-out.c:
			if rest, ok := strings.CutPrefix(line, "ready "); ok {
				words = strings.Fields(rest)
				return nil
			}
		default:
		}
		return errors.New("no line that says ready")
	})
	if err != nil {
		p.stop()
		return nil, nil, err
	}
	return p, words, nil
}

// ticks is how finely Linux tells CPU time in /proc: USER_HZ is 100 on every architecture that Go has.
const ticks = 100

// cpuOf is the CPU time, user and system, that a process has used with all its threads.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a process (this needs Linux): %w", err)
	}
	return parseStat(string(stat))
}

func parseStat(stat string) (time.Duration, error) {
	// The name stands in parentheses and may hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("too few fields in %q", stat)
	}
	var sum int64
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("CPU time in %q: %w", stat, err)
		}
		sum += n
	}
	return time.Duration(sum) * (time.Second / ticks), nil
}

// firstLine runs a command that says its version.
func firstLine(name string, args ...string) string {
	out, _ := exec.Command(name, args...).CombinedOutput() // wrk exits with 1
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// skipped says why a part was not measured.
type skipped struct{ why string }

func (s *skipped) Error() string { return s.why }

// found looks a program up in PATH and in folders beside it; the error is a *skipped.
func found(name string, globs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, g := range globs {
		if path := newest(g); path != "" {
			return path, nil
		}
	}
	return "", &skipped{why: name + " is not installed"}
}
