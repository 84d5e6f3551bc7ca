//! A small HTTP server on a free loopback port, which answers as a test tells it and remembers what it was asked.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub host: String,
}

#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, headers: String::new(), body: String::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    /// On the wire, as the answer to the request that starts with `method`.
    pub fn bytes(&self, method: &str) -> Vec<u8> {
        let body = if method.starts_with("HEAD") { "" } else { &self.body };
        let head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n{}", self.status, self.headers);
        format!("{head}Content-Length: {}\r\n\r\n{body}", self.body.len()).into_bytes()
    }
}

pub struct Server {
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stopped, answer) = (Arc::clone(&requests), Arc::clone(&stop), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { host, requests, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
        self.thread.take().map(JoinHandle::join);
    }
}

/// One request a connection.
fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut request = Request {
        method: words.next()?.into(),
        path: words.next()?.into(),
        authorization: None,
        host: String::new(),
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "host" => request.host = value.trim().to_owned(),
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    seen.lock().unwrap().push(request.clone());
    let answer = answer(&request);
    reader.into_inner().write_all(&answer.bytes(&request.method)).ok()
}
