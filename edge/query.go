package edge

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// Bounds and defaults of a nearby query.
const (
	defaultRadius geo.Metres = 5_000
	maxRadius     geo.Metres = 21_000_000 // more than half the circumference: the whole Earth
	defaultLimit             = 5
	maxLimit                 = 100
	maxTagFilters            = 8
)

// parameters calls set with every parameter of a raw query, in order, decoded. It goes without the map that net/url would
// make, because nearby is asked more often than everything else together.
func parameters(raw string, set func(name, value string) error) error {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := unescape(name)
		if err != nil {
			return malformed("query", "%q is not properly encoded; encode special characters as %%XX", clip(pair))
		}
		if value, err = unescape(value); err != nil {
			return malformed(clip(name), "the value is not properly encoded; encode special characters as %%XX")
		}
		if !utf8.ValidString(name) {
			return malformed("query", "%q is not valid UTF-8", clip(pair))
		}
		if !utf8.ValidString(value) {
			return malformed(clip(name), "the value is not valid UTF-8")
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	return url.QueryUnescape(s)
}

// clip shortens what a client sent to what can be quoted back.
func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// unknownParameter is the refusal of a parameter that a call does not have.
func unknownParameter(name string, known []string) error {
	return malformed(clip(name), "is not a parameter of this call; there are: %s", strings.Join(known, ", "))
}

// onlyConsistency refuses every parameter but consistency, which it returns.
func onlyConsistency(raw string) (consistency, error) {
	var level consistency
	err := parameters(raw, func(name, value string) (err error) {
		if name != "consistency" {
			return unknownParameter(name, []string{"consistency"})
		}
		if level != consistencyDefault {
			return malformed(name, "is given more than once")
		}
		level, err = parseConsistency(value)
		return err
	})
	return level, err
}

// noParameters refuses every parameter.
func noParameters(raw string) error {
	return parameters(raw, func(name, _ string) error {
		return malformed(clip(name), "is not a parameter of this call; it has none")
	})
}

// nearbyParameters are the parameters of GET /v1/nearby.
var nearbyParameters = []string{"lat", "lng", "radius", "limit", "sort", "open_now", "max_wait", "tag", "brand", "cursor", "fields", "consistency", "at", "speed"}

// nearbyQuery is a GET /v1/nearby as asked.
type nearbyQuery struct {
	at      geo.Point
	radius  geo.Metres
	limit   int
	openNow bool
	maxWait int // seconds; -1: any
	tags    []string
	brand   string // in lower case; empty: any
	cursor  cursor
	after   bool // whether cursor is set
	fields  fieldMask
	level   consistency
	rank    ranking
	speed   float64   // metres a second
	future  time.Time // the time asked about; zero: now
}

// parseNearby reads and checks a raw query. The error names every parameter at fault that could be told before the first
// one that cannot be read.
func parseNearby(raw string, now time.Time) (nearbyQuery, error) {
	q := nearbyQuery{radius: defaultRadius, limit: defaultLimit, maxWait: -1, fields: allFields, speed: defaultSpeed}
	var seen uint32
	var cursorText string
	var faults []shortline.FieldError
	fault := func(err error) {
		if e := asAPIError(err); e.kind.status == kindInvalid.status {
			faults = append(faults, e.errors...)
		}
	}
	err := parameters(raw, func(name, value string) (err error) {
		i := slices.Index(nearbyParameters, name)
		if i < 0 {
			return unknownParameter(name, nearbyParameters)
		}
		if name != "tag" && seen&(1<<i) != 0 {
			return malformed(name, "is given more than once")
		}
		seen |= 1 << i
		switch name {
		case "lat":
			q.at.Lat, err = parseNumber(name, value)
		case "lng":
			q.at.Lng, err = parseNumber(name, value)
		case "radius":
			q.radius, err = parseRadius(value)
		case "limit":
			if q.limit, err = strconv.Atoi(value); err != nil {
				return malformed(name, "%q is not a whole number", clip(value))
			}
			if q.limit < 1 || q.limit > maxLimit {
				fault(invalid(name, "%d is not between 1 and %d", q.limit, maxLimit))
			}
		case "sort":
			rank, ok := rankingNames[value]
			if !ok {
				return malformed(name, "%q is not one of distance, wait, fastest", clip(value))
			}
			q.rank = rank
		case "open_now":
			if q.openNow, err = parseBool(name, value); err != nil {
				return err
			}
		case "max_wait":
			if q.maxWait, err = strconv.Atoi(value); err != nil {
				return malformed(name, "%q is not a whole number of seconds", clip(value))
			}
			if q.maxWait < 0 {
				fault(invalid(name, "%d seconds is less than nothing", q.maxWait))
			}
		case "tag":
			if value == "" || len(value) > shortline.MaxTagBytes {
				fault(invalid(name, "must have 1 to %d bytes", shortline.MaxTagBytes))
			}
			if q.tags = append(q.tags, value); len(q.tags) > maxTagFilters {
				return malformed(name, "is given more than %d times", maxTagFilters)
			}
		case "brand":
			if value == "" || len(value) > shortline.MaxTextBytes {
				fault(invalid(name, "must have 1 to %d bytes", shortline.MaxTextBytes))
			}
			q.brand = strings.ToLower(value)
		case "cursor":
			q.after, cursorText = true, value
		case "fields":
			q.fields, err = parseFields(value)
		case "consistency":
			q.level, err = parseConsistency(value)
		case "at":
			q.future, err = parseFuture(value, now)
		case "speed":
			q.speed, err = parseSpeed(value)
		}
		if isInvalid(err) {
			fault(err)
			err = nil
		}
		return err
	})
	if err != nil {
		return q, err
	}
	if seen&1 == 0 {
		return q, malformed("lat", "is required: the latitude in degrees, such as lat=40.7580")
	}
	if seen&2 == 0 {
		return q, malformed("lng", "is required: the longitude in degrees, such as lng=-73.9855")
	}
	if err := shortline.CheckCoordinates("lat", q.at.Lat, "lng", q.at.Lng); err != nil {
		fault(err)
	}
	if q.rank != byFastest && seen&(1<<slices.Index(nearbyParameters, "speed")) != 0 {
		fault(invalid("speed", "is for sort=fastest alone"))
	}
	if len(faults) > 0 {
		return q, &shortline.InvalidError{Faults: faults}
	}
	if q.after {
		if q.cursor, err = parseCursor(cursorText); err != nil {
			return q, err
		}
		if q.cursor.query != q.fingerprint() {
			return q, malformed("cursor", "is of another query; send it with the same lat, lng, radius and filters as the page before")
		}
	}
	return q, nil
}

func isInvalid(err error) bool {
	return err != nil && asAPIError(err).kind.status == kindInvalid.status
}

func parseNumber(name, value string) (float64, error) {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || notDecimal(value) {
		return 0, malformed(name, "%q is not a number of degrees, such as 40.7580", clip(value))
	}
	return v + 0, nil
}

// notDecimal tells whether a number that strconv can read is written in a way of Go's: 0x1p-2 or 1_000.
func notDecimal(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; c == 'x' || c == 'p' || s[i] == '_' {
			return true
		}
	}
	return false
}

func parseBool(name, value string) (bool, error) {
	switch value {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, malformed(name, "%q is neither true nor false", clip(value))
}

// parseRadius reads metres, or a number with the unit m, km or mi.
func parseRadius(value string) (geo.Metres, error) {
	number, unit := value, geo.Metres(1)
	for _, u := range []struct {
		suffix string
		metres geo.Metres
	}{{"km", 1000}, {"mi", 1609.344}, {"m", 1}} {
		if rest, ok := strings.CutSuffix(value, u.suffix); ok {
			number, unit = rest, u.metres
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(v) || notDecimal(number) {
		return 0, malformed("radius", "%q is not a distance: write metres, or a number with m, km or mi, such as 800, 1.5km or 2mi", clip(value))
	}
	if r := geo.Metres(v) * unit; r > 0 && r <= maxRadius {
		return r, nil
	}
	return 0, invalid("radius", "%s is not more than 0 and at most %.0f km, which is the whole Earth", clip(value), float64(maxRadius/1000))
}

// fieldMask says which members the stores of a nearby answer have.
type fieldMask uint16

// The members of a store in a nearby answer, in their order.
const (
	fieldID fieldMask = 1 << iota
	fieldName
	fieldLat
	fieldLng
	fieldDistance
	fieldAddress
	fieldOpen
	fieldQueue
	allFields fieldMask = 1<<iota - 1
)

var fieldNames = []string{"id", "name", "lat", "lng", "distance_m", "address", "open", "queue"}

func parseFields(value string) (fieldMask, error) {
	var mask fieldMask
	for name := range strings.SplitSeq(value, ",") {
		i := slices.Index(fieldNames, strings.TrimSpace(name))
		if i < 0 {
			return 0, malformed("fields", "%q is not a field; there are: %s", clip(name), strings.Join(fieldNames, ", "))
		}
		mask |= 1 << i
	}
	return mask, nil
}

// fingerprint tells queries apart whose answers are ordered or filtered in another way; limit, fields and consistency may
// change from page to page.
func (q *nearbyQuery) fingerprint() uint64 {
	h := fnv.New64a()
	var b [8]byte
	for _, v := range []uint64{math.Float64bits(q.at.Lat), math.Float64bits(q.at.Lng), math.Float64bits(float64(q.radius)), uint64(int64(q.maxWait)),
		uint64(q.rank), math.Float64bits(q.speed), uint64(q.future.Unix())} {
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = h.Write(b[:])
	}
	_, _ = h.Write([]byte(strconv.FormatBool(q.openNow) + "\x00" + q.brand))
	for _, t := range q.tags {
		_, _ = h.Write([]byte("\x00" + t))
	}
	return h.Sum64()
}

// cursor is the place after which a page of nearby begins: what the last hit was ranked by, its distance, exactly, and its id.
type cursor struct {
	query uint64 // the fingerprint of the query that it belongs to
	key   float64
	mark  geo.Mark
	id    shortline.StoreID
}

const (
	cursorVersion = 2
	cursorHead    = 1 + 3*8
)

func (c cursor) String() string { return string(c.appendTo(nil)) }

func (c cursor) appendTo(to []byte) []byte {
	var room [cursorHead + 64]byte
	b := append(room[:0], cursorVersion)
	b = binary.LittleEndian.AppendUint64(b, c.query)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(c.key))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.mark))
	return base64.RawURLEncoding.AppendEncode(to, append(b, c.id...))
}

func parseCursor(s string) (cursor, error) {
	bad := malformed("cursor", "is not a cursor; send next_cursor of the page before just as it was received")
	if len(s) > 130 || strings.ContainsAny(s, "\r\n") { // base64 would overlook line ends
		return cursor{}, bad
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= cursorHead || b[0] != cursorVersion {
		return cursor{}, bad
	}
	id, err := shortline.ParseStoreID(string(b[cursorHead:]))
	key := math.Float64frombits(binary.LittleEndian.Uint64(b[9:]))
	if err != nil || !(key >= 0) {
		return cursor{}, bad
	}
	return cursor{query: binary.LittleEndian.Uint64(b[1:]), key: key, mark: geo.Mark(binary.LittleEndian.Uint64(b[17:])), id: id}, nil
}
