//! `kill -9` under writes: what was acknowledged is there afterwards, and no sequence number is given twice.
//!
//! DOJO_KILLS says how many kills; 10 unless told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::dojo::{Client, Service, Volume};

const WRITERS: usize = 4;

#[test]
fn kills_lose_no_acknowledged_transaction() {
    let kills: u64 = std::env::var("DOJO_KILLS").map_or(10, |number| number.parse().unwrap());
    let volume = Volume::new();
    let service = volume.serve();
    let account = service.post("/v1/accounts", &json!({"name": "Cash"})).body["id"].clone();
    drop(service);

    let mut acknowledged: BTreeMap<i64, String> = BTreeMap::new();
    let mut highest = 1;
    for round in 0..kills {
        let service = volume.serve();
        assert!(service.sequence() >= highest, "round {round}: the sequence went back from {highest}");
        let new = write_until_killed(service, &account, round);
        for (sequence, payee) in new {
            assert!(sequence > highest, "round {round}: {sequence} was given before {highest}");
            assert_eq!(acknowledged.insert(sequence, payee), None, "{sequence} was given twice");
        }
        highest = acknowledged.last_key_value().map_or(1, |(sequence, _)| *sequence);
    }

    let service = volume.serve();
    let kept = all(&service);
    for (sequence, payee) in &acknowledged {
        assert_eq!(kept.get(sequence), Some(payee), "acknowledged as {sequence}, and lost");
    }
    let accounts = service.get("/v1/accounts").body;
    assert_eq!(accounts["accounts"][0]["balance_minor"], kept.len());
    assert_eq!(service.sequence(), 1 + i64::try_from(kept.len()).unwrap());
    assert_eq!(service.stop(), Some(0));
    volume.run(&["check"]).refused(0, &["is sound"]);
    eprintln!("{kills} kills, {} transactions acknowledged, {} kept", acknowledged.len(), kept.len());
    assert!(acknowledged.len() as u64 > kills, "too few writes to tell anything");
}

/// What was acknowledged before the kill: the sequence number and the payee of each.
fn write_until_killed(service: Service, account: &Value, round: u64) -> Vec<(i64, String)> {
    let acknowledged = Mutex::new(Vec::new());
    let client = service.client();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (client, acknowledged) = (client.clone(), &acknowledged);
            scope.spawn(move || write(&client, account, &format!("{round}.{writer}"), acknowledged));
        }
        // Another moment each time, the same in every run.
        std::thread::sleep(Duration::from_millis(100 + round * 37 % 300));
        service.kill();
    });
    let mut acknowledged = acknowledged.into_inner().unwrap();
    acknowledged.sort();
    acknowledged
}

fn write(client: &Client, account: &Value, name: &str, acknowledged: &Mutex<Vec<(i64, String)>>) {
    for number in 0.. {
        let payee = format!("{name}.{number}");
        let lines = json!([{"account": account, "amount_minor": 1}]);
        let body = json!({"day": "2026-01-01", "payee": payee, "lines": lines});
        let Ok(answer) = client.post("/v1/transactions", &body) else { return };
        // A body that was cut by the kill is no acknowledgement.
        let (201, Some(sequence)) = (answer.status, answer.body["sequence"].as_i64()) else { return };
        acknowledged.lock().unwrap().push((sequence, payee));
    }
}

fn all(service: &Service) -> BTreeMap<i64, String> {
    let mut kept = BTreeMap::new();
    let mut path = "/v1/transactions?limit=500".to_owned();
    loop {
        let page = service.get(&path).body;
        for one in page["transactions"].as_array().unwrap() {
            kept.insert(one["sequence"].as_i64().unwrap(), one["payee"].as_str().unwrap().to_owned());
        }
        let Some(before) = page["next_before"].as_i64() else { return kept };
        path = format!("/v1/transactions?limit=500&before={before}");
    }
}
