// What a host of the Go peer is made of, by the options of ../README.md.
//
// Comes in: the command line, files with a network key and with certificates. Goes out: a host with every limit raised, or
// with -managed those of go-libp2p.
// Certificates of secure WebSockets are verified against the one given with -ca, as a browser would.
package main

import (
	ctls "crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/insecure"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

var (
	addr   = flag.String("addr", "/ip4/127.0.0.1/tcp/0", "where to listen, separated by commas")
	sec    = flag.String("sec", "noise", "noise|tls|plaintext|both")
	mux    = flag.String("mux", "yamux", "yamux|mplex")
	bare   = flag.Bool("bare", false, "serve echo and perf only (identify cannot be left out)")
	psk    = flag.String("psk", "", "file with a private network key")
	share  = flag.Bool("share", false, "one port for TCP and WebSocket")
	manage = flag.Bool("managed", false, "keep go-libp2p's default limits")
	cert   = flag.String("cert", "", "file with the certificate of secure WebSocket listeners")
	key    = flag.String("key", "", "file with its private key")
	ca     = flag.String("ca", "", "file with the certificate that secure WebSocket dialers trust")
	via    = flag.String("relay", "", "MULTIADDR/p2p/ID of a relay to listen through, and nowhere else")
	limit  = flag.Int64("limit", 0, "bytes a relay passes on each way; 0 for all")
	to     = flag.String("to", "", "MULTIADDR/p2p/ID to dial")
	number = flag.Int("n", 1000, "how many")
	atOnce = flag.Int("c", 0, "how many at a time (1; streams 1000)")
	amount = flag.Int64("bytes", 1<<30, "bytes to move")
	size   = flag.Int("size", 0, "bytes of a message (32; streams 1024)")
)

// backlog of streams that are not yet accepted: 256 by default, and those above it are reset.
const backlog = 1 << 16

// newHost listens on addrs; as a relay's client too if it is to be reached by one, or reaches for one.
func newHost(relays bool, addrs ...string) host.Host {
	opts := []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(ws.New, webSocketOptions()...),
		libp2p.DisableMetrics(), libp2p.UserAgent("gopeer/1"), libp2p.ProtocolVersion("ipfs/0.1.0"), libp2p.Ping(!*bare),
	}
	if !*manage {
		opts = append(opts, libp2p.ResourceManager(&network.NullResourceManager{}),
			libp2p.ConnectionManager(connmgr.NullConnMgr{}))
	}
	opts = append(append(opts, muxerOption()), securityOptions()...)
	if relays || *via != "" || strings.Contains(*to, "/p2p-circuit") {
		opts = append(opts, libp2p.EnableRelay())
	} else {
		opts = append(opts, libp2p.DisableRelay())
	}
	if *share {
		opts = append(opts, libp2p.ShareTCPListener())
	}
	if *psk != "" {
		opts = append(opts, libp2p.PrivateNetwork(must(pnet.DecodeV1PSK(must(os.Open(*psk))))))
	}
	if len(addrs) == 0 {
		opts = append(opts, libp2p.NoListenAddrs)
	} else {
		opts = append(opts, libp2p.ListenAddrStrings(addrs...))
	}
	return must(libp2p.New(opts...))
}

func muxerOption() libp2p.Option {
	switch *mux {
	case "yamux":
		unlimited := *yamux.DefaultTransport
		if !*manage {
			unlimited.AcceptBacklog = backlog
		}
		return libp2p.Muxer(yamux.ID, &unlimited)
	case "mplex":
		return libp2p.Muxer(mplexID, mplexTransport{})
	}
	fail(fmt.Errorf("no such muxer: %s", *mux))
	return nil
}

func securityOptions() []libp2p.Option {
	switch *sec {
	case "plaintext":
		return []libp2p.Option{libp2p.Security(insecure.ID, insecure.NewWithIdentity)}
	case "noise":
		return []libp2p.Option{libp2p.Security(noise.ID, noise.New)}
	case "tls":
		return []libp2p.Option{libp2p.Security(tls.ID, tls.New)}
	case "both":
		return []libp2p.Option{libp2p.Security(noise.ID, noise.New), libp2p.Security(tls.ID, tls.New)}
	}
	fail(fmt.Errorf("no such security: %s", *sec))
	return nil
}

// webSocketOptions are those of ws.New, which libp2p.Transport takes as anything.
func webSocketOptions() (opts []any) {
	if *cert != "" {
		pair := must(ctls.LoadX509KeyPair(*cert, *key))
		opts = append(opts, ws.WithTLSConfig(&ctls.Config{Certificates: []ctls.Certificate{pair}}))
	}
	if *ca != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(must(os.ReadFile(*ca))) {
			fail(errors.New("no certificate in " + *ca))
		}
		opts = append(opts, ws.WithTLSClientConfig(&ctls.Config{RootCAs: roots}))
	}
	return opts
}
