package edge

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
)

// operation is what the OpenAPI document says of a route beyond its method and path.
type operation struct {
	id, summary, description, tag string
	params                        []*huma.Param
	body                          *huma.RequestBody
	// scope is what the API key needs; empty: none.
	scope shortline.Scope
	// answer is the body of the success answer (nil: none), with status (0: 200).
	answer any
	status int
	// media is the success answer's body where it is not JSON.
	media map[string]*huma.MediaType
	// also are further success answers with the same body.
	also map[int]string
	// headers are those of the success answers, besides the ones that every answer has, with what they say.
	headers map[string]string
	// problems are the error answers, besides those that every call may give.
	problems []problemKind
	// token says that the call answers with a Shortline-Token; reads also take one.
	token bool
}

// documents are what the service says of itself, made once.
type documents struct {
	openapi []byte
	page    []byte
	tag     string
}

// The types below give the nearby answer, which is written by hand, its schema.

// NearbyAnswer is the answer to GET /v1/nearby.
type NearbyAnswer struct {
	Stores     []NearbyStore `json:"stores" doc:"In the order asked for, ties by distance, then id"`
	Region     string        `json:"region" doc:"The region that answered"`
	AsOf       time.Time     `json:"as_of" doc:"The answer holds all that was committed up to then"`
	LagS       float64       `json:"lag_s" minimum:"0" doc:"How far the answer may be behind the primary, in seconds"`
	NextCursor *string       `json:"next_cursor" nullable:"true" doc:"Send it as cursor to get the next page; null on the last one"`
}

// NearbyStore is one store of it; fields= leaves members out.
type NearbyStore struct {
	ID        shortline.StoreID  `json:"id,omitempty"`
	Name      *string            `json:"name,omitempty" nullable:"true" doc:"null only while the database cannot be read"`
	Lat       float64            `json:"lat,omitempty"`
	Lng       float64            `json:"lng,omitempty"`
	DistanceM float64            `json:"distance_m,omitempty" minimum:"0" doc:"Great-circle distance in metres, to the millimetre"`
	Address   *shortline.Address `json:"address,omitempty" doc:"Empty where the store has none; null only while the database cannot be read"`
	Open      *bool              `json:"open,omitempty" nullable:"true" doc:"Whether it is open now; null where hours or time zone are not known"`
	Queue     *NearbyQueue       `json:"queue,omitempty" doc:"null for a store that never reported"`
	Expected  *ExpectedQueue     `json:"expected,omitempty" doc:"Only with at=: the forecast for then; null for a store without a past"`
}

// ExpectedQueue is what is expected of a queue at the time asked for.
type ExpectedQueue struct {
	Length    float64 `json:"length" minimum:"0" doc:"Expected mean length"`
	WaitS     int     `json:"wait_s" minimum:"0" doc:"Expected seconds until somebody who joins then is served"`
	WaitHighS int     `json:"wait_high_s" minimum:"0" doc:"Nine of ten waits are shorter, if lengths scatter as counts do"`
}

// NearbyQueue is the live queue of one of them.
type NearbyQueue struct {
	Length      int       `json:"length" minimum:"0" maximum:"1000000" doc:"People waiting"`
	WaitS       int       `json:"wait_s" doc:"Expected seconds until somebody who joins now is served"`
	WaitHighS   int       `json:"wait_high_s" doc:"Nine of ten waits are shorter"`
	UsualLength *float64  `json:"usual_length" nullable:"true" doc:"What is usual for this hour; null until it is known"`
	UpdatedAt   time.Time `json:"updated_at" doc:"When the length was observed"`
	AgeS        int64     `json:"age_s" minimum:"0" doc:"Seconds since then"`
}

// Schema makes the two forms of a result one schema.
func (QueuesResult) Schema(r huma.Registry) *huma.Schema {
	refused := &huma.Schema{Type: huma.TypeObject, Required: []string{"id", "error"}, AdditionalProperties: false, Properties: map[string]*huma.Schema{
		"id": {Type: huma.TypeString}, "error": r.Schema(reflect.TypeFor[Problem](), true, "Problem")}}
	return &huma.Schema{OneOf: []*huma.Schema{r.Schema(reflect.TypeFor[QueueAnswer](), true, "QueueAnswer"), refused}}
}

const apiDescription = `Shortline finds the nearest store with the shortest line.

Distances are metres along a great circle (haversine on a sphere of radius 6,371,008.8 m), times RFC 3339 in UTC, waits seconds, coordinates
WGS 84 degrees. Every answer carries Shortline-Region and X-Request-Id. Unknown parameters, and single-valued ones given twice, are refused by
name. Errors are application/problem+json (RFC 9457).`

// newDocuments builds the OpenAPI document of the routes, and the page that shows it.
func newDocuments(version string, routes []route) (documents, error) {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Shortline", Version: version, Description: apiDescription,
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
		Servers: []*huma.Server{{URL: "/"}},
		Tags: []*huma.Tag{{Name: "Find", Description: "Which store near me has the shortest line?"}, {Name: "Queues", Description: "Live queue lengths."}, {Name: "Live", Description: "Queues as they change."},
			{Name: "Insight", Description: "What queues usually are, and what they will be."}, {Name: "Stores", Description: "The stores themselves."}, {Name: "Regions", Description: "Which region to use, and how each is."}, {Name: "Service", Description: "The node and its keys."}},
		Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
			"key": {Type: "http", Scheme: "bearer", BearerFormat: "sl_…", Description: "An API key, made with: shortline keys create"}}},
		Paths: map[string]*huma.PathItem{},
	}
	for _, r := range routes {
		path := openAPIPath(r.path)
		item := doc.Paths[path]
		if item == nil {
			item = &huma.PathItem{}
			doc.Paths[path] = item
		}
		op := r.operation(registry)
		switch r.method {
		case http.MethodGet:
			item.Get = op
		case http.MethodPut:
			item.Put = op
		case http.MethodPost:
			item.Post = op
		case http.MethodDelete:
			item.Delete = op
		default:
			return documents{}, fmt.Errorf("openapi: no place for the method %s of %s", r.method, path)
		}
	}
	// What the schema of a Go type cannot say: a member that is an object or null.
	if nearby := registry.Map()["NearbyStore"]; nearby != nil {
		for _, name := range []string{"address", "queue", "expected"} {
			nearby.Properties[name] = &huma.Schema{Description: nearby.Properties[name].Description,
				OneOf: []*huma.Schema{{Ref: nearby.Properties[name].Ref}, {Type: "null"}}}
		}
	}
	store := registry.Map()["Store"]
	store.Properties["id"].Pattern, store.Properties["id"].MaxLength = `^[A-Za-z0-9._-]+$`, ptr(64)
	text, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return documents{}, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	page, err := renderPage(doc, routes)
	if err != nil {
		return documents{}, fmt.Errorf("render the documentation: %w", err)
	}
	hash := bodyHash(text)
	return documents{openapi: text, page: page, tag: fmt.Sprintf(`"%x"`, hash[:8])}, nil
}

// openAPIPath turns /v1/stores/:id and its escaped colons into /v1/stores/{id}.
func openAPIPath(path string) string {
	parts := strings.Split(strings.ReplaceAll(path, `\:`, "\x00"), "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "/"), "\x00", ":")
}

func (r *route) operation(registry huma.Registry) *huma.Operation {
	d := &r.doc
	op := &huma.Operation{OperationID: d.id, Summary: d.summary, Description: d.description, Tags: []string{d.tag}, RequestBody: d.body, Responses: map[string]*huma.Response{}}
	for part := range strings.SplitSeq(r.path, "/") {
		if name, ok := strings.CutPrefix(part, ":"); ok {
			op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, MaxLength: ptr(64)}})
		}
	}
	op.Parameters = append(op.Parameters, d.params...)
	if d.token && r.method == http.MethodGet {
		op.Parameters = append(op.Parameters, &huma.Param{Name: headerToken, In: "header", Description: "The token of an answer before; this one is then not older", Schema: &huma.Schema{Type: huma.TypeString}})
	}
	headers := map[string]*huma.Param{
		headerRegion:    {Description: "The region that answered", Schema: &huma.Schema{Type: huma.TypeString}},
		headerRequestID: {Description: "The caller's request id, or a new one", Schema: &huma.Schema{Type: huma.TypeString}},
	}
	if d.token {
		headers[headerToken] = &huma.Param{Description: "Send it back to see this or newer, at any node", Schema: &huma.Schema{Type: huma.TypeString}}
	}
	if r.method == http.MethodGet && steerable(r.path) {
		r.steered(op, headers)
	}
	success := &huma.Response{Description: "Done", Headers: maps.Clone(headers)}
	for name, description := range d.headers {
		success.Headers[name] = &huma.Param{Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	if d.answer != nil {
		t := reflect.TypeOf(d.answer)
		success.Content = map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(t, true, t.Name())}}
	}
	if d.media != nil {
		success.Content = d.media
	}
	status := d.status
	if status == 0 {
		status = http.StatusOK
	}
	op.Responses[strconv.Itoa(status)] = success
	for code, description := range d.also {
		again := *success
		again.Description = description
		if code == http.StatusNotModified {
			again.Content = nil
		}
		op.Responses[strconv.Itoa(code)] = &again
	}
	problems := slices.Clone(d.problems)
	if d.scope != "" {
		op.Security = []map[string][]string{{"key": {}}}
		op.Description += fmt.Sprintf("\n\nNeeds an API key with the scope `%s`.", d.scope)
		problems = append(problems, kindUnauthorized, kindForbidden)
	}
	problems = append(problems, kindInternal, kindRateLimited)
	byStatus := map[int][]string{}
	for _, k := range problems {
		byStatus[k.status] = append(byStatus[k.status], fmt.Sprintf("`%s`: %s", k.name, k.title))
	}
	for code, kinds := range byStatus {
		slices.Sort(kinds)
		headers := maps.Clone(headers)
		switch code {
		case http.StatusUnauthorized:
			headers["WWW-Authenticate"] = &huma.Param{Description: "How to send the API key", Schema: &huma.Schema{Type: huma.TypeString}}
		case http.StatusUpgradeRequired:
			headers["Upgrade"] = &huma.Param{Description: "`websocket`", Schema: &huma.Schema{Type: huma.TypeString}}
		case http.StatusTooManyRequests:
			headers["RateLimit"] = &huma.Param{Description: "What is left of the limit, and in how many seconds there is more", Schema: &huma.Schema{Type: huma.TypeString}}
			headers["RateLimit-Policy"] = &huma.Param{Description: "The limit: so many requests in so many seconds", Schema: &huma.Schema{Type: huma.TypeString}}
			headers["Retry-After"] = &huma.Param{Description: "Seconds after which to try again", Schema: &huma.Schema{Type: huma.TypeInteger}}
		case http.StatusServiceUnavailable:
			headers["Retry-After"] = &huma.Param{Description: "Seconds after which to try again", Schema: &huma.Schema{Type: huma.TypeInteger}}
		}
		op.Responses[strconv.Itoa(code)] = &huma.Response{Description: strings.Join(slices.Compact(kinds), "\n\n"), Headers: headers,
			Content: map[string]*huma.MediaType{"application/problem+json": {Schema: registry.Schema(reflect.TypeFor[Problem](), true, "Problem")}}}
	}
	return op
}

// steered says of a read that it may be led to another region.
func (r *route) steered(op *huma.Operation, headers map[string]*huma.Param) {
	text := func(description string) *huma.Param {
		return &huma.Param{Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	op.Parameters = append(op.Parameters, &huma.Param{Name: steeredParam, In: "query", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "Set by a redirect from another region, so that the request is not redirected again"})
	headers[headerNearest] = text("A region that would serve this client better")
	headers[headerNearestURL] = text("Its base URL")
	headers[headerRelayed] = text("The region that passed the request on, because it could not serve it")
	redirected := maps.Clone(headers)
	redirected["Location"] = text("The same request at a region that is nearer")
	redirected["Cache-Control"] = text("no-store")
	op.Responses[strconv.Itoa(http.StatusTemporaryRedirect)] = &huma.Response{Description: "Another region is nearer", Headers: redirected}
}

// documentRoutes are the calls that serve the documents.
func (s *Server) documentRoutes() []route {
	fixed := func(contentType string, body func() []byte) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := noParameters(c.Request().URL.RawQuery); err != nil {
				return err
			}
			h := c.Response().Header()
			h.Set("ETag", s.docs.tag)
			h.Set("Cache-Control", "public, max-age=300")
			if header := c.Request().Header.Get("If-None-Match"); header != "" && etagMatches(header, s.docs.tag) {
				return c.NoContent(http.StatusNotModified)
			}
			if strings.HasPrefix(contentType, "text/html") {
				h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
				h.Set("X-Content-Type-Options", "nosniff")
			}
			return c.Blob(http.StatusOK, contentType, body())
		}
	}
	return []route{
		{method: http.MethodGet, path: "/openapi.json", handler: fixed("application/json", func() []byte { return s.docs.openapi })},
		{method: http.MethodGet, path: "/docs", handler: fixed("text/html; charset=utf-8", func() []byte { return s.docs.page })},
		{method: http.MethodGet, path: "/shortline.js", handler: s.serveModule()},
		{method: http.MethodGet, path: "/problems/:name", handler: func(c echo.Context) error {
			for _, k := range problemKinds() {
				if k.name == c.Param("name") {
					return c.Redirect(http.StatusFound, "/docs#problem-"+k.name)
				}
			}
			return fmt.Errorf("problem %q: %w", clip(c.Param("name")), shortline.ErrNotFound)
		}},
	}
}

func ptr[T any](v T) *T { return &v }
