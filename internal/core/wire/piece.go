package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"baton/internal/core/cluster"
)

// PieceSize is how many bytes of a message each of its pieces carries; the last one carries the rest. With what a
// Piece says beside, it fills a datagram.
const PieceSize = MaxDatagram - pieceFields

// pieceFields bounds what stands before a piece's data: version, kind, and the varints of set, size, place and length.
const pieceFields = 2 + 10 + 4 + 4 + 2

// Piece is a part of a message that no datagram holds. Each is authentic by its envelope, which names sender and run;
// with the set it belongs to exactly one message, so that pieces of two are never put together.
type Piece struct {
	Set  uint64 // counts the large messages of the sender's run to this receiver, from 1
	Size uint64 // bytes of the whole message, encoded
	At   uint64 // where this part begins: a multiple of PieceSize
	Data []byte
}

// Got tells the sender of pieces how much of a set has arrived.
type Got struct {
	Run  cluster.RunID // of the pieces' sender
	Set  uint64
	Upto uint64 // the pieces before this one are all there, counted from 0
	More uint64 // bit i: so is piece Upto+1+i
}

// Pieces returns how many pieces a message of so many bytes has.
func Pieces(size uint64) uint64 { return (size + PieceSize - 1) / PieceSize }

// PieceOf returns piece k of an encoded message; it shares the message's memory.
func PieceOf(set uint64, message []byte, k uint64) *Piece {
	at := k * PieceSize
	return &Piece{Set: set, Size: uint64(len(message)), At: at, Data: message[at:min(at+PieceSize, uint64(len(message)))]}
}

func (*Piece) isMessage() {}
func (*Got) isMessage()   {}

// check refuses a piece that fits no message.
func (p *Piece) check() error {
	switch {
	case p.Size > MaxMessage:
		return fmt.Errorf("a piece of a message of %d bytes, the limit is %d", p.Size, MaxMessage)
	case p.At%PieceSize != 0 || p.At >= p.Size:
		return fmt.Errorf("a piece at byte %d of %d: pieces have %d bytes", p.At, p.Size, PieceSize)
	case uint64(len(p.Data)) != min(PieceSize, p.Size-p.At):
		return fmt.Errorf("a piece of %d bytes at byte %d of %d", len(p.Data), p.At, p.Size)
	case p.Set == 0:
		return errors.New("a piece of no set")
	}
	return nil
}

func (e *encoder) piece(p *Piece) {
	if err := p.check(); err != nil {
		e.fail("piece", err)
		return
	}
	e.uint(p.Set)
	e.uint(p.Size)
	e.uint(p.At)
	e.bytes("data", p.Data)
}

func (d *decoder) piece() *Piece {
	p := &Piece{Set: d.uint("set"), Size: d.uint("size"), At: d.uint("at"), Data: append([]byte(nil), d.bytes("data")...)}
	if d.err == nil {
		if err := p.check(); err != nil {
			d.fail("piece", err)
		}
	}
	return p
}

// IsLarge tells whether a message goes in pieces, as no datagram holds it. Heartbeats and acks never do: they are
// made to fit.
func IsLarge(m Message) bool {
	const most = MaxDatagram - largeFields
	switch m := m.(type) {
	case *Raft:
		return proto.Size(m.Msg) > most
	case *Ask:
		return len(m.Text)+len(m.Without) > most
	case *Founding:
		return len(m.Record) > most
	}
	return false
}

// largeFields bounds what stands beside the parts of a message that IsLarge looks at.
const largeFields = 64
