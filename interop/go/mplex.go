// mplex for the Go peer: go-libp2p has dropped it, so its last module is put behind today's interfaces.
//
// Comes in: secured connections. Goes out: streams whose resets are network.ErrReset. mplex sends no codes, so none are
// shown, and those given are not sent.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	mp "github.com/libp2p/go-mplex"
)

const mplexID = "/mplex/6.7.0"

type mplexTransport struct{}

func (mplexTransport) NewConn(c net.Conn, isServer bool, _ network.PeerScope) (network.MuxedConn, error) {
	m, err := mp.NewMultiplex(c, !isServer, nil)
	if err != nil {
		return nil, err
	}
	return mplexConn{m}, nil
}

type mplexConn struct{ *mp.Multiplex }

func (c mplexConn) CloseWithError(network.ConnErrorCode) error { return c.Close() }

func (c mplexConn) As(target any) bool {
	t, ok := target.(**mp.Multiplex)
	if ok {
		*t = c.Multiplex
	}
	return ok
}

func (c mplexConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	return mplexStream{s}, nil
}

func (c mplexConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.Accept()
	if err != nil {
		return nil, err
	}
	return mplexStream{s}, nil
}

type mplexStream struct{ *mp.Stream }

func known(err error) error {
	if errors.Is(err, mp.ErrStreamReset) {
		return fmt.Errorf("%w: %w", network.ErrReset, err)
	}
	return err
}

func (s mplexStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, known(err)
}

func (s mplexStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, known(err)
}

func (s mplexStream) ResetWithError(network.StreamErrorCode) error { return s.Reset() }
