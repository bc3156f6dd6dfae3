// Package demo is what a newcomer sees when there are no stores of their own yet: some 12,000 invented coffee houses of
// one fictional chain in real cities all over the world, and a simulator that moves the lines of any set of stores with a
// believable daily rhythm.
//
// It promises that the stores pass Normalize and Validate and keep their ids, that the simulator is a pure function of its
// seed and of the times at which it is run, and that it never sends more than its rate. It knows the domain only: not who
// stores the updates, and no HTTP. Nothing else may depend on the chain being there.
package demo

import (
	"bytes"
	"compress/gzip"
	_ "embed" // for the table of stores
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/shortline/shortline"
)

// Brand is the fictional chain that all demo stores belong to.
const Brand = "Kettlecrumb"

//go:embed stores.csv.gz
var table []byte

var columns = []string{"id", "name", "lat", "lng", "city", "state", "country", "timezone", "hours", "tags", "service_s"}

// Stores decodes the demo stores, normalised, in order of id. Every call makes a new slice; the caller owns it.
func Stores() ([]shortline.Store, error) {
	stores, err := decode(bytes.NewReader(table))
	if err != nil {
		return nil, fmt.Errorf("demo stores: %w", err)
	}
	return stores, nil
}

func decode(r io.Reader) ([]shortline.Store, error) {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	in := csv.NewReader(zr)
	in.ReuseRecord = true
	head, err := in.Read()
	if err != nil {
		return nil, err
	}
	if !slices.Equal(head, columns) {
		return nil, fmt.Errorf("the columns are %q, not %q", head, columns)
	}
	var out []shortline.Store
	for {
		rec, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		s, err := parse(rec)
		if err != nil {
			line, _ := in.FieldPos(0)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		out = append(out, s)
	}
}

func parse(rec []string) (shortline.Store, error) {
	var num [3]float64
	for i, col := range []int{2, 3, 10} {
		v, err := strconv.ParseFloat(rec[col], 64)
		if err != nil {
			return shortline.Store{}, fmt.Errorf("%s: %w", columns[col], err)
		}
		num[i] = v
	}
	s := shortline.Store{
		ID:       shortline.StoreID(rec[0]),
		Name:     rec[1],
		Brand:    Brand,
		Lat:      num[0],
		Lng:      num[1],
		Address:  &shortline.Address{City: rec[4], State: rec[5], Country: rec[6]},
		Timezone: rec[7],
		Hours:    rec[8],
		ServiceS: num[2],
	}
	if rec[9] != "" {
		s.Tags = strings.Split(rec[9], ";")
	}
	s.Normalize()
	return s, nil
}
