package agent

import (
	"context"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descRole      = desc("shortline_db_role", "1 for the role that the region's PostgreSQL has: primary, standby, starting, rejoin or down.", "role")
	descPosition  = desc("shortline_db_position_bytes", "Position in the log: flushed on a primary, received or replayed on a standby; not told while the server does not answer. Only those of one epoch compare.")
	descEpoch     = desc("shortline_db_epoch", "Epoch in the control row, as far as it is replayed here.")
	descStreaming = desc("shortline_db_streaming", "1 while a standby receives the log from the region it follows.")
	descFenced    = desc("shortline_db_fenced", "1 while a primary takes no writes: read-only, or not confirmed since it was started.")
	descSync      = desc("shortline_db_sync_standbys", "Standbys of which any one has to confirm a commit on this primary; 0: none.")
	descStandby   = desc("shortline_db_standby_behind_bytes", "Log that this primary has flushed and a standby that streams from it has not, by the standby's region.", "of_region")
	descFree      = desc("shortline_db_disk_free_bytes", "Space left for the agent on the disk of PostgreSQL's data.")
	descSize      = desc("shortline_db_disk_bytes", "Size of the disk of PostgreSQL's data.")
)

// collectWithin is how long one scrape may take to hear from the database.
const collectWithin = 2 * time.Second

type statusCollector struct {
	db   regions.Database
	data string
}

// StatusCollector tells the status of a database, whoever runs it. data is a folder on its disk, "" where that is not on
// this machine.
func StatusCollector(db regions.Database, data string) prometheus.Collector {
	return statusCollector{db, data}
}

// Describe is part of prometheus.Collector.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRole, descPosition, descEpoch, descStreaming, descFenced, descSync, descStandby, descFree, descSize} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := func(d *prometheus.Desc, on bool, labels ...string) {
		if on {
			gauge(d, 1, labels...)
		} else {
			gauge(d, 0, labels...)
		}
	}
	var disk syscall.Statfs_t
	if c.data != "" && syscall.Statfs(c.data, &disk) == nil {
		gauge(descFree, float64(disk.Bavail)*float64(disk.Bsize))
		gauge(descSize, float64(disk.Blocks)*float64(disk.Bsize))
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectWithin)
	defer cancel()
	s, err := c.db.Status(ctx)
	if err != nil {
		s.Role = regions.RoleDown
	}
	for _, role := range []regions.Role{regions.RolePrimary, regions.RoleStandby, regions.RoleStarting, regions.RoleRejoin, regions.RoleDown} {
		flag(descRole, s.Role == role, string(role))
	}
	primary := s.Role == regions.RolePrimary
	flag(descStreaming, s.Streaming)
	flag(descFenced, primary && (s.ReadOnly || s.Fenced))
	gauge(descSync, float64(len(s.Sync)))
	gauge(descEpoch, float64(s.Epoch))
	if s.Position > 0 {
		gauge(descPosition, float64(s.Position))
	}
	for id, flushed := range s.Standbys {
		gauge(descStandby, float64(max(s.Position, flushed)-flushed), string(id))
	}
}
