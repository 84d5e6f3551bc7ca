//! A reverse proxy on a free loopback port that does harm to chosen requests. It keeps the client's `Host`, so that the
//! registry's Locations lead back through it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::server::Answer;

/// How many threads a client may have.
const THREADS: usize = 4;

/// What is done to one request.
#[derive(Clone, Debug)]
pub enum Harm {
    None,
    /// The connection ends before anything is forwarded.
    Cut,
    /// The connection ends in the middle of the request's body.
    CutUpload,
    /// The work is done, and its answer never arrives.
    LoseAnswer,
    /// The answer ends in the middle.
    CutAnswer,
    Delay(Duration),
    /// An answer in place of the work.
    Instead(Answer),
    /// The work is done, and this answer tells otherwise.
    Deny(Answer),
    /// The client is killed before anything is forwarded.
    KillBefore,
    /// The client is killed when the work is done, before it hears of it.
    KillAfter,
    /// As if the credentials had run out: forwarded without them. Not those that a client's threads only just got.
    Strip,
}

/// One request as it came, and what was done to it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// METHOD PATH
    pub line: String,
    pub harm: Harm,
    pub at: Instant,
}

type Choose = dyn Fn(usize, &str) -> Harm + Send + Sync;

pub struct Proxy {
    pub host: String,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    upstream: String,
    choose: Box<Choose>,
    count: AtomicUsize,
    honest: AtomicBool,
    stop: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    credentials: Mutex<HashMap<String, usize>>,
    victim: Arc<Victim>,
}

/// The process group that is killed with [`Harm::KillBefore`] and [`Harm::KillAfter`]: the client and all that it started.
#[derive(Default)]
pub struct Victim(Mutex<Option<Pid>>);

impl Victim {
    /// `child` leads a group of its own.
    pub fn is(&self, child: &Child) {
        *self.0.lock().unwrap() = Some(Pid::from_child(child));
    }

    /// Call it before the child is waited for, since its number may then be another's.
    pub fn is_none(&self) {
        *self.0.lock().unwrap() = None;
    }

    fn kill(&self) {
        if let Some(group) = *self.0.lock().unwrap() {
            kill_process_group(group, Signal::KILL).unwrap();
        }
    }
}

impl Proxy {
    /// `choose` is told which request it is, from 1, and its `METHOD PATH`.
    pub fn start(upstream: &str, choose: impl Fn(usize, &str) -> Harm + Send + Sync + 'static) -> Self {
        Self::start_for(&Arc::default(), upstream, choose)
    }

    /// As [`Proxy::start`], for a client that may be killed.
    pub fn start_for(
        victim: &Arc<Victim>,
        upstream: &str,
        choose: impl Fn(usize, &str) -> Harm + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            choose: Box::new(choose),
            count: AtomicUsize::new(0),
            honest: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            credentials: Mutex::default(),
            victim: Arc::clone(victim),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                std::thread::spawn(move || while shared.exchange(&stream).is_ok_and(|more| more) {});
            }
        });
        Self { host, state, thread: Some(thread) }
    }

    /// From now on nothing is harmed.
    pub fn be_honest(&self) {
        self.state.honest.store(true, Ordering::SeqCst);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
        self.thread.take().map(JoinHandle::join);
    }
}

struct Request {
    head: Vec<String>,
    body: Vec<u8>,
}

impl State {
    /// One request and its answer; whether the connection may be used again.
    fn exchange(&self, client: &TcpStream) -> io::Result<bool> {
        // What is read too far would be the next request: HTTP clients do not pipeline.
        let mut reader = BufReader::new(client);
        let head = head(&mut reader)?;
        let line = head[0].rsplit_once(' ').map_or("", |(line, _)| line).to_owned();
        let harm = if self.honest.load(Ordering::SeqCst) {
            Harm::None
        } else {
            (self.choose)(self.count.fetch_add(1, Ordering::SeqCst) + 1, &line)
        };
        self.seen.lock().unwrap().push(Seen { line: line.clone(), harm: harm.clone(), at: Instant::now() });
        if has(&head, "expect", "100-continue") {
            (&*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        // A client gets them for reading and for writing, and a password is the same for both.
        let reads = line.starts_with("GET ");
        let credentials = format!("{reads} {}", value(&head, "authorization").unwrap_or_default());
        let uses = {
            let mut uses = self.credentials.lock().unwrap();
            *uses.entry(credentials).and_modify(|uses| *uses += 1).or_insert(1)
        };
        let cut = || client.shutdown(Shutdown::Both).map(|()| false);
        if let Harm::KillBefore = harm {
            self.victim.kill();
        }
        if let Harm::Cut | Harm::KillBefore = harm {
            return cut();
        }
        let body = body(&mut reader, &head, matches!(harm, Harm::CutUpload))?;
        let request = Request { head, body };
        let answer = match &harm {
            Harm::Instead(answer) => {
                (&*client).write_all(&answer.bytes(&line))?;
                return Ok(false);
            }
            Harm::CutUpload => {
                self.upload(&request, false)?.shutdown(Shutdown::Both)?;
                return cut();
            }
            Harm::Delay(pause) => {
                std::thread::sleep(*pause);
                self.forward(&request, false)?
            }
            harm => self.forward(&request, matches!(harm, Harm::Strip) && uses > THREADS)?,
        };
        match harm {
            Harm::LoseAnswer => cut(),
            Harm::KillAfter => {
                self.victim.kill();
                cut()
            }
            Harm::CutAnswer => {
                (&*client).write_all(&answer[..answer.len() / 2])?;
                cut()
            }
            Harm::Deny(answer) => (&*client).write_all(&answer.bytes(&line)).map(|()| false),
            _ => (&*client).write_all(&answer).map(|()| true),
        }
    }

    /// The whole answer, without its `Connection: close`.
    fn forward(&self, request: &Request, stripped: bool) -> io::Result<Vec<u8>> {
        let mut upstream = self.upload(request, stripped)?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer)?;
        let close = b"Connection: close\r\n";
        if let Some(at) = answer.windows(close.len()).position(|window| window == close) {
            answer.drain(at..at + close.len());
        }
        Ok(answer)
    }

    fn upload(&self, request: &Request, stripped: bool) -> io::Result<TcpStream> {
        let mut upstream = TcpStream::connect(&self.upstream)?;
        let dropped = |line: &String| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            ["connection", "expect"].contains(&name.as_str()) || stripped && name == "authorization"
        };
        let kept: Vec<_> = request.head.iter().filter(|line| !dropped(line)).map(String::as_str).collect();
        write!(upstream, "{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))?;
        // A registry that refuses may not read on; its answer counts.
        let _ = upstream.write_all(&request.body);
        Ok(upstream)
    }
}

/// The lines up to the empty one.
fn head(reader: &mut BufReader<&TcpStream>) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" if lines.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

fn value<'a>(head: &'a [String], wanted: &str) -> Option<&'a str> {
    let mut fields = head.iter().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

fn has(head: &[String], name: &str, wanted: &str) -> bool {
    value(head, name).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
}

/// The body as it stands on the wire, chunks and all; or the half of it.
fn body(reader: &mut BufReader<&TcpStream>, head: &[String], half: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if has(head, "transfer-encoding", "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend_from_slice(line.as_bytes());
            reader.take(length + 2).read_to_end(&mut body)?;
            if length == 0 {
                break;
            }
        }
        let length = body.len();
        body.truncate(if half { length / 2 } else { length });
        return Ok(body);
    }
    let length: u64 = value(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(if half { length / 2 } else { length }).read_to_end(&mut body)?;
    Ok(body)
}

/// The arguments of all processes that there are.
pub fn arguments() -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}
