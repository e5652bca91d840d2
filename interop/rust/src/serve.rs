//! The listening side: what `listen` says, and what it answers on standard input.
//!
//! Comes in: the lines stat, gc and quit. Goes out: their answers. Ends when standard input ends.

use std::io::BufRead;

use serde_json::{Value, json};

use crate::node::{Failure, Node};
use crate::{Options, cpu_s};

fn rss() -> Result<u64, Failure> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).ok_or("no memory in statm")?.parse()?;
    // SAFETY: sysconf only reads.
    Ok(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

fn release_memory() {
    // SAFETY: malloc_trim may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn stat(node: &Node, runtime: &tokio::runtime::Handle) -> Result<Value, Failure> {
    let tasks = runtime.metrics().num_alive_tasks();
    Ok(json!({"rss": rss()?, "cpu": cpu_s(), "conns": node.conns(), "tasks": tasks, "halfclosed": 0,
        "halfclosed_bad": 0, "resets": 0, "resets_bad": 0, "reset_code": null}))
}

fn answer(node: &Node, runtime: &tokio::runtime::Handle) -> Result<(), Failure> {
    for order in std::io::stdin().lock().lines() {
        match order?.as_str() {
            "gc" => release_memory(),
            "stat" => {}
            "quit" => return Ok(()),
            _ => continue,
        }
        println!("{}", stat(node, runtime)?);
    }
    Ok(())
}

pub async fn listen(o: &Options) -> Result<(), Failure> {
    let node = Node::new(o.security, o.bare, Some(&o.addr)).await?;
    for addr in node.addrs() {
        println!("ADDR {addr}");
    }
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || answer(&node, &runtime)).await?
}
