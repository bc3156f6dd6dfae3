package edge

import (
	"context"
	"encoding/binary"
	"encoding/json"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// detailsCache keeps what answers say of a store beyond its queue (name, address), encoded as they say it, where the store's
// slot says. It carries the rev of its row, and counts only as long as the record is not newer, so it can never be out of
// date. What is kept is bounded in bytes; past the bound the stores that were not asked for lately lose theirs.
type detailsCache struct {
	catalog *Catalog
	loader  *replication.Loader
	max     int64

	hits, misses, degraded prometheus.Counter
}

func newDetailsCache(catalog *Catalog, source replication.Details, maxBytes int, r prometheus.Registerer) *detailsCache {
	if maxBytes == 0 {
		maxBytes = 256 << 20
	}
	d := &detailsCache{
		catalog: catalog, loader: replication.NewLoader(source, replication.LoaderConfig{Registerer: r}), max: int64(maxBytes),
		hits:   prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_details_cache_hits_total", Help: "Store details found in the node's memory."}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_details_cache_misses_total", Help: "Store details that had to be read from the database."}),
		degraded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_nearby_degraded_total", Help: "Nearby answers that lacked names and addresses because the database could not be read."}),
	}
	r.MustRegister(d.hits, d.misses, d.degraded, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shortline_details_cache_bytes", Help: "Memory of store details."}, func() float64 {
		if st := catalog.current.Load(); st != nil {
			return float64(st.details.bytes.Load())
		}
		return 0
	}))
	return d
}

// load brings the details of stores into their slots. Callers look there again afterwards.
func (d *detailsCache) load(ctx context.Context, ids []shortline.StoreID) error {
	return d.loader.Load(ctx, ids, func(rows []replication.Row) {
		st := d.catalog.current.Load()
		for i := range rows {
			st.keepDetails(&rows[i], d.max)
		}
	})
}

// detailsFor returns the encoded details of the slot if they are not older than the record; "" stands for none.
func (s *state) detailsFor(sl *slot, rec *record) string {
	d := s.details.text(sl)
	if d == "" || detailsRevOf(d) < rec.rev {
		return ""
	}
	return d
}

// detailsRevOf is the rev of the row that the details were read from.
func detailsRevOf(d string) uint64 {
	return binary.LittleEndian.Uint64([]byte(d[detailsRev:detailsRef]))
}

// keepDetails keeps a row that was read from the database for its store, unless the record is newer by now.
func (s *state) keepDetails(row *replication.Row, bound int64) {
	ref, ok := s.lookup(row.Store.ID)
	if !ok {
		return
	}
	sl := s.slot(ref)
	if rec := sl.record.Load(); rec.attrs == nil || row.Rev < rec.rev {
		return
	}
	if text := encodeDetails(&row.Store, row.Rev, ref); text != nil {
		s.details.keep(sl, text, bound, s.slot)
	}
}

// The encoded form of details is the text of a store in a nearby answer that asks for all fields, cut where the distance
// goes: {"id":…,"name":…,"lat":…,"lng":…,"distance_m": and ,"address":…,"open": — after the length of the whole (two
// bytes), the rev (eight), the ref of the slot (four), and the ends of the name, of the two coordinates and of the first
// part (two each).
const (
	detailsRev  = 2
	detailsRef  = detailsRev + 8
	detailsEnds = detailsRef + 4
	detailsHead = detailsEnds + 4*2
	textName    = `","name":`
	textLat     = `,"lat":`
	textLng     = `,"lng":`
	textMiddle  = `,"distance_m":`
	textAddress = `,"address":`
	textOpen    = `,"open":`
	// maxDetails is what two bytes can count; the limits of a store's fields keep the text far below.
	maxDetails = 1<<16 - 1
)

// detailsPart is a part of encoded details whose end stands before them.
type detailsPart int

const (
	partName detailsPart = iota
	partLat
	partLng
	partFirst // all up to the distance
)

// detailsEnd is where a part of encoded details ends.
func detailsEnd(d string, part detailsPart) int {
	at := detailsEnds + 2*part
	return int(d[at]) | int(d[at+1])<<8
}

// encodeDetails returns the encoded form; nil where it would be too long.
func encodeDetails(store *shortline.Store, rev uint64, ref geo.Ref) []byte {
	b := make([]byte, detailsHead, 512)
	end := func(part detailsPart) { binary.LittleEndian.PutUint16(b[detailsEnds+2*part:], uint16(len(b))) }
	b = append(b, `{"id":"`...)
	b = append(b, store.ID...) // of letters that need no escape
	b = appendJSON(append(b, textName...), store.Name)
	end(partName)
	b = appendJSON(append(b, textLat...), store.Lat)
	end(partLat)
	b = appendJSON(append(b, textLng...), store.Lng)
	end(partLng)
	b = append(b, textMiddle...)
	end(partFirst)
	b = append(b, textAddress...)
	if store.Address == nil {
		b = append(b, "{}"...)
	} else {
		b = appendJSON(b, store.Address)
	}
	b = append(b, textOpen...)
	if len(b) > maxDetails {
		return nil
	}
	binary.LittleEndian.PutUint16(b, uint16(len(b)))
	binary.LittleEndian.PutUint64(b[detailsRev:], rev)
	binary.LittleEndian.PutUint32(b[detailsRef:], uint32(ref))
	return b
}

// detailsView is the values of an encoded form.
type detailsView struct{ name, lat, lng, address string }

// viewDetails finds the values in a record's encoded details; without them, name and address are null.
func viewDetails(rec *record, d string) detailsView {
	if d == "" {
		return detailsView{"null", string(appendJSON(nil, rec.lat)), string(appendJSON(nil, rec.lng)), "null"}
	}
	name, lat, lng := detailsEnd(d, partName), detailsEnd(d, partLat), detailsEnd(d, partLng)
	return detailsView{
		name:    d[detailsHead+len(`{"id":"`)+len(rec.id)+len(textName) : name],
		lat:     d[name+len(textLat) : lat],
		lng:     d[lat+len(textLng) : lng],
		address: d[detailsEnd(d, partFirst)+len(textAddress) : len(d)-len(textOpen)],
	}
}

func appendJSON(dst []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil { // strings, finite numbers and structs of strings only
		return append(dst, "null"...)
	}
	return append(dst, text...)
}
