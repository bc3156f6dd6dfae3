// Package hugepages asks the system to put memory that is long-lived and read at random into pages of two megabytes, so
// that the processor finds it without walking page tables.
//
// It promises that nothing but speed depends on it: where the system has no such pages, does not want them used (never
// in /sys/kernel/mm/transparent_hugepage/enabled), or is out of them, nothing happens. It must not know what the memory
// is for. The memory may be of Go's heap: the collector goes on as ever, and memory that it frees and the runtime gives
// back to the system is given back.
package hugepages

import "unsafe"

// size is that of a huge page on the processors that we know.
const size = 2 << 20

// dense is the part of a huge page that has to be in use before one is asked for, so that the process does not grow by
// what lies between.
const dense = size / 4

// Set gathers pieces of memory. Its zero value is empty.
type Set struct {
	used map[uintptr]int // bytes by number of the huge page
}

// Add takes a piece of n bytes.
func (s *Set) Add(p unsafe.Pointer, n int) {
	if s.used == nil {
		s.used = map[uintptr]int{}
	}
	for at, end := uintptr(p), uintptr(p)+uintptr(n); at < end; {
		page := at / size
		part := min(end, (page+1)*size) - at
		s.used[page] += int(part)
		at += part
	}
}

// Advise asks for huge pages where the set fills a good part of one, and tells how many the system gave. It takes some
// tenths of a millisecond a page.
func (s *Set) Advise() (given int) {
	if len(s.used) == 0 || !wanted() {
		return 0
	}
	for page, used := range s.used {
		if used >= dense && advise(page*size, size) {
			given++
		}
	}
	return given
}
