package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/demo"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication/postgres"
	"github.com/shortline/shortline/storefile"
)

const planetHelp = `Run whole regions on this machine, from the PostgreSQL (15 or newer) and Redis
(7 or newer) that are installed: for each region a Postgres, a Redis Cluster of
three masters, and edge nodes. The first region's Postgres is the primary, the
others are its streaming standbys; a commit waits for one of them (--async does
not). Database agents, gossip and the control plane run as they do anywhere: kill
a region, and another takes over. Two regions get a witness. All of it listens on
loopback, on ports that are free.

It prints every address to stderr, what the parts print with their name before
each line, and "ready URL" to stdout once all regions serve. DIR/planet.json
tells programs what runs where, and is kept true: a part that has ended has null
for its process. Such a part is told, and stays down.

Ctrl-C or SIGTERM ends everything and removes the folder, unless --keep; so does
the end of this process by any other means. As root, the databases run as the
user postgres.`

// planetSettings are the flags of planet.
type planetSettings struct {
	o        planet.Options
	regions  []string
	simulate bool
	rate     float64
}

func newPlanetCommand(a *app) *cobra.Command {
	var s planetSettings
	cmd := &cobra.Command{
		Use: "planet", Short: "run three whole regions on this machine", Long: planetHelp, Args: cobra.NoArgs,
		Example: "  shortline planet\n  shortline planet --wan --simulate\n  shortline planet --dir /tmp/planet --stores stores.csv",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.planet(cmd.Context(), &s) },
	}
	var names []string
	for _, id := range planet.DefaultRegions() {
		names = append(names, string(id))
	}
	f := cmd.Flags()
	f.StringVar(&s.o.Dir, "dir", "", "`folder` for everything; must be empty or not exist (default: a temporary one)")
	f.BoolVar(&s.o.Keep, "keep", false, "leave the folder there at the end")
	f.StringSliceVar(&s.regions, "regions", names, "`names` of the regions; the first takes writes")
	f.IntVar(&s.o.Nodes, "nodes", 2, "nodes a region")
	f.BoolVar(&s.o.WAN, "wan", false, "delay TCP between regions by the round trips there are between the real places")
	f.BoolVar(&s.o.Async, "async", false, "acknowledge writes before another region has them")
	f.StringVar(&s.o.Stores, "stores", "", "import the stores of this `file` (CSV, NDJSON, GeoJSON) instead of the demo stores")
	f.BoolVar(&s.simulate, "simulate", false, "move the queues of the stores with a daily rhythm; overwrites what is reported for them")
	f.Float64Var(&s.rate, "simulate-rate", 200, "simulated updates a second over all stores")
	f.StringVar(&s.o.Program, "program", "", "shortline `binary` that the nodes run (default: this one)")
	return cmd
}

func (s *planetSettings) validate() error {
	s.o.Regions = nil
	for _, name := range s.regions {
		s.o.Regions = append(s.o.Regions, regions.ID(strings.TrimSpace(name)))
	}
	var faults []error
	if err := s.o.Validate(); err != nil {
		faults = append(faults, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if len(s.o.Regions) == 0 {
		faults = append(faults, errors.New("--regions names no region"))
	}
	if s.o.Nodes == 0 {
		faults = append(faults, errors.New("--nodes 0 is not between 1 and 20"))
	}
	if !(s.rate > 0 && s.rate <= 100_000) {
		faults = append(faults, fmt.Errorf("--simulate-rate %v is not between 0 and 100000", s.rate))
	}
	if s.o.Stores != "" {
		if _, known := storefile.FormatOf(s.o.Stores); !known {
			faults = append(faults, fmt.Errorf("--stores %s: its name must end in .csv, .ndjson or .geojson", s.o.Stores))
		}
	}
	return joinFaults(faults)
}

// planet runs a planet until ctx ends.
func (a *app) planet(ctx context.Context, s *planetSettings) (err error) {
	if err := s.validate(); err != nil {
		return &usageError{err: err, command: "shortline planet"}
	}
	if s.simulate && s.o.Stores == "" {
		s.o.NodeArgs = append(s.o.NodeArgs, "--demo-past")
	}
	var stores []shortline.Store
	if s.simulate || s.o.Stores != "" { // a file that cannot be read had better be known now
		if stores, err = a.planetStores(ctx, s.o.Stores); err != nil {
			return err
		}
	}
	if s.o.Program == "" {
		if s.o.Program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w; name it with --program", err)
		}
	}
	s.o.Grants, s.o.Demo, s.o.Output = postgres.Grants(), s.o.Stores == "", a.stderr
	s.o.Color = a.isTerminal(a.stderr) && a.getenv("NO_COLOR") == ""
	p, err := planet.Start(ctx, s.o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it was ready
		}
		return err
	}
	defer func() {
		_, _ = fmt.Fprintln(a.stderr, "\nending the planet …")
		if stopErr := p.Stop(); err == nil {
			err = stopErr
		}
	}()
	printPlanet(a.stderr, p, s.o.Keep)
	if _, err := fmt.Fprintln(a.stdout, "ready "+p.Regions()[0].Nodes[0].API()+"/"); err != nil {
		return fmt.Errorf("print the ready line: %w", err)
	}
	var g errgroup.Group
	if s.simulate {
		g.Go(func() error { return a.simulatePlanet(ctx, p, s, stores) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return nil
	})
	return g.Wait()
}

// planetStores are the stores that a planet has, as far as rows can be read.
func (a *app) planetStores(ctx context.Context, file string) ([]shortline.Store, error) {
	if file == "" {
		return demo.Stores()
	}
	read, err := importOptions{}.readOptions(file)
	if err != nil {
		return nil, err
	}
	in, err := a.openInput(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("read the stores of %s: %w", file, err)
	}
	defer in.Close()
	rows, err := storefile.NewReader(in, read)
	if err != nil {
		return nil, fmt.Errorf("read the stores of %s: %w", file, err)
	}
	var stores []shortline.Store
	for {
		row, err := rows.Next()
		var bad *storefile.RowError
		switch {
		case errors.Is(err, io.EOF):
			return stores, nil
		case errors.As(err, &bad):
			continue
		case err != nil:
			return nil, fmt.Errorf("read the stores of %s: %w", file, err)
		}
		stores = append(stores, row.Store)
	}
}

// simulatePlanet moves the queues through the nodes of all regions, in turn, so that it goes on while any of them lives.
func (a *app) simulatePlanet(ctx context.Context, p *planet.Planet, s *planetSettings, stores []shortline.Store) error {
	var clients []*client.Client
	for _, n := range p.Nodes() {
		c, err := client.New(client.Config{Server: n.API(), Key: p.AdminKey(), Attempts: 1})
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	if len(stores) == 0 {
		return nil
	}
	next := 0
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	simulator, err := demo.New(demo.Config{Rate: s.rate, Log: log}, stores, func(ctx context.Context, updates []shortline.QueueUpdate) error {
		next++
		answer, err := clients[next%len(clients)].SetQueues(ctx, updates, client.WriteOptions{})
		if err != nil {
			return err
		}
		for _, r := range answer.Results {
			if r.Error != nil && r.Error.Status != 404 {
				return r.Error
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	log.Info("simulating queues", "stores", len(stores), "updates_per_second", s.rate)
	return simulator.Run(ctx)
}

// printPlanet tells people what runs where.
func printPlanet(w io.Writer, p *planet.Planet, keep bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t)
	for _, r := range p.Regions() {
		role := "standby"
		if r.ID == p.Primary() {
			role = "primary"
		}
		_, _ = fmt.Fprintf(t, "  %s\tpostgres (%s)\t%s\n", r.ID, role, r.Postgres.Addr())
		_, _ = fmt.Fprintf(t, "\tredis\t%s\n", strings.Join(r.Redis.Addrs(), " "))
		for _, n := range r.Nodes {
			_, _ = fmt.Fprintf(t, "\t%s\t%s\tadmin %s\n", n.Name(), n.API(), n.Admin())
		}
	}
	_ = t.Flush()
	kept := cmp.Or(map[bool]string{true: ", kept"}[keep], ", removed at the end")
	_, _ = fmt.Fprintf(w, "\n  folder     %s%s\n  for tools  %s\n  admin key  %s\n\n", p.Dir(), kept, p.File(), p.AdminKey())
	if len(p.Regions()) > 1 {
		suggestPlanet(w, p)
	}
}

// suggestPlanet tells newcomers what to try, ready to be pasted: ask, move the primary, and kill the region that takes writes.
func suggestPlanet(w io.Writer, p *planet.Planet) {
	first, last := p.Regions()[0], p.Regions()[len(p.Regions())-1]
	kill := "kill -9"
	for _, n := range first.Nodes {
		kill += fmt.Sprintf(" %d", n.PID())
	}
	kill += fmt.Sprintf(" %d", first.Postgres.PID())
	admin := last.Nodes[0].Admin()
	_, _ = fmt.Fprintf(w, `  Try, in another terminal:

    curl '%s/v1/nearby?lat=40.7580&lng=-73.9855&radius=2km'
    %s      # every process of %s: another region takes over in some seconds
    %s region list --admin-server %s

`, last.Nodes[0].API(), kill, first.ID, programName(), admin)
}

// programName is how this program was called, for lines to paste.
func programName() string {
	if strings.ContainsRune(os.Args[0], '/') {
		return shellQuote(os.Args[0])
	}
	return "shortline"
}
