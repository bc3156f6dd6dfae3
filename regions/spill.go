package regions

import (
	"math"
	"time"
)

// SpillLimit is the part of its capacity that a region is steered to at most.
const SpillLimit = 0.8

const (
	// spillFelt is how long it takes until clients follow a changed share: answers of DNS live half a minute.
	spillFelt = 30 * time.Second
	// spillPace is how long it takes to go most of the way to the share that seems right. It is longer than spillFelt, so
	// that what was done is seen before more is done.
	spillPace = 60 * time.Second
	// spillSlack is how far the share may be from the right one without being changed.
	spillSlack = 0.01
	// spillMost is the greatest share: somebody has to tell whether the load is still there.
	spillMost = 0.95
)

// Spill decides, for the node that has it, which share of the clients nearest to its region should go elsewhere. All nodes
// of a region publish what they find and start from the mean of it, so that they agree. It knows no clock: the caller says
// how much time has passed.
type Spill struct {
	felt float64 // the share that clients follow by now, as far as one can tell
	have bool
}

// Step returns the share to publish. load is the region's part of capacity in use, share is the mean that its nodes
// publish, room is what the other regions could take, as part of this one's capacity.
func (s *Spill) Step(load, share, room float64, passed time.Duration) float64 {
	if !s.have {
		s.felt, s.have = share, true
	}
	s.felt += (share - s.felt) * (1 - math.Exp(-float64(passed)/float64(spillFelt)))
	if load <= 0 && share == 0 {
		return 0
	}
	wish := load / (1 - min(s.felt, spillMost)) // what would come if nobody was sent away
	right := 0.0
	if wish > SpillLimit {
		right = 1 - SpillLimit/wish
		right = min(right, s.felt+room/wish, spillMost) // there is no use in sending them to others that are full
	}
	step := right - share
	if math.Abs(step) < spillSlack && right != 0 {
		return share
	}
	next := share + step*(1-math.Exp(-float64(passed)/float64(spillPace)))
	if next < spillSlack/2 && right == 0 {
		return 0
	}
	return min(max(next, 0), spillMost)
}
