package edge_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shortline/shortline"
)

// raw sends bytes to the public port, says that there will be no more, and returns all that comes back.
func (n *testNode) raw(t testing.TB, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.api, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn) // a reset after the answer is none of our business
	return string(answer)
}

func TestBadQueries(t *testing.T) {
	n := newTestNode(t)
	const at = "lat=1&lng=2&"
	for _, c := range []struct {
		name, query string
		status      int
		fields      string
	}{
		{"nothing", "", 400, "lat"},
		{"no longitude", "lat=1", 400, "lng"},
		{"empty", "lat=&lng=", 400, "lat"},
		{"latitude too large", "lat=90.0001&lng=100", 422, "lat"},
		{"both out of range", "lat=-91&lng=200", 422, "lat lng"},
		{"longitude out of range", "lat=1&lng=-180.1", 422, "lng"},
		{"swapped", "lat=-122.3&lng=47.6", 422, "lat"},
		{"NaN", "lat=NaN&lng=2", 400, "lat"},
		{"infinite", "lat=1&lng=-Inf", 400, "lng"},
		{"huge", "lat=1e999&lng=2", 400, "lat"},
		{"hexadecimal", "lat=0x1p3&lng=2", 400, "lat"},
		{"with underscore", "lat=1_0&lng=2", 400, "lat"},
		{"with comma", "lat=1,5&lng=2", 400, "lat"},
		{"a word", "lat=north&lng=2", 400, "lat"},
		{"a blank", "lat=%201&lng=2", 400, "lat"},
		{"full width digits", "lat=%EF%BC%91&lng=2", 400, "lat"},
		{"radius negative", at + "radius=-1", 422, "radius"},
		{"radius 0", at + "radius=0", 422, "radius"},
		{"radius 0 km", at + "radius=0km", 422, "radius"},
		{"radius a word", at + "radius=abc", 400, "radius"},
		{"radius a unit", at + "radius=km", 400, "radius"},
		{"radius of another unit", at + "radius=3ft", 400, "radius"},
		{"radius of two units", at + "radius=3kmkm", 400, "radius"},
		{"radius empty", at + "radius=", 400, "radius"},
		{"radius beyond the Earth", at + "radius=1e9km", 422, "radius"},
		{"radius a bit beyond", at + "radius=21000001", 422, "radius"},
		{"radius infinite", at + "radius=Inf", 422, "radius"},
		{"radius NaN", at + "radius=nan", 400, "radius"},
		{"radius hexadecimal", at + "radius=0x10", 400, "radius"},
		{"limit 0", at + "limit=0", 422, "limit"},
		{"limit 101", at + "limit=101", 422, "limit"},
		{"limit negative", at + "limit=-1", 422, "limit"},
		{"limit a word", at + "limit=x", 400, "limit"},
		{"limit a fraction", at + "limit=1.5", 400, "limit"},
		{"limit huge", at + "limit=99999999999999999999", 400, "limit"},
		{"several at once", "lat=91&lng=200&radius=0&limit=0&max_wait=-1&tag=&brand=", 422, "brand lat limit lng max_wait radius tag"},
		{"unknown", at + "long=3", 400, "long"},
		{"unknown in capitals", "LAT=1&lng=2", 400, "LAT"},
		{"unknown without a name", at + "=3", 400, ""},
		{"a long unknown name", at + strings.Repeat("x", 200) + "=3", 400, strings.Repeat("x", 40) + "…"},
		{"lat twice", "lat=1&lat=1&lng=2", 400, "lat"},
		{"limit twice", at + "limit=1&limit=2", 400, "limit"},
		{"cursor twice", at + "cursor=1&cursor=2", 400, "cursor"},
		{"sort twice", at + "sort=distance&sort=distance", 400, "sort"},
		{"sort by name", at + "sort=name", 400, "sort"},
		{"open_now a word", at + "open_now=maybe", 400, "open_now"},
		{"max_wait a word", at + "max_wait=soon", 400, "max_wait"},
		{"nine tags", at + strings.TrimSuffix(strings.Repeat("tag=x&", 9), "&"), 400, "tag"},
		{"a long tag", at + "tag=" + strings.Repeat("x", 65), 422, "tag"},
		{"a long brand", at + "brand=" + strings.Repeat("x", shortline.MaxTextBytes+1), 422, "brand"},
		{"fields unknown", at + "fields=id,secret", 400, "fields"},
		{"fields empty", at + "fields=", 400, "fields"},
		{"cursor empty", at + "cursor=", 400, "cursor"},
		{"cursor garbage", at + "cursor=abc", 400, "cursor"},
		{"cursor not base64", at + "cursor=%21%21", 400, "cursor"},
		{"cursor long", at + "cursor=" + strings.Repeat("A", 500), 400, "cursor"},
		{"consistency unknown", at + "consistency=quorum", 400, "consistency"},
		{"consistency twice", at + "consistency=strong&consistency=strong", 400, "consistency"},
		{"broken escape in a value", "lat=%zz&lng=2", 400, "lat"},
		{"broken escape in a name", "%zz=1", 400, "query"},
		{"a name that is not UTF-8", at + "%ff=1", 400, "query"},
		{"a value that is not UTF-8", at + "brand=%ff", 400, "brand"},
		{"semicolons", "lat=1;lng=2", 400, "lat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := n.get(t, "/v1/nearby?"+c.query)
			checkRefusal(t, rep, c.status, c.fields)
		})
	}
	for _, path := range []string{"/v1/stores/a", "/v1/stores/a/queue"} {
		checkRefusal(t, n.get(t, path+"?x=1"), 400, "x")
		checkRefusal(t, n.get(t, path+"?consistency=eventual&consistency=eventual"), 400, "consistency")
		checkRefusal(t, n.get(t, path+"?consistency="), 400, "consistency")
		checkRefusal(t, n.get(t, path+"?consistency="+strings.Repeat("x", 5000)), 400, "consistency")
	}
	for _, c := range []struct{ method, path string }{{"PUT", "/v1/stores/a"}, {"DELETE", "/v1/stores/a"}, {"POST", "/v1/stores/a/queue"}, {"POST", "/v1/queues"}, {"POST", "/v1/stores:import"},
		{"GET", "/docs"}, {"GET", "/openapi.json"}, {"GET", "/admin/v1/keys"}, {"POST", "/admin/v1/keys"}, {"DELETE", "/admin/v1/keys/x"}, {"GET", "/healthz"}} {
		checkRefusal(t, n.write(t, c.method, c.path+"?verbose=1", ""), 400, "verbose")
	}
}

// checkRefusal wants a problem of bad input that names the fields, given in order of the alphabet.
func checkRefusal(t *testing.T, rep reply, status int, fields string) {
	t.Helper()
	kind := map[int]string{400: "malformed-request", 413: "too-large", 415: "unsupported-media-type", 422: "invalid-request", 404: "not-found"}[status]
	p := rep.wantProblem(t, status, kind)
	got := p.fields()
	slices.Sort(got)
	if strings.Join(got, " ") != fields {
		t.Errorf("the fields at fault are %q, want %q: %s", got, fields, rep.body)
	}
	if len(rep.body) > 4000 || !utf8.Valid(rep.body) || strings.Contains(string(rep.body), "edge.") || strings.Contains(string(rep.body), "QueueBody") {
		t.Errorf("the body says too much, or what nobody outside knows: %s", rep.body)
	}
}

func TestBadBodies(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	const store, queue, queues = "PUT /v1/stores/a", "POST /v1/stores/a/queue", "POST /v1/queues"
	for _, c := range []struct {
		name, call, body string
		status           int
		fields           string
	}{
		{"store: empty", store, "", 400, "body"},
		{"store: blank", store, " \n", 400, "body"},
		{"store: syntax", store, `{"name":"x",}`, 400, "body"},
		{"store: ends early", store, `{"name":"x"`, 400, "body"},
		{"store: trailing data", store, `{"name":"x","lat":1,"lng":1}{}`, 400, "body"},
		{"store: trailing bracket", store, `{"name":"x","lat":1,"lng":1}]`, 400, "body"},
		{"store: not UTF-8", store, "{\"name\":\"\xff\",\"lat\":1,\"lng\":1}", 400, "body"},
		{"store: array", store, `[]`, 400, "body"},
		{"store: number", store, `7`, 400, "body"},
		{"store: null", store, `null`, 422, "lat lng"},
		{"store: unknown field", store, `{"name":"x","lat":1,"lng":1,"colour":"red"}`, 400, "colour"},
		{"store: unknown field of the address", store, `{"name":"x","lat":1,"lng":1,"address":{"planet":"Earth"}}`, 400, "planet"},
		{"store: wrong type", store, `{"name":7,"lat":1,"lng":1}`, 422, "name"},
		{"store: latitude as text", store, `{"name":"x","lat":"1","lng":1}`, 422, "lat"},
		{"store: address as text", store, `{"name":"x","lat":1,"lng":1,"address":"there"}`, 422, "address"},
		{"store: city as number", store, `{"name":"x","lat":1,"lng":1,"address":{"city":1}}`, 422, "address.city"},
		{"store: tags as text", store, `{"name":"x","lat":1,"lng":1,"tags":"a"}`, 422, "tags"},
		{"store: a number too large", store, `{"name":"x","lat":1e999,"lng":1}`, 422, "lat"},
		{"store: nothing but a name", store, `{"name":"x"}`, 422, "lat lng"},
		{"store: out of range", store, `{"name":"x","lat":91,"lng":181}`, 422, "lat lng"},
		{"store: swapped", store, `{"name":"x","lat":-122.3,"lng":47.6}`, 422, "lat"},
		{"store: a control character", store, `{"name":"a\u0000b","lat":1,"lng":1}`, 422, "name"},
		{"store: too many tags", store, `{"name":"x","lat":1,"lng":1,"tags":[` + manyTags(33) + `]}`, 422, "tags"},
		{"store: too large", store, `{"name":"` + strings.Repeat("x", 40<<10) + `","lat":1,"lng":1}`, 413, ""},
		{"store: deep", store, strings.Repeat("[", 15<<10), 400, "body"},
		{"queue: empty", queue, "", 400, "body"},
		{"queue: neither", queue, `{}`, 422, "length"},
		{"queue: null", queue, `null`, 422, "length"},
		{"queue: both", queue, `{"length":1,"delta":1}`, 422, "length"},
		{"queue: negative", queue, `{"length":-1}`, 422, "length"},
		{"queue: too long", queue, `{"length":1000001}`, 422, "length"},
		{"queue: delta too large", queue, `{"delta":-1000001}`, 422, "delta"},
		{"queue: a fraction", queue, `{"length":1.5}`, 422, "length"},
		{"queue: an exponent beyond", queue, `{"length":1e400}`, 422, "length"},
		{"queue: text", queue, `{"length":"7"}`, 422, "length"},
		{"queue: beyond 64 bits", queue, `{"length":99999999999999999999}`, 422, "length"},
		{"queue: unknown field", queue, `{"lenght":7}`, 400, "lenght"},
		{"queue: id in the body", queue, `{"id":"a","length":7}`, 400, "id"},
		{"queue: array", queue, `[1]`, 422, "body"},
		{"queue: syntax", queue, `{length:7}`, 400, "body"},
		{"queue: NaN", queue, `{"length":NaN}`, 400, "body"},
		{"queue: trailing data", queue, `{"length":7} x`, 400, "body"},
		{"queue: trailing bracket", queue, `{"length":7}]`, 400, "body"},
		{"queue: not UTF-8", queue, "{\"length\":7}\xff", 400, "body"},
		{"queue: a time that is none", queue, `{"length":7,"observed_at":"yesterday"}`, 422, "observed_at"},
		{"queue: a time without zone", queue, `{"length":7,"observed_at":"2026-11-23T09:00:00"}`, 422, "observed_at"},
		{"queue: a time as number", queue, `{"length":7,"observed_at":1700000000}`, 422, "observed_at"},
		{"queue: a time long ago", queue, `{"length":7,"observed_at":"0001-01-01T00:00:00Z"}`, 422, "observed_at"},
		{"queue: a time far ahead", queue, `{"length":7,"observed_at":"9999-01-01T00:00:00Z"}`, 422, "observed_at"},
		{"queue: too large", queue, `{"length":7` + strings.Repeat(" ", 5<<10) + `}`, 413, ""},
		{"queues: empty", queues, "", 400, "body"},
		{"queues: an array", queues, `[{"id":"a","length":1}]`, 422, "body"},
		{"queues: none", queues, `{"updates":null}`, 422, "updates"},
		{"queues: an object", queues, `{"updates":{}}`, 422, "updates"},
		{"queues: a wrong type inside", queues, `{"updates":[{"id":"a","length":"1"}]}`, 422, "updates.length"},
		{"queues: an id of the wrong type", queues, `{"updates":[{"id":1,"length":1}]}`, 422, "updates.id"},
		{"queues: an unknown field inside", queues, `{"updates":[{"id":"a","size":1}]}`, 400, "size"},
		{"queues: an unknown field", queues, `{"update":[]}`, 400, "update"},
		{"queues: too large", queues, `{"updates":[]` + strings.Repeat(" ", 1<<20) + `}`, 413, ""},
		{"keys: too large", "POST /admin/v1/keys", strings.Repeat(" ", 300<<10) + `{}`, 413, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, path, _ := strings.Cut(c.call, " ")
			checkRefusal(t, n.write(t, method, path, c.body), c.status, c.fields)
		})
	}
	t.Run("types", func(t *testing.T) {
		for _, call := range []string{store, queue, queues, "POST /admin/v1/keys"} {
			method, path, _ := strings.Cut(call, " ")
			for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "nonsense"} {
				checkRefusal(t, n.write(t, method, path, `{"length":1}`, "Content-Type: "+kind), 415, "")
			}
		}
	})
	t.Run("nothing came of all that", func(t *testing.T) {
		var q queueAnswer
		n.get(t, "/v1/stores/a/queue").want(t, 200).json(t, &q)
		if q.Length != nil {
			t.Errorf("the queue is %+v", q)
		}
	})
}

func manyTags(count int) string {
	var tags []string
	for i := range count {
		tags = append(tags, fmt.Sprintf("%q", fmt.Sprintf("t%02d", i)))
	}
	return strings.Join(tags, ",")
}

func TestBadIDs(t *testing.T) {
	n := newTestNode(t)
	for _, id := range []string{"a/b", "é", "日本", "a b", "a+b", "a%b", "a:b", "\x00", "\xff", "..", ".", "a?b", "a#b", "a;b", "'", `"`, "<", "a\nb", strings.Repeat("x", 65), "ａ"} {
		escaped := url.PathEscape(id)
		if id == "." || id == ".." {
			escaped = strings.ReplaceAll(id, ".", "%2e")
		}
		t.Run(escaped, func(t *testing.T) {
			path := "/v1/stores/" + escaped
			for _, c := range []struct{ method, path, body string }{
				{"GET", path, ""}, {"PUT", path, `{"name":"x","lat":1,"lng":1}`}, {"DELETE", path, ""}, {"GET", path + "/queue", ""}, {"POST", path + "/queue", `{"length":1}`},
			} {
				rep := n.with(t, n.plain, c.method, c.path, c.body, bearer(n.key))
				checkRefusal(t, rep, 422, "id")
			}
		})
	}
	if a := n.nearby(t, "lat", "1", "lng", "1"); len(a.Stores) != 0 {
		t.Errorf("there is a store %v", a.ids())
	}
	n.with(t, n.plain, http.MethodGet, "/v1/stores/", "").wantProblem(t, 404, "not-found")
	n.write(t, http.MethodDelete, "/admin/v1/keys/%2e%2e", "").wantProblem(t, 404, "not-found")
	t.Run("an escaped id is the id", func(t *testing.T) {
		n.put(t, shortline.Store{ID: "a.b", Name: "x"})
		n.with(t, n.plain, http.MethodGet, "/v1/stores/a%2Eb", "").want(t, 200)
		n.with(t, n.plain, http.MethodGet, "/v1/stores/%61.b/queue", "").want(t, 200)
	})
}

// TestBodyThatStops sends a part of a body and then nothing more.
func TestBodyThatStops(t *testing.T) {
	n := newTestNode(t)
	head := func(call, contentType string, length int) string {
		return fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", call, bearer(n.key), contentType, length)
	}
	for _, text := range []string{
		head("PUT /v1/stores/a", "application/json", 100) + `{"name":"x","lat":1,"lng":1}`,
		head("POST /v1/stores/a/queue", "application/json", 100) + `{"length":1}`,
		head("POST /v1/stores:import", "application/x-ndjson", 1000) + `{"id":"b","name":"x","lat":1,"lng":1}`,
		head("POST /v1/stores:import", "text/csv", 1000) + "id,name,lat,lng\nc,x,1,1",
		strings.Replace(head("PUT /v1/stores/a", "application/json", 0), "Content-Length: 0", "Transfer-Encoding: chunked", 1) + "1c\r\n" + `{"name":"x","lat":1,"lng":1}` + "\r\n",
	} {
		if answer := n.raw(t, text); answer != "" && !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
			t.Errorf("%.40q: %s", text, answer)
		}
	}
	if a := n.nearby(t, "lat", "1", "lng", "1", "consistency", "strong"); len(a.Stores) != 0 {
		t.Errorf("what was cut off made the stores %v", a.ids())
	}
}
