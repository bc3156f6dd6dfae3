package replication

import "time"

// Spending is what a client has used of a limit of rate since it was last told of, to be counted together with what it has used at other
// nodes of the region. A limit is that of the generic cell rate algorithm: one more every Every, and Burst at once.
type Spending struct {
	Subject string // of whom; unlike that of anybody else
	N       int
	Every   time.Duration
	Burst   int
}
