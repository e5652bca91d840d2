/**
 * Reading and writing js-libp2p streams with back-pressure, and the pattern of the contract.
 *
 * Comes in: streams, which push their data as events. Goes out: bytes on request, null at EOF, an error after a reset.
 * Never holds more than about 1 MiB unread: the stream is paused, so that its window fills at the other side.
 */
import { concat } from 'uint8arrays/concat'
import { equals } from 'uint8arrays/equals'
import { check, tick } from './common.js'

const PAUSE_ABOVE_BYTES = 1 << 20
const PERIOD = 251
const WAVE = Uint8Array.from({ length: 65536 + PERIOD }, (_, i) => i % PERIOD)

/** The n bytes (at most 64 KiB) of the pattern that follow the first `from`. */
export function patterned (from, n) {
  return WAVE.subarray(from % PERIOD, from % PERIOD + n)
}

export async function write (stream, bytes) {
  tick()
  if (!stream.send(bytes)) await stream.onDrain()
}

/** Writes total patterned bytes, k at a time, and closes the write side. */
export async function writePattern (stream, from, total, k) {
  for (let done = 0; done < total; done += k) await write(stream, patterned(from + done, Math.min(k, total - done)))
  await stream.close()
}

/** Reads to EOF; how many bytes came, all of them patterned. */
export async function readPattern (reader, from) {
  let total = 0
  for (let chunk; (chunk = await reader.next()) !== null; total += chunk.length) {
    for (let at = 0; at < chunk.length; at += 65536) {
      const piece = chunk.subarray(at, at + 65536)
      check(equals(piece, patterned(from + total + at, piece.length)), `a wrong byte after byte ${total + at}`)
    }
  }
  return total
}

export class Reader {
  constructor (stream) {
    this.stream = stream
    this.chunks = []
    this.held = 0
    this.ended = stream.remoteWriteStatus === 'closed'
    this.error = null
    this.wake = () => {}
    stream.addEventListener('message', ({ data }) => { this.hold(data.subarray()) })
    stream.addEventListener('remoteCloseWrite', () => { this.finish(null) })
    stream.addEventListener('close', event => { this.finish(event.error ?? new Error('the connection closed')) })
  }

  hold (chunk) {
    this.chunks.push(chunk)
    this.held += chunk.length
    if (this.held > PAUSE_ABOVE_BYTES && this.stream.readStatus === 'readable') this.stream.pause()
    this.wake()
  }

  finish (error) {
    if (!this.ended) this.error ??= error
    this.ended = true
    this.wake()
  }

  /** The next bytes, at least one; null at EOF. */
  async next () {
    while (this.chunks.length === 0) {
      if (this.stream.readStatus === 'paused') this.stream.resume()
      if (this.chunks.length > 0) break
      if (this.error !== null) throw this.error
      if (this.ended && this.stream.readBufferLength === 0) return null
      await new Promise(resolve => { this.wake = resolve })
    }
    const chunk = this.chunks.shift()
    this.held -= chunk.length
    tick()
    return chunk
  }

  async exactly (n) {
    const parts = []
    let missing = n
    while (missing > 0) {
      const chunk = await this.next()
      check(chunk !== null, `EOF, ${missing} bytes early`)
      if (chunk.length > missing) {
        this.chunks.unshift(chunk.subarray(missing))
        this.held += chunk.length - missing
      }
      parts.push(chunk.subarray(0, missing))
      missing -= parts.at(-1).length
    }
    return parts.length === 1 ? parts[0] : concat(parts)
  }

  async rest () {
    const parts = []
    for (let chunk; (chunk = await this.next()) !== null;) parts.push(chunk)
    return concat(parts)
  }

  async count () {
    let total = 0
    for (let chunk; (chunk = await this.next()) !== null;) total += chunk.length
    return total
  }
}
