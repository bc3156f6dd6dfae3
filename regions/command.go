package regions

import (
	"encoding/json"
	"time"
)

// Command is one change of the State, as it is agreed upon: who asks, when by the clock of who asks, why, and exactly one
// of the changes. A State judges it by itself and the command alone.
type Command struct {
	At  time.Time `json:"at"`
	By  string    `json:"by,omitempty"` // "operator" with a name, or the node that leads
	Why string    `json:"why,omitempty"`
	// Force are the rules that an operator overrides.
	Force []Rule `json:"force,omitempty"`

	Bootstrap   *Bootstrap   `json:"bootstrap,omitempty"`
	Renew       *Renew       `json:"renew,omitempty"`
	Surrender   *Surrender   `json:"surrender,omitempty"`
	Intent      *Intent      `json:"intent,omitempty"`
	Marks       *Marks       `json:"marks,omitempty"`
	Target      *Target      `json:"target,omitempty"`
	Abort       *Abort       `json:"abort,omitempty"`
	Reopen      *Reopen      `json:"reopen,omitempty"`
	NewPrimary  *NewPrimary  `json:"new_primary,omitempty"`
	Finish      *Finish      `json:"finish,omitempty"`
	Sync        *SyncChange  `json:"sync,omitempty"`
	Region      *Change      `json:"region,omitempty"`
	Automation  *Automation  `json:"automation,omitempty"`
	Acknowledge *Acknowledge `json:"acknowledge,omitempty"`
	Remark      *Remark      `json:"remark,omitempty"`
	Restore     *Restore     `json:"restore,omitempty"`
}

// Bootstrap sets a cluster up. It is accepted once; again with the same ClusterID it is refused as RuleBootstrapped, with
// another as RuleCluster.
type Bootstrap struct {
	Cluster   string   `json:"cluster"`
	ClusterID string   `json:"cluster_id"`
	Regions   []Region `json:"regions"`
	Primary   ID       `json:"primary"`
	Epoch     uint64   `json:"epoch"` // of the control row
	Timeline  uint32   `json:"timeline"`
	Position  LSN      `json:"position"`
	Async     bool     `json:"async,omitempty"`
}

// Renew asks for the lease of an epoch for a node, which has noted the time before it asked.
type Renew struct {
	Region ID     `json:"region"`
	Epoch  uint64 `json:"epoch"`
	Node   string `json:"node"`
	// TTLMS is how long it is to last, at most MaxLeaseTTL: whoever waits for its end must not go by his own flags.
	TTLMS int64 `json:"ttl_ms,omitempty"`
}

// MaxLeaseTTL bounds how long a lease lasts, and with that how long a failover waits.
const MaxLeaseTTL = 30 * time.Second

// Surrender gives a node's lease back: it acknowledges no write of that epoch after it asked.
type Surrender struct {
	Region ID     `json:"region"`
	Epoch  uint64 `json:"epoch"`
	Node   string `json:"node"`
}

// Intent begins an operation. From then on no lease of the old epoch is renewed.
type Intent struct {
	Kind      OperationKind `json:"kind"`
	Epoch     uint64        `json:"epoch"` // State.Epoch + 1
	From      ID            `json:"from"`
	To        ID            `json:"to,omitempty"`
	Automatic bool          `json:"automatic,omitempty"`
	AllowLoss bool          `json:"allow_data_loss,omitempty"`
	// Members are the standbys that have answered just now and share the primary's history: the sync set, and who else.
	Members  []ID     `json:"members"`
	Evidence []string `json:"evidence,omitempty"`
}

// Marks records steps that are done.
type Marks struct {
	Epoch uint64 `json:"epoch"`
	Marks []Mark `json:"marks"`
}

// Target commits who will be primary, with the position that it holds now that it is detached, and who confirms its writes.
type Target struct {
	Epoch    uint64 `json:"epoch"`
	Region   ID     `json:"region"`
	Position LSN    `json:"position"`
	Names    []ID   `json:"names"`
	// Covers says that it is known to hold all that a target before it held, by its epoch rather than by its position.
	Covers bool   `json:"covers,omitempty"`
	Marks  []Mark `json:"marks,omitempty"`
}

// Abort calls an operation without a target off: the old primary goes on in a new epoch.
type Abort struct {
	Epoch uint64 `json:"epoch"` // of the operation
}

// Reopen gives a committed target up that is not primary yet: in a new epoch the members are asked again, and whoever
// becomes the target then has to hold at least as much. What was given up has to be built anew. A switchover whose source
// died on the way becomes a failover by it.
type Reopen struct {
	Epoch     uint64   `json:"epoch"` // of the operation
	AllowLoss bool     `json:"allow_data_loss,omitempty"`
	Evidence  []string `json:"evidence,omitempty"`
}

// NewPrimary says that the target's database is promoted and has its epoch.
type NewPrimary struct {
	Promotion
	Region ID     `json:"region"`
	Marks  []Mark `json:"marks,omitempty"`
}

// Finish ends an operation.
type Finish struct {
	Epoch   uint64  `json:"epoch"`
	PauseMS float64 `json:"pause_ms"`
	Marks   []Mark  `json:"marks,omitempty"`
}

// SyncChange is one move of the sync set. Attempt is State.Attempt as the mover saw it; a move by who saw less is refused.
type SyncChange struct {
	Move     SyncMove `json:"move"`
	Region   ID       `json:"region,omitempty"`
	Attempt  uint32   `json:"attempt"`
	Evidence []string `json:"evidence,omitempty"`
}

// SyncMove is what a SyncChange does.
type SyncMove string

// The moves.
const (
	// Grow adds a standby that streams. The names at the primary are set after it.
	Grow SyncMove = "grow"
	// Narrow takes a standby out of the names, and Shrink out of the set, once the primary waits for the others only and each of
	// those has all that was flushed then.
	Narrow SyncMove = "narrow"
	Shrink SyncMove = "shrink"
	// Degrade empties the set, before the primary is told to wait for nobody.
	Degrade SyncMove = "degrade"
	// Whole says that the names are in force and that every member has all that was flushed then: no longer degraded.
	Whole SyncMove = "whole"
)

// Change moves a region in or out of service, or adds one.
type Change struct {
	Region ID   `json:"region"`
	To     Duty `json:"to,omitempty"`
	// Rebuilt says that its database is a copy of the primary again.
	Rebuilt bool `json:"rebuilt,omitempty"`
	// Add brings a region in, drained.
	Add *Region `json:"add,omitempty"`
}

// Automation pauses what happens by itself, or lets it go on.
type Automation struct {
	Paused bool `json:"paused"`
}

// Acknowledge says that people know of the last automatic failover; the next may come.
type Acknowledge struct{}

// Remark puts something into the history and changes nothing else.
type Remark struct {
	Event    string   `json:"event"`
	Region   ID       `json:"region,omitempty"`
	Evidence []string `json:"evidence,omitempty"`
}

// Restore is applied to a backup of the state by `control restore`, never by a running control plane: it begins a new
// epoch, greater than any that the databases may have seen, at the region that is said to be primary.
type Restore struct {
	Primary ID     `json:"primary,omitempty"` // "": the one of the backup
	Epoch   uint64 `json:"epoch,omitempty"`   // at least; 0: the one after the backup's
}

// MarshalBinary is the form in which a command is agreed upon.
func (c Command) MarshalBinary() ([]byte, error) { return json.Marshal(c) }
