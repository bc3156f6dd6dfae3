package replication

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/shortline/shortline"
)

// A local snapshot is a file of all rows and keys from which a node can start while its database is down.
//
// It begins with a magic text and the version. Then come blocks: kind (1 byte), length unpacked and packed (4 bytes each, little
// endian), the packed bytes, and a CRC-32C of the file from its beginning to here, so that a block that is damaged, missing or
// out of place shows at the latest with the next one. The bytes are zstd of lines of JSON. The first block says what the
// file is, the last one how much must have come before; a file without it is cut off.
const (
	fileMagic   = "shortline snapshot\n"
	fileVersion = 1

	// blockBytes is where a block ends, maxBlockBytes what a reader takes at most: a store in JSON is far smaller.
	blockBytes    = 1 << 20
	maxBlockBytes = 2 << 20
)

const (
	blockInfo byte = 1 + iota
	blockRows
	blockKeys
	blockEnd
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// SnapshotInfo says what a local snapshot is.
type SnapshotInfo struct {
	// Deployment names whose rows these are.
	Deployment string
	// Token: the file holds at least what it stands for. At: it holds all that had been committed by then.
	Token Token
	At    time.Time
	// Known is the newest epoch to whose history the file is known to belong, LSN an upper bound of what is in it.
	Known, LSN uint64
	Rows, Keys int
}

// fileInfo and the types below are the JSON in the file, apart from the types of the program, which may be renamed.
type fileInfo struct {
	Deployment string    `json:"deployment"`
	Epoch      uint64    `json:"epoch"`
	XID        uint64    `json:"xid"`
	LSN        uint64    `json:"lsn,omitempty"`
	At         time.Time `json:"at"`
	Known      uint64    `json:"known,omitempty"`
}

type fileRow struct {
	ID       shortline.StoreID `json:"id,omitempty"` // of a tombstone
	Store    *shortline.Store  `json:"store,omitempty"`
	Rev      uint64            `json:"rev"`
	Queue    *fileQueue        `json:"queue,omitempty"`
	QueueRev uint64            `json:"qrev,omitempty"`
}

type fileQueue struct {
	Length int    `json:"n"`
	At     int64  `json:"at"` // milliseconds since 1970
	Rev    uint64 `json:"rev"`
	// LearnedS is that of shortline.Queue.
	LearnedS float64 `json:"s,omitempty"`
}

type fileKey struct {
	shortline.Key
	Hash []byte `json:"hash"`
	Rev  uint64 `json:"rev"`
}

type fileEnd struct {
	Rows int    `json:"rows"`
	Keys int    `json:"keys"`
	LSN  uint64 `json:"lsn,omitempty"`
}

// SaveConfig says how to save a local snapshot. Only Deployment has to be set.
type SaveConfig struct {
	// Deployment names whose rows these are; a node of another deployment refuses the file.
	Deployment string
	// Lineage is that of FeedConfig.
	Lineage func() Lineage
	// Chunk is how many rows are read at a time (1,000), ReadTimeout bounds one read (10 s).
	Chunk       int
	ReadTimeout time.Duration
	// Gentle rests after each chunk for as long as reading it took, so that a save takes at most half of one connection.
	Gentle bool
}

// SaveSnapshot writes a local snapshot of the source to path. It replaces what is there only once the new file is complete
// and on disk, and needs memory for a chunk or two, however many rows there are. One may run for a path at a time.
func SaveSnapshot(ctx context.Context, source Source, path string, cfg SaveConfig) (SnapshotInfo, error) {
	if cfg.Chunk == 0 {
		cfg.Chunk = 1000
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 10 * time.Second
	}
	var info SnapshotInfo
	err := replaceFile(path, func(w io.Writer) error {
		s, err := beginScan(ctx, scanConfig{source: source, chunk: cfg.Chunk, timeout: cfg.ReadTimeout, lineage: cfg.Lineage, gentle: cfg.Gentle})
		if err != nil {
			return err
		}
		info, err = saveScan(ctx, w, s, cfg.Deployment)
		return err
	})
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("save the local snapshot: %w", err)
	}
	return info, nil
}

func saveScan(ctx context.Context, to io.Writer, s *scan, deployment string) (SnapshotInfo, error) {
	info := SnapshotInfo{
		Deployment: deployment, At: s.at, Known: s.history.known,
		Token: Token{Epoch: s.start.Epoch, XID: s.start.Horizon - 1, LSN: s.start.LSN},
	}
	w, err := newBlockWriter(to)
	if err != nil {
		return info, err
	}
	defer w.close()
	t := info.Token
	err = w.add(blockInfo, fileInfo{Deployment: deployment, Epoch: t.Epoch, XID: t.XID, LSN: t.LSN, At: info.At.UTC(), Known: info.Known})
	if err != nil {
		return info, err
	}
	err = s.read(ctx,
		func(rows []Row) error {
			for i := range rows {
				if err := w.add(blockRows, toFileRow(&rows[i])); err != nil {
					return fmt.Errorf("store %s: %w", rows[i].Store.ID, err)
				}
			}
			return nil
		},
		func(keys []shortline.Key) error {
			for _, k := range keys {
				if err := w.add(blockKeys, fileKey{Key: k, Hash: k.Hash[:], Rev: k.Rev}); err != nil {
					return fmt.Errorf("key %s: %w", k.ID, err)
				}
			}
			return nil
		},
		func() {})
	if err != nil {
		return info, err
	}
	info.Rows, info.Keys, info.LSN = s.rows, s.keys, s.history.lsn
	if err := w.add(blockEnd, fileEnd{Rows: info.Rows, Keys: info.Keys, LSN: info.LSN}); err != nil {
		return info, err
	}
	return info, w.flush()
}

func toFileRow(row *Row) fileRow {
	out := fileRow{Rev: row.Rev, QueueRev: row.QueueRev}
	if row.Deleted {
		out.ID = row.Store.ID
		return out
	}
	out.Store = &row.Store
	if q := row.Queue; q != nil {
		out.Queue = &fileQueue{Length: q.Length, At: q.UpdatedAt.UnixMilli(), Rev: q.Rev, LearnedS: q.LearnedS}
	}
	return out
}

// blockWriter gathers lines into blocks.
type blockWriter struct {
	to     *bufio.Writer
	pack   *zstd.Encoder
	crc    uint32
	kind   byte
	block  []byte
	packed []byte
}

func newBlockWriter(to io.Writer) (*blockWriter, error) {
	pack, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(blockBytes), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	w := &blockWriter{to: bufio.NewWriterSize(to, 64<<10), pack: pack}
	return w, w.write(append([]byte(fileMagic), fileVersion))
}

func (w *blockWriter) close() { _ = w.pack.Close() } // it only frees memory: EncodeAll leaves nothing behind

// write keeps the checksum of all that was written.
func (w *blockWriter) write(b []byte) error {
	w.crc = crc32.Update(w.crc, crcTable, b)
	_, err := w.to.Write(b)
	return err
}

// add puts a line into the block, and begins another block where the kind changes or the block is full.
func (w *blockWriter) add(kind byte, line any) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if kind != w.kind || len(w.block)+len(text)+1 > blockBytes {
		if err := w.endBlock(); err != nil {
			return err
		}
		w.kind = kind
	}
	w.block = append(append(w.block, text...), '\n')
	return nil
}

func (w *blockWriter) endBlock() error {
	if len(w.block) == 0 {
		return nil
	}
	if len(w.block) > maxBlockBytes {
		return fmt.Errorf("a line of %d bytes does not fit into a local snapshot", len(w.block))
	}
	w.packed = w.pack.EncodeAll(w.block, w.packed[:0])
	head := binary.LittleEndian.AppendUint32([]byte{w.kind}, uint32(len(w.block)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(w.packed)))
	if err := errors.Join(w.write(head), w.write(w.packed)); err != nil {
		return err
	}
	w.block = w.block[:0]
	return w.write(binary.LittleEndian.AppendUint32(nil, w.crc))
}

func (w *blockWriter) flush() error {
	if err := w.endBlock(); err != nil {
		return err
	}
	return w.to.Flush()
}

// replaceFile puts what fill writes in the place of path, all or nothing, also when the power fails. The file is for its
// owner only, for it holds hashes of API keys.
func replaceFile(path string, fill func(io.Writer) error) (err error) {
	temp := path + ".new" // one name, so that what a crash leaves behind is overwritten by the next save
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	if err := fill(file); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the new name durable.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
