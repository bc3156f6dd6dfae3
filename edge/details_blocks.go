package edge

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/memory"
)

// detailBlocks keeps encoded details one after the other in large blocks. A million texts are then some hundred things to
// the garbage collector, which looks into none of them, and stores that were first asked for together lie together.
//
// The blocks are a queue. Past the bound the oldest one goes: texts that were asked for since they were written (or since
// they were moved here) move to the newest block, the others are forgotten. So whatever nobody can see any more, because
// its store changed, is gone after one round at the latest.
//
// A slot tells the place of its details. Readers take no lock: what is written once in a block is never written again, a
// block that goes is left to the garbage collector, and it goes only when no slot leads there any more.
type detailBlocks struct {
	window atomic.Pointer[window]
	bytes  atomic.Int64 // of all blocks

	mu   sync.Mutex // held by those who write blocks or the window
	used int        // guarded by mu: of the newest block
}

// window is the blocks that there are. Immutable.
type window struct {
	first  uint64 // the number of the first; they are counted from 1
	blocks [][]byte
}

// textPlace is where details lie: the number of the block, and the offset in it. 0 is nowhere.
type textPlace uint64

const (
	placeBits = 20
	// maxBlock is the size of a block of a cache that is not small; of a small one a block is a sixteenth.
	maxBlock = 1 << placeBits
	minBlock = 1 << 10
)

func blockSize(bound int64) int { return int(min(maxBlock, max(minBlock, bound/16))) }

// text returns the encoded details in the slot; "" stands for none.
func (b *detailBlocks) text(sl *slot) string {
	for {
		p := sl.details.Load()
		if p == 0 {
			return ""
		}
		if w := b.window.Load(); w != nil {
			if i := p>>placeBits - w.first; i < uint64(len(w.blocks)) {
				return textAt(w.blocks[i], int(p%maxBlock))
			}
		}
		// The block is gone, so the slot says something else by now; or it is newer than the window that was read.
	}
}

// prefetch has the processor fetch the details in the slot, which will be read soon.
func (b *detailBlocks) prefetch(sl *slot) {
	p := sl.details.Load()
	w := b.window.Load()
	if p == 0 || w == nil {
		return
	}
	if i := p>>placeBits - w.first; i < uint64(len(w.blocks)) {
		block, at := w.blocks[i], int(p%maxBlock)
		memory.PrefetchBlock(unsafe.Pointer(&block[at]))
		if at += memory.Block; at < len(block) { // most are longer; it does not matter what lies there
			memory.PrefetchBlock(unsafe.Pointer(&block[at]))
		}
	}
}

// textAt is the whole of the encoded details that begin there.
func textAt(block []byte, at int) string {
	n := int(binary.LittleEndian.Uint16(block[at:]))
	return unsafe.String(&block[at], n) // what is written in a block never changes
}

// keep writes details for a slot, and makes room for them if that would take more than the bound. slots finds the slots of
// those that lie in the way.
func (b *detailBlocks) keep(sl *slot, text []byte, bound int64, slots func(geo.Ref) *slot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.fits(len(text)) {
		need := max(blockSize(bound), len(text))
		if int64(need) > bound {
			return
		}
		patience := 2 * int(bound) / need // where everything is asked for all the time, something has to go all the same
		for ; b.bytes.Load()+int64(need) > bound; patience-- {
			b.retire(slots, patience > 0)
		}
		if !b.fits(len(text)) {
			b.grow(need)
		}
	}
	sl.details.Store(uint64(b.write(text)))
}

// fits tells whether the newest block has room. The caller holds mu, as for all that follows.
func (b *detailBlocks) fits(n int) bool {
	w := b.window.Load()
	return w != nil && len(w.blocks) > 0 && b.used+n <= len(w.blocks[len(w.blocks)-1])
}

// grow adds an empty block.
func (b *detailBlocks) grow(size int) {
	w := window{first: 1}
	if old := b.window.Load(); old != nil {
		w = window{old.first, old.blocks[:len(old.blocks):len(old.blocks)]}
	}
	block := make([]byte, size)
	var huge memory.Huge
	huge.Add(unsafe.Pointer(&block[0]), size)
	huge.Advise()
	w.blocks = append(w.blocks, block)
	b.window.Store(&w)
	b.bytes.Add(int64(size))
	b.used = 0
}

// write puts a text into the newest block, in which it fits.
func (b *detailBlocks) write(text []byte) textPlace {
	w := b.window.Load()
	last := len(w.blocks) - 1
	p := textPlace((w.first+uint64(last))<<placeBits | uint64(b.used))
	b.used += copy(w.blocks[last][b.used:], text)
	return p
}

// retire gives the oldest block up. What was asked for moves, if it may.
func (b *detailBlocks) retire(slots func(geo.Ref) *slot, move bool) {
	old := b.window.Load()
	block, end := old.blocks[0], len(old.blocks[0])
	if len(old.blocks) == 1 {
		end = b.used
		b.used = len(block) // what moves needs another one
	}
	for at := 0; at+detailsHead <= end; {
		text := textAt(block, at)
		if text == "" {
			break // the end of what was written
		}
		p := uint64(old.first<<placeBits | uint64(at))
		at += len(text)
		sl := slots(geo.Ref(binary.LittleEndian.Uint32([]byte(text[detailsRef:]))))
		if sl.details.Load() != p {
			continue
		}
		to := uint64(0)
		if move && sl.asked.Load() != 0 {
			sl.asked.Store(0)
			if !b.fits(len(text)) {
				b.grow(len(block))
			}
			to = uint64(b.write([]byte(text)))
		}
		sl.details.CompareAndSwap(p, to) // unless the store has changed this very moment
	}
	w := b.window.Load()
	b.window.Store(&window{w.first + 1, slices.Clone(w.blocks[1:])})
	b.bytes.Add(-int64(len(block)))
}
