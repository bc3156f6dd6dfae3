// Package dnsserver answers DNS queries for one zone with the addresses of the nodes that a client should use: those of the
// nearest region that is fit, by the same function as everything else that leads clients.
//
// It promises to be an authority for its zone and nothing else: no recursion, no transfers, no answer that is much longer
// than its question, and to whom asks too often by UDP no answer at all. A packet, whatever is in it, cannot make it fail. It knows no
// HTTP and no gossip, and nobody else knows the DNS library.
package dnsserver
