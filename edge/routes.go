package edge

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/insight"
)

const (
	aboutETag   = "Of the store as it is; send it back as If-None-Match"
	aboutReplay = "`true` where this is the answer to an earlier request with the same Idempotency-Key"
)

// publicRoutes are the calls of the public port.
func (s *Server) publicRoutes() []route {
	return []route{
		{http.MethodGet, "/v1/nearby", s.nearby, operation{
			id: "nearby", tag: "Find", summary: "The nearest stores, with their queues",
			description: "Stores in order of great-circle distance, ties by id: the same stores in the same order as if every store on Earth had been measured. Filters are applied while searching, so `limit` stores come back if there are that many.",
			params:      nearbyParams(), answer: NearbyAnswer{}, token: true,
			problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindTokenLost, kindNotReady, kindBehind, kindTimeout, kindStoreUnavailable}}},
		{http.MethodGet, "/v1/stores/:id", s.getStore, operation{
			id: "getStore", tag: "Stores", summary: "One store", params: []*huma.Param{consistencyParam(), ifNoneMatch()},
			answer: shortline.Store{}, also: map[int]string{304: "The store is still the one of the ETag"}, headers: map[string]string{"ETag": aboutETag}, token: true,
			problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindNotFound, kindTokenLost, kindNotReady, kindBehind, kindStoreUnavailable}}},
		{http.MethodPut, "/v1/stores/:id", s.putStore, operation{
			id: "putStore", tag: "Stores", summary: "Create or replace a store", body: jsonBody(shortline.Store{}), scope: shortline.ScopeStoresWrite,
			description: "The whole store is replaced. `id` in the body may be left out; `name`, `lat` and `lng` are required.",
			answer:      shortline.Store{}, also: map[int]string{201: "Created"}, headers: map[string]string{"ETag": aboutETag, "Location": "Of a store that was created: its path"},
			token: true, problems: writeProblems(kindTooLarge, kindMedia)}},
		{http.MethodDelete, "/v1/stores/:id", s.deleteStore, operation{
			id: "deleteStore", tag: "Stores", summary: "Delete a store and its queue", scope: shortline.ScopeStoresWrite, status: 204, token: true,
			problems: writeProblems(kindNotFound)}},
		{http.MethodPost, `/v1/stores\:import`, s.importStores, operation{
			id: "importStores", tag: "Stores", summary: "Import many stores", body: importBody(), scope: shortline.ScopeStoresWrite,
			description: "The body is read and committed as it arrives and may be of any length. A bad row is rejected, named with its line, and the others go in. Sending the same file again changes nothing. If the import ends with an error, the rows before stay.",
			answer:      ImportAnswer{}, token: true, problems: writeProblems(kindMedia)}},
		{http.MethodGet, "/v1/stores/:id/queue", s.getQueue, operation{
			id: "getQueue", tag: "Queues", summary: "The live queue of a store", params: []*huma.Param{consistencyParam()},
			answer: QueueState{}, token: true, problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindNotFound, kindTokenLost, kindNotReady, kindBehind}}},
		{http.MethodPost, "/v1/stores/:id/queue", s.postQueue, operation{
			id: "postQueue", tag: "Queues", summary: "Report the queue of a store", params: []*huma.Param{idempotencyParam()}, body: jsonBody(QueueBody{}),
			scope: shortline.ScopeQueueWrite, answer: QueueAnswer{}, headers: map[string]string{"Idempotent-Replayed": aboutReplay}, token: true,
			description: "Takes exactly one of `length` and `delta`. A result below 0 or above 1,000,000 is clamped, and said so. A `length` observed before what is stored, or an observation in the future, is not applied, and said so.",
			problems:    writeProblems(kindNotFound, kindTooLarge, kindMedia, kindIdempotency)}},
		{http.MethodPost, "/v1/queues", s.postQueues, operation{
			id: "postQueues", tag: "Queues", summary: "Report many queues", params: []*huma.Param{idempotencyParam()}, body: jsonBody(queuesBody{}),
			scope: shortline.ScopeQueueWrite, answer: QueuesAnswer{}, headers: map[string]string{"Idempotent-Replayed": aboutReplay}, token: true,
			description: "Up to 1,000 updates, with a result for each, in order. One that is refused does not touch the others.",
			problems:    writeProblems(kindTooLarge, kindMedia, kindIdempotency)}},
		{http.MethodGet, "/v1/stores/:id/stats", s.getStats, operation{
			id: "getStats", tag: "Insight", summary: "What a store's queue usually is", params: []*huma.Param{consistencyParam()},
			description: "A profile of the 168 hours of the week on the store's own clock, made of its reports of the last twelve weeks. Waits are of somebody who joins then: the mean, and the time that nine of ten waits are shorter than.",
			answer:      StatsAnswer{}, token: true, headers: map[string]string{"Cache-Control": "May be kept for a minute"},
			problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindNotFound, kindTokenLost, kindNotReady, kindBehind, kindStoreUnavailable}}},
		{http.MethodGet, "/v1/stores/:id/forecast", s.getForecast, operation{
			id: "getForecast", tag: "Insight", summary: "What a store's queue will be", params: []*huma.Param{
				{Name: "hours", In: "query", Description: "How many hours", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: ptr(1.0), Maximum: ptr(float64(insight.MaxHorizon)), Default: defaultForecastHours}},
				consistencyParam()},
			description: "The usual queue of each hour, moved by how today differs from it, which wears off. The band is as wide as past forecasts were wrong. From the first report on; `seen_weeks` and `observed_hours` say how much is known.",
			answer:      ForecastAnswer{}, token: true, headers: map[string]string{"Cache-Control": "May be kept for a minute"},
			problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindNotFound, kindTokenLost, kindNotReady, kindBehind, kindStoreUnavailable}}},
		{http.MethodGet, "/v1/accuracy", s.getAccuracy, operation{
			id: "getAccuracy", tag: "Insight", summary: "How good the forecasts have been",
			description: "The node keeps replaying the past of stores drawn at random: what was forecast with what was known before, against what came, beside two forecasts that need no model.",
			answer:      AccuracyAnswer{}, headers: map[string]string{"Cache-Control": "May be kept for a minute"}, problems: []problemKind{kindMalformed, kindUnauthorized, kindForbidden}}},
		{http.MethodGet, "/v1/live", s.liveSocket, operation{
			id: "live", tag: "Live", summary: "Follow queues over a WebSocket", status: 101, description: aboutLive, params: liveSocketParams(),
			headers:  map[string]string{"Upgrade": "`websocket`", "Connection": "`Upgrade`", "Sec-WebSocket-Accept": "As RFC 6455 has it", "Sec-WebSocket-Protocol": "`shortline`, where it was offered"},
			problems: []problemKind{kindMalformed, kindUpgrade, kindUnauthorized, kindForbidden, kindTooManyConnections, kindNotReady}}},
		{http.MethodGet, "/v1/live/sse", s.liveEvents, operation{
			id: "liveEvents", tag: "Live", summary: "Follow queues over server-sent events", description: aboutEvents, params: liveEventsParams(),
			media:    map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
			problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindTooManyConnections, kindNotReady}}},
		{http.MethodGet, "/v1/heatmap", s.getHeatmap, operation{
			id: "getHeatmap", tag: "Insight", summary: "Where the queues are, by H3 cell", params: []*huma.Param{
				{Name: "bbox", In: "query", Description: "`west,south,east,north` in degrees; west may be greater than east, across the antimeridian. The whole Earth where absent. A cell counts if its middle is inside", Schema: &huma.Schema{Type: huma.TypeString}},
				{Name: "res", In: "query", Description: "H3 resolution; by the size of the bbox where absent", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: ptr(0.0), Maximum: ptr(float64(maxHeatRes))}},
				consistencyParam()},
			description: "GeoJSON of at most 10,000 cells. The sums are made at most once a second.",
			answer:      Heatmap{}, token: true, problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindTokenLost, kindNotReady, kindBehind}}},
		{http.MethodGet, "/v1/map", s.getMap, operation{
			id: "getMap", tag: "Find", summary: "Every store in a part of the Earth, for maps", params: []*huma.Param{
				{Name: "bbox", In: "query", Description: "`west,south,east,north` in degrees; west may be greater than east, across the antimeridian. The whole Earth where absent", Schema: &huma.Schema{Type: huma.TypeString}},
				{Name: "limit", In: "query", Description: "Up to how many stores there may be; with more, none is listed", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: ptr(1.0), Maximum: ptr(float64(maxMapStores)), Default: defaultMapStores}},
				consistencyParam()},
			description: "Where the stores are, how long one waits and whether they are open, in columns: some 12 bytes a store once compressed. For names and addresses ask for what is near a point, or for one store; for changes follow the stores.",
			answer:      MapAnswer{}, token: true, problems: []problemKind{kindMalformed, kindInvalid, kindUnauthorized, kindForbidden, kindTokenLost, kindNotReady, kindBehind, kindTimeout}}},
		{http.MethodGet, "/v1/analytics/overview", s.getOverview, operation{
			id: "getOverview", tag: "Insight", summary: "All queues at a glance", params: []*huma.Param{consistencyParam()},
			description: "Totals, the busiest stores and the busiest cells, for dashboards. Made at most once a second.",
			answer:      OverviewAnswer{}, token: true, problems: []problemKind{kindMalformed, kindUnauthorized, kindForbidden, kindTokenLost, kindNotReady, kindBehind}}},
		{http.MethodGet, "/healthz", s.healthz, operation{
			id: "healthz", tag: "Service", summary: "Whether this node can serve reads", answer: Health{}, problems: []problemKind{kindMalformed, kindNotReady}}},
	}
}

// adminRoutes are the calls under /admin/v1/, each behind guard.
func (s *Server) adminRoutes(let echo.MiddlewareFunc) []route {
	guard := func(next echo.HandlerFunc) echo.HandlerFunc { return s.audited(let(next)) }
	return append(append(s.operateRoutes(guard), s.explainRoutes(guard)...), []route{
		{http.MethodPost, "/admin/v1/keys", guard(s.createKey), operation{
			id: "createKey", tag: "Service", summary: "Make an API key", body: jsonBody(KeyRequest{}), scope: shortline.ScopeAdmin,
			answer: NewKeyAnswer{}, status: 201, token: true, problems: writeProblems(kindTooLarge, kindMedia)}},
		{http.MethodGet, "/admin/v1/keys", guard(s.listKeys), operation{
			id: "listKeys", tag: "Service", summary: "List the API keys, without their secrets", scope: shortline.ScopeAdmin,
			answer: KeysAnswer{}, problems: []problemKind{kindMalformed, kindNotReady}}},
		{http.MethodPost, "/admin/v1/keys/:id/rotate", guard(s.rotateKey), operation{
			id: "rotateKey", tag: "Service", summary: "Make a successor of an API key", body: optionalBody(RotateRequest{}), scope: shortline.ScopeAdmin,
			description: "The new key may do what the old one may, which ends after `overlap_s`.",
			answer:      NewKeyAnswer{}, status: 201, token: true, problems: writeProblems(kindNotFound, kindTooLarge, kindMedia)}},
		{http.MethodDelete, "/admin/v1/keys/:id", guard(s.revokeKey), operation{
			id: "revokeKey", tag: "Service", summary: "Revoke an API key", scope: shortline.ScopeAdmin,
			answer: shortline.Key{}, token: true, problems: writeProblems(kindNotFound)}},
	}...)
}

// writeProblems are the problems that every write may meet, and more.
func writeProblems(more ...problemKind) []problemKind {
	return append([]problemKind{kindMalformed, kindInvalid, kindNotReady, kindOverloaded, kindStoreUnavailable, kindUnknown}, more...)
}

func jsonBody(v any) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: bodySchema(v)}}}
}

func optionalBody(v any) *huma.RequestBody {
	b := jsonBody(v)
	b.Required = false
	return b
}

// bodySchema writes the schema of a request body in place: what a client sends need not have a name.
func bodySchema(v any) *huma.Schema {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	t := reflect.TypeOf(v)
	schema := registry.Schema(t, false, t.Name())
	inline(schema, registry)
	if _, ok := v.(shortline.Store); ok {
		schema.Required = []string{"name", "lat", "lng"} // the id is in the path
	}
	return schema
}

// inline replaces references by what they refer to; request bodies do not refer to themselves.
func inline(s *huma.Schema, registry huma.Registry) {
	for name, p := range s.Properties {
		if p.Ref != "" {
			s.Properties[name] = registry.SchemaFromRef(p.Ref)
		}
		inline(s.Properties[name], registry)
	}
	if s.Items != nil {
		if s.Items.Ref != "" {
			s.Items = registry.SchemaFromRef(s.Items.Ref)
		}
		inline(s.Items, registry)
	}
}

func importBody() *huma.RequestBody {
	text := &huma.Schema{Type: huma.TypeString}
	return &huma.RequestBody{Required: true, Description: "Stores as CSV with a header line, as one JSON store a line, or as a GeoJSON FeatureCollection of points.",
		Content: map[string]*huma.MediaType{"text/csv": {Schema: text}, "application/x-ndjson": {Schema: text},
			"application/geo+json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}}
}

func nearbyParams() []*huma.Param {
	number := func(low, high float64) *huma.Schema {
		return &huma.Schema{Type: huma.TypeNumber, Minimum: &low, Maximum: &high}
	}
	text := func() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }
	query := func(name, description string, schema *huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: schema}
	}
	required := func(p *huma.Param) *huma.Param { p.Required = true; return p }
	return []*huma.Param{
		required(query("lat", "Latitude in degrees", number(-90, 90))),
		required(query("lng", "Longitude in degrees", number(-180, 180))),
		query("radius", "Metres, or a number with m, km or mi: `800`, `1.5km`, `2mi`. At most 21,000 km, the whole Earth", &huma.Schema{Type: huma.TypeString, Default: "5km"}),
		query("limit", "How many stores at most", &huma.Schema{Type: huma.TypeInteger, Minimum: ptr(1.0), Maximum: ptr(100.0), Default: 5}),
		query("sort", "The order: `distance`, expected `wait`, or `fastest`: travel time at `speed` plus expected wait. Stores whose wait is not known come last; ties by distance, then id", &huma.Schema{Type: huma.TypeString, Enum: []any{"distance", "wait", "fastest"}, Default: "distance"}),
		query("open_now", "Only stores that are known to be open", &huma.Schema{Type: huma.TypeBoolean}),
		query("max_wait", "Only stores whose expected wait is known and at most this many seconds", &huma.Schema{Type: huma.TypeInteger, Minimum: ptr(0.0)}),
		{Name: "tag", In: "query", Description: "Only stores with this tag; repeat it to ask for several at once (at most 8)", Explode: ptr(true),
			Schema: &huma.Schema{Type: huma.TypeArray, Items: text(), MaxItems: ptr(maxTagFilters)}},
		query("brand", "Only stores of this brand, upper or lower case", text()),
		query("cursor", "The `next_cursor` of the page before, with the same place and filters", text()),
		query("fields", "The members that stores shall have, separated by commas: `id,name,distance_m,queue`", text()),
		consistencyParam(),
		query("at", "A time within the next 14 days: `open` and `open_now` are of then, and each store has `expected`, the forecast of its queue. Where the wait decides (`sort`, `max_wait`), the nearest 100 stores that pass the other filters are looked at", &huma.Schema{Type: huma.TypeString, Format: "date-time"}),
		query("speed", "Metres a second, for `sort=fastest`", &huma.Schema{Type: huma.TypeNumber, Minimum: ptr(minSpeed), Maximum: ptr(float64(maxSpeed)), Default: defaultSpeed}),
	}
}

func consistencyParam() *huma.Param {
	return &huma.Param{Name: "consistency", In: "query",
		Description: "`eventual`: what this node holds. `session` (default with a token): what the token stands for, or newer. `strong`: all that was committed when the request came",
		Schema:      &huma.Schema{Type: huma.TypeString, Enum: []any{"eventual", "session", "strong"}}}
}

func idempotencyParam() *huma.Param {
	return &huma.Param{Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString, MinLength: ptr(1), MaxLength: ptr(255)},
		Description: "Makes a retry safe for 24 hours: the same key and body get the same answer, and are applied once"}
}

func ifNoneMatch() *huma.Param {
	return &huma.Param{Name: "If-None-Match", In: "header", Description: "The ETag of an answer before", Schema: &huma.Schema{Type: huma.TypeString}}
}
