package replication

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/shortline/shortline"
)

// Errors of local snapshots that cannot be used.
var (
	// ErrSnapshotDamaged says that a file is no local snapshot, or not all of one.
	ErrSnapshotDamaged = errors.New("the file is damaged or no local snapshot")
	// ErrSnapshotVersion says that a file is of a version that this program does not read.
	ErrSnapshotVersion = errors.New("the file was written by another version of this program")
	// ErrSnapshotForeign says that a file is of another deployment.
	ErrSnapshotForeign = errors.New("the file is of another deployment")
)

// FileFallback is the Fallback that reads the local snapshot at path. It refuses that of another deployment.
func FileFallback(path, deployment string) Fallback {
	return func(ctx context.Context, to View) (info SnapshotInfo, err error) {
		file, err := os.Open(path)
		if err != nil {
			return info, fmt.Errorf("open the local snapshot: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if info, err = ReadSnapshot(ctx, file, deployment, to); err != nil {
			return info, fmt.Errorf("local snapshot %s: %w", path, err)
		}
		return info, nil
	}
}

// ReadSnapshot loads a local snapshot into a view, in calls of some thousand rows, without Built. What it has loaded by the
// time of an error is good for nothing. An error other than one of r or ctx wraps ErrSnapshotDamaged, ErrSnapshotVersion or
// ErrSnapshotForeign.
func ReadSnapshot(ctx context.Context, r io.Reader, deployment string, to View) (SnapshotInfo, error) {
	blocks, err := newBlockReader(r)
	if err != nil {
		return SnapshotInfo{}, err
	}
	defer blocks.unpack.Close()
	s := snapshotReader{view: to}
	if err := s.begin(blocks, deployment); err != nil {
		return SnapshotInfo{}, err
	}
	for !s.ended {
		if err := ctx.Err(); err != nil {
			return SnapshotInfo{}, err
		}
		kind, block, err := blocks.next()
		if err != nil {
			return SnapshotInfo{}, err
		}
		if err := s.take(kind, block); err != nil {
			return SnapshotInfo{}, err
		}
	}
	if _, err := blocks.from.ReadByte(); err != io.EOF {
		return SnapshotInfo{}, damaged("there is something after its end")
	}
	return s.info, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSnapshotDamaged, fmt.Sprintf(format, args...))
}

// blockReader takes a file apart into blocks, and returns none whose checksum is wrong.
type blockReader struct {
	from   *bufio.Reader
	unpack *zstd.Decoder
	crc    uint32
	packed []byte
	block  []byte
}

func newBlockReader(r io.Reader) (*blockReader, error) {
	b := &blockReader{from: bufio.NewReaderSize(r, 64<<10)}
	head := make([]byte, len(fileMagic)+1)
	if err := b.read(head); err != nil {
		return nil, err
	}
	version, ok := bytes.CutPrefix(head, []byte(fileMagic))
	switch {
	case !ok:
		return nil, damaged("it does not begin as one")
	case version[0] != fileVersion:
		return nil, fmt.Errorf("%w: its format is %d, this program's is %d", ErrSnapshotVersion, version[0], fileVersion)
	}
	var err error
	b.unpack, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlockBytes), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("set up decompression: %w", err)
	}
	return b, nil
}

// read fills p and keeps the checksum of all that was read.
func (b *blockReader) read(p []byte) error {
	switch _, err := io.ReadFull(b.from, p); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("it is cut off")
	case err != nil:
		return err
	}
	b.crc = crc32.Update(b.crc, crcTable, p)
	return nil
}

// next returns a block, which is valid until the next call. Lengths are believed only up to what a writer would write.
func (b *blockReader) next() (kind byte, block []byte, err error) {
	var head [9]byte
	if err := b.read(head[:]); err != nil {
		return 0, nil, err
	}
	size, packed := binary.LittleEndian.Uint32(head[1:]), binary.LittleEndian.Uint32(head[5:])
	if size > maxBlockBytes || packed > maxBlockBytes+1<<10 {
		return 0, nil, damaged("a block of %d bytes, %d packed, is too large", size, packed)
	}
	if cap(b.packed) < int(packed) {
		b.packed = make([]byte, packed)
	}
	b.packed = b.packed[:packed]
	if err := b.read(b.packed); err != nil {
		return 0, nil, err
	}
	want := b.crc
	var sum [4]byte
	if err := b.read(sum[:]); err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(sum[:]) != want {
		return 0, nil, damaged("a checksum is wrong")
	}
	if cap(b.block) < int(size) {
		b.block = make([]byte, size)
	}
	b.block, err = b.unpack.DecodeAll(b.packed, b.block[:0:size]) // it takes no more than there is room for
	if err != nil || len(b.block) != int(size) {
		return 0, nil, damaged("a block cannot be unpacked")
	}
	return head[0], b.block, nil
}

// snapshotReader turns blocks into rows and keys.
type snapshotReader struct {
	view  View
	info  SnapshotInfo
	last  shortline.StoreID
	ended bool
}

func (s *snapshotReader) begin(blocks *blockReader, deployment string) error {
	kind, block, err := blocks.next()
	if err != nil {
		return err
	}
	var f fileInfo
	if kind != blockInfo || json.Unmarshal(block, &f) != nil {
		return damaged("it does not say what it is")
	}
	if f.Deployment != deployment {
		return fmt.Errorf("%w: of %q, not of %q", ErrSnapshotForeign, f.Deployment, deployment)
	}
	s.info = SnapshotInfo{Deployment: f.Deployment, Token: Token{Epoch: f.Epoch, XID: f.XID, LSN: f.LSN}, At: f.At, Known: f.Known}
	return nil
}

func (s *snapshotReader) take(kind byte, block []byte) error {
	switch kind {
	case blockRows:
		return eachThousand(block, s.row, func(rows []Row) {
			s.info.Rows += len(rows)
			s.view.Load(rows)
		})
	case blockKeys:
		return eachThousand(block, fromFileKey, func(keys []shortline.Key) {
			s.info.Keys += len(keys)
			s.view.LoadKeys(keys)
		})
	case blockEnd:
		var end fileEnd
		if json.Unmarshal(block, &end) != nil || end.Rows != s.info.Rows || end.Keys != s.info.Keys {
			return damaged("it does not hold what its end says")
		}
		s.info.LSN, s.ended = end.LSN, true
		return nil
	}
	return damaged("a block is of kind %d", kind)
}

// eachThousand hands over what the lines of a block hold, some at a time: small lines become much larger values.
func eachThousand[T any](block []byte, parse func(line []byte) (T, error), load func([]T)) error {
	for len(block) > 0 {
		var some []T
		for len(block) > 0 && len(some) < 1000 {
			var line []byte
			line, block, _ = bytes.Cut(block, []byte{'\n'})
			v, err := parse(line)
			if err != nil {
				return err
			}
			some = append(some, v)
		}
		load(some)
	}
	return nil
}

func (s *snapshotReader) row(line []byte) (row Row, err error) {
	var f fileRow
	if err := json.Unmarshal(line, &f); err != nil {
		return row, damaged("a row: %v", err)
	}
	row = Row{Store: shortline.Store{ID: f.ID}, Rev: f.Rev, Deleted: f.Store == nil, QueueRev: f.QueueRev}
	if f.Store != nil {
		row.Store = *f.Store
		if q := f.Queue; q != nil {
			row.Queue = &shortline.Queue{Length: q.Length, UpdatedAt: time.UnixMilli(q.At).UTC(), Rev: q.Rev, LearnedS: q.LearnedS}
		}
	}
	if row.Store.ID <= s.last {
		return row, damaged("store %q comes after store %q", row.Store.ID, s.last)
	}
	s.last = row.Store.ID
	return row, nil
}

func fromFileKey(line []byte) (shortline.Key, error) {
	var f fileKey
	if err := json.Unmarshal(line, &f); err != nil {
		return shortline.Key{}, damaged("a key: %v", err)
	}
	k := f.Key
	if len(f.Hash) != len(k.Hash) {
		return k, damaged("key %q has a hash of %d bytes", k.ID, len(f.Hash))
	}
	copy(k.Hash[:], f.Hash)
	k.Rev = f.Rev
	return k, nil
}
