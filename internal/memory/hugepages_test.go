package memory

import (
	"runtime"
	"testing"
	"unsafe"
)

func TestHuge(t *testing.T) {
	block := make([]byte, 8*hugePage)
	for i := range block {
		block[i] = byte(i)
	}
	var s Huge
	s.Add(unsafe.Pointer(&block[0]), len(block))
	sum := 0
	for _, n := range s.used {
		sum += n
	}
	if sum != len(block) || len(s.used) < 8 || len(s.used) > 9 {
		t.Errorf("%d bytes in %d pages", sum, len(s.used))
	}
	t.Logf("given: %d pages", s.Advise()) // as many as the system likes
	for i := range block {
		if block[i] != byte(i) {
			t.Fatalf("byte %d changed", i)
		}
	}
	runtime.KeepAlive(block)
}

// TestSparse sees that a few bytes here and there do not make the process grow.
func TestSparse(t *testing.T) {
	block := make([]byte, 8*hugePage)
	var s Huge
	for at := 0; at < len(block); at += hugePage {
		s.Add(unsafe.Pointer(&block[at]), dense/2)
	}
	if n := s.Advise(); n != 0 {
		t.Errorf("%d pages for a thousandth of them", n)
	}
	runtime.KeepAlive(block)
	var none Huge
	if n := none.Advise(); n != 0 {
		t.Errorf("%d pages for nothing", n)
	}
}
