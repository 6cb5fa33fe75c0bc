package pebblestore

import (
	"encoding/binary"

	"github.com/stintrun/stint/internal/job"
)

// The kinds of keys. Every key is one of these bytes and then fixed-width big-endian numbers or a raw id, and last a text
// if any, so no two tuples share a key and every scan is a range.
const (
	kindJob     = 'j' // seq → job record
	kindPayload = 'p' // seq → payload over inlineMax
	kindResult  = 'o' // seq → result over inlineMax
	kindID      = 'i' // bucket, id → offset of the seq in the bucket
	kindFilter  = 'f' // bucket → filter of a full bucket's ids
	kindFinal   = 'd' // bucket → final states of trimmed jobs
	kindLane    = 'l' // lane number → lane record
	kindSegment = 'q' // lane number, last ready seq → a batch's entries of the lane
	kindTime    = 't' // unix nanoseconds, seq → nothing
	kindHold    = 'u' // queue number, unique key → who holds it
	kindHoldEnd = 'e' // unix nanoseconds, seq of a holder that has ended → queue number, unique key
	kindLog     = 'c' // batch → commit record
	kindEvent   = 'v' // batch → its events
	kindQueue   = 'Q' // queue number → queue record
	kindLimit   = 'L' // limit number → limit record
	kindZombie  = 'z' // fence → zombie record
	kindGate    = 'g' // 'Q' and a queue's number, or 'L', a limit's and a key → gate record
	kindMeta    = 'm' // name → value
)

var (
	metaSecret   = []byte("msecret")
	metaSnapshot = []byte("msnapshot")
)

func seqKey(kind byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), kind), seq)
}

func bucketKey(kind byte, bucket uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, 5), kind), bucket)
}

func idKey(buf []byte, bucket uint32, id job.ID) []byte {
	return append(binary.BigEndian.AppendUint32(append(buf, kindID), bucket), id[:]...)
}

func segmentKey(lane, lastReady uint64) []byte {
	k := binary.BigEndian.AppendUint64(append(make([]byte, 0, 17), kindSegment), lane)
	return binary.BigEndian.AppendUint64(k, lastReady)
}

func timeKey(nanos int64, seq uint64) []byte {
	k := binary.BigEndian.AppendUint64(append(make([]byte, 0, 17), kindTime), uint64(nanos))
	return binary.BigEndian.AppendUint64(k, seq)
}

func queueKey(number uint32) []byte { return bucketKey(kindQueue, number) }

func limitKey(number uint32) []byte { return bucketKey(kindLimit, number) }

// after is the smallest key above every key of the kind.
func after(kind byte) []byte { return []byte{kind + 1} }

func keySeq(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }
