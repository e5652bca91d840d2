// The listening side of the Go peer: what `listen` serves and what it answers on standard input.
//
// Comes in: streams of the protocols in ../README.md, the lines stat, gc and quit. Goes out: their answers. Keeps what
// identify told about each open connection, so that the dialer can ask how this side saw it (not with -bare).
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// server counts what it saw; the counters are those of `stat`.
type server struct {
	host.Host
	sync.Mutex
	halfclosed, halfclosedBad, resets, resetsBad int
	resetCode                                    any
	peers                                        map[string]map[string]any // what identify said, by connection id
}

func rss() int64 {
	var total, resident int64
	fmt.Sscan(string(must(os.ReadFile("/proc/self/statm"))), &total, &resident)
	return resident * int64(os.Getpagesize())
}

func (v *server) stat() map[string]any {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	v.Lock()
	defer v.Unlock()
	return map[string]any{"rss": rss(), "cpu": cpu(), "conns": len(v.Network().Conns()), "tasks": runtime.NumGoroutine(),
		"heap": m.HeapAlloc, "stack": m.StackInuse, "halfclosed": v.halfclosed, "halfclosed_bad": v.halfclosedBad,
		"resets": v.resets, "resets_bad": v.resetsBad, "reset_code": v.resetCode}
}

func texts(addrs []ma.Multiaddr) []string {
	l := make([]string, 0, len(addrs))
	for _, a := range addrs {
		l = append(l, a.String())
	}
	return l
}

// identified is the object of the contract for one finished identify.
func identified(e event.EvtPeerIdentificationCompleted) map[string]any {
	m := map[string]any{"peer_id": e.Peer.String(), "protocol_version": e.ProtocolVersion, "agent": e.AgentVersion,
		"addrs": texts(e.ListenAddrs), "public_key": nil, "observed": nil, "record_addrs": nil}
	protocols := make([]string, 0, len(e.Protocols))
	for _, p := range e.Protocols {
		protocols = append(protocols, string(p))
	}
	sort.Strings(protocols)
	m["protocols"] = protocols
	if key := e.Conn.RemotePublicKey(); key != nil {
		m["public_key"] = hex.EncodeToString(must(crypto.MarshalPublicKey(key)))
	}
	if e.ObservedAddr != nil {
		m["observed"] = e.ObservedAddr.String()
	}
	if e.SignedPeerRecord != nil && e.Peer.MatchesPublicKey(e.SignedPeerRecord.PublicKey) {
		if r, err := e.SignedPeerRecord.Record(); err == nil {
			if record, ok := r.(*peer.PeerRecord); ok && record.PeerID == e.Peer {
				m["record_addrs"] = texts(record.Addrs)
			}
		}
	}
	return m
}

// follow keeps `peers` in step with the open connections.
func (v *server) follow() {
	sub := must(v.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted)))
	v.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		v.Lock()
		defer v.Unlock()
		delete(v.peers, c.ID())
	}})
	go func() {
		for e := range sub.Out() {
			done := e.(event.EvtPeerIdentificationCompleted)
			v.Lock()
			if !done.Conn.IsClosed() {
				v.peers[done.Conn.ID()] = identified(done)
			}
			v.Unlock()
		}
	}()
}

func echoHandler(s network.Stream) {
	if _, err := io.Copy(s, s); err != nil {
		s.Reset()
		return
	}
	s.Close()
}

func perfHandler(s network.Stream) {
	var header [8]byte
	if _, err := io.ReadFull(s, header[:]); err != nil {
		s.Reset()
		return
	}
	buf := make([]byte, 64<<10)
	for {
		if _, err := s.Read(buf); err == io.EOF {
			break
		} else if err != nil {
			s.Reset()
			return
		}
	}
	for n := binary.BigEndian.Uint64(header[:]); n > 0; {
		k := min(n, uint64(len(buf)))
		if _, err := s.Write(buf[:k]); err != nil {
			s.Reset()
			return
		}
		n -= k
	}
	s.Close()
}

func (v *server) halfcloseHandler(s network.Stream) {
	defer s.Close()
	err := writePattern(s, 0, greetingBytes, greetingBytes)
	if err == nil {
		_, err = readPattern(s, 0)
	}
	v.Lock()
	defer v.Unlock()
	if err == nil {
		v.halfclosed++
	} else {
		v.halfclosedBad++
	}
}

func (v *server) resetHandler(s network.Stream) {
	var order [5]byte
	if _, err := io.ReadFull(s, order[:]); err != nil {
		s.Reset()
		return
	}
	if order[0] == 's' {
		s.ResetWithError(network.StreamErrorCode(binary.BigEndian.Uint32(order[1:])))
		return
	}
	s.Write([]byte("r"))
	_, err := s.Read(order[:])
	s.Close()
	code, isReset := resetCode(err)
	v.Lock()
	defer v.Unlock()
	if isReset {
		v.resets, v.resetCode = v.resets+1, code
	} else {
		v.resetsBad++
	}
}

func (v *server) statHandler(s network.Stream) {
	m := v.stat()
	v.Lock()
	m["peer"] = v.peers[s.Conn().ID()] // a nil map is JSON's null
	v.Unlock()
	s.Write(line(m))
	s.Close()
}

func listen() {
	var addrs []string
	if *via == "" {
		addrs = strings.Split(*addr, ",")
	}
	v := &server{Host: newHost(false, addrs...), peers: map[string]map[string]any{}}
	v.SetStreamHandler(echoID, echoHandler)
	v.SetStreamHandler(perfID, perfHandler)
	if !*bare {
		v.follow()
		v.SetStreamHandler(halfcloseID, v.halfcloseHandler)
		v.SetStreamHandler(resetID, v.resetHandler)
		v.SetStreamHandler(statID, v.statHandler)
	}
	if *via == "" {
		v.announce(v.Addrs())
	} else {
		v.announce([]ma.Multiaddr{reserve(v.Host, *via)})
	}
	v.obey()
}

// obey answers the lines of standard input until it ends, or one says quit.
func (v *server) obey() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "gc":
			runtime.GC()
			debug.FreeOSMemory()
			os.Stdout.Write(line(v.stat()))
		case "stat":
			os.Stdout.Write(line(v.stat()))
		case "quit":
			return
		}
	}
}
