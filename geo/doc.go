// Package geo answers "what is near this point": exactly, anywhere on Earth, while the points change.
//
// It holds points on the sphere, H3 cells, and Index, an in-memory tree over cells that thousands of readers search
// without a lock while a writer inserts, moves and deletes.
//
// It promises:
//   - Distances are great circles (haversine) on a sphere of EarthRadius, the mean radius 6,371,008.8 m.
//   - Nearby is exact: nothing within the bound is missed and the order is that of distance, ties by the owner's ids, at
//     the poles, across the antimeridian, in pentagons and at the antipode as well.
//   - A search sees one consistent state of the index, no older than the last Update that returned before it began.
//
// It must not know what a point stands for: no stores, no queues, no storage, no network. The owner numbers its things
// with dense Refs and keeps everything else about them.
package geo
