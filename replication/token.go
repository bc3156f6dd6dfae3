package replication

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// ErrBadToken says that a text is not a token that any node has ever issued.
var ErrBadToken = errors.New("not a Shortline-Token; send one back just as it was received")

const tokenVersion = 1

// String is the opaque form of t that clients see: URL-safe base64 of a version byte and three uvarints.
func (t Token) String() string {
	b := make([]byte, 0, 1+3*binary.MaxVarintLen64)
	b = append(b, tokenVersion)
	b = binary.AppendUvarint(b, t.Epoch)
	b = binary.AppendUvarint(b, t.XID)
	b = binary.AppendUvarint(b, t.LSN)
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken is the inverse of Token.String. The error is ErrBadToken.
func ParseToken(s string) (Token, error) {
	if len(s) > 64 {
		return Token{}, ErrBadToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 || b[0] != tokenVersion {
		return Token{}, ErrBadToken
	}
	b = b[1:]
	var t Token
	for _, field := range []*uint64{&t.Epoch, &t.XID, &t.LSN} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return Token{}, ErrBadToken
		}
		*field, b = v, b[n:]
	}
	if len(b) != 0 || t.String() != s { // the decoders let line breaks and needlessly long numbers pass
		return Token{}, ErrBadToken
	}
	return t, nil
}

// Max returns the later of two tokens: what a read answers with when it was asked with one and made at the other.
func Max(a, b Token) Token {
	if a.Less(b) {
		return b
	}
	return a
}
