package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

// sink is a View that counts.
type sink struct{ rows, keys int }

func (s *sink) Load(rows []Row)               { s.rows += len(rows) }
func (s *sink) LoadKeys(keys []shortline.Key) { s.keys += len(keys) }
func (*sink) Built()                          { panic("Built is not the reader's") }
func (*sink) Apply([]shortline.Change)        { panic("Apply of a snapshot") }

// sealed makes a file with right checksums of lines of which each begins with its kind: what is behind the checksums is to be
// fuzzed too.
func sealed(t testing.TB, lines []byte) []byte {
	var file bytes.Buffer
	w, err := newBlockWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for line := range bytes.SplitSeq(lines, []byte{'\n'}) {
		if len(line) == 0 {
			continue
		}
		if kind := line[0] - '0'; kind != w.kind {
			if err := w.endBlock(); err != nil {
				return nil
			}
			w.kind = kind
		}
		w.block = append(append(w.block, line[1:]...), '\n')
	}
	if w.flush() != nil {
		return nil
	}
	return file.Bytes()
}

const sampleLines = `1{"deployment":"here","epoch":1,"xid":2,"at":"2026-01-02T03:04:05Z"}
2{"store":{"id":"a","name":"A","lat":1,"lng":2},"rev":3,"queue":{"n":4,"at":1700000000000,"rev":5},"qrev":5}
2{"id":"b","rev":4,"qrev":2}
3{"id":"k","name":"K","scopes":["admin"],"created_at":"2026-01-02T03:04:05Z","hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","rev":1}
4{"rows":2,"keys":1}
`

func FuzzReadSnapshot(f *testing.F) {
	whole := sealed(f, []byte(sampleLines))
	if _, err := ReadSnapshot(f.Context(), bytes.NewReader(whole), "here", &sink{}); err != nil {
		f.Fatal(err)
	}
	f.Add(whole, false)
	f.Add(whole[:len(whole)/2], false)
	f.Add([]byte(sampleLines), true)
	f.Add([]byte("1{}\n4{}"), true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = sealed(t, data)
		}
		var s sink
		info, err := ReadSnapshot(t.Context(), bytes.NewReader(data), "here", &s)
		switch {
		case err == nil && (info.Rows != s.rows || info.Keys != s.keys || info.Deployment != "here"):
			t.Errorf("%+v was read, and %d rows and %d keys loaded", info, s.rows, s.keys)
		case err != nil && !errors.Is(err, ErrSnapshotDamaged) && !errors.Is(err, ErrSnapshotVersion) && !errors.Is(err, ErrSnapshotForeign):
			t.Errorf("an error of no kind: %v", err)
		}
	})
}

// Right checksums do not make a file right.
func TestSnapshotFileMakesNoSense(t *testing.T) {
	for name, c := range map[string][2]string{
		"the rows are out of order":  {`{"id":"b"`, `{"id":"a"`},
		"a row is no JSON":           {`2{"id":"b"`, `2"id":"b"`},
		"a store has no id":          {`"store":{"id":"a",`, `"store":{`},
		"a row is missing":           {`2{"id":"b","rev":4,"qrev":2}` + "\n", ""},
		"a key is missing":           {`"keys":1`, `"keys":2`},
		"a key has half a hash":      {`AAAAAAAAAAAAAAAAAAAA`, ``},
		"it does not say what it is": {`1{"deployment"`, `2{"deployment"`},
		"it says so twice":           {`3{"id"`, `1{"id"`},
		"a block is of another kind": {`3{"id"`, `7{"id"`},
		"it has no end":              {`4{"rows":2,"keys":1}` + "\n", ""},
	} {
		text := strings.Replace(sampleLines, c[0], c[1], 1)
		_, err := ReadSnapshot(t.Context(), bytes.NewReader(sealed(t, []byte(text))), "here", &sink{})
		if text == sampleLines || !errors.Is(err, ErrSnapshotDamaged) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Lengths and packed data in a file may claim anything.
func TestSnapshotFileBombs(t *testing.T) {
	bomb := func(size, packed uint32, data []byte) []byte {
		b := append([]byte(fileMagic), fileVersion, blockInfo)
		b = binary.LittleEndian.AppendUint32(b, size)
		b = binary.LittleEndian.AppendUint32(b, packed)
		b = append(b, data...)
		return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
	}
	w, err := newBlockWriter(&bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	zeros := w.pack.EncodeAll(make([]byte, 256<<20), nil)
	w.close()
	for name, file := range map[string][]byte{
		"a length":        bomb(math.MaxUint32, 10, make([]byte, 10)),
		"a packed length": bomb(10, math.MaxUint32, make([]byte, 10)),
		"packed zeros":    bomb(maxBlockBytes, uint32(len(zeros)), zeros),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ReadSnapshot(t.Context(), bytes.NewReader(file), "here", &sink{})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrSnapshotDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
}
