/**
 * Interop and benchmark peer on js-libp2p: the contract is ../README.md; the listening side is serve.js, what a node is
 * made of node.js.
 *
 * Comes in: arguments, lines on standard input. Goes out: "ADDR" lines and JSON lines on standard output, exit 0 if and
 * only if the operation did all it should, else one line on standard error. Limits nothing, so it is for loopback use.
 */
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { multiaddr } from '@multiformats/multiaddr'
import { check, cpu, ECHO, GREETING_BYTES, HALFCLOSE, identified, line, PERF, RESET, STAT, STREAM_LIMITS, tick, ticked } from './common.js'
import { makeNode } from './node.js'
import { listen, obey } from './serve.js'
import { patterned, Reader, readPattern, write, writePattern } from './streams.js'

const BLOCK_BYTES = 65536
const STALL_TIMEOUT_MS = 60_000
const ASK_TIMEOUT_MS = 10_000
const OUR_CODE = 66
const ITS_CODE = 77

const BOOLEANS = ['bare', 'share']
const DEFAULTS = {
  addr: '/ip4/127.0.0.1/tcp/0',
  sec: 'noise',
  mux: 'yamux',
  psk: '',
  cert: '',
  key: '',
  ca: '',
  relay: '',
  limit: '0',
  to: '',
  n: '1000',
  c: '',
  bytes: String(2 ** 30),
  size: ''
}

/** Single-dash options, as the contract has them. */
function parse (argv) {
  const options = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, { type: 'string', default: value }]))
  for (const name of BOOLEANS) options[name] = { type: 'boolean', default: false }
  const args = argv.map(arg => /^-[a-z]+$/.test(arg) ? `-${arg}` : arg)
  const { values } = parseArgs({ args, options })
  const number = (text, otherwise) => {
    const value = text === '' ? otherwise : Number(text)
    check(Number.isSafeInteger(value) && value >= 0, `not a number: ${text}`)
    return value
  }
  return {
    ...values,
    n: number(values.n),
    bytes: number(values.bytes),
    limit: number(values.limit),
    c: otherwise => number(values.c, otherwise),
    size: otherwise => number(values.size, otherwise)
  }
}

function out (object) {
  process.stdout.write(line(object))
}

function watch () {
  let last = ticked()
  setInterval(() => {
    check(ticked() !== last, `nothing happened for ${STALL_TIMEOUT_MS / 1000} s`)
    last = ticked()
  }, STALL_TIMEOUT_MS).unref()
}

/** n operations by c workers: rate and latency. */
async function parallel (op, n, c, one) {
  const took = []
  let left = n
  const worker = async index => {
    while (left-- > 0) {
      const start = performance.now()
      await one(index)
      took.push((performance.now() - start) * 1e3)
      tick()
    }
  }
  const [start, cpu0] = [performance.now(), cpu()]
  await Promise.all(Array.from({ length: c }, (_, index) => worker(index)))
  const seconds = (performance.now() - start) / 1e3
  took.sort((a, b) => a - b)
  out({ op, n, c, per_s: n / seconds, p50_us: took[Math.floor(n / 2)], p99_us: took[Math.floor(n * 0.99)], cpu_us_per: (cpu() - cpu0) / n * 1e6 })
}

/** One connection to the peer, and the operations on it. */
class Client {
  constructor (node, target, options) {
    Object.assign(this, { node, target, options })
  }

  async connect () {
    const start = performance.now()
    this.connection = await this.dial()
    const { encryption, multiplexer } = this.connection
    out({ op: 'connect', ms: performance.now() - start, security: encryption, muxer: multiplexer, early: null })
  }

  /** By the transport: the node itself would let dials to one peer that overlap share a connection. */
  dial () {
    return this.node.components.transportManager.dial(this.target, { signal: AbortSignal.timeout(STALL_TIMEOUT_MS) })
  }

  async open (protocol) {
    const stream = await this.connection.newStream(protocol, STREAM_LIMITS)
    return [stream, new Reader(stream)]
  }

  async stat () {
    const [stream, reader] = await this.open(STAT)
    const text = Buffer.from(await reader.rest()).toString()
    await stream.close()
    return JSON.parse(text)
  }

  async ask (what, enough) {
    for (const end = performance.now() + ASK_TIMEOUT_MS; ;) {
      const answer = await this.stat()
      if (enough(answer)) return answer
      check(performance.now() < end, `${what}: the other side still says ${JSON.stringify(answer)}`)
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  }

  async perf (up, down, block) {
    const [stream, reader] = await this.open(PERF)
    const header = Buffer.alloc(8)
    header.writeBigUInt64BE(BigInt(down))
    await write(stream, header)
    const bytes = new Uint8Array(block)
    for (; up > 0; up -= block) await write(stream, up < block ? bytes.subarray(0, up) : bytes)
    await stream.close()
    const got = await reader.count()
    check(got === down, `got ${got} bytes of ${down}`)
  }

  async measurePerf (op, block) {
    const { bytes } = this.options
    const [start, cpu0] = [performance.now(), cpu()]
    await this.perf(op === 'down' ? 0 : bytes, op === 'down' ? bytes : 0, block)
    const seconds = (performance.now() - start) / 1e3
    out({ op, MB_s: bytes / seconds / 1e6, seconds, cpu_s: cpu() - cpu0 })
  }

  async echo () {
    const { bytes } = this.options
    const [stream, reader] = await this.open(ECHO)
    const [got] = await Promise.all([readPattern(reader, 0), writePattern(stream, 0, bytes, 8192)])
    check(got === bytes, `got ${got} bytes of ${bytes} back`)
    out({ op: 'echo', ok: true, bytes: got })
  }

  async streams (c, size) {
    const start = performance.now()
    let arrived = 0
    const allArrived = Promise.withResolvers()
    const one = async k => {
      const [stream, reader] = await this.open(ECHO)
      const [back] = await Promise.all([reader.exactly(size), write(stream, patterned(k, size))])
      check(Buffer.compare(back, patterned(k, size)) === 0, `stream ${k}: wrong bytes`)
      if (++arrived === c) allArrived.resolve()
      await allArrived.promise
      const [rest] = await Promise.all([readPattern(reader, k + size), writePattern(stream, k + size, size, size)])
      check(rest === size, `stream ${k}: ${rest} bytes of ${size}`)
    }
    await Promise.all(Array.from({ length: c }, (_, k) => one(k)))
    out({ op: 'streams', ok: true, c, size, seconds: (performance.now() - start) / 1e3 })
  }

  async halfclose () {
    const before = await this.stat()
    await this.perf(GREETING_BYTES, GREETING_BYTES, BLOCK_BYTES)
    const [stream, reader] = await this.open(HALFCLOSE)
    const got = await readPattern(reader, 0)
    check(got === GREETING_BYTES, `got ${got} bytes of ${GREETING_BYTES} before the other side's half close`)
    await writePattern(stream, 0, this.options.bytes, 8192)
    const after = await this.ask('halfclose', m => m.halfclosed !== before.halfclosed || m.halfclosed_bad !== before.halfclosed_bad)
    check(after.halfclosed_bad === before.halfclosed_bad, 'the other side got wrong bytes after its half close')
    out({ op: 'halfclose', ok: true, bytes: this.options.bytes })
  }

  async startReset (mode, code) {
    const [stream, reader] = await this.open(RESET)
    const order = Buffer.alloc(5)
    order.write(mode)
    order.writeUInt32BE(code, 1)
    await write(stream, order)
    return [stream, reader]
  }

  async reset () {
    const before = await this.stat()
    const [stream, reader] = await this.startReset('c', OUR_CODE)
    await reader.exactly(1)
    stream.abort(new Error('as agreed'))
    const after = await this.ask('reset', m => m.resets !== before.resets || m.resets_bad !== before.resets_bad)
    check(after.resets_bad === before.resets_bad, 'the other side did not see the reset as one')
    const [other, waiting] = await this.startReset('s', ITS_CODE)
    const error = await waiting.next().then(() => null, error => error)
    check(error !== null && other.status === 'reset', `expected a reset by the other side, got: ${error ?? 'EOF'}`)
    out({ op: 'reset', ok: true, remote_code: after.reset_code, code: null })
  }

  async ping () {
    for (let i = 0; i < this.options.n; i++) {
      const start = performance.now()
      await this.node.services.ping.ping(this.connection.remotePeer)
      tick()
      out({ op: 'ping', rtt_us: (performance.now() - start) * 1e3 })
    }
  }

  async identify () {
    const mine = identified(await this.node.services.identify.identify(this.connection))
    const { peer } = await this.ask('identify', m => m.peer !== null)
    out({ ...mine, op: 'identify', remote: peer })
  }

  async stream (size) {
    const message = new Uint8Array(size)
    await parallel('stream', this.options.n, this.options.c(1), async () => {
      const [stream, reader] = await this.open(ECHO)
      await write(stream, message)
      await reader.exactly(size)
      await stream.close()
    })
  }

  async pingpong (size) {
    const c = this.options.c(1)
    const open = await Promise.all(Array.from({ length: c }, () => this.open(ECHO)))
    const message = new Uint8Array(size)
    await parallel('pingpong', this.options.n, c, async index => {
      await write(open[index][0], message)
      await open[index][1].exactly(size)
    })
  }

  async conn () {
    await parallel('conn', this.options.n, this.options.c(1), async () => { await (await this.dial()).close() })
  }

  async idle () {
    const held = []
    for (let i = 0; i < this.options.n; i++) held.push(await this.dial())
    process.stdout.write(`HELD ${held.length}\n`)
    await new Promise(resolve => createInterface({ input: process.stdin }).once('line', resolve).once('close', resolve))
  }

  /** `op`: one operation, or several separated by commas, one after another on one connection. */
  async run (op) {
    const { c, size } = this.options
    const alone = { conn: () => this.conn(), idle: () => this.idle() }
    const connected = {
      ping: () => this.ping(),
      identify: () => this.identify(),
      echo: () => this.echo(),
      up: op => this.measurePerf(op, BLOCK_BYTES),
      down: op => this.measurePerf(op, BLOCK_BYTES),
      small: op => this.measurePerf(op, size(32)),
      streams: () => this.streams(c(1000), size(1024)),
      halfclose: () => this.halfclose(),
      reset: () => this.reset(),
      stream: () => this.stream(size(32)),
      pingpong: () => this.pingpong(size(32))
    }
    const ops = op.split(',')
    const unknown = ops.filter(op => !(op in connected))
    check(op in alone || unknown.length === 0, `no such operation: ${unknown}`)
    if (op !== 'idle') watch()
    if (op in alone) return alone[op]()
    await this.connect()
    for (const op of ops) await connected[op](op)
  }
}

async function main ([op, ...argv]) {
  const options = parse(argv)
  if (op === 'version') return out({ op, node: process.version })
  check(!options.share, 'js-libp2p cannot serve TCP and WebSocket on one port')
  const addresses = options.addr.split(',')
  if (op === 'relay') return obey(await makeNode(options, { listen: addresses, relays: true }))
  if (op === 'listen') {
    const at = options.relay === '' ? addresses : [`${options.relay}/p2p-circuit`]
    return listen(await makeNode(options, { listen: at, identifies: true }), options.bare)
  }
  check(options.to !== '', 'usage: listen | relay | OP -to MULTIADDR/p2p/ID')
  const node = await makeNode(options, { listen: op.split(',').includes('identify') ? addresses : [] })
  await new Client(node, multiaddr(options.to), options).run(op)
}

function fail (error) {
  process.stderr.write(`ERROR ${String(error?.message ?? error).replaceAll('\n', ' ')}\n`, () => process.exit(1))
}

process.on('uncaughtException', fail)
process.on('unhandledRejection', fail)
main(process.argv.slice(2)).then(() => process.exit(0), fail)
