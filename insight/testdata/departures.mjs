// Counts departures by hour at a few airports, from flights-3m.parquet of the npm package vega-datasets 3.2.1.
//
//   npm install vega-datasets@3.2.1 hyparquet hyparquet-compressors
//   node departures.mjs >departures.csv
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

const airports = ['ATL', 'JFK', 'LAX', 'MDW', 'ORD']
const file = await asyncBufferFromFile('node_modules/vega-datasets/data/flights-3m.parquet')
const counts = new Map()
const step = 250_000
let first = Infinity, last = 0
for (let at = 0; ; at += step) {
  const rows = await parquetReadObjects({ file, compressors, columns: ['date', 'origin'], rowStart: at, rowEnd: at + step })
  if (rows.length === 0) break
  for (const { date, origin } of rows) {
    const i = airports.indexOf(origin)
    const hour = Math.floor(date.getTime() / 3_600_000)
    first = Math.min(first, hour)
    last = Math.max(last, hour)
    if (i < 0) continue
    if (!counts.has(hour)) counts.set(hour, airports.map(() => 0))
    counts.get(hour)[i]++
  }
}
console.log(['hour', ...airports].join(','))
for (let hour = first; hour <= last; hour++) {
  console.log([new Date(hour * 3_600_000).toISOString().slice(0, 13), ...(counts.get(hour) ?? airports.map(() => 0))].join(','))
}
