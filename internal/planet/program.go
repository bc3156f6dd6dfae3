package planet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
)

// program is a shortline process that prints a ready line: a node or a database agent.
type program struct {
	server

	readyMu sync.Mutex
	ready   chan struct{} // guarded by readyMu: closed when the process has printed its ready line; another one for each process
}

// heard looks for the ready line.
func (p *program) heard(line string) {
	if !strings.HasPrefix(line, "ready ") {
		return
	}
	p.readyMu.Lock()
	defer p.readyMu.Unlock()
	select {
	case <-p.ready:
	default:
		close(p.ready)
	}
}

// run starts cmd and returns when it has printed its ready line.
func (p *program) run(ctx context.Context, cmd *exec.Cmd) error {
	p.readyMu.Lock()
	ready := make(chan struct{})
	p.ready = ready
	p.readyMu.Unlock()
	proc, err := p.launch(cmd)
	if err != nil {
		return err
	}
	select {
	case <-ready:
		return nil
	case <-proc.exited:
		return fmt.Errorf("start %s: it ended: %w%s", p.name, cmp.Or(proc.err, errors.New("exit status 0")), p.out.last())
	case <-ctx.Done():
		return fmt.Errorf("wait until %s serves: %w%s", p.name, context.Cause(ctx), p.out.last())
	}
}
