package planet

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Roles that every Postgres has.
const (
	// Superuser logs in through the unix socket only, which only this user (and root) can reach.
	Superuser = "postgres"
	// ReplicationRole may replicate, and nothing else.
	ReplicationRole = "replicator"
)

// PostgresConfig sets up a Postgres. The zero value works.
type PostgresConfig struct {
	// Name stands before each line of output and in the list of processes (postgres; a standby's is its own).
	Name string
	// Label stands before each line of output instead of Name.
	Label string
	// Dir is made by StartPostgres, or must be empty, and is removed by Stop ("": a temporary folder).
	Dir string
	// Keep leaves Dir there.
	Keep bool
	// NoFsync makes commits quick that need not survive a crash of the machine.
	NoFsync bool
	// Sockets is where the folder for the unix socket is made ("": with the system's temporary files).
	Sockets string
	// Settings go to postgresql.conf and win over those that the package chooses. ALTER SYSTEM wins over both. Port,
	// addresses and sockets cannot be set.
	Settings map[string]string
	// Roles are made at creation, with LOGIN, the Postgres' password, and nothing else. A standby has its primary's.
	Roles []string
	// Init is called once at creation, connected as the superuser to the database postgres. A standby's is not called.
	Init func(ctx context.Context, conn *pgx.Conn) error
	// Password is that of all roles over TCP ("": a random one). A standby has its primary's.
	Password string
	// Via is the address at which a standby reaches its primary, if not the primary's own: that of a Proxy. The base
	// backup does not go through it.
	Via string
	// Output gets every line that the server prints, prefixed, one Write a line (nil: nobody). It must bear calls from
	// several goroutines if several servers have it.
	Output io.Writer
	// Timeout bounds a start, however long the context has (1 minute).
	Timeout time.Duration

	guard *guard // shared, of the caller's (nil: one of its own), who has told it about Dir
}

// Postgres is a PostgreSQL server on loopback. Its methods may be called from several goroutines.
//
// After StopFast, StopImmediate or Kill it can be started again with Restart; Stop is the end.
type Postgres struct {
	server
	cfg      PostgresConfig
	bin      string // folder of the programs
	account  *account
	dir      string
	sockets  string
	port     int
	password string
	cleaned  sync.Once
}

// StartPostgres makes a database cluster (UTF8, collation C) and starts it. It returns when the server takes SQL.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (_ *Postgres, err error) {
	cfg.Name = cmp.Or(cfg.Name, "postgres")
	p, err := newPostgres(cfg, cmp.Or(cfg.Password, rand.Text()))
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL %s: %w", cfg.Name, err)
	}
	ctx, cancel := p.limit(ctx)
	defer cancel()
	err = p.initdb(ctx)
	if err == nil {
		err = p.first(ctx)
	}
	if err == nil {
		err = p.populate(ctx)
	}
	if err != nil {
		p.abandon()
		return nil, fmt.Errorf("start PostgreSQL %s: %w", cfg.Name, err)
	}
	return p, nil
}

// Standby makes a streaming standby of p under a name that becomes its application_name, with a replication slot
// SlotName(name) that is made on p if it is not there. It returns when the standby takes queries, which may be before it
// streams: see WaitStreaming. Several may be made at once. The slot outlives the standby.
func (p *Postgres) Standby(ctx context.Context, name string, cfg PostgresConfig) (_ *Postgres, err error) {
	cfg.Name = name
	s, err := newPostgres(cfg, p.password)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL standby %s: %w", name, err)
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	err = p.CreateSlot(ctx, name)
	if err == nil {
		err = s.backup(ctx, p)
	}
	if err == nil {
		err = s.first(ctx)
	}
	if err != nil {
		s.abandon()
		return nil, fmt.Errorf("start PostgreSQL standby %s: %w", name, err)
	}
	return s, nil
}

// newPostgres finds the programs and makes the folders and the guard. It starts no server.
func newPostgres(cfg PostgresConfig, password string) (_ *Postgres, err error) {
	if err := checkName(cfg.Name); err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	p := &Postgres{cfg: cfg, password: password}
	p.name, p.death, p.out = cfg.Name, syscall.SIGQUIT, newOutput(cmp.Or(cfg.Label, cfg.Name), cfg.Output)
	if p.bin, err = findPostgres(); err != nil {
		return nil, err
	}
	if p.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if p.dir, err = makeFolder(cfg.Dir); err != nil {
		return nil, err
	}
	if p.sockets, err = makeSocketFolder(cfg.Sockets); err != nil {
		p.removeFolders()
		return nil, err
	}
	folders := []string{p.sockets}
	if !cfg.Keep {
		folders = append(folders, p.dir)
	}
	if err := errors.Join(p.account.own(p.dir), p.account.own(p.sockets), p.account.reaches(p.dir), p.account.reaches(p.sockets)); err != nil {
		p.removeFolders()
		return nil, err
	}
	if p.guard = cfg.guard; p.guard != nil {
		return p, nil
	}
	if p.guard, err = startGuard(folders...); err != nil {
		p.removeFolders()
		return nil, err
	}
	return p, nil
}

// makeSocketFolder makes a folder whose path is short enough for a socket in it: the limit is 103 bytes on some systems.
func makeSocketFolder(base string) (string, error) {
	base = cmp.Or(base, os.TempDir())
	if len(base) > 70 {
		base = "/tmp"
	}
	return os.MkdirTemp(base, "shortline-pg-")
}

func (p *Postgres) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, p.cfg.Timeout, fmt.Errorf("not ready after %v", p.cfg.Timeout))
}

// first starts the server for the first time, on a port that it finds.
func (p *Postgres) first(ctx context.Context) error {
	for try := 1; ; try++ {
		ports, err := freePorts(1)
		if err != nil {
			return err
		}
		p.port = ports[0]
		err = p.start(ctx)
		if err == nil || try == 5 || p.Running() || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
}

// start starts the server on its port and returns when it takes SQL. What identifies it stands on the command line, not in
// a file, so that base backups and rewinds cannot bring another server's.
func (p *Postgres) start(ctx context.Context) error {
	cmd := p.command("postgres", "-D", p.Data(),
		"-c", "port="+strconv.Itoa(p.port),
		"-c", "listen_addresses="+loopback,
		"-c", "unix_socket_directories="+p.sockets,
		"-c", "unix_socket_permissions=0700",
		"-c", "cluster_name="+p.name)
	proc, err := p.launch(cmd)
	if err != nil {
		return err
	}
	if err := await(ctx, proc.exited, func(ctx context.Context) error { return p.accepts(ctx, proc.pid) }); err != nil {
		return fmt.Errorf("wait until %s takes SQL: %w%s", p.name, err, p.out.last())
	}
	return nil
}

// accepts asks over SQL, once the server's lock file says that this is worth while: each attempt before that would leave a
// line in the server's log.
func (p *Postgres) accepts(ctx context.Context, pid int) error {
	lock, err := p.lockFile()
	if err != nil {
		return err
	}
	if len(lock) < 8 || lock[0] != strconv.Itoa(pid) || lock[7] != "ready" && lock[7] != "standby" {
		return errors.New("it is starting")
	}
	return p.Probe(ctx)
}

// lockFile returns the lines of postmaster.pid: the process first, the ids of the shared memory seventh, the state eighth.
func (p *Postgres) lockFile() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(p.Data(), "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines, nil
}

// Probe returns nil if the server answers a query on a fresh connection within a second or the end of ctx.
func (p *Postgres) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return p.Exec(ctx, Superuser, "SELECT 1")
}

// Addr is the server's TCP address. It stays the same over a restart.
func (p *Postgres) Addr() string { return address(p.port) }

// Data is the server's data folder.
func (p *Postgres) Data() string { return filepath.Join(p.dir, "data") }

// Password is that of every role over TCP.
func (p *Postgres) Password() string { return p.password }

// DSN is how to connect as a role to a database: through the unix socket for the superuser, else over TCP.
func (p *Postgres) DSN(role, database string) string {
	if role == Superuser {
		q := url.Values{"host": {p.sockets}, "port": {strconv.Itoa(p.port)}}
		return (&url.URL{Scheme: "postgres", User: url.User(role), Path: "/" + database, RawQuery: q.Encode()}).String()
	}
	return p.DSNVia(p.Addr(), role, database)
}

// DSNVia is DSN over TCP at another address: that of a Proxy.
func (p *Postgres) DSNVia(addr, role, database string) string {
	return (&url.URL{Scheme: "postgres", User: url.UserPassword(role, p.password), Host: addr, Path: "/" + database, RawQuery: "sslmode=disable"}).String()
}

// Conninfo is the primary_conninfo of a standby called name that follows p at its own address, or at via if that is set.
func (p *Postgres) Conninfo(name, via string) (string, error) {
	host, port, err := net.SplitHostPort(cmp.Or(via, p.Addr()))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("host=%s port=%s user=%s password=%s application_name=%s sslmode=disable connect_timeout=2",
		quoteConninfo(host), port, ReplicationRole, quoteConninfo(p.password), name), nil
}

// Connect connects as DSN says. The caller closes the connection.
func (p *Postgres) Connect(ctx context.Context, role, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, p.DSN(role, database))
}

// Exec runs SQL as the superuser on a fresh connection. Without arguments it may be several statements, which are one
// transaction unless they say otherwise.
func (p *Postgres) Exec(ctx context.Context, database, sql string, args ...any) error {
	conn, err := p.Connect(ctx, Superuser, database)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	} else {
		_, err = conn.Exec(ctx, sql, args...)
	}
	return err
}

// hangUp closes a connection whose server may be frozen.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// CreateSlot makes the physical replication slot of a standby, reserved from now on, if it is not there.
func (p *Postgres) CreateSlot(ctx context.Context, name string) error {
	err := p.Exec(ctx, Superuser, `SELECT pg_create_physical_replication_slot($1, true)
		WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, SlotName(name))
	if err != nil {
		return fmt.Errorf("make the replication slot for %s on %s: %w", name, p.name, err)
	}
	return nil
}

// SlotName is the name of a standby's slot: its own, with underscores for dashes, which slots must not have.
func SlotName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// WaitStreaming blocks until standbys of these names stream from p, or ctx ends.
func (p *Postgres) WaitStreaming(ctx context.Context, names ...string) error {
	err := await(ctx, p.Exited(), func(ctx context.Context) error {
		var missing []string
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := p.Connect(ctx, Superuser, Superuser)
		if err != nil {
			return err
		}
		defer hangUp(conn)
		err = conn.QueryRow(ctx, `SELECT coalesce(array_agg(name), '{}') FROM unnest($1::text[]) AS name
			WHERE NOT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = name AND state = 'streaming')`, names).Scan(&missing)
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("%s does not stream", strings.Join(missing, ", "))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the standbys of %s: %w", p.name, err)
	}
	return nil
}

// Restart stops the server if it runs, fast, and starts it on the same port. It returns when the server takes SQL.
func (p *Postgres) Restart(ctx context.Context) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	if err := p.StopFast(); err != nil {
		return err
	}
	return p.start(ctx)
}

// StopFast shuts the server down: transactions are rolled back, standbys get all WAL, a checkpoint is written.
func (p *Postgres) StopFast() error { return p.end(syscall.SIGINT, 30*time.Second) }

// StopImmediate shuts the server down without a checkpoint: its next start recovers.
func (p *Postgres) StopImmediate() error { return p.end(syscall.SIGQUIT, 15*time.Second) }

// Kill ends the server and all its processes with SIGKILL, as a crash of its machine would, and waits until they are gone.
// It does nothing to a server that does not run.
func (p *Postgres) Kill() {
	ran := p.Running()
	p.server.Kill()
	if !ran {
		return
	}
	// System V shared memory outlives its processes; there is little of it, but the number of segments is limited.
	if lock, err := p.lockFile(); err == nil && len(lock) > 6 {
		if ids := strings.Fields(lock[6]); len(ids) == 2 {
			_ = exec.Command("ipcrm", "-m", ids[1]).Run()
		}
	}
}

// Stop shuts the server down fast and removes its folders, Dir only without Keep. Nothing can be done with it afterwards.
// It may be called again.
func (p *Postgres) Stop() error {
	err := p.StopFast()
	return errors.Join(err, p.cleanUp())
}

// abandon is Stop for a server that has not come up.
func (p *Postgres) abandon() {
	p.Kill()
	_ = p.cleanUp()
}

func (p *Postgres) cleanUp() error {
	var err error
	p.cleaned.Do(func() {
		err = p.removeFolders()
		if p.cfg.guard == nil {
			p.guard.dismiss()
		}
	})
	return err
}

func (p *Postgres) removeFolders() error {
	var err error
	if !p.cfg.Keep {
		err = os.RemoveAll(p.dir)
	}
	if p.sockets != "" {
		err = errors.Join(err, os.RemoveAll(p.sockets))
	}
	return err
}

// command is one of PostgreSQL's programs, run as the right user and out of reach of this process' PG* variables.
func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + p.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + p.dir}
	cmd.SysProcAttr = p.account.attr()
	return cmd
}
