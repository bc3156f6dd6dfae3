package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shortline/shortline/internal/plan"
)

const planHelp = `Tells what a deployment needs: nodes, memory, Redis, PostgreSQL, bandwidth, the
cost of a month, and how available it is. It asks nobody and changes nothing.

Begin with a preset and say what is different:

  small  10,000 stores, 1,000,000 people connected, an update a store and minute
  large  10,000,000 stores, 500 million updates a day, 100 reads a write, five
         years of history, every update archived

--explain shows each formula with its numbers, and where each figure is from:
measured on Shortline, estimated, or chosen as a margin. Any figure is changed with
--figure NAME=VALUE, such as --figure cpu_share=0.7.

Prices are examples, of the day that is shown, and not kept up to date. For your
own: shortline plan --print-prices > prices.yaml, edit, and --prices prices.yaml.

GiB is 2^30 bytes (memory, volumes), GB is 10^9 bytes (networks, buckets), and Mbit/s
are 10^6 bits a second. A year has 365 days, so 99 % is 3.65 days of a year.`

// planFlags are what is given on the command line, over a preset.
type planFlags struct {
	preset, prices, output string
	in                     plan.Input
	roundTripMS            float64
	figures                map[string]string
	explain, printPrices   bool
}

func newPlanCommand(a *app) *cobra.Command {
	var p planFlags
	cmd := &cobra.Command{
		Use: "plan", Short: "what does it take? nodes, memory, bandwidth, cost, availability", Long: planHelp, Args: cobra.NoArgs,
		Example: `  shortline plan --preset small
  shortline plan --preset large --keep-years 1 --explain
  shortline plan --stores 3000 --people 20000 --update-every 30 --regions 2 -o json`,
	}
	f := cmd.Flags()
	f.StringVar(&p.preset, "preset", "small", "small or large: what holds for everything that is not given")
	f.Float64Var(&p.in.Stores, "stores", 0, "how many `stores` there are")
	f.Float64Var(&p.in.People, "people", 0, "`people` who are connected at once at the busiest")
	f.Float64Var(&p.in.Follows, "follows", 0, "`stores` that one of them follows")
	f.Float64Var(&p.in.SearchesPerH, "searches-per-hour", 0, "searches an `hour` of one of them")
	f.Float64Var(&p.in.UpdateEveryS, "update-every", 0, "mean `seconds` between two updates of one store")
	f.Float64Var(&p.in.EventsPerDay, "events-per-day", 0, "updates a `day` of all stores together, instead of --update-every")
	f.Float64Var(&p.in.ReadsPerWrite, "reads-per-write", 0, "`reads` a write, beside the searches of connected people")
	f.Float64Var(&p.in.Peak, "peak", 0, "how many `times` the mean the busiest hour has")
	f.Float64Var(&p.in.Regions, "regions", 0, "how many `regions`")
	f.Float64Var(&p.in.RegionsLost, "regions-lost", 0, "how many `regions` may be gone while the others bear everything")
	f.Float64Var(&p.in.KeptYears, "keep-years", 0, "`years` of hourly history")
	f.BoolVar(&p.in.ArchiveEvents, "archive-events", false, "keep every update that long too, in a bucket")
	f.Float64Var(&p.roundTripMS, "round-trip-ms", 0, "`milliseconds` to the nearest standby and back")
	f.Float64Var(&p.in.Availability, "region-availability", 0, "`per cent` of the time in which a region is up, such as 99.9")
	f.Float64Var(&p.in.OutagesPerYear, "outages-per-year", 0, "`outages` of a region in a year")
	f.StringToStringVar(&p.figures, "figure", nil, "`name=value` of a figure that is other than --explain shows it; may be given several times")
	f.StringVar(&p.prices, "prices", "", "`file` with prices, instead of the examples")
	f.BoolVar(&p.printPrices, "print-prices", false, "print the example prices as YAML, and nothing else")
	f.BoolVar(&p.explain, "explain", false, "show each formula with its numbers, and where each figure is from")
	outputFlag(f, &p.output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if p.printPrices {
			_, err := a.stdout.Write(plan.ExamplePrices())
			return err
		}
		if err := checkOutput(cmd, p.output); err != nil {
			return err
		}
		answer, err := p.compute(cmd)
		if err != nil {
			return err
		}
		if p.output == "json" {
			enc := json.NewEncoder(a.stdout)
			enc.SetIndent("", "  ")
			return enc.Encode(answer)
		}
		return printCapacity(a, answer, p.explain)
	}
	return cmd
}

func (p *planFlags) compute(cmd *cobra.Command) (*plan.Plan, error) {
	in, err := p.input(cmd.Flags())
	if err == nil {
		err = in.Validate()
	}
	if err != nil {
		return nil, usagef(cmd, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	figures, err := plan.Override(plan.Figures(), p.figures)
	if err != nil {
		return nil, usagef(cmd, "--figure: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	text := plan.ExamplePrices()
	if p.prices != "" {
		if text, err = os.ReadFile(p.prices); err != nil {
			return nil, fmt.Errorf("read the prices of --prices: %w", err)
		}
	}
	prices, err := plan.ParsePrices(text)
	if err != nil {
		return nil, usagef(cmd, "--prices %s: %s (shortline plan --print-prices shows a list that is right)", p.prices, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return plan.New(in, figures, prices)
}

// input is the preset with what was given over it.
func (p *planFlags) input(flags *pflag.FlagSet) (plan.Input, error) {
	in, err := plan.Preset(p.preset)
	if err != nil {
		return in, fmt.Errorf("--preset: %w", err)
	}
	for name, set := range map[string]func(){
		"stores":              func() { in.Stores = p.in.Stores },
		"people":              func() { in.People = p.in.People },
		"follows":             func() { in.Follows = p.in.Follows },
		"searches-per-hour":   func() { in.SearchesPerH = p.in.SearchesPerH },
		"reads-per-write":     func() { in.ReadsPerWrite = p.in.ReadsPerWrite },
		"peak":                func() { in.Peak = p.in.Peak },
		"regions":             func() { in.Regions = p.in.Regions },
		"keep-years":          func() { in.KeptYears = p.in.KeptYears },
		"archive-events":      func() { in.ArchiveEvents = p.in.ArchiveEvents },
		"round-trip-ms":       func() { in.RoundTripS = p.roundTripMS / 1000 },
		"region-availability": func() { in.Availability = p.in.Availability },
		"outages-per-year":    func() { in.OutagesPerYear = p.in.OutagesPerYear },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	switch every, day := flags.Changed("update-every"), flags.Changed("events-per-day"); {
	case every && day:
		in.UpdateEveryS, in.EventsPerDay = p.in.UpdateEveryS, p.in.EventsPerDay
	case every:
		in.UpdateEveryS, in.EventsPerDay = p.in.UpdateEveryS, 0
	case day:
		in.UpdateEveryS, in.EventsPerDay = 0, p.in.EventsPerDay
	}
	if flags.Changed("regions-lost") {
		in.RegionsLost = p.in.RegionsLost
	} else if in.Regions == 1 {
		in.RegionsLost = 0
	}
	return in, nil
}

func printCapacity(a *app, p *plan.Plan, explain bool) error {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(a.stdout, format, args...) }
	if explain {
		explainPlan(a, p)
	} else {
		section := ""
		for _, l := range p.Lines {
			if !l.Shown {
				continue
			}
			if l.Section != section {
				section = l.Section
				say("%s\n", a.bold(section+machineOf(p, section)))
			}
			say("  %18s  %s\n", plan.Human(l), l.What)
		}
	}
	say("%s\n", a.bold("Cost a month"))
	for _, l := range p.Costs {
		if l.Value > 0 {
			say("  %18s  %s\n", plan.Human(l), l.What)
		}
	}
	for _, name := range []string{"total_usd", "region_usd"} {
		l, _ := p.Line(name)
		say("  %18s  %s\n", plan.Human(l), l.What)
	}
	say("\nPrices of %s: %s.\n", printable(p.PricesOf), printable(p.PricesFrom))
	for _, w := range p.Warnings {
		say("! %s\n", w)
	}
	return nil
}

// machineOf says in which machine a section is done.
func machineOf(p *plan.Plan, section string) string {
	name := map[string]string{"Edge nodes": p.Machines.Node, "Redis Cluster": p.Machines.Redis, "PostgreSQL": p.Machines.Database}[section]
	if name == "" {
		return ""
	}
	return ": " + printable(name)
}

// explainPlan prints each formula below its result, and then every figure.
func explainPlan(a *app, p *plan.Plan) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(a.stdout, format, args...) }
	section := ""
	for _, l := range p.Lines {
		if l.Section != section {
			section = l.Section
			say("%s\n", a.bold(section+machineOf(p, section)))
		}
		say("  %s: %s\n      %s\n    = %s\n    = %s\n", l.Name, l.What, l.Formula, l.With, plan.Human(l))
	}
	say("%s\n", a.bold("Figures"))
	for _, f := range append(slices.Clone(p.Input), p.Figures...) {
		what := f.What
		if what != "" {
			what = ": " + what
		}
		say("  %s = %s %s%s [%s; %s]\n", f.Name, plan.Number(f.Value), strings.TrimPrefix(f.Unit, "1"), what, f.Kind, f.Source)
	}
}
