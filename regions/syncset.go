package regions

import (
	"slices"
	"strconv"
)

// sync moves the sync set. The order of its moves is what keeps an acknowledged write from resting on somebody whom a
// failover does not ask: the set is always at least what the primary may be waiting for.
func (s State) sync(c Command, ch *SyncChange) (State, *RefusedError) {
	switch {
	case s.Operation != nil:
		return s, refuse(RuleOperation, "a %s from %s is under way", s.Operation.Kind, s.Operation.From)
	case ch.Attempt != s.Attempt:
		return s, refuse(RuleStaleAttempt, "the sync set was moved meanwhile")
	}
	var why *RefusedError
	event := "sync-" + string(ch.Move)
	switch ch.Move {
	case Grow:
		s, why = s.grow(ch.Region)
	case Narrow:
		if !slices.Contains(s.Names, ch.Region) || len(s.Names) < 2 {
			return s, refuse(RuleSyncOrder, "without %s nobody would confirm writes: that is degraded, and has to be said so first", ch.Region)
		}
		s.Names = without(s.Names, ch.Region)
	case Shrink:
		if !slices.Contains(s.Sync, ch.Region) || slices.Contains(s.Names, ch.Region) || len(s.Names) == 0 && s.Durability.Mode != Async {
			return s, refuse(RuleSyncOrder, "the primary waits for %s still, or for nobody", ch.Region)
		}
		s.Sync = without(s.Sync, ch.Region)
	case Degrade:
		if s.Durability.Mode == Async {
			return s, refuse(RuleSyncOrder, "no write waits for a standby as it is")
		}
		s.Sync, s.Names = nil, nil
		s.Durability = Durability{Mode: Degraded, Why: c.Why, By: c.By, Since: c.At}
	case Whole:
		if s.Durability.Mode != Degraded || len(s.Names) == 0 || !slices.Equal(s.Names, s.Sync) {
			return s, refuse(RuleSyncOrder, "the sync set is %v, the names are %v, durability is %s", s.Sync, s.Names, s.Durability.Mode)
		}
		s.Durability = Durability{Mode: Quorum, By: c.By, Since: c.At}
	default:
		return s, refuse(RuleInvalid, "a sync set does not %q", ch.Move)
	}
	if why != nil {
		return s, why
	}
	s.Attempt++
	return s.note(Entry{At: c.At, Event: event, By: c.By, Why: c.Why, Epoch: s.Epoch, Region: ch.Region, Evidence: ch.Evidence, Overridden: c.Force}), nil
}

func (s State) grow(id ID) (State, *RefusedError) {
	r, ok := s.Regions[id]
	switch {
	case !ok:
		return s, refuse(RuleUnknownRegion, "there is no region %s", id)
	case r.Witness:
		return s, refuse(RuleWitness, "%s is a witness: it has no database", id)
	case id == s.Primary:
		return s, refuse(RuleSameRegion, "%s is primary", id)
	case r.Duty != Active:
		return s, refuse(RuleDrained, "%s is %s", id, r.Duty)
	case r.Rebuild:
		return s, refuse(RuleLineage, "the database of %s has to be copied anew first", id)
	case r.Held && slices.ContainsFunc(s.Sync, func(other ID) bool { return other != id }):
		// It must not be ahead of one that could become primary. Where there is no other, it is better than nobody.
		return s, refuse(RuleHeld, "%s came back from a failure and confirms writes only where nobody else does", id)
	}
	s.Sync = with(s.Sync, id)
	if s.Durability.Mode != Async {
		s.Names = with(s.Names, id)
	}
	return s, nil
}

// with returns a sorted copy of ids with id in it.
func with(ids []ID, id ID) []ID {
	if slices.Contains(ids, id) {
		return ids
	}
	ids = append(slices.Clone(ids), id)
	slices.Sort(ids)
	return ids
}

// without returns a copy of ids without id.
func without(ids []ID, id ID) []ID {
	return slices.DeleteFunc(slices.Clone(ids), func(other ID) bool { return other == id })
}

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }
