package plan

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math"

	"go.yaml.in/yaml/v3"
)

//go:embed prices.yaml
var examplePrices []byte

// ExamplePrices is the price list that is shipped, as YAML with comments.
func ExamplePrices() []byte { return bytes.Clone(examplePrices) }

// Machine is a kind of machine that can be rented.
type Machine struct {
	Name        string  `yaml:"name"`
	VCPU        float64 `yaml:"vcpu"`
	MemoryGiB   float64 `yaml:"memory_gib"`
	NetworkGbit float64 `yaml:"network_gbit"` // 10^9 bits a second that it may send for long
	USDHour     float64 `yaml:"usd_hour"`
}

// Tier is the price of traffic up to a number of GB a month; 0 means without end.
type Tier struct {
	UpToGB float64 `yaml:"up_to_gb"`
	USD    float64 `yaml:"usd"`
}

// Prices is a price list.
type Prices struct {
	Date   string `yaml:"date"`
	Source string `yaml:"source"`

	Nodes     []Machine `yaml:"nodes"`
	Databases []Machine `yaml:"databases"`
	Caches    []Machine `yaml:"caches"`

	WitnessUSDHour      float64 `yaml:"witness_usd_hour"`
	VolumeUSDGiBMonth   float64 `yaml:"volume_usd_gib_month"`
	VolumeMaxGiB        float64 `yaml:"volume_max_gib"`
	BucketUSDGBMonth    float64 `yaml:"bucket_usd_gb_month"`
	InternetUSDGB       []Tier  `yaml:"internet_usd_gb"`
	BetweenRegionsUSDGB float64 `yaml:"between_regions_usd_gb"`
	BetweenZonesUSDGB   float64 `yaml:"between_zones_usd_gb"`
	BalancerUSDHour     float64 `yaml:"balancer_usd_hour"`
	BalancerUnitUSDHour float64 `yaml:"balancer_unit_usd_hour"`
	NATUSDHour          float64 `yaml:"nat_usd_hour"`
}

// ParsePrices reads a price list in YAML (of which JSON is a part). A name that is not known is an error, for it would silently
// cost nothing. Every fault is told.
func ParsePrices(data []byte) (*Prices, error) {
	var p Prices
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		return nil, err
	}
	return &p, p.validate()
}

func (p *Prices) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if p.Date == "" || p.Source == "" {
		fault("date and source are missing: say of when and from where the prices are")
	}
	bad := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) || v < 0 }
	for _, list := range []struct {
		name, also    string
		machines      []Machine
		vcpu, network bool
	}{{"nodes", ", vcpu, network_gbit", p.Nodes, true, true}, {"databases", ", vcpu", p.Databases, true, false}, {"caches", "", p.Caches, false, false}} {
		if len(list.machines) == 0 {
			fault("%s: name one machine at least", list.name)
		}
		for i, m := range list.machines {
			if m.Name == "" || !(m.MemoryGiB > 0) || bad(m.USDHour) || list.vcpu && !(m.VCPU > 0) || list.network && !(m.NetworkGbit > 0) {
				fault("%s, number %d (%q): needs name, memory_gib, usd_hour%s", list.name, i+1, m.Name, list.also)
			}
		}
	}
	for _, one := range []struct {
		name string
		v    float64
	}{{"witness_usd_hour", p.WitnessUSDHour}, {"volume_usd_gib_month", p.VolumeUSDGiBMonth}, {"volume_max_gib", p.VolumeMaxGiB},
		{"bucket_usd_gb_month", p.BucketUSDGBMonth}, {"between_regions_usd_gb", p.BetweenRegionsUSDGB}, {"between_zones_usd_gb", p.BetweenZonesUSDGB},
		{"balancer_usd_hour", p.BalancerUSDHour}, {"balancer_unit_usd_hour", p.BalancerUnitUSDHour}, {"nat_usd_hour", p.NATUSDHour}} {
		if bad(one.v) {
			fault("%s: %g is not a price", one.name, one.v)
		}
	}
	last := 0.0
	for i, t := range p.InternetUSDGB {
		if bad(t.USD) || (t.UpToGB <= last) != (i == len(p.InternetUSDGB)-1) || (i == len(p.InternetUSDGB)-1 && t.UpToGB != 0) {
			fault("internet_usd_gb, number %d: tiers have rising up_to_gb, and the last one has none", i+1)
		}
		last = t.UpToGB
	}
	if len(p.InternetUSDGB) == 0 {
		fault("internet_usd_gb: name one tier at least, such as {usd: 0.09}")
	}
	return errors.Join(faults...)
}

// internet tells what gb GB sent to the internet in a month cost.
func (p *Prices) internet(gb float64) float64 {
	usd, from := 0.0, 0.0
	for _, t := range p.InternetUSDGB {
		to := t.UpToGB
		if to == 0 {
			to = math.Inf(1)
		}
		if gb <= from {
			break
		}
		usd += (math.Min(gb, to) - from) * t.USD
		from = to
	}
	return usd
}
