package replication

import (
	"fmt"
	"math"
)

// Lineage names the history that counts: the newest epoch, and where it left the history of the epoch before. The number
// of a timeline is not enough, for two servers that were cut off from each other may choose the same.
type Lineage struct {
	// Epoch is the newest that has begun; 0 says that nothing is known yet.
	Epoch uint64
	// Fork is the log position up to which the former epoch's history belongs to this one; what was written there past it is
	// lost. NoFork where the epoch goes on from all there was.
	Fork uint64
}

// NoFork is the Fork of an epoch that lost nothing.
const NoFork = math.MaxUint64

// excludes tells whether a database may hold what the lineage has left behind: it has not come to the newest epoch and is
// past the fork, or so far back that a fork in between is not known any more.
func (l Lineage) excludes(epoch, lsn uint64) bool {
	return epoch < l.Epoch && (lsn > l.Fork || epoch+1 < l.Epoch)
}

// Forks are the lineages of all epochs since one, as far as they are known, in any order.
type Forks []Lineage

// Lineage is the newest.
func (f Forks) Lineage() (newest Lineage) {
	for _, l := range f {
		if l.Epoch > newest.Epoch {
			newest = l
		}
	}
	return newest
}

// ForkOf returns the log position up to which what was written in the epoch belongs to the history that counts: the lowest
// fork of all later epochs. known is false where the epoch after it is not among f, so that it may have forked anywhere.
func (f Forks) ForkOf(epoch uint64) (lsn uint64, known bool) {
	lsn, known = NoFork, epoch >= f.Lineage().Epoch
	for _, l := range f {
		known = known || l.Epoch == epoch+1
		if l.Epoch > epoch {
			lsn = min(lsn, l.Fork)
		}
	}
	return lsn, known
}

// history is what has been seen of the history that a view, or a file, was read from. It is a value; judge moves it on.
type history struct {
	// forks says that there are lineages at all.
	forks bool
	// known is the newest epoch of which is known that everything read so far belongs to its history.
	known uint64
	// epoch and lsn are those of the last look at the database; lsn is an upper bound of all that was read. horizon is the
	// greatest that was seen.
	epoch, lsn, horizon uint64
	// server is the run of the server from which all has been read since the epoch began, 0 where that was more than one.
	server uint64
}

// verdict is what to do with what was read from a database.
type verdict uint8

const (
	verdictFollow verdict = iota // it belongs to the history that memory is of: go on
	verdictWait                  // it cannot be told yet: take nothing over, look again
	verdictLost                  // the database holds what the lineage has left behind: take nothing over until it is rewound
	verdictResync                // memory may hold what is in no history any more: read everything anew
)

// beginHistory is for a reader that starts anew, so all it reads is of the database's own epoch; l is nil where history
// never forks. The verdict is to follow, or that the database must not be read.
func beginHistory(head Head, l *Lineage) (history, verdict, string) {
	h := history{epoch: head.Epoch, lsn: head.LSN, horizon: head.Horizon, server: head.Server}
	if l == nil {
		return h, verdictFollow, ""
	}
	h.forks, h.known = true, max(head.Epoch, l.Epoch)
	if l.excludes(head.Epoch, head.LSN) {
		return h, verdictLost, lostReason(head, *l)
	}
	return h, verdictFollow, ""
}

// judge looks at a head that was read together with some changes or after a chunk of a snapshot, and at the lineage of a
// moment after that, and tells whether they may be taken over. It notes the head only if they may.
func (h *history) judge(head Head, l *Lineage) (verdict, string) {
	// The same server that goes on: what it had, it has. Its position may seem to go back at a promotion, for the end of a log that
	// was received and is no whole record is dropped.
	same := head.Server != 0 && head.Server == h.server
	switch { // what the head alone gives away, also where nobody knows of forks
	case head.Epoch < h.epoch:
		return verdictResync, fmt.Sprintf("the database went back from epoch %d to epoch %d", h.epoch, head.Epoch)
	case head.XMax < h.horizon:
		return verdictResync, fmt.Sprintf("the database went back from transaction %d to before %d", h.horizon-1, head.XMax)
	case head.Epoch == h.epoch && head.LSN < h.lsn && !same:
		return verdictResync, fmt.Sprintf("the database went back from log position %d to %d in epoch %d", h.lsn, head.LSN, h.epoch)
	}
	if h.forks && l != nil {
		reason := h.adopt(*l)
		switch {
		case reason == "":
		case !same:
			return verdictResync, reason
		case head.Epoch == l.Epoch: // it has come to the new epoch as it is, so nothing of what it showed was lost
			h.known = l.Epoch
		}
		switch {
		case head.Epoch > h.known:
			return verdictWait, fmt.Sprintf("the database is in epoch %d, of which is not known yet where it began", head.Epoch)
		case l.excludes(head.Epoch, head.LSN):
			return verdictLost, lostReason(head, *l)
		}
	}
	if head.Epoch > h.epoch {
		h.server = head.Server // what was read before is of this epoch's history, whatever server had it
	} else if !same {
		h.server = 0
	}
	h.epoch, h.lsn, h.horizon = head.Epoch, head.LSN, max(h.horizon, head.Horizon)
	return verdictFollow, ""
}

// adopt takes a newer lineage over, unless what was read may be past its fork; then it says why not. An older one is what a
// control plane that is just starting may tell: it changes nothing.
func (h *history) adopt(l Lineage) (reason string) {
	switch {
	case l.Epoch <= h.known:
		return ""
	case l.Epoch > h.known+1:
		return fmt.Sprintf("epoch %d has begun, and where the epochs after %d forked is not known", l.Epoch, h.known)
	case h.lsn > l.Fork:
		return fmt.Sprintf("epoch %d forked at log position %d, and memory is of %d", l.Epoch, l.Fork, h.lsn)
	}
	h.known = l.Epoch
	return ""
}

// same tells whether neither the epoch nor the lineage has moved on since o.
func (h history) same(o history) bool { return h.epoch == o.epoch && h.known == o.known }

func lostReason(head Head, l Lineage) string {
	return fmt.Sprintf("the database is at log position %d of epoch %d, and epoch %d forked at %d; it has to be rewound or to catch up",
		head.LSN, head.Epoch, l.Epoch, l.Fork)
}
