package control

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// A connection between voters begins with a challenge on both sides, so that nobody takes part who does not have the cluster
// key, and nobody is answered more than a hash before that:
//
//	caller:    magic, its nonce, its hello
//	answerer:  its nonce, MAC("answer", both nonces, hello)
//	caller:    MAC("call", both nonces, hello), with the key that the answerer used
//	answerer:  what it has to say of the hello, with its own
//
// What follows is neither encrypted nor signed: for that there is Config.Identity.
const (
	magic            = "SLRAFT1\n"
	nonceSize        = 32
	maxHello         = 4096
	handshakeTimeout = 2 * time.Second
)

// ErrOutsider says that the other end of a connection does not have the cluster key.
var ErrOutsider = errors.New("the other end does not have the same --cluster-key")

// hello is who is calling, or answering.
type hello struct {
	Cluster     string     `json:"cluster"`
	ClusterID   string     `json:"cluster_id,omitempty"`  // "": not known yet
	Incarnation uint64     `json:"incarnation,omitempty"` // how often it was restored by force, with 1; 0: not known yet
	From        regions.ID `json:"from"`
	To          regions.ID `json:"to"`
}

// verdict is what is said of a hello: Why is "" where the connection may be used.
type verdict struct {
	Hello hello  `json:"hello"`
	Why   string `json:"why,omitempty"`
}

// judge tells why another end's hello does not fit to ours, or "". newer says that the other end is of a restored control
// plane that took the place of ours.
func judge(mine, theirs hello) (why string, newer bool) {
	switch {
	case theirs.Cluster != mine.Cluster:
		return fmt.Sprintf("this is a voter of the cluster %q, not of %q; give all nodes of one cluster the same --deployment, and each cluster its own --cluster-key", mine.Cluster, theirs.Cluster), false
	case theirs.ClusterID != "" && mine.ClusterID != "" && theirs.ClusterID != mine.ClusterID:
		return fmt.Sprintf("this voter's data is of another cluster (%s, not %s) of the same name", mine.ClusterID, theirs.ClusterID), false
	case theirs.Incarnation != 0 && mine.Incarnation != 0 && theirs.Incarnation < mine.Incarnation:
		return "the control state was restored by force without this voter; empty its control folder and start it again", false
	case mine.Incarnation != 0 && theirs.Incarnation > mine.Incarnation:
		return "this voter's data is from before a restore", true
	}
	return "", false
}

func mac(key []byte, side string, nonces, hello []byte) []byte {
	sum := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte("shortline raft " + side), nonces, hello} {
		_ = binary.Write(sum, binary.BigEndian, uint64(len(part))) // a hash takes all
		sum.Write(part)
	}
	return sum.Sum(nil)
}

// call does the caller's half. The verdict's hello is known to be from somebody with one of the keys.
func call(conn net.Conn, keys peer.Keys, mine hello) (verdict, error) {
	var v verdict
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return v, err
	}
	text, err := json.Marshal(mine)
	if err != nil {
		return v, err
	}
	nonces := make([]byte, 2*nonceSize)
	_, _ = rand.Read(nonces[:nonceSize]) // never returns an error
	if _, err := conn.Write(append([]byte(magic), append(nonces[:nonceSize:nonceSize], frame(text)...)...)); err != nil {
		return v, err
	}
	answer := make([]byte, nonceSize+sha256.Size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return v, err
	}
	copy(nonces[nonceSize:], answer)
	key, ok := keys.Fits(answer[nonceSize:], func(key []byte) []byte { return mac(key, "answer", nonces, text) })
	if !ok {
		return v, ErrOutsider
	}
	if _, err := conn.Write(mac(key, "call", nonces, text)); err != nil {
		return v, err
	}
	said, err := readFrame(conn)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(said, &v); err != nil {
		return v, err
	}
	return v, conn.SetDeadline(time.Time{})
}

// answer does the other half, after the magic was read. say gives the verdict on a hello whose sender has the key.
func answer(conn net.Conn, keys peer.Keys, say func(hello) verdict) (hello, error) {
	var theirs hello
	nonces := make([]byte, 2*nonceSize)
	if _, err := io.ReadFull(conn, nonces[:nonceSize]); err != nil {
		return theirs, err
	}
	text, err := readFrame(conn)
	if err != nil {
		return theirs, err
	}
	_, _ = rand.Read(nonces[nonceSize:]) // never returns an error
	if _, err := conn.Write(append(nonces[nonceSize:len(nonces):len(nonces)], mac([]byte(keys[0]), "answer", nonces, text)...)); err != nil {
		return theirs, err
	}
	proof := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, proof); err != nil {
		return theirs, err
	}
	if _, ok := keys.Fits(proof, func(key []byte) []byte { return mac(key, "call", nonces, text) }); !ok {
		return theirs, ErrOutsider
	}
	if err := json.Unmarshal(text, &theirs); err != nil {
		return theirs, err
	}
	v := say(theirs)
	said, err := json.Marshal(v)
	if err != nil {
		return theirs, err
	}
	if _, err := conn.Write(frame(said)); err != nil {
		return theirs, err
	}
	if v.Why != "" {
		return theirs, errors.New(v.Why)
	}
	return theirs, nil
}

func frame(text []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint16(n[:])
	if size > maxHello {
		return nil, fmt.Errorf("a hello of %d bytes is more than %d", size, maxHello)
	}
	text := make([]byte, size)
	_, err := io.ReadFull(r, text)
	return text, err
}
