/**
 * js-libp2p in a browser: one operation of ../README.md, asked for by ../browser/peer.py, which serves this page.
 *
 * Comes in: the query of the page's address. Goes out: each JSON line of the contract as a request to /report, or an
 * object with `error`. Dials what browsers refuse by default: insecure WebSockets, and addresses of loopback.
 */
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { check, ECHO, STREAM_LIMITS, YAMUX_LIMITS } from './common.js'
import { Reader, readPattern, writePattern } from './streams.js'

const WRITE_BYTES = 8192

async function report (object) {
  await fetch('/report', { method: 'POST', body: JSON.stringify(object) })
}

async function connect (node, to) {
  const start = performance.now()
  const connection = await node.dial(multiaddr(to))
  const { encryption, multiplexer } = connection
  await report({ op: 'connect', ms: performance.now() - start, security: encryption, muxer: multiplexer, early: null })
  return connection
}

async function echo (connection, bytes) {
  const stream = await connection.newStream(ECHO, STREAM_LIMITS)
  const [got] = await Promise.all([readPattern(new Reader(stream), 0), writePattern(stream, 0, bytes, WRITE_BYTES)])
  check(got === bytes, `got ${got} bytes of ${bytes} back`)
  await report({ op: 'echo', ok: true, bytes: got })
}

async function pings (node, connection, n) {
  for (let i = 0; i < n; i++) {
    await report({ op: 'ping', rtt_us: await node.services.ping.ping(connection.remotePeer) * 1e3 })
  }
}

async function main ({ op, to, bytes, n }) {
  const node = await createLibp2p({
    transports: [webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux(YAMUX_LIMITS)],
    connectionGater: { denyDialMultiaddr: () => false },
    services: { ping: ping() }
  })
  const connection = await connect(node, to)
  const operations = { echo: () => echo(connection, Number(bytes)), ping: () => pings(node, connection, Number(n)) }
  check(op in operations, `no such operation in a browser: ${op}`)
  await operations[op]()
  await report({ done: true })
}

main(Object.fromEntries(new URLSearchParams(location.search)))
  // A WebSocket that fails to open gives its event instead of an error.
  .catch(error => report({ error: error instanceof Event ? `WebSocket: ${error.type}` : String(error?.message ?? error) }))
