package gossip

import (
	"math"
	"time"
)

const (
	// flapLimit is how many deaths in short order make a node one that flaps; below flapCalm it is trusted again.
	flapLimit = 2.5
	flapCalm  = 1.0
	// flapHalf is how long it takes until half of them are forgotten.
	flapHalf = time.Minute
	flapMost = 8
)

// damper keeps a node that comes and goes from being used each time it comes: every death counts, and is forgotten bit by
// bit. After three in short order it takes the node about a minute and a half of living to be trusted again.
type damper struct {
	count    float64
	at       time.Time
	flapping bool
}

// died counts a death.
func (d *damper) died(now time.Time) {
	d.decay(now)
	d.count = min(d.count+1, flapMost)
	if d.count > flapLimit {
		d.flapping = true
	}
}

// forgive takes one death back that was none.
func (d *damper) forgive() {
	d.count = max(d.count-1, 0)
	d.flapping = d.flapping && d.count > flapLimit
}

// suppressed tells whether the node flaps.
func (d *damper) suppressed(now time.Time) bool {
	d.decay(now)
	if d.count < flapCalm {
		d.flapping = false
	}
	return d.flapping
}

func (d *damper) decay(now time.Time) {
	if passed := now.Sub(d.at); passed > 0 {
		d.count *= math.Exp2(-float64(passed) / float64(flapHalf))
	}
	d.at = now
}
