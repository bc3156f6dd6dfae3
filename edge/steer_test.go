package edge_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

var (
	virginia = geo.Point{Lat: 39, Lng: -77.5}
	dublin   = geo.Point{Lat: 53.3, Lng: -6.3}
	tokyo    = geo.Point{Lat: 35.7, Lng: 139.7}
)

// planet is the view of nodes under test: two other regions, and whatever nodes are put into it.
type planet struct{ view atomic.Pointer[regions.View] }

func regionNode(region regions.ID, p geo.Point, api string, change ...func(*regions.Node)) regions.Node {
	n := regions.Node{NodeStatus: regions.NodeStatus{Name: string(region) + "/1", Region: region, Point: p, Health: regions.Healthy, API: api}, Alive: true, Heard: morning}
	for _, c := range change {
		c(&n)
	}
	return n
}

func (p *planet) set(state *regions.State, nodes ...regions.Node) {
	p.view.Store(regions.NewView("us-east/1", "us-east", nodes, state, morning))
}

// usual is three healthy regions.
func (p *planet) usual() {
	p.set(nil, regionNode("us-east", virginia, "https://us.example", func(n *regions.Node) { n.Writes = true }), regionNode("eu-west", dublin, "https://eu.example"), regionNode("ap-northeast", tokyo, "https://ap.example"))
}

func inUSEast(p *planet, change ...func(*edge.SteerConfig)) func(*nodeSetup) {
	return func(s *nodeSetup) {
		s.edge.Region, s.edge.Steer = "us-east", edge.SteerConfig{Point: virginia, URL: "https://us.example"}
		s.view = p.view.Load
		for _, c := range change {
			c(&s.edge.Steer)
		}
	}
}

func trustLoopback(c *edge.SteerConfig) {
	c.TrustProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
}

// routeAnswer is the answer of /v1/route, in short.
func routeAnswer(t *testing.T, n *testNode, query string, headers ...string) (order string, a edge.RouteAnswer) {
	t.Helper()
	n.get(t, "/v1/route"+query, append(headers, lenientRequest)...).want(t, 200).json(t, &a)
	var names []string
	for _, r := range a.Regions {
		names = append(names, string(r.Name))
	}
	return strings.Join(names, " "), a
}

func TestRouteOfOneNode(t *testing.T) {
	n := newTestNode(t)
	order, a := routeAnswer(t, n, "?lat=51.5&lng=-0.1")
	if order != "local" || a.Regions[0].Health != "healthy" || a.Regions[0].URL != n.api || !a.Regions[0].Use || a.Client.Source != "query" {
		t.Errorf("%+v", a)
	}
	var rs edge.RegionsAnswer
	n.get(t, "/v1/regions").want(t, 200).json(t, &rs)
	if len(rs.Regions) != 1 || rs.Regions[0].Role != "primary" || rs.Regions[0].Health != "healthy" || rs.Regions[0].State != "active" || *rs.Primary != "local" || len(rs.Regions[0].Nodes) != 1 {
		t.Errorf("%+v", rs)
	}
}

func TestRouteOfClient(t *testing.T) {
	var p planet
	p.usual()
	geoIP := func(a netip.Addr) (geo.Point, bool) { return tokyo, a == netip.MustParseAddr("203.0.113.9") }
	trusting := newTestNode(t, inUSEast(&p, trustLoopback), func(s *nodeSetup) { s.geoIP = geoIP })
	wary := newTestNode(t, inUSEast(&p), func(s *nodeSetup) { s.geoIP = geoIP })
	const fromUS, fromEU, fromAP = "us-east eu-west ap-northeast", "eu-west us-east ap-northeast", "ap-northeast eu-west us-east"
	for _, tt := range []struct {
		name, query string
		headers     []string
		want        string // at the trusting node
		source      string
		wary        string // at the other one
	}{
		{"nothing known", "", nil, fromUS, "region", fromUS},
		{"coordinates", "?lat=51.5&lng=-0.1", nil, fromEU, "query", fromEU},
		{"coordinates before headers", "?lat=51.5&lng=-0.1", []string{"CF-IPLatitude: 35.7", "CF-IPLongitude: 139.7"}, fromEU, "query", fromEU},
		{"Cloudflare", "", []string{"CF-IPLatitude: 35.7", "CF-IPLongitude: 139.7"}, fromAP, "header", fromUS},
		{"CloudFront", "", []string{"CloudFront-Viewer-Latitude: 51.5", "CloudFront-Viewer-Longitude: -0.1"}, fromEU, "header", fromUS},
		{"App Engine", "", []string{"X-AppEngine-CityLatLong: 51.5,-0.1"}, fromEU, "header", fromUS},
		{"Google load balancer", "", []string{"X-Client-Geo-LatLong: 51.5,-0.1"}, fromEU, "header", fromUS},
		{"Akamai", "", []string{"X-Akamai-Edgescape: georegion=1,lat=51.5,long=-0.1,x=y"}, fromEU, "header", fromUS},
		{"Vercel", "", []string{"X-Vercel-IP-Latitude: 51.5", "X-Vercel-IP-Longitude: -0.1"}, fromEU, "header", fromUS},
		{"header that cannot be read", "", []string{"CF-IPLatitude: north", "CF-IPLongitude: 1"}, fromUS, "region", fromUS},
		{"header out of range", "", []string{"CF-IPLatitude: 91", "CF-IPLongitude: 1"}, fromUS, "region", fromUS},
		{"header of nowhere", "", []string{"CF-IPLatitude: 0", "CF-IPLongitude: 0"}, fromUS, "region", fromUS},
		{"header before address", "", []string{"X-Forwarded-For: 203.0.113.9", "CF-IPLatitude: 51.5", "CF-IPLongitude: -0.1"}, fromEU, "header", fromUS},
		{"address", "", []string{"X-Forwarded-For: 203.0.113.9"}, fromAP, "geoip", fromUS},
		{"address behind two proxies", "", []string{"X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.1.2.3"}, fromAP, "geoip", fromUS},
		{"address put in front by the client", "", []string{"X-Forwarded-For: 203.0.113.9, 198.51.100.7"}, fromUS, "region", fromUS},
		{"address with a port", "", []string{"X-Forwarded-For: 203.0.113.9:4711"}, fromAP, "geoip", fromUS},
		{"address that is none", "", []string{"X-Forwarded-For: 203.0.113.9, unknown"}, fromUS, "region", fromUS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			order, a := routeAnswer(t, trusting, tt.query, tt.headers...)
			if order != tt.want || a.Client.Source != tt.source || a.Explanation == "" {
				t.Errorf("the order is %s by %s, want %s by %s", order, a.Client.Source, tt.want, tt.source)
			}
			if order, a := routeAnswer(t, wary, tt.query, tt.headers...); order != tt.wary {
				t.Errorf("a node that trusts nobody says %s by %s, want %s", order, a.Client.Source, tt.wary)
			}
		})
	}
	for _, bad := range []string{"?lat=1", "?lng=1", "?lat=a&lng=1", "?lat=1&lng=1&lat=2", "?where=here"} {
		trusting.get(t, "/v1/route"+bad).wantProblem(t, 400, "malformed-request")
	}
	trusting.get(t, "/v1/route?lat=91&lng=0").wantProblem(t, 422, "invalid-request")
	trusting.get(t, "/v1/regions?x=1").wantProblem(t, 400, "malformed-request")
}

func TestRegions(t *testing.T) {
	var p planet
	state := &regions.State{Primary: "eu-west", PrimaryEpoch: 3, Regions: map[regions.ID]regions.RegionState{
		"us-east": {Point: virginia, Duty: regions.Drained}, "eu-west": {Point: dublin, Duty: regions.Active}, "w": {Point: tokyo, Witness: true}}}
	p.set(state, regionNode("us-east", virginia, "https://us.example"), regionNode("eu-west", dublin, "https://eu.example", func(n *regions.Node) {
		n.Lag, n.RTT, n.Capacity, n.Load, n.Skew = 2*time.Second, 80*time.Millisecond, 100, 50, time.Second
	}), regionNode("eu-west", dublin, "", func(n *regions.Node) { n.Name, n.Alive = "eu-west/2", false }))
	n := newTestNode(t, inUSEast(&p))
	var a edge.RegionsAnswer
	n.get(t, "/v1/regions").want(t, 200).json(t, &a)
	if len(a.Regions) != 3 || *a.Primary != "eu-west" || a.Epoch != 3 {
		t.Fatalf("%+v", a)
	}
	eu, us, w := a.Regions[0], a.Regions[1], a.Regions[2]
	if eu.Name != "eu-west" || eu.Role != "primary" || eu.Health != "healthy" || eu.LagS != 2 || *eu.RTTMS != 80 || eu.Load != 0.5 || len(eu.Nodes) != 2 || eu.Nodes[0].SkewMS != 1000 || eu.Nodes[1].Health != "dead" {
		t.Errorf("%+v", eu)
	}
	if us.Role != "standby" || us.State != "drained" || w.Role != "witness" || w.Health != "unhealthy" {
		t.Errorf("%+v %+v", us, w)
	}
}

func TestSteer(t *testing.T) {
	var p planet
	p.usual()
	const inLondon, inNewYork, inTokyo = "/v1/nearby?lat=51.5&lng=-0.1", "/v1/nearby?lat=40.7&lng=-74", "/v1/nearby?lat=35.7&lng=139.7&radius=2km"
	mode := func(m edge.Steer) func(*edge.SteerConfig) {
		return func(c *edge.SteerConfig) { c.Steer = m }
	}
	off, hint, redirect := newTestNode(t, inUSEast(&p, mode(edge.SteerOff))), newTestNode(t, inUSEast(&p)), newTestNode(t, inUSEast(&p, mode(edge.SteerRedirect)))
	if got := off.get(t, inLondon).want(t, 200).header.Get("Shortline-Nearest-Region"); got != "" {
		t.Errorf("off: %s", got)
	}
	rep := hint.get(t, inLondon).want(t, 200)
	if rep.header.Get("Shortline-Nearest-Region") != "eu-west" || rep.header.Get("Shortline-Nearest-Url") != "https://eu.example" || rep.header.Get("Shortline-Region") != "us-east" {
		t.Errorf("hint: %v", rep.header)
	}
	if got := hint.get(t, inNewYork).want(t, 200).header.Get("Shortline-Nearest-Region"); got != "" {
		t.Errorf("a hint from the nearest: %s", got)
	}
	rep = redirect.get(t, inTokyo).want(t, 307)
	if got := rep.header.Get("Location"); got != "https://ap.example/v1/nearby?lat=35.7&lng=139.7&radius=2km&steered=us-east" {
		t.Errorf("redirected to %s", got)
	}
	redirect.get(t, inNewYork).want(t, 200)
	redirect.get(t, "/v1/stores/none").wantProblem(t, 404, "not-found") // where the client is is not known
	// Not again, not with a key, not by a little, and never a write.
	for _, again := range []string{"&steered=eu-west", "&steered="} {
		if got := redirect.get(t, inTokyo+again).want(t, 200).header.Get("Shortline-Nearest-Region"); got != "ap-northeast" {
			t.Errorf("the hint is %q", got)
		}
	}
	hint.get(t, inNewYork+"&steered=eu-west").want(t, 200)
	redirect.get(t, inTokyo, bearer(redirect.key)).want(t, 200)
	p.set(nil, regionNode("us-east", virginia, "https://us.example"), regionNode("us-north", geo.Point{Lat: 40.7, Lng: -74}, "https://north.example"))
	if got := redirect.get(t, inNewYork).want(t, 200).header.Get("Shortline-Nearest-Region"); got != "us-north" {
		t.Errorf("nearer by a little: the hint is %q", got)
	}
	p.usual()
	redirect.put(t, shortline.Store{ID: "a", Name: "A", Lat: 35.7, Lng: 139.7})
	redirect.report(t, "a", `{"length":1}`)
	// A region that is not fit sends everybody away, and when none is, nobody.
	drained := &regions.State{Regions: map[regions.ID]regions.RegionState{"us-east": {Point: virginia, Duty: regions.Draining}}}
	p.set(drained, regionNode("us-east", virginia, "https://us.example"), regionNode("eu-west", dublin, "https://eu.example"))
	redirect.get(t, inNewYork).want(t, 307)
	redirect.get(t, "/v1/stores/a").want(t, 307)
	if got := hint.get(t, inNewYork).want(t, 200).header.Get("Shortline-Nearest-Region"); got != "eu-west" {
		t.Errorf("the hint of a drained region is %q", got)
	}
	p.set(drained, regionNode("us-east", virginia, "https://us.example"), regionNode("eu-west", dublin, "https://eu.example", func(n *regions.Node) { n.Alive = false }))
	redirect.get(t, inLondon).want(t, 200)
}

func TestSteerConfig(t *testing.T) {
	c := edge.Config{Steer: edge.SteerConfig{Steer: "push", URL: "eu.example", Margin: -1, Point: geo.Point{Lat: 91}}}
	err := c.Validate()
	for _, want := range []string{"steer:", "advertise-url:", "steer-margin:", "region-point:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// TestRelay: a node without a snapshot has its reads answered by another, once, and two such nodes do not go round in circles.
func TestRelay(t *testing.T) {
	var p planet
	p.usual()
	able := newTestNode(t, func(s *nodeSetup) { s.edge.Region, s.view = "eu-west", p.view.Load })
	able.put(t, shortline.Store{ID: "a", Name: "A", Lat: 40.7, Lng: -74})
	lameness := func(s *nodeSetup) { s.faults = func(f *faultyStore) { f.snapshot.set(broken) } }
	lame := newTestNode(t, inUSEast(&p), lameness)
	p.set(nil, regionNode("us-east", virginia, lame.api), regionNode("eu-west", dublin, able.api))
	for _, path := range []string{"/v1/nearby?lat=40.7&lng=-74", "/v1/stores/a"} {
		rep := lame.get(t, path, "X-Request-Id: mine", lenientRequest).want(t, 200)
		if !strings.Contains(string(rep.body), `"A"`) || rep.header.Get("Shortline-Region") != "eu-west" || rep.header.Get("Shortline-Relayed") != "us-east" || rep.header.Get("X-Request-Id") != "mine" {
			t.Errorf("%s: %s %v", path, rep.body, rep.header)
		}
		rep.token(t)
	}
	lame.get(t, "/v1/stores/none").wantProblem(t, 404, "not-found")
	lame.write(t, "PUT", "/v1/stores/b", `{"name":"B","lat":1,"lng":1}`).wantProblem(t, 503, "not-ready") // never a write
	lame.get(t, "/v1/nearby?lat=40.7&lng=-74", "Shortline-Relayed: eu-west", lenientRequest).wantProblem(t, 503, "not-ready")
	lame.get(t, "/healthz").wantProblem(t, 503, "not-ready")

	// Two lame nodes that take each other for able.
	var hops atomic.Int64
	other := newTestNode(t, func(s *nodeSetup) { s.edge.Region, s.view = "ap-northeast", p.view.Load }, lameness)
	proxy := countingProxy(t, other.api, &hops)
	p.set(nil, regionNode("us-east", virginia, lame.api), regionNode("ap-northeast", tokyo, proxy))
	lame.get(t, "/v1/nearby?lat=40.7&lng=-74").wantProblem(t, 503, "not-ready")
	if hops.Load() != 1 {
		t.Errorf("the read went over %d times", hops.Load())
	}
	p.set(nil, regionNode("us-east", virginia, lame.api), regionNode("ap-northeast", tokyo, "http://127.0.0.1:1"))
	lame.get(t, "/v1/nearby?lat=40.7&lng=-74").wantProblem(t, 503, "not-ready")

	// One that is reached elsewhere than where clients reach it.
	far := newTestNode(t, inUSEast(&p, func(c *edge.SteerConfig) {
		c.Reach = map[string]string{"eu.example:443": strings.TrimPrefix(able.api, "http://")}
	}), lameness)
	p.set(nil, regionNode("us-east", virginia, far.api), regionNode("eu-west", dublin, "http://eu.example:443"))
	far.get(t, "/v1/stores/a", lenientRequest).want(t, 200)
}

// What another node says of itself decides where a read goes, and no more: not to other paths, not where redirects lead, not to neighbours.
func TestRelayStaysWithNodes(t *testing.T) {
	var p planet
	p.usual()
	lame := newTestNode(t, inUSEast(&p), func(s *nodeSetup) { s.faults = func(f *faultyStore) { f.snapshot.set(broken) } })
	var asked, secret atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { secret.Add(1) }))
	t.Cleanup(inside.Close)
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, inside.URL+"/secret", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(node.Close)
	ask := func(api string) reply {
		p.set(nil, regionNode("us-east", virginia, lame.api), regionNode("eu-west", dublin, api))
		return lame.get(t, "/v1/nearby?lat=40.7&lng=-74", lenientRequest)
	}
	if ask(node.URL).wantProblem(t, 503, "not-ready"); asked.Load() != 1 {
		t.Errorf("a node that redirects was asked %d times", asked.Load())
	}
	at := strings.TrimPrefix(inside.URL, "http://")
	for _, api := range []string{inside.URL + "/secret?x=", inside.URL + "/secret#", inside.URL + "/?", "http://user@" + at, "ftp://" + at, "//" + at, at, "http://", "file:///etc/passwd"} {
		ask(api).wantProblem(t, 503, "not-ready")
	}
	if secret.Load() != 0 {
		t.Errorf("what is inside was asked %d times", secret.Load())
	}
	for _, api := range []string{"http://169.254.169.254", "http://[fe80::1%25lo]:80", "http://[::ffff:169.254.169.254]"} {
		if rep := ask(api).wantProblem(t, 503, "not-ready"); !strings.Contains(rep.Detail, "still loading") {
			t.Errorf("%s: %+v", api, rep)
		}
	}
}

// TestRelayBehind: a session whose node stays behind is answered by the primary region, and by no other.
func TestRelayBehind(t *testing.T) {
	var p planet
	p.usual()
	able := newTestNode(t, func(s *nodeSetup) { s.edge.Region, s.view = "eu-west", p.view.Load })
	able.put(t, shortline.Store{ID: "a", Name: "A"})
	wrote := able.write(t, http.MethodPost, "/v1/stores/a/queue", `{"length":3}`).want(t, 200).token(t)
	send := "Shortline-Token: " + wrote.String()
	late := newTestNode(t, inUSEast(&p), func(s *nodeSetup) { s.edge.SessionWait, s.edge.WriteHold = 20*time.Millisecond, 20*time.Millisecond })
	late.store.head.set(broken) // it cannot ask what the token means
	primary := func(id regions.ID) {
		p.set(&regions.State{Primary: id}, regionNode("us-east", virginia, late.api), regionNode("eu-west", dublin, able.api))
	}
	primary("us-east")
	late.get(t, "/v1/stores/a/queue", send).wantProblem(t, 503, "behind-token")
	primary("eu-west")
	rep := late.get(t, "/v1/stores/a/queue", send, lenientRequest).want(t, 200)
	if !strings.Contains(string(rep.body), `"length":3`) || rep.header.Get("Shortline-Region") != "eu-west" || rep.header.Get("Shortline-Relayed") != "us-east" {
		t.Errorf("%s %v", rep.body, rep.header)
	}
	if got := rep.token(t); got.Less(wrote) {
		t.Errorf("the token %v is before the one that was sent, %v", got, wrote)
	}
}

// TestRelayHoldsWhileThePrimaryMoves: a session whose node has lost its database, and the primary region, is answered once there is
// another primary.
func TestRelayHoldsWhileThePrimaryMoves(t *testing.T) {
	var p planet
	p.usual()
	able := newTestNode(t, func(s *nodeSetup) { s.edge.Region, s.view = "eu-west", p.view.Load })
	able.put(t, shortline.Store{ID: "a", Name: "A"})
	wrote := able.write(t, http.MethodPost, "/v1/stores/a/queue", `{"length":3}`).want(t, 200).token(t)
	var asked atomic.Int64
	dying := countingProxy(t, "http://127.0.0.1:1", &asked)
	late := newTestNode(t, inUSEast(&p), func(s *nodeSetup) { s.edge.SessionWait, s.edge.WriteHold = 20*time.Millisecond, time.Minute })
	late.store.changes.set(broken) // it stays behind, and can ask what the token means
	late.write(t, http.MethodPut, "/v1/stores/b", `{"name":"B","lat":1,"lng":1}`).want(t, 201)
	late.write(t, http.MethodPut, "/v1/stores/c", `{"name":"C","lat":1,"lng":1}`).want(t, 201)
	view := func(primary regions.ID) {
		p.set(&regions.State{Primary: primary}, regionNode("us-east", virginia, late.api), regionNode("ap-northeast", tokyo, dying), regionNode("eu-west", dublin, able.api))
	}
	view("ap-northeast")
	answer := make(chan reply, 1)
	go func() {
		answer <- late.get(t, "/v1/stores/a/queue", "Shortline-Token: "+wrote.String(), lenientRequest)
	}()
	for asked.Load() < 2 {
		runtime.Gosched()
	}
	select {
	case rep := <-answer:
		t.Fatalf("it was answered before there was a primary: %d %s", rep.status, rep.body)
	default:
	}
	view("eu-west")
	if rep := <-answer; rep.status != 200 || !strings.Contains(string(rep.body), `"length":3`) {
		t.Errorf("%d %s", rep.status, rep.body)
	}
}

// countingProxy passes requests on and counts them.
func countingProxy(t *testing.T, target string, count *atomic.Int64) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	l := listenLocal(t)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", u.Scheme, u.Host
		res, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_ = res.Body.Close()
		w.WriteHeader(res.StatusCode)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return "http://" + l.Addr().String()
}

// TestExplainRoute: an operator asks for any address or place; nobody else does.
func TestExplainRoute(t *testing.T) {
	var p planet
	p.usual()
	n := newTestNode(t, inUSEast(&p), func(s *nodeSetup) {
		s.geoIP = func(a netip.Addr) (geo.Point, bool) { return tokyo, a == netip.MustParseAddr("203.0.113.9") }
	})
	for query, want := range map[string]string{"?addr=203.0.113.9": "ap-northeast geoip", "?addr=198.51.100.1": "us-east region", "?lat=51.5&lng=-0.1": "eu-west query", "": "us-east region"} {
		var a edge.RouteAnswer
		n.get(t, "/admin/v1/route"+query, bearer(n.key)).want(t, 200).json(t, &a)
		if got := string(a.Regions[0].Name) + " " + a.Client.Source; got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	for _, bad := range []string{"?addr=x", "?addr=1.2.3.4&lat=1&lng=2", "?addr=1.2.3.4&addr=1.2.3.5", "?lat=1", "?x=1"} {
		n.get(t, "/admin/v1/route"+bad, bearer(n.key), lenientRequest).wantProblem(t, 400, "malformed-request")
	}
	n.get(t, "/admin/v1/route").wantProblem(t, 401, "unauthorized")
}
