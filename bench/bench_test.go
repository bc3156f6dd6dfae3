package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/geo"
)

func smallWorld(t *testing.T, n int) *dataset {
	t.Helper()
	d, err := newDataset(n)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStoresAreValidAndAlwaysTheSame(t *testing.T) {
	d, again := smallWorld(t, 3000), smallWorld(t, 3000)
	shared := 0
	for i := range d.points {
		s, o := d.store(i), again.store(i)
		if err := s.Validate(); err != nil {
			t.Fatalf("store %d: %v", i, err)
		}
		if !s.Equal(&o) {
			t.Fatalf("store %d differs from one time to the next", i)
		}
		if n, ok := storeNumber(s.ID); !ok || n != i {
			t.Fatalf("id %s of store %d says %d", s.ID, i, n)
		}
		if i > 0 && (storeID(i) < storeID(i-1)) != byID(geo.Ref(i), geo.Ref(i-1)) {
			t.Fatalf("byID is not the order of the ids %s and %s", storeID(i), storeID(i-1))
		}
		if i > 0 && d.points[i] == d.points[i-1] {
			shared++
		}
	}
	if shared != 3000/50 {
		t.Errorf("%d stores share a place, want %d", shared, 3000/50)
	}
}

// TestBruteForce holds the fast scan against sorting all stores by the textbook's distance.
func TestBruteForce(t *testing.T) {
	d := smallWorld(t, 5000)
	b := newBrute(d.points)
	qs := append(asked(d.near(40), 7, 50_000), asked(d.near(20), 100, 0)...)
	qs = append(qs, anywhere(40)...)
	for i, got := range b.answers(qs) {
		q := qs[i]
		var want []answer
		for ref, p := range d.points {
			if dist := haversine(q.at, p); q.within == 0 || dist <= q.within {
				want = append(want, answer{geo.Ref(ref), dist})
			}
		}
		slices.SortFunc(want, func(a, b answer) int {
			if gap := a.distance - b.distance; abs(gap) > sameDistance {
				return int(gap / abs(gap))
			}
			if byID(a.ref, b.ref) {
				return -1
			}
			return 1
		})
		want = want[:min(len(want), q.k)]
		if len(got) != len(want) {
			t.Fatalf("question %d: %d stores, want %d", i, len(got), len(want))
		}
		for j := range got {
			if abs(got[j].distance-want[j].distance) > sameDistance {
				t.Errorf("question %d: store %d at %v, want %v", i, j, got[j].distance, want[j].distance)
			}
		}
	}
}

func TestFaultsAreFound(t *testing.T) {
	d := smallWorld(t, 5000)
	x, err := buildIndex(d.points)
	if err != nil {
		t.Fatal(err)
	}
	b := newBrute(d.points)
	q := question{at: d.points[48], k: 5} // two stores stand there
	want := b.answers([]question{q})[0]
	right := search(x, q, nil)
	for _, c := range []struct {
		name  string
		spoil func([]geo.Hit) []geo.Hit
		wrong bool
	}{
		{"right", func(h []geo.Hit) []geo.Hit { return h }, false},
		{"one missing at the end", func(h []geo.Hit) []geo.Hit { return h[:4] }, true},
		{"one missing before", func(h []geo.Hit) []geo.Hit { return slices.Delete(h, 2, 3) }, true},
		{"ties in the wrong order", func(h []geo.Hit) []geo.Hit { h[0], h[1] = h[1], h[0]; return h }, true},
		{"wrong order", func(h []geo.Hit) []geo.Hit { h[2], h[3] = h[3], h[2]; return h }, true},
		{"one twice", func(h []geo.Hit) []geo.Hit { h[3] = h[2]; return h }, true},
		{"distance off by a centimetre", func(h []geo.Hit) []geo.Hit { h[4].Distance += 0.01; return h }, true},
	} {
		if fault := b.fault(q, c.spoil(slices.Clone(right)), want); (fault != "") != c.wrong {
			t.Errorf("%s: fault %q", c.name, fault)
		}
	}
}

func TestMistakes(t *testing.T) {
	points := []geo.Point{{Lat: 0, Lng: 0}, {Lat: 0, Lng: 0.001}, {Lat: 0, Lng: 0.002}}
	q := question{at: points[0], k: 2, within: 150}
	at := func(ref geo.Ref) answer { return answer{ref, haversine(points[0], points[ref])} }
	want := []answer{at(0), at(1)}
	for _, c := range []struct {
		name                   string
		got                    []answer
		differ, missing, extra int
	}{
		{"right", want, 0, 0, 0},
		{"short", want[:1], 1, 1, 0},
		{"swapped", []answer{at(1), at(0)}, 1, 0, 0},
		{"beyond", []answer{at(0), at(2)}, 1, 1, 1},
	} {
		var m mistakes
		m.add(points, q, c.got, want)
		if m.differ != c.differ || m.missing != c.missing || m.extra != c.extra {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1")
	if err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v; want 2s", got, err)
	}
	if _, err := parseStat("42 (short) S 1"); err == nil {
		t.Error("a short line was accepted")
	}
}

func TestSplice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("intro\n" + marker + "\nold\n" + endMarker + "\nnotes\n")
	for range 2 { // what it wrote can be replaced again
		got, err := splice(file, []byte("new\n"))
		if want := "intro\n" + marker + "\n\nnew\n\n" + endMarker + "\nnotes\n"; err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
		write(string(got))
	}
	write("nothing to replace\n")
	if _, err := splice(file, nil); err == nil {
		t.Error("a page without markers was accepted")
	}
}

func TestLoadGenerators(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/right" {
			http.NotFound(w, r)
		}
	})}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	defer func() { _ = server.Close(); <-done }()
	urls := filepath.Join(t.TempDir(), "urls")
	for _, c := range []struct {
		path  string
		works bool
	}{{"/right", true}, {"/wrong", false}} {
		if err := os.WriteFile(urls, []byte(c.path+"\n"+c.path+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err := generateLoad(context.Background(), []string{"-addr", l.Addr().String(), "-urls", urls, "-for", "50ms", "-connections", "2"}, &out)
		if err == nil {
			_, err = parseLoad([]byte(out.String()))
		}
		if (err == nil) != c.works {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}

// TestRun goes through the parts that need no other program.
func TestRun(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the thread's clock is read as Unix does")
	}
	var out strings.Builder
	args := []string{"-quick", "-stores", "3000", "-checks", "200", "-turns", "1", "-parts", "index,updates"}
	if err := run(context.Background(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"**0 of 200**", "### Reads while updating", "`go run ./bench -checks=200 -parts=index,updates -quick -stores=3000 -turns=1`"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
}
