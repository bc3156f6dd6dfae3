package planet

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
)

// database is the name of Shortline's in every Postgres.
const database = "shortline"

// operatorRole may do everything, for whoever drives a planet from outside: its DSN stands in planet.json.
const operatorRole = "operator"

// Options set up a Planet. Only Program and Grants are required.
type Options struct {
	// Program is the shortline binary; Env is added to the environment of its processes.
	Program string
	Env     []string
	// Grants is the SQL that makes the roles shortline_owner, shortline_writer and shortline_reader.
	Grants string
	// Dir is where everything is kept; it must be empty or not exist ("": a temporary folder). Keep leaves it there.
	Dir  string
	Keep bool
	// Regions are the names of the regions (DefaultRegions); the first takes writes. Nodes is how many each has (2).
	Regions []regions.ID
	Nodes   int
	// WAN puts the real round trips between regions.
	WAN bool
	// Async lets the primary acknowledge commits before a standby has them.
	Async bool
	// Separate gives each region a network of its own, so that Drop can separate them: see Separable. Then there are no proxies
	// between them, so WAN, Cut and Blackhole do nothing, and servers do not listen on loopback.
	Separate bool
	// DatabaseBytes puts each region's database on a file system of its own of so many bytes, in memory, so that it can be full (0: with all
	// else). It needs what Separate needs.
	DatabaseBytes int64
	// NoFsync makes commits quick that need not survive a crash of the machine.
	NoFsync bool
	// Demo loads the demo stores; Stores is a file of stores to import instead ("": none).
	Demo   bool
	Stores string
	// NodeArgs are more flags for each node; NodeSettings go to the nodes' Redis.
	NodeArgs      []string
	RedisSettings map[string]string
	// Output gets every line that a part prints, prefixed, one Write a line (nil: nobody). Color paints the prefixes.
	Output io.Writer
	Color  bool
	// Timeout bounds the start of the planet, and of a node (2 minutes).
	Timeout time.Duration
}

// Validate reports every fault at once.
func (o Options) Validate() error {
	var faults []error
	seen := map[regions.ID]bool{}
	for _, id := range o.Regions {
		if _, err := regions.ParseID(string(id)); err != nil {
			faults = append(faults, err)
		} else if err := checkName(string(id)); err != nil {
			faults = append(faults, err)
		}
		if seen[id] {
			faults = append(faults, fmt.Errorf("region %s is named twice", id))
		}
		seen[id] = true
	}
	if len(o.Regions) > maxRegions {
		faults = append(faults, fmt.Errorf("%d regions are more than %d", len(o.Regions), maxRegions))
	}
	if o.Nodes < 0 || o.Nodes > 20 {
		faults = append(faults, fmt.Errorf("%d nodes a region are not between 1 and 20", o.Nodes))
	}
	if o.Separate && o.WAN {
		faults = append(faults, errors.New("regions with networks of their own are no distance apart"))
	}
	return errors.Join(faults...)
}

func (o Options) withDefaults() Options {
	if len(o.Regions) == 0 {
		o.Regions = DefaultRegions()
	}
	o.Nodes = cmp.Or(o.Nodes, 2)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Minute)
	return o
}

// Planet is several whole regions on this machine. Its methods may be called from several goroutines.
type Planet struct {
	o          Options
	began      time.Time
	dir        string // of everything
	files      string // of the databases: dir, or elsewhere if the account cannot reach that
	made       bool   // dir was not there before
	sockets    string
	key        string
	clusterKey string // guarded by mu, as Program and Env of o
	authority  *pki.Authority
	password   string // of the roles of all databases
	out        io.Writer
	own        *output // for what the planet itself has to say
	guard      *guard
	links      *links
	network    *network // nil: all are on loopback
	regions    []*Region
	witness    *Node // for two regions, else nil
	reserved   []*reservation

	watching context.CancelFunc
	wg       sync.WaitGroup
	stopped  sync.Once
	stopErr  error

	mu      sync.Mutex
	written string               // guarded by mu: what planet.json holds
	primary regions.ID           // guarded by mu: "" before anybody was asked
	seen    map[*server]*process // guarded by mu: the processes that were told about
}

// Region is a region of a Planet.
type Region struct {
	ID       regions.ID
	At       geo.Point
	Nodes    []*Node
	Postgres *Database
	Redis    *RedisCluster
}

// Start starts a planet. It returns when all regions serve, and have the stores that are asked for; if that fails, nothing
// is left.
func Start(ctx context.Context, o Options) (*Planet, error) {
	if err := errors.Join(o.Validate(), Available()); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("not ready after %v", o.Timeout))
	defer cancel()
	p, err := newPlanet(o)
	if err == nil {
		err = p.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the planet: %w", err), p.Stop())
	}
	return p, nil
}

// newPlanet makes folders, ports and the guard, and starts no server. The planet is to be stopped even where it failed.
func newPlanet(o Options) (*Planet, error) {
	p := &Planet{o: o, began: time.Now(), clusterKey: rand.Text() + rand.Text(), password: rand.Text(), seen: map[*server]*process{}}
	p.out = serial(o.Output)
	if o.Color {
		p.out = serial(&painter{w: o.Output})
	}
	p.own = newOutput("planet", p.out)
	at := locate(o.Regions)
	p.links = newLinks(func(a, b regions.ID) time.Duration {
		if !o.WAN {
			return 0
		}
		return roundTrip(place{a, at[a]}, place{b, at[b]}) / 2
	})
	var err error
	if _, p.key, err = shortline.NewKey("planet", []shortline.Scope{shortline.ScopeAdmin}, nil, time.Now()); err != nil {
		return p, err
	}
	if err := p.makeFolders(); err != nil {
		return p, err
	}
	if o.Separate {
		p.links.direct = true
		ids := slices.Clone(o.Regions)
		if len(ids) == 2 {
			ids = append(ids, witnessID)
		}
		if p.network, err = newNetwork(ids); err != nil {
			return p, fmt.Errorf("separate the regions: %w", err)
		}
	}
	for _, id := range o.Regions {
		r := &Region{ID: id, At: at[id]}
		p.regions = append(p.regions, r)
		if r.Postgres, err = p.newDatabase(r); err != nil {
			return p, err
		}
		for i := range o.Nodes {
			n, err := p.newNode(r, i+1)
			if err != nil {
				return p, err
			}
			r.Nodes = append(r.Nodes, n)
		}
	}
	if len(o.Regions) == 2 {
		if p.witness, err = p.newWitness(); err != nil {
			return p, err
		}
	}
	return p, os.WriteFile(p.schemaFile(), []byte(p.schema()), 0o600)
}

// makeFolders makes the folders and sets the guard on them.
func (p *Planet) makeFolders() (err error) {
	if p.o.Dir != "" {
		_, err := os.Stat(p.o.Dir)
		p.made = errors.Is(err, os.ErrNotExist)
	}
	if p.dir, err = makeFolder(p.o.Dir); err != nil {
		return err
	}
	if p.o.Dir == "" {
		p.made = true
		if err := os.Chmod(p.dir, 0o711); err != nil { // the servers' account goes through it
			return err
		}
	}
	if p.sockets, err = makeSocketFolder(""); err != nil {
		return err
	}
	if err := os.Chmod(p.sockets, 0o711); err != nil {
		return err
	}
	account, err := serverAccount()
	if err != nil {
		return err
	}
	p.files = p.dir
	if account.reaches(p.dir) != nil {
		if p.files, err = os.MkdirTemp("", "shortline-planet-"); err != nil {
			return err
		}
		if err := os.Chmod(p.files, 0o711); err != nil {
			return err
		}
		p.say("the user %s may not enter %s: the databases are in %s", account.name, p.dir, p.files)
	}
	if p.guard, err = startGuard(p.leftovers()...); err != nil {
		return err
	}
	p.authority, err = pki.Init(filepath.Join(p.dir, "ca"), deployment, time.Now())
	return err
}

// leftovers are the folders and files that have to be gone at the end.
func (p *Planet) leftovers() []string {
	all := []string{p.sockets, p.File(), p.schemaFile()}
	if p.o.Keep {
		return all
	}
	if p.made {
		return append(all, p.dir, p.files)
	}
	for _, id := range p.o.Regions {
		all = append(all, filepath.Join(p.dir, string(id)))
	}
	if p.files != p.dir {
		all = append(all, p.files)
	}
	return append(all, filepath.Join(p.dir, "ca"))
}

// start starts everything, and brings in the stores.
func (p *Planet) start(ctx context.Context) error {
	if err := p.startParts(ctx); err != nil {
		return err
	}
	watched, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.watching = cancel
	p.wg.Go(func() { p.watch(watched) })
	p.wg.Go(func() { p.follow(watched) })
	if p.o.Stores != "" {
		if err := p.load(ctx, p.regions[0].Nodes[0]); err != nil {
			return err
		}
	}
	return p.update()
}

// startParts starts everything at once, as far as one does not need the other.
func (p *Planet) startParts(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	databases := make([]chan struct{}, len(p.regions)) // closed when the region's database takes SQL
	for i := range databases {
		databases[i] = make(chan struct{})
	}
	g.Go(func() error { return p.startDatabases(ctx, databases) })
	if p.witness != nil {
		g.Go(func() error { return p.witness.start(ctx) })
	}
	for i, r := range p.regions {
		g.Go(func() (err error) {
			r.Redis, err = StartRedis(ctx, RedisConfig{Name: string(r.ID) + "-redis", Dir: filepath.Join(p.dir, string(r.ID), "redis"),
				Keep: p.o.Keep, Settings: p.o.RedisSettings, Output: p.out, Timeout: p.o.Timeout, guard: p.guard, site: p.network.site(r.ID)})
			if err != nil {
				return err
			}
			select {
			case <-databases[i]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			return p.startNodes(ctx, r)
		})
	}
	return g.Wait()
}

func (p *Planet) startNodes(ctx context.Context, r *Region) error {
	var g errgroup.Group
	for _, n := range r.Nodes {
		g.Go(func() error { return n.start(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	p.say("%s serves: %s", r.ID, r.Nodes[0].API())
	return nil
}

// startDatabases starts the first region's database, then the others as copies of it, and closes up[i] when that of the i-th
// region takes SQL.
func (p *Planet) startDatabases(ctx context.Context, up []chan struct{}) error {
	var g errgroup.Group
	for i, r := range p.regions {
		g.Go(func() error {
			if i > 0 {
				select {
				case <-up[0]:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if err := r.Postgres.start(ctx); err != nil {
				return err
			}
			if err := r.Postgres.await(ctx, "shortline_reader"); err != nil {
				return err
			}
			p.say("%s has a database: %s", r.ID, r.Postgres.Addr())
			close(up[i])
			return nil
		})
	}
	return g.Wait()
}

// schema is what a new database needs before the first node comes: roles that can log in, and one for whoever looks in
// from outside.
func (p *Planet) schema() string {
	var sql strings.Builder
	sql.WriteString(p.o.Grants)
	for _, role := range []string{"shortline_owner", "shortline_writer", "shortline_reader"} {
		fmt.Fprintf(&sql, "\nALTER ROLE %s PASSWORD '%s';", role, p.password)
	}
	fmt.Fprintf(&sql, "\nCREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s';", operatorRole, p.password)
	fmt.Fprintf(&sql, "\nALTER ROLE %s IN DATABASE %s SET search_path = shortline, public;", operatorRole, database)
	return sql.String()
}

// load imports the file of stores.
func (p *Planet) load(ctx context.Context, through *Node) error {
	file, err := filepath.Abs(p.o.Stores)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.o.Program, "import", file, "--server", through.API())
	cmd.Dir = p.dir
	cmd.Env = append(append(cleanEnv(), "SHORTLINE_KEY="+p.key), p.o.Env...)
	if err := run(ctx, cmd, newOutput("import", p.out)); err != nil {
		return fmt.Errorf("import %s: %w", p.o.Stores, err)
	}
	return nil
}

// say prints a line of the planet's own.
func (p *Planet) say(format string, args ...any) {
	_, _ = fmt.Fprintf(p.own, "%5.1f s  %s\n", time.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

// Dir is the folder of everything, File the description of the planet in it, which is true while the planet runs.
func (p *Planet) Dir() string { return p.dir }

// File is planet.json.
func (p *Planet) File() string { return filepath.Join(p.dir, "planet.json") }

// AdminKey is an API key that may do everything.
func (p *Planet) AdminKey() string { return p.key }

// Regions are the regions in the order in which they were named.
func (p *Planet) Regions() []*Region { return slices.Clone(p.regions) }

// Witness is the voter without data, nil where there is none.
func (p *Planet) Witness() *Node { return p.witness }

// Region is the one with that name, or nil.
func (p *Planet) Region(id regions.ID) *Region {
	for _, r := range p.regions {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// Nodes are those of all regions.
func (p *Planet) Nodes() []*Node {
	var all []*Node
	for _, r := range p.regions {
		all = append(all, r.Nodes...)
	}
	return all
}

// first is the region that took writes at the start.
func (p *Planet) first() regions.ID { return p.regions[0].ID }

// Primary is the region that takes writes, as the nodes agreed the last time that one was asked.
func (p *Planet) Primary() regions.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.primary, p.first())
}

// RoundTrip is how long a packet would take between two regions and back, whether the planet delays it or not.
func (p *Planet) RoundTrip(a, b regions.ID) time.Duration {
	return roundTrip(place{a, p.Region(a).At}, place{b, p.Region(b).At})
}

// Cut resets everything between two regions, and what they try anew, until Heal; with b "" between a and all others.
func (p *Planet) Cut(a, b regions.ID) { p.links.each(a, b, (*Proxy).Cut) }

// Blackhole lets nothing through between two regions, and tells nobody, until Heal; with b "" between a and all others.
func (p *Planet) Blackhole(a, b regions.ID) { p.links.each(a, b, (*Proxy).Blackhole) }

// Heal ends Cut and Blackhole.
func (p *Planet) Heal(a, b regions.ID) { p.links.each(a, b, (*Proxy).Heal) }

// Drop lets nothing get from one region to another any more, and tells nobody, until Mend; with to "" in both directions between it and all
// others, the witness included. It needs Options.Separate.
func (p *Planet) Drop(from, to regions.ID, what Traffic) error {
	if p.network == nil {
		return errNotSeparated
	}
	if to != "" {
		return p.network.drop(from, to, what, [2]int{p.databasePort(from), p.databasePort(to)})
	}
	for id := range p.network.sites {
		if id == from {
			continue
		}
		if err := errors.Join(p.Drop(from, id, what), p.Drop(id, from, what)); err != nil {
			return err
		}
	}
	return nil
}

// Mend ends all Drops.
func (p *Planet) Mend() error {
	if p.network == nil {
		return errNotSeparated
	}
	return p.network.heal()
}

// databasePort is that of a region's PostgreSQL, or one that nobody has.
func (p *Planet) databasePort(id regions.ID) int {
	if r := p.Region(id); r != nil {
		return r.Postgres.addr.port
	}
	return 1
}

// Stop ends everything, the nodes first, and removes the folder unless it is to be kept. It may be called again.
func (p *Planet) Stop() error {
	p.stopped.Do(func() { p.stopErr = p.stop() })
	return p.stopErr
}

func (p *Planet) stop() error {
	if p.watching != nil {
		p.watching()
		p.wg.Wait()
	}
	var nodes, servers errgroup.Group
	for _, n := range p.Nodes() {
		nodes.Go(n.Stop)
	}
	if p.witness != nil {
		nodes.Go(p.witness.Stop)
	}
	err := nodes.Wait()
	err = errors.Join(err, p.links.close())
	for _, r := range p.regions {
		if r.Redis != nil {
			servers.Go(r.Redis.Stop)
		}
		if r.Postgres != nil {
			servers.Go(func() error {
				if !p.o.Keep { // nobody will read what a clean shutdown would write
					r.Postgres.Kill()
				}
				return r.Postgres.Stop()
			})
		}
	}
	err = errors.Join(err, servers.Wait())
	for _, r := range p.regions {
		if r.Postgres != nil {
			err = errors.Join(err, r.Postgres.unmount())
		}
	}
	for _, r := range p.reserved {
		r.release()
	}
	p.network.close()
	if p.dir != "" {
		for _, path := range p.leftovers() {
			if path != "" {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
	}
	if p.guard != nil {
		p.guard.dismiss()
	}
	return err
}

// ended tells how a process ended.
func ended(p *process) string {
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return "killed by " + status.Signal().String()
		}
	}
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}
