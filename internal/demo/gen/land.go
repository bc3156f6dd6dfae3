package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
)

// land tells dry land from sea. Its edges are sorted into bands of latitude, so that a query looks at one band only.
type land struct{ bands [bandCount][]edge }

type edge struct{ lat1, lng1, lat2, lng2 float64 }

const (
	bandsPerDegree = 20
	bandCount      = 180*bandsPerDegree + 1
)

func bandOf(lat float64) int {
	return min(max(int(math.Floor((lat+90)*bandsPerDegree)), 0), bandCount-1)
}

// has counts the edges that a ray to the east crosses: an odd number means land, holes included.
func (l *land) has(lat, lng float64) bool {
	inside := false
	for _, e := range l.bands[bandOf(lat)] {
		if (e.lat1 > lat) != (e.lat2 > lat) && lng < e.lng1+(lat-e.lat1)/(e.lat2-e.lat1)*(e.lng2-e.lng1) {
			inside = !inside
		}
	}
	return inside
}

// readLand reads the "land" object of a quantised TopoJSON file of MultiPolygons.
func readLand(path string) (*land, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var t struct {
		Transform struct{ Scale, Translate [2]float64 }
		Arcs      [][][2]float64
		Objects   struct {
			Land struct {
				Geometries []struct{ Arcs [][][]int }
			}
		}
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(t.Objects.Land.Geometries) == 0 || t.Transform.Scale[0] == 0 {
		return nil, fmt.Errorf("%s: not a quantised TopoJSON file with an object \"land\"", path)
	}
	l := &land{}
	for _, g := range t.Objects.Land.Geometries {
		for _, polygon := range g.Arcs {
			for _, ring := range polygon {
				for _, arc := range ring {
					if arc < 0 {
						arc = ^arc // reversed: the direction of an edge does not matter here
					}
					l.addArc(t.Arcs[arc], t.Transform.Scale, t.Transform.Translate)
				}
			}
		}
	}
	return l, nil
}

// addArc adds the edges of one arc, whose points are each given as the difference from the one before.
func (l *land) addArc(arc [][2]float64, scale, translate [2]float64) {
	var x, y, lastLat, lastLng float64
	for i, d := range arc {
		x, y = x+d[0], y+d[1]
		lat, lng := y*scale[1]+translate[1], x*scale[0]+translate[0]
		if i > 0 {
			e := edge{lastLat, lastLng, lat, lng}
			for b := bandOf(min(lat, lastLat)); b <= bandOf(max(lat, lastLat)); b++ {
				l.bands[b] = append(l.bands[b], e)
			}
		}
		lastLat, lastLng = lat, lng
	}
}
