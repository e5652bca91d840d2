//! Protocols on one stream, both sides of them.
//!
//! Comes in: streams. Goes out: what the protocols of ../../README.md say. "Patterned" means that byte i is i % 251.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Stream;

use crate::node::Failure;

pub const ECHO: &str = "/echo/1.0.0";
pub const PERF: &str = "/perf/1.0.0";
pub const BLOCK_BYTES: usize = 65536;
const WRITE_BYTES: u64 = 8192;
const PERIOD: u64 = 251;

/// `size` bytes of the pattern that follow the first `from`.
fn patterned(from: u64, size: usize) -> impl Iterator<Item = u8> {
    (from..from + size as u64).map(|i| (i % PERIOD) as u8)
}

/// Writes `total` patterned bytes and ends our half.
pub async fn write_pattern<W: AsyncWrite + Unpin>(mut writer: W, total: u64) -> Result<(), Failure> {
    let mut done = 0;
    while done < total {
        let size = (total - done).min(WRITE_BYTES);
        let block: Vec<u8> = patterned(done, size as usize).collect();
        writer.write_all(&block).await?;
        done += size;
    }
    Ok(writer.close().await?)
}

/// Reads to the end; how many bytes came, every one of them right.
pub async fn read_pattern<R: AsyncRead + Unpin>(mut reader: R) -> Result<u64, Failure> {
    let (mut total, mut block) = (0, vec![0; BLOCK_BYTES]);
    loop {
        let n = reader.read(&mut block).await?;
        if n == 0 {
            return Ok(total);
        }
        if !patterned(total, n).eq(block[..n].iter().copied()) {
            return Err(format!("a wrong byte among {n} from byte {total} on").into());
        }
        total += n as u64;
    }
}

/// The client of /perf/1.0.0: `up` bytes in writes of `block`, then `down` bytes back.
pub async fn perf(mut stream: Stream, up: u64, down: u64, block: usize, progress: &AtomicU64) -> Result<(), Failure> {
    let mut buffer = vec![0; block.max(BLOCK_BYTES)];
    stream.write_all(&down.to_be_bytes()).await?;
    let mut left = up;
    while left > 0 {
        let size = left.min(block as u64);
        stream.write_all(&buffer[..size as usize]).await?;
        progress.fetch_add(1, Ordering::Relaxed);
        left -= size;
    }
    stream.close().await?;
    let mut got = 0;
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        progress.fetch_add(1, Ordering::Relaxed);
        got += n as u64;
    }
    if got != down {
        return Err(format!("got {got} bytes of {down}").into());
    }
    Ok(())
}

/// The server of /echo/1.0.0.
pub async fn serve_echo(mut stream: Stream) -> Result<(), Failure> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let n = stream.read(&mut block).await?;
        if n == 0 {
            return Ok(stream.close().await?);
        }
        stream.write_all(&block[..n]).await?;
        stream.flush().await?;
    }
}

/// The server of /perf/1.0.0.
pub async fn serve_perf(mut stream: Stream) -> Result<(), Failure> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    let mut block = vec![0; BLOCK_BYTES];
    while stream.read(&mut block).await? > 0 {}
    let mut left = u64::from_be_bytes(header);
    while left > 0 {
        let size = left.min(block.len() as u64);
        stream.write_all(&block[..size as usize]).await?;
        left -= size;
    }
    Ok(stream.close().await?)
}
