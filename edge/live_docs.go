package edge

import "github.com/danielgtaylor/huma/v2"

const aboutLive = "Messages are JSON text, both ways. Send `{\"op\":\"subscribe\",\"stores\":[\"…\"]}` (up to 200 ids a message) to follow stores, or " +
	"`{\"op\":\"subscribe\",\"lat\":…,\"lng\":…,\"radius\":…,\"limit\":…}` to follow the nearest ones of a place, whichever they are: one place a connection, " +
	"another one replaces it. `{\"op\":\"unsubscribe\"}` with `stores`, with `lat` and `lng`, or alone gives them, the place, or everything up. `{\"op\":\"ping\"}` is answered `{\"event\":\"pong\"}`.\n\n" +
	"The answer to a subscription is `{\"event\":\"subscribed\",\"stores\":[…],\"token\":\"…\"}`, how they are now: `id`, `length`, `wait_s`, `wait_high_s`, `updated_at` (null for a store that never " +
	"reported), `missing` with the ids of stores that do not exist (they are followed all the same, and may come), and for a place `area` and each store's `lat`, `lng`, `distance_m`. It comes again " +
	"for the place whenever other stores are the nearest. Then comes `{\"event\":\"queue\",\"id\":\"…\",\"length\":7,\"wait_s\":315,\"wait_high_s\":480,\"updated_at\":\"…\"}` for each change, and " +
	"`{\"event\":\"removed\",\"id\":\"…\"}` for a store that is gone. Who reads slowly gets the newest value of each store, not every one.\n\n" +
	"`{\"event\":\"error\",…}` carries a problem; the connection goes on unless it is closed after it. `{\"event\":\"reconnect\",\"regions\":[{\"name\",\"url\"}],\"within_s\":…}` asks to connect elsewhere " +
	"before this node stops. There is nothing to resume: subscribe again, and the answer has the newest values; with the `token` of the last answer in `subscribe` it waits until this node has caught up with it.\n\n" +
	"Close codes: 1001 the node stops; 1002 not a WebSocket frame; 1003 a binary message; 1007 not UTF-8; 1008 too many messages, or the key was revoked; 1009 a message over 16 KiB. " +
	"Where reads need a key, send it as a header, or (browsers cannot) offer the subprotocols `shortline` and `key.KEY`."

const aboutEvents = "The same events as on the WebSocket, each named by its `event` and with the message as `data`. Name stores with `store` (repeat it, up to 200), or a place, or both. " +
	"The id of an event is the place in history that it stands for. With `Last-Event-ID` the stream begins, as always, with how everything is now, as soon as this node has caught up with that " +
	"(for 2 seconds at most): nothing that counts is missed, values in between are."

func liveSocketParams() []*huma.Param {
	header := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return []*huma.Param{header("Upgrade", "`websocket`"), header("Connection", "`Upgrade`"), header("Sec-WebSocket-Version", "`13`"),
		header("Sec-WebSocket-Key", "16 random bytes in base64"), header("Sec-WebSocket-Protocol", "`shortline`, and with it `key.KEY` where a key cannot be sent otherwise")}
}

func liveEventsParams() []*huma.Param {
	var params []*huma.Param
	for _, p := range nearbyParams() {
		switch p.Name {
		case "lat", "lng", "radius", "limit":
			p.Required = false
			params = append(params, p)
		}
	}
	return append(params,
		&huma.Param{Name: "store", In: "query", Description: "A store's id; repeat it for several", Explode: ptr(true),
			Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}, MaxItems: ptr(maxStoresAtOnce)}},
		&huma.Param{Name: "Last-Event-ID", In: "header", Description: "The id of the last event that came", Schema: &huma.Schema{Type: huma.TypeString}})
}
