package storetest

import (
	"maps"
	"slices"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// replica is what a node keeps in memory: stores and queues, each brought forward by rev alone.
type replica struct {
	stores map[shortline.StoreID]replicaStore
	queues map[shortline.StoreID]replicaQueue
	keys   map[shortline.KeyID]shortline.Key
}

type replicaStore struct {
	rev   uint64
	store *shortline.Store // nil: deleted
}

type replicaQueue struct {
	rev   uint64
	queue *shortline.Queue // nil: gone with its store
}

func newReplica() *replica {
	return &replica{stores: map[shortline.StoreID]replicaStore{}, queues: map[shortline.StoreID]replicaQueue{}, keys: map[shortline.KeyID]shortline.Key{}}
}

func (m *replica) load(rows []replication.Row) {
	for _, row := range rows {
		if row.Deleted {
			m.setStore(row.Store.ID, row.Rev, nil)
		} else {
			m.setStore(row.Store.ID, row.Rev, &row.Store)
		}
		m.setQueue(row.Store.ID, row.QueueRev, row.Queue)
	}
}

func (m *replica) apply(changes []shortline.Change) {
	for _, c := range changes {
		id := shortline.StoreID(c.Subject)
		switch c.Kind {
		case shortline.StorePut:
			m.setStore(id, c.Rev, c.Store)
		case shortline.StoreDeleted:
			m.setStore(id, c.Rev, nil)
			if c.Queue != nil {
				m.setQueue(id, c.Queue.Rev, nil)
			}
		case shortline.QueueSet:
			m.setQueue(id, c.Rev, c.Queue)
		case shortline.KeyPut:
			if c.Rev > m.keys[c.Key.ID].Rev {
				m.keys[c.Key.ID] = *c.Key
			}
		}
	}
}

func (m *replica) setStore(id shortline.StoreID, rev uint64, s *shortline.Store) {
	if rev > m.stores[id].rev {
		m.stores[id] = replicaStore{rev, s}
	}
}

func (m *replica) setQueue(id shortline.StoreID, rev uint64, q *shortline.Queue) {
	if rev > m.queues[id].rev {
		m.queues[id] = replicaQueue{rev, q}
	}
}

// rows is the replica in the form of a snapshot.
func (m *replica) rows() []replication.Row {
	var rows []replication.Row
	for _, id := range slices.Sorted(maps.Keys(m.stores)) {
		s, q := m.stores[id], m.queues[id]
		row := replication.Row{Store: shortline.Store{ID: id}, Rev: s.rev, Queue: q.queue, Deleted: s.store == nil, QueueRev: q.rev}
		if s.store != nil {
			row.Store = *s.store
		}
		rows = append(rows, row)
	}
	return rows
}

// expectRows compares two snapshots row by row.
func expectRows(r *rig, what string, got, want []replication.Row) {
	r.Helper()
	if len(got) != len(want) {
		r.Errorf("%s has %d rows, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		g, w := &got[i], &want[i]
		if !g.Store.Equal(&w.Store) || g.Rev != w.Rev || g.Deleted != w.Deleted || g.QueueRev != w.QueueRev {
			r.Errorf("%s: row %d is %+v, want %+v", what, i, *g, *w)
			return
		}
		expectQueue(r, what+": the queue of store "+string(g.Store.ID), g.Queue, w.Queue)
	}
}
