// Circuit relay v2 in the Go peer: serving it, and listening through one.
//
// Comes in: the options -addr, -limit, -relay. Goes out: a relay that runs until standard input ends; an address at a relay.
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	limitDuration  = 2 * time.Minute
	reserveTimeout = 10 * time.Second
	relayCircuits  = 1 << 16
)

// serveRelay passes on whatever it is asked to, within -limit, or within go-libp2p's own limits with -managed.
func serveRelay() {
	v := &server{Host: newHost(true, strings.Split(*addr, ",")...), peers: map[string]map[string]any{}}
	v.SetStreamHandler(echoID, echoHandler)
	resources := relayv2.DefaultResources()
	if !*manage {
		resources.Limit = nil
		resources.MaxCircuits, resources.MaxReservations = relayCircuits, relayCircuits
		resources.MaxReservationsPerIP, resources.MaxReservationsPerASN = relayCircuits, relayCircuits
	}
	if *limit > 0 {
		resources.Limit = &relayv2.RelayLimit{Duration: limitDuration, Data: *limit}
	}
	anyAddr := func(ma.Multiaddr) bool { return true } // those of loopback too
	must(relayv2.New(v.Host, relayv2.WithResources(resources), relayv2.WithReservationAddressFilter(anyAddr)))
	v.announce(v.Addrs())
	v.obey()
}

// reserve gets h a place at the relay; the address under which that makes it known.
func reserve(h host.Host, relay string) ma.Multiaddr {
	at := must(ma.NewMultiaddr(relay))
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	must(circuit.Reserve(ctx, h, *must(peer.AddrInfoFromP2pAddr(at))))
	return at.Encapsulate(must(ma.NewMultiaddr("/p2p-circuit")))
}

// announce tells the driver where this peer listens.
func (v *server) announce(addrs []ma.Multiaddr) {
	for _, a := range addrs {
		fmt.Printf("ADDR %s/p2p/%s\n", a, v.ID())
	}
}
