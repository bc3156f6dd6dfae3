package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

func newNearbyCommand(a *app) *cobra.Command {
	var query client.NearbyQuery
	var maxWait waitFlag
	var asJSON, watching bool
	cmd := &cobra.Command{
		Use:   "nearby LAT,LNG",
		Short: "which stores are near, and how long are their lines?",
		Long: `Shows the stores nearest to a place, given as latitude and longitude in degrees,
with their lines and the waits to expect: most people wait no longer than the
second number.`,
		Example: `  shortline nearby 40.7580,-73.9855
  shortline nearby -33.87,151.21 --radius 2km --open-now --max-wait 10m
  shortline nearby 40.7580,-73.9855 --json | jq '.stores[0]'
  shortline nearby 40.7580,-73.9855 --watch`,
		Args: cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.StringVar(&query.Radius, "radius", "", "how `far`: metres, or with a unit such as 800m, 1km, 2mi (the server's default is 5km)")
	flags.IntVar(&query.Limit, "limit", 0, "how `many` stores, 1 to 100 (the server's default is 5)")
	flags.StringVar(&query.Sort, "sort", "", "`order`: distance, wait or fastest (the server's default is distance)")
	flags.BoolVar(&query.OpenNow, "open-now", false, "only stores that are open")
	flags.Var(&maxWait, "max-wait", "only stores with an expected wait of at most this `time`: seconds, or 10m")
	flags.StringArrayVar(&query.Tags, "tag", nil, "only stores with this `tag`; may be given several times")
	flags.StringVar(&query.Brand, "brand", "", "only stores of this `brand`")
	flags.BoolVar(&asJSON, "json", false, "print what the API answered; with --watch a line of JSON for each change")
	flags.BoolVar(&watching, "watch", false, "go on: print each line that changes, and the table again when other stores are near, until Ctrl-C")
	to := newTarget(a, flags, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		lat, lng, err := parsePlace(strings.Join(args, ","))
		if err != nil {
			return usagef(cmd, "%w", err)
		}
		if cmd.Flags().Changed("limit") && query.Limit == 0 {
			return usagef(cmd, "--limit 0 asks for nothing; 1 to 100 are possible")
		}
		query.Lat, query.Lng, query.MaxWait = lat, lng, maxWait.value
		if watching && (query.Sort != "" || query.OpenNow || query.MaxWait != nil || len(query.Tags) > 0 || query.Brand != "") {
			return usagef(cmd, "--watch follows the nearest stores, whichever they are: leave --sort, --open-now, --max-wait, --tag and --brand out")
		}
		c, err := to.client(nil)
		if err != nil {
			return err
		}
		if watching {
			w := &nearbyWatch{app: a, client: c, query: query, asJSON: asJSON}
			return explainWatch(to, "nearby", w.follow(cmd.Context()))
		}
		answer, err := c.Nearby(cmd.Context(), query)
		if err != nil {
			return fmt.Errorf("nearby: %w", to.explain(err))
		}
		if asJSON {
			return printRaw(a.stdout, answer.Raw)
		}
		return printNearby(a, answer)
	}
	return cmd
}

// parsePlace reads "LAT,LNG".
func parsePlace(s string) (lat, lng float64, err error) {
	parts := strings.Split(s, ",")
	if len(parts) != 2 {
		return 0, 0, fmt.Errorf("%q is not a place; write latitude, comma, longitude such as 40.7580,-73.9855", strings.TrimSpace(s))
	}
	if lat, err = parseDegrees(parts[0]); err != nil {
		return 0, 0, fmt.Errorf("the latitude %w", err)
	}
	if lng, err = parseDegrees(parts[1]); err != nil {
		return 0, 0, fmt.Errorf("the longitude %w", err)
	}
	return lat, lng, shortline.CheckCoordinates("latitude", lat, "longitude", lng)
}

func parseDegrees(s string) (float64, error) {
	s = strings.TrimSpace(s)
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is not a number of degrees", s)
	}
	return v, nil
}

// waitFlag is a time in seconds or as a duration; nil until it is set.
type waitFlag struct{ value *time.Duration }

func (w *waitFlag) String() string {
	if w.value == nil {
		return ""
	}
	return w.value.String()
}

func (w *waitFlag) Type() string { return "time" }

func (w *waitFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if n, numErr := strconv.Atoi(s); numErr == nil && n <= 1e9 {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return errors.New("must be seconds such as 600, or a time such as 10m")
	}
	w.value = &d
	return nil
}

func printNearby(a *app, answer *client.NearbyAnswer) error {
	if answer.LagS > 5 {
		_, _ = fmt.Fprintf(a.stderr, "note: the region %s is %.0f s behind\n", printable(answer.Region), answer.LagS)
	}
	if len(answer.Stores) == 0 {
		_, err := fmt.Fprintln(a.stderr, "no store fits; try a larger --radius or fewer filters")
		return err
	}
	t := table{head: []string{"NAME", "DISTANCE", "LINE", "WAIT", "OPEN", "UPDATED", "ID"}, right: []bool{false, true, true, true, false, false, false}}
	for _, s := range answer.Stores {
		line, wait, updated := "-", "-", "never"
		if q := s.Queue; q != nil {
			line, wait, updated = strconv.Itoa(q.Length), waitRange(q.WaitS, q.WaitHighS), ago(seconds(q.AgeS))
		}
		t.add(s.Name, distance(s.DistanceM), line, wait, openText(s.Open), updated, string(s.ID))
	}
	return t.print(a.stdout, terminalWidth(a.stdout), a.bold)
}

func openText(open *bool) string {
	switch {
	case open == nil:
		return "?"
	case *open:
		return "yes"
	}
	return "no"
}

// printRaw writes what the API answered, with a line feed at the end.
func printRaw(w io.Writer, raw []byte) error {
	if n := len(raw); n == 0 || raw[n-1] != '\n' {
		raw = append(raw[:n:n], '\n')
	}
	_, err := w.Write(raw)
	return err
}
