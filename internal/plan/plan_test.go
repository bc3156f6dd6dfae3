package plan

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func examples(t *testing.T) *Prices {
	t.Helper()
	p, err := ParsePrices(ExamplePrices())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func preset(t *testing.T, name string) Input {
	t.Helper()
	in, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func compute(t *testing.T, in Input) *Plan {
	t.Helper()
	p, err := New(in, Figures(), examples(t))
	if err != nil {
		t.Fatalf("%+v: %v", in, err)
	}
	return p
}

// near checks a result against a number that was worked out by hand.
func near(t *testing.T, p *Plan, name string, want float64) {
	t.Helper()
	l, ok := p.Line(name)
	if !ok {
		t.Fatalf("there is no line %q", name)
	}
	if math.Abs(l.Value-want) > 1e-6*math.Abs(want) {
		t.Errorf("%s = %v, by hand %v (%s)", name, l.Value, want, l.With)
	}
}

func TestSmallByHand(t *testing.T) {
	p := compute(t, preset(t, "small"))
	near(t, p, "updates", 10_000.0/60)
	near(t, p, "updates_peak", 1000.0/3)
	near(t, p, "reads", 500_000.0*6/3600)                        // half of the million people are there in the mean
	near(t, p, "messages_peak", 500_000.0/3)                     // 333 changes for 500 followers each
	near(t, p, "egress_peak", 8*(5000.0/3*2451+500_000.0/3*176)) // (1,666.67 × 2,451 + 166,666.67 × 176) B/s × 8
	near(t, p, "nodes_per_region", 6)                            // 1,000,000 people on two regions with 100,000 a node, and one more
	near(t, p, "node_connections", 100_000)
	near(t, p, "nodes", 18)
	near(t, p, "node_memory_needed", (314572800+10_000*279+10_000*350+100_000*12902.4)/0.75/1073741824)
	near(t, p, "replication_peak", 2_608_000) // 333.33 × 978 B × 8
	near(t, p, "redis_nodes", 18)             // three masters with a replica each in three regions
	near(t, p, "nodes_usd", 18*0.1008*730)
	near(t, p, "rollups_year", 87_600_000) // 10,000 stores × 8,760 h, fewer than the 5,256,000,000 updates
	near(t, p, "region_down", 0.365)
}

func TestLargeByHand(t *testing.T) {
	p := compute(t, preset(t, "large"))
	near(t, p, "updates", 500e6/86400)
	near(t, p, "reads", 500e8/86400)
	near(t, p, "reads_peak", 500e8/86400*3)
	near(t, p, "event_archive", 138_700) // 500 M × 365 × 5 × 152 B = 138.7 TB
	near(t, p, "redis_data", 10e6*454/1073741824.0)
	near(t, p, "egress_month", 500e8/86400*2451*3600*730/1e9)
}

func TestAvailabilityByHand(t *testing.T) {
	in := preset(t, "small")
	in.Availability, in.OutagesPerYear = 99, 0
	p := compute(t, in)
	near(t, p, "region_down", 3.65) // 99 % is 3.65 days a year
	near(t, p, "regions_all_down", 1e-6)
	near(t, p, "no_majority", 3*0.01*0.01*0.99+0.01*0.01*0.01)
	in.OutagesPerYear = 4
	p = compute(t, in)
	near(t, p, "failing_over", 4*5/31_536_000.0)
	near(t, p, "reads_down", 1e-6*31_536_000+4*60)

	in.Regions, in.RegionsLost = 1, 0
	p = compute(t, in)
	near(t, p, "writes_down", 0.01*31_536_000)
	near(t, p, "reads_down", 0.01*31_536_000)

	in.Regions, in.RegionsLost = 2, 1 // and a witness
	p = compute(t, in)
	near(t, p, "no_majority", 3*0.01*0.01*0.99+0.01*0.01*0.01)
	near(t, p, "regions_all_down", 1e-4)
	near(t, p, "witness_usd", 0.0208*730)
}

func TestInternetTiers(t *testing.T) {
	p := examples(t)
	for gb, want := range map[float64]float64{0: 0, 100: 9, 10_240: 921.6, 10_250: 922.45, 51_200: 921.6 + 3481.6, 200_000: 921.6 + 3481.6 + 7168 + 2320} {
		if got := p.internet(gb); math.Abs(got-want) > 1e-6 {
			t.Errorf("%v GB cost %v, by hand %v", gb, got, want)
		}
	}
}

// Whatever is asked for: what is needed fits what was chosen, no number is negative or none, costs add up, and nodes
// for more people are never cheaper.
func TestAnyInput(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	upTo := func(exp float64) float64 { return math.Trunc(math.Pow(10, rng.Float64()*exp)) }
	prices := examples(t)
	planned := 0
	for range 150 {
		in := Input{Stores: upTo(7.3), People: upTo(7) - 1, Follows: float64(rng.IntN(20)), SearchesPerH: rng.Float64() * 60, Peak: 1 + rng.Float64()*5,
			ReadsPerWrite: rng.Float64() * 100, Regions: float64(1 + rng.IntN(5)), KeptYears: rng.Float64() * 10, RoundTripS: rng.Float64() / 4,
			Availability: 90 + rng.Float64()*9.999, OutagesPerYear: rng.Float64() * 10, ArchiveEvents: rng.IntN(2) == 0}
		in.RegionsLost = float64(rng.IntN(int(in.Regions)))
		if rng.IntN(2) == 0 {
			in.UpdateEveryS = 1 + rng.Float64()*3600
		} else {
			in.EventsPerDay = upTo(9)
		}
		p, err := New(in, Figures(), prices)
		if err != nil {
			if !strings.Contains(err.Error(), "is large enough") {
				t.Fatalf("%+v: %v", in, err)
			}
			continue
		}
		planned++
		sum := 0.0
		for _, l := range p.Lines {
			if math.IsNaN(l.Value) || math.IsInf(l.Value, 0) || l.Value < -1e-9 {
				t.Fatalf("%+v: %s = %v (%s)", in, l.Name, l.Value, l.With)
			}
		}
		for _, l := range p.Costs {
			sum += l.Value
		}
		total, _ := p.Line("total_usd")
		if math.Abs(sum-total.Value) > 1e-6*sum {
			t.Fatalf("%+v: costs of %v make %v", in, sum, total.Value)
		}
		more := in
		more.People = in.People*2 + 1000
		if q, err := New(more, Figures(), prices); err == nil {
			if a, b := p.value("nodes_usd"), q.value("nodes_usd"); b < a-1e-6 {
				t.Fatalf("%+v: nodes for twice the people cost %v instead of %v", in, b, a)
			}
		}
	}
	if planned < 75 {
		t.Errorf("only %d of 150 could be planned", planned)
	}
}

// Formulas that mix units are refused: this is what keeps bits from being taken for bytes.
func TestUnits(t *testing.T) {
	w := world{"bytes": {10, unit{"B": 1}}, "bits": {80, unit{"bit": 1}}, "per_byte": {8, unit{"bit": 1, "B": -1}}, "rate": {2, unit{"s": -1}}, "n": {3, unit{}}}
	for formula, want := range map[string]string{"bytes * rate": "B/s", "bytes * per_byte + bits": "bit", "n / rate": "s", "n * n + 1": "1", "bits / bytes": "bit/B",
		"max(bytes, bytes * 2)": "B", "1 / bytes": "1/B"} {
		q, err := w.eval(formula, nil)
		if err != nil || q.unit.String() != want {
			t.Errorf("%s is in %v (%v), want %s", formula, q.unit, err, want)
		}
	}
	for _, formula := range []string{"bytes + bits", "bytes - n", "max(bytes, bits)", "bytes %", "n % n", "missing", "n.x", "sqrt(n)", "tiers(bytes)", "ceil()", "func() {}"} {
		if q, err := w.eval(formula, nil); err == nil {
			t.Errorf("%s is %v, want an error", formula, q)
		}
	}
	if q, _ := w.eval("bytes * per_byte", nil); q.value != 80 {
		t.Errorf("10 B are %v bit", q.value)
	}
	if _, err := parseUnit("KB/s"); err == nil {
		t.Error("there is a unit KB")
	}
	c := &calculation{world: w, plan: &Plan{}}
	if err := c.run([]formula{{name: "wrong", unit: "bit/s", formula: "bytes * rate"}}); err == nil || !strings.Contains(err.Error(), "is in B/s, not in bit/s") {
		t.Errorf("bytes a second pass for bits a second: %v", err)
	}
}

func TestFewer(t *testing.T) {
	for _, c := range []struct {
		k, n int
		p    float64
		want float64
	}{{1, 1, 0.99, 0.01}, {2, 3, 0.9, 0.001 + 3*0.01*0.9}, {0, 3, 0.9, 0}, {4, 3, 0.9, 1}, {3, 5, 0.5, 0.5}} {
		if got := fewer(c.k, c.p, c.n); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("fewer than %d of %d up at %v: %v, want %v", c.k, c.n, c.p, got, c.want)
		}
	}
}

func TestExplanationHasTheNumbers(t *testing.T) {
	p := compute(t, preset(t, "small"))
	l, _ := p.Line("messages_peak")
	if l.Formula != "updates_peak * followers" || l.With != "(333.3 1/s) * 500" {
		t.Errorf("explained as %q, %q", l.Formula, l.With)
	}
	if got := replaceNames("updates_peak - updates + ceil(updates)", []string{"updates", "1", "updates_peak", "2"}); got != "2 - 1 + ceil(1)" {
		t.Errorf("names are replaced in part: %s", got)
	}
	for _, f := range p.Figures {
		if f.Source == "" && f.Kind != Chosen {
			t.Errorf("%s does not say where it is from", f.Name)
		}
	}
}

func TestHuman(t *testing.T) {
	for want, l := range map[string]Line{
		"235.4 Mbit/s":       {Value: 235.4e6, Unit: "bit/s"},
		"3.65 days a year":   {Value: 3.65, Unit: "day/year"},
		"8.76 hours a year":  {Value: 0.365, Unit: "day/year"},
		"99.99 %":            {Name: "reads_available", Value: 0.9999, Unit: "1"},
		"99.99962 %":         {Name: "reads_available", Value: 0.9999962, Unit: "1"},
		"1,235 USD":          {Value: 1234.5, Unit: "USD/month"},
		"12,346 GB/month":    {Value: 12345.6, Unit: "GB/month"},
		"0.01 GiB":           {Value: 0.01, Unit: "GiB"},
		"1,234,567":          {Value: 1234567, Unit: "1"},
		"0.0004883 GB/month": {Value: 0.00048828, Unit: "GB/month"},
	} {
		if got := Human(l); got != want {
			t.Errorf("%v %s is shown as %q, want %q", l.Value, l.Unit, got, want)
		}
	}
}

func TestWrongInput(t *testing.T) {
	for flag, spoil := range map[string]func(*Input){
		"--stores":              func(in *Input) { in.Stores = 0 },
		"--people":              func(in *Input) { in.People = -1 },
		"whole number":          func(in *Input) { in.Stores = 1.5 },
		"--peak":                func(in *Input) { in.Peak = 0.5 },
		"not both":              func(in *Input) { in.EventsPerDay = 5 },
		"--update-every":        func(in *Input) { in.UpdateEveryS = 0 },
		"one region has to":     func(in *Input) { in.RegionsLost = 3 },
		"--region-availability": func(in *Input) { in.Availability = 100 },
		"--regions":             func(in *Input) { in.Regions = math.NaN() },
	} {
		in := preset(t, "small")
		spoil(&in)
		if err := in.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
	in := preset(t, "small")
	in.Stores = 1e9
	if _, err := New(in, Figures(), examples(t)); err == nil || !strings.Contains(err.Error(), "nodes of the price list is large enough") {
		t.Errorf("a billion stores fit: %v", err)
	}
}

func TestWrongPrices(t *testing.T) {
	good := string(ExamplePrices())
	for what, text := range map[string]string{
		"field nat_usd_hours not found": strings.Replace(good, "nat_usd_hour:", "nat_usd_hours:", 1),
		"date and source are missing":   strings.Replace(good, "date:", "# date:", 1),
		"bucket_usd_gb_month":           strings.Replace(good, "bucket_usd_gb_month: 0.023", "bucket_usd_gb_month: -1", 1),
		"nodes, number 1":               strings.Replace(good, "vcpu: 2,", "vcpu: 0,", 1),
		"tiers have rising":             strings.Replace(good, "51200", "5", 1),
		"EOF":                           "",
	} {
		if _, err := ParsePrices([]byte(text)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want an error with %q, got %v", what, err)
		}
	}
}

func TestOverride(t *testing.T) {
	figures, err := Override(Figures(), map[string]string{"connections_per_node": "50000"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(preset(t, "small"), figures, examples(t))
	if err != nil {
		t.Fatal(err)
	}
	near(t, p, "nodes", 33) // (500,000 / 50,000 + 1) × 3
	_, err = Override(Figures(), map[string]string{"cpu": "1", "bits_per_byte": "10", "read_cpu": "x"})
	for _, want := range []string{`no figure "cpu"`, "bits_per_byte is by definition 8", "read_cpu=x"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

func (p *Plan) value(name string) float64 { l, _ := p.Line(name); return l.Value }
