//go:build amd64 || arm64

package memory

import "unsafe"

// Prefetch has the processor fetch the cache line at p, which will probably be read soon. It does not wait for it. What lies
// there does not matter, nor whether anything does.
//
//go:noescape
func Prefetch(p unsafe.Pointer)

// PrefetchBlock is Prefetch for the next Block bytes.
//
//go:noescape
func PrefetchBlock(p unsafe.Pointer)
