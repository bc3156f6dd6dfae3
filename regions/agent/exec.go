package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shortline/shortline/regions"
)

// ExecConfig sets up an Exec. Region, Dir and Command are required.
type ExecConfig struct {
	Region regions.ID
	// Dir is where the orders that were seen are kept.
	Dir string
	// Command is the operator's program with its first arguments; the verb comes after them.
	Command []string
	// Timeout bounds one run (30 s), FollowTimeout one of follow and checkpoint (10 min).
	Timeout, FollowTimeout time.Duration
	// BeginEpoch writes an epoch into the control row of the server, which is a primary. fork is 0 where nothing forked.
	BeginEpoch func(ctx context.Context, epoch uint64, fork regions.LSN) error
	Log        *slog.Logger

	mutant mutant
}

// Exec is a database that somebody else runs: each command is a run of the operator's program (docs/operations/exec-driver.md). It
// implements regions.Database. What the program says is checked against what it said before and against what was asked
// for; a contradiction is an error, and nothing is concluded from it.
type Exec struct {
	cfg    ExecConfig
	busy   chan struct{} // held by the one command or look that is under way
	memory *memory

	mu   sync.Mutex
	last regions.DatabaseStatus // guarded by mu
}

// execFresh is how old the answer to Status may be: each is a run of the program.
const execFresh = 500 * time.Millisecond

// maxExecOutput bounds what a run may print.
const maxExecOutput = 1 << 20

// NewExec makes an Exec and reads what it remembers; it runs nothing.
func NewExec(cfg ExecConfig) (*Exec, error) {
	var faults []error
	if _, err := regions.ParseID(string(cfg.Region)); err != nil {
		faults = append(faults, err)
	}
	if cfg.Dir == "" {
		faults = append(faults, errors.New("the agent's folder is not named"))
	}
	if len(cfg.Command) == 0 {
		faults = append(faults, errors.New("the program that commands the database is not named"))
	} else if _, err := exec.LookPath(cfg.Command[0]); err != nil {
		faults = append(faults, fmt.Errorf("the program that commands the database: %w", err))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	cfg.Timeout, cfg.FollowTimeout = cmp.Or(cfg.Timeout, 30*time.Second), cmp.Or(cfg.FollowTimeout, 10*time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	m, err := openMemory(filepath.Join(cfg.Dir, "agent.json"), cfg.Region, cfg.mutant)
	if err != nil {
		return nil, err
	}
	return &Exec{cfg: cfg, busy: make(chan struct{}, 1), memory: m}, nil
}

// execRequest is what the program reads on its standard input.
type execRequest struct {
	Version int           `json:"version"`
	Verb    string        `json:"verb"`
	Region  regions.ID    `json:"region"`
	Order   regions.Order `json:"order"`
	WithinS float64       `json:"within_s"`
	On      *bool         `json:"on,omitempty"`      // read-only
	Sync    []regions.ID  `json:"sync,omitempty"`    // set-sync
	Epoch   uint64        `json:"epoch,omitempty"`   // promote
	Primary regions.ID    `json:"primary,omitempty"` // follow
	Fork    string        `json:"fork,omitempty"`    // follow; "" allows nothing but a copy
}

// execStatus is what it prints. Positions are as PostgreSQL writes them: 16/B374D848.
type execStatus struct {
	Role      regions.Role          `json:"role"`
	System    string                `json:"system"`
	Epoch     uint64                `json:"epoch"`
	Timeline  uint32                `json:"timeline"`
	Position  string                `json:"position"`
	Upstream  regions.ID            `json:"upstream"`
	Streaming bool                  `json:"streaming"`
	ReadOnly  bool                  `json:"read_only"`
	Sync      []regions.ID          `json:"sync"`
	Standbys  map[regions.ID]string `json:"standbys"`
	Fork      string                `json:"fork"` // promote alone
}

// run runs the program once. One that takes too long is killed with all that it started.
func (e *Exec) run(ctx context.Context, limit time.Duration, in execRequest) (out execStatus, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has not ended after %v", limit))
	defer cancel()
	in.Version, in.Region = 1, e.cfg.Region
	if end, ok := ctx.Deadline(); ok {
		in.WithinS = time.Until(end).Seconds()
	}
	text, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	cmd := exec.Command(e.cfg.Command[0], append(slices.Clone(e.cfg.Command[1:]), in.Verb)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, stderr := &bounded{limit: maxExecOutput}, &bounded{limit: 64 << 10}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), stdout, stderr
	name := filepath.Base(e.cfg.Command[0]) + " " + in.Verb
	p, err := spawn(cmd, syscall.SIGKILL, nil)
	if err != nil {
		return out, fmt.Errorf("%s: %w", name, err)
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.exited
		return out, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	if p.err != nil {
		return out, fmt.Errorf("%s: %w: %s", name, p.err, lastLine(stderr.kept.String()))
	}
	if stdout.over {
		return out, fmt.Errorf("%s: it printed more than %d bytes", name, maxExecOutput)
	}
	dec := json.NewDecoder(&stdout.kept)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		return out, fmt.Errorf("%s: what it printed cannot be read: %w", name, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return out, fmt.Errorf("%s: it printed more than one JSON object", name)
	}
	return out, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	kept  bytes.Buffer // not embedded: its ReadFrom would pass Write by
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.kept.Len(); len(p) > room {
		b.over = true
		_, _ = b.kept.Write(p[:room])
		return len(p), nil
	}
	return b.kept.Write(p)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// mayMove says what may have changed since the status before: a server that was told to follow may have gone back.
type mayMove bool

// believe makes a status of what the program printed, unless that contradicts itself or what it printed before.
func (e *Exec) believe(out execStatus, moved mayMove) (s regions.DatabaseStatus, err error) {
	m := e.memory.get()
	s = regions.DatabaseStatus{Region: e.cfg.Region, Order: m.Order, Role: out.Role, System: out.System, Epoch: out.Epoch, Timeline: out.Timeline,
		Upstream: out.Upstream, Streaming: out.Streaming, ReadOnly: out.ReadOnly, Sync: out.Sync, At: time.Now()}
	if out.Role == regions.RoleDown || out.Role == regions.RoleStarting || out.Role == regions.RoleRejoin {
		return s, nil
	}
	var faults []error
	lie := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if out.Role != regions.RolePrimary && out.Role != regions.RoleStandby {
		lie("the role %q is not primary, standby, starting, rejoin or down", out.Role)
	}
	if s.Position, err = regions.ParseLSN(out.Position); err != nil || s.Position == 0 {
		lie("the position %q is none", out.Position)
	}
	if out.Timeline == 0 {
		lie("the timeline is missing")
	}
	switch {
	case out.System == "":
		lie("the system identifier is missing")
	case m.System != "" && out.System != m.System:
		lie("the server belongs to the database system %s, and before to %s", out.System, m.System)
	}
	if out.Role == regions.RolePrimary && (out.Streaming || out.Upstream != "") {
		lie("a primary cannot stream from %q", out.Upstream)
	}
	for id, text := range out.Standbys {
		at, err := regions.ParseLSN(text)
		switch {
		case err != nil:
			lie("the position of %s: %w", id, err)
		case at > s.Position:
			lie("%s has flushed %s, past the primary's own %s", id, at, s.Position)
		default:
			if s.Standbys == nil {
				s.Standbys = map[regions.ID]regions.LSN{}
			}
			s.Standbys[id] = at
		}
	}
	e.mu.Lock()
	last := e.last
	e.mu.Unlock()
	if !moved && last.System == s.System && last.Position != 0 {
		switch {
		case s.Timeline < last.Timeline:
			lie("the timeline went back from %d to %d", last.Timeline, s.Timeline)
		case s.Timeline == last.Timeline && s.Position < last.Position:
			lie("the position went back from %s to %s", last.Position, s.Position)
		case s.Epoch < last.Epoch:
			lie("the epoch went back from %d to %d", last.Epoch, s.Epoch)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return regions.DatabaseStatus{}, fmt.Errorf("the program that commands the database contradicts itself: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if m.System == "" {
		if err := e.memory.update(func(r *remembered) { r.System = s.System }); err != nil {
			return regions.DatabaseStatus{}, err
		}
	}
	e.mu.Lock()
	e.last = s
	e.mu.Unlock()
	return s, nil
}

// look asks for the status now. The caller holds busy.
func (e *Exec) look(ctx context.Context, moved mayMove) (regions.DatabaseStatus, error) {
	out, err := e.run(ctx, e.cfg.Timeout, execRequest{Verb: "status", Order: e.memory.get().Order})
	if err != nil {
		return regions.DatabaseStatus{}, err
	}
	return e.believe(out, moved)
}

func (e *Exec) lock(ctx context.Context) error {
	select {
	case e.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another run of the program: %w", context.Cause(ctx))
	}
}

// Status implements regions.Database; the answer is at most half a second old.
func (e *Exec) Status(ctx context.Context) (regions.DatabaseStatus, error) {
	if err := e.lock(ctx); err != nil {
		return regions.DatabaseStatus{}, err
	}
	defer func() { <-e.busy }()
	e.mu.Lock()
	last := e.last
	e.mu.Unlock()
	if time.Since(last.At) < execFresh && last.Order == e.memory.get().Order {
		return last, nil
	}
	return e.look(ctx, mayMove(e.memory.get().Role == regions.RoleRejoin))
}

// command runs a verb and looks at the server afterwards; holds says what must be true then.
func (e *Exec) command(ctx context.Context, limit time.Duration, in execRequest, moved mayMove, holds func(regions.DatabaseStatus) error) (s regions.DatabaseStatus, err error) {
	if err := e.lock(ctx); err != nil {
		return s, fmt.Errorf("%s: %w", in.Verb, err)
	}
	defer func() { <-e.busy }()
	if err = e.memory.admit(in.Order, e.cfg.mutant); err == nil {
		_, err = e.run(ctx, limit, in)
	}
	if err == nil {
		s, err = e.look(ctx, moved)
	}
	if err == nil && holds != nil {
		if err = holds(s); err != nil {
			err = fmt.Errorf("the program says that it is done, but %w", err)
		}
	}
	e.cfg.Log.Info("command", "command", in.Verb, "order", in.Order, "err", err)
	if err != nil {
		return regions.DatabaseStatus{}, fmt.Errorf("%s: %w", in.Verb, err)
	}
	return s, nil
}

// Detach implements regions.Database. The position is looked at twice: it must not move any more.
func (e *Exec) Detach(ctx context.Context, o regions.Order) (regions.DatabaseStatus, error) {
	return e.command(ctx, e.cfg.Timeout, execRequest{Verb: "detach", Order: o}, false, func(s regions.DatabaseStatus) error {
		if s.Role != regions.RoleStandby || s.Streaming || s.Upstream != "" {
			return fmt.Errorf("the server is a %s that streams from %q", s.Role, s.Upstream)
		}
		again, err := e.look(ctx, false)
		if err != nil {
			return err
		}
		if again.Position != s.Position || again.Streaming {
			return fmt.Errorf("the position still moves, from %s to %s", s.Position, again.Position)
		}
		return nil
	})
}

// ReadOnly implements regions.Database.
func (e *Exec) ReadOnly(ctx context.Context, o regions.Order, on bool) (regions.DatabaseStatus, error) {
	return e.command(ctx, e.cfg.Timeout, execRequest{Verb: "read-only", Order: o, On: &on}, false, func(s regions.DatabaseStatus) error {
		if s.Role != regions.RolePrimary || s.ReadOnly != on {
			return fmt.Errorf("the server is a %s with read_only %v", s.Role, s.ReadOnly)
		}
		return nil
	})
}

// SetSync implements regions.Database.
func (e *Exec) SetSync(ctx context.Context, o regions.Order, sync []regions.ID) (regions.DatabaseStatus, error) {
	return e.command(ctx, e.cfg.Timeout, execRequest{Verb: "set-sync", Order: o, Sync: sync}, false, func(s regions.DatabaseStatus) error {
		want, got := slices.Sorted(slices.Values(sync)), slices.Sorted(slices.Values(s.Sync))
		if s.Role == regions.RolePrimary && !slices.Equal(want, got) {
			return fmt.Errorf("the server waits for %v", got)
		}
		return nil
	})
}

// Follow implements regions.Database.
func (e *Exec) Follow(ctx context.Context, o regions.Order, primary regions.ID, fork regions.LSN) (regions.DatabaseStatus, error) {
	in := execRequest{Verb: "follow", Order: o, Primary: primary}
	if fork != 0 {
		in.Fork = fork.String()
	}
	return e.command(ctx, e.cfg.FollowTimeout, in, true, func(s regions.DatabaseStatus) error {
		if s.Role == regions.RolePrimary || s.Role == regions.RoleStandby && s.Upstream != primary {
			return fmt.Errorf("the server is a %s of %q", s.Role, s.Upstream)
		}
		role := s.Role
		return e.memory.update(func(r *remembered) { r.Role, r.Upstream, r.Epoch = role, primary, o.Epoch })
	})
}

// Checkpoint implements regions.Database.
func (e *Exec) Checkpoint(ctx context.Context, o regions.Order) error {
	_, err := e.command(ctx, e.cfg.FollowTimeout, execRequest{Verb: "checkpoint", Order: o}, false, nil)
	return err
}

// Promote implements regions.Database. The fork has to fit the position that the standby was seen at.
func (e *Exec) Promote(ctx context.Context, o regions.Order, epoch uint64) (p regions.Promotion, err error) {
	p, err = e.promote(ctx, o, epoch)
	e.cfg.Log.Info("command", "command", "promote", "order", o, "err", err)
	if err != nil {
		return regions.Promotion{}, fmt.Errorf("promote: %w", err)
	}
	return p, nil
}

// forkSlack is how far a fork may lie from the position before: a record that is there in part, and the records of the promotion.
const forkSlack = 16 << 20

func (e *Exec) promote(ctx context.Context, o regions.Order, epoch uint64) (p regions.Promotion, err error) {
	if epoch != o.Epoch {
		return p, fmt.Errorf("an order of epoch %d cannot promote for epoch %d", o.Epoch, epoch)
	}
	if err := e.lock(ctx); err != nil {
		return p, err
	}
	defer func() { <-e.busy }()
	if err := e.memory.admit(o, e.cfg.mutant); err != nil {
		return p, err
	}
	before, err := e.look(ctx, false)
	if err != nil {
		return p, err
	}
	if before.Role == regions.RoleStandby && before.Streaming {
		return p, fmt.Errorf("it still streams from %s; detach it first: %w", before.Upstream, regions.ErrWrongRole)
	}
	if before.Role == regions.RoleStandby { // whoever asks again after a crash has to know that there is a fork
		if err := e.memory.update(func(r *remembered) { r.Promoted = &regions.Promotion{Epoch: epoch} }); err != nil {
			return p, err
		}
	}
	forked := e.memory.get().Promoted != nil && e.memory.get().Promoted.Epoch == epoch
	out, err := e.run(ctx, e.cfg.Timeout, execRequest{Verb: "promote", Order: o, Epoch: epoch})
	if err != nil {
		return p, err
	}
	after, err := e.look(ctx, false)
	if err != nil {
		return p, err
	}
	if after.Role != regions.RolePrimary {
		return p, fmt.Errorf("the program says that it is done, but the server is a %s", after.Role)
	}
	p = regions.Promotion{Epoch: epoch, Timeline: after.Timeline}
	if out.Fork != "" || forked {
		if p.Fork, err = regions.ParseLSN(out.Fork); err != nil {
			return p, fmt.Errorf("the program did not tell the fork: %w", err)
		}
	}
	if before.Role == regions.RoleStandby {
		if after.Timeline <= before.Timeline {
			return p, fmt.Errorf("the program says that it is done, but the timeline is still %d", after.Timeline)
		}
		if p.Fork+forkSlack < before.Position || p.Fork > before.Position+forkSlack {
			return p, fmt.Errorf("the program tells the fork %s, and the standby was at %s", p.Fork, before.Position)
		}
	}
	if e.cfg.BeginEpoch != nil {
		fork := p.Fork
		if !forked {
			fork = 0 // the same server goes on
		}
		if err := e.cfg.BeginEpoch(ctx, epoch, fork); err != nil {
			return p, err
		}
	}
	now, err := e.look(ctx, false)
	if err != nil {
		return p, err
	}
	if now.Role != regions.RolePrimary || now.Epoch != epoch {
		return p, fmt.Errorf("the program says that it is done, but the server is a %s in epoch %d", now.Role, now.Epoch)
	}
	return p, e.memory.update(func(r *remembered) { r.Role, r.Epoch, r.Upstream = regions.RolePrimary, epoch, "" })
}
