package shortline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// StoreID names a store: 1 to 64 characters of A-Z, a-z, 0-9, '-', '_' and '.'. It is chosen by whoever owns the store.
type StoreID string

// ParseStoreID checks s and returns it as a StoreID. The error is an *InvalidError for the field "id".
func ParseStoreID(s string) (StoreID, error) {
	if detail := storeIDFault(s); detail != "" {
		return "", &InvalidError{Faults: []FieldError{{Field: "id", Detail: detail}}}
	}
	return StoreID(s), nil
}

func storeIDFault(s string) string {
	switch {
	case s == "":
		return "is required"
	case len(s) > 64:
		return fmt.Sprintf("is %d bytes long, at most 64 are allowed", len(s))
	case s == "." || s == "..":
		return fmt.Sprintf("%q cannot be an id, because it means a folder in a URL", s)
	}
	for _, r := range s {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
		if !ok {
			return fmt.Sprintf("contains %q; allowed are letters A-Z and a-z, digits, '-', '_' and '.'", r)
		}
	}
	return ""
}

// Address is where a store is, for people to read. Every part may be empty.
type Address struct {
	Street   string `json:"street,omitempty" maxLength:"400"`
	City     string `json:"city,omitempty" maxLength:"400"`
	State    string `json:"state,omitempty" maxLength:"400"`
	Postcode string `json:"postcode,omitempty" maxLength:"400"`
	Country  string `json:"country,omitempty" maxLength:"400" doc:"ISO 3166 code or name"`
}

// Store is a place with a queue. Its JSON form is the one of the public API.
type Store struct {
	ID    StoreID `json:"id"`
	Name  string  `json:"name"`
	Brand string  `json:"brand,omitempty"`
	// Lat and Lng are WGS 84 degrees, -90 to 90 and -180 to 180.
	Lat     float64  `json:"lat"`
	Lng     float64  `json:"lng"`
	Address *Address `json:"address,omitempty"`
	// Timezone is an IANA name such as "America/New_York"; empty where it is not known, and then Hours cannot be evaluated.
	Timezone string `json:"timezone,omitempty"`
	// Hours is in OpenStreetMap's opening_hours form; see ParseHours for the part of it that is understood.
	Hours string   `json:"hours,omitempty"`
	Tags  []string `json:"tags,omitempty"`
	Phone string   `json:"phone,omitempty"`
	// ServiceS is the mean number of seconds to serve one person; 0 where it is not given.
	ServiceS float64 `json:"service_s,omitempty"`
	// ServiceLearned says that ServiceS was not given but is learned (Queue.LearnedS). Only answers have it; what comes back with it
	// gives no service time.
	ServiceLearned bool `json:"service_learned,omitempty" doc:"service_s was not given: it is learned from the store's own reports. Sent back like this, it stays so"`
}

// Limits of a store's fields.
const (
	MaxNameBytes    = 200
	MaxTextBytes    = 400
	MaxHoursBytes   = 1024
	MaxTags         = 32
	MaxTagBytes     = 64
	MaxServiceS     = 86400
	MaxStoreJSON    = 32 << 10
	maxTimezoneSize = 64
)

// Normalize brings s into the one form in which it is stored and compared: text trimmed, an empty address dropped, tags
// sorted and without repetitions, negative zero made zero, a service time that was learned left out. Two stores that mean the same are equal after it.
func (s *Store) Normalize() {
	s.Lat, s.Lng, s.ServiceS = s.Lat+0, s.Lng+0, s.ServiceS+0 // -0 + 0 = +0
	if s.ServiceLearned {
		s.ServiceS, s.ServiceLearned = 0, false
	}
	for _, p := range []*string{&s.Name, &s.Brand, &s.Timezone, &s.Hours, &s.Phone} {
		*p = strings.TrimSpace(*p)
	}
	if s.Address != nil {
		a := *s.Address
		for _, p := range []*string{&a.Street, &a.City, &a.State, &a.Postcode, &a.Country} {
			*p = strings.TrimSpace(*p)
		}
		s.Address = &a
		if a == (Address{}) {
			s.Address = nil
		}
	}
	if len(s.Tags) == 0 {
		s.Tags = nil
		return
	}
	tags := make([]string, len(s.Tags))
	for i, t := range s.Tags {
		tags[i] = strings.TrimSpace(t)
	}
	slices.Sort(tags)
	s.Tags = slices.Compact(tags)
}

// Validate reports every fault of s as one *InvalidError, or nil. It loads the time zone, so the zone database must be there.
func (s *Store) Validate() error {
	var f faults
	if d := storeIDFault(string(s.ID)); d != "" {
		f.add("id", "%s", d)
	}
	if s.Name == "" {
		f.add("name", "is required")
	}
	f.coordinates("lat", s.Lat, "lng", s.Lng)
	f.text("name", s.Name, MaxNameBytes)
	f.text("brand", s.Brand, MaxTextBytes)
	f.text("phone", s.Phone, MaxTextBytes)
	if a := s.Address; a != nil {
		f.text("address.street", a.Street, MaxTextBytes)
		f.text("address.city", a.City, MaxTextBytes)
		f.text("address.state", a.State, MaxTextBytes)
		f.text("address.postcode", a.Postcode, MaxTextBytes)
		f.text("address.country", a.Country, MaxTextBytes)
	}
	if s.Timezone != "" {
		if _, err := LoadTimezone(s.Timezone); err != nil {
			f.add("timezone", "%v", err)
		}
	}
	if s.Hours != "" {
		if len(s.Hours) > MaxHoursBytes {
			f.add("hours", "is %d bytes long, at most %d are allowed", len(s.Hours), MaxHoursBytes)
		} else if _, err := ParseHours(s.Hours); err != nil {
			f.add("hours", "%v", err)
		}
	}
	if len(s.Tags) > MaxTags {
		f.add("tags", "has %d entries, at most %d are allowed", len(s.Tags), MaxTags)
	}
	for i, t := range s.Tags {
		name := fmt.Sprintf("tags[%d]", i)
		if t == "" {
			f.add(name, "is empty")
		}
		f.text(name, t, MaxTagBytes)
	}
	if math.IsNaN(s.ServiceS) || s.ServiceS < 0 || s.ServiceS > MaxServiceS {
		f.add("service_s", "must be between 0 and %d seconds", MaxServiceS)
	}
	return f.err()
}

// CheckCoordinates reports what is wrong with a position whose parts the client called latField and lngField, as an
// *InvalidError; it notices latitude and longitude that look swapped.
func CheckCoordinates(latField string, lat float64, lngField string, lng float64) error {
	var f faults
	f.coordinates(latField, lat, lngField, lng)
	return f.err()
}

func (f *faults) coordinates(latField string, lat float64, lngField string, lng float64) {
	latOK, lngOK := lat >= -90 && lat <= 90, lng >= -180 && lng <= 180
	if !latOK && lat >= -180 && lat <= 180 && lng >= -90 && lng <= 90 {
		f.add(latField, "%v is not between -90 and 90; latitude and longitude look swapped (did you mean %s=%v, %s=%v?)", lat, latField, lng, lngField, lat)
		return
	}
	if !latOK {
		f.add(latField, "%v is not a latitude between -90 and 90 degrees", lat)
	}
	if !lngOK {
		f.add(lngField, "%v is not a longitude between -180 and 180 degrees", lng)
	}
}

func (f *faults) text(field, s string, maxBytes int) {
	switch {
	case len(s) > maxBytes:
		f.add(field, "is %d bytes long, at most %d are allowed", len(s), maxBytes)
	case !utf8.ValidString(s):
		f.add(field, "is not valid UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		f.add(field, "contains control characters; line breaks and tabs are not allowed")
	}
}

// LoadTimezone returns the location of an IANA time zone name. Unlike time.LoadLocation it refuses "" and "Local", and the
// files that lie beside the zones on some machines only.
func LoadTimezone(name string) (*time.Location, error) {
	machine := name == "" || name == "Local" || name == "localtime" || name == "posixrules" || name == "Factory" ||
		strings.HasPrefix(name, "posix/") || strings.HasPrefix(name, "right/")
	if machine || len(name) > maxTimezoneSize || strings.Contains(name, "..") {
		return nil, fmt.Errorf("%q is not an IANA time zone such as \"Europe/Berlin\"", name)
	}
	if loc, ok := zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is not an IANA time zone such as \"Europe/Berlin\"", name)
	}
	zones.Store(name, loc)
	return loc, nil
}

// zones remembers the zones loaded so far, by name: reading one from its file costs more than all else that is checked of
// a store. There are some 600, so it is bounded.
var zones sync.Map

// Equal tells whether two normalised stores are the same in every field.
func (s *Store) Equal(o *Store) bool {
	a, b := *s, *o
	addressEqual := a.Address == b.Address || a.Address != nil && b.Address != nil && *a.Address == *b.Address
	tagsEqual := slices.Equal(a.Tags, b.Tags)
	return addressEqual && tagsEqual && a.ID == b.ID && a.Name == b.Name && a.Brand == b.Brand && a.Lat == b.Lat && a.Lng == b.Lng &&
		a.Timezone == b.Timezone && a.Hours == b.Hours && a.Phone == b.Phone && a.ServiceS == b.ServiceS && a.ServiceLearned == b.ServiceLearned
}

// DecodeStore reads one store from its JSON form, refusing unknown fields and anything after the object, and normalises
// it. It does not validate. The error is an *InvalidError or a syntax error fit to be shown to the client.
func DecodeStore(data []byte) (Store, error) {
	var s Store
	if !utf8.Valid(data) {
		return s, &InvalidError{Faults: []FieldError{{Field: "body", Detail: "is not valid UTF-8"}}}
	}
	if err := decodeStrict(data, &s); err != nil {
		return s, err
	}
	s.Normalize()
	return s, nil
}

// decodeStrict unmarshals one JSON value and nothing else; lat and lng must be there, for zero is a place.
func decodeStrict(data []byte, s *Store) error {
	type plain Store
	shadow := struct {
		*plain
		Lat *float64 `json:"lat"`
		Lng *float64 `json:"lng"`
	}{plain: (*plain)(s)}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&shadow); err != nil {
		return storeJSONFault(err)
	}
	if _, err := dec.Token(); err != io.EOF { // dec.More would overlook a bracket
		return errors.New("not a store in JSON: more data after the object")
	}
	var f faults
	if shadow.Lat == nil {
		f.add("lat", "is required")
	} else {
		s.Lat = *shadow.Lat
	}
	if shadow.Lng == nil {
		f.add("lng", "is required")
	} else {
		s.Lng = *shadow.Lng
	}
	return f.err()
}

// storeJSONFault says what is wrong with the JSON in the client's terms, without Go's.
func storeJSONFault(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		want := wrong.Type.Kind().String()
		switch wrong.Type.Kind() {
		case reflect.Float64:
			want = "number"
		case reflect.Struct:
			want = "object"
		case reflect.Slice:
			want = "array"
		}
		detail := fmt.Sprintf("expected a JSON %s, not %s", want, wrong.Value)
		if strings.HasPrefix(wrong.Value, "number ") {
			detail = wrong.Value + " is out of range"
		}
		return &InvalidError{Faults: []FieldError{{Field: strings.TrimPrefix(wrong.Field, "plain."), Detail: detail}}}
	case errors.As(err, &wrong):
		return fmt.Errorf("not a store in JSON: expected an object, not %s", wrong.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("not a store in JSON: the text ends too early")
	}
	return fmt.Errorf("not a store in JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}
