package rediscache

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// A value is, in this order: the format, the version as two numbers of 20 digits (lineage, rev), what it is ('S' a store,
// 'T' a tombstone), the owner, a line break, and the store's JSON. The script in Redis compares the two numbers as text.
// The numbers are in decimal, because Lua's numbers are floating and its comparison of text minds the locale, which no
// locale does with digits. The format stands in the key too, so that programs that write different ones do not meet.
const (
	format     = "SL1:"
	keyPrefix  = "sl1:"
	digits     = 20
	versionEnd = len(format) + 2*digits
	kindStore  = 'S'
	kindGone   = 'T'
	// maxValue is more than any store takes: its JSON form is limited, the rest is short.
	maxValue = shortline.MaxStoreJSON + 1<<10
)

// version orders the values of a key.
type version struct{ lineage, rev uint64 }

// value is what Redis holds of a store; store is nil in a tombstone.
type value struct {
	version
	store *shortline.Store
}

// key puts the cell in braces: only what is in them decides on the slot, so the stores of one cell come in one MGET.
func (c *Cache) key(cell geo.Cell, id shortline.StoreID) string {
	return keyPrefix + string(c.cfg.Deployment) + ":{" + cell.String() + "}:" + string(id)
}

// encodeValue refuses a store that decodeValue would not return just as it is, such as one that was stored under rules of
// long ago: it is not worth caching.
func encodeValue(owner string, id shortline.StoreID, v value) (string, error) {
	head := fmt.Sprintf("%s%0*d%0*d", format, digits, v.lineage, digits, v.rev)
	if v.store == nil {
		return head + string(kindGone) + owner + "\n" + string(id), nil
	}
	text, err := json.Marshal(v.store)
	if err != nil {
		return "", err
	}
	all := head + string(kindStore) + owner + "\n" + string(text)
	back, err := decodeValue(owner, id, all)
	if err != nil {
		return "", err
	}
	if !back.store.Equal(v.store) {
		return "", errors.New("the store is not in its normal form")
	}
	return all, nil
}

var (
	errFormat = errors.New("not a value of this format")
	errOwner  = errors.New("a value of another deployment or database")
	errID     = errors.New("a value of another store")
)

// decodeValue accepts what encodeValue wrote for this owner and store, and nothing else.
func decodeValue(owner string, id shortline.StoreID, text string) (value, error) {
	var v value
	if len(text) <= versionEnd || len(text) > maxValue || text[:len(format)] != format {
		return v, errFormat
	}
	var err error
	if v.lineage, err = number(text[len(format) : len(format)+digits]); err != nil {
		return v, err
	}
	if v.rev, err = number(text[len(format)+digits : versionEnd]); err != nil {
		return v, err
	}
	kind, rest := text[versionEnd], text[versionEnd+1:]
	who, body, ok := strings.Cut(rest, "\n")
	switch {
	case !ok:
		return v, errFormat
	case who != owner:
		return v, errOwner
	case kind == kindGone && body == string(id):
		return v, nil
	case kind == kindGone:
		return v, errID
	case kind != kindStore:
		return v, errFormat
	}
	store, err := shortline.DecodeStore([]byte(body))
	if err != nil {
		return v, err
	}
	if store.ID != id {
		return v, errID
	}
	if err := store.Validate(); err != nil {
		return v, err
	}
	v.store = &store
	return v, nil
}

func number(text string) (uint64, error) {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' { // ParseUint would let a sign pass
			return 0, errFormat
		}
	}
	return strconv.ParseUint(text, 10, 64)
}
