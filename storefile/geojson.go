package storefile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shortline/shortline"
)

// geoSource walks through the structure of GeoJSON and decodes one feature at a time. The structure is followed byte by
// byte because encoding/json's Decoder takes every string and value into memory whole, and cannot go on after a bad one.
type geoSource struct {
	scan  jsonScanner
	col   *columns
	state geoState
	more  bool    // a member or feature came before, so that a comma must follow
	top   capture // the object at the top, as long as it may be a Feature
	start int     // the line where that starts
	any   bool    // there was a value at all
}

// geoState is where in the structure the reading stands.
type geoState int

const (
	betweenValues geoState = iota // at the top
	inObject                      // at the top, before a member; it may be a Feature or a FeatureCollection
	inFeatures                    // before an element of the FeatureCollection's features
	inCollection                  // after its features
)

func newGeoJSON(r *bufio.Reader, maxBytes int, col *columns) *geoSource {
	return &geoSource{scan: jsonScanner{r: r, line: 1}, col: col, top: capture{max: maxBytes}}
}

func (g *geoSource) next() (Row, error) {
	for {
		c, err := g.scan.peek()
		if errors.Is(err, io.EOF) && g.state == betweenValues {
			if !g.any {
				return Row{}, errors.New("the file is empty; it must have a GeoJSON FeatureCollection")
			}
			return Row{}, io.EOF
		}
		if err != nil {
			return Row{}, g.scan.wrap(err)
		}
		var raw []byte
		switch g.state {
		case betweenValues:
			err = g.open(c)
		case inObject, inCollection:
			raw, err = g.member(c)
		case inFeatures:
			raw, err = g.feature(c)
		}
		if err != nil {
			return Row{}, g.scan.wrap(err)
		}
		if raw == nil {
			continue
		}
		if g.top.over {
			return Row{}, rowFault(g.start, "the feature is larger than %d bytes", g.top.max)
		}
		return g.row(g.start, raw)
	}
}

// open starts a value at the top.
func (g *geoSource) open(c byte) error {
	g.any = true
	switch c {
	case '{':
		g.start = g.scan.line
		g.top.reset()
		g.state, g.more = inObject, false
		return g.scan.take(&g.top)
	case 0x1e: // the record separator of RFC 8142
		return g.scan.take(nil)
	case '[':
		return errors.New("the file is a JSON array; GeoJSON has a FeatureCollection, and an array of stores is read as NDJSON once it has one store a line")
	}
	return fmt.Errorf("found %q where a GeoJSON object must start", c)
}

// member reads a member of the object at the top, or its end. It returns the object at the end of one without features.
func (g *geoSource) member(c byte) ([]byte, error) {
	into := &g.top
	if g.state == inCollection {
		into = nil
	}
	if c == '}' {
		isFeature := g.state == inObject
		g.state = betweenValues
		if err := g.scan.take(into); err != nil || !isFeature {
			return nil, err
		}
		return g.top.buf, nil
	}
	if g.more {
		if err := g.scan.expect(',', into); err != nil {
			return nil, err
		}
	}
	g.more = true
	name := capture{max: 32}
	if c, err := g.scan.peek(); err != nil {
		return nil, err
	} else if c != '"' {
		return nil, fmt.Errorf("found %q where the name of a member must start", c)
	}
	if err := g.scan.value(into, &name); err != nil {
		return nil, err
	}
	if err := g.scan.expect(':', into); err != nil {
		return nil, err
	}
	c, err := g.scan.peek()
	if err != nil {
		return nil, err
	}
	if c == '[' && string(name.buf) == `"features"` {
		g.state, g.more = inFeatures, false
		return nil, g.scan.take(nil)
	}
	return nil, g.scan.value(into, nil)
}

// feature reads an element of the features, or their end.
func (g *geoSource) feature(c byte) ([]byte, error) {
	if c == ']' {
		g.state, g.more = inCollection, true
		return nil, g.scan.take(nil)
	}
	if g.more {
		if err := g.scan.expect(',', nil); err != nil {
			return nil, err
		}
		if _, err := g.scan.peek(); err != nil {
			return nil, err
		}
	}
	g.more = true
	g.start = g.scan.line
	g.top.reset()
	if err := g.scan.value(&g.top, nil); err != nil {
		return nil, err
	}
	return g.top.buf, nil
}

// row makes a Row of a Feature's JSON.
func (g *geoSource) row(line int, raw []byte) (Row, error) {
	if !utf8.Valid(raw) {
		return Row{}, rowFault(line, "is not valid UTF-8")
	}
	var f struct {
		Type     string          `json:"type"`
		ID       json.RawMessage `json:"id"`
		Geometry *struct {
			Type        string          `json:"type"`
			Coordinates json.RawMessage `json:"coordinates"`
		} `json:"geometry"`
		Properties map[string]json.RawMessage `json:"properties"`
	}
	var wrongType *json.UnmarshalTypeError
	switch err := json.Unmarshal(raw, &f); {
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return Row{}, rowFault(line, "is not a GeoJSON Feature: found a %s where an object must stand", wrongType.Value)
	case errors.As(err, &wrongType):
		return Row{}, rowFault(line, "is not a GeoJSON Feature: found a %s in its %s", wrongType.Value, wrongType.Field)
	case err != nil:
		return Row{}, rowFault(line, "is not a GeoJSON Feature: %v", err)
	}
	if f.Type != "Feature" {
		return Row{}, rowFault(line, "its type is %q, but must be \"Feature\"", cut(f.Type, 40))
	}
	p := properties{col: g.col}
	p.read("", f.Properties)
	if !g.col.named[fieldID] && (p.name[fieldID] == "" || p.rank[fieldID] > rankID) {
		if id, ok := scalar(f.ID); ok {
			p.v.text[fieldID] = id
		}
	}
	switch {
	case f.Geometry == nil:
		p.v.geometry("is missing; a store is a Point")
	case f.Geometry.Type != "Point":
		p.v.geometry(fmt.Sprintf("is a %q, but a store is a Point", cut(f.Geometry.Type, 40)))
	default:
		p.v.place(f.Geometry.Coordinates)
	}
	return p.v.row(line)
}

// geometry notes a fault of the geometry; the point is then some valid one, so that no fault of lat or lng follows.
func (v *values) geometry(detail string) {
	v.faults = append(v.faults, shortline.FieldError{Field: "geometry", Detail: detail})
	v.point = &point{}
}

func (v *values) place(coordinates json.RawMessage) {
	var c []*float64
	if err := json.Unmarshal(coordinates, &c); err != nil || len(c) < 2 || c[0] == nil || c[1] == nil {
		v.geometry("its coordinates must be [longitude, latitude]")
		return
	}
	v.point = &point{lat: *c[1], lng: *c[0]}
}

// properties finds the fields among the properties of one Feature.
type properties struct {
	col  *columns
	v    values
	name [numFields]string // of the property that gave the value, "" for none yet
	rank [numFields]int
}

// read takes in the members of an object whose names stand behind prefix. They are taken in order of name, so that the
// outcome is always the same.
func (p *properties) read(prefix string, members map[string]json.RawMessage) {
	for _, key := range slices.Sorted(maps.Keys(members)) {
		raw, name := members[key], prefix+key
		if raw[0] == '{' && prefix == "" {
			var inner map[string]json.RawMessage
			if json.Unmarshal(raw, &inner) == nil {
				p.read(name+".", inner)
			}
			continue
		}
		for _, u := range p.col.remember(name) {
			f := u.field
			if p.name[f] != "" && u.rank >= p.rank[f] {
				continue
			}
			if p.set(f, raw) {
				p.name[f], p.rank[f] = name, u.rank
				if p.col.used[f] == "" {
					p.col.used[f] = cut(cleanText(name), maxKnownBytes)
				}
			}
		}
	}
}

// set takes the value for the field, unless there is none in it.
func (p *properties) set(f field, raw json.RawMessage) bool {
	p.unfault(f)
	if f == fieldTags {
		p.v.text[f], p.v.tags = "", nil
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) == nil && list != nil {
			for _, e := range list {
				if t, ok := scalar(e); ok && t != "" {
					p.v.tags = append(p.v.tags, t)
				}
			}
			return true
		}
	}
	text, ok := scalar(raw)
	if !ok && !bytes.Equal(raw, []byte("null")) {
		p.v.fault(f, "must be a text or a number")
		return true
	}
	p.v.text[f] = text
	return text != ""
}

// unfault forgets what was wrong with a value that a better one replaces.
func (p *properties) unfault(f field) {
	if p.v.faulty(f) {
		p.v.faults = slices.DeleteFunc(p.v.faults, func(e shortline.FieldError) bool { return e.Field == fields[f].path })
	}
}

// scalar is a JSON string, number or truth value as text.
func scalar(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return cleanText(s), err == nil
	case '{', '[', 'n':
		return "", false
	}
	return strings.TrimSpace(string(raw)), true
}
