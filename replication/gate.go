package replication

// Gate tells whether writes may be acknowledged at the moment: the lease of the region that is the primary. A Committer of a
// database that several regions may write to asks it before it touches anything, again right before COMMIT, and once more
// after COMMIT and before the answer. What was committed and may not be acknowledged any more is ErrOutcomeUnknown.
type Gate interface {
	// Check returns the epoch in which writes may be acknowledged now; 0 stands for whatever epoch the database is in. The
	// error wraps ErrNotPrimary and says why they may not. It is called for every transaction and must not block.
	Check() (epoch uint64, err error)
}

// GateFunc is a function that is a Gate.
type GateFunc func() (epoch uint64, err error)

// Check implements Gate.
func (f GateFunc) Check() (epoch uint64, err error) { return f() }
