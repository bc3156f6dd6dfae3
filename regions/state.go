package regions

import (
	"maps"
	"slices"
	"time"

	"github.com/shortline/shortline/geo"
)

// State is what the control plane agrees on: every node follows it, and it changes through Apply alone. A State is never
// changed once it was returned, so it may be read from many goroutines; nobody may write to what it refers to.
type State struct {
	Cluster   string `json:"cluster"`    // its name, chosen by people
	ClusterID string `json:"cluster_id"` // made at random when it was set up; "" before that

	// Epoch is the newest that was begun. Primary takes writes in PrimaryEpoch, as long as it holds the lease of it; the two
	// epochs differ while an operation is under way.
	Epoch        uint64 `json:"epoch"`
	Primary      ID     `json:"primary"`
	PrimaryEpoch uint64 `json:"primary_epoch"`
	// Attempt counts, within the whole history, the changes after which older commands to databases must not count any more.
	Attempt uint32 `json:"attempt"`

	// Lineage has an entry for every epoch that had a primary, oldest first. Generation grows with each fork at which a reader may
	// have been ahead; caches put it into their keys.
	Lineage    []Fork `json:"lineage"`
	Generation uint64 `json:"generation"`

	Lease   Lease              `json:"lease"`
	Regions map[ID]RegionState `json:"regions"`

	// Sync is the sync set, sorted: of its members any one may have confirmed an acknowledged write, so a failover needs an answer
	// from each. Names is what the primary is told to wait for, always a part of Sync; it is smaller while the set shrinks.
	Sync       []ID       `json:"sync"`
	Names      []ID       `json:"names"`
	Durability Durability `json:"durability"`

	Paused    *Note      `json:"paused,omitempty"` // who paused the automation, nil while it is on
	Operation *Operation `json:"operation,omitempty"`
	// LastAutomatic is the latest failover that nobody asked for; Acknowledged says that people know of it.
	LastAutomatic *Automatic `json:"last_automatic,omitempty"`
	// AbortedAt is when an operation was last called off.
	AbortedAt time.Time `json:"aborted_at,omitzero"`
	// History is what happened, oldest first, at most maxHistory entries.
	History []Entry `json:"history"`
	Entries uint64  `json:"entries"` // how many there ever were
}

// maxHistory bounds State.History, maxLineage State.Lineage: what is dropped is the oldest.
const (
	maxHistory = 300
	maxLineage = 1000
)

// Fork is where the history of an epoch left the one before.
type Fork struct {
	Epoch    uint64    `json:"epoch"`
	Region   ID        `json:"region"` // its primary
	Fork     LSN       `json:"fork"`
	Timeline uint32    `json:"timeline"`
	Same     bool      `json:"same,omitempty"` // nothing forked: the same server went on
	At       time.Time `json:"at"`
}

// Lease is the right to acknowledge writes, as far as it is agreed upon: for how long it lasts, only the clock of who holds
// it and of who waits for its end can tell.
type Lease struct {
	Region   ID     `json:"region"`
	Epoch    uint64 `json:"epoch"`
	Renewals uint64 `json:"renewals"` // in this epoch, by any node
	// Holders are the nodes that renewed and did not surrender since, with the number of their last renewal.
	Holders map[string]uint64 `json:"holders,omitempty"`
	// TTLMS is the longest that any renewal of this epoch was to last.
	TTLMS int64 `json:"ttl_ms,omitempty"`
}

// Duty says what a region is there for.
type Duty string

// The duties.
const (
	Active   Duty = "active"
	Draining Duty = "draining" // its clients are being sent elsewhere
	Drained  Duty = "drained"  // it serves nobody and confirms no write
)

// RegionState is what is agreed upon about one region.
type RegionState struct {
	Point   geo.Point `json:"point"`
	Agent   string    `json:"agent,omitempty"` // where its database agent listens
	Witness bool      `json:"witness,omitempty"`
	Duty    Duty      `json:"state"`
	// Held says that it came back from a failure: it serves reads, but becomes primary only once somebody undrained it.
	Held bool `json:"held,omitempty"`
	// Rebuild says that its database's history was abandoned: nothing but a copy of the primary makes it a standby.
	Rebuild bool      `json:"rebuild,omitempty"`
	Why     string    `json:"why,omitempty"`
	Since   time.Time `json:"since"`
}

// DurabilityMode says what an acknowledged write survives.
type DurabilityMode string

// The modes.
const (
	Quorum   DurabilityMode = "quorum"   // the loss of a region: a standby confirmed it
	Degraded DurabilityMode = "degraded" // no standby has to confirm at the moment; bars automatic failover
	Async    DurabilityMode = "async"    // none ever has to, by choice
)

// Durability is the mode with its reason.
type Durability struct {
	Mode  DurabilityMode `json:"mode"`
	Why   string         `json:"why,omitempty"`
	By    string         `json:"by,omitempty"`
	Since time.Time      `json:"since"`
}

// Note is who did something, when and why.
type Note struct {
	By  string    `json:"by"`
	Why string    `json:"why,omitempty"`
	At  time.Time `json:"at"`
}

// Automatic is a failover that nobody asked for.
type Automatic struct {
	Epoch        uint64    `json:"epoch"`
	From         ID        `json:"from"`
	To           ID        `json:"to"`
	At           time.Time `json:"at"`
	Acknowledged *Note     `json:"acknowledged,omitempty"`
}

// OperationKind is how a primary gives way to another.
type OperationKind string

// The kinds.
const (
	Failover   OperationKind = "failover"   // from a primary that may be dead
	Switchover OperationKind = "switchover" // from one that takes part
	// Reinstate begins a new epoch at the same primary: after an operation was called off, or the control state restored.
	Reinstate OperationKind = "reinstate"
)

// Step is how far an operation has come. Steps are done again where a controller cannot know whether the one before it did
// them; each is idempotent.
type Step string

// The steps, in order. Those that are committed for their own sake are StepIntent, StepTarget and StepPrimary.
const (
	StepIntent   Step = "intent"    // no lease of the old epoch can be renewed any more
	StepLease    Step = "lease"     // surrendered, or waited out
	StepReadOnly Step = "read-only" // switchover: the source takes no new writes
	StepCatchUp  Step = "catch-up"  // switchover: the target has all of the source's log
	StepDetach   Step = "detach"    // nobody receives from the old primary, positions are final
	StepTarget   Step = "target"    // which region it will be; from here forward only
	StepPromote  Step = "promote"   // the target's database is a primary and knows its epoch
	StepPrimary  Step = "primary"   // the region is primary: leases of the new epoch are given out
	StepFollow   Step = "follow"    // a standby that confirms writes streams from it
)

// Mark says that a step is done, and its share of the pause.
type Mark struct {
	Step   Step      `json:"step"`
	At     time.Time `json:"at"`
	TookMS float64   `json:"took_ms"`
	Note   string    `json:"note,omitempty"`
}

// Operation is a change of the primary under way.
type Operation struct {
	Kind  OperationKind `json:"kind"`
	Epoch uint64        `json:"epoch"` // that it begins
	From  ID            `json:"from"`
	To    ID            `json:"to,omitempty"` // wanted; "" leaves it to the positions

	By         string    `json:"by"`
	Why        string    `json:"why"`
	Automatic  bool      `json:"automatic,omitempty"`
	AllowLoss  bool      `json:"allow_data_loss,omitempty"`
	Overridden []Rule    `json:"overridden,omitempty"`
	Evidence   []string  `json:"evidence,omitempty"`
	Begun      time.Time `json:"begun"`

	// Members are the regions that are detached and of whose positions the target has the greatest.
	Members []ID `json:"members"`
	// Target, once committed, never changes within the epoch. Position is what it holds, Names are who confirms its writes.
	Target   ID   `json:"target,omitempty"`
	Position LSN  `json:"position,omitempty"`
	Names    []ID `json:"names,omitempty"`
	// Floor is what a target must hold at least, since one was given up that held it; Abandoned are those.
	Floor     LSN  `json:"floor,omitempty"`
	Abandoned []ID `json:"abandoned,omitempty"`

	Step  Step   `json:"step"`
	Marks []Mark `json:"marks"`
}

// Decided tells whether a target is committed: from then on it goes forward only.
func (o *Operation) Decided() bool { return o.Target != "" }

// covered tells whether some target held, and Floor or Position says up to where, all that was ever acknowledged.
func (o *Operation) covered() bool { return o.Floor > 0 || o.Decided() && o.Kind != Reinstate }

// Entry is one event of the history.
type Entry struct {
	N          uint64    `json:"n"`
	At         time.Time `json:"at"`
	Event      string    `json:"event"` // "failover", "switchover", "drain", "sync-set", …
	By         string    `json:"by"`
	Why        string    `json:"why,omitempty"`
	Epoch      uint64    `json:"epoch"`
	Region     ID        `json:"region,omitempty"`
	From       ID        `json:"from,omitempty"`
	To         ID        `json:"to,omitempty"`
	Automatic  bool      `json:"automatic,omitempty"`
	Evidence   []string  `json:"evidence,omitempty"`
	Overridden []Rule    `json:"overridden,omitempty"`
	// PauseMS is for how long no write could be acknowledged, Steps what it was made of.
	PauseMS float64 `json:"pause_ms,omitempty"`
	Steps   []Mark  `json:"steps,omitempty"`
}

// Order is what commands to databases carry now, given by the control leader of a term.
func (s State) Order(term uint64) Order { return Order{Epoch: s.Epoch, Attempt: s.Attempt, Term: term} }

// Fork returns the lineage of the primary's epoch.
func (s State) Fork() (Fork, bool) {
	if len(s.Lineage) == 0 {
		return Fork{}, false
	}
	return s.Lineage[len(s.Lineage)-1], true
}

// Databases returns the regions that have a database, sorted.
func (s State) Databases() []ID {
	var ids []ID
	for id, r := range s.Regions {
		if !r.Witness {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TakesWrites tells whether the region's nodes may ask for the lease of an epoch: it is primary, and nothing is under way
// that takes that from it.
func (s State) TakesWrites(region ID, epoch uint64) bool {
	return s.Primary == region && s.PrimaryEpoch == epoch && epoch != 0 && s.Epoch == s.PrimaryEpoch
}

// Single is the state of a deployment of one region without a control plane: it is primary for good.
func Single(cluster string, region ID, at geo.Point, epoch uint64, now time.Time) State {
	return State{
		Cluster: cluster, ClusterID: cluster, Epoch: epoch, Primary: region, PrimaryEpoch: epoch,
		Lease:      Lease{Region: region, Epoch: epoch},
		Regions:    map[ID]RegionState{region: {Point: at, Duty: Active, Since: now}},
		Durability: Durability{Mode: Degraded, Why: "there is no other region", Since: now},
		Lineage:    []Fork{{Epoch: epoch, Region: region, At: now}},
	}
}

// withRegion returns the state with one region changed.
func (s State) withRegion(id ID, change func(*RegionState)) State {
	s.Regions = maps.Clone(s.Regions)
	r := s.Regions[id]
	change(&r)
	s.Regions[id] = r
	return s
}

// note returns the state with one more entry in its history.
func (s State) note(e Entry) State {
	s.Entries++
	e.N = s.Entries
	from := max(0, len(s.History)+1-maxHistory)
	s.History = append(slices.Clone(s.History[from:]), e)
	return s
}
