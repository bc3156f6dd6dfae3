package plan

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Human writes a result as people say it: bits a second as Mbit/s, a share close to 1 as per cent, seconds of a year as hours.
func Human(l Line) string {
	switch v := l.Value; {
	case l.Unit == "bit/s":
		for _, s := range []struct {
			by   float64
			name string
		}{{1e12, "Tbit/s"}, {1e9, "Gbit/s"}, {1e6, "Mbit/s"}, {1e3, "kbit/s"}} {
			if v >= s.by {
				return Number(v/s.by) + " " + s.name
			}
		}
		return Number(v) + " bit/s"
	case l.Unit == "s/year":
		for _, s := range []struct {
			by   float64
			name string
		}{{86400, "days"}, {3600, "hours"}, {60, "minutes"}} {
			if v >= s.by {
				return Number(v/s.by) + " " + s.name + " a year"
			}
		}
		return Number(v) + " s a year"
	case l.Unit == "day/year":
		return Human(Line{Value: v * 86400, Unit: "s/year"})
	case strings.HasSuffix(l.Name, "_available"):
		// As many digits as tell it from 100 %.
		digits := max(2, int(math.Ceil(-math.Log10(math.Max(1-v, 1e-12))))-1)
		return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v*100, 'f', digits, 64), "0"), ".") + " %"
	case l.Unit == "USD/month":
		return Number(math.Round(v)) + " USD"
	case l.Unit == "1/s":
		return Number(v) + " /s"
	case l.Unit == "1":
		return Number(v)
	}
	return Number(l.Value) + " " + l.Unit
}

// Override replaces the values of figures. Every fault is told.
func Override(figures []Figure, values map[string]string) ([]Figure, error) {
	out := slices.Clone(figures)
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i := slices.IndexFunc(out, func(f Figure) bool { return f.Name == name })
		v, err := strconv.ParseFloat(values[name], 64)
		switch {
		case i < 0:
			faults = append(faults, fmt.Errorf("there is no figure %q; shortline plan --explain lists them", name))
		case out[i].Kind == Constant && out[i].Source == "definition":
			faults = append(faults, fmt.Errorf("%s is by definition %s", name, Number(out[i].Value)))
		case err != nil || !(v > 0) || math.IsInf(v, 0):
			faults = append(faults, fmt.Errorf("%s=%s: must be a number greater than 0", name, values[name]))
		default:
			out[i].Value, out[i].Source, out[i].Kind = v, "given", "input"
		}
	}
	return out, errors.Join(faults...)
}
