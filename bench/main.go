// Command bench measures Shortline beside what it could be replaced by, on one machine, in one run: the index against
// brute force, Redis and PostGIS on the same stores and queries, and the HTTP node against a bare handler that knows its
// answer beforehand. It prints tables in markdown; -o puts them into docs/performance.md.
//
// It promises that everything it starts and every folder it makes is gone when it ends, that rivals run in turns within
// seconds of each other, that what can be skipped is skipped with a line in the report, and that no figure stands without
// a check of the answers. It brings its own stores and needs no data, no network and no configuration.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(mainExit()) }

func mainExit() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: stopped; everything that was started is gone")
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	return 1
}

// config is the command line.
type config struct {
	stores          int
	checks          int // questions of the comparison with brute force
	huge            bool
	parts           []string
	output          string
	rounds          int
	turn            time.Duration // of one measurement of HTTP
	connections     int
	urls            int
	budget          time.Duration // for one engine and radius
	updates         int           // a second
	turns           int           // pairs of turns with and without updates
	updateTurn      time.Duration
	liveConnections int
	failoverSettings
	soakTime  time.Duration
	soakGraph string // a file
	command   string // for the report
}

// parts are what -parts can name, in the order in which they run.
var parts = []string{"index", "engines", "updates", "http", "writes", "visibility", "start", "live", "failover", "soak"}

func parseFlags(args []string, stderr io.Writer) (*config, error) {
	c := &config{updateTurn: time.Second}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	quick := f.Bool("quick", false, "25,000 stores and short turns: a look in about a minute, not figures to keep")
	f.IntVar(&c.stores, "stores", 1_000_000, "how many stores")
	f.IntVar(&c.checks, "checks", 10_000, "how many answers of the index are compared with brute force")
	f.BoolVar(&c.huge, "huge", false, "measure the index with 10,000,000 stores too; takes about 4 GB and two minutes")
	list := f.String("parts", strings.Join(parts[:len(parts)-2], ","), "which `parts` to run; the others are failover and soak, which take half an hour each")
	f.StringVar(&c.output, "o", "", "`file` whose generated part is replaced, such as docs/performance.md")
	f.IntVar(&c.rounds, "rounds", 5, "HTTP: how many times each server is measured, in turns")
	f.DurationVar(&c.turn, "turn", 5*time.Second, "HTTP: how long one measurement takes")
	f.IntVar(&c.connections, "connections", 32, "HTTP: how many connections")
	f.IntVar(&c.urls, "urls", 50_000, "HTTP: how many different queries")
	f.DurationVar(&c.budget, "budget", 5*time.Second, "engines: time for each engine and radius")
	f.IntVar(&c.updates, "updates", 2000, "updates a second while reading")
	f.IntVar(&c.turns, "turns", 8, "updates: how many turns with and as many without")
	f.IntVar(&c.liveConnections, "live-connections", 15_000, "live: how many connections")
	c.failoverSettings.bind(f)
	f.DurationVar(&c.soakTime, "soak", 30*time.Minute, "soak: how long")
	f.StringVar(&c.soakGraph, "soak-graph", "", "soak: `file` for a graph of memory and goroutines (SVG)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag; see -h", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(set *flag.Flag) {
		given[set.Name] = true
		if set.Name != "o" {
			c.command += " -" + set.Name + "=" + set.Value.String()
		}
	})
	c.command = "go run ./bench" + strings.ReplaceAll(c.command, "=true", "")
	if *quick {
		shorten := func(name string, set func()) {
			if !given[name] {
				set()
			}
		}
		shorten("stores", func() { c.stores = 25_000 })
		shorten("checks", func() { c.checks = 2000 })
		shorten("rounds", func() { c.rounds = 3 })
		shorten("turn", func() { c.turn = time.Second })
		shorten("urls", func() { c.urls = 10_000 })
		shorten("budget", func() { c.budget = 500 * time.Millisecond })
		shorten("turns", func() { c.turns = 3 })
		shorten("live-connections", func() { c.liveConnections = 1500 })
		c.updateTurn /= 2
	}
	c.parts = strings.Split(*list, ",")
	return c, c.validate()
}

func (c *config) validate() error {
	var faults []error
	for _, p := range c.parts {
		if !slices.Contains(parts, p) {
			faults = append(faults, fmt.Errorf("-parts: %q is none of %s", p, strings.Join(parts, ", ")))
		}
	}
	if c.stores < 1000 || c.stores > 100_000_000 {
		faults = append(faults, fmt.Errorf("-stores %d is not between 1000 and 100000000", c.stores))
	}
	for name, n := range map[string]int{"checks": c.checks, "rounds": c.rounds, "connections": c.connections, "urls": c.urls, "updates": c.updates, "turns": c.turns, "live-connections": c.liveConnections} {
		if n < 1 {
			faults = append(faults, fmt.Errorf("-%s must be at least 1", name))
		}
	}
	if c.soakTime < time.Minute {
		faults = append(faults, errors.New("-soak must be at least 1m"))
	}
	if c.turn < 100*time.Millisecond || c.budget < 100*time.Millisecond {
		faults = append(faults, errors.New("-turn and -budget must be at least 100ms"))
	}
	return errors.Join(append(faults, c.failoverSettings.validate())...)
}

// run is the whole program but for signals. Its first argument may be the name of one of the processes that it starts
// itself.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve-canned":
			return serveCanned(ctx, args[1:], stdout)
		case "serve-nearby":
			return serveNearby(ctx, args[1:], stdout, stderr)
		case "serve-live":
			return serveLive(ctx, args[1:], stdout, stderr)
		case "live-clients":
			return clientsLive(ctx, args[1:], os.Stdin, stdout)
		case "failover-load":
			return generateSteady(ctx, args[1:], os.Stdin, stdout)
		case "load":
			return generateLoad(ctx, args[1:], stdout)
		}
	}
	c, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	b := &bench{config: c, log: stderr, began: time.Now()}
	if c.output != "" { // better now than after ten minutes
		if _, err := splice(c.output, nil); err != nil {
			return err
		}
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	var text bytes.Buffer
	b.write(&text)
	if _, err := stdout.Write(text.Bytes()); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if c.output == "" {
		return nil
	}
	page, err := splice(c.output, text.Bytes())
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.output, page, 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	b.say("wrote the tables to %s", c.output)
	return nil
}

// bench is one run and what it found.
type bench struct {
	*config
	log   io.Writer
	began time.Time

	data    *dataset
	machine machine
	near    []question // close to stores; every part asks these
	index   indexResults
	engines engineResults
	updated updateResults
	http    httpResults
	writes  writeResults
	live    liveResults
	sized   []sizeResults
	visible []visibleResult
	seen    []seenResult
	quorum  []quorumResult
	starts  []startResult

	few       *dataset // of the part about failovers
	failovers []*failoverSeries
	soak      *soakResults
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.log, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) wants(part string) bool { return slices.Contains(b.parts, part) }

func (b *bench) measure(ctx context.Context) (err error) {
	b.machine = describeMachine()
	if slices.ContainsFunc(b.parts, func(p string) bool { return p != "writes" && p != "failover" && p != "soak" }) { // those have stores of their own
		b.say("inventing %s stores", thousands(b.stores))
		if b.data, err = newDataset(b.stores); err != nil {
			return err
		}
		b.near = b.data.near(max(1<<14, b.urls))
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"index", b.measureIndex}, {"engines", b.measureEngines}, {"updates", b.measureUpdates}, {"http", b.measureHTTP}, {"writes", b.measureWrites}, {"visibility", b.measureVisibility}, {"start", b.measureStart}, {"live", b.measureLive}, {"failover", b.measureFailover}, {"soak", b.measureSoak}} {
		if !b.wants(part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
