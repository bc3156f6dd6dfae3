package replication

// LaneOf is the lane that a Write goes to.
func (b *Batcher) LaneOf(w Write) int { return b.lanes.of(&w) }
