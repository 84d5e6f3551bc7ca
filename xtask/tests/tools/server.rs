//! A small HTTP server on a free loopback port, which answers as a test tells it and remembers what it was asked.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub host: String,
    /// All fields, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// As long as `Content-Length` says, or shorter if the client went away.
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether all of the body came.
    pub fn is_whole(&self) -> bool {
        let length = self.header("content-length").and_then(|length| length.parse().ok());
        self.body.len() == length.unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, headers: String::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub fn body(mut self, body: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        body.as_ref().clone_into(&mut self.body);
        self
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn content(&self) -> &[u8] {
        &self.body
    }

    /// On the wire, as the answer to the request that starts with `method`.
    pub fn bytes(&self, method: &str) -> Vec<u8> {
        let head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n{}", self.status, self.headers);
        // A 204 has no body, and may not give its length.
        let length = if self.status == 204 {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", self.body.len())
        };
        let mut bytes = format!("{head}{length}\r\n").into_bytes();
        if !method.starts_with("HEAD") {
            bytes.extend_from_slice(&self.body);
        }
        bytes
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
    let mut request =
        Request { method: words.next()?.into(), path: words.next()?.into(), ..Request::default() };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        match name.as_str() {
            "content-length" => length = value.parse().ok()?,
            "host" => request.host.clone_from(&value),
            "authorization" => request.authorization = Some(value.clone()),
            _ => {}
        }
        request.headers.push((name, value));
    }
    reader.by_ref().take(length).read_to_end(&mut request.body).ok()?;
    seen.lock().unwrap().push(request.clone());
    let answer = answer(&request);
    reader.into_inner().write_all(&answer.bytes(&request.method)).ok()
}
