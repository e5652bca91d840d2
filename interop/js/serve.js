/**
 * The listening side of the js peer: what `listen` serves and what it answers on standard input.
 *
 * Comes in: streams of the protocols in ../README.md, the lines stat, gc and quit. Goes out: their answers. Keeps what
 * identify told about each open connection, so that the dialer can ask how this side saw it (not with -bare).
 */
import { createInterface } from 'node:readline'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { cpu, ECHO, GREETING_BYTES, HALFCLOSE, identified, line, PERF, RESET, STAT, STREAM_LIMITS } from './common.js'
import { Reader, readPattern, write, writePattern } from './streams.js'

const ZEROS = new Uint8Array(65536)

async function echo (stream, reader) {
  for (let chunk; (chunk = await reader.next()) !== null;) await write(stream, chunk)
  await stream.close()
}

async function perf (stream, reader) {
  const header = Buffer.from(await reader.exactly(8))
  await reader.count()
  for (let left = header.readBigUInt64BE(); left > 0n; left -= BigInt(ZEROS.length)) {
    await write(stream, left < ZEROS.length ? ZEROS.subarray(0, Number(left)) : ZEROS)
  }
  await stream.close()
}

/** Counts what it saw; the counters are those of `stat`. */
class Server {
  constructor (node) {
    this.node = node
    this.counters = { halfclosed: 0, halfclosed_bad: 0, resets: 0, resets_bad: 0, reset_code: null }
    this.peers = new Map()
  }

  follow () {
    this.node.addEventListener('peer:identify', ({ detail }) => {
      if (detail.connection.status === 'open') this.peers.set(detail.connection.id, identified(detail))
    })
    this.node.addEventListener('connection:close', ({ detail }) => { this.peers.delete(detail.id) })
  }

  stat () {
    return { rss: process.memoryUsage.rss(), cpu: cpu(), conns: this.node.getConnections().length, tasks: 0, ...this.counters }
  }

  async halfclose (stream, reader) {
    try {
      await writePattern(stream, 0, GREETING_BYTES, GREETING_BYTES)
      await readPattern(reader, 0)
      this.counters.halfclosed++
    } catch {
      this.counters.halfclosed_bad++
    }
  }

  async reset (stream, reader) {
    const [mode] = await reader.exactly(5)
    if (mode === 's'.charCodeAt(0)) return stream.abort(new Error('as asked'))
    await write(stream, Buffer.from('r'))
    const isReset = await reader.next().then(() => false, () => stream.status === 'reset')
    this.counters[isReset ? 'resets' : 'resets_bad']++
    if (!isReset) await stream.close()
  }

  async answer (stream, reader, connection) {
    await write(stream, Buffer.from(line({ ...this.stat(), peer: this.peers.get(connection.id) ?? null })))
    await stream.close()
  }

  /** A handler that fails resets its stream, nothing else. */
  handle (protocol, serve) {
    return this.node.handle(protocol, async (stream, connection) => {
      try {
        await serve(stream, new Reader(stream), connection)
      } catch (error) {
        process.stderr.write(`${protocol}: ${error.stack}\n`)
        stream.abort(error)
      }
    }, STREAM_LIMITS)
  }
}

function collect () {
  setFlagsFromString('--expose_gc')
  runInNewContext('gc')()
}

export async function listen (node, bare) {
  const server = new Server(node)
  await server.handle(ECHO, echo)
  await server.handle(PERF, perf)
  if (!bare) {
    server.follow()
    await server.handle(HALFCLOSE, (...args) => server.halfclose(...args))
    await server.handle(RESET, (...args) => server.reset(...args))
    await server.handle(STAT, (...args) => server.answer(...args))
  }
  await obey(node, server)
}

/** Says where the node listens, and answers the lines of standard input until it ends, or one says quit. */
export async function obey (node, server = new Server(node)) {
  for (const addr of node.getMultiaddrs()) process.stdout.write(`ADDR ${addr}\n`)
  for await (const order of createInterface({ input: process.stdin })) {
    if (order === 'quit') return
    if (order === 'gc') collect()
    if (order === 'gc' || order === 'stat') process.stdout.write(line(server.stat()))
  }
}
