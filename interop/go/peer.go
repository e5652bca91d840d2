// Interop and benchmark peer on go-libp2p: the dialing side. The contract is ../README.md; the listening side is
// serve.go, what a host is made of host.go.
//
// Comes in: arguments, lines on standard input. Goes out: "ADDR" lines and JSON lines on standard output, exit 0 if and
// only if the operation did all it should, else one line on standard error. Never limits what the other side may ask
// for, so it is for loopback use.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	echoID, perfID   = "/echo/1.0.0", "/perf/1.0.0"
	halfcloseID      = "/interop/halfclose/1.0.0"
	resetID, statID  = "/interop/reset/1.0.0", "/interop/stat/1.0.0"
	greetingBytes    = 65536 // what a halfclose server says, and what is asked of perf before it
	stallTimeout     = 60 * time.Second
	askTimeout       = 10 * time.Second // for the other side to notice what we did
	ourCode, itsCode = 66, 77           // reset codes: the one we send, the one we ask for
)

// wave holds pattern bytes from every phase, 64 KiB long.
var wave = func() []byte {
	b := make([]byte, 64<<10+251)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}()

// patterned is the n bytes (at most 64 KiB) of the pattern that follow the first `from`.
func patterned(from int64, n int) []byte { return wave[from%251:][:n] }

func fail(err error) {
	fmt.Fprintln(os.Stderr, "ERROR", err)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func cpu() float64 {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// line is one line of JSON.
func line(m map[string]any) []byte { return append(must(json.Marshal(m)), '\n') }

func out(m map[string]any) { must(os.Stdout.Write(line(m))) }

// progress counts whatever an operation waits for; watch ends the process when it stands still.
var progress atomic.Int64

func watch() {
	for last := progress.Load(); ; {
		time.Sleep(stallTimeout)
		now := progress.Load()
		if now == last {
			fail(fmt.Errorf("nothing happened for %v", stallTimeout))
		}
		last = now
	}
}

// stream counts its reads and writes as progress.
type stream struct{ network.Stream }

func (s stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	progress.Add(1)
	return n, err
}

func (s stream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	progress.Add(1)
	return n, err
}

// writePattern writes total patterned bytes, k at a time, and closes the write side.
func writePattern(s network.Stream, from, total int64, k int) error {
	for done := int64(0); done < total; {
		n, err := s.Write(patterned(from+done, int(min(total-done, int64(k)))))
		if err != nil {
			return err
		}
		done += int64(n)
	}
	return s.CloseWrite()
}

// readPattern reads to EOF and says how many bytes came, all of them patterned.
func readPattern(s network.Stream, from int64) (total int64, err error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Read(buf)
		if !bytes.Equal(buf[:n], patterned(from+total, n)) {
			return total, fmt.Errorf("a wrong byte among %d from byte %d on", n, total)
		}
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("after %d bytes: %w", total, err)
		}
	}
}

// resetCode tells a reset by the other side from every other error; the code is null when there is none.
func resetCode(err error) (code any, isReset bool) {
	var e *network.StreamError
	if errors.As(err, &e) {
		return uint32(e.ErrorCode), e.Remote
	}
	return nil, errors.Is(err, network.ErrReset)
}

func rawDial(h host.Host, ai *peer.AddrInfo) transport.CapableConn {
	t := h.Network().(*swarm.Swarm).TransportForDialing(ai.Addrs[0])
	c := must(t.Dial(context.Background(), ai.Addrs[0], ai.ID))
	progress.Add(1)
	go func() {
		for {
			s, err := c.AcceptStream()
			if err != nil {
				return
			}
			s.Reset()
		}
	}()
	return c
}

// parallel runs n operations with c workers and reports rate and latency.
func parallel(op string, n, c int, f func(worker int)) {
	left := int64(n)
	took := make([][]float64, c)
	var wg sync.WaitGroup
	t0, cpu0 := time.Now(), cpu()
	for w := range c {
		wg.Go(func() {
			for atomic.AddInt64(&left, -1) >= 0 {
				t := time.Now()
				f(w)
				took[w] = append(took[w], float64(time.Since(t).Nanoseconds())/1e3)
			}
		})
	}
	wg.Wait()
	seconds := time.Since(t0).Seconds()
	var all []float64
	for _, l := range took {
		all = append(all, l...)
	}
	sort.Float64s(all)
	out(map[string]any{"op": op, "n": n, "c": c, "per_s": float64(n) / seconds, "cpu_us_per": (cpu() - cpu0) / float64(n) * 1e6,
		"p50_us": all[len(all)/2], "p99_us": all[len(all)*99/100]})
}

// client is one connected host and the peer it talks to.
type client struct {
	context.Context
	host.Host
	remote peer.ID
}

func (c client) open(id string) stream {
	return stream{must(c.NewStream(c, c.remote, protocol.ID(id)))}
}

func (c client) connect(ai *peer.AddrInfo) {
	t := time.Now()
	check(c.Connect(c, *ai))
	state := c.Network().ConnsToPeer(ai.ID)[0].ConnState()
	out(map[string]any{"op": "connect", "ms": time.Since(t).Seconds() * 1e3, "security": state.Security,
		"muxer": state.StreamMultiplexer, "early": state.UsedEarlyMuxerNegotiation})
}

func (c client) stat() (m map[string]any) {
	s := c.open(statID)
	check(json.NewDecoder(bufio.NewReader(s)).Decode(&m))
	check(s.Close())
	return m
}

// ask repeats stat until it satisfies enough, and gives that answer.
func (c client) ask(what string, enough func(map[string]any) bool) map[string]any {
	for end := time.Now().Add(askTimeout); ; time.Sleep(10 * time.Millisecond) {
		if m := c.stat(); enough(m) {
			return m
		} else if time.Now().After(end) {
			fail(fmt.Errorf("%s: the other side still says %v", what, m))
		}
	}
}

// perf moves up and down bytes over one perf stream, in writes of block bytes.
func (c client) perf(up, down int64, block int) {
	s := c.open(perfID)
	var header [8]byte
	binary.BigEndian.PutUint64(header[:], uint64(down))
	must(s.Write(header[:]))
	buf := make([]byte, max(block, 64<<10))
	for up > 0 {
		n := must(s.Write(buf[:min(up, int64(block))]))
		up -= int64(n)
	}
	check(s.CloseWrite())
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, buf)
	check(err)
	if got != down {
		fail(fmt.Errorf("got %d bytes of %d", got, down))
	}
}

func (c client) measurePerf(op string, block int) {
	up, down := *amount, int64(0)
	if op == "down" {
		up, down = 0, *amount
	}
	t, cpu0 := time.Now(), cpu()
	c.perf(up, down, block)
	d := time.Since(t).Seconds()
	out(map[string]any{"op": op, "MB_s": float64(*amount) / d / 1e6, "seconds": d, "cpu_s": cpu() - cpu0})
}

func (c client) echo() {
	s := c.open(echoID)
	go func() { check(writePattern(s, 0, *amount, 8192)) }()
	got := must(readPattern(s, 0))
	if got != *amount {
		fail(fmt.Errorf("got %d bytes of %d back", got, *amount))
	}
	out(map[string]any{"op": "echo", "ok": true, "bytes": got})
}

func (c client) streams(count, size int) {
	t := time.Now()
	var arrived, done sync.WaitGroup
	arrived.Add(count)
	for k := range int64(count) {
		done.Go(func() {
			s := c.open(echoID)
			go func() { must(s.Write(patterned(k, size))) }()
			b := make([]byte, size)
			must(io.ReadFull(s, b))
			if !bytes.Equal(b, patterned(k, size)) {
				fail(fmt.Errorf("stream %d: wrong bytes", k))
			}
			arrived.Done()
			arrived.Wait()
			go func() { check(writePattern(s, k+int64(size), int64(size), size)) }()
			if got, err := readPattern(s, k+int64(size)); got != int64(size) || err != nil {
				fail(fmt.Errorf("stream %d: %d bytes, %v", k, got, err))
			}
			check(s.Close())
		})
	}
	done.Wait()
	out(map[string]any{"op": "streams", "ok": true, "c": count, "size": size, "seconds": time.Since(t).Seconds()})
}

func (c client) halfclose() {
	before := c.stat()
	c.perf(greetingBytes, greetingBytes, 64<<10)
	s := c.open(halfcloseID)
	if got := must(readPattern(s, 0)); got != greetingBytes {
		fail(fmt.Errorf("got %d bytes of %d before the other side's half close", got, greetingBytes))
	}
	check(writePattern(s, 0, *amount, 8192))
	check(s.Close())
	after := c.ask("halfclose", func(m map[string]any) bool {
		return m["halfclosed"] != before["halfclosed"] || m["halfclosed_bad"] != before["halfclosed_bad"]
	})
	if after["halfclosed_bad"] != before["halfclosed_bad"] {
		fail(errors.New("the other side got wrong bytes after its half close"))
	}
	out(map[string]any{"op": "halfclose", "ok": true, "bytes": *amount})
}

// startReset opens a reset stream that agrees on mode and code.
func (c client) startReset(mode byte, code uint32) stream {
	s := c.open(resetID)
	must(s.Write(binary.BigEndian.AppendUint32([]byte{mode}, code)))
	return s
}

func (c client) reset() {
	before := c.stat()
	s, b := c.startReset('c', ourCode), make([]byte, 1)
	must(io.ReadFull(s, b))
	check(s.ResetWithError(ourCode))
	after := c.ask("reset", func(m map[string]any) bool {
		return m["resets"] != before["resets"] || m["resets_bad"] != before["resets_bad"]
	})
	if after["resets_bad"] != before["resets_bad"] {
		fail(errors.New("the other side did not see the reset as one"))
	}
	s = c.startReset('s', itsCode)
	_, err := io.ReadFull(s, b)
	code, isReset := resetCode(err)
	if !isReset {
		fail(fmt.Errorf("expected a reset by the other side, got: %v", err))
	}
	out(map[string]any{"op": "reset", "ok": true, "remote_code": after["reset_code"], "code": code})
}

func (c client) ping(n int) {
	results := ping.Ping(c, c.Host, c.remote)
	for range n {
		r := <-results
		progress.Add(1)
		check(r.Error)
		out(map[string]any{"op": "ping", "rtt_us": float64(r.RTT.Nanoseconds()) / 1e3})
	}
}

// identify gives what was learned since before the connection; a relay on the way is identified too.
func (c client) identify(identifications event.Subscription) {
	var e event.EvtPeerIdentificationCompleted
	for e.Peer != c.remote {
		e = (<-identifications.Out()).(event.EvtPeerIdentificationCompleted)
	}
	m := identified(e)
	answer := c.ask("identify", func(m map[string]any) bool { return m["peer"] != nil })
	m["op"], m["remote"] = "identify", answer["peer"]
	out(m)
}

func pick(given, otherwise int) int {
	if given > 0 {
		return given
	}
	return otherwise
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: listen | relay | OP -to MULTIADDR/p2p/ID"))
	}
	op := os.Args[1]
	check(flag.CommandLine.Parse(os.Args[2:]))
	switch op {
	case "listen":
		listen()
		return
	case "relay":
		serveRelay()
		return
	}
	ai := must(peer.AddrInfoFromP2pAddr(must(ma.NewMultiaddr(*to))))
	c := client{network.WithAllowLimitedConn(context.Background(), "interop"), nil, ai.ID}
	ops := strings.Split(op, ",")
	if slices.Contains(ops, "identify") {
		c.Host = newHost(false, *addr)
	} else {
		c.Host = newHost(false)
	}
	if op == "idle" {
		conns := make([]transport.CapableConn, *number)
		for i := range conns {
			conns[i] = rawDial(c, ai)
		}
		fmt.Println("HELD", len(conns))
		bufio.NewReader(os.Stdin).ReadString('\n')
		return
	}
	go watch()
	if op == "conn" {
		parallel(op, *number, pick(*atOnce, 1), func(int) { check(rawDial(c, ai).Close()) })
		return
	}
	identifications := must(c.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted)))
	c.connect(ai)
	for _, op := range ops {
		run(c, op, identifications)
	}
}

// run does one operation on the connection; idle and conn have their own.
func run(c client, op string, identifications event.Subscription) {
	workers, message := pick(*atOnce, 1), make([]byte, pick(*size, 32))
	switch op {
	case "identify":
		c.identify(identifications)
	case "up", "down":
		c.measurePerf(op, 64<<10)
	case "small":
		c.measurePerf(op, len(message))
	case "stream":
		parallel(op, *number, workers, func(int) {
			s := c.open(echoID)
			must(s.Write(message))
			must(io.ReadFull(s, make([]byte, len(message))))
			check(s.Close())
		})
	case "pingpong":
		open, back := make([]stream, workers), make([][]byte, workers)
		for i := range open {
			open[i], back[i] = c.open(echoID), make([]byte, len(message))
		}
		parallel(op, *number, workers, func(w int) { must(open[w].Write(message)); must(io.ReadFull(open[w], back[w])) })
	case "echo":
		c.echo()
	case "streams":
		c.streams(pick(*atOnce, 1000), pick(*size, 1024))
	case "halfclose":
		c.halfclose()
	case "reset":
		c.reset()
	case "ping":
		c.ping(*number)
	default:
		fail(fmt.Errorf("no such operation: %s", op))
	}
}
