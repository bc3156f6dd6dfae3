package memory

import "unsafe"

// hugePage is the size of a huge page on the processors that we know.
const hugePage = 2 << 20

// dense is the part of a huge page that has to be in use before one is asked for, so that the process does not grow by
// what lies between.
const dense = hugePage / 4

// Huge gathers pieces of memory that are to lie in pages of two megabytes. Its zero value is empty.
//
// Where the system has no such pages, is out of them, or its administrator does not want them used (never in
// /sys/kernel/mm/transparent_hugepage/enabled), nothing happens. The memory may be of Go's heap: the collector goes on as
// ever, and what it frees and the runtime gives back to the system is given back.
type Huge struct {
	used map[uintptr]int // bytes by number of the huge page
}

// Add takes a piece of n bytes.
func (s *Huge) Add(p unsafe.Pointer, n int) {
	if s.used == nil {
		s.used = map[uintptr]int{}
	}
	for at, end := uintptr(p), uintptr(p)+uintptr(n); at < end; {
		page := at / hugePage
		part := min(end, (page+1)*hugePage) - at
		s.used[page] += int(part)
		at += part
	}
}

// Advise asks for huge pages where what was added fills a good part of one, and tells how many the system gave. It takes some
// tenths of a millisecond a page.
func (s *Huge) Advise() (given int) {
	if len(s.used) == 0 || !wanted() {
		return 0
	}
	for page, used := range s.used {
		if used >= dense && advise(page*hugePage, hugePage) {
			given++
		}
	}
	return given
}
