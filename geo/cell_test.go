package geo

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/uber/h3-go/v4"
)

func TestCellIsH3(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for range 2000 {
		p := hardPoint(rng)
		finest := CellAt(p, FinestRes)
		for res := range FinestRes + 1 {
			want, err := h3.Cell(finest).Parent(res)
			if err != nil {
				t.Fatal(err)
			}
			got := finest.Parent(res)
			if got != Cell(want) || got.Res() != res || !got.Valid() || got.String() != want.String() {
				t.Fatalf("parent of %v at resolution %d: %v, want %v", finest, res, got, want)
			}
			if got.base() != want.BaseCellNumber() || baseCell(got.base()) != finest.Parent(0) {
				t.Fatalf("base cell of %v: %d, want %d", got, got.base(), want.BaseCellNumber())
			}
		}
	}
	if c := CellAt(Point{47.6, -122.3}, 7); !c.Valid() || c.Res() != 7 || Distance(c.Centre(), Point{47.6, -122.3}) > 2000 {
		t.Errorf("cell of Seattle: %v around %v", c, c.Centre())
	}
}

func TestNoCell(t *testing.T) {
	for _, c := range []Cell{CellAt(Point{math.NaN(), 0}, 7), CellAt(Point{91, 0}, 7), CellAt(Point{0, 0}, 16), CellAt(Point{0, 0}, -1)} {
		if c != 0 || c.Valid() || c.Centre().Valid() {
			t.Errorf("%v around %v, want no cell", c, c.Centre())
		}
	}
}

func TestGridRanksEachBaseCell(t *testing.T) {
	seen := map[path]bool{}
	for n, p := range newGrid().base {
		if p>>(cellBaseShift+baseBits) != 1 || p<<(64-cellBaseShift) != 0 || seen[p] {
			t.Errorf("base cell %d has path %x", n, p)
		}
		seen[p] = true
	}
}

func TestKeyFork(t *testing.T) {
	g := newGrid()
	rng := rand.New(rand.NewPCG(9, 9))
	points := hardPoints(rng, 3000)
	for i, p := range points {
		a := key{g.pathOf(p), Ref(rng.Uint32())}
		b := key{g.pathOf(points[max(0, i-1)]), a.ref ^ 1<<rng.IntN(32)}
		want := 0
		for want < levelLast && a.digit(want) == b.digit(want) {
			want++
		}
		if got := a.fork(b); got != want || b.fork(a) != want {
			t.Fatalf("%x and %x part at level %d, want %d", a, b, got, want)
		}
		if a.digit(want) < b.digit(want) != (a.compare(b) < 0) {
			t.Fatalf("%x and %x are not in order of their digits", a, b)
		}
		for level := range levelLast + 1 {
			if d := a.digit(level); d < 0 || d >= maxKids {
				t.Fatalf("digit %d at level %d", d, level)
			}
		}
	}
}
