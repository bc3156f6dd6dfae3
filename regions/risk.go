package regions

import (
	"time"
)

// Risk is what would happen if the primary region failed now.
type Risk struct {
	To ID `json:"to,omitempty"` // who would most likely take over
	// Bytes of log with acknowledged writes would be lost; 0 in quorum mode. Writes is an estimate of how many that are.
	Bytes  int64 `json:"bytes"`
	Writes int64 `json:"writes"`
	// Behind is how many bytes To is behind, confirmed or not.
	Behind int64 `json:"behind_bytes"`
	// PauseS is about how long writes would wait, 0 where nobody can tell because an operator is needed.
	PauseS float64 `json:"pause_s"`
	// Barred is the rule that would keep a failover from happening by itself, "" for none; Why says it in words.
	Barred Rule   `json:"barred,omitempty"`
	Why    string `json:"why,omitempty"`
}

// bytesAWrite is what a write takes in the log, roughly: a queue, a change, an idempotency row and their index entries.
const bytesAWrite = 600

// Risk estimates it. The pause is until suspicion, then the rest of the lease, then what the last failover took beyond that,
// or a second.
func (s Situation) Risk(p Policy) Risk {
	p = p.WithDefaults()
	var r Risk
	if best, ok := s.best(); ok {
		r.To = best
	} else {
		for _, id := range s.answered() {
			if r.To == "" || s.better(id, r.To) {
				r.To = id
			}
		}
	}
	if r.To != "" {
		r.Behind = s.lag(r.To)
	}
	if s.State.Durability.Mode != Quorum {
		r.Bytes = r.Behind
		r.Writes = (r.Bytes + bytesAWrite - 1) / bytesAWrite
	}
	imagined := s
	imagined.Led = max(s.Led, p.Grace())
	imagined.Renewed = p.SuspectAlive
	for _, why := range imagined.Blockers(Ask{Kind: Failover, Automatic: true}, p) {
		r.Barred, r.Why = why.Rule, why.Detail
		return r
	}
	for _, rule := range []struct {
		rule Rule
		on   bool
		why  string
	}{{RulePaused, s.State.Paused != nil, "the automation is paused"},
		{RuleRecentFailover, s.State.LastAutomatic != nil && s.State.LastAutomatic.Acknowledged == nil, "the last automatic failover is not acknowledged"}} {
		if rule.on {
			r.Barred, r.Why = rule.rule, rule.why
			return r
		}
	}
	r.PauseS = (p.Suspect + time.Second).Seconds()
	return r
}
