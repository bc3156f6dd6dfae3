package plan

// Figure is a number that formulas stand on, and where it is from.
type Figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	What   string  `json:"what"`
	Source string  `json:"source"`
	Kind   Kind    `json:"kind"`
}

// Kind says how far a figure is to be trusted.
type Kind string

// A constant is by definition, a measured figure was measured on Shortline, an estimated one was not, and chosen is a margin that
// somebody else may choose differently.
const (
	Constant  Kind = "constant"
	Measured  Kind = "measured"
	Estimated Kind = "estimated"
	Chosen    Kind = "chosen"
)

const (
	perf     = "docs/performance.md, "
	live     = "docs/live.md, Measured (on a busy machine)"
	sizes    = perf + "Sizes in the database and in Redis"
	estimate = "an estimate, not measured"
)

// Figures are the defaults. They are from one machine with 2 cores, so the CPU times are those of its kind of core.
func Figures() []Figure {
	return []Figure{
		{"bits_per_byte", 8, "bit/B", "", "definition", Constant},
		{"bytes_per_gb", 1e9, "B/GB", "networks and bucket storage count in GB", "definition", Constant},
		{"bytes_per_gib", 1 << 30, "B/GiB", "memory and volumes count in GiB", "definition", Constant},
		{"seconds_per_hour", 3600, "s/h", "", "definition", Constant},
		{"seconds_per_day", 86400, "s/day", "", "definition", Constant},
		{"days_per_year", 365, "day/year", "99 % is 3.65 days a year", "definition", Constant},
		{"hours_per_year", 8760, "h/year", "", "definition", Constant},
		{"hours_per_month", 730, "h/month", "what clouds bill by: 8,760 / 12", "definition", Constant},

		{"read_cpu", 30.1e-6, "s", "CPU of a node for a nearby search by HTTP, nearest 5 within 5 km of 1,000,000 stores", perf + "HTTP nearby", Measured},
		{"read_bytes", 1851, "B", "its answer", perf + "HTTP nearby", Measured},
		{"header_bytes", 600, "B", "headers of HTTP, TLS and TCP that go with an answer", estimate, Estimated},
		{"message_cpu", 23.2e-6, "s", "CPU of a node for a live message to one client", live, Measured},
		{"message_bytes", 176, "B", "a live message (110) with the headers of TLS, TCP and IP (66)", "docs/live.md, A million people", Measured},
		{"ping_cpu", 25e-6, "s", "CPU for a ping and a pong", "docs/live.md, A million people: an estimate", Estimated},
		{"ping_every", 30, "s", "between two pings of a connection", "docs/live.md, A million people", Constant},
		{"connection_bytes", 12.6 * 1024, "B", "memory of a live connection: 7.9 KiB in the node, 4.7 KiB in the kernel", live, Measured},
		{"write_cpu", 143e-6, "s", "CPU of a node for an update that comes alone by HTTP", perf + "Sizes (on a busy machine; 16 µs each where 500 come in a request)", Measured},
		{"change_cpu", 6.5e-6, "s", "CPU of every node for a change from the feed", perf + "Reads while updating", Measured},
		{"store_bytes", 279, "B", "resident memory of a node for a store", perf + "Three regions, Start of a node", Measured},
		{"details_bytes", 350, "B", "memory of a node for a store's name and address", perf + "How to read this", Measured},
		{"details_cache", 256 << 20, "B", "bound of these: --details-cache", "shortline serve --help", Constant},
		{"node_base_bytes", 300 << 20, "B", "memory of a node's machine without stores and clients", estimate, Estimated},

		{"commit_floor", 0.002, "s", "a transaction takes at least this long", "docs/architecture.md (a flush to disk)", Estimated},
		{"commit_batch", 500, "1", "updates in a transaction at most", "docs/architecture.md", Constant},
		{"commit_lanes", 8, "1", "transactions under way at once: --commit-lanes", "shortline serve --help", Constant},
		{"db_update_cpu", 69e-6, "s", "CPU of PostgreSQL for an update: 2 cores / 29,186 a second, the client's share included", perf + "Sizes (on a busy machine)", Measured},
		{"db_base", 2, "GiB", "memory of PostgreSQL and its machine beside the data", estimate, Estimated},
		{"store_row", 418, "B", "a store in PostgreSQL, with indexes", sizes, Measured},
		{"queue_row", 437, "B", "its queue, which changes all the time", sizes, Measured},
		{"rollup_row", 151, "B", "an hour of a store that had updates", sizes, Measured},
		{"rollup_every", 1, "h", "", "docs/architecture.md", Constant},
		{"change_row", 152, "B", "a change", sizes, Measured},
		{"changes_kept", 1, "h", "changes: --feed-retention", "shortline serve --help", Constant},
		{"idempotency_row", 367, "B", "an idempotency key", sizes, Measured},
		{"keys_kept", 1, "day", "idempotency keys of clients", "docs/architecture.md", Constant},
		{"log_bytes", 978, "B", "log (WAL) of an update with its own key, full-page images of the first touch included", sizes, Measured},
		{"redis_bytes", 454, "B", "a store in Redis, with its key", sizes, Measured},
		{"forward_bytes", 300, "B", "an update between regions", estimate, Estimated},
		{"failover_s", 5, "s", "from the death of a primary region to the first write elsewhere", "an estimate; shortline region history has the real ones", Estimated},
		{"reroute_s", 60, "s", "until the clients of a dead region are elsewhere: three health checks of 10 s, then 30 s that DNS answers may be kept", "shortline serve --help (--dns-ttl) and an estimate", Estimated},

		{"cpu_share", 0.5, "1", "how busy CPUs may be at the busiest", "left for bursts and for losing a node", Chosen},
		{"network_share", 0.5, "1", "how busy networks may be at the busiest", "left for bursts", Chosen},
		{"memory_share", 0.75, "1", "how full memory may be", "left for garbage collection and for whatever else", Chosen},
		{"connections_per_node", 100_000, "1", "bounded by how many should have to move when a node is lost", "docs/live.md, A million people", Chosen},
		{"volume_share", 0.7, "1", "how full volumes may be", "left for growth", Chosen},
		{"volume_copies", 2, "1", "a database that is built anew keeps its old copy until the new one is complete", "shortline db --help", Constant},
		{"log_kept_h", 6, "h", "log on the volume for standbys that are away", "max_slot_wal_keep_size", Chosen},
		{"log_archived_days", 7, "day", "log in the bucket, for restores to a point in time", "", Chosen},
		{"redis_replicas", 1, "1", "of each master", "", Chosen},
		{"unit_connections", 100_000, "1", "connections of a capacity unit of a network load balancer", "AWS", Constant},
		{"unit_traffic", 1, "GB/h", "traffic of such a unit", "AWS", Constant},
	}
}
