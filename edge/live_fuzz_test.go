package edge

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// FuzzLiveReader feeds anything to what reads frames, in pieces of any size: it must end with a fault that has a close code
// that may be sent, or with the end of the input; hold no more than a message; and hand over nothing but valid text. What
// it hands over must not depend on how the bytes came.
func FuzzLiveReader(f *testing.F) {
	frame := func(op ws.OpCode, fin bool, text string) []byte {
		return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewFrame(op, fin, []byte(text)), [4]byte{1, 2, 3, 4}))
	}
	f.Add(frame(ws.OpText, true, `{"op":"subscribe","stores":["a"]}`), byte(1))
	f.Add(append(frame(ws.OpText, false, `{"op":`), frame(ws.OpContinuation, true, `"ping"}`)...), byte(3))
	f.Add(frame(ws.OpText, true, "\xff"), byte(200))
	f.Add(frame(ws.OpClose, true, "\x03\xe8bye"), byte(7))
	f.Add([]byte{0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, byte(2))
	f.Fuzz(func(t *testing.T, data []byte, step byte) {
		read := func(step int) (got [][]byte, end error) {
			in := bytes.NewReader(data)
			r := &frameReader{state: ws.StateServerSide, r: func(b []byte) (int, error) { return in.Read(b[:min(len(b), step)]) }}
			for {
				op, payload, err := r.next()
				if len(r.partial) > maxLiveMessage || len(payload) > maxLiveMessage {
					t.Fatal("it holds more than a message")
				}
				if err != nil {
					return got, err
				}
				switch op {
				case ws.OpText:
					if !utf8.Valid(payload) {
						t.Fatal("it hands over what is not UTF-8")
					}
					if order, err := parseLive(payload); err == nil && (len(order.ids) > maxStoresAtOnce || order.area && (!order.at.Valid() || order.limit < 1 || order.limit > maxLimit)) {
						t.Fatalf("it takes the order %+v", order)
					}
				case ws.OpClose:
					if fault := closeFault(payload); fault.code < 1000 || fault.code >= 5000 || !utf8.ValidString(fault.why) {
						t.Fatalf("it would close with %d", fault.code)
					}
				}
				got = append(got, append([]byte{byte(op)}, payload...))
			}
		}
		some, end := read(int(step) + 1)
		all, endAll := read(1 << 20)
		if len(some) != len(all) {
			t.Fatalf("%d messages in pieces, %d at once", len(some), len(all))
		}
		for i := range some {
			if !bytes.Equal(some[i], all[i]) {
				t.Fatal("another message in pieces")
			}
		}
		var fault, faultAll *liveFault
		if errors.As(end, &fault) != errors.As(endAll, &faultAll) || fault != nil && fault.code != faultAll.code {
			t.Fatalf("%v in pieces, %v at once", end, endAll)
		}
		if fault == nil && !errors.Is(end, io.EOF) && !errors.Is(end, io.ErrUnexpectedEOF) {
			t.Fatalf("it ends with %v", end)
		}
	})
}
