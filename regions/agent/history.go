package agent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shortline/shortline/regions"
)

// history are the timelines before a server's own, oldest first, each with the position where the next one left it.
type history []ended

type ended struct {
	timeline uint32
	end      regions.LSN
}

// parseHistory reads a timeline history file.
func parseHistory(text string) (h history, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("the timeline history has the line %q", strings.TrimSpace(line))
		}
		n, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the timeline history has the line %q", strings.TrimSpace(line))
		}
		end, err := regions.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("the timeline history: %w", err)
		}
		h = append(h, ended{uint32(n), end})
	}
	return h, nil
}

// self is what has to be known of this server to make it follow another.
type self struct {
	primary  bool // its log may have an end of its own, and it has to be started anew as a standby
	timeline uint32
	position regions.LSN
	lineage  lineage
	epoch    uint64
	promoted *regions.Promotion // the last promotion that was begun here
}

// way is how a server becomes a standby of another.
type way uint8

const (
	wayAttach way = iota // all it has is part of the other's history
	wayRewind            // it has more
	wayCopy              // only a base backup will do
)

func (w way) String() string { return [...]string{"attach", "rewind", "base backup"}[w] }

// chooseWay decides how a server becomes a standby, and says why. fork is where its history left the other's, 0 where that
// cannot be told.
//
// Timelines are numbers that two servers which were promoted apart give to different histories, so they count only where
// no epoch tells the two apart: an epoch that began here and not, or otherwise, there was abandoned, and so was a promotion
// that did not come to its epoch.
func chooseWay(s self, u upstream) (w way, fork regions.LSN, why string) {
	for _, e := range epochsOf(s.lineage) {
		if b, there := u.lineage[e]; s.lineage[e] != b && u.lineage != nil {
			if !there {
				return wayCopy, 0, fmt.Sprintf("epoch %d began here and was abandoned", e)
			}
			return wayCopy, 0, fmt.Sprintf("epoch %d began here and there in different histories", e)
		}
	}
	if p := s.promoted; p != nil {
		if _, began := s.lineage[p.Epoch]; !began && s.lineage != nil {
			return wayCopy, 0, fmt.Sprintf("a promotion here for epoch %d was abandoned", p.Epoch)
		}
	}
	limit, on := u.history.endOf(s.timeline)
	switch {
	case s.timeline == u.timeline && s.primary:
		return wayCopy, 0, fmt.Sprintf("both servers were primaries on timeline %d", s.timeline)
	case s.timeline == u.timeline:
		return wayAttach, 0, fmt.Sprintf("both are on timeline %d", s.timeline)
	case !on:
		return wayRewind, 0, fmt.Sprintf("timeline %d is not part of the history of timeline %d", s.timeline, u.timeline)
	case s.position > limit && s.partly(u, limit):
		return wayAttach, limit, fmt.Sprintf("it has the log up to %s, and past %s, where the history there left timeline %d, not one whole record", s.position, limit, s.timeline)
	case s.position > limit:
		return wayRewind, limit, fmt.Sprintf("it has the log up to %s, and the history there left timeline %d at %s", s.position, s.timeline, limit)
	}
	return wayAttach, limit, fmt.Sprintf("it has the log up to %s, before the history there left timeline %d at %s", s.position, s.timeline, limit)
}

// partly tells whether what a standby has past the fork is only the beginning of a record, as receivers are sent the log without
// regard to records. A promotion ends where the last whole record ends of what that server had received; so whoever received no more
// of the same timeline has no whole record past there either, and throws the rest away once it follows. That is PostgreSQL's own way
// only as long as the record began in the segment that it will ask for, which is at least 1 MiB.
func (s self) partly(u upstream, limit regions.LSN) bool {
	last := len(u.history) - 1
	return !s.primary && last >= 0 && u.history[last].timeline == s.timeline && s.position <= u.received && s.position>>20 == limit>>20
}

// endOf is where a history left a timeline.
func (h history) endOf(timeline uint32) (regions.LSN, bool) {
	i := slices.IndexFunc(h, func(e ended) bool { return e.timeline == timeline })
	if i < 0 {
		return 0, false
	}
	return h[i].end, true
}

func epochsOf(l lineage) (all []uint64) {
	for e := range l {
		all = append(all, e)
	}
	slices.Sort(all)
	return all
}
