package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What each connection follows, and how much changes.
const (
	liveStores    = 10_000
	liveFollow    = 5
	liveRate      = 2000 // updates a second
	liveHotRate   = 10   // of the one store that a third of the connections follow
	liveProcesses = 3    // of clients
	liveStalled   = 100
	stalledFollow = 200
)

// liveResults are of the servers, one after the other, and of what only Shortline has to show.
type liveResults struct {
	skipped string
	rows    []liveRow
	stall   *stallResult
	drain   *drainResult
}

type liveRow struct {
	name, skipped string
	rss           float64 // bytes a connection, after the load
	goroutines    float64 // a connection
	steady, hot   liveTurn
}

// liveTurn is one measurement under load.
type liveTurn struct {
	messages int64
	took     time.Duration
	cpu      time.Duration // of the server
	p50, p99 time.Duration
	idle     float64 // part of the machine's CPU time
}

func (t liveTurn) perMillion() float64 { return t.cpu.Seconds() / float64(t.messages) * 1e6 }

type stallResult struct {
	clients       int
	server        float64 // bytes a stalled client
	kernel        float64
	before, while liveTurn
	wrong, of     int // values after they read again
}

type drainResult struct {
	connections, moved, lost int64
	took                     time.Duration
	wrong, of                int
}

func (b *bench) measureLive(ctx context.Context) error {
	if runtime.GOOS != "linux" {
		b.live.skipped = "the memory and CPU time of other processes are read from /proc, which only Linux has"
		return nil
	}
	dir, err := os.MkdirTemp("", "shortline-bench-live-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rivals := filepath.Join(dir, "rivals")
	build := exec.CommandContext(ctx, "go", "build", "-C", "bench/rivals", "-o", rivals, ".")
	rivalsMissing := ""
	if text, err := build.CombinedOutput(); err != nil {
		rivalsMissing = fmt.Sprintf("it cannot be built: %v: %s", err, bytes.TrimSpace(text))
	}
	for _, e := range []liveEngine{{name: "Shortline"}, {name: "gorilla/websocket", rival: "gorilla"}, {name: "centrifuge", rival: "centrifuge"}} {
		if e.rival != "" && rivalsMissing != "" {
			b.live.rows = append(b.live.rows, liveRow{name: e.name, skipped: rivalsMissing})
			continue
		}
		e.binary = rivals
		if err := b.measureLiveServer(ctx, e); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// liveEngine is one server that is measured.
type liveEngine struct{ name, rival, binary string }

func (e liveEngine) start(ctx context.Context) (p *process, addr, control string, err error) {
	var words []string
	if e.rival == "" {
		p, words, err = serveSelf(ctx, "serve-live", "-stores", fmt.Sprint(liveStores))
	} else {
		p, words, err = serveProgram(ctx, e.binary, "-kind", e.rival, "-stores", fmt.Sprint(liveStores))
	}
	if err != nil {
		return nil, "", "", err
	}
	return p, words[0], words[len(words)-1], nil
}

// flags are those of its clients.
func (e liveEngine) flags() []string {
	switch e.rival {
	case "gorilla":
		return []string{"-numbers"}
	case "centrifuge":
		return []string{"-numbers", "-centrifuge"}
	}
	return nil
}

func (b *bench) measureLiveServer(ctx context.Context, e liveEngine) error {
	server, addr, control, err := e.start(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	order := func(query string) error { _, err := get(ctx, "http://"+control+"/control?"+query); return err }
	before, err := rssOf(server.pid)
	if err != nil {
		return err
	}
	var fleet []*fleetProcess
	defer func() {
		for _, f := range fleet {
			f.stop()
		}
	}()
	per := b.liveConnections / liveProcesses
	n := per * liveProcesses
	for range liveProcesses {
		f, err := startFleet(ctx, append(e.flags(), "-addr", addr, "-n", fmt.Sprint(per), "-follow", fmt.Sprint(liveFollow), "-stores", fmt.Sprint(liveStores), "-hot", fmt.Sprint(per/3))...)
		if err != nil {
			return err
		}
		fleet = append(fleet, f)
	}
	b.say("live: %s has %s connections", e.name, thousands(n))
	row := liveRow{name: e.name}
	if err := order(fmt.Sprint("rate=", liveRate)); err != nil {
		return err
	}
	if err := pause(ctx, b.turn/2); err != nil { // warm
		return err
	}
	if row.steady, err = measureTurn(ctx, server.pid, fleet, 2*b.turn); err != nil {
		return err
	}
	after, err := rssOf(server.pid)
	if err != nil {
		return err
	}
	row.rss = float64(after-before) / float64(n)
	text, err := get(ctx, "http://"+control+"/control")
	if err != nil {
		return err
	}
	var told struct{ Goroutines int }
	if err := json.Unmarshal(text, &told); err != nil {
		return err
	}
	row.goroutines = float64(told.Goroutines) / float64(n)
	b.say("live: %s: %.1f KiB and %.2f goroutines a connection, %.1f CPU-s a million messages, p50 %v p99 %v", e.name, row.rss/1024, row.goroutines, row.steady.perMillion(), row.steady.p50, row.steady.p99)
	if err := order(fmt.Sprint("rate=0&hot=", liveHotRate)); err != nil {
		return err
	}
	if row.hot, err = measureTurn(ctx, server.pid, fleet, b.turn); err != nil {
		return err
	}
	if err := order("hot=0"); err != nil {
		return err
	}
	b.say("live: %s: hot store: %.1f CPU-s a million messages, p50 %v p99 %v", e.name, row.hot.perMillion(), row.hot.p50, row.hot.p99)
	b.live.rows = append(b.live.rows, row)
	if e.rival != "" {
		return nil
	}
	if err := b.measureStalled(ctx, server.pid, addr, control, fleet); err != nil {
		return fmt.Errorf("stalled clients: %w", err)
	}
	if err := b.measureDrain(ctx, e, server, control, fleet); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// measureStalled adds clients that read nothing.
func (b *bench) measureStalled(ctx context.Context, pid int, addr, control string, fleet []*fleetProcess) error {
	order := func(query string) error { _, err := get(ctx, "http://"+control+"/control?"+query); return err }
	r := &stallResult{clients: liveStalled}
	if err := order(fmt.Sprint("rate=", liveRate)); err != nil {
		return err
	}
	var err error
	if r.before, err = measureTurn(ctx, pid, fleet, b.turn); err != nil {
		return err
	}
	held, err := memoryOf(ctx, control)
	if err != nil {
		return err
	}
	kernel, err := kernelTCP()
	if err != nil {
		return err
	}
	stalled, err := startFleet(ctx, "-addr", addr, "-n", fmt.Sprint(liveStalled), "-follow", fmt.Sprint(stalledFollow), "-stores", fmt.Sprint(liveStores), "-stall")
	if err != nil {
		return err
	}
	defer stalled.stop()
	if err := pause(ctx, 12*time.Second); err != nil { // until the buffers of all are full
		return err
	}
	if r.while, err = measureTurn(ctx, pid, fleet, b.turn); err != nil {
		return err
	}
	heldAfter, err := memoryOf(ctx, control)
	if err != nil {
		return err
	}
	kernelAfter, err := kernelTCP()
	if err != nil {
		return err
	}
	r.server, r.kernel = float64(heldAfter-held)/liveStalled, float64(kernelAfter-kernel)/liveStalled
	if err := order("rate=0"); err != nil {
		return err
	}
	if _, err := stalled.ask("read"); err != nil {
		return err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	got, err := stalled.ask("values http://" + control + "/control?values=1")
	if err != nil {
		return err
	}
	if got.Lost > 0 {
		return fmt.Errorf("%d of them are lost", got.Lost)
	}
	r.wrong, r.of = got.Wrong, got.Checked
	b.live.stall = r
	b.say("live: %d stalled: %.1f KiB of the server, %.1f KiB of the kernel each; p99 %v, before %v; %d of %d values wrong after reading again", r.clients, r.server/1024, r.kernel/1024, r.while.p99, r.before.p99, r.wrong, r.of)
	return nil
}

// memoryOf is what a live server holds on its heap and stacks, in bytes. A hundred clients are lost in what its resident memory
// changes by from one collection to the next.
func memoryOf(ctx context.Context, control string) (int64, error) {
	text, err := get(ctx, "http://"+control+"/control?memory=1")
	if err != nil {
		return 0, err
	}
	var told struct{ Memory int64 }
	return told.Memory, json.Unmarshal(text, &told)
}

// measureDrain stops the server under load, with another one to go to.
func (b *bench) measureDrain(ctx context.Context, e liveEngine, server *process, control string, fleet []*fleetProcess) error {
	other, addr, otherControl, err := e.start(ctx)
	if err != nil {
		return err
	}
	defer other.stop()
	for _, q := range []string{control + "/control?rate=500&to=http://" + addr, otherControl + "/control?rate=500"} {
		if _, err := get(ctx, "http://"+q); err != nil {
			return err
		}
	}
	r := &drainResult{}
	began := time.Now()
	if err := syscall.Kill(server.pid, syscall.SIGTERM); err != nil {
		return err
	}
	total := int64(b.liveConnections / liveProcesses * liveProcesses)
	for r.moved+r.lost < total && time.Since(began) < time.Minute {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		r.moved, r.lost = 0, 0
		for _, f := range fleet {
			got, err := f.ask("look")
			if err != nil {
				return err
			}
			r.moved, r.lost = r.moved+got.Moved, r.lost+got.Lost
		}
	}
	r.took, r.connections = time.Since(began), total
	if _, err := get(ctx, "http://"+otherControl+"/control?rate=0"); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	for _, f := range fleet {
		got, err := f.ask("values http://" + otherControl + "/control?values=1")
		if err != nil {
			return err
		}
		r.wrong, r.of = r.wrong+got.Wrong, r.of+got.Checked
	}
	b.live.drain = r
	b.say("live: %s of %s moved in %v, %d lost, %d of %s values wrong", thousands(int(r.moved)), thousands(int(total)), r.took.Round(100*time.Millisecond), r.lost, r.wrong, thousands(r.of))
	return nil
}

// fleetProcess is a process of clients.
type fleetProcess struct {
	*process
	in  io.WriteCloser
	out *lines
}

func startFleet(ctx context.Context, args ...string) (*fleetProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f := &fleetProcess{in: w, out: newLines()}
	cmd := exec.Command(self, append([]string{"live-clients"}, args...)...)
	cmd.Stdout, cmd.Stdin = f.out, r
	if f.process, err = start(ctx, syscall.SIGTERM, cmd); err != nil {
		_ = w.Close()
		return nil, err
	}
	f.name = "live-clients"
	err = f.await(ctx, 3*time.Minute, func() error {
		select {
		case line := <-f.out.c:
			if strings.HasPrefix(line, "ready") {
				return nil
			}
		default:
		}
		return errors.New("the connections are not all there")
	})
	if err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *fleetProcess) stop() {
	_ = f.in.Close()
	f.process.stop()
}

// ask sends a line and reads the answer.
func (f *fleetProcess) ask(line string) (r liveReport, err error) {
	if _, err := io.WriteString(f.in, line+"\n"); err != nil {
		return r, err
	}
	select {
	case text := <-f.out.c:
		return r, json.Unmarshal([]byte(text), &r)
	case <-f.exited:
		return r, fmt.Errorf("the clients ended: %w%s", f.err, f.output)
	case <-time.After(30 * time.Second):
		return r, errors.New("the clients do not answer")
	}
}

// measureTurn lets the clients count for a while.
func measureTurn(ctx context.Context, pid int, fleet []*fleetProcess, d time.Duration) (t liveTurn, err error) {
	for _, f := range fleet {
		if _, err := f.ask("begin"); err != nil {
			return t, err
		}
	}
	began := time.Now()
	before, err := cpuOf(pid)
	if err != nil {
		return t, err
	}
	idleBefore, allBefore := idleTime()
	if err := pause(ctx, d); err != nil {
		return t, err
	}
	after, err := cpuOf(pid)
	if err != nil {
		return t, err
	}
	idle, all := idleTime()
	t.cpu, t.took, t.idle = after-before, time.Since(began), float64(idle-idleBefore)/float64(max(1, all-allBefore))
	counts := make([]int64, 20_001)
	for _, f := range fleet {
		r, err := f.ask("end")
		if err != nil {
			return t, err
		}
		if r.Lost > 0 {
			return t, fmt.Errorf("%d connections are lost", r.Lost)
		}
		t.messages += r.Messages
		for i, n := range r.Ages {
			counts[i] += n
		}
	}
	if t.messages == 0 {
		return t, errors.New("no message came")
	}
	quantile := func(q float64) time.Duration {
		left := int64(q * float64(t.messages))
		for i, n := range counts {
			if left -= n; left < 0 {
				return time.Duration(i+1) * ageStep * time.Microsecond
			}
		}
		return time.Second
	}
	t.p50, t.p99 = quantile(0.5), quantile(0.99)
	return t, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// rssOf is the memory of a process that is in RAM, in bytes.
func rssOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return statusField(text, "VmRSS:", 1<<10)
}

// kernelTCP is the memory that the kernel's TCP has in use on the whole machine, in bytes.
func kernelTCP() (int64, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "TCP:" && words[len(words)-2] == "mem" {
			pages, err := strconv.ParseInt(words[len(words)-1], 10, 64)
			return pages * int64(os.Getpagesize()), err
		}
	}
	return 0, errors.New("/proc/net/sockstat does not tell the memory of TCP")
}

func statusField(text []byte, name string, unit int64) (int64, error) {
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		if rest, ok := strings.CutPrefix(scan.Text(), name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n * unit, err
		}
	}
	return 0, fmt.Errorf("there is no %s", name)
}

// idleTime is how long the machine's processors did nothing, and all their time, in ticks.
func idleTime() (idle, all int64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, word := range strings.Fields(line) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || i > 8 {
			continue
		}
		all += n
		if i == 4 {
			idle = n
		}
	}
	return idle, all
}

func (b *bench) writeLive(w io.Writer) {
	if !b.wants("live") {
		return
	}
	p := printer{w}
	p.line("### Live updates")
	p.line("")
	if b.live.skipped != "" {
		p.line("Skipped: %s.", b.live.skipped)
		p.line("")
		return
	}
	n := b.liveConnections / liveProcesses * liveProcesses
	p.line("One server process with %s WebSockets from %d other processes, each following %d of %s stores; %s updates a second, and then one store that a third of them follow, %d times a second. "+
		"A message's age is from the moment of the change to that at which the client has it. Same clients, same messages, one server after the other.", thousands(n), liveProcesses, liveFollow, thousands(liveStores), thousands(liveRate), liveHotRate)
	p.line("")
	p.head("server", "memory a connection, after the load", "goroutines a connection", "messages a second", "server CPU-s a million messages", "p50 / p99", "hot store: messages a second", "CPU-s a million", "p50 / p99", "CPU idle")
	for _, r := range b.live.rows {
		if r.skipped != "" {
			p.row(r.name, "skipped: "+r.skipped, "–", "–", "–", "–", "–", "–", "–", "–")
			continue
		}
		rate := func(t liveTurn) string { return thousands(int(float64(t.messages) / t.took.Seconds())) }
		p.row(r.name, fmt.Sprintf("**%.1f KiB**", r.rss/1024), fmt.Sprintf("%.2f", r.goroutines), rate(r.steady), fmt.Sprintf("**%.1f**", r.steady.perMillion()),
			millis(r.steady.p50)+" / "+millis(r.steady.p99), rate(r.hot), fmt.Sprintf("%.1f", r.hot.perMillion()), millis(r.hot.p50)+" / "+millis(r.hot.p99), fmt.Sprintf("%.0f %%, %.0f %%", 100*r.steady.idle, 100*r.hot.idle))
	}
	p.line("")
	if len(b.live.rows) > 0 && b.liveConnections >= 15_000 {
		r := b.live.rows[0]
		p.line("Targets: ≤ 8 KiB a connection: %s; ≤ 1 goroutine (and a few for all): %s; ≤ 20 CPU-s a million messages: %s; p50 ≤ 5 ms and p99 ≤ 50 ms: %s.",
			met(r.rss <= 8<<10), met(r.goroutines <= 1.01), met(r.steady.perMillion() <= 20), met(r.steady.p50 <= 5*time.Millisecond && r.steady.p99 <= 50*time.Millisecond))
		p.line("")
	}
	if len(b.live.rows) > 0 && b.live.rows[0].skipped == "" {
		hot := b.live.rows[0].hot
		due, sent := float64(b.liveConnections/liveProcesses/3*liveProcesses*liveHotRate), float64(hot.messages)/hot.took.Seconds()
		if sent < 0.95*due {
			p.line("Of the hot store %s messages a second were due. Shortline sent %s, for which it took %.2f of a core: the clients had the rest of the machine, and what was not sent had been replaced by a newer value.",
				thousands(int(due)), thousands(int(sent)), hot.cpu.Seconds()/hot.took.Seconds())
			p.line("")
		}
	}
	if r := b.live.stall; r != nil {
		p.line("%d clients more, each following %d stores, that read nothing: **%.1f KiB** of the server (heap and stacks after a collection) and **%.1f KiB** of the kernel's TCP each (both ends of the connection are on this machine); the age of the others' messages is p50 %s, p99 %s, before %s, %s. "+
			"When they read again, %d of %s values were not the newest.", r.clients, stalledFollow, r.server/1024, r.kernel/1024, millis(r.while.p50), millis(r.while.p99), millis(r.before.p50), millis(r.before.p99), r.wrong, thousands(r.of))
		p.line("")
	}
	if r := b.live.drain; r != nil {
		p.line("The server was stopped under load with another one to go to: **%s of %s connections moved in %.1f s**, %d lost, %d of %s final values wrong.",
			thousands(int(r.moved)), thousands(int(r.connections)), r.took.Seconds(), r.lost, r.wrong, thousands(r.of))
		p.line("")
	}
}
