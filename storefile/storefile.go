// Package storefile reads stores from files that people have: CSV as spreadsheets and open-data portals write it,
// NDJSON in the form of the API, and GeoJSON as maps write it.
//
// It promises to read as a stream: memory depends on Options.MaxRowBytes, never on the length of the input, of a line or
// of a quoted field. A bad row costs that row alone, is named with the line where it starts, and reading goes on. Every
// Row that comes out is normalised and passes shortline's Validate. It knows neither HTTP nor terminals, and validating
// needs the time zone database (import time/tzdata where the system may lack it).
//
// # CSV
//
// The first line that is not blank names the columns, and its most frequent character among comma, semicolon and tab
// (outside quotes; comma in a tie) separates the fields. Quotes follow RFC 4180; blanks around a quoted field are
// allowed. A quote that is not closed properly costs the row where it opened, and reading goes on at the line after
// that. Blank lines and rows of empty fields are skipped. A UTF-8 byte order mark is dropped.
//
// # NDJSON
//
// One store a line, taken at its word: unknown fields are refused and nothing is repaired.
//
// # GeoJSON
//
// A FeatureCollection, or Features one after the other (RFC 8142, with or without record separators). A Feature's place
// is its Point; its id is the property "id" or "@id", else the id of the Feature, else another usual name of an id.
// Objects among the properties are looked into one level deep, so that {"address":{"city":…}} is found as address.city.
//
// # Names of columns and properties
//
// A column or property is found whatever its case and regardless of blanks and of the characters _ - / . : @ in it. Where
// several fit a field, the earliest in this list wins, then the leftmost column:
//
//	id           id, store id, store number, store no, number, code, ref, uuid
//	name         name, store name, location name, title
//	brand        brand, brand name
//	lat          lat, latitude, y
//	lng          lng, lon, long, longitude, x
//	street       street, street address, address street, addr street, address, address line 1, address 1
//	housenumber  house number, addr house number, address house number (put before the street)
//	city         city, town, addr city, address city
//	state        state, state province, province, region, addr state, address state
//	postcode     postcode, postal code, zip, zip code, addr postcode, address postcode
//	country      country, country code, addr country, address country
//	timezone     timezone, tz, tzid
//	hours        hours, opening hours
//	tags         tags (several are separated by ; or |)
//	phone        phone, phone number, telephone, contact phone
//	service_s    service_s, service seconds
//
// # Repairs
//
// In CSV and GeoJSON line breaks and tabs inside a text become a blank, the code points U+0080 to U+009F (never text,
// but the usual trace of Windows-1252 read as Latin-1) become the characters they stand for in Windows-1252, a part of
// the address that is too long is cut (and noted in the Row), "node/123" becomes the id "node-123", and time zones lose
// what surrounds their name ("GMT+09:00 Asia/Seoul"); see fixTimezone. Whatever else is wrong rejects the row.
package storefile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/shortline/shortline"
)

// Format is a way to write stores into a file.
type Format string

// The formats that can be read.
const (
	CSV     Format = "csv"
	NDJSON  Format = "ndjson"
	GeoJSON Format = "geojson"
)

// ParseFormat returns the format that people call s, whatever its case: csv, tsv, ndjson, jsonl, geojson, geojsonl.
func ParseFormat(s string) (Format, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "csv", "tsv":
		return CSV, nil
	case "ndjson", "jsonl":
		return NDJSON, nil
	case "geojson", "geojsonl", "geojsonseq":
		return GeoJSON, nil
	}
	return "", fmt.Errorf("unknown format %q; known are csv, ndjson and geojson", s)
}

// FormatOf tells the format of a file by its extension, looking past a final .gz. A .json file is GeoJSON.
func FormatOf(filename string) (Format, bool) {
	name := strings.TrimSuffix(strings.ToLower(filename), ".gz")
	ext := strings.TrimPrefix(path.Ext(name), ".")
	if ext == "json" {
		return GeoJSON, true
	}
	f, err := ParseFormat(ext)
	return f, err == nil
}

// Options says how to read. Only Format is required.
type Options struct {
	Format Format
	// Columns names the column (CSV) or property (GeoJSON) of a field where the usual names do not find it, by field as
	// in Fields. An empty column leaves the field out. NDJSON has fixed names, and GeoJSON a fixed place for lat and lng;
	// there it is an error. The column's case and punctuation matter only where two differ in nothing else.
	Columns map[string]string
	// MaxRowBytes bounds one row: a CSV record, an NDJSON line, a GeoJSON feature. 0 means shortline.MaxStoreJSON.
	MaxRowBytes int
}

// maxSkipBytes bounds how far an over-long line or value is followed before the file is given up.
const maxSkipBytes = 16 << 20

// Row is one good row.
type Row struct {
	// Line is the number, from 1, of the line of the file where the row starts.
	Line int
	// Store is normalised and valid.
	Store shortline.Store
	// Notes tells which values were changed in a way that loses something, such as an address that was cut.
	Notes []shortline.FieldError
}

// RowError is one bad row; reading goes on after it.
type RowError struct {
	// Line is the number, from 1, of the line of the file where the row starts.
	Line int `json:"line"`
	// ID is the row's id as far as it could be read. It need not be a valid one.
	ID string `json:"id,omitempty"`
	// Faults has at least one entry; its Field is "row" for what concerns the row as a whole.
	Faults []shortline.FieldError `json:"errors"`
}

// Bounds of what a RowError says, for rows may be hostile.
const (
	maxFaults      = 16
	maxDetailBytes = 400
	rowField       = "row"
)

// Error tells the line, the store and every fault in one line of printable text.
func (e *RowError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "line %d", e.Line)
	if e.ID != "" {
		id := e.ID
		if _, err := shortline.ParseStoreID(id); err != nil {
			id = strconv.Quote(id)
		}
		fmt.Fprintf(&b, " (store %s)", id)
	}
	for i, f := range e.Faults {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		if f.Field != rowField {
			b.WriteString(f.Field + ": ")
		}
		b.WriteString(f.Detail)
	}
	return b.String()
}

// rowError returns a RowError of bounded size.
func rowError(line int, id string, faults []shortline.FieldError) *RowError {
	if more := len(faults) - maxFaults; more > 0 {
		last := shortline.FieldError{Field: rowField, Detail: fmt.Sprintf("and %d more faults", more)}
		faults = append(faults[:maxFaults:maxFaults], last)
	}
	for i := range faults {
		faults[i].Detail = strings.Map(printable, cut(faults[i].Detail, maxDetailBytes))
	}
	return &RowError{Line: line, ID: cut(id, 64), Faults: faults}
}

func printable(r rune) rune {
	if unicode.IsControl(r) || isBreak(r) {
		return '\uFFFD'
	}
	return r
}

// rowFault is a RowError about the row as a whole.
func rowFault(line int, format string, args ...any) *RowError {
	return rowError(line, "", []shortline.FieldError{{Field: rowField, Detail: fmt.Sprintf(format, args...)}})
}

// Reader reads the rows of one file. It is not safe for use by several goroutines.
type Reader struct {
	src interface{ next() (Row, error) }
	col *columns
	err error // the end of the file or what ended it
}

// NewReader prepares to read r as o says. It reads the beginning of r, for CSV the header, and fails where that cannot
// be what o.Format says, where a required field has no column, or where o.Columns names a field or column that is not
// there. It reads ahead of the rows that it delivers.
func NewReader(r io.Reader, o Options) (*Reader, error) {
	if o.MaxRowBytes <= 0 {
		o.MaxRowBytes = shortline.MaxStoreJSON
	}
	col, err := newColumns(o)
	if err != nil {
		return nil, err
	}
	br, err := openText(r)
	if err != nil {
		return nil, err
	}
	out := &Reader{col: col}
	switch o.Format {
	case CSV:
		src, err := newCSV(br, o.MaxRowBytes, col)
		if err != nil {
			return nil, err
		}
		out.src = src
	case NDJSON:
		out.src = &ndjsonSource{lines: newLines(br, o.MaxRowBytes)}
	case GeoJSON:
		out.src = newGeoJSON(br, o.MaxRowBytes, col)
	default:
		return nil, fmt.Errorf("unknown format %q; known are csv, ndjson and geojson", o.Format)
	}
	return out, nil
}

// Next returns the next good row. A *RowError is a bad row: call Next again. io.EOF is the end of the file, and any other
// error is why the rest of it cannot be read; both come again on every further call. Lines never decrease from call to
// call. The Row does not share memory with the Reader's buffers.
func (r *Reader) Next() (Row, error) {
	if r.err != nil {
		return Row{}, r.err
	}
	row, err := r.src.next()
	var bad *RowError
	if err != nil && !errors.As(err, &bad) {
		r.err = err
	}
	return row, err
}

// Mapping tells which column (CSV) or property (GeoJSON, of those seen so far) each field is read from, by field as in
// Fields. A field without one is not in it, except with "" where Options.Columns leaves it out. Given as Options.Columns
// for the same CSV file it yields itself.
func (r *Reader) Mapping() map[string]string { return r.col.mapping() }

// Ignored lists the columns that are not read, in the order of the file; for GeoJSON the properties met so far, at most
// a few hundred.
func (r *Reader) Ignored() []string { return append([]string(nil), r.col.ignored...) }

// AppendNDJSON appends the store and a line feed to dst, in the form that NDJSON reads.
func AppendNDJSON(dst []byte, s *shortline.Store) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return dst, fmt.Errorf("encode store %s: %w", s.ID, err)
	}
	return append(append(dst, b...), '\n'), nil
}

// openText drops a UTF-8 byte order mark and refuses what is evidently not UTF-8 text.
func openText(r io.Reader) (*bufio.Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the beginning: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		_, err := br.Discard(3)
		return br, err
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return nil, errors.New("the data is compressed with gzip; unpack it first")
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return nil, errors.New("the data is a ZIP archive or an Excel workbook; unpack it, or save it as CSV UTF-8")
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")), bytes.IndexByte(head, 0) >= 0:
		return nil, errors.New("the data is UTF-16 or not text at all; save it as UTF-8")
	}
	return br, nil
}
