package edge

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// liveFault ends a connection: what the client sent must not be.
type liveFault struct {
	code   ws.StatusCode
	why    string
	reason string
}

func (f *liveFault) Error() string { return fmt.Sprintf("%d %s", f.code, f.why) }

// frameReader puts the frames of a client together to messages. It holds at most one message, of maxLiveMessage bytes.
type frameReader struct {
	r       func([]byte) (int, error)
	header  [ws.MaxHeaderSize - 2]byte
	state   ws.State
	partial []byte // of a fragmented message
}

// Read is part of io.Reader.
func (f *frameReader) Read(b []byte) (int, error) { return f.r(b) }

// next returns the next frame, if it is a control frame, or what it is part of once that is complete. A nil payload and
// OpContinuation stand for a part after which there is more to come. The error is a *liveFault, or that of the reader.
func (f *frameReader) next() (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeaderBuffer(f, f.header[:])
	switch {
	case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected):
		return 0, nil, &liveFault{closeProtocol, "the length of a frame is not one", endProtocol}
	case err != nil:
		return 0, nil, err
	}
	if err := ws.CheckHeader(h, f.state); err != nil {
		return 0, nil, &liveFault{closeProtocol, err.Error(), endProtocol}
	}
	if h.OpCode == ws.OpBinary {
		return 0, nil, &liveFault{closeUnsupported, "messages are JSON text, not binary", endProtocol}
	}
	if h.Length+int64(len(f.partial)) > maxLiveMessage && !h.OpCode.IsControl() {
		return 0, nil, &liveFault{closeTooBig, fmt.Sprintf("a message has at most %d bytes", maxLiveMessage), endProtocol}
	}
	// It grows with what comes, not with what is announced.
	payload, err := io.ReadAll(io.LimitReader(f, h.Length))
	if err != nil {
		return 0, nil, err
	}
	if int64(len(payload)) < h.Length {
		return 0, nil, io.ErrUnexpectedEOF
	}
	ws.Cipher(payload, h.Mask, 0)
	if h.OpCode.IsControl() {
		return h.OpCode, payload, nil
	}
	if h.OpCode == ws.OpText && h.Fin {
		return text(payload)
	}
	f.partial = append(f.partial, payload...)
	if !h.Fin {
		f.state = f.state.Set(ws.StateFragmented)
		return ws.OpContinuation, nil, nil
	}
	payload, f.partial = f.partial, nil
	f.state = f.state.Clear(ws.StateFragmented)
	return text(payload)
}

func text(payload []byte) (ws.OpCode, []byte, error) {
	if !utf8.Valid(payload) {
		return 0, nil, &liveFault{closeInvalidText, "a message is not valid UTF-8", endProtocol}
	}
	return ws.OpText, payload, nil
}

// allowance bounds a rate: it fills with time, up to a burst.
type allowance struct {
	left float32
	last int64
}

func (a *allowance) take(now int64, perSecond int) bool {
	if perSecond < 0 {
		return true
	}
	most := float32(perSecond * messageBurst)
	if a.last == 0 {
		a.left = most
	} else {
		a.left = min(most, a.left+float32(now-a.last)/1e9*float32(perSecond))
	}
	a.last = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// listen reads what the client sends until it hangs up, or must not go on. It is a goroutine of its own, with as small
// a stack as can be: what needs more runs in another one that ends.
func (c *liveConn) listen() {
	f := &frameReader{r: c.read, state: ws.StateServerSide}
	var rate allowance
	for {
		op, payload, err := f.next()
		if err == nil {
			if !f.state.Fragmented() {
				c.began.Store(0)
			}
			if !rate.take(time.Now().UnixNano(), c.hub.cfg.Messages) {
				c.refuse(&apiError{kind: kindTooManyMessages, detail: fmt.Sprintf("more than %d messages a second came", c.hub.cfg.Messages)})
				err = &liveFault{closePolicy, "too many messages", endFlood}
			}
		}
		if err == nil {
			err = c.hear(op, payload)
		}
		if err != nil {
			c.hangUp(err)
			return
		}
	}
}

// hear takes one frame or message. What it answers has left the mailbox when it returns.
func (c *liveConn) hear(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpContinuation, ws.OpPong:
		return nil
	case ws.OpPing:
		frame := append([]byte{0x80 | byte(ws.OpPong), byte(len(payload))}, payload...)
		c.say(liveAnswer{frame: frame})
	case ws.OpClose:
		return closeFault(payload)
	default:
		c.hub.metrics.received.Inc()
		done := make(chan struct{})
		c.hub.talks.Go(func() {
			defer close(done)
			if err := c.obey(payload); err != nil {
				c.refuse(err)
			}
		})
		<-done
	}
	c.awaitTaken()
	return nil
}

// closeFault answers a close frame with its own code.
func closeFault(payload []byte) *liveFault {
	if len(payload) == 0 {
		return &liveFault{closeNormal, "", endClient}
	}
	if len(payload) == 1 {
		return &liveFault{closeProtocol, "a close frame with half a code", endProtocol}
	}
	code, why := ws.ParseCloseFrameData(payload)
	if err := ws.CheckCloseFrameData(code, why); err != nil {
		return &liveFault{closeProtocol, err.Error(), endProtocol}
	}
	if code >= 5000 { // RFC 6455, 7.4.2, which the library does not check
		return &liveFault{closeProtocol, "a close code that is none", endProtocol}
	}
	return &liveFault{code, "", endClient}
}

// hangUp ends a connection for what came, or did not come, from the client.
func (c *liveConn) hangUp(err error) {
	var fault *liveFault
	if !errors.As(err, &fault) {
		c.end(endClient)
		return
	}
	c.began.Store(0)
	c.close(fault.code, fault.why, fault.reason)
	c.discard()
}
