package shortline

import "time"

// ChangeKind says what a Change is about.
type ChangeKind uint8

// The kinds of change. Their numbers are stored; never renumber them.
const (
	StorePut     ChangeKind = 1 // Store holds the whole store
	StoreDeleted ChangeKind = 2 // the store and its queue are gone; Rev is the tombstone's, Queue.Rev that of the queue's, if it had one
	QueueSet     ChangeKind = 3 // Queue holds the whole live state
	KeyPut       ChangeKind = 4 // Key holds the whole API key, without its secret
	EpochBegun   ChangeKind = 5 // the first change of an epoch
)

// Change is the absolute state of one row after one commit. Changes of one row are ordered by Rev and by nothing else: a
// reader applies a change only if its Rev is greater than that of what it holds.
type Change struct {
	// XID and ID are the place in the feed: the transaction's number, and the row's within the feed.
	XID, ID uint64
	Epoch   uint64
	Kind    ChangeKind
	Rev     uint64
	// Subject is the store's or key's id.
	Subject string
	At      time.Time // when it was committed, for measuring lag

	Store *Store // StorePut
	Queue *Queue // QueueSet; StoreDeleted with nothing but the Rev, where the store had a queue
	Key   *Key   // KeyPut
}
