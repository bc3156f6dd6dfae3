package shortline

import (
	"math"
	"time"
)

// MaxQueueLength is the greatest length that a queue can have; a greater result is clamped to it.
const MaxQueueLength = 1_000_000

// DefaultServiceS is the mean seconds to serve one person that is assumed for a store that neither gives nor has
// learned its own.
const DefaultServiceS = 60

// Queue is the live state of one store's line.
type Queue struct {
	// Length is the number of people waiting, 0 to MaxQueueLength.
	Length int
	// UpdatedAt is when the length was observed, in whole milliseconds UTC.
	UpdatedAt time.Time
	// Rev grows by one with every change of the row, under the row's lock. The greater one is newer.
	Rev uint64
	// LearnedS is the mean seconds to serve one person, as far as reports up to this one tell (Flow); 0: not known.
	LearnedS float64 `json:",omitempty"`
}

// QueueUpdate asks to change one store's queue. Exactly one of Length and Delta is set.
type QueueUpdate struct {
	ID     StoreID
	Length *int
	Delta  *int
	// ObservedAt is when the store saw it; zero means: when it is committed.
	ObservedAt time.Time
}

// MaxClockSkew is how far in the future an observation may lie before it is not applied.
const MaxClockSkew = 5 * time.Second

// Reasons for which an update is not applied.
const (
	ReasonOlder  = "observed_at is older than what is stored"
	ReasonFuture = "observed_at is in the future; check the clock of the sender"
)

// QueueResult is what became of a QueueUpdate: the queue as it is now, and how the update fared.
type QueueResult struct {
	Queue   Queue  `json:"queue"`
	Applied bool   `json:"applied"`
	Reason  string `json:"reason,omitempty"`  // why it was not applied
	Clamped bool   `json:"clamped,omitempty"` // the result was outside 0 to MaxQueueLength and was brought back into it
}

// Apply computes what u makes of the queue now stored (nil: never reported), at the time of commit. It is the one place
// where the rules stand: an absolute length older than the stored one, or any observation more than MaxClockSkew in the
// future, is not applied; a delta always applies to the stored length and never moves the time of observation back.
// The returned queue has the next Rev where it was applied.
func (u QueueUpdate) Apply(now time.Time, stored *Queue) QueueResult {
	now = now.UTC().Truncate(time.Millisecond)
	var q Queue
	if stored != nil {
		q = *stored
	}
	at := u.ObservedAt.UTC().Truncate(time.Millisecond)
	if u.ObservedAt.IsZero() {
		at = now
	}
	if at.After(now.Add(MaxClockSkew)) {
		return QueueResult{Queue: q, Reason: ReasonFuture}
	}
	length := q.Length
	if u.Delta != nil {
		length += *u.Delta
		if at.Before(q.UpdatedAt) {
			at = q.UpdatedAt
		}
	} else {
		if !u.ObservedAt.IsZero() && at.Before(q.UpdatedAt) {
			return QueueResult{Queue: q, Reason: ReasonOlder}
		}
		length = *u.Length
	}
	res := QueueResult{Applied: true}
	res.Queue = Queue{Length: min(max(length, 0), MaxQueueLength), UpdatedAt: at, Rev: q.Rev + 1}
	res.Clamped = res.Queue.Length != length
	return res
}

// Validate reports every fault of u as one *InvalidError, or nil.
func (u QueueUpdate) Validate() error {
	var f faults
	if d := storeIDFault(string(u.ID)); d != "" {
		f.add("id", "%s", d)
	}
	switch {
	case u.Length == nil && u.Delta == nil:
		f.add("length", "exactly one of length and delta is required, neither is there")
	case u.Length != nil && u.Delta != nil:
		f.add("length", "exactly one of length and delta is required, both are there")
	case u.Length != nil && (*u.Length < 0 || *u.Length > MaxQueueLength):
		f.add("length", "%d is not between 0 and %d", *u.Length, MaxQueueLength)
	case u.Delta != nil && (*u.Delta < -MaxQueueLength || *u.Delta > MaxQueueLength):
		f.add("delta", "%d is not between -%d and %d", *u.Delta, MaxQueueLength, MaxQueueLength)
	}
	if y := u.ObservedAt.Year(); !u.ObservedAt.IsZero() && (y < 1970 || y > 2200) {
		f.add("observed_at", "the year %d is not between 1970 and 2200", y)
	}
	return f.err()
}

// Wait returns the expected seconds until somebody who joins a queue of length people now is served, and a high
// estimate that nine of ten waits stay below, both rounded to whole seconds.
//
// Service times are taken as exponential with mean serviceS (0: DefaultServiceS), so the wait is Erlang distributed; its
// 90 % quantile is the Wilson-Hilferty approximation (Proc. Natl. Acad. Sci. 17, 1931), within 1 % from 2 people on.
func Wait(length int, serviceS float64) (expected, high int) {
	if length <= 0 {
		return 0, 0
	}
	if serviceS <= 0 {
		serviceS = DefaultServiceS
	}
	const z90 = 1.2815515655446004 // standard normal quantile of 0.9
	n := float64(length)
	g := 1 - 1/(9*n) + z90/(3*math.Sqrt(n))
	return int(math.Round(n * serviceS)), int(math.Round(n * serviceS * g * g * g))
}

// Rollup sums up the applied queue updates of one store in one hour (UTC, by time of observation).
type Rollup struct {
	Hour     time.Time
	Samples  int
	Sum      int64 // of the lengths
	SumSq    int64 // of their squares
	Min, Max int
}
