package geo

import (
	"math"
)

// EarthRadius is the mean radius R1 of the Earth (IUGG), on whose sphere all distances are great circles.
const EarthRadius Metres = 6_371_008.8

// MaxDistance is half the circumference: no two places are farther apart.
const MaxDistance = EarthRadius * math.Pi

// Metres is a distance along the surface.
type Metres float64

// Point is a place in WGS 84 degrees, latitude -90 to 90, longitude -180 to 180.
type Point struct{ Lat, Lng float64 }

// Valid tells whether both parts are numbers within their range.
func (p Point) Valid() bool {
	return p.Lat >= -90 && p.Lat <= 90 && p.Lng >= -180 && p.Lng <= 180
}

// vec is a place as a unit vector from the Earth's centre.
type vec struct{ x, y, z float64 }

func (p Point) vec() vec {
	sinLat, cosLat := math.Sincos(p.Lat * (math.Pi / 180))
	sinLng, cosLng := math.Sincos(p.Lng * (math.Pi / 180))
	return vec{cosLat * cosLng, cosLat * sinLng, sinLat}
}

// chord2 is the square of the straight line through the Earth between two unit vectors: 0 to 4.
func (v vec) chord2(o vec) float64 {
	dx, dy, dz := v.x-o.x, v.y-o.y, v.z-o.z
	return dx*dx + dy*dy + dz*dz
}

// antiChord2 is chord2 to the antipode of o.
func (v vec) antiChord2(o vec) float64 {
	dx, dy, dz := v.x+o.x, v.y+o.y, v.z+o.z
	return dx*dx + dy*dy + dz*dz
}

// sepKey orders places by their distance from one place, exactly as the distance itself does, without trigonometry: it
// is the squared chord c² up to a quarter of the circumference (c² = 2) and 4/(4-c²) beyond, where 4-c² is computed as
// the squared chord to the antipode. Both branches meet at 2, grow with distance, and keep their relative precision
// where it is needed: next to the place and next to its antipode.
type sepKey float64

// quarter is the key of a quarter of the circumference.
const quarter = 2

func keyBetween(a, b vec) sepKey {
	if c2 := a.chord2(b); c2 <= quarter {
		return sepKey(c2)
	}
	return sepKey(4 / a.antiChord2(b)) // +Inf at the antipode itself
}

// distance is the great-circle distance that the key stands for: the haversine formula written with chords.
func (k sepKey) distance() Metres {
	if k < 1e-4 { // up to 64 km: the arc sine's series, to the last bit in a fifth of the time
		s2 := float64(k) / 4
		return EarthRadius * Metres(math.Sqrt(float64(k))*(1+s2*(1./6+s2*(3./40+s2*(15./336+s2*(105./3456))))))
	}
	if k <= quarter {
		return EarthRadius * Metres(2*math.Asin(math.Sqrt(float64(k))/2))
	}
	return EarthRadius * Metres(math.Pi-2*math.Asin(math.Sqrt(1/float64(k))))
}

// keyAt is the key of a distance.
func keyAt(d Metres) sepKey {
	angle := min(float64(d/EarthRadius), math.Pi)
	if angle <= math.Pi/2 {
		s := 2 * math.Sin(angle/2)
		return sepKey(s * s)
	}
	s := math.Sin((math.Pi - angle) / 2)
	return sepKey(1 / (s * s))
}

// Distance is the great-circle distance between two points on a sphere of EarthRadius (haversine), good to a
// micrometre everywhere, next to the antipode too.
func Distance(a, b Point) Metres { return keyBetween(a.vec(), b.vec()).distance() }
