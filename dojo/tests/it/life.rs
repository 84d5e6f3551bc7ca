//! Starting and stopping: a request that was begun is finished, and then the log is in the file.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::dojo::{Ran, Service, TOKEN, Volume};

#[test]
fn sigterm_lets_a_begun_request_end_while_the_service_is_unready() {
    let volume = Volume::new();
    let service = volume.serve();
    let (mut slow, rest) = half_a_post(&service);
    service.signal(Signal::TERM);
    await_unready(&service);
    service.get("/readyz").is_problem(503, "stopping");
    let refused = service.post("/v1/accounts", &json!({"name": "Late"}));
    refused.is_problem(503, "stopping");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["connection"], "close");
    assert_eq!(service.get("/healthz").status, 200);

    slow.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(service.wait().code(), Some(0));
    assert!(!volume.path("ledger.duckdb.wal").exists(), "the log was not taken into the file");
    volume.run(&["check"]).refused(0, &["sequence 1, 1 accounts"]);
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_service() {
    let volume = Volume::new();
    let service = volume.serve();
    let (_slow, _) = half_a_post(&service);
    service.signal(Signal::INT);
    let begun = std::time::Instant::now();
    assert_eq!(service.wait().code(), Some(0));
    assert!((9..20).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[test]
fn an_idle_connection_does_not_keep_the_service() {
    let volume = Volume::new();
    let service = volume.serve();
    let _idle = TcpStream::connect(service.address).unwrap();
    assert_eq!(service.get("/healthz").status, 200);
    let begun = std::time::Instant::now();
    assert_eq!(service.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn in_dev_the_first_start_makes_the_ledger() {
    let volume = Volume::fresh();
    let mut command = volume.command(&["serve"]);
    command.env("DOJO_ENV", "dev");
    let service = Service::start(command);
    assert_eq!(service.sequence(), 0);
    assert_eq!(service.stop(), Some(0));
    assert_eq!(volume.names("."), ["ledger.duckdb", "ledger.lock", "tokens"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let volume = Volume::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = Ran::of(volume.command(&["serve"]).env("DOJO_LISTEN", &address));
    ran.refused(1, &["cannot listen on", &address]);
}

/// A request whose body is not complete yet, and what is missing.
fn half_a_post(service: &Service) -> (TcpStream, String) {
    let body = json!({"name": "Slow"}).to_string();
    let (first, rest) = body.split_at(5);
    let mut stream = TcpStream::connect(service.address).unwrap();
    let head = format!(
        "POST /v1/accounts HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The service says so once it waits for the body, so the request is begun.
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go_on));
    stream.write_all(first.as_bytes()).unwrap();
    (stream, rest.to_owned())
}

fn await_unready(service: &Service) {
    for _ in 0..100 {
        if service.get("/readyz").status == 503 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("still ready two seconds after SIGTERM");
}
