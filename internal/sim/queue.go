package sim

import "baton/internal/core/cluster"

// eventKind says what happens.
type eventKind uint8

const (
	evWake      eventKind = iota + 1 // an agent asked to be called
	evPacket                         // idx: the packet
	evDisk                           // the running sync ends
	evRecorded                       // n: number of the run record written
	evFitted                         // n: revision of the configuration that is carried out
	evGate                           // the oldest late gate write is due
	evGated                          // n: number of the gate write to confirm
	evDone                           // an operation on a resource ends; idx: the resource
	evFault                          // idx: the fault begins
	evFaultEnd                       // idx: the fault ends
	evAgent                          // an agent starts
	evStall                          // a machine stalls for a moment
	evResume                         // a stall ends
	evSample                         // the checkers look at who serves
	evBoot                           // a machine powers up for the first time
	evCopy                           // idx: a copy of the disks is made, for the fault that sets one back
	evLook                           // the watcher looks at who serves
	evFlap                           // idx: a fault that flaps turns
	evStarve                         // idx: a fault starves its machine again
	evGateAgain                      // gate writes that failed are tried again
	evSweep                          // the agent looks whether its gate is whole
	evClients                        // clients ask
	evAsk                            // the agent asks targets and nodes whether they answer
	evHealth                         // the agent makes its health checks
	evAnnounce                       // idx: the group whose address is made known again
)

// event is one thing that will happen. gen tells whether it still concerns the life it was meant for.
type event struct {
	at   int64
	seq  uint64
	n    uint64
	idx  int32
	gen  uint32
	kind eventKind
	node uint8
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

// queue holds what will happen, earliest first; equal instants in the order of their making, so that
// equal seeds give equal runs. It is a heap of values with four children each: no allocation per event.
type queue struct {
	heap []event
	seq  uint64
}

func (q *queue) push(e event) {
	q.seq++
	e.seq = q.seq
	q.heap = append(q.heap, e)
	i := len(q.heap) - 1
	for i > 0 {
		p := (i - 1) / 4
		if q.heap[p].before(&e) {
			break
		}
		q.heap[i] = q.heap[p]
		i = p
	}
	q.heap[i] = e
}

func (q *queue) pop() (event, bool) {
	if len(q.heap) == 0 {
		return event{}, false
	}
	top := q.heap[0]
	last := q.heap[len(q.heap)-1]
	q.heap = q.heap[:len(q.heap)-1]
	if len(q.heap) == 0 {
		return top, true
	}
	i := 0
	for {
		least := 4*i + 1
		if least >= len(q.heap) {
			break
		}
		for c := least + 1; c < len(q.heap) && c < 4*i+5; c++ {
			if q.heap[c].before(&q.heap[least]) {
				least = c
			}
		}
		if last.before(&q.heap[least]) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	q.heap[i] = last
	return top, true
}

// packet is a message under way.
type packet struct {
	msg  message
	run  cluster.RunID
	from uint8
	link uint8
	next int32 // of the free list
}

// slab keeps packets under way and reuses their places.
type slab struct {
	all  []packet
	free int32 // head of the free list plus one; 0: none
}

func (s *slab) put(p packet) int32 {
	if s.free == 0 {
		s.all = append(s.all, p)
		return int32(len(s.all) - 1)
	}
	i := s.free - 1
	s.free = s.all[i].next
	s.all[i] = p
	return i
}

func (s *slab) take(i int32) packet {
	p := s.all[i]
	s.all[i] = packet{next: s.free}
	s.free = i + 1
	return p
}
