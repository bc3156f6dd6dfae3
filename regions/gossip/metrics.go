package gossip

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the view says, by region, and what was refused.
type metrics struct {
	refused *prometheus.CounterVec

	mu     sync.Mutex
	last   map[string]time.Time // guarded by mu; of each warning
	hushed map[string]int       // guarded by mu
}

func newMetrics(r prometheus.Registerer, g *Gossip) *metrics {
	m := &metrics{last: map[string]time.Time{}, hushed: map[string]int{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_gossip_refused_total", Help: "What came by gossip and was not believed, by reason."}, []string{"reason"})}
	for _, reason := range []string{"deployment", "key", "malformed", "name", "too-many", "coordinate"} {
		m.refused.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.refused, viewCollector{g})
	}
	return m
}

// warnEvery is how often the same warning is logged at most: others decide how often there is reason for it.
const warnEvery = 10 * time.Second

func (m *metrics) warn(log *slog.Logger, text string, args ...any) {
	m.mu.Lock()
	now := time.Now()
	if now.Sub(m.last[text]) < warnEvery {
		m.hushed[text]++
		m.mu.Unlock()
		return
	}
	hushed := m.hushed[text]
	m.hushed[text], m.last[text] = 0, now
	m.mu.Unlock()
	if hushed > 0 {
		args = append(args, "not_logged", hushed)
	}
	log.Warn(text, args...)
}

// logWriter passes memberlist's log on: what it warns of, seldom, and all else for debugging.
type logWriter struct{ g *Gossip }

// Write is part of io.Writer; it gets one line.
func (w logWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	if _, rest, ok := strings.Cut(line, "memberlist: "); ok {
		line = rest
	}
	switch {
	case strings.Contains(line, "unacceptable label") || strings.Contains(line, "label header"):
		w.g.metrics.refused.WithLabelValues("deployment").Inc()
		w.g.metrics.warn(w.g.log, "a node of another deployment, or something else, talks to this node's gossip", "err", clip(line, 300))
	case strings.Contains(line, "Decrypt packet failed") || strings.Contains(line, "o installed keys could decrypt") || strings.Contains(line, "is not encrypted"):
		w.g.metrics.refused.WithLabelValues("key").Inc()
		w.g.metrics.warn(w.g.log, "a node with another gossip key talks to this one; the key must be the same on all", "err", clip(line, 300))
	default:
		w.g.log.Debug("memberlist", "line", clip(line, 300))
	}
	return len(b), nil
}

var (
	descNodes = prometheus.NewDesc("shortline_gossip_nodes", "Nodes known, by region and whether clients may be sent to them.", []string{"of_region", "state"}, nil)
	descRTT   = prometheus.NewDesc("shortline_region_rtt_seconds", "Estimated round trip from this node, by region.", []string{"of_region"}, nil)
	descLoad  = prometheus.NewDesc("shortline_region_load_ratio", "Part of the capacity in use, by region; 0 where none is set.", []string{"of_region"}, nil)
	descSpill = prometheus.NewDesc("shortline_region_spill_ratio", "Share of the nearest clients that are sent elsewhere, by region.", []string{"of_region"}, nil)
	descSkew  = prometheus.NewDesc("shortline_clock_skew_seconds", "Greatest difference between the clock of this node and of another.", nil, nil)
	descView  = prometheus.NewDesc("shortline_gossip_view_timestamp_seconds", "When the view was made.", nil, nil)
)

// viewCollector reads the view when it is asked.
type viewCollector struct{ g *Gossip }

// Describe is part of prometheus.Collector.
func (viewCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descNodes, descRTT, descLoad, descSpill, descSkew, descView} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c viewCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	v := c.g.View()
	var skew time.Duration
	for i := range v.Places {
		p := &v.Places[i]
		id := string(p.ID)
		ready, alive := p.Ready, 0
		for j := range p.Nodes {
			if n := &p.Nodes[j]; n.Alive {
				alive++
				skew = max(skew, n.Skew.Abs())
			}
		}
		gauge(descNodes, float64(ready), id, "ready")
		gauge(descNodes, float64(alive-ready), id, "not_ready")
		gauge(descNodes, float64(len(p.Nodes)-alive), id, "dead")
		gauge(descRTT, p.RTT.Seconds(), id)
		gauge(descLoad, p.Load, id)
		gauge(descSpill, p.Spill, id)
	}
	gauge(descSkew, skew.Seconds())
	gauge(descView, float64(v.At.UnixMilli())/1000)
}
