package storefile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shortline/shortline"
)

// values are the texts of one row, cleaned, on their way to a store.
type values struct {
	text   [numFields]string
	tags   []string // beside the ones in text
	point  *point   // in place of the texts of lat and lng
	faults []shortline.FieldError
}

type point struct{ lat, lng float64 }

func (v *values) fault(f field, detail string) {
	v.faults = append(v.faults, shortline.FieldError{Field: fields[f].path, Detail: detail})
}

// row makes the Row or the *RowError.
func (v *values) row(line int) (Row, error) {
	t := &v.text
	row := Row{Line: line}
	row.Store = shortline.Store{
		ID:    shortline.StoreID(storeID(t[fieldID])),
		Name:  t[fieldName],
		Brand: t[fieldBrand],
		Hours: t[fieldHours],
		Tags:  append(splitTags(t[fieldTags]), v.tags...),
		Phone: t[fieldPhone],
		Address: &shortline.Address{
			Street:   joinStreet(t[fieldHouseNumber], t[fieldStreet]),
			City:     t[fieldCity],
			State:    t[fieldState],
			Postcode: t[fieldPostcode],
			Country:  t[fieldCountry],
		},
	}
	s := &row.Store
	if v.point != nil {
		s.Lat, s.Lng = v.point.lat, v.point.lng
	} else if !v.faulty(fieldLat) && !v.faulty(fieldLng) {
		s.Lat, s.Lng = v.number(fieldLat), v.number(fieldLng)
		v.require(fieldLat)
		v.require(fieldLng)
	}
	if !v.faulty(fieldService) {
		s.ServiceS = v.number(fieldService)
	}
	if tz, detail := fixTimezone(t[fieldTimezone]); detail != "" {
		v.fault(fieldTimezone, detail)
	} else {
		s.Timezone = tz
	}
	s.Normalize()
	row.Notes = fitAddress(s.Address)
	v.validate(s)
	if len(v.faults) > 0 {
		return Row{}, rowError(line, string(s.ID), v.faults)
	}
	return row, nil
}

func (v *values) faulty(f field) bool {
	return slices.ContainsFunc(v.faults, func(e shortline.FieldError) bool { return e.Field == fields[f].path })
}

func (v *values) require(f field) {
	if v.text[f] == "" && !v.faulty(f) {
		v.fault(f, "is required")
	}
}

// validate adds the domain's faults, except of fields that have one already.
func (v *values) validate(s *shortline.Store) {
	var invalid *shortline.InvalidError
	if !errors.As(s.Validate(), &invalid) {
		return
	}
	own := slices.Clone(v.faults)
	for _, e := range invalid.Faults {
		if slices.ContainsFunc(own, func(o shortline.FieldError) bool { return o.Field == e.Field }) {
			continue
		}
		if e.Field == "timezone" || e.Field == "hours" {
			e.Detail = cut(e.Detail, maxDetailBytes/2) + "; a mapping of " + e.Field + " to no column imports the stores without it"
		}
		v.faults = append(v.faults, e)
	}
}

// number reads a number as programs write it; an empty text is 0.
func (v *values) number(f field) float64 {
	s := v.text[f]
	if s == "" {
		return 0
	}
	n, err := strconv.ParseFloat(s, 64)
	if err == nil && strings.Trim(s, "0123456789+-.eE") == "" { // not NaN, Inf or hexadecimal
		return n
	}
	if dotted := strings.Replace(s, ",", ".", 1); dotted != s {
		if _, err := strconv.ParseFloat(dotted, 64); err == nil {
			v.fault(f, fmt.Sprintf("%q has a decimal comma; write %s", s, dotted))
			return 0
		}
	}
	v.fault(f, fmt.Sprintf("%q is not a decimal number such as 48.8566", cut(s, 40)))
	return 0
}

var osmID = regexp.MustCompile(`^(node|way|relation)/([0-9]+)$`)

// storeID writes the id of an OpenStreetMap object ("node/123") in letters that an id may have. It leaves others alone.
func storeID(s string) string {
	if strings.IndexByte(s, '/') < 0 {
		return s
	}
	return osmID.ReplaceAllString(s, "$1-$2")
}

// joinStreet puts the number before the street, unless the street has it.
func joinStreet(number, street string) string {
	if number == "" || street == "" || slices.Contains(strings.Fields(street), number) {
		return street
	}
	return number + " " + street
}

func splitTags(s string) []string {
	var tags []string
	for t := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ';' || r == '|' }) {
		if t = strings.TrimSpace(t); t != "" {
			tags = append(tags, t)
		}
	}
	return tags
}

// fitAddress cuts the parts of an address that are too long, for they are for people to read and name nothing, and says
// so. A store is not worth losing for them.
func fitAddress(a *shortline.Address) []shortline.FieldError {
	if a == nil {
		return nil
	}
	var notes []shortline.FieldError
	fit := func(f field, p *string) {
		if len(*p) > shortline.MaxTextBytes {
			detail := fmt.Sprintf("is %d bytes long and was cut to %d", len(*p), shortline.MaxTextBytes)
			notes = append(notes, shortline.FieldError{Field: fields[f].path, Detail: detail})
			*p = cut(*p, shortline.MaxTextBytes)
		}
	}
	fit(fieldStreet, &a.Street)
	fit(fieldCity, &a.City)
	fit(fieldState, &a.State)
	fit(fieldPostcode, &a.Postcode)
	fit(fieldCountry, &a.Country)
	return notes
}

// cut shortens s to at most n bytes, at the end of a character, and shows it with an ellipsis.
func cut(s string, n int) string {
	const ellipsis = "…"
	if len(s) <= n {
		return s
	}
	n -= len(ellipsis)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimRightFunc(s[:n], unicode.IsSpace) + ellipsis
}

// windows1252 has the characters that the bytes 0x80 to 0x9f stand for in Windows-1252, a blank for those without one.
var windows1252 = [32]rune{
	'€', ' ', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', ' ', 'Ž', ' ',
	' ', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', ' ', 'ž', 'Ÿ',
}

// cleanText trims s, makes one blank of blanks with a line break or tab among them, and mends the code points U+0080 to
// U+009F. Other control characters stay, for validation to refuse.
func cleanText(s string) string {
	s = strings.TrimSpace(s)
	odd := func(r rune) bool { return isBreak(r) || r >= 0x80 && r <= 0x9f }
	if !strings.ContainsFunc(s, odd) {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		gap := len(s) - len(strings.TrimLeft(s, " \t\r\n\v\f\u2028\u2029"))
		switch {
		case gap > 0 && strings.ContainsFunc(s[:gap], isBreak):
			b.WriteByte(' ')
			n = gap
		case gap > 0:
			b.WriteString(s[:gap])
			n = gap
		case r >= 0x80 && r <= 0x9f:
			b.WriteRune(windows1252[r-0x80])
		default:
			b.WriteString(s[:n]) // as it is, valid or not
		}
		s = s[n:]
	}
	return strings.TrimSpace(b.String())
}

func isBreak(r rune) bool {
	return r >= '\t' && r <= '\r' || r == '\u2028' || r == '\u2029'
}

var utcOffset = regexp.MustCompile(`(?i)^(?:(?:GMT|UTC|Z)([+-]\d[\d:]*)?|([+-]\d[\d:]*))(?:\s+(\S.*))?$`)

// zoneNames corrects names that files of stores have and the zone database has not: cities that are no zones, and names
// cut off by a field of 30 characters.
var zoneNames = map[string]string{
	"Asia/Beijing":         "Asia/Shanghai",
	"Asia/New_Delhi":       "Asia/Kolkata",
	"America/Argentina/Bu": "America/Argentina/Buenos_Aires",
	"America/Oranjestad":   "America/Aruba",
	"America/Willemstad":   "America/Curacao",
	"America/Dawson_Cree":  "America/Dawson_Creek",
	"America/Port_of_Spa":  "America/Port_of_Spain",
}

// fixTimezone finds the IANA name in s: an offset before a name is dropped ("GMT+09:00 Asia/Seoul"), an offset alone
// becomes the zone of that offset where it is of whole hours ("GMT+03:00" is Etc/GMT-3, for these names count westward),
// and known wrong names are corrected. It does not look whether the zone exists. detail says why there is none.
func fixTimezone(s string) (name, detail string) {
	m := utcOffset.FindStringSubmatch(s)
	if m == nil {
		name = s
	} else if m[3] != "" {
		name = m[3]
	} else {
		return fixedZone(s, m[1]+m[2])
	}
	if better, ok := zoneNames[name]; ok {
		return better, ""
	}
	return name, ""
}

// fixedZone is the zone of an offset from UTC such as +3, +03:00, +0300 or +000000; "" is none.
func fixedZone(s, offset string) (name, detail string) {
	if offset == "" {
		return "Etc/UTC", ""
	}
	digits := strings.ReplaceAll(offset[1:], ":", "")
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	hours, _ := strconv.Atoi(digits[:2])
	rest := strings.Trim(digits[2:], "0")
	east := offset[0] == '+'
	switch {
	case len(digits) > 6 || rest != "" || east && hours > 14 || !east && hours > 12:
		return "", fmt.Sprintf("%q is an offset without a zone of its own; give an IANA name such as \"Asia/Kolkata\"", cut(s, 40))
	case hours == 0:
		return "Etc/UTC", ""
	case east:
		return fmt.Sprintf("Etc/GMT-%d", hours), ""
	}
	return fmt.Sprintf("Etc/GMT+%d", hours), ""
}
