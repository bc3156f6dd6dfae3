package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// unit is a product of base units with exponents, such as B/s or USD/GB. Counts (stores, people, nodes, CPU cores) have
// none. Bases are never converted into each other by themselves: a bit is not a byte, a GiB is not a GB, an hour is not
// 3,600 s, unless a formula multiplies by the constant that says how many there are.
type unit map[string]int

// bases are the units there are.
var bases = []string{"B", "GB", "GiB", "bit", "s", "h", "day", "month", "year", "USD"}

// parseUnit reads "", "1/s", "B/s", "USD/GB/month".
func parseUnit(text string) (unit, error) {
	u := unit{}
	if text == "" || text == "1" {
		return u, nil
	}
	for i, name := range strings.Split(text, "/") {
		switch {
		case i == 0 && name == "1":
		case !slices.Contains(bases, name):
			return nil, fmt.Errorf("unit %q: there is no %q", text, name)
		case i == 0:
			u.add(name, 1)
		default:
			u.add(name, -1)
		}
	}
	return u, nil
}

func (u unit) add(name string, n int) {
	if u[name] += n; u[name] == 0 {
		delete(u, name)
	}
}

// times returns u × v^power.
func (u unit) times(v unit, power int) unit {
	out := maps.Clone(u)
	for name, n := range v {
		out.add(name, n*power)
	}
	return out
}

func (u unit) equal(v unit) bool { return maps.Equal(u, v) }

func (u unit) String() string {
	var over, under []string
	for _, name := range bases {
		for range u[name] {
			over = append(over, name)
		}
		for range -u[name] {
			under = append(under, name)
		}
	}
	switch {
	case len(over)+len(under) == 0:
		return "1"
	case len(over) == 0:
		over = []string{"1"}
	}
	return strings.Join(append([]string{strings.Join(over, "·")}, under...), "/")
}
