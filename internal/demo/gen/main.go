// Command gen writes the demo stores, internal/demo/stores.csv.gz, from GeoNames' list of places and a map of the land.
//
// The same inputs and the same release of Go give the same bytes: every store's chances come from a generator seeded with
// the GeoNames id of its city, and the file carries no time. README.md in the folder above tells where the inputs come from
// and has the commands.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/shortline/shortline"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("gen", flag.ContinueOnError)
	fs.SetOutput(stderr)
	cities := fs.String("cities", "", "GeoNames table of places (cities500.txt)")
	land := fs.String("land", "", "TopoJSON of the land (world-atlas land-10m.json)")
	out := fs.String("out", "internal/demo/stores.csv.gz", "file to write")
	count := fs.Int("count", 12000, "number of stores")
	if err := fs.Parse(args); err != nil {
		return err
	}
	places, err := readPlaces(*cities)
	if err != nil {
		return err
	}
	mask, err := readLand(*land)
	if err != nil {
		return err
	}
	stores, wet := plan(places, mask, *count)
	for i := range stores {
		stores[i].Normalize()
		if err := stores[i].Validate(); err != nil {
			return fmt.Errorf("store %s: %w", stores[i].ID, err)
		}
	}
	data, err := encode(stores)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%d places, %d stores, %d of them off the mapped land, %d bytes\n", len(places), len(stores), wet, len(data))
	return os.WriteFile(*out, data, 0o644)
}

// encode writes the table that demo.Stores reads; a column that is added here has to be read there.
func encode(stores []shortline.Store) ([]byte, error) {
	var buf bytes.Buffer
	zw, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := csv.NewWriter(zw)
	// csv.Writer keeps its first error for Error.
	_ = w.Write([]string{"id", "name", "lat", "lng", "city", "state", "country", "timezone", "hours", "tags", "service_s"})
	for i := range stores {
		s := &stores[i]
		_ = w.Write([]string{
			string(s.ID), s.Name, degrees(s.Lat), degrees(s.Lng), s.Address.City, s.Address.State, s.Address.Country,
			s.Timezone, s.Hours, strings.Join(s.Tags, ";"), strconv.FormatFloat(s.ServiceS, 'f', -1, 64),
		})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func degrees(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
