// Package control keeps the regions' agreed state: which region is primary, in which epoch, and who may confirm its writes.
// One voter a region agrees on it through raft; every other node follows within a second; any node may propose a change.
// On it stands the lease, without which no node acknowledges a write.
//
// It promises that the state changes through regions.Apply alone, in one order for everybody; that a node knows what it knew
// after a restart, and says how fresh that is; that a voter which lost its disk neither votes nor leads until it has caught
// up; and that nobody without the cluster key, or of another cluster, takes part. It decides nothing: it knows no database,
// no health and no route.
package control
