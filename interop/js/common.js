/**
 * What every part of the js peer shares: names of protocols, claims, lines, the count of progress.
 *
 * Comes in: nothing. Goes out: constants and small functions; no state but the count.
 */
export const ECHO = '/echo/1.0.0'
export const PERF = '/perf/1.0.0'
export const HALFCLOSE = '/interop/halfclose/1.0.0'
export const RESET = '/interop/reset/1.0.0'
export const STAT = '/interop/stat/1.0.0'

/** What a halfclose server says first, and what is asked of perf before that. */
export const GREETING_BYTES = 65536

export const UNLIMITED = 1 << 20

/** For `newStream` and `handle`: 64 streams of a protocol are the default. */
export const STREAM_LIMITS = { maxInboundStreams: UNLIMITED, maxOutboundStreams: UNLIMITED, runOnLimitedConnection: true }

export const MUXER_LIMITS = {
  maxInboundStreams: UNLIMITED,
  maxOutboundStreams: UNLIMITED,
  // More than the largest window (16 MiB): with the default of 4 MiB a paused stream is reset, not held back.
  streamOptions: { maxReadBufferLength: 32 << 20 }
}
export const YAMUX_LIMITS = { ...MUXER_LIMITS, maxEarlyStreams: UNLIMITED }

let ticks = 0

/** Whatever an operation waits for calls this. */
export function tick () {
  ticks++
}

export function ticked () {
  return ticks
}

export function check (claim, otherwise) {
  if (!claim) throw new Error(otherwise)
}

/** One line of JSON. */
export function line (object) {
  return `${JSON.stringify(object)}\n`
}

/** User and system seconds of this process so far. */
export function cpu () {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

const texts = addrs => addrs.map(addr => addr.toString().replace(/\/p2p\/[^/]+$/, ''))

/** The object of the contract for one result of identify. */
export function identified ({ connection, ...said }) {
  return {
    peer_id: connection.remotePeer.toString(),
    public_key: said.publicKey == null ? null : Buffer.from(said.publicKey).toString('hex'),
    protocol_version: said.protocolVersion ?? null,
    agent: said.agentVersion ?? null,
    protocols: [...said.protocols].sort(),
    addrs: texts(said.listenAddrs),
    observed: said.observedAddr?.toString() ?? null,
    record_addrs: said.signedPeerRecord == null ? null : texts(said.signedPeerRecord.addresses)
  }
}
