package shortline

import (
	"math"
	"time"
)

// Flow is what the reports of a line say of its pace. It is kept with the queue, moved on by Seen with every applied update, and
// is the same however updates are folded into transactions. The zero value knows nothing.
//
// What is seen of a line is its length from time to time, and people who come hide people who go: counting only how often it got
// shorter misses a half or four fifths of those who were served. Where people come at the rate a and go at the rate m, the
// length less (a-m)t is a martingale whose square grows by a+m a second, whenever it is looked at: at fixed times, at each event, or
// when it has changed. So for a step x within a time t that the line was busy, the mean of (x²-x)/2 is m·t (and (a-m)²t²/2, which is
// small for short steps): that many were served. Steps of one person count exactly what was seen: 1 for a person less, 0 for one
// more. Only steps that begin with two or more people count, so that hardly any line runs empty within one.
//
// The error, by simulation (TestFlow): within two fifths where each person is reported or the length every 10 to 30 s, and mostly within
// a tenth; up to 45 % too long with a report a minute and very regular service; more where few people are served fast and reports are
// minutes apart: a line that was empty between two reports looks busy.
type Flow struct {
	// Served is the estimate of people served; BusyMS the milliseconds in which they were.
	Served, BusyMS int64
}

const (
	// flowGap is the longest step that counts: within more, anything may have happened.
	flowGap = 8 * time.Minute
	// flowStep is the most people that a step may count; a greater one is a recount, not a flow.
	flowStep = 12
	// flowLeast is how many people must wait when a step begins.
	flowLeast = 2
	// flowMemory is the number of people after which what was seen so far counts half: a day or some.
	flowMemory = 1000
	// flowEvidence is the number of people from which on a pace is told; as many are taken to have needed DefaultServiceS.
	flowEvidence = 20
	// Bounds of what is told, in seconds.
	leastServiceS, mostServiceS = 1, 3600
)

// Seen is the flow after the update u, which was applied, took a line from before to after.
func (f Flow) Seen(u *QueueUpdate, before, after *Queue) Flow {
	t := after.UpdatedAt.Sub(before.UpdatedAt)
	x := int64(after.Length - before.Length)
	if u.Delta != nil && t > flowGap { // who counts events would have told of one
		t, x = flowGap, 0
	}
	if before.Length < flowLeast || t < 0 || t > flowGap || x > flowStep || x < -flowStep {
		return f
	}
	if u.Delta != nil { // somebody counted who came or went
		f.Served += max(0, -x)
	} else {
		f.Served += (x*x - x) / 2
	}
	f.BusyMS += t.Milliseconds()
	if f.Served >= flowMemory {
		f.Served, f.BusyMS = f.Served/2, f.BusyMS/2
	}
	return f
}

// ServiceS is the mean seconds to serve one person, to a hundredth; 0 while too little was seen.
func (f Flow) ServiceS() float64 {
	if f.Served < flowEvidence {
		return 0
	}
	s := (float64(f.BusyMS)/1000 + flowEvidence*DefaultServiceS) / float64(f.Served+flowEvidence)
	return math.Round(min(max(s, leastServiceS), mostServiceS)*100) / 100
}
