package storefile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// field is a part of a store that a column can hold.
type field int

const (
	fieldID field = iota
	fieldName
	fieldBrand
	fieldLat
	fieldLng
	fieldStreet
	fieldHouseNumber
	fieldCity
	fieldState
	fieldPostcode
	fieldCountry
	fieldTimezone
	fieldHours
	fieldTags
	fieldPhone
	fieldService
	numFields
)

// fields has for each field what people call it in a mapping, what the API calls it in errors, and the folded usual names
// of its column in order of preference. No usual name belongs to two fields.
var fields = [numFields]struct {
	name, path string
	usual      []string
}{
	fieldID:          {"id", "id", []string{"id", "storeid", "storenumber", "storeno", "number", "code", "ref", "uuid"}},
	fieldName:        {"name", "name", []string{"name", "storename", "locationname", "title"}},
	fieldBrand:       {"brand", "brand", []string{"brand", "brandname"}},
	fieldLat:         {"lat", "lat", []string{"lat", "latitude", "y"}},
	fieldLng:         {"lng", "lng", []string{"lng", "lon", "long", "longitude", "x"}},
	fieldStreet:      {"street", "address.street", []string{"street", "streetaddress", "addressstreet", "addrstreet", "address", "addressline1", "address1"}},
	fieldHouseNumber: {"housenumber", "housenumber", []string{"housenumber", "addrhousenumber", "addresshousenumber"}},
	fieldCity:        {"city", "address.city", []string{"city", "town", "addrcity", "addresscity"}},
	fieldState:       {"state", "address.state", []string{"state", "stateprovince", "province", "region", "addrstate", "addressstate"}},
	fieldPostcode:    {"postcode", "address.postcode", []string{"postcode", "postalcode", "zip", "zipcode", "addrpostcode", "addresspostcode"}},
	fieldCountry:     {"country", "address.country", []string{"country", "countrycode", "addrcountry", "addresscountry"}},
	fieldTimezone:    {"timezone", "timezone", []string{"timezone", "tz", "tzid"}},
	fieldHours:       {"hours", "hours", []string{"hours", "openinghours"}},
	fieldTags:        {"tags", "tags", []string{"tags"}},
	fieldPhone:       {"phone", "phone", []string{"phone", "phonenumber", "telephone", "contactphone"}},
	fieldService:     {"service_s", "service_s", []string{"service_s", "serviceseconds"}},
}

// Fields lists the fields that Options.Columns may name, in the order in which people expect them.
func Fields() []string {
	names := make([]string, numFields)
	for f := range fields {
		names[f] = fields[f].name
	}
	return names
}

// parseField knows a field by its name or, for parts of the address, its path ("address.city").
func parseField(s string) (field, bool) {
	s = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), "address.")
	for f := range numFields {
		if fields[f].name == s {
			return f, true
		}
	}
	return 0, false
}

// fold reduces a column's name to what usual names are compared by. service_s stays as it is, for folded it would be
// the plural of service, which is a usual column of another meaning.
func fold(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "service_s" {
		return s
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \u00a0_-/.:@", r) {
			return -1
		}
		return r
	}, s)
}

// use is a field that a column may be read for; the lowest rank of a field wins.
type use struct {
	field field
	rank  int
}

const (
	rankExact  = -2 // named in Options.Columns, letter for letter
	rankFolded = -1 // named there but for case and punctuation
	rankID     = 0  // the usual name "id" itself
)

// columns decides which column or property is read for which field. It is filled once for CSV, and bit by bit for
// GeoJSON.
type columns struct {
	named   [numFields]bool // in Options.Columns
	want    [numFields]string
	leftOut [numFields]bool  // named there with no column
	known   map[string][]use // GeoJSON: the uses of properties met so far
	used    [numFields]string
	ignored []string
}

// maxKnown bounds how many names of properties are remembered, and how long ones.
const (
	maxKnown      = 512
	maxKnownBytes = 100
)

func newColumns(o Options) (*columns, error) {
	c := &columns{known: map[string][]use{}}
	if o.Format == NDJSON && len(o.Columns) > 0 {
		return nil, errors.New("NDJSON has the names of the API, there are no columns to name")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Columns)) {
		f, ok := parseField(name)
		if !ok {
			return nil, fmt.Errorf("there is no field %q to name a column for; the fields are %s", name, strings.Join(Fields(), ", "))
		}
		if c.named[f] {
			return nil, fmt.Errorf("the column for %s is named twice", fields[f].name)
		}
		if o.Format == GeoJSON && (f == fieldLat || f == fieldLng) {
			return nil, fmt.Errorf("in GeoJSON %s comes from the geometry, there is no property to name", fields[f].name)
		}
		c.named[f], c.want[f] = true, strings.TrimSpace(o.Columns[name])
		c.leftOut[f] = c.want[f] == ""
	}
	if o.Format == GeoJSON {
		c.named[fieldLat], c.named[fieldLng] = true, true // and wanted from nowhere
	}
	return c, nil
}

// uses tells which fields a column called name may be read for.
func (c *columns) uses(name string) []use {
	if u, ok := c.known[name]; ok {
		return u
	}
	var out []use
	folded := fold(name)
	for f := range numFields {
		switch {
		case name == "" || c.named[f] && c.want[f] == "":
		case c.named[f] && c.want[f] == name:
			out = append(out, use{f, rankExact})
		case c.named[f] && folded != "" && fold(c.want[f]) == folded:
			out = append(out, use{f, rankFolded})
		case c.named[f]:
		default:
			if i := slices.Index(fields[f].usual, folded); i >= 0 {
				out = append(out, use{f, rankID + i})
			}
		}
	}
	return out
}

// remember is uses for a property of a feature; it notes the ones that have none.
func (c *columns) remember(name string) []use {
	if u, ok := c.known[name]; ok {
		return u
	}
	u := c.uses(name)
	if len(c.known) < maxKnown && len(name) <= maxKnownBytes {
		c.known[name] = u
		if len(u) == 0 {
			c.ignored = append(c.ignored, cleanText(name))
		}
	}
	return u
}

// match finds the column of every field in a header, -1 where there is none.
func (c *columns) match(header []string, column *[numFields]int) error {
	var rank [numFields]int
	for f := range column {
		column[f] = -1
	}
	for i, name := range header {
		for _, u := range c.uses(name) {
			if column[u.field] < 0 || u.rank < rank[u.field] {
				column[u.field], rank[u.field] = i, u.rank
			}
		}
	}
	for f := range numFields {
		if c.want[f] != "" && column[f] < 0 {
			return fmt.Errorf("there is no column %q for %s; the columns are %s", c.want[f], fields[f].name, list(header))
		}
		if column[f] >= 0 {
			c.used[f] = header[column[f]]
		}
	}
	for i, name := range header {
		if name == "" {
			name = fmt.Sprintf("(column %d)", i+1)
		}
		if !slices.Contains(column[:], i) {
			c.ignored = append(c.ignored, name)
		}
	}
	return c.checkRequired(header, column)
}

func (c *columns) checkRequired(header []string, column *[numFields]int) error {
	var missing []string
	for _, f := range []field{fieldID, fieldName, fieldLat, fieldLng} {
		if column[f] < 0 {
			missing = append(missing, fields[f].name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	example := missing[0] + "=COLUMN"
	if city := c.used[fieldCity]; missing[0] == "name" && city != "" {
		example = "name=" + city
		if strings.ContainsAny(city, " \t'\"$&;|<>()") {
			example = fmt.Sprintf("%q", example)
		}
	}
	return fmt.Errorf("no column for %s; the columns are %s; name one with --map %s", strings.Join(missing, ", "), list(header), example)
}

// list shows a header in bounded length.
func list(header []string) string {
	const most = 50
	shown := make([]string, 0, most)
	for i, name := range header {
		if i == most {
			shown = append(shown, fmt.Sprintf("and %d more", len(header)-most))
			break
		}
		shown = append(shown, fmt.Sprintf("%q", cut(name, 60)))
	}
	return strings.Join(shown, ", ")
}

func (c *columns) mapping() map[string]string {
	m := map[string]string{}
	for f := range numFields {
		if c.used[f] != "" || c.leftOut[f] {
			m[fields[f].name] = c.used[f]
		}
	}
	return m
}
