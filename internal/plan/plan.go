// Package plan tells what a deployment of Shortline needs: from stores, people, updates and regions to nodes, memory, Redis,
// PostgreSQL, bandwidth, money, and how available all of it is.
//
// It promises that what it shows is what it computes: the formulas are text that is evaluated, units included, so none can
// drift from its explanation and none can mix bits with bytes. It reads no clock, file or network, and knows nothing of
// the rest of Shortline.
package plan

import (
	"fmt"
	"maps"
	"math"
	"strings"
)

// Plan is the answer.
type Plan struct {
	Input    []Figure     `json:"input"`
	Figures  []Figure     `json:"figures"`
	Lines    []Line       `json:"lines"`
	Costs    []Line       `json:"costs"` // in the order in which they are added up; the total is not among them
	Machines MachineNames `json:"machines"`
	Warnings []string     `json:"warnings"`
	// PricesOf and PricesFrom say how old the prices are, and whose.
	PricesOf   string `json:"prices_of"`
	PricesFrom string `json:"prices_from"`
}

// MachineNames names the machines that were chosen: the cheapest that fit.
type MachineNames struct {
	Node     string `json:"node"`
	Database string `json:"database"`
	Redis    string `json:"redis"`
}

// Line is one result.
type Line struct {
	Section string  `json:"section"`
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	What    string  `json:"what"`
	Formula string  `json:"formula"`
	// With is the formula with numbers in place of names.
	With  string `json:"with"`
	Shown bool   `json:"-"`
}

// Line returns the result of that name.
func (p *Plan) Line(name string) (Line, bool) {
	for _, l := range p.Lines {
		if l.Name == name {
			return l, true
		}
	}
	return Line{}, false
}

// New computes a plan. The error tells every fault of the input, or that no machine of the price list is large enough.
func New(in Input, figures []Figure, prices *Prices) (*Plan, error) {
	if err := in.Validate(); err != nil {
		return nil, err
	}
	c := &calculation{world: world{}, prices: prices, plan: &Plan{Input: in.figures(), Figures: figures, PricesOf: prices.Date, PricesFrom: prices.Source, Warnings: []string{}}}
	for _, f := range append(append(c.plan.Input, figures...), prices.figures()...) {
		u, err := parseUnit(f.Unit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		c.world[f.Name] = quantity{f.Value, u}
	}
	if err := c.all(in); err != nil {
		return nil, err
	}
	c.warn(in)
	return c.plan, nil
}

// figures are the input as formulas name it.
func (in Input) figures() []Figure {
	voters, witnesses := in.Regions, 0.0
	if in.Regions == 2 {
		voters, witnesses = 3, 1
	}
	archive := 0.0
	if in.ArchiveEvents {
		archive = 1
	}
	fs := []Figure{
		{Name: "stores", Value: in.Stores, Unit: "1"}, {Name: "people", Value: in.People, Unit: "1", What: "connected at once, busiest"},
		{Name: "follows", Value: in.Follows, Unit: "1", What: "stores that a person follows"},
		{Name: "searches_per_hour", Value: in.SearchesPerH, Unit: "1/h", What: "of a connected person"},
		{Name: "reads_per_write", Value: in.ReadsPerWrite, Unit: "1", What: "beside those"},
		{Name: "peak", Value: in.Peak, Unit: "1", What: "busiest hour over the mean"},
		{Name: "regions", Value: in.Regions, Unit: "1"}, {Name: "regions_lost", Value: in.RegionsLost, Unit: "1", What: "while the others bear everything"},
		{Name: "voters", Value: voters, Unit: "1", What: "one a region; the third of two is a witness"}, {Name: "witnesses", Value: witnesses, Unit: "1"},
		{Name: "keep_years", Value: in.KeptYears, Unit: "year", What: "of hourly history"},
		{Name: "archive_events", Value: archive, Unit: "1", What: "1: every update is kept that long in a bucket, too"},
		{Name: "round_trip", Value: in.RoundTripS, Unit: "s", What: "to the nearest standby"},
		{Name: "region_availability", Value: in.Availability / 100, Unit: "1"},
		{Name: "outages_per_year", Value: in.OutagesPerYear, Unit: "1/year", What: "of a region"},
	}
	if in.EventsPerDay > 0 {
		fs = append(fs, Figure{Name: "events_per_day", Value: in.EventsPerDay, Unit: "1/day", What: "updates of all stores"})
	} else {
		fs = append(fs, Figure{Name: "update_every", Value: in.UpdateEveryS, Unit: "s", What: "between two updates of a store, mean"})
	}
	for i := range fs {
		fs[i].Source, fs[i].Kind = "given", "input"
	}
	return fs
}

func (p *Prices) figures() []Figure {
	return []Figure{
		{Name: "witness_usd_hour", Value: p.WitnessUSDHour, Unit: "USD/h"}, {Name: "volume_usd_gib", Value: p.VolumeUSDGiBMonth, Unit: "USD/GiB/month"},
		{Name: "bucket_usd_gb", Value: p.BucketUSDGBMonth, Unit: "USD/GB/month"},
		{Name: "between_regions_usd_gb", Value: p.BetweenRegionsUSDGB, Unit: "USD/GB"}, {Name: "between_zones_usd_gb", Value: p.BetweenZonesUSDGB, Unit: "USD/GB"},
		{Name: "balancer_usd_hour", Value: p.BalancerUSDHour, Unit: "USD/h"}, {Name: "balancer_unit_usd_hour", Value: p.BalancerUnitUSDHour, Unit: "USD/h"},
		{Name: "nat_usd_hour", Value: p.NATUSDHour, Unit: "USD/h"},
	}
}

type calculation struct {
	world  world
	prices *Prices
	plan   *Plan
}

func (c *calculation) all(in Input) error {
	if err := c.run(traffic(in)); err != nil {
		return err
	}
	choices := []struct {
		what, usd string
		machines  []Machine
		formulas  []formula
		fits      func(world) bool
		chosen    *string
	}{
		{"nodes", "nodes_usd", c.prices.Nodes, nodeFormulas, func(w world) bool {
			return w["node_cores_left"].value > 0 && w["node_memory_needed"].value <= w["node_memory"].value
		}, &c.plan.Machines.Node},
		{"caches", "redis_usd", c.prices.Caches, redisFormulas, func(world) bool { return true }, &c.plan.Machines.Redis},
		{"databases", "db_usd", c.prices.Databases, databaseFormulas, func(w world) bool {
			return w["db_cores_needed"].value <= w["db_vcpu"].value && w["db_memory_needed"].value <= w["db_memory"].value
		}, &c.plan.Machines.Database},
	}
	for _, ch := range choices {
		m, err := c.choose(ch.what, ch.machines, ch.formulas, ch.usd, ch.fits)
		if err != nil {
			return err
		}
		*ch.chosen = m.Name
		c.world = c.world.with(ch.what, m)
		if err := c.run(ch.formulas); err != nil {
			return err
		}
	}
	for _, fs := range [][]formula{networkFormulas, costFormulas, availability(in)} {
		if err := c.run(fs); err != nil {
			return err
		}
	}
	for _, name := range names(c.formulaOf("total_usd")) {
		l, _ := c.plan.Line(name)
		c.plan.Costs = append(c.plan.Costs, l)
	}
	return nil
}

func (c *calculation) formulaOf(name string) string {
	l, _ := c.plan.Line(name)
	return l.Formula
}

// with returns the world in which machines of that list are m.
func (w world) with(list string, m Machine) world {
	out := maps.Clone(w)
	set := func(name string, v float64, u unit) { out[name] = quantity{v, u} }
	usd, gib := unit{"USD": 1, "h": -1}, unit{"GiB": 1}
	switch list {
	case "nodes":
		set("node_vcpu", m.VCPU, unit{})
		set("node_memory", m.MemoryGiB, gib)
		set("node_network", m.NetworkGbit*1e9, unit{"bit": 1, "s": -1})
		set("node_usd", m.USDHour, usd)
	case "caches":
		set("redis_memory", m.MemoryGiB, gib)
		set("redis_usd_hour", m.USDHour, usd)
	case "databases":
		set("db_vcpu", m.VCPU, unit{})
		set("db_memory", m.MemoryGiB, gib)
		set("db_usd_hour", m.USDHour, usd)
	}
	return out
}

// choose returns the machine with which the formulas come out cheapest; the first of equal ones.
func (c *calculation) choose(list string, machines []Machine, formulas []formula, usd string, fits func(world) bool) (Machine, error) {
	best, cheapest := -1, math.Inf(1)
	for i, m := range machines {
		try := &calculation{world: c.world.with(list, m), prices: c.prices, plan: &Plan{}}
		if err := try.run(formulas); err != nil {
			return Machine{}, err
		}
		if cost := try.world[usd].value; fits(try.world) && cost < cheapest {
			best, cheapest = i, cost
		}
	}
	if best < 0 {
		return Machine{}, fmt.Errorf("no machine among the %s of the price list is large enough; add a larger one (--prices), or plan for less", list)
	}
	return machines[best], nil
}

// run computes formulas in order and notes each as a line.
func (c *calculation) run(formulas []formula) error {
	for _, f := range formulas {
		q, err := c.world.eval(f.formula, c.prices.internet)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		want, err := parseUnit(f.unit)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if !want.equal(q.unit) {
			return fmt.Errorf("%s: %s is in %s, not in %s", f.name, f.formula, q.unit, want)
		}
		c.plan.Lines = append(c.plan.Lines, Line{Section: f.section, Name: f.name, Value: q.value, Unit: f.unit, What: f.what,
			Formula: f.formula, With: c.world.numbers(f.formula), Shown: f.shown})
		c.world[f.name] = q
	}
	return nil
}

// numbers puts numbers in place of the names of a formula.
func (w world) numbers(formula string) string {
	var pairs []string
	for _, name := range names(formula) {
		q := w[name]
		text := Number(q.value)
		if len(q.unit) > 0 {
			text += " " + q.unit.String()
		}
		if strings.ContainsAny(text, " /") {
			text = "(" + text + ")"
		}
		pairs = append(pairs, name, text)
	}
	return replaceNames(formula, pairs)
}

// replaceNames replaces whole names only: updates is a part of updates_peak.
func replaceNames(formula string, pairs []string) string {
	by := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		by[pairs[i]] = pairs[i+1]
	}
	var out strings.Builder
	word := ""
	flush := func() {
		if text, ok := by[word]; ok {
			out.WriteString(text)
		} else {
			out.WriteString(word)
		}
		word = ""
	}
	for _, r := range formula {
		if r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			word += string(r)
			continue
		}
		flush()
		out.WriteRune(r)
	}
	flush()
	return out.String()
}

// warn says what the figures do not say by themselves.
func (c *calculation) warn(in Input) {
	value := func(name string) float64 { return c.world[name].value }
	warn := func(format string, args ...any) {
		c.plan.Warnings = append(c.plan.Warnings, fmt.Sprintf(format, args...))
	}
	if limit, peak := value("commit_limit"), value("updates_peak"); peak > limit/2 {
		warn("%s updates a second at the busiest are more than half of the %s that fit through the round trip to a standby: raise --commit-lanes or choose a nearer standby", Number(peak), Number(limit))
	}
	if v := value("db_volume"); c.prices.VolumeMaxGiB > 0 && v > c.prices.VolumeMaxGiB {
		warn("a volume of %s GiB is more than the largest there is (%s GiB), and hourly history is never deleted by itself: keep fewer years (--keep-years) and move older rows of shortline.rollups elsewhere, or spread the data over several volumes",
			Number(v), Number(c.prices.VolumeMaxGiB))
	}
	if in.ArchiveEvents {
		warn("Shortline keeps hourly history, not every update: whoever wants each one for %g years has to write them to the bucket; the plan has the space (%s GB), not the program", in.KeptYears, Number(value("event_archive")))
	}
	if in.Regions == 2 {
		warn("two regions need a witness in a third place, or losing one stops decisions; it is in the plan")
	}
	if in.RegionsLost == 0 && in.Regions > 1 {
		warn("with --regions-lost 0 the other regions are not sized for losing one")
	}
	if in.Regions == 1 {
		warn("one region: no failover, and its outages are outages of everything")
	}
	warn("regions are taken to fail independently; a bad release or a wrong setting takes all of them at once")
	warn("CPU times are of the cores that they were measured on; measure with your own before you buy")
	warn("not in the cost: taxes, support, monitoring, DNS queries, keys, backups beside the archived log, people")
}

// Number writes a number for people: three or four digits that count, with thousands separated.
func Number(v float64) string {
	a := math.Abs(v)
	switch {
	case v == 0:
		return "0"
	case a >= 1e15 || a < 1e-4:
		return fmt.Sprintf("%.3g", v)
	case a >= 1000 || v == math.Trunc(v):
		return thousands(fmt.Sprintf("%.0f", v))
	}
	text := fmt.Sprintf("%.4g", v)
	if strings.Contains(text, "e") {
		text = fmt.Sprintf("%.4f", v)
	}
	return text
}

func thousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
