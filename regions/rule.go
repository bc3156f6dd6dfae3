package regions

import (
	"fmt"
	"slices"
)

// Rule is the name of something that keeps a primary where it is or a region in service. Operators see the names, and may
// override some of them.
type Rule string

// The rules. Those that no operator can override protect what cannot be mended afterwards.
const (
	RuleUnknownRegion   Rule = "unknown-region"
	RuleWitness         Rule = "witness"           // it has no database and no nodes
	RuleSingleRegion    Rule = "single-region"     // there is no other region
	RuleSameRegion      Rule = "same-region"       // it is primary already
	RuleIsPrimary       Rule = "is-primary"        // a primary is not drained
	RuleLastRegion      Rule = "last-region"       // one region stays on
	RuleCapacity        Rule = "capacity"          // the others could not carry the load
	RuleDrained         Rule = "drained"           // a drained region does not become primary
	RuleHeld            Rule = "held"              // nor does one that came back from a failure
	RuleNotCaughtUp     Rule = "not-caught-up"     // the target is too far behind
	RuleLineage         Rule = "lineage"           // the target's history is not the primary's
	RuleMembersSilent   Rule = "members-silent"    // a member of the sync set has not answered
	RuleDataLoss        Rule = "data-loss"         // it could lose acknowledged writes
	RuleDegraded        Rule = "degraded"          // so it could, as no standby had to confirm
	RulePaused          Rule = "automation-paused" // people said that nothing happens by itself
	RuleRecentFailover  Rule = "recent-failover"   // one automatic failover an hour
	RuleRecentAbort     Rule = "recent-abort"      // an operation was just called off
	RuleLeaderGrace     Rule = "leader-grace"      // this controller has not led for long enough
	RuleNotSuspected    Rule = "not-suspected"     // the primary works as far as can be seen
	RuleSourceSilent    Rule = "source-silent"     // a switchover needs a source that takes part
	RuleOperation       Rule = "operation-under-way"
	RuleNoOperation     Rule = "no-operation" // it is over, or another one by now
	RuleTargetCommitted Rule = "target-committed"
	RuleNoTarget        Rule = "no-target"
	RuleIntent          Rule = "intent-committed" // no renewal once an operation has begun
	RuleStaleEpoch      Rule = "stale-epoch"
	RuleStaleAttempt    Rule = "stale-attempt"
	RuleNotPrimary      Rule = "not-primary"
	RuleSyncOrder       Rule = "sync-order" // the sync set grows before and shrinks after its names
	RuleBootstrapped    Rule = "bootstrapped"
	RuleNotBootstrapped Rule = "not-bootstrapped"
	RuleCluster         Rule = "cluster" // of another cluster
	RuleConfirm         Rule = "confirm" // the region's name has to be typed out
	RuleNoLeader        Rule = "no-leader"
	RuleInvalid         Rule = "invalid"
)

var forceable = []Rule{RuleCapacity, RuleHeld, RuleDrained, RuleNotSuspected, RuleNotCaughtUp, RuleRecentAbort, RuleRecentFailover, RulePaused}

// Forceable tells whether an operator may override the rule.
func (r Rule) Forceable() bool { return slices.Contains(forceable, r) }

// Forceables are the rules that an operator may override.
func Forceables() []Rule { return slices.Clone(forceable) }

// RefusedError says which rule a command would break. The state is as it was.
type RefusedError struct {
	Rule   Rule   `json:"rule"`
	Detail string `json:"detail"`
}

func (e *RefusedError) Error() string { return e.Detail + " (rule " + string(e.Rule) + ")" }

func refuse(rule Rule, format string, args ...any) *RefusedError {
	return &RefusedError{Rule: rule, Detail: fmt.Sprintf(format, args...)}
}
