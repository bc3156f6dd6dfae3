package storefile

import (
	"strings"
	"testing"
)

func TestNDJSONRows(t *testing.T) {
	a, b := `{"id":"a","name":"A","lat":1,"lng":2}`, `{"id":"b","name":"B","lat":1,"lng":2}`
	runRows(t, NDJSON, []rowsCase{
		{name: "nothing", in: ""},
		{name: "plain", in: a + "\n" + b + "\n", rows: []string{"1 a A 1,2", "2 b B 1,2"}},
		{name: "BOM, blank lines, CRLF, no line end", in: "\xef\xbb\xbf\n  \r\n" + a + "\r\n\n " + b, rows: []string{"3 a A 1,2", "5 b B 1,2"}},
		{
			name: "bad rows", in: "{\n" + `{"id":"x y","name":"","lat":1,"lng":2}` + "\n" + `{"id":"c","name":"C"}` + "\n" + `{"id":"d","nmae":1}` + "\nnull\n\"\xff\"\n" + b,
			rows: []string{"7 b B 1,2"},
			bad: []string{
				"line 1: not a store in JSON: ", `line 2 (store "x y"): id: contains ' '`, "line 3 (store c): lat: is required; lng: is required",
				"line 4: not a store in JSON: ", "line 5: ", "line 6: is not valid UTF-8",
			},
		},
		{name: "two in a line", in: a + b + "\n", bad: []string{"line 1: not a store in JSON: more data after the object"}},
		{name: "a long line", in: a + "\n" + strings.Repeat(" ", 100) + "\n" + b, o: Options{MaxRowBytes: 50}, rows: []string{"1 a A 1,2", "3 b B 1,2"}, bad: []string{"line 2: is longer than 50 bytes"}},
		{name: "a JSON array", in: "\n[" + a + "]", end: "line 2: the file is a JSON array"},
		{name: "an array later on", in: a + "\n[]\n" + b, rows: []string{"1 a A 1,2", "3 b B 1,2"}, bad: []string{"line 2: not a store in JSON"}},
	})
	if _, err := NewReader(strings.NewReader(a), Options{Format: NDJSON, Columns: map[string]string{"id": "x"}}); err == nil {
		t.Error("a mapping for NDJSON was accepted")
	}
}
