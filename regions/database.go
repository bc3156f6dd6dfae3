package regions

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Order is what makes a command to a database newer than another: commands of one deployment come from many controllers,
// of which only the latest counts. An agent keeps the highest that it has seen on disk and refuses lower ones.
type Order struct {
	Epoch   uint64 `json:"epoch"`
	Attempt uint32 `json:"attempt"`
	Term    uint64 `json:"term"` // of the control leader that gives it
}

// Less tells whether o is older than p.
func (o Order) Less(p Order) bool {
	if o.Epoch != p.Epoch {
		return o.Epoch < p.Epoch
	}
	if o.Attempt != p.Attempt {
		return o.Attempt < p.Attempt
	}
	return o.Term < p.Term
}

// String is for logs.
func (o Order) String() string { return fmt.Sprintf("%d.%d.%d", o.Epoch, o.Attempt, o.Term) }

// Role is what a database server is at the moment.
type Role string

// The roles.
const (
	RolePrimary  Role = "primary"
	RoleStandby  Role = "standby"
	RoleStarting Role = "starting" // it does not answer yet
	RoleRejoin   Role = "rejoin"   // it is being rewound or copied anew
	RoleDown     Role = "down"
)

// DatabaseStatus is what an agent tells of its database. Positions may be compared only between servers whose Epoch and
// Timeline are the same.
type DatabaseStatus struct {
	Region ID     `json:"region"`
	Order  Order  `json:"order"` // the highest command seen
	Role   Role   `json:"role"`
	System string `json:"system"` // PostgreSQL's system identifier: servers of one history have one
	// Epoch is that of the control row, as far as it is replayed here.
	Epoch    uint64 `json:"epoch"`
	Timeline uint32 `json:"timeline"`
	// Position is, on a standby, the greater of what was received and what was replayed; on a primary the flushed position.
	Position LSN `json:"position"`
	// Upstream is the region that it streams from, or is told to ("" if detached); Streaming says that it does.
	Upstream  ID   `json:"upstream,omitempty"`
	Streaming bool `json:"streaming,omitempty"`
	// ReadOnly says that a primary is fenced: new transactions cannot write.
	ReadOnly bool `json:"read_only,omitempty"`
	// Fenced says that this primary was started and nobody has confirmed since that it still is the one: its new transactions cannot
	// write, and no commit is acknowledged. SetSync and then ReadOnly(false) of its own epoch or a later one confirm it, or the
	// agent's own look at the control state does.
	Fenced bool `json:"fenced,omitempty"`
	// Sync are the standbys of which any one has to confirm a commit on this primary, as in force; empty: none.
	Sync []ID `json:"sync,omitempty"`
	// Standbys are those that stream from this primary, with the position that each has flushed.
	Standbys map[ID]LSN `json:"standbys,omitempty"`
	// Rejoin tells how far a rejoin has come.
	Rejoin *RejoinStatus `json:"rejoin,omitempty"`
	PID    int           `json:"pid,omitempty"` // of the server, where the agent runs it
	Err    string        `json:"err,omitempty"` // what is wrong, for people
	At     time.Time     `json:"at"`
}

// RejoinStatus is the progress of making a server a standby again.
type RejoinStatus struct {
	Step  string `json:"step"` // "export", "rewind", "basebackup", "start", "catch-up"
	Done  int64  `json:"done_bytes,omitempty"`
	Total int64  `json:"total_bytes,omitempty"` // 0: not known
	// Exported is the file with the transactions that only this server had; empty: there were none.
	Exported string `json:"exported,omitempty"`
	Lost     int    `json:"lost_writes,omitempty"`
}

// Promotion tells where a new epoch left the history of the one before.
type Promotion struct {
	Epoch uint64 `json:"epoch"`
	// Fork is where the history left; 0: the same server goes on, and nothing forked.
	Fork     LSN    `json:"fork"`
	Timeline uint32 `json:"timeline"`
}

// What a database refuses, whoever drives it.
var (
	ErrOldOrder  = errors.New("a newer command was seen")
	ErrWrongRole = errors.New("the database has another role")
	ErrRejoining = errors.New("the database is being made a standby again")
)

// Database is one region's database server as the controller commands it: an agent, or the operator's own commands. Every
// command is idempotent, so that a controller that takes over may give it again, and is refused where a higher Order was
// seen. Each returns once what it asks for is in force, with the status after it. Contexts must have deadlines.
type Database interface {
	Status(ctx context.Context) (DatabaseStatus, error)
	// Detach stops a standby from receiving: its position does not move any more once this returns.
	Detach(ctx context.Context, o Order) (DatabaseStatus, error)
	// ReadOnly fences a living primary for a switchover (on), or lifts the fence: no transaction begins to write, and those
	// that had begun are ended before it returns. It is not a barrier for what does not ask; the lease and Detach are.
	ReadOnly(ctx context.Context, o Order, on bool) (DatabaseStatus, error)
	// SetSync names the standbys of which any one has to confirm each commit, and waits until that is in force. None: commits
	// wait for nobody. It may be given to a standby that is about to be promoted.
	SetSync(ctx context.Context, o Order, sync []ID) (DatabaseStatus, error)
	// Promote makes a detached standby the primary of an epoch, and writes the epoch into its control row without waiting for
	// standbys: they follow later, as may the commits that do wait. A server that is a primary already gets the epoch and may write
	// again; its Promotion has the fork of its last epoch, or 0.
	Promote(ctx context.Context, o Order, epoch uint64) (Promotion, error)
	// Follow makes the server a standby of another region's primary of epoch o.Epoch, whatever that takes: nothing but a new
	// upstream, or a rewind, or a base backup, after what only it had was exported. fork is where the primary's epoch left the
	// history before; 0 says that this server's own history was abandoned and that only a base backup will do. It returns when it
	// has begun; Status tells when it streams.
	Follow(ctx context.Context, o Order, primary ID, fork LSN) (DatabaseStatus, error)
	// Checkpoint makes a new primary ready to be rewound from.
	Checkpoint(ctx context.Context, o Order) error
}
