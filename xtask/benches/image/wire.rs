//! Stands before a registry and counts what is sent to it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stands before a registry and counts the bytes that go to it, heads included. Never in a timed run.
pub struct Wire {
    pub host: String,
    sent: Arc<AtomicU64>,
}

impl Wire {
    pub fn to(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (host, sent) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU64::new(0)));
        let (registry, counter) = (registry.to_owned(), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (client, server) = (stream.unwrap(), TcpStream::connect(&registry).unwrap());
                let (answers, counter) = (server.try_clone().unwrap(), Arc::clone(&counter));
                let back = client.try_clone().unwrap();
                std::thread::spawn(move || pass(client, server, &counter));
                std::thread::spawn(move || pass(answers, back, &AtomicU64::new(0)));
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

fn pass(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        counter.fetch_add(length as u64, Ordering::SeqCst);
        to.write_all(&buffer[..length])?;
    }
}
