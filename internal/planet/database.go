package planet

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline/regions"
)

// Database is a region's PostgreSQL with the agent that looks after it, `shortline db`. What is done to it as a server
// (Kill, Pause, Stop, Start) is done to both; KillServer and PauseServer do it to PostgreSQL alone. Its methods may be called from several
// goroutines.
type Database struct {
	program // the agent; PostgreSQL is a descendant
	planet  *Planet
	region  *Region
	dir     string
	addr    *reservation
	agent   *reservation
	metrics *reservation
	mounted bool // dir is a file system
}

// databaseStop is how long an agent may take to stop its server before both are killed.
const databaseStop = 40 * time.Second

func (p *Planet) newDatabase(r *Region) (*Database, error) {
	d := &Database{planet: p, region: r, dir: filepath.Join(p.files, string(r.ID), "db")}
	d.name, d.guard, d.death = string(r.ID)+"-db", p.guard, syscall.SIGKILL
	d.out = newOutput(d.name, p.out)
	d.out.each = d.heard
	if err := os.MkdirAll(filepath.Dir(d.dir), 0o755); err != nil {
		return nil, err
	}
	site := p.network.site(r.ID)
	d.space = site.space
	ports, err := reserve(site, 3)
	if err != nil {
		return nil, err
	}
	p.reserved = append(p.reserved, ports...)
	d.addr, d.agent, d.metrics = ports[0], ports[1], ports[2]
	return d, d.mount(p.o.DatabaseBytes)
}

// mount makes the folder a file system of so many bytes, unless that is 0.
func (d *Database) mount(bytes int64) error {
	if bytes == 0 {
		return nil
	}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return err
	}
	d.guard.mounted(d.dir)
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=755", bytes), "tmpfs", d.dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount a file system on %s: %w: %s", d.dir, err, strings.TrimSpace(string(out)))
	}
	d.mounted = true
	return nil
}

func (d *Database) unmount() error {
	if !d.mounted {
		return nil
	}
	d.mounted = false
	if out, err := exec.Command("umount", "-l", d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount %s: %w: %s", d.dir, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// fillerFile takes the room of a database's file system.
const fillerFile = "filler"

// Fill leaves no room on the database's file system, which takes Options.DatabaseBytes, until Clear.
func (d *Database) Fill() error {
	if !d.mounted {
		return errors.New("the database has no file system of its own: see Options.DatabaseBytes")
	}
	f, err := os.Create(filepath.Join(d.dir, fillerFile))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 1<<20); len(block) > 0; block = block[:len(block)/2] { // to the last byte
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}

// Clear ends Fill.
func (d *Database) Clear() error { return os.Remove(filepath.Join(d.dir, fillerFile)) }

// Lost are the files in which the agent has saved what only this server had.
func (d *Database) Lost() ([]string, error) { return filepath.Glob(filepath.Join(d.dir, "lost", "*")) }

func (d *Database) heard(line string) (show bool) {
	d.program.heard(line)
	return line != ""
}

// Start starts an agent that does not run, and returns when its server answers.
func (d *Database) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.planet.o.Timeout, fmt.Errorf("not ready after %v", d.planet.o.Timeout))
	defer cancel()
	return d.start(ctx)
}

func (d *Database) start(ctx context.Context) error {
	args, err := d.planet.databaseArgs(d)
	if err != nil {
		return err
	}
	cmd := d.planet.command(args, "SHORTLINE_DB_PASSWORD="+d.planet.password)
	cmd.Dir = filepath.Dir(d.dir)
	return d.run(ctx, cmd)
}

// databaseArgs is the one place that knows the flags of `shortline db`.
func (p *Planet) databaseArgs(d *Database) ([]string, error) {
	args := []string{"db", "--region", string(d.region.ID), "--db-dir", d.dir, "--db-bound",
		"--postgres-listen", d.addr.addr(), "--agent-listen", d.agent.addr(), "--agent-metrics-listen", d.metrics.addr(), "--db-init-sql", p.schemaFile()}
	identity, err := p.identity(d.region.ID, d.name)
	if err != nil {
		return nil, err
	}
	args = append(args, identity...)
	if d.region.ID == p.first() {
		args = append(args, "--db-init")
	} else {
		args = append(args, "--db-init-from", string(p.first()))
	}
	if len(p.regions) == 1 {
		args = append(args, "--db-alone")
	}
	for _, other := range p.regions {
		if other == d.region {
			continue
		}
		addr, err := p.links.via(d.region.ID, other.ID, other.Postgres.addr.addr())
		if err != nil {
			return nil, err
		}
		args = append(args, "--db-peer", string(other.ID)+"="+addr)
	}
	if p.o.NoFsync {
		args = append(args, "--db-setting", "fsync=off")
	}
	return args, nil
}

// Restart stops the agent and its server if they run, and starts them again.
func (d *Database) Restart(ctx context.Context) error {
	if err := d.Stop(); err != nil {
		return err
	}
	return d.Start(ctx)
}

// Stop ends the agent, and with it the server, as an operator does. It can be started again.
func (d *Database) Stop() error { return d.end(syscall.SIGTERM, databaseStop) }

// Kill ends the agent and PostgreSQL with SIGKILL, as a crash of their machine would, and waits until they are gone.
func (d *Database) Kill() {
	pid := d.ServerPID()
	d.program.Kill()
	// PostgreSQL is not this process's child: whoever inherits it takes note of its end a moment later.
	for deadline := time.Now().Add(5 * time.Second); pid != 0 && syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// Addr is the server's TCP address, Agent that of the agent. Both stay the same over a restart.
func (d *Database) Addr() string { return d.addr.addr() }

// Agent is the address at which the agent takes commands.
func (d *Database) Agent() string { return d.agent.addr() }

// Admin is the base URL at which the agent tells its metrics and whether it is ready.
func (d *Database) Admin() string { return "http://" + d.metrics.addr() }

// Data is the server's data folder.
func (d *Database) Data() string { return filepath.Join(d.dir, "data") }

// DSN is how to connect over TCP as one of the roles of Shortline, or as the operator, who may do everything.
func (d *Database) DSN(role, database string) string { return d.DSNVia(d.Addr(), role, database) }

// DSNVia is DSN at another address: that of a Proxy.
func (d *Database) DSNVia(addr, role, database string) string {
	return (&url.URL{Scheme: "postgres", User: url.UserPassword(role, d.planet.password), Host: addr, Path: "/" + database, RawQuery: "sslmode=disable"}).String()
}

func (d *Database) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, d.DSN(operatorRole, database))
}

// Rows returns what a query as the operator gives, as text; NULL is "".
func (d *Database) Rows(ctx context.Context, database, sql string) ([][]string, error) {
	conn, err := d.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	return textRows(ctx, conn, sql)
}

// Hold begins a transaction as the operator, runs SQL in it and leaves it open until release is called, which rolls it back. It ends
// with ctx, too.
func (d *Database) Hold(ctx context.Context, database, sql string) (release func(), err error) {
	conn, err := d.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	return hold(ctx, conn, sql)
}

// ServerPID is PostgreSQL's own process, or 0 if it does not run. The agent starts it again after a crash, as another process.
func (d *Database) ServerPID() int {
	text, err := os.ReadFile(filepath.Join(d.Data(), "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 0 || syscall.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// KillServer ends PostgreSQL alone with SIGKILL; the agent starts it again.
func (d *Database) KillServer() error { return d.signalServer(syscall.SIGKILL) }

// PauseServer freezes PostgreSQL's postmaster alone: it still takes connections, and nobody answers new ones. ResumeServer lets it go on.
func (d *Database) PauseServer() error { return d.signalServer(syscall.SIGSTOP) }

// ResumeServer ends PauseServer.
func (d *Database) ResumeServer() error { return d.signalServer(syscall.SIGCONT) }

// FreezeServer stops all of PostgreSQL's processes, and not the agent; ThawServer lets them go on.
func (d *Database) FreezeServer() error {
	_, err := freeze(d.serverTree)
	return err
}

// ThawServer ends FreezeServer.
func (d *Database) ThawServer() error { return thaw(d.serverTree) }

func (d *Database) serverTree() ([]entry, error) {
	pid := d.ServerPID()
	if pid == 0 {
		return nil, fmt.Errorf("the server of %s does not run", d.region.ID)
	}
	return treeOf(pid)
}

func (d *Database) signalServer(s syscall.Signal) error {
	pid := d.ServerPID()
	if pid == 0 {
		return fmt.Errorf("%v to the server of %s: it does not run", s, d.region.ID)
	}
	return syscall.Kill(pid, s)
}

// await waits until the region's database takes SQL from the role.
func (d *Database) await(ctx context.Context, role string) error {
	return await(ctx, d.Exited(), func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, d.DSN(role, database))
		if err != nil {
			return err
		}
		hangUp(conn)
		return nil
	})
}

// schemaFile is where the SQL of a new database stands.
func (p *Planet) schemaFile() string { return filepath.Join(p.dir, "roles.sql") }

// newWitness makes a voter without data, for two regions.
func (p *Planet) newWitness() (*Node, error) {
	n := &Node{planet: p, region: &Region{ID: witnessID}, number: 1}
	n.name, n.guard, n.death = string(witnessID), p.guard, syscall.SIGKILL
	n.out = newOutput(n.name, p.out)
	n.out.each = n.heard
	n.dir = filepath.Join(p.dir, string(witnessID))
	site := p.network.site(witnessID)
	n.space = site.space
	ports, err := reserve(site, 2)
	if err != nil {
		return nil, err
	}
	p.reserved = append(p.reserved, ports...)
	n.control, n.admin = ports[0], ports[1]
	return n, os.Mkdir(n.dir, 0o700)
}

// witnessID is the name of the region that has a vote and nothing else.
const witnessID regions.ID = "witness"
