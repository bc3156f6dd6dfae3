package agent

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline/replication/postgres"

	"github.com/shortline/shortline/regions"
)

// alone starts one region with one server.
func alone(t *testing.T, change ...func(*Config)) (*world, regions.ID) {
	t.Helper()
	w := newWorld(t, 2) // the other is never started
	id := w.ids[0]
	c := w.cfg[id]
	for _, f := range change {
		f(&c)
	}
	w.cfg[id] = c
	w.start(id)
	w.await(id, "primary", isPrimary)
	check(t, postgres.Migrate(deadline(t), w.dsn(id, "shortline_owner")))
	w.exec(id, "CREATE TABLE public.t (i bigint PRIMARY KEY, pad text); GRANT ALL ON public.t TO public")
	return w, id
}

// writable tells whether a write of an ordinary session is taken and acknowledged.
func (w *world) writable(id regions.ID, i int) bool {
	return w.tryAs(id, "shortline_writer", "SET statement_timeout = 2000; INSERT INTO public.t VALUES ("+strconv.Itoa(i)+")") == nil
}

// A primary that is started again takes no writes, and acknowledges none that ask for it, until it is confirmed.
func TestStartedPrimaryIsFenced(t *testing.T) {
	t.Parallel()
	w, id := alone(t)
	if !w.writable(id, 1) {
		t.Error("a new primary takes no writes")
	}
	w.stop(id)
	w.start(id)
	s := w.await(id, "started", func(s regions.DatabaseStatus) bool { return s.Role == regions.RolePrimary })
	if !s.Fenced || !s.ReadOnly {
		t.Errorf("status: %+v", s)
	}
	if w.writable(id, 2) {
		t.Error("it takes writes")
	}
	// A session that does not ask the default gets no acknowledgement.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if conn, err := dial(ctx, (&Agent{cfg: w.cfg[id]}).localDSN("shortline_writer", "shortline")); err == nil {
		if _, err = conn.PgConn().Exec(ctx, "BEGIN READ WRITE; INSERT INTO public.t VALUES (3); COMMIT").ReadAll(); err == nil {
			t.Error("a commit past the fence was acknowledged")
		}
		hangUp(conn)
	} else {
		t.Error(err)
	}
	o := w.order(1, 1)
	_, err := w.all[id].SetSync(deadline(t), o, nil)
	check(t, err)
	if w.writable(id, 4) {
		t.Error("it takes writes before it is confirmed")
	}
	s, err = w.all[id].ReadOnly(deadline(t), o, false)
	if check(t, err); s.Fenced || s.ReadOnly || !w.writable(id, 5) {
		t.Errorf("confirmed: %+v", s)
	}

	// So it is after a crash of the server alone, also where a process of it cannot notice that and lingers on.
	for _, pid := range descendants(s.PID, w.cfg[id].Data) {
		check(t, syscall.Kill(pid, syscall.SIGSTOP))
		break
	}
	check(t, syscall.Kill(s.PID, syscall.SIGKILL))
	again := w.await(id, "started again", func(now regions.DatabaseStatus) bool { return now.Role == regions.RolePrimary && now.PID != s.PID })
	if !again.Fenced || w.writable(id, 6) {
		t.Errorf("after a crash: %+v", again)
	}
}

// The mutant of TestStartedPrimaryIsFenced.
func TestMutantIsNotFenced(t *testing.T) {
	t.Parallel()
	w, id := alone(t, func(c *Config) { c.mutant = mutantNoFence })
	w.stop(id)
	w.start(id)
	w.await(id, "started", func(s regions.DatabaseStatus) bool { return s.Role == regions.RolePrimary })
	if !w.writable(id, 2) {
		t.Error("the mutant is fenced")
	}
}

// The control plane's state confirms a primary, or fences one of an older epoch.
func TestControlState(t *testing.T) {
	t.Parallel()
	state := make(chan Control, 1)
	w, id := alone(t, func(c *Config) {
		c.Control = func() (Control, bool) {
			select {
			case s := <-state:
				state <- s
				return s, true
			default:
				return Control{}, false
			}
		}
	})
	w.stop(id)
	w.start(id)
	w.await(id, "fenced", func(s regions.DatabaseStatus) bool { return s.Role == regions.RolePrimary && s.Fenced })
	state <- Control{Epoch: 1, Primary: id}
	w.await(id, "confirmed", isPrimary)
	if !w.writable(id, 1) {
		t.Error("a confirmed primary takes no writes")
	}
	<-state
	state <- Control{Epoch: 2, Primary: w.ids[1]}
	w.await(id, "fenced", func(s regions.DatabaseStatus) bool { return s.Fenced && s.ReadOnly })
	if w.writable(id, 2) {
		t.Error("the primary of an old epoch takes writes")
	}
}

// Orders below the highest that was seen are refused, also after a restart.
func TestOrders(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mutant mutant
		caught bool
	}{{mutantNone, false}, {mutantNoOrder, true}, {mutantForget, true}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "agent.json")
		m, err := openMemory(path, "a", test.mutant)
		check(t, err)
		wrong := false
		expect := func(o regions.Order, ok bool) {
			if err := m.admit(o, test.mutant); (err == nil) != ok || !ok && err != nil && !errors.Is(err, regions.ErrOldOrder) {
				wrong = true
			}
		}
		expect(regions.Order{Epoch: 2, Attempt: 1, Term: 5}, true)
		expect(regions.Order{Epoch: 2, Attempt: 1, Term: 5}, true)
		expect(regions.Order{Epoch: 2, Attempt: 1, Term: 4}, false)
		expect(regions.Order{Epoch: 2, Attempt: 0, Term: 9}, false)
		expect(regions.Order{Epoch: 1, Attempt: 9, Term: 9}, false)
		expect(regions.Order{Epoch: 2, Attempt: 2, Term: 1}, true)
		m, err = openMemory(path, "a", test.mutant)
		check(t, err)
		expect(regions.Order{Epoch: 2, Attempt: 1, Term: 9}, false)
		expect(regions.Order{Epoch: 3, Attempt: 0, Term: 0}, true)
		if wrong != test.caught {
			t.Errorf("mutant %d: caught is %v", test.mutant, wrong)
		}
		if _, err := openMemory(path, "b", test.mutant); err == nil {
			t.Error("the memory of another region's agent was taken")
		}
	}
}

// A frozen server takes connections and answers nothing. The status says so in time; Follow does not wait for it.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.startAll()
	a, b := w.ids[0], w.ids[1]
	p := diverge(w, func(*postgres.Store) {})
	pid := w.await(a, "primary", isPrimary).PID
	for _, id := range append(descendants(pid, w.cfg[a].Dir+"/data"), pid) {
		if err := syscall.Kill(id, syscall.SIGSTOP); !errors.Is(err, syscall.ESRCH) || id == pid { // a worker may have ended by itself
			check(t, err)
		}
	}
	ctx := deadline(t)
	s, err := w.all[a].freshStatus(ctx)
	if check(t, err); s.Role != regions.RoleDown || s.Err == "" {
		t.Errorf("status of a frozen server: %+v", s)
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := w.all[a].Checkpoint(short, w.order(2, 1)); err == nil {
		t.Error("a frozen server made a checkpoint")
	}
	_, err = w.all[a].Follow(ctx, w.order(2, 1), b, p.Fork)
	check(t, err)
	w.await(a, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b })
}

// A server of another database system is refused, and so is one that has not begun the epoch.
func TestUpstreamIsLookedAt(t *testing.T) {
	t.Parallel()
	for _, m := range []mutant{mutantNone, mutantNoSystem} {
		a := &Agent{cfg: Config{mutant: m}}
		a.memory.Store(&memory{})
		a.mem().now.Store(&remembered{System: "1"})
		l := lineage{2: {"10", "now"}}
		for name, u := range map[string]upstream{
			"another system": {system: "2", epoch: 2, lineage: l},
			"a standby":      {system: "1", standby: true},
			"an older epoch": {system: "1", epoch: 1, lineage: l},
			"a newer epoch":  {system: "1", epoch: 3, lineage: l},
		} {
			if err := a.suits(u, "b", 2); (err == nil) != (m == mutantNoSystem) {
				t.Errorf("mutant %d, %s: %v", m, name, err)
			}
		}
		if err := a.suits(upstream{system: "1", epoch: 2, lineage: l}, "b", 2); err != nil {
			t.Error(err)
		}
	}
	w := newWorld(t, 2)
	other := w.cfg[w.ids[1]]
	other.Init = Init{Primary: true, SQL: testSQL()}
	w.cfg[w.ids[1]] = other
	for _, id := range w.ids {
		w.start(id)
	}
	for _, id := range w.ids {
		w.await(id, "primary", isPrimary)
	}
	_, err := w.all[w.ids[1]].Follow(deadline(t), w.order(1, 1), w.ids[0], 1)
	if err == nil || !strings.Contains(err.Error(), "another database system") {
		t.Errorf("following another system: %v", err)
	}
	if s := w.await(w.ids[1], "primary", isPrimary); s.Rejoin != nil {
		t.Errorf("after a refusal: %+v", s)
	}
}

// agentProcess runs the agent of a world in a process of its own: "DIR ADDR PEER", the second region with an address copies from a.
func agentProcess(what string) int {
	f := strings.Fields(what)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := Config{Region: regions.ID(f[0]), Dir: f[1], Listen: f[2], Password: testPassword, BeginEpoch: beginEpoch, Peers: map[regions.ID]string{regions.ID(f[3]): f[4]},
		Settings: map[string]string{"fsync": "off", "shared_buffers": "16MB", "wal_keep_size": "128MB"}, Init: Init{Primary: true, SQL: testSQL()}, Bound: len(f) > 5, Bin: os.Getenv("SHORTLINE_TEST_BIN")}
	a, err := New(cfg)
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// An agent that is killed leaves its server running, and the next one takes it over; a bound server ends with its agent.
func TestKilledAgent(t *testing.T) {
	t.Parallel()
	for _, bound := range []bool{false, true} {
		w, id := alone(t)
		w.stop(id)
		self, err := os.Executable()
		check(t, err)
		cfg := w.cfg[id]
		what := strings.Join([]string{string(id), cfg.Dir, cfg.Listen, string(w.ids[1]), w.addr[w.ids[1]]}, " ")
		if bound {
			what += " bound"
		}
		cmd := exec.Command(self)
		cmd.Env, cmd.Stderr = append(os.Environ(), "SHORTLINE_TEST_AGENT="+what), os.Stderr
		check(t, cmd.Start())
		probe := &Agent{cfg: cfg}
		probe.cfg.Data = filepath.Join(cfg.Dir, "data")
		eventually(t, "the server answers", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return probe.probe(ctx) == nil
		})
		lines, err := lockFile(probe.cfg.Data)
		check(t, err)
		pid, _ := strconv.Atoi(lines[0])
		check(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if bound {
			eventually(t, "the server has ended", func() bool { return len(descendants(0, probe.cfg.Data)) == 0 })
			continue
		}
		w.start(id)
		if s := w.await(id, "primary", func(s regions.DatabaseStatus) bool { return s.Role == regions.RolePrimary }); s.PID != pid {
			t.Errorf("the server is %d, was %d", s.PID, pid)
		}
		second, err := New(cfg)
		check(t, err)
		if err := second.Run(deadline(t)); err == nil || !strings.Contains(err.Error(), "another agent") {
			t.Errorf("a second agent: %v", err)
		}
		w.stop(id)
		if left := descendants(0, probe.cfg.Data); len(left) > 0 {
			t.Errorf("left after a planned stop: %v", left)
		}
	}
}
