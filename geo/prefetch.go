//go:build amd64 || arm64

package geo

import "unsafe"

// prefetch has the processor fetch 256 bytes that will probably be read soon: an inner node, or the first points of a leaf.
// It does not wait for them. What lies there does not matter, nor whether anything does.
//
//go:noescape
func prefetch(p unsafe.Pointer)
