package plan

// formula is one line of the plan: what stands here is both what is computed and what --explain shows.
type formula struct {
	section, name, unit string
	formula             string
	what                string
	shown               bool // in the table without --explain
}

// traffic depends on which of the two ways the updates were given in, and nothing else does.
func traffic(in Input) []formula {
	updates := "stores / update_every"
	if in.EventsPerDay > 0 {
		updates = "events_per_day / seconds_per_day"
	}
	const s = "Traffic"
	return []formula{
		{s, "updates", "1/s", updates, "updates a second, mean", true},
		{s, "updates_peak", "1/s", "updates * peak", "updates a second, busiest", true},
		{s, "reads", "1/s", "updates * reads_per_write + people / peak * searches_per_hour / seconds_per_hour", "nearby searches a second, mean", true},
		{s, "reads_peak", "1/s", "reads * peak", "nearby searches a second, busiest", true},
		{s, "followers", "1", "people * follows / stores", "people who follow a store, busiest", false},
		{s, "messages_peak", "1/s", "updates_peak * followers", "live messages a second, busiest", true},
		{s, "messages", "1/s", "updates * followers / peak", "live messages a second, mean", false},
		{s, "pings_peak", "1/s", "people / ping_every", "pings a second, busiest", false},
		{s, "serving", "1", "regions - regions_lost", "regions that bear everything at the worst", false},
		{s, "egress_peak", "bit/s", "(reads_peak * (read_bytes + header_bytes) + messages_peak * message_bytes) * bits_per_byte", "sent to clients, busiest, all regions", true},
		{s, "egress_month", "GB/month", "(reads * (read_bytes + header_bytes) + messages * message_bytes) * seconds_per_hour * hours_per_month / bytes_per_gb", "sent to clients in a month", true},
	}
}

// nodeFormulas are for one kind of machine; node_memory_needed, node_cores_left and node_network_left say whether it fits.
var nodeFormulas = func() []formula {
	const s = "Edge nodes"
	return []formula{
		{s, "region_cores", "1", "(reads_peak * read_cpu + messages_peak * message_cpu + pings_peak * ping_cpu) / serving + updates_peak * write_cpu", "cores for requests in a region at the worst (any may be primary)", true},
		{s, "feed_cores", "1", "updates_peak * change_cpu", "cores of every node for the change feed", false},
		{s, "node_cores_left", "1", "node_vcpu * cpu_share - feed_cores", "cores of a node for requests", false},
		{s, "nodes_by_cpu", "1", "ceil(region_cores / node_cores_left)", "nodes of a region, by CPU", false},
		{s, "nodes_by_connections", "1", "ceil(people / serving / connections_per_node)", "nodes of a region, by connections", false},
		{s, "nodes_by_network", "1", "ceil(egress_peak / serving / (node_network * network_share))", "nodes of a region, by network", false},
		{s, "nodes_per_region", "1", "max(nodes_by_cpu, nodes_by_connections, nodes_by_network) + 1", "nodes of a region, one of which may be lost", true},
		{s, "node_connections", "1", "people / serving / (nodes_per_region - 1)", "connections of a node at the worst", true},
		{s, "node_memory_needed", "GiB", "(node_base_bytes + stores * store_bytes + min(stores * details_bytes, details_cache) + node_connections * connection_bytes) / memory_share / bytes_per_gib", "memory that a node needs", true},
		{s, "nodes", "1", "regions * nodes_per_region", "nodes in all", true},
		{s, "nodes_usd", "USD/month", "nodes * node_usd * hours_per_month", "edge nodes", false},
	}
}()

// redisFormulas are for one kind of machine.
var redisFormulas = func() []formula {
	const s = "Redis Cluster"
	return []formula{
		{s, "redis_data", "GiB", "stores * redis_bytes / bytes_per_gib", "data in each region", true},
		{s, "redis_masters", "1", "max(3, ceil(redis_data / (redis_memory * memory_share)))", "masters of a region", true},
		{s, "redis_nodes", "1", "regions * redis_masters * (1 + redis_replicas)", "Redis nodes in all, with replicas", true},
		{s, "redis_usd", "USD/month", "redis_nodes * redis_usd_hour * hours_per_month", "Redis", false},
	}
}()

// databaseFormulas are for one kind of machine; db_memory_needed and db_cores_needed say whether it fits.
var databaseFormulas = func() []formula {
	const s = "PostgreSQL"
	return []formula{
		{s, "db_cores_needed", "1", "updates_peak * db_update_cpu / cpu_share", "cores that the primary needs", true},
		{s, "db_hot", "GiB", "(stores * (store_row + queue_row) + updates_peak * seconds_per_hour * changes_kept * change_row) / bytes_per_gib", "stores, queues and changes", false},
		{s, "db_memory_needed", "GiB", "db_hot / memory_share + db_base", "memory to hold them, and its own", true},
		{s, "commit_limit", "1/s", "commit_lanes * commit_batch / (round_trip + commit_floor)", "updates a second at most, by waiting for the nearest standby", true},
		{s, "rollups_year", "1/year", "min(updates * seconds_per_day * days_per_year, stores * hours_per_year / rollup_every)", "hours of stores with updates in a year, at most", false},
		{s, "db_data", "GiB", "(stores * (store_row + queue_row) + rollups_year * keep_years * rollup_row + updates_peak * seconds_per_hour * changes_kept * change_row + updates * seconds_per_day * keys_kept * idempotency_row + updates * seconds_per_hour * log_kept_h * log_bytes) / bytes_per_gib", "data of a region after all these years", true},
		{s, "db_volume", "GiB", "ceil(db_data * volume_copies / volume_share)", "volume of a region", true},
		{s, "db_usd", "USD/month", "regions * db_usd_hour * hours_per_month", "PostgreSQL", false},
		{s, "volume_usd", "USD/month", "regions * db_volume * volume_usd_gib", "volumes", false},
	}
}()

// networkFormulas are about what goes between regions and zones, and about what is archived.
var networkFormulas = func() []formula {
	const s = "Between regions"
	return []formula{
		{s, "replication_peak", "bit/s", "updates_peak * log_bytes * bits_per_byte", "log to each standby, busiest", true},
		{s, "between_regions", "GB/month", "(regions - 1) * updates * (log_bytes + forward_bytes / regions) * seconds_per_hour * hours_per_month / bytes_per_gb", "log and forwarded updates in a month", true},
		{s, "between_zones", "GB/month", "nodes * updates * change_row * 2 / 3 * seconds_per_hour * hours_per_month / bytes_per_gb", "feed to nodes of other zones in a month", false},
		{s, "log_archive", "GB", "updates * seconds_per_day * log_archived_days * log_bytes / bytes_per_gb", "log in the bucket", true},
		{s, "event_archive", "GB", "archive_events * updates * seconds_per_day * days_per_year * keep_years * change_row / bytes_per_gb", "every update, after all these years", false},
	}
}()

var costFormulas = func() []formula {
	const s = "Cost a month"
	return []formula{
		{s, "witness_usd", "USD/month", "witnesses * witness_usd_hour * hours_per_month", "witness, where there are two regions", false},
		{s, "balancer_units", "1", "max(people / unit_connections, egress_month / hours_per_month / unit_traffic)", "capacity units of the balancers, at most", false},
		{s, "balancer_usd", "USD/month", "(regions * balancer_usd_hour + balancer_units * balancer_unit_usd_hour) * hours_per_month", "balancers", false},
		{s, "nat_usd", "USD/month", "regions * 3 * nat_usd_hour * hours_per_month", "NAT gateways", false},
		{s, "internet_usd", "USD/month", "tiers(egress_month)", "traffic to clients", false},
		{s, "transfer_usd", "USD/month", "between_regions * between_regions_usd_gb + between_zones * between_zones_usd_gb", "traffic between regions and zones", false},
		{s, "bucket_usd", "USD/month", "(log_archive + event_archive) * bucket_usd_gb", "buckets", false},
		{s, "total_usd", "USD/month", "nodes_usd + redis_usd + db_usd + volume_usd + witness_usd + balancer_usd + nat_usd + internet_usd + transfer_usd + bucket_usd", "in all", false},
		{s, "region_usd", "USD/month", "total_usd / regions", "a region", false},
	}
}()

// availability takes regions to fail independently of each other.
func availability(in Input) []formula {
	const s = "Availability"
	reads, writes := "regions_all_down + rerouting", "no_majority + failing_over"
	failing := "outages_per_year * failover_s / (seconds_per_day * days_per_year)"
	rerouting := "outages_per_year * reroute_s / (seconds_per_day * days_per_year)"
	if in.Regions == 1 {
		failing, rerouting = "0", "0" // there is nowhere to go to
	}
	return []formula{
		{s, "region_down", "day/year", "(1 - region_availability) * days_per_year", "one region alone is down", true},
		{s, "regions_all_down", "1", "none(region_availability, regions)", "share of time in which all regions are down at once", false},
		{s, "rerouting", "1", rerouting, "share of a client's time in which its region is dead and it is not elsewhere yet", false},
		{s, "reads_available", "1", "1 - (" + reads + ")", "reads, for one client", true},
		{s, "reads_down", "s/year", "(" + reads + ") * seconds_per_day * days_per_year", "reads fail", true},
		{s, "majority", "1", "ceil((voters + 1) / 2)", "voters that have to be up", false},
		{s, "no_majority", "1", "fewer(majority, region_availability, voters)", "share of time without them", false},
		{s, "failing_over", "1", failing, "share of time in which a failover is under way", false},
		{s, "writes_available", "1", "1 - (" + writes + ")", "writes", true},
		{s, "writes_down", "s/year", "(" + writes + ") * seconds_per_day * days_per_year", "writes wait or fail", true},
	}
}
