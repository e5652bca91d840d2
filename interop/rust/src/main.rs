//! Benchmark peer on rust-libp2p: the dialing side. The contract is ../README.md; the listening side is serve.rs.
//!
//! Comes in: arguments, lines on standard input. Goes out: "ADDR" lines and JSON lines on standard output, exit 0 if
//! and only if the operation did all it should, else one line on standard error. For loopback use, and for benchmarks:
//! Noise or TLS, yamux only, no `ping`, `identify`, `streams`, `halfclose` and `reset`.

mod node;
mod serve;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, join_all, try_join, try_join_all};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Multiaddr, Stream};
use node::{Conn, Failure, Node, Security};
use serde_json::{Value, json};

const STALL: Duration = Duration::from_secs(60);
const IDLE_DIALS: usize = 32;

/// Counts whatever an operation waits for; `watch` ends the process when it stands still.
static PROGRESS: AtomicU64 = AtomicU64::new(0);

pub struct Options {
    op: String,
    to: String,
    addr: String,
    security: Security,
    bare: bool,
    n: usize,
    c: usize,
    bytes: u64,
    size: usize,
}

fn parse() -> Result<Options, Failure> {
    let mut args = std::env::args().skip(1);
    let op = args.next().ok_or("usage: listen | OP -to MULTIADDR/p2p/ID")?;
    let addr = "/ip4/127.0.0.1/tcp/0".to_string();
    let (to, security) = (String::new(), Security::Noise);
    let mut o = Options { op, to, addr, security, bare: false, n: 1000, c: 1, bytes: 1 << 30, size: 32 };
    while let Some(flag) = args.next() {
        if flag == "-bare" {
            o.bare = true;
            continue;
        }
        let value = args.next().ok_or(format!("no value for {flag}"))?;
        match flag.as_str() {
            "-to" => o.to = value,
            "-addr" => o.addr = value,
            "-n" => o.n = value.parse()?,
            "-c" => o.c = value.parse()?,
            "-bytes" => o.bytes = value.parse()?,
            "-size" => o.size = value.parse()?,
            "-sec" if value == "noise" => o.security = Security::Noise,
            "-sec" if value == "tls" => o.security = Security::Tls,
            "-mux" if value == "yamux" => {}
            _ => return Err(format!("no such choice: {flag} {value}").into()),
        }
    }
    Ok(o)
}

pub fn cpu_s() -> f64 {
    // SAFETY: getrusage fills the struct it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn out(line: Value) {
    println!("{line}");
}

async fn watch() {
    let mut last = u64::MAX;
    loop {
        let now = PROGRESS.load(Ordering::Relaxed);
        if now == last {
            fail(format!("nothing happened for {} s", STALL.as_secs()).into());
        }
        last = now;
        tokio::time::sleep(STALL).await;
    }
}

fn fail(error: Failure) -> ! {
    eprintln!("ERROR {error}");
    std::process::exit(1)
}

/// n operations by c workers; reports rate and latency.
async fn parallel<F>(o: &Options, once: F) -> Result<(), Failure>
where
    F: Fn(usize) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
{
    let (once, left) = (Arc::new(once), Arc::new(AtomicI64::new(o.n as i64)));
    let (cpu, began) = (cpu_s(), Instant::now());
    let workers = (0..o.c).map(|worker| {
        let (once, left) = (once.clone(), left.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                let began = Instant::now();
                once(worker).await?;
                took.push(began.elapsed().as_secs_f64() * 1e6);
                PROGRESS.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(took)
        })
    });
    let mut took = Vec::new();
    for done in join_all(workers).await {
        took.append(&mut done??);
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_s() - cpu);
    took.sort_by(f64::total_cmp);
    let n = took.len();
    out(json!({"op": o.op, "n": n, "c": o.c, "per_s": n as f64 / seconds, "cpu_us_per": cpu / n as f64 * 1e6,
        "p50_us": took[n / 2], "p99_us": took[n * 99 / 100]}));
    Ok(())
}

/// Writes a message and reads as much back.
async fn there_and_back(stream: &mut Stream, message: &[u8], back: &mut [u8]) -> Result<(), Failure> {
    stream.write_all(message).await?;
    stream.flush().await?;
    Ok(stream.read_exact(back).await?)
}

async fn stream(o: &Options, conn: Conn) -> Result<(), Failure> {
    let size = o.size;
    parallel(o, move |_| {
        let conn = conn.clone();
        async move {
            let mut stream = conn.open(streams::ECHO).await?;
            there_and_back(&mut stream, &vec![0; size], &mut vec![0; size]).await?;
            Ok(stream.close().await?)
        }
        .boxed()
    })
    .await
}

async fn pingpong(o: &Options, conn: Conn) -> Result<(), Failure> {
    let size = o.size;
    let open = try_join_all((0..o.c).map(|_| conn.open(streams::ECHO))).await?;
    let open: Vec<_> = open.into_iter().map(|stream| Arc::new(tokio::sync::Mutex::new(stream))).collect();
    parallel(o, move |worker| {
        let stream = open[worker].clone();
        async move { there_and_back(&mut *stream.lock().await, &vec![0; size], &mut vec![0; size]).await }.boxed()
    })
    .await
}

async fn echo(o: &Options, conn: Conn) -> Result<(), Failure> {
    let (reader, writer) = conn.open(streams::ECHO).await?.split();
    let (_, got) = try_join(streams::write_pattern(writer, o.bytes), streams::read_pattern(reader)).await?;
    if got != o.bytes {
        return Err(format!("got {got} bytes of {} back", o.bytes).into());
    }
    out(json!({"op": "echo", "ok": true, "bytes": got}));
    Ok(())
}

async fn perf(o: &Options, conn: Conn) -> Result<(), Failure> {
    let (up, down) = if o.op == "down" { (0, o.bytes) } else { (o.bytes, 0) };
    let block = if o.op == "small" { o.size } else { streams::BLOCK_BYTES };
    let stream = conn.open(streams::PERF).await?;
    let (cpu, began) = (cpu_s(), Instant::now());
    streams::perf(stream, up, down, block, &PROGRESS).await?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = o.bytes as f64 / seconds / 1e6;
    out(json!({"op": o.op, "MB_s": rate, "seconds": seconds, "cpu_s": cpu_s() - cpu}));
    Ok(())
}

async fn conn(o: &Options, node: Node, to: Multiaddr) -> Result<(), Failure> {
    parallel(o, move |_| {
        let (node, to) = (node.clone(), to.clone());
        async move {
            let conn = node.dial(&to).await?;
            node.close(conn.id).await
        }
        .boxed()
    })
    .await
}

async fn idle(o: &Options, node: Node, to: Multiaddr) -> Result<(), Failure> {
    let left = AtomicI64::new(o.n as i64);
    let dials = (0..IDLE_DIALS).map(|_| async {
        while left.fetch_sub(1, Ordering::Relaxed) > 0 {
            node.dial(&to).await?;
        }
        Ok::<_, Failure>(())
    });
    try_join_all(dials).await?;
    println!("HELD {}", o.n);
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

async fn run(o: Options) -> Result<(), Failure> {
    if o.op == "listen" {
        return serve::listen(&o).await;
    }
    let to: Multiaddr = o.to.parse()?;
    let node = Node::new(o.security, o.bare, None).await?;
    match o.op.as_str() {
        "idle" => return idle(&o, node, to).await,
        "conn" => {
            tokio::spawn(watch());
            return conn(&o, node, to).await;
        }
        _ => {}
    }
    tokio::spawn(watch());
    let began = Instant::now();
    let conn = node.dial(&to).await?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let security = match o.security {
        Security::Noise => "/noise",
        Security::Tls => "/tls/1.0.0",
    };
    out(json!({"op": "connect", "ms": ms, "security": security, "muxer": "/yamux/1.0.0", "early": null}));
    match o.op.as_str() {
        "up" | "down" | "small" => perf(&o, conn).await,
        "stream" => stream(&o, conn).await,
        "pingpong" => pingpong(&o, conn).await,
        "echo" => echo(&o, conn).await,
        op => Err(format!("no such operation: {op}").into()),
    }
}

#[tokio::main]
async fn main() {
    let done = match parse() {
        Ok(options) => run(options).await,
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        fail(error);
    }
    std::process::exit(0);
}
