// Package replication is everything between a database and what a node serves from memory: the contract that every store
// keeps, the batcher that turns many clients' writes into few transactions, the feed that brings every change to every
// node, the tokens that let a session never go backwards, and the cache of store details.
//
// It promises that an acknowledged write is durable, that memory follows the database in step and by rev alone, and that
// an unknown outcome is called unknown. It knows no particular database, no HTTP, and not who is primary.
package replication

import (
	"context"
	"errors"
	"time"

	"github.com/shortline/shortline"
)

// Errors of writes. A store wraps whatever else goes wrong in its own words.
var (
	// ErrOverloaded says that the queue of writes is full; nothing was written, try again later.
	ErrOverloaded = errors.New("too many writes are waiting")
	// ErrOutcomeUnknown says that the write may or may not have been committed; only its idempotency key can tell.
	ErrOutcomeUnknown = errors.New("the outcome of the write is unknown")
	// ErrIdempotencyMismatch says that an idempotency key came again with another request.
	ErrIdempotencyMismatch = errors.New("this Idempotency-Key was used before with another request body")
	// ErrClosed says that the batcher or store has been shut down; nothing was written.
	ErrClosed = errors.New("shutting down")
	// ErrNotPrimary says that the database does not take writes at the moment, or that they must not be acknowledged here: it is
	// not the primary's, fenced, of another epoch, or cannot be reached. Nothing was written; try again, maybe elsewhere.
	ErrNotPrimary = errors.New("this region does not take writes at the moment")
	// ErrPruned says that the feed no longer reaches back to the cursor that was asked for: resync in full.
	ErrPruned = errors.New("the change feed is pruned past the cursor")
)

// Write is one client's request. Its items are applied in the order given, each with a result of its own; one that is not
// found or not applied does not stop the others. All items of a Write are in one transaction.
type Write struct {
	Items       []Item
	Idempotency *Idempotency // nil: none
}

// Item is one thing to write; exactly one field is set, and its value has passed Validate and, for a store, Normalize.
type Item struct {
	Queue  *shortline.QueueUpdate
	Put    *shortline.Store
	Delete shortline.StoreID
	// Key creates the key, or replaces everything but its hash where the id exists, as far as shortline.Key.Follow lets it. Its Rev is ignored.
	Key *shortline.Key
	// Use keeps when a key was used, where that is later than what is kept, and changes nothing else.
	Use *shortline.KeyUse
}

// Idempotency makes a Write safe to send again.
type Idempotency struct {
	// Scope keeps keys of different API keys, methods and paths apart.
	Scope string
	Key   string
	// BodyHash is of the request body; the same scope and key with another hash is ErrIdempotencyMismatch.
	BodyHash [32]byte
	// TTL is how long the answer is kept at least.
	TTL time.Duration
}

// Status is what became of an Item.
type Status uint8

// The statuses. They are stored with idempotency rows; never renumber them.
const (
	StatusCreated   Status = 1 // the store or key is new, or new again after a delete
	StatusUpdated   Status = 2 // the store or key was there and is different now
	StatusUnchanged Status = 3 // the store or key was there and the same: nothing was written, Rev is the old one
	StatusDeleted   Status = 4
	StatusNotFound  Status = 5 // no such store, for Queue and Delete, or no such key, for Use
	StatusQueue     Status = 6 // the queue update was looked at; ItemResult.Queue says what became of it
)

// ItemResult is the answer to one Item.
type ItemResult struct {
	Status Status `json:"status"`
	Rev    uint64 `json:"rev,omitempty"` // of the store or key row, for stores and keys
	// Queue is set with StatusQueue.
	Queue *shortline.QueueResult `json:"queue,omitempty"`
	// ServiceS is the mean seconds to serve one person, with StatusQueue: the store's own, else what is learned; 0 where there
	// is neither.
	ServiceS float64 `json:"service_s,omitempty"`
}

// Result is the answer to one Write. Either Err is set, and nothing of the Write was applied, or Items has a result for
// each item.
type Result struct {
	Items []ItemResult
	// At is when the transaction took place; a replay has the time of the original.
	At time.Time
	// Replayed says that this is the kept answer of an earlier request with the same idempotency key.
	Replayed bool
	// Err is ErrIdempotencyMismatch, or nil.
	Err error
}

// Token is a place in history that a client can hold a node to: what was committed in epoch Epoch by transaction XID.
// Tokens are ordered by (Epoch, XID).
type Token struct {
	Epoch uint64
	XID   uint64
	LSN   uint64 // an upper bound of the log position; 0 where the database has none
}

// Less tells whether t is before o.
func (t Token) Less(o Token) bool {
	return t.Epoch < o.Epoch || t.Epoch == o.Epoch && t.XID < o.XID
}

// Cursor is a place in the change feed; the feed is ordered by (XID, ID), and a reader has seen what is at or before it.
type Cursor struct{ XID, ID uint64 }

// Head is how far a database has come.
type Head struct {
	Epoch uint64
	// Horizon: every change of a transaction with a smaller XID is visible, and no more will appear. A node whose cursor
	// has passed all of these satisfies every token with XID < Horizon.
	Horizon uint64
	// XMax is greater than the XID of every transaction begun so far; a reader whose horizon reaches it has seen all that
	// was committed when it was read.
	XMax uint64
	LSN  uint64
	// Server names one run of the database's server, from its start to its stop; 0: not known. Within a run nothing that was shown
	// is taken back, for a rewind needs a stop.
	Server uint64
}

// end is the token of everything that is complete in front of the horizon.
func (h Head) end() Token { return Token{Epoch: h.Epoch, XID: h.Horizon - 1, LSN: h.LSN} }

// Row is a store with its live queue (nil: none reported), or in a snapshot the tombstone of one.
type Row struct {
	Store shortline.Store // of a tombstone nothing but the ID
	Rev   uint64
	Queue *shortline.Queue
	// Deleted says that this is a tombstone.
	Deleted bool
	// QueueRev is that of the queue's row, also of its tombstone, which readers hold against late changes; 0: there never was
	// a queue. Only snapshots need have it.
	QueueRev uint64
}

// Page is a run of the change feed.
type Page struct {
	// Changes are in feed order, all after the cursor asked for and below Head.Horizon.
	Changes []shortline.Change
	// Head was read in the same snapshot as Changes. Only with More false does the end of Changes mean that the reader
	// has reached Head.Horizon.
	Head Head
	More bool
}

// Rollup is shortline.Rollup, which insight reads too.
type Rollup = shortline.Rollup

// Committer writes. Commit applies all writes in order in one transaction and returns a result for each, durable as the
// store is configured, with the token that covers them. An error means that nothing was committed, unless it wraps
// ErrOutcomeUnknown; it wraps ErrNotPrimary where the fault is not of the writes, so that they may be held and tried again,
// here or elsewhere. Commit may be called from one goroutine at a time or from several; callers never pass a request's
// context, because a cancelled commit has an unknown outcome.
//
// Rules: rev grows by one with each change of a row, also over a delete, which leaves a tombstone. Every applied item
// writes one change row with the row's whole new state, except that the updates of one queue in a transaction are folded:
// they make one change of it, with the state after the last of them and one rev, unless the store is deleted in between; each
// has a result and a sample of its own. A delete of a store that has a queue removes the queue too,
// and the queue's own rev goes on from there when the store comes back. The change of such a delete carries in Queue
// nothing but the Rev of the queue's tombstone, which readers hold against late QueueSet changes independently of the
// store's rev. An applied queue update adds to the rollup of its hour, and moves the queue's shortline.Flow on; what that tells
// is in the change and in every row that is read.
type Committer interface {
	Commit(ctx context.Context, writes []Write) ([]Result, Token, error)
}

// Source is what the feed reads: a snapshot in keyed chunks, and the changes after a cursor.
type Source interface {
	Head(ctx context.Context) (Head, error)
	// Snapshot returns up to limit rows with id > after, in byte order of id; fewer than limit means the end. Tombstones are
	// among them: a delete may lie below the reader's cursor and an older put of the store above it.
	Snapshot(ctx context.Context, after shortline.StoreID, limit int) ([]Row, error)
	// Keys returns every key, revoked ones too.
	Keys(ctx context.Context) ([]shortline.Key, error)
	// Changes returns up to limit changes after the cursor. The error wraps ErrPruned where some are gone.
	Changes(ctx context.Context, after Cursor, limit int) (Page, error)
}

// Splitter is a Source that can be read in parts. Splits returns up to n-1 ids in byte order that divide the stores into about
// equal parts; it guesses, and may know none.
type Splitter interface {
	Splits(ctx context.Context, n int) ([]shortline.StoreID, error)
}

// Leader is a Source that reads from a standby and can ask the primary too.
type Leader interface {
	// PrimaryHead is how far the primary is, by its own account.
	PrimaryHead(ctx context.Context) (Head, error)
}

// Newest is a Source that can tell which change is the newest that it shows.
type Newest interface {
	// Newest returns the token of the change with the greatest XID of those that can be seen, with a bound of the log position that
	// was read after it: it stands for all that a read before the call has found.
	Newest(ctx context.Context) (Token, error)
}

// Witness is a Source that can tell whether a transaction of a former epoch is in its history: whether a change row of
// (epoch, xid) is there. Of changes that are pruned it cannot tell, and says no.
type Witness interface {
	Wrote(ctx context.Context, epoch, xid uint64) (bool, error)
}

// Details reads stores in full.
type Details interface {
	// Rows returns those of the stores that exist, in no particular order.
	Rows(ctx context.Context, ids []shortline.StoreID) ([]Row, error)
}

// Store is the whole contract; storetest.Run holds an adapter to it.
type Store interface {
	Committer
	Source
	Details
	// Rollups returns the hours of a store in [from, to) that have samples, in order of time.
	Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]Rollup, error)
	// Prune drops changes committed before the time, and idempotency rows that have expired at now. It never drops a
	// change that Source.Changes would still promise: an older cursor gets ErrPruned.
	Prune(ctx context.Context, changesBefore, now time.Time) error
	// Close waits for what is under way. The store cannot be used afterwards.
	Close() error
}
