/**
 * What a node of the js peer is made of, by the options of ../README.md.
 *
 * Comes in: parsed options, where to listen. Goes out: a started node with every limit raised that js-libp2p has by
 * default (5 connections a second from one host, 10 pending, 64 streams a protocol, 2 minutes and 128 KiB at a relay).
 * Certificates of secure WebSockets are verified against the one given with -ca, as a browser would.
 */
import { readFileSync } from 'node:fs'
import nodeTls from 'node:tls'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { check, MUXER_LIMITS, UNLIMITED, YAMUX_LIMITS } from './common.js'

/** What the chosen security, muxer and private network are made of; the rarer ones are loaded only when asked for. */
async function layers ({ sec, mux, psk }) {
  const tls = async () => (await import('@libp2p/tls')).tls()
  const securities = {
    noise: async () => [noise()],
    tls: async () => [await tls()],
    both: async () => [noise(), await tls()],
    plaintext: async () => [(await import('@libp2p/plaintext')).plaintext()]
  }
  const muxers = {
    yamux: async () => yamux(YAMUX_LIMITS),
    mplex: async () => (await import('@libp2p/mplex')).mplex({ ...MUXER_LIMITS, disconnectThreshold: UNLIMITED })
  }
  check(sec in securities, `no such security: ${sec}`)
  check(mux in muxers, `no such muxer: ${mux}`)
  return {
    connectionEncrypters: await securities[sec](),
    streamMuxers: [await muxers[mux]()],
    ...(psk === '' ? {} : { connectionProtector: await privateNetwork(readFileSync(psk)) })
  }
}

/**
 * Both directions of its xsalsa20 share one WebAssembly memory. Once that has grown, each grows it anew whenever the
 * other has, until there is no more. Where WebAssembly is not to be found as it is loaded, it computes without.
 */
async function privateNetwork (psk) {
  const { WebAssembly } = globalThis
  delete globalThis.WebAssembly
  const { preSharedKey } = await import('@libp2p/pnet')
  globalThis.WebAssembly = WebAssembly
  return preSharedKey({ psk })
}

async function webSockets ({ cert, key, ca }) {
  if (ca !== '') {
    check('setDefaultCACertificates' in nodeTls, `node ${process.version} cannot be given a certificate to trust`)
    nodeTls.setDefaultCACertificates([readFileSync(ca, 'utf8')])
  }
  const https = cert === '' ? {} : { https: { cert: readFileSync(cert), key: readFileSync(key) } }
  return (await import('@libp2p/websockets')).webSockets(https)
}

/** TCP, and what the addresses ask for besides. */
async function transports (options, listen) {
  const addresses = [...listen, options.to]
  const found = [tcp()]
  if (addresses.some(text => /\/wss?\b/.test(text))) found.push(await webSockets(options))
  if (addresses.some(text => text.includes('/p2p-circuit'))) {
    const { circuitRelayTransport } = await import('@libp2p/circuit-relay-v2')
    found.push(circuitRelayTransport({ maxInboundStopStreams: UNLIMITED, maxOutboundStopStreams: UNLIMITED }))
  }
  return found
}

async function relayService (limit) {
  const { circuitRelayServer } = await import('@libp2p/circuit-relay-v2')
  return circuitRelayServer({
    reservations: { maxReservations: UNLIMITED, applyDefaultLimit: limit > 0, defaultDataLimit: BigInt(limit) },
    maxInboundHopStreams: UNLIMITED,
    maxOutboundHopStreams: UNLIMITED,
    maxOutboundStopStreams: UNLIMITED
  })
}

/**
 * @param {object} options those of the command line
 * @param {object} role `listen`: addresses; `relays`: serve as a relay; `identifies`: of its own, as soon as connected
 */
export async function makeNode (options, { listen, relays = false, identifies = relays }) {
  return createLibp2p({
    addresses: { listen },
    nodeInfo: { name: 'jspeer', version: '1', userAgent: 'jspeer/1' },
    transports: await transports(options, listen),
    ...await layers(options),
    connectionMonitor: { enabled: false },
    connectionManager: {
      maxConnections: UNLIMITED,
      maxIncomingPendingConnections: UNLIMITED,
      inboundConnectionThreshold: UNLIMITED,
      maxParallelDials: 1024,
      maxDialQueueLength: UNLIMITED
    },
    services: {
      identify: identify({ runOnConnectionOpen: identifies }),
      ...(options.bare ? {} : { identifyPush: identifyPush(), ping: ping() }),
      ...(relays ? { relay: await relayService(options.limit) } : {})
    }
  })
}
