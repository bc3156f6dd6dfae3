// Package gossip tells every node of a deployment which others there are and how they are: health, addresses, load, how far
// their memory is behind. It makes of that the regions.View that everybody on the node reads.
//
// It promises that the view is a hint and says so: it steers reads and wakes the controller, and never decides who writes.
// A node of another deployment, or without the key, gets nowhere. Sides of a network that was cut in two find each
// other again by themselves. What comes from the network is checked before it counts, and everything kept of it is bounded. It
// knows no HTTP, no raft and no SQL, and nobody else knows memberlist.
package gossip
