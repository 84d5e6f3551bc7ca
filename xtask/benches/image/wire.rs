//! Stands before a registry and counts what is sent to it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// How many pieces are on their way at once; a child's peak memory starts from its parent's.
const UNDER_WAY: usize = 16;

/// Stands before a registry: counts the bytes that go to it, heads included, and can be as far away as a real one.
pub struct Wire {
    pub host: String,
    sent: Arc<AtomicU64>,
}

impl Wire {
    /// `away` is a round trip's time.
    pub fn to(registry: &str, away: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (host, sent) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU64::new(0)));
        let (registry, counter) = (registry.to_owned(), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (client, server) = (stream.unwrap(), TcpStream::connect(&registry).unwrap());
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (answers, counter) = (server.try_clone().unwrap(), Arc::clone(&counter));
                let back = client.try_clone().unwrap();
                // To connect takes a round trip, too, and the kernel answered at once.
                let (connected, half) = (Instant::now() + away, away / 2);
                std::thread::spawn(move || pass(client, server, connected, half, &counter));
                std::thread::spawn(move || pass(answers, back, connected, half, &AtomicU64::new(0)));
            }
        });
        Self { host, sent }
    }

    pub fn reset(&self) {
        self.sent.store(0, Ordering::SeqCst);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// What is read is written after `delay`, the next while the one before is on its way; nothing sets out before `connected`.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    connected: Instant,
    delay: Duration,
    counter: &AtomicU64,
) -> io::Result<()> {
    let (under_way, arriving) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    std::thread::spawn(move || -> io::Result<()> {
        for (due, bytes) in arriving {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            to.write_all(&bytes)?;
        }
        to.shutdown(Shutdown::Write)
    });
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        counter.fetch_add(length as u64, Ordering::SeqCst);
        let set_out = Instant::now().max(connected);
        under_way.send((set_out + delay, buffer[..length].to_vec())).map_err(io::Error::other)?;
    }
}
